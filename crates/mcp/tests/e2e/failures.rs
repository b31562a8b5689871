//! What goes wrong on the way has a sentence and an exit status of its own, leaves nothing half
//! done, and is over once its cause is.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use patchwire_transport::{DeploymentLink, RelayKey, RelayLink};

use crate::world::{
    APP, Agent, IDLE, Link, Node, Process, Pushed, Relay, World, assert_same_tree, at, free_port,
    get, is_running, noise, tree, wait_until,
};

/// A source of a few files in `name`.
fn source(world: &World, name: &str) -> PathBuf {
    let source = world.path(name);
    fs::create_dir_all(source.join("pkg")).unwrap();
    fs::write(source.join("pkg/module.py"), "answer = 42\n").unwrap();
    fs::write(source.join("main.py"), format!("# of {name}\n")).unwrap();
    source
}

/// `patchwire push --json`, not started yet.
fn push_command(world: &World, link: &Link, root: &Path) -> Command {
    let mut command = world.patchwire();
    command
        .args(["push", "--json", "--link"])
        .arg(at(&link.full));
    command.arg("--root").arg(root);
    command
}

/// A push that goes on while the test does other things.
fn in_background(mut command: Command) -> thread::JoinHandle<Pushed> {
    thread::spawn(move || Pushed::of(&mut command))
}

/// A deployment whose app is ready once a file says so: pushes can be held in their last phase.
struct Gated {
    world: World,
    relay: Option<Relay>,
    agent: Option<Agent>,
    link: Link,
    source: PathBuf,
    gate: PathBuf,
}

impl Gated {
    /// Starts everything, and pushes once.
    fn new() -> Self {
        let world = World::new();
        let relay = Relay::start(&world);
        let link = world.link(&relay, "gated", "dev");
        let (source, gate) = (source(&world, "source"), world.path("gate"));
        fs::write(&gate, "").unwrap();
        let mut gated = Self {
            world,
            relay: Some(relay),
            agent: None,
            link,
            source,
            gate,
        };
        gated.start_agent();
        gated.world.push(&gated.link, &gated.source).expect("done");
        gated
    }

    fn start_agent(&mut self) {
        let ready = format!("command:test -e {}", self.gate.display());
        let options = ["--ready", &ready, "--ready-timeout", "120s"];
        let root = self.world.path("target");
        self.agent = Some(Agent::start(
            &self.world,
            &self.link,
            &root,
            &options,
            &IDLE,
        ));
    }

    fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    fn is_open(&self, open: bool) {
        match open {
            true => fs::write(&self.gate, "").unwrap(),
            false => fs::remove_file(&self.gate).unwrap(),
        }
    }

    /// Begins a push of a change, and waits until the app was started for it.
    fn push_until_started(&self, more: &[&str]) -> thread::JoinHandle<Pushed> {
        fs::write(self.source.join("main.py"), "# changed\n").unwrap();
        self.is_open(false);
        let before = self.agent().process.output().len();
        let mut command = push_command(&self.world, &self.link, &self.source);
        command.args(more);
        let push = in_background(command);
        self.agent().process.wait_for("app-started", before);
        push
    }
}

