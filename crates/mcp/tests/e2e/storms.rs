//! Thousands of changes at once under a watch: what arrives in the end, and in how many pushes.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    time::Instant,
};

use patchwire_client::{Client, ConnectOptions, PushRequest, WatchEvent, WatchOptions};
use patchwire_tree::{ScanOptions, StatCache, SymlinkPolicy};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{
    model::{
        expectation::{IGNORED, pushed_of},
        mutation::Mutator,
        random::Random,
    },
    project::{copy_library, each_file, edit},
    world::{
        Agent, IDLE, Link, PATIENCE, Process, Relay, World, assert_same_tree, at, skipped,
        test_tool, tree,
    },
};

/// The most pushes that a storm of a thousand changes and more may become, also on a machine that is
/// so slow that it seems to have an end many times.
const FEW: usize = 50;

/// A deployment, and a developer who watches with the times that are the default.
struct Storm {
    world: World,
    _relay: Relay,
    link: Link,
    source: PathBuf,
    agent: Agent,
    watch: Process,
    /// How much of its output was looked at.
    read: usize,
    /// The root of the tree that the last push left at the agent.
    root: String,
    pushes: usize,
}

impl Storm {
    /// Starts everything on what `prepare` puts into the source, and waits until that is pushed.
    fn brew(prepare: impl Fn(&World, &Path)) -> Self {
        let world = World::new();
        let relay = Relay::start(&world);
        let link = world.link(&relay, "storm", "dev");
        let source = world.path("work/source");
        fs::create_dir_all(&source).unwrap();
        prepare(&world, &source);
        let options = ["--reload", "none", "--ready", "alive:1ms"];
        let agent = Agent::start(&world, &link, &world.path("target"), &options, &IDLE);
        let mut command = world.patchwire();
        command.args(["watch", "--json", "--link"]);
        command.arg(at(&link.full)).arg("--root").arg(&source);
        let watch = Process::start(&mut command);
        let mut storm = Self {
            world,
            _relay: relay,
            link,
            source,
            agent,
            watch,
            read: 0,
            root: String::new(),
            pushes: 0,
        };
        storm.is_over("the start", 1);
        storm
    }

    /// Waits until what is here now is what the agent has, and checks that it is so and that it took
    /// few pushes.
    #[track_caller]
    fn is_over(&mut self, what: &str, most: usize) {
        let started = Instant::now();
        let options = ScanOptions {
            excludes_file: None,
            ..ScanOptions::default()
        };
        let here = root_of(&self.source, &options);
        while self.root != here {
            // The first thing in a report.
            self.read = self.watch.wait_for("{\"push_id\"", self.read);
            let output = self.watch.output();
            let line = output[..self.read].trim_end().rsplit('\n').next().unwrap();
            let report: Value = serde_json::from_str(line).expect(line);
            assert_eq!(report["status"], "done", "{report:#}\n{output}");
            report["root"].as_str().unwrap().clone_into(&mut self.root);
            self.pushes += 1;
        }
        let (pushes, took) = (std::mem::take(&mut self.pushes), started.elapsed());
        eprintln!("{what}: {pushes} pushes, the last of them after {took:.1?}");
        assert!(pushes <= most, "{what}: {pushes} pushes");
        // Another process, that has heard of nothing, finds nothing to push either.
        self.world
            .push(&self.link, &self.source)
            .expect("no-changes");
    }

    /// Runs a program in the source.
    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str]) {
        run(&self.world, &self.source, program, arguments);
    }

    #[track_caller]
    fn assert_same(&self, but: &[&str]) {
        let mut here = tree(&self.source);
        here.retain(|path, _| !but.iter().any(|aside| path.starts_with(aside)));
        assert!(here == tree(&self.agent.root), "another tree came");
    }
}

/// The root of what is to be pushed of a directory.
fn root_of(source: &Path, options: &ScanOptions) -> String {
    let scan = patchwire_tree::scan(source, options, &mut StatCache::default(), &|_| ());
    scan.unwrap().manifest.root().to_string()
}

