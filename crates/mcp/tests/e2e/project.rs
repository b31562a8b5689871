//! A project as large as real ones: Python's own library, thousands of files of it, and an app.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::world::{
    APP, Agent, Link, Pushed, Relay, World, assert_same_tree, free_port, get, is_running, tree,
};

/// What an edit of a few lines may cost, however large the project and the file.
const SMALL: u64 = 16 << 10;

/// What two ends have to say that know of each other what they have, however much that is.
const WORD: u64 = 4 << 10;

/// What a small edit may cost when the developer's memory of the agent is lost.
const LOST: u64 = 64 << 10;

#[test]
fn every_kind_of_edit_arrives_and_costs_little() {
    let project = Project::start();
    let lib = project.source.join("lib");
    let largest = largest_file(&lib);
    let (script, link) = (lib.join("new-script"), lib.join("link.py"));
    let file = lib.join("keyword.py");
    let edits: [(&str, &dyn Fn()); 12] = [
        ("a line of a small file", &|| edit(&lib.join("bisect.py"))),
        ("a line of the app", &|| {
            edit(&project.source.join("app.py"));
        }),
        ("a deleted file", &|| {
            fs::remove_file(lib.join("colorsys.py")).unwrap();
        }),
        ("a large file under another name", &|| {
            fs::rename(&largest, lib.join("moved.py")).unwrap();
        }),
        ("a directory under another name", &|| {
            fs::rename(lib.join("email"), lib.join("e-mail")).unwrap();
        }),
        ("a new script", &|| {
            fs::write(&script, "#!/bin/sh\necho new\n").unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("other permissions", &|| {
            fs::set_permissions(&script, fs::Permissions::from_mode(0o640)).unwrap();
        }),
        ("a new link", &|| symlink("bisect.py", &link).unwrap()),
        ("a link to elsewhere", &|| {
            fs::remove_file(&link).unwrap();
            symlink("../app.py", &link).unwrap();
        }),
        ("a file that becomes a directory", &|| {
            fs::remove_file(&file).unwrap();
            fs::create_dir_all(file.join("empty")).unwrap();
            fs::write(file.join("inner"), "below what was a file\n").unwrap();
        }),
        ("a directory that becomes a file", &|| {
            fs::remove_dir_all(&file).unwrap();
            fs::write(&file, "a file again\n").unwrap();
        }),
        ("a file that becomes a link", &|| {
            fs::remove_file(&file).unwrap();
            symlink("bisect.py", &file).unwrap();
        }),
    ];
    let mut before = project.push().expect("done");
    project.check(&before);
    for (what, edit) in edits {
        edit();
        eprintln!("{what}");
        let pushed = project.push().expect("done");
        project.check(&pushed);
        assert_ne!(pushed.pid(), before.pid());
        assert!(pushed.sent() < SMALL, "{pushed:#?}");
        before = pushed;
    }
}

#[test]
fn a_line_of_the_largest_file_travels_as_a_delta_even_if_the_developer_remembers_nothing() {
    let project = Project::start();
    let largest = largest_file(&project.source);
    let whole = compressed_len(&project.world, &largest);
    assert!(whole > 4 * SMALL, "{largest:?} has {whole} bytes");
    let first = project.push().expect("done");
    assert!(first.sent() > whole);

    edit(&largest);
    let warm = project.push().expect("done");
    project.check(&warm);
    assert!(warm.sent() < SMALL, "{warm:#?}");
    assert!(warm.received() < WORD, "{warm:#?}");

    fs::remove_dir_all(project.world.path("home/.local/state/patchwire")).unwrap();
    edit(&largest);
    let pushed = project.push().expect("done");
    project.check(&pushed);
    assert!(pushed.sent() < LOST, "{pushed:#?}");
    // The agent said what it has, which it does not do otherwise, and nothing that both have.
    assert!(pushed.received() > warm.received(), "{pushed:#?}");
    assert!(pushed.received() < SMALL, "{pushed:#?}");
    assert_eq!(pushed.files(), [0, 1, 0, 0]);

    edit(&largest);
    let pushed = project.push().expect("done");
    assert!(pushed.received() < WORD, "{pushed:#?}");
}

#[test]
fn an_agent_that_lost_its_state_is_sent_no_content_that_it_has() {
    let mut project = Project::start();
    project.push().expect("done");
    assert!(project.agent.process.terminate().success());
    fs::remove_dir_all(project.agent.root.join(".patchwire")).unwrap();
    project.agent = start_agent(&project.world, &project.link, project.port);
    let before = mtimes(&project.agent.root);

    let largest = largest_file(&project.source);
    edit(&largest);
    let pushed = project.push().expect("done");
    project.check(&pushed);
    // What has to be named is every path, its digest, and that it stays.
    let entries = before.len() as u64;
    assert!(
        pushed.sent() < SMALL + 200 * entries,
        "{entries}: {pushed:#?}"
    );

    let rewritten: Vec<_> = mtimes(&project.agent.root)
        .into_iter()
        .filter(|(path, time)| path.is_file() && before.get(path) != Some(time))
        .map(|(path, _)| path)
        .collect();
    let edited = largest.strip_prefix(&project.source).unwrap();
    assert_eq!(rewritten, [project.agent.root.join(edited)]);
}

#[test]
fn a_push_of_nothing_new_changes_nothing() {
    let project = Project::start();
    let first = project.push().expect("done");
    let before = mtimes(&project.agent.root);

    let second = project.push().expect("no-changes");
    assert!(second.json["error"].is_null());
    assert_eq!(second.files(), [0; 4]);
    assert_eq!(second.json["root"], first.json["root"]);
    assert_eq!(second.pid(), first.pid());
    assert!(
        second.sent() < WORD && second.received() < WORD,
        "{second:#?}"
    );

    // The same content, written anew, is nothing new either.
    let app = project.source.join("app.py");
    fs::write(&app, fs::read(&app).unwrap()).unwrap();
    let third = project.push().expect("no-changes");
    assert_eq!(third.pid(), first.pid());

    assert_eq!(mtimes(&project.agent.root), before);
    let served = get(project.port);
    assert!(served.contains(first.push_id()), "{served}");
}

/// A project at a developer's, and an agent that runs it.
struct Project {
    world: World,
    _relay: Relay,
    link: Link,
    source: PathBuf,
    agent: Agent,
    port: u16,
}

impl Project {
    fn start() -> Self {
        let world = World::new();
        let relay = Relay::start(&world);
        let link = world.link(&relay, "library", "dev");
        let (source, port) = (world.path("source"), free_port());
        copy_library(&world, &source.join("lib"));
        fs::write(source.join("app.py"), APP).unwrap();
        let agent = start_agent(&world, &link, port);
        Self {
            world,
            _relay: relay,
            link,
            source,
            agent,
            port,
        }
    }

    fn push(&self) -> Pushed {
        self.world.push(&self.link, &self.source)
    }

    /// Checks that what was pushed is there, and that it runs: the answer came after that.
    #[track_caller]
    fn check(&self, pushed: &Pushed) {
        let served = get(self.port);
        assert!(served.contains(pushed.push_id()), "{served}: {pushed:#?}");
        assert!(is_running(pushed.pid()), "{pushed:#?}");
        assert_same_tree(&self.source, &self.agent.root);
    }
}

fn start_agent(world: &World, link: &Link, port: u16) -> Agent {
    let ready = format!("http://127.0.0.1:{port}/");
    Agent::start(
        world,
        link,
        &world.path("target"),
        &["--ready", &ready],
        &["python3", "app.py", &port.to_string()],
    )
}

/// Puts one line more into the middle of a file.
pub(crate) fn edit(file: &Path) {
    let content = fs::read(file).unwrap();
    let (head, tail) = content.split_at(content.len() / 2);
    let line_end = tail.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let edited = [head, &tail[..line_end], b"# edited\n", &tail[line_end..]];
    fs::write(file, edited.concat()).unwrap();
}

/// Copies the text files of the library of the Python that is installed, tests and all.
pub(crate) fn copy_library(world: &World, to: &Path) {
    let mut python = world.command("python3");
    let program = "import sysconfig; print(sysconfig.get_path('stdlib'))";
    let output = python.args(["-c", program]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let from = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end());
    let mut files = 0;
    each_file(&from, &mut |path| {
        let is = |extension: &str| path.extension().is_some_and(|own| own == extension);
        let is_text = ["py", "txt", "h", "html", "decTest"].into_iter().any(is);
        if is_text {
            let copy = to.join(path.strip_prefix(&from).unwrap());
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            // Content alone: what is installed may be write-protected.
            fs::write(copy, fs::read(path).unwrap()).unwrap();
            files += 1;
        }
    });
    assert!(files > 500, "{files} are not a project");
}

/// Calls `found` with each regular file of a directory, without what was installed later.
pub(crate) fn each_file(below: &Path, found: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(below).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let name = entry.file_name();
        if kind.is_dir() && name != "site-packages" && name != "dist-packages" {
            each_file(&path, found);
        } else if kind.is_file() {
            found(&path);
        }
    }
}

fn largest_file(root: &Path) -> PathBuf {
    let mut files = Vec::new();
    each_file(root, &mut |path| {
        files.push((fs::metadata(path).unwrap().len(), path.to_owned()));
    });
    files.into_iter().max().unwrap().1
}

/// How long a file is when all of it is compressed, as well as Python can.
fn compressed_len(world: &World, file: &Path) -> u64 {
    let program = "import lzma, sys; print(len(lzma.compress(open(sys.argv[1], 'rb').read())))";
    let mut python = world.command("python3");
    let output = python.args(["-c", program]).arg(file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    printed.trim_end().parse().unwrap()
}

/// When each path below the root was changed, and the root itself, but for the agent's state.
fn mtimes(root: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let below = tree(root).into_keys().map(|path| root.join(path));
    let time = |path: PathBuf| {
        let modified = fs::symlink_metadata(&path).unwrap().modified().unwrap();
        (path, modified)
    };
    below.chain([root.to_owned()]).map(time).collect()
}