#[test]
fn every_refusal_has_its_own_sentence_and_exit_status_and_is_over_with_its_cause() {
    let world = World::new();
    let mut relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let source = source(&world, "source");
    let push = |link: &Link| world.push_with(link, &source, &["--wait", "1s"]);
    let mut sentences = Vec::new();

    sentences.push(push(&link).expect_error("no-agent", 3));
    let mut agent = Agent::idle(&world, &link, &world.path("target"));

    let mint = |relay: &RelayLink| {
        let (app, deployment) = ("shop".parse().unwrap(), "dev".parse().unwrap());
        DeploymentLink::mint(relay, app, deployment).unwrap()
    };
    let true_link = relay.link();
    let other_key = RelayLink::new(
        true_link.address().clone(),
        true_link.pin(),
        RelayKey::random().unwrap(),
    );
    let other_key = Link::write(&world, "other-key", &mint(&other_key));
    sentences.push(push(&other_key).expect_error("wrong-relay-key", 4));
    let other_secret = Link::write(&world, "other-secret", &mint(&true_link));
    sentences.push(push(&other_secret).expect_error("wrong-deployment-secret", 4));

    let mut mistyped = fs::read_to_string(&link.full).unwrap().trim().to_owned();
    let last = mistyped.pop().unwrap();
    mistyped.push(if last == 'A' { 'B' } else { 'A' });
    let mistyped_file = world.path("mistyped.link");
    fs::write(&mistyped_file, mistyped).unwrap();
    let mistyped = Link {
        agent: link.agent.clone(),
        full: mistyped_file,
    };
    sentences.push(push(&mistyped).expect_error("link", 2));
    assert!(sentences.last().unwrap().message().contains("mistyped"));

    relay.process.kill();
    sentences.push(push(&link).expect_error("relay-unreachable", 3));
    let other = Relay::start_in(&world, "other-relay", relay.port);
    sentences.push(push(&link).expect_error("wrong-pin", 4));
    drop(other);

    for (index, sentence) in sentences.iter().enumerate() {
        let message = sentence.message();
        assert!(message.len() > 20, "{message}");
        let later = &sentences[index + 1..];
        assert!(later.iter().all(|other| other.message() != message));
        // A secret has no place in it.
        let secret = fs::read_to_string(&link.full).unwrap();
        let (_, secret) = secret.trim().split_once("v1.").unwrap();
        for part in secret.split('.').skip(1) {
            assert!(!message.contains(part) && !sentence.stderr.contains(part));
        }
    }
    assert_eq!(tree(&agent.root), BTreeMap::new());

    let from = agent.process.output().len();
    let _relay = relay.restart(&world);
    agent.process.wait_for("attached to the relay", from);
    world.push(&link, &source).expect("done");
    assert_same_tree(&source, &agent.root);
    agent.process.assert_well();
}

#[test]
fn an_agent_that_is_killed_while_the_app_gets_ready_gives_its_answer_when_it_is_back() {
    let mut gated = Gated::new();
    let push = gated.push_until_started(&["--wait", "60s"]);
    gated.agent = None;
    gated.is_open(true);
    gated.start_agent();
    let pushed = push.join().unwrap().expect("done");
    assert_same_tree(&gated.source, &gated.agent().root);
    // It was never applied twice: the app started once, with the agent.
    let output = gated.agent().process.output();
    assert_eq!(output.matches("app-started").count(), 1, "{output}");
    let id = fs::read_to_string(gated.agent().root.join(".patchwire/push_id")).unwrap();
    assert_eq!(id, pushed.push_id());
}

#[test]
fn an_agent_that_is_told_to_end_while_the_app_gets_ready_does_not_take_the_push_for_a_failed_one() {
    let mut gated = Gated::new();
    let push = gated.push_until_started(&["--wait", "60s"]);
    let mut agent = gated.agent.take().unwrap();
    assert!(agent.process.terminate().success());
    assert_same_tree(&gated.source, &agent.root);
    gated.is_open(true);
    gated.start_agent();
    push.join().unwrap().expect("done");
    assert_same_tree(&gated.source, &gated.agent().root);
}

#[test]
fn a_developer_who_leaves_while_a_push_waits_for_its_turn_holds_up_nobody() {
    let gated = Gated::new();
    let push = gated.push_until_started(&[]);
    let other = source(&gated.world, "other");
    let mut command = push_command(&gated.world, &gated.link, &other);
    let queued = Process::start(command.arg("--force"));
    let agent = &gated.agent().process;
    agent.wait_for("a push waits for its turn", 0);
    queued.signal(rustix::process::Signal::INT);
    agent.wait_for("the developer left before the push was here", 0);
    gated.is_open(true);
    push.join().unwrap().expect("done");
    gated
        .world
        .push_with(&gated.link, &other, &["--force"])
        .expect("done");
    assert_same_tree(&other, &gated.agent().root);
}

#[test]
fn an_agent_that_is_killed_and_does_not_come_back_leaves_the_answer_unknown() {
    let mut gated = Gated::new();
    let push = gated.push_until_started(&["--wait", "1s"]);
    gated.agent = None;
    let pushed = push.join().unwrap().expect("unknown");
    assert!(pushed.message().contains("patchwire status"), "{pushed:#?}");
    gated.is_open(true);
    gated.start_agent();
    // It stands, as it was sent as a whole.
    let push = gated.world.push(&gated.link, &gated.source);
    push.expect("no-changes");
    assert_same_tree(&gated.source, &gated.agent().root);
}