#[track_caller]
fn run(world: &World, directory: &Path, program: &str, arguments: &[&str]) {
    let mut command: Command = world.command(program);
    let output = command.args(arguments).current_dir(directory).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn git(world: &World, directory: &Path, arguments: &[&str]) {
    let own = [
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "gc.auto=0",
    ];
    run(world, directory, "git", &[&own, arguments].concat());
}

#[test]
fn a_checkout_between_distant_commits_arrives() {
    let mut storm = Storm::brew(|world, source| {
        git(world, source, &["init", "--quiet", "--initial-branch=old"]);
        copy_library(world, &source.join("lib"));
        fs::write(source.join("becomes-directory"), "a file\n").unwrap();
        git(world, source, &["add", "."]);
        git(world, source, &["commit", "--quiet", "-m", "old"]);

        git(world, source, &["checkout", "--quiet", "-b", "new"]);
        let lib = source.join("lib");
        let mut number = 0;
        each_file(&lib, &mut |file| {
            number += 1;
            let content = fs::read(file).unwrap();
            let has_lines = content[content.len() / 2..].contains(&b'\n');
            match number % 7 {
                0 => fs::remove_file(file).unwrap(),
                1 | 2 if has_lines => edit(file),
                _ => {}
            }
        });
        for directory in ["email", "json", "unittest"] {
            let to = lib.join("moved").join(directory);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::rename(lib.join(directory), to).unwrap();
        }
        fs::remove_file(source.join("becomes-directory")).unwrap();
        fs::create_dir(source.join("becomes-directory")).unwrap();
        fs::write(source.join("becomes-directory/file"), "in it\n").unwrap();
        symlink("moved/email", lib.join("email")).unwrap();
        git(world, source, &["add", "--all"]);
        git(world, source, &["commit", "--quiet", "-m", "new"]);
        git(world, source, &["checkout", "--quiet", "old"]);
    });
    for branch in ["new", "old", "new"] {
        storm.run("git", &["checkout", "--quiet", branch]);
        storm.is_over(&format!("git checkout {branch}"), FEW);
        storm.assert_same(&[".git"]);
    }
}

#[test]
fn what_npm_installs_arrives_unless_it_is_ignored() {
    let Some(modules) = test_tool("PATCHWIRE_TEST_NODE_MODULES", "npm/node_modules") else {
        return;
    };
    if Command::new("npm").arg("--version").output().is_err() {
        return skipped("npm is not installed: no package was installed under a watch");
    }
    // More than a thousand files that need no other package, packed and installed as from a registry.
    let packages = ["zod", "hono"].map(|name| modules.join(name).display().to_string());
    let mut install = vec!["install", "--install-links", "--offline"];
    install.extend(["--no-audit", "--no-fund"]);
    install.extend(packages.iter().map(String::as_str));
    let mut storm = Storm::brew(|_, source| {
        fs::create_dir(source.join("ignoring")).unwrap();
        fs::write(source.join("ignoring/.gitignore"), "node_modules\n").unwrap();
        for place in ["package.json", "ignoring/package.json"] {
            fs::write(source.join(place), "{}\n").unwrap();
        }
    });
    let ignoring = storm.source.join("ignoring");
    run(&storm.world, &ignoring, "npm", &install);
    assert!(ignoring.join("node_modules/zod").exists());
    storm.is_over("npm install where it is ignored", FEW);
    storm.assert_same(&["ignoring/node_modules"]);

    storm.run("npm", &install);
    storm.is_over("npm install where it is not", FEW);
    storm.assert_same(&["ignoring/node_modules"]);
    let installed = storm.agent.root.join("node_modules");
    assert!(tree(&installed).len() > 1000);
}

/// Saves files as editors do, again and again: written beside, and renamed over.
fn save_a_thousand_times(source: &Path) {
    for number in 0..1000 {
        let file = source.join(format!("pkg/{}.py", number % 50));
        let temporary = file.with_extension("tmp");
        fs::write(&temporary, format!("version = {number}\n")).unwrap();
        fs::rename(temporary, file).unwrap();
    }
}

#[test]
fn a_thousand_saves_within_a_second_arrive() {
    let mut storm = Storm::brew(|_, source| {
        fs::create_dir(source.join("pkg")).unwrap();
        fs::write(source.join("pkg/main.py"), "").unwrap();
    });
    let started = Instant::now();
    save_a_thousand_times(&storm.source);
    let took = started.elapsed();
    storm.is_over(&format!("1000 saves in {took:.1?}"), FEW);
    assert_same_tree(&storm.source, &storm.agent.root);
}

#[test]
fn a_root_whose_parent_is_renamed_and_back_loses_nothing() {
    let mut storm = Storm::brew(|_, source| {
        fs::create_dir(source.join("pkg")).unwrap();
        fs::write(source.join("pkg/main.py"), "").unwrap();
    });
    let [here, away] = ["work", "away"].map(|name| storm.world.path(name));
    let before = tree(&storm.agent.root);
    for save in 0..2 {
        fs::rename(&here, &away).unwrap();
        let saved = away.join("source/pkg/main.py");
        fs::write(saved, format!("saved = {save}\n")).unwrap();
        let from = storm.watch.wait_for("is gone", storm.read);
        if save == 0 {
            assert_eq!(tree(&storm.agent.root), before);
        }
        fs::rename(&away, &here).unwrap();
        storm.watch.wait_for("is back", from);
        storm.is_over("a parent that was renamed", FEW);
        assert_same_tree(&storm.source, &storm.agent.root);
    }
    save_a_thousand_times(&storm.source);
    storm.is_over("1000 saves after that", FEW);
    assert_same_tree(&storm.source, &storm.agent.root);
}

/// A program that watches by itself, with the library.
struct Program {
    source: PathBuf,
    agent: Agent,
    scan: ScanOptions,
    /// That a push begins or comes to nothing, and the root that it leaves at the agent.
    events: mpsc::Receiver<Option<String>>,
    /// The root that the last one left.
    root: Option<String>,
    pushes: usize,
    /// What watches ends with it.
    _runtime: Runtime,
    _relay: Relay,
    world: World,
}

impl Program {
    fn start() -> Self {
        let world = World::new();
        let relay = Relay::start(&world);
        let link = world.link(&relay, "storm", "dev");
        let source = world.path("source");
        fs::create_dir_all(source.join("pkg")).unwrap();
        fs::write(source.join("pkg/main.py"), "").unwrap();
        let agent = Agent::idle(&world, &link, &world.path("target"));
        let client = Client::new(link.read(), ConnectOptions::default());
        let mut request = PushRequest::new(&source, world.path("memory"));
        request.scan.excludes_file = None;
        request.scan.ignore = vec![IGNORED.to_owned()];
        request.scan.symlinks = SymlinkPolicy::Any;
        request.delete_any = true;
        let scan = request.scan.clone();
        let (told, events) = mpsc::channel();
        let observer = move |event| {
            let root = match event {
                WatchEvent::Pushed { report, .. } => report.root.map(|root| root.to_string()),
                WatchEvent::Pushing { .. } | WatchEvent::Unchanged | WatchEvent::Failed { .. } => {
                    None
                }
                _ => return,
            };
            let _ = told.send(root);
        };
        let runtime = Runtime::new().unwrap();
        runtime.spawn(async move {
            let options = WatchOptions::default();
            client.watch(&request, &options, &observer).await
        });
        let mut program = Self {
            source,
            agent,
            scan,
            events,
            root: None,
            pushes: 0,
            _runtime: runtime,
            _relay: relay,
            world,
        };
        program.arrives();
        assert_eq!(program.pushes, 1);
        program
    }

    /// Waits until a push begins or ends.
    #[track_caller]
    fn goes_on(&mut self) {
        if let Some(root) = self.events.recv_timeout(PATIENCE).unwrap() {
            self.root = Some(root);
            self.pushes += 1;
        }
    }

    /// Waits until what is here now is what the agent has.
    #[track_caller]
    fn arrives(&mut self) {
        let here = root_of(&self.source, &self.scan);
        while self.root.as_ref() != Some(&here) {
            self.goes_on();
        }
        assert!(pushed_of(&tree(&self.source)) == tree(&self.agent.root));
    }
}

#[test]
fn a_program_that_watches_by_itself_hears_of_a_storm_as_well() {
    let mut program = Program::start();
    save_a_thousand_times(&program.source);
    program.arrives();
    let pushes = program.pushes - 1;
    eprintln!("1000 saves, by the library: {pushes} pushes");
    assert!(pushes <= FEW);
}

#[test]
fn whatever_is_done_to_a_watched_tree_arrives() {
    const BATCHES: usize = 80;
    const BATCH: usize = 25;
    let mut program = Program::start();
    let mut random = Random::new(5);
    let outside = program.world.path("home");
    for batch in 0..BATCHES {
        for _ in 0..BATCH {
            Mutator {
                root: &program.source,
                outside: &outside,
                random: &mut random,
                shrinks: false,
            }
            .mutate();
        }
        // So that there is always something to push.
        let marker = program.source.join(format!("after-{batch}"));
        fs::write(marker, random.bytes(8)).unwrap();
        // While it is pushed more is done, but for every fourth time.
        match batch % 4 {
            3 => program.arrives(),
            _ => program.goes_on(),
        }
    }
    let pushes = program.pushes;
    eprintln!("{BATCHES} times {BATCH} mutations: {pushes} pushes");
}
