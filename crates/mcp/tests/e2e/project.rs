//! A project as large as real ones: Python's own library, thousands of files of it, and an app.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::world::{APP, Agent, Link, Pushed, Relay, World, assert_same_tree, free_port, get};

/// What an edit of a few lines may cost, however large the project and the file.
const SMALL: u64 = 16 << 10;

/// What makes two trees of thousands of files known to be the same.
const WORD: u64 = 4 << 10;

#[test]
fn every_kind_of_edit_arrives_and_costs_little() {
    let project = Project::start();
    let first = project.push().expect("done");
    assert!(first.sent() < first.json["bytes"]["tree"].as_u64().unwrap() / 2);
    project.check(&first);

    let library = project.source.join("lib");
    let largest = largest_file(&library);
    let moved = library.join("moved.py");
    let script = library.join("new-script");
    let (file, inner) = (
        library.join("keyword.py"),
        library.join("keyword.py/inner.txt"),
    );
    let edits: [(&str, &dyn Fn()); 11] = [
        ("changed 1", &|| edit(&library.join("bisect.py"))),
        ("deleted 1", &|| {
            fs::remove_file(library.join("colorsys.py")).unwrap();
        }),
        ("moved 1", &|| fs::rename(&largest, &moved).unwrap()),
        ("moved n", &|| {
            fs::rename(library.join("email"), library.join("e-mail")).unwrap();
        }),
        ("added 1", &|| {
            fs::write(&script, "#!/bin/sh\necho new\n").unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("changed 1", &|| {
            fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("added 1", &|| {
            symlink("bisect.py", library.join("link.py")).unwrap();
        }),
        ("changed 1", &|| {
            fs::remove_file(library.join("link.py")).unwrap();
            symlink("../app.py", library.join("link.py")).unwrap();
        }),
        ("added 1, deleted 1", &|| {
            fs::remove_file(&file).unwrap();
            fs::create_dir(&file).unwrap();
            fs::write(&inner, "below what was a file\n").unwrap();
        }),
        ("changed 1, deleted 1", &|| {
            fs::remove_dir_all(&file).unwrap();
            fs::write(&file, "a file again\n").unwrap();
        }),
        ("added 0", &|| {
            fs::create_dir_all(library.join("empty/inside")).unwrap();
        }),
    ];
    let mut before = first;
    for (expected, make) in edits {
        make();
        let pushed = project.push().expect("done");
        project.check(&pushed);
        assert_ne!(pushed.pid(), before.pid(), "{expected}");
        assert!(pushed.sent() < SMALL, "{expected}: {pushed:#?}");
        assert!(pushed.received() < WORD, "{expected}: {pushed:#?}");
        println!("{expected}: {} sent {}", pushed.json["files"], pushed.sent());
        before = pushed;
    }
}

fn largest_file(root: &Path) -> PathBuf {
    let _ = (SystemTime::now(), BTreeMap::<u8, u8>::new());
    let mut files = Vec::new();
    each_file(root, &mut |path| {
        files.push((fs::metadata(path).unwrap().len(), path.to_owned()));
    });
    files.into_iter().max().unwrap().1
}

/// Puts one line more into the middle of a file.
fn edit(file: &Path) {
    let content = fs::read(file).unwrap();
    let (head, tail) = content.split_at(content.len() / 2);
    let line_end = tail.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let edited = [head, &tail[..line_end], b"# edited\n", &tail[line_end..]];
    fs::write(file, edited.concat()).unwrap();
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
        assert!(Path::new(&format!("/proc/{}", pushed.pid())).exists());
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

/// Copies the text files of the library of the Python that is installed, tests and all.
fn copy_library(world: &World, to: &Path) {
    let mut python = world.command("python3");
    let output = python
        .args(["-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let from = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end());
    let mut files = 0;
    each_file(&from, &mut |path| {
        let is_text = path
            .extension()
            .is_some_and(|name| ["py", "txt", "h", "decTest", "html"].iter().any(|e| name == *e));
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

fn each_file(below: &Path, found: &mut dyn FnMut(&Path)) {
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
