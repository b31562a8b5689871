//! The whole path of a push: developer, relay, agent and app, each a process of its own.

use std::{fs, path::Path};

use crate::world::{APP, Agent, Relay, World, assert_same_tree, free_port, get};

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
