//! `patchwire watch`: what is saved arrives, once, through whatever happens meanwhile.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use patchwire_client::{Client, ConnectOptions};
use patchwire_transport::DeploymentLink;
use rustix::process::Signal;
use serde_json::Value;

use crate::world::{
    Agent, IDLE, Link, Process, Relay, World, assert_same_tree, at, skipped, stop, terminal, tree,
    wait_until,
};

/// An app that ends at once where there is a file called `bad`.
const PICKY: [&str; 3] = [
    "sh",
    "-c",
    "if test -e bad; then echo I hate this; exit 3; fi; exec sleep 1000",
];

/// A deployment with a developer who watches.
struct Watched {
    world: World,
    relay: Option<Relay>,
    link: Link,
    source: PathBuf,
    agent: Option<Agent>,
    watch: Process,
    /// How much of its output was looked at for reports.
    read: usize,
    /// And for what it says.
    heard: usize,
}

impl Watched {
    fn start() -> Self {
        Self::start_with(&["--ready", "alive:1ms"], &IDLE, |_| ())
    }

    /// Starts everything, and waits until what was there at the start is pushed.
    fn start_with(options: &[&str], app: &[&str], prepare: impl Fn(&Path)) -> Self {
        let mut watched = Self::start_under(options, app, prepare, |command| command);
        let first = watched.pushed("done");
        assert!(first["files"]["added"].as_u64().unwrap() > 0, "{first}");
        watched.settled();
        watched
    }

    /// Starts everything, the watch by what `under` makes of its command.
    fn start_under(
        options: &[&str],
        app: &[&str],
        prepare: impl Fn(&Path),
        under: impl Fn(Command) -> Command,
    ) -> Self {
        let world = World::new();
        let relay = Relay::start(&world);
        let link = world.link(&relay, "shop", "dev");
        let agent = Agent::start(&world, &link, &world.path("target"), options, app);
        Self::start_in(world, relay, link, agent, prepare, under)
    }

    /// Starts a watch where there are relay and agent.
    fn start_in(
        world: World,
        relay: Relay,
        link: Link,
        agent: Agent,
        prepare: impl Fn(&Path),
        under: impl Fn(Command) -> Command,
    ) -> Self {
        let source = world.path("source");
        fs::create_dir_all(source.join("pkg")).unwrap();
        fs::write(source.join("pkg/module.py"), "answer = 42\n").unwrap();
        fs::write(source.join("main.py"), "# first\n").unwrap();
        prepare(&source);
        let mut command = world.patchwire();
        command.args(["watch", "--json", "--link"]);
        command.arg(at(&link.full)).arg("--root").arg(&source);
        // So that what a test does in two steps is one push, however slow they are.
        command.arg("--quiet-time=300ms");
        let watch = Process::start(&mut under(command));
        Self {
            world,
            relay: Some(relay),
            link,
            source,
            agent: Some(agent),
            watch,
            read: 0,
            heard: 0,
        }
    }

    fn save(&self, name: &str, content: &str) {
        fs::write(self.source.join(name), content).unwrap();
    }

    /// Waits for the next push, and checks how it ended.
    #[track_caller]
    fn pushed(&mut self, status: &str) -> Value {
        let report = self.next_push();
        let output = self.watch.output();
        assert_eq!(report["status"], status, "{report:#}\n{output}");
        report
    }

    fn next_push(&mut self) -> Value {
        // The first thing in a report. What comes on standard error stands on lines of its own.
        self.read = self.watch.wait_for("{\"push_id\"", self.read);
        let output = self.watch.output();
        let line = output[..self.read].trim_end().rsplit('\n').next().unwrap();
        serde_json::from_str(line).expect(line)
    }

    /// Waits for the next push, and checks that it is about these files: added, changed, deleted,
    /// moved.
    #[track_caller]
    fn pushed_files(&mut self, files: [u64; 4]) -> Value {
        let report = self.pushed("done");
        let kinds = ["added", "changed", "deleted", "moved"];
        let pushed = kinds.map(|kind| report["files"][kind].as_u64().unwrap());
        assert_eq!(pushed, files, "{report:#}\n{}", self.watch.output());
        report
    }

    /// Checks that nothing but a marker is left to push: the next push is about that alone.
    #[track_caller]
    fn settled(&mut self) {
        self.save("marker", &format!("after {} bytes of output\n", self.read));
        let known = self.target().join("marker").exists();
        self.pushed_files([u64::from(!known), u64::from(known), 0, 0]);
    }