#[test]
fn an_agent_that_is_killed_while_content_comes_has_the_old_tree_and_takes_the_push_again() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let source = source(&world, "source");
    let root = world.path("target");
    let agent = Agent::idle(&world, &link, &root);
    world.push(&link, &source).expect("done");
    let before = tree(&root);

    // Enough that it takes a while, and that doesn't compress.
    fs::write(source.join("large"), noise(24 << 20)).unwrap();
    let mut command = push_command(&world, &link, &source);
    command.args(["--wait", "60s"]);
    let push = in_background(command);
    let staging = root.join(".patchwire/staging");
    wait_until("the push is being staged", || {
        fs::read_dir(&staging).unwrap().next().is_some()
    });
    drop(agent);
    assert_eq!(tree(&root), before);
    let agent = Agent::idle(&world, &link, &root);
    push.join().unwrap().expect("done");
    assert_same_tree(&source, &agent.root);
}

#[test]
fn a_relay_that_is_restarted_between_pushes_is_found_again_by_everybody() {
    let world = World::new();
    let mut relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let source = source(&world, "source");
    let mut agent = Agent::idle(&world, &link, &world.path("target"));
    let first = world.push(&link, &source).expect("done");
    // Once by force and once as it should be.
    for drains in [false, true] {
        if drains {
            assert!(relay.process.terminate().success());
        }
        fs::write(source.join("main.py"), format!("# drained: {drains}\n")).unwrap();
        relay = relay.restart(&world);
        world
            .push_with(&link, &source, &["--wait", "60s"])
            .expect("done");
        assert_same_tree(&source, &agent.root);
    }
    agent.process.assert_well();
    assert!(!is_running(first.pid()));
}

#[test]
fn a_relay_that_is_killed_in_the_middle_of_a_push_costs_time_and_nothing_else() {
    let mut gated = Gated::new();
    let started = gated
        .agent()
        .process
        .output()
        .matches("app-started")
        .count();
    let push = gated.push_until_started(&["--wait", "60s"]);
    let relay = gated.relay.take().unwrap();
    gated.relay = Some(relay.restart(&gated.world));
    gated.is_open(true);
    push.join().unwrap().expect("done");
    assert_same_tree(&gated.source, &gated.agent().root);
    let output = gated.agent().process.output();
    assert_eq!(
        output.matches("app-started").count(),
        started + 1,
        "{output}"
    );
}

#[test]
fn developers_do_not_undo_each_others_pushes_unless_they_mean_to() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let [ana, ben] = ["ana", "ben"].map(|name| source(&world, name));
    fs::write(ben.join("of-ben.py"), "").unwrap();
    let mut agent = Agent::idle(&world, &link, &world.path("target"));
    let push = |who: &str, root: &Path, more: &[&str]| {
        let mut command = push_command(&world, &link, root);
        Pushed::of(command.env("USER", who).args(more))
    };

    push("ana", &ana, &[]).expect("done");
    let refused = push("ben", &ben, &[]).expect("conflict");
    assert_eq!(refused.json["error"]["code"], "conflict");
    assert!(refused.message().contains("ana@"), "{refused:#?}");
    assert_same_tree(&ana, &agent.root);

    let forced = push("ben", &ben, &["--force"]).expect("done");
    assert_same_tree(&ben, &agent.root);

    // Ana's next push would undo what she has not seen.
    fs::write(ana.join("main.py"), "# by ana again\n").unwrap();
    push("ana", &ana, &[]).expect("conflict");
    assert_same_tree(&ben, &agent.root);
    // A person is told by whom, when, by which push, and what it changed.
    let mut command = world.patchwire();
    command.args(["push", "--link"]).arg(at(&link.full));
    let said = command
        .arg("--root")
        .arg(&ana)
        .env("USER", "ana")
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(1));
    let said = String::from_utf8(said.stdout).unwrap();
    for part in [
        "ben@",
        forced.push_id(),
        "main.py",
        "of-ben.py",
        "--force",
        ":",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("pkg/module.py"), "{said}");

    push("ana", &ana, &["--force"]).expect("done");
    assert_same_tree(&ana, &agent.root);
    push("ben", &ben, &[]).expect("conflict");
    // Whoever has the same tree is in nobody's way.
    fs::copy(ana.join("main.py"), ben.join("main.py")).unwrap();
    fs::remove_file(ben.join("of-ben.py")).unwrap();
    push("ben", &ben, &[]).expect("no-changes");
    agent.process.assert_well();
}

