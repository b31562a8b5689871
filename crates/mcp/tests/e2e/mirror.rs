//! `push --mirror`: what was never pushed goes, too.

use std::fs;

use crate::world::{Agent, Relay, World, assert_same_tree};

/// An app that lives as long as a file says so.
const APP: &str = "test $(cat alive) = yes && exec tail -f /dev/null";

#[test]
fn a_mirror_leaves_only_what_is_ignored_and_a_roll_back_brings_the_rest_back() {
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "mirrored", "dev");
    let (source, target) = (world.path("source"), world.path("target"));
    fs::create_dir(&source).unwrap();
    for (name, text) in [("alive", "yes\n"), (".gitignore", "*.log\n/cache/\n")] {
        fs::write(source.join(name), text).unwrap();
    }
    let agent = Agent::start(&world, &link, &target, &[], &["sh", "-c", APP]);
    let [stray, old, log, cached] =
        ["stray", "old/left", "app.log", "cache/entry"].map(|name| agent.root.join(name));
    let litter = || {
        for path in [&stray, &old, &log, &cached] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "the app's").unwrap();
        }
    };

    world.push(&link, &source).expect("done");
    litter();
    fs::write(source.join("new"), "1").unwrap();
    world.push(&link, &source).expect("done");
    assert!(stray.exists() && old.exists());

    // It says beforehand what it takes away.
    let dry = world.push_with(&link, &source, &["--mirror", "--dry-run"]);
    let plan = dry.expect("no-changes").json["plan"].to_string();
    assert!(
        plan.contains("stray") && plan.contains("old/left"),
        "{plan}"
    );
    assert!(
        !plan.contains("app.log") && !plan.contains("cache"),
        "{plan}"
    );
    assert!(stray.exists());

    fs::write(source.join("alive"), "no\n").unwrap();
    world
        .push_with(&link, &source, &["--mirror"])
        .expect("rolled-back");
    assert!(stray.exists() && old.exists() && log.exists() && cached.exists());

    fs::write(source.join("alive"), "yes\n").unwrap();
    let mirrored = world
        .push_with(&link, &source, &["--mirror"])
        .expect("done");
    assert_eq!(mirrored.files(), [0, 0, 2, 0]);
    assert!(!stray.exists() && !agent.root.join("old").exists());
    assert!(log.exists() && cached.exists());
    world
        .push_with(&link, &source, &["--mirror"])
        .expect("no-changes");

    fs::remove_file(log).unwrap();
    fs::remove_dir_all(agent.root.join("cache")).unwrap();
    assert_same_tree(&source, &agent.root);
}