    /// The same, and the agent has what is here.
    #[track_caller]
    fn settled_and_same(&mut self) {
        self.settled();
        assert_same_tree(&self.source, &self.target());
    }

    /// Waits until what is here has arrived, in one push or in more. One that was said on a
    /// connection that was dead may have been heard, for all that is known here.
    #[track_caller]
    fn arrives(&mut self) {
        while tree(&self.target()) != tree(&self.source) {
            let report = self.next_push();
            let heard = report["status"] == "done" || report["status"] == "unknown";
            assert!(heard, "{report:#}\n{}", self.watch.output());
        }
    }

    fn target(&self) -> PathBuf {
        self.agent.as_ref().unwrap().root.clone()
    }

    /// Waits until it says so on standard error, after what it said before.
    #[track_caller]
    fn says(&mut self, text: &str) {
        self.heard = self.watch.wait_for(text, self.heard);
    }

    fn said(&self, text: &str) -> usize {
        self.watch.output().matches(text).count()
    }
}

#[test]
fn a_changed_configuration_counts_from_the_next_push_on() {
    let mut watched = Watched::start();
    watched.save("patchwire.toml", "ignore = [\"*.secret\"]\n");
    watched.says("was read again");
    watched.pushed_files([1, 0, 0, 0]);
    watched.save("a.secret", "");
    watched.settled();
    assert!(!watched.target().join("a.secret").exists());

    watched.save("patchwire.toml", "ignroe = []\n");
    watched.says("line 1: unknown key `ignroe`");
    watched.save("late", "");
    watched.save("patchwire.toml", "");
    watched.says("was read again");
    watched.arrives();
    assert!(watched.target().join("a.secret").exists());

    // What a link may not be used for at the start is not done later either.
    watched.save("patchwire.toml", "app = \"other\"\n");
    watched.says("but “");
    watched.save("patchwire.toml", "");
    watched.says("was read again");
    watched.settled_and_same();
}

#[test]
fn each_save_is_one_push_and_what_changes_nothing_is_none() {
    let mut watched = Watched::start_with(&["--ready", "alive:1ms"], &IDLE, |source| {
        fs::write(source.join(".gitignore"), "node_modules\n*.log\n").unwrap();
        fs::create_dir(source.join("node_modules")).unwrap();
    });
    for round in 0..3 {
        watched.save("main.py", &format!("# {round}\n"));
        watched.pushed_files([0, 1, 0, 0]);
    }

    // As editors save: beside it, and renamed over it.
    watched.save("pkg/.module.py.tmp", "answer = 43\n");
    let [temporary, module] =
        ["pkg/.module.py.tmp", "pkg/module.py"].map(|name| watched.source.join(name));
    fs::rename(temporary, module).unwrap();
    watched.pushed_files([0, 1, 0, 0]);
    watched.settled();

    watched.save("main.py", "# 2\n");
    watched.save("node_modules/ignored", "");
    watched.save("ignored.log", "");
    watched.settled();

    // Directories that come and go.
    let directory = watched.source.join("new/deeper");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("file.py"), "").unwrap();
    watched.pushed_files([1, 0, 0, 0]);
    watched.save("new/deeper/file.py", "changed = True\n");
    watched.pushed_files([0, 1, 0, 0]);
    fs::rename(watched.source.join("new"), watched.source.join("newer")).unwrap();
    watched.pushed_files([0, 0, 0, 1]);
    watched.save("newer/deeper/file.py", "changed = 'again'\n");
    watched.pushed_files([0, 1, 0, 0]);
    fs::remove_dir_all(watched.source.join("newer")).unwrap();
    watched.pushed_files([0, 0, 1, 0]);
    watched.settled();

    fs::remove_file(watched.source.join("ignored.log")).unwrap();
    fs::remove_dir_all(watched.source.join("node_modules")).unwrap();
    watched.settled_and_same();

    watched.watch.signal(Signal::INT);
    assert_eq!(watched.watch.child.wait().unwrap().code(), Some(130));
    assert!(!watched.watch.output().contains("panicked"));
}

#[test]
fn a_person_reads_one_line_for_each_push() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("main.py"), "# first\n").unwrap();
    let _agent = Agent::idle(&world, &link, &world.path("target"));
    let mut command = world.patchwire();
    command.args(["watch", "--link"]).arg(at(&link.full));
    let mut watch = Process::start(command.arg("--root").arg(&source));
    watch.wait_for("for shop/dev", 0);
    let first = watch.wait_for("pushed 1 file (1 added), ", 0);
    fs::write(source.join("main.py"), "# second\n").unwrap();
    watch.wait_for("pushed 1 file (1 changed), ", first);
    assert!(watch.output().contains(": ready (pid "));
    assert_eq!(watch.terminate().code(), Some(143));
}