#[test]
fn the_app_ends_with_a_killed_agent_and_comes_back_with_it_on_the_committed_tree() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "hello", "dev");
    let (source, port) = (world.path("source"), free_port());
    fs::create_dir(&source).unwrap();
    fs::write(source.join("app.py"), APP).unwrap();
    let ready = format!("http://127.0.0.1:{port}/");
    let start = || {
        let root = world.path("target");
        let app = ["python3", "app.py", &port.to_string()];
        Agent::start(&world, &link, &root, &["--ready", &ready], &app)
    };
    let agent = start();
    let pushed = world.push(&link, &source).expect("done");
    assert!(is_running(pushed.pid()));
    drop(agent);
    wait_until("the guard ends the app", || !is_running(pushed.pid()));

    let agent = start();
    wait_until("the app serves again", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    assert!(get(port).contains(pushed.push_id()));
    world.push(&link, &source).expect("no-changes");
    assert_same_tree(&source, &agent.root);
}

#[test]
fn an_agent_that_is_told_to_end_ends_its_app_first() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let app = "trap 'echo app-ended; exit 0' TERM; while :; do sleep 0.1 & wait $!; done";
    let options = ["--ready", "alive:1ms"];
    let root = world.path("target");
    let mut agent = Agent::start(&world, &link, &root, &options, &["sh", "-c", app]);
    let source = source(&world, "source");
    let pushed = world.push(&link, &source).expect("done");
    let ended = agent.process.terminate();
    assert_eq!(ended.code(), Some(0), "{}", agent.process.output());
    assert!(!is_running(pushed.pid()));
    agent.process.wait_for("app-ended", 0);
    world
        .push_with(&link, &source, &["--wait", "1s"])
        .expect_error("no-agent", 3);
}

#[test]
fn the_newest_agent_takes_over_and_the_older_one_is_told() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let source = source(&world, "source");
    let mut older = Agent::idle(&world, &link, &world.path("older"));
    world.push(&link, &source).expect("done");
    let stood = tree(&older.root);

    let mut newer = Agent::idle(&world, &link, &world.path("newer"));
    older.process.wait_for("taken over", 0);
    fs::write(source.join("main.py"), "# for the newer\n").unwrap();
    world.push(&link, &source).expect("done");
    assert_same_tree(&source, &newer.root);
    assert_eq!(tree(&older.root), stood);
    // Its app goes on, and it does not take the place back.
    older.process.assert_well();
    newer.process.assert_well();
    assert!(!newer.process.output().contains("taken over"));
}

#[test]
fn two_pushes_of_one_root_at_once_both_end_and_leave_one_of_the_two_trees() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let source = source(&world, "source");
    let mut agent = Agent::idle(&world, &link, &world.path("target"));
    for round in 0..3 {
        let version = |version: &str| {
            // In one step, so that a scan sees the one or the other.
            let new = world.path("new.py");
            fs::write(&new, format!("# {version} of {round}\n")).unwrap();
            fs::rename(&new, source.join("main.py")).unwrap();
            tree(&source)
        };
        let first: BTreeMap<PathBuf, Node> = version("first");
        let pushes = [
            in_background(push_command(&world, &link, &source)),
            in_background(push_command(&world, &link, &source)),
        ];
        let trees = [first, version("second")];
        for push in pushes {
            let pushed = push.join().unwrap();
            let status = pushed.json["status"].as_str().unwrap_or("none").to_owned();
            assert!(matches!(&*status, "done" | "no-changes"), "{pushed:#?}");
            pushed.expect(&status);
        }
        let stands = tree(&agent.root);
        assert!(trees.contains(&stands), "{stands:?}");
    }
    let last = world.push(&link, &source);
    assert_eq!(last.status.code(), Some(0), "{last:#?}");
    assert_same_tree(&source, &agent.root);
    agent.process.assert_well();
}
