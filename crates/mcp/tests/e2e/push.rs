//! The whole path of a push: developer, relay, agent and app, each a process of its own.

use std::{fs, os::unix::fs::symlink, path::Path};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{
    APP, Agent, Link, Relay, World, assert_same_tree, at, free_port, get, wait_until,
};

#[test]
fn an_edit_here_runs_there_and_one_that_crashes_is_rolled_back() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "hello", "dev");
    let (source, port) = (world.path("source"), free_port());
    fs::create_dir(&source).unwrap();
    let app = source.join("app.py");
    fs::write(&app, APP).unwrap();
    let ready = format!("http://127.0.0.1:{port}/");
    let agent = Agent::start(
        &world,
        &link,
        &world.path("target"),
        &["--ready", &ready],
        &["python3", "app.py", &port.to_string()],
    );

    let first = world.push(&link, &source).expect("done");
    assert!(get(port).contains(first.push_id()));
    assert!(get(port).contains("Hello from Patchwire"));

    fs::write(&app, APP.replace("Hello from", "Edited by")).unwrap();
    let second = world.push(&link, &source).expect("done");
    assert_ne!(second.pid(), first.pid());
    assert!(get(port).contains(second.push_id()));
    assert!(get(port).contains("Edited by Patchwire"));
    assert_same_tree(&source, &agent.root);

    fs::write(&app, "raise RuntimeError('does not start')\n").unwrap();
    let third = world.push(&link, &source).expect("rolled-back");
    assert_eq!(third.json["error"]["code"], "app-exited");
    assert!(
        third.log_tail().contains("RuntimeError: does not start"),
        "{third:#?}"
    );
    assert!(get(port).contains(second.push_id()));
    assert!(get(port).contains("Edited by Patchwire"));
    assert!(Path::new(&agent.root).join("app.py").exists());
}

#[test]
fn an_app_whose_files_are_not_there_yet_waits_for_them() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "hello", "dev");
    let (source, target) = (world.path("source"), world.path("target"));
    fs::create_dir(&source).unwrap();
    // What is linked in beforehand is nothing to run.
    fs::create_dir(&target).unwrap();
    symlink(&source, target.join("node_modules")).unwrap();
    let app = ["python3", "app.py"];
    let agent = Agent::start(&world, &link, &target, &[], &app);
    agent.process.wait_for("nothing to run yet", 0);
    let not_started = serde_json::json!({
        "running": false, "pid": null, "exit_code": null, "restarts": 0
    });
    assert_eq!(status(&world, &link)["app"], not_started);
    assert!(!agent.process.output().contains("the app is started"));

    // Nothing stood before that could come back.
    fs::write(source.join("app.py"), "raise RuntimeError('wrong')\n").unwrap();
    let failed = world.push(&link, &source).expect("failed");
    assert!(failed.log_tail().contains("RuntimeError: wrong"));
    assert!(target.join("app.py").exists());

    fs::write(source.join("app.py"), "import signal; signal.pause()\n").unwrap();
    world.push(&link, &source).expect("done");
    let status = status(&world, &link);
    assert_eq!(
        (&status["app"]["running"], &status["app"]["restarts"]),
        (&Value::Bool(true), &0.into())
    );
    let said = agent.process.output();
    assert_eq!(said.matches("nothing to run yet").count(), 1);
}

/// Answers from a daemon that says its process id in a file once it listens, and that ends by itself
/// if the test doesn't come to end it.
const DAEMON: &str = r#"
import http.server, os, signal, sys
if os.fork():
    sys.exit()
os.setsid()
for stream in (1, 2):
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
signal.alarm(120)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
with open(sys.argv[2] + ".part", "w") as file:
    print(os.getpid(), file=file)
os.rename(sys.argv[2] + ".part", sys.argv[2])
server.serve_forever()
"#;

#[test]
fn a_daemon_that_answers_with_old_code_is_not_taken_for_the_new() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "hello", "dev");
    let (source, port) = (world.path("source"), free_port());
    fs::create_dir(&source).unwrap();
    let app = source.join("app.py");
    fs::write(&app, DAEMON).unwrap();
    let (ready, pid_file) = (format!("http://127.0.0.1:{port}/"), world.path("daemon"));
    let agent = Agent::start(
        &world,
        &link,
        &world.path("target"),
        &["--ready", &ready],
        &[
            "python3",
            "app.py",
            &port.to_string(),
            pid_file.to_str().unwrap(),
        ],
    );

    // Whether the daemon answers before its parent has ended is a race, so the status may be either.
    world.push(&link, &source);
    wait_until("the daemon serves", || pid_file.exists());
    let daemon = fs::read_to_string(&pid_file).unwrap();
    agent.process.wait_for("the app ended by itself", 0);

    fs::write(&app, "import signal; signal.pause()\n").unwrap();
    let pushed = world.push(&link, &source);
    assert_eq!(pushed.json["error"]["code"], "not-ready", "{pushed:#?}");
    let message = pushed.message();
    assert!(
        message.contains("answers while the app is stopped"),
        "{message}"
    );

    let daemon = Pid::from_raw(daemon.trim().parse().unwrap()).unwrap();
    kill_process(daemon, Signal::KILL).unwrap();
    fs::write(&app, APP).unwrap();
    world.push(&link, &source).expect("done");
    assert!(get(port).contains("Hello from Patchwire"));
}

/// An app that answers unless it is told not to.
const QUIET: &str = r#"
import http.server, os, signal, sys
if os.environ.get("QUIET"):
    signal.pause()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

#[test]
fn an_app_that_has_answered_has_to_answer_again_until_it_is_run_in_another_way() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "hello", "dev");
    let (source, port) = (world.path("source"), free_port());
    fs::create_dir(&source).unwrap();
    let write = |name: &str, text: &str| fs::write(source.join(name), text).unwrap();
    write("app.py", QUIET);
    let _agent = Agent::start(
        &world,
        &link,
        &world.path("target"),
        &["--ready", "auto", "--ready-timeout", "2s"],
        &["python3", "app.py", &port.to_string()],
    );
    world.push(&link, &source).expect("done");

    write("app.py", "import signal; signal.pause()\n");
    let pushed = world.push(&link, &source).expect("rolled-back");
    assert!(pushed.message().contains("alive:1s"), "{pushed:#?}");

    write("app.py", QUIET);
    write("patchwire.toml", "[env]\nQUIET = \"1\"\n");
    world.push(&link, &source).expect("done");
    write("patchwire.toml", "");
    world.push(&link, &source).expect("done");
}

fn status(world: &World, link: &Link) -> Value {
    let mut command = world.patchwire();
    command
        .args(["status", "--json", "--link"])
        .arg(at(&link.full));
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}