#[test]
fn a_terminal_that_is_stopped_holds_up_no_push() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("main.py"), "# first\n").unwrap();
    let agent = Agent::idle(&world, &link, &world.path("target"));
    let terminal = terminal();
    let mut command = world.patchwire();
    command.args(["watch", "--link"]).arg(at(&link.full));
    command.arg("--root").arg(&source);
    let [stdout, stderr] = [(); 2].map(|()| terminal.try_clone().unwrap());
    command.stdout(stdout).stderr(stderr).env("TERM", "xterm");
    let mut watch = Process::start_unread(&mut command);
    wait_until("the first push", || tree(&source) == tree(&agent.root));
    stop(&terminal);
    for version in 0..3 {
        fs::write(source.join("main.py"), format!("# {version}\n")).unwrap();
        wait_until("what is saved", || tree(&source) == tree(&agent.root));
    }
    assert_eq!(watch.terminate().code(), Some(143));
}

#[test]
fn a_checkout_of_thousands_of_files_is_one_push() {
    let git = |source: &Path, arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@b"]);
        command.args(["-c", "init.defaultBranch=main", "-c", "gc.auto=0"]);
        let output = command
            .args(arguments)
            .current_dir(source)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let write = |source: &Path, version: &str| {
        for directory in 0..30 {
            let directory = source.join(format!("src/{directory}"));
            fs::create_dir_all(&directory).unwrap();
            for file in 0..100 {
                let file = directory.join(format!("{file}.py"));
                fs::write(&file, format!("# {version} of {}\n", file.display())).unwrap();
            }
        }
    };
    let mut watched = Watched::start_with(&["--ready", "alive:1ms"], &IDLE, |source| {
        git(source, &["init", "-q"]);
        write(source, "main");
        git(source, &["add", "."]);
        git(source, &["commit", "-qm", "main"]);
        git(source, &["checkout", "-qb", "other"]);
        write(source, "other");
        fs::remove_dir_all(source.join("src/0")).unwrap();
        fs::create_dir(source.join("more")).unwrap();
        fs::write(source.join("more/file.py"), "").unwrap();
        git(source, &["add", "-A"]);
        git(source, &["commit", "-qm", "other"]);
        git(source, &["checkout", "-q", "main"]);
    });
    let same = |watched: &Watched| {
        let mut source = tree(&watched.source);
        source.retain(|path, _| !path.starts_with(".git"));
        assert!(source == tree(&watched.target()), "another tree came");
    };
    git(&watched.source, &["checkout", "-q", "other"]);
    watched.pushed_files([1, 2900, 100, 0]);
    same(&watched);
    watched.settled();
    git(&watched.source, &["checkout", "-q", "main"]);
    watched.pushed_files([100, 2900, 1, 0]);
    same(&watched);
    watched.settled();
}

#[test]
fn what_is_saved_during_a_push_is_pushed_after_it() {
    let gate = tempfile::tempdir().unwrap();
    let open = gate.path().join("open");
    fs::write(&open, "").unwrap();
    let ready = format!("command:test -e {}", open.display());
    let options = ["--ready", &*ready, "--ready-timeout", "120s"];
    let mut watched = Watched::start_with(&options, &IDLE, |_| ());
    fs::remove_file(&open).unwrap();
    let from = watched.agent.as_ref().unwrap().process.output().len();
    watched.save("main.py", "# pushed first\n");
    let agent = &watched.agent.as_ref().unwrap().process;
    agent.wait_for("app-started", from);
    watched.save("main.py", "# saved during the push\n");
    watched.save("pkg/module.py", "# this too\n");
    fs::write(&open, "").unwrap();
    watched.pushed_files([0, 1, 0, 0]);
    watched.pushed_files([0, 2, 0, 0]);
    watched.settled_and_same();
}

#[test]
fn a_version_that_is_rolled_back_is_not_sent_again_until_it_changes() {
    let options = ["--ready", "alive:300ms"];
    let mut watched = Watched::start_with(&options, &PICKY, |_| ());
    watched.save("bad", "1\n");
    let report = watched.pushed("rolled-back");
    assert_eq!(report["agents"][0]["log_tail"][0], "I hate this");
    watched.save("bad", "1\n");
    watched.says("not sent again until it changes");
    assert!(!watched.target().join("bad").exists());
    watched.save("bad", "2\n");
    watched.pushed("rolled-back");
    // Nor when the agent is started again on what it had.
    let mut agent = watched.agent.take().unwrap();
    let root = agent.root.clone();
    // It says that it goes. One that is killed is missed after a while, as others here show.
    agent.process.terminate();
    watched.says("the agent is away");
    watched.agent = Some(Agent::start(
        &watched.world,
        &watched.link,
        &root,
        &options,
        &PICKY,
    ));
    watched.says("the agent is back");
    fs::remove_file(watched.source.join("bad")).unwrap();
    watched.save("main.py", "# better\n");
    watched.pushed_files([0, 1, 0, 0]);
    watched.settled_and_same();
}

#[test]
fn a_version_that_one_agent_failed_on_is_sent_to_the_next() {
    let ready = ["--ready", "alive:300ms"];
    let broken = ["sh", "-c", "echo no database; exit 3"];
    let mut watched = Watched::start_under(&ready, &broken, |_| (), |command| command);
    watched.pushed("failed");
    watched.agent.take().unwrap().process.terminate();
    watched.says("the agent is away");
    let newer = Agent::idle(&watched.world, &watched.link, &watched.world.path("newer"));
    watched.agent = Some(newer);
    watched.pushed_files([2, 0, 0, 0]);
    watched.settled_and_same();
}

#[test]
fn a_directory_that_cant_be_scanned_is_pushed_once_it_can() {
    let mut watched = Watched::start();
    let leaving = watched.source.join("pkg/leaving");
    symlink("/etc/passwd", &leaving).unwrap();
    watched.says("outside the root");
    watched.save("main.py", "# saved meanwhile\n");
    fs::remove_file(&leaving).unwrap();
    watched.pushed_files([0, 1, 0, 0]);
    watched.settled_and_same();
    assert_eq!(watched.said("outside the root"), 1);
}

#[test]
fn a_relay_that_is_killed_and_started_again_costs_no_save() {
    let mut watched = Watched::start();
    watched.relay.as_mut().unwrap().process.kill();
    watched.save("main.py", "# while the relay is gone\n");
    watched.says("the agent is away");
    watched.save("pkg/module.py", "# and when that is known\n");
    let relay = watched.relay.take().unwrap();
    watched.relay = Some(relay.restart(&watched.world));
    watched.says("the agent is back");
    watched.arrives();
    watched.settled_and_same();
    for once in ["the agent is away", "the agent is back"] {
        assert_eq!(watched.said(once), 1, "{}", watched.watch.output());
    }
}

#[test]
fn an_agent_that_is_replaced_by_one_without_a_tree_is_pushed_to_without_a_save() {
    let mut watched = Watched::start();
    let older = watched.agent.take();
    let newer = Agent::idle(&watched.world, &watched.link, &watched.world.path("newer"));
    watched.agent = Some(newer);
    watched.pushed_files([3, 0, 0, 0]);
    assert_same_tree(&watched.source, &watched.target());
    drop(older);
    watched.settled_and_same();
}

#[test]
fn another_agent_with_another_secret_does_not_end_a_watch() {
    let mut watched = Watched::start();
    let older = watched.agent.take().unwrap();
    let root = older.root.clone();
    drop(older);
    watched.says("the agent is away");
    // Of the same name, by a link that somebody made anew.
    let relay = watched.relay.as_ref().unwrap();
    let [app, deployment] = ["shop", "dev"].map(|name| name.parse().unwrap());
    let other = DeploymentLink::mint(&relay.link(), app, deployment).unwrap();
    let other = Link::write(&watched.world, "other", &other);
    let stranger = Agent::idle(&watched.world, &other, &watched.world.path("other"));
    watched.says("not pushed: ");
    watched.save("main.py", "# while another agent is there\n");
    drop(stranger);
    watched.agent = Some(Agent::idle(&watched.world, &watched.link, &root));
    watched.says("the agent is back");
    watched.pushed_files([0, 1, 0, 0]);
    watched.settled_and_same();
    assert_eq!(
        watched.said("not pushed: "),
        1,
        "{}",
        watched.watch.output()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_places_for_followers_are_taken_it_is_pushed_all_the_same() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let agent = Agent::idle(&world, &link, &world.path("target"));
    let others = Client::new(link.read(), ConnectOptions::default());
    let mut followers = Vec::new();
    // As many as it has places for, and one.
    for _ in 0..33 {
        let mut follower = others.follow().await.unwrap();
        follower.next().await.unwrap();
        followers.push(follower);
    }
    let full = "too many developers follow the app";
    agent.process.wait_for(full, 0);
    let mut watched = Watched::start_in(world, relay, link, agent, |_| (), |command| command);
    watched.pushed("done");
    for round in 0..3 {
        watched.save("main.py", &format!("# {round}\n"));
        watched.pushed_files([0, 1, 0, 0]);
    }
    watched.settled_and_same();
    assert_eq!(
        watched.said("the agent is"),
        0,
        "{}",
        watched.watch.output()
    );
    let agent = watched.agent.as_ref().unwrap().process.output();
    assert_eq!(agent.matches(full).count(), 1, "{agent}");
    drop(followers);
}

#[test]
fn a_watch_that_was_stopped_for_longer_than_connections_live_goes_on() {
    let mut watched = Watched::start();
    let relay = &watched.relay.as_ref().unwrap().process;
    let from = relay.output().len();
    watched.watch.signal(Signal::STOP);
    relay.wait_for("detached", from);
    watched.save("main.py", "# while it slept\n");
    watched.watch.signal(Signal::CONT);
    watched.pushed_files([0, 1, 0, 0]);
    watched.settled_and_same();
}

#[test]
fn nothing_is_deleted_while_the_root_has_another_name() {
    let mut watched = Watched::start();
    let before = tree(&watched.target());
    let away = watched.world.path("away");
    fs::rename(&watched.source, &away).unwrap();
    watched.says("is gone");
    fs::write(away.join("main.py"), "# saved while it was away\n").unwrap();
    assert_eq!(tree(&watched.target()), before);
    fs::rename(&away, &watched.source).unwrap();
    watched.says("is back");
    watched.pushed_files([0, 1, 0, 0]);
    watched.settled_and_same();
    watched.save("pkg/module.py", "# heard of as before\n");
    watched.pushed_files([0, 1, 0, 0]);
}

#[test]
fn without_enough_watches_the_directory_is_scanned_and_the_sysctl_named() {
    without("watches", 1, "fs.inotify.max_user_watches");
}

#[test]
fn without_inotify_instances_the_directory_is_scanned_and_the_sysctl_named() {
    without("instances", 0, "fs.inotify.max_user_instances");
}

#[test]
fn watches_that_are_made_anew_need_no_more_than_those_before() {
    let Some(mut watched) = limited("watches", 3) else {
        return;
    };
    watched.pushed("done");
    watched.settled();
    for (from, to) in [("pkg", "other"), ("other", "pkg")] {
        let [from, to] = [from, to].map(|name| watched.source.join(name));
        fs::rename(from, &to).unwrap();
        watched.pushed_files([0, 0, 0, 1]);
        fs::write(to.join("module.py"), format!("# in {}\n", to.display())).unwrap();
        watched.pushed_files([0, 1, 0, 0]);
    }
    watched.settled_and_same();
    assert_eq!(watched.said("sysctl"), 0, "{}", watched.watch.output());
}

/// Watches where this much of `what` is allowed, and that is too little.
fn without(what: &str, allowed: u32, sysctl: &str) {
    let Some(mut watched) = limited(what, allowed) else {
        return;
    };
    watched.says(&format!("sudo sysctl {sysctl}="));
    watched.pushed("done");
    watched.save("main.py", "# found by looking\n");
    watched.pushed_files([0, 1, 0, 0]);
    // At once, as a look may come between two steps.
    let new = watched.world.path("new");
    fs::create_dir(&new).unwrap();
    fs::write(new.join("file.py"), "").unwrap();
    fs::rename(new, watched.source.join("new")).unwrap();
    watched.pushed_files([1, 0, 0, 0]);
    assert_same_tree(&watched.source, &watched.target());
    watched.settled_and_same();
}

/// Watches in a user namespace where this much of `what` is allowed, if there can be one.
fn limited(what: &str, allowed: u32) -> Option<Watched> {
    let limit = format!("echo {allowed} > /proc/sys/user/max_inotify_{what}");
    let mut probe = Command::new("unshare");
    let probed = probe.args(["-Ur", "sh", "-c", &limit]).output();
    if !probed.is_ok_and(|output| output.status.success()) {
        skipped("no user namespace can be had here, and so no limit of its own");
        return None;
    }
    let under = |command: Command| {
        let mut limited = Command::new("unshare");
        limited.args(["-Ur", "sh", "-c", &format!("{limit}; exec \"$0\" \"$@\"")]);
        limited.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited
    };
    let options = ["--ready", "alive:1ms"];
    Some(Watched::start_under(&options, &IDLE, |_| (), under))
}
