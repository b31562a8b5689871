//! What a push takes care of: what others changed, and what a developer can't have meant.

use std::{fs, path::PathBuf};

use serde_json::json;

use crate::{
    project::edit,
    world::{Agent, Link, Pushed, Relay, World, assert_same_tree, tree},
};

#[test]
fn what_changed_on_the_agents_side_is_replaced_where_it_is_pushed_and_left_where_not() {
    let small = Small::start(&["pushed", "gone", "left"]);
    small.push(&[]).expect("done");
    for name in ["pushed", "gone", "left"] {
        fs::write(small.agent.root.join(name), "changed there\n").unwrap();
    }
    fs::write(small.agent.root.join("log"), "the app's own\n").unwrap();

    fs::write(small.source.join("pushed"), "changed here\n").unwrap();
    fs::remove_file(small.source.join("gone")).unwrap();
    let pushed = small.push(&[]).expect("done");
    assert_eq!(pushed.json["drift"], json!(["gone", "left", "pushed"]));
    for (name, content) in [("left", "changed there\n"), ("log", "the app's own\n")] {
        let path = small.agent.root.join(name);
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        fs::write(small.source.join(name), content).unwrap();
    }
    assert_same_tree(&small.source, &small.agent.root);
}

#[test]
fn what_no_push_touches_is_said_each_time_and_healed_when_asked_for() {
    let small = Small::start(&["file", "left"]);
    small.push(&[]).expect("done");
    fs::write(small.agent.root.join("left"), "changed there\n").unwrap();
    let nothing = small.push(&[]).expect("no-changes");
    assert_eq!(nothing.json["drift"], json!(["left"]));
    let forced = small.push(&["--force"]).expect("done");
    assert_eq!(forced.json["drift"], json!(["left"]));
    assert_same_tree(&small.source, &small.agent.root);
    let healed = small.push(&[]).expect("no-changes");
    assert_eq!(healed.json["drift"], json!([]));
}

#[test]
fn a_directory_that_is_gone_on_the_agents_side_is_said_with_all_that_it_held() {
    let small = Small::start(&["file"]);
    let directory = small.source.join("pkg/deeper");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("module.py"), "answer = 42\n").unwrap();
    small.push(&[]).expect("done");
    fs::remove_dir_all(small.agent.root.join("pkg")).unwrap();
    let held = json!(["pkg", "pkg/deeper", "pkg/deeper/module.py"]);

    // The push isn't about it, as far as the developer's side remembers.
    fs::write(small.source.join("file"), "changed here\n").unwrap();
    let left = small.push(&[]).expect("done");
    assert_eq!(left.json["drift"], held);
    assert!(!small.agent.root.join("pkg").exists());

    fs::remove_dir_all(small.world.path("home/.local/state/patchwire")).unwrap();
    fs::write(small.source.join("file"), "changed again\n").unwrap();
    let brought_back = small.push(&[]).expect("done");
    assert_eq!(brought_back.json["drift"], held);
    assert_same_tree(&small.source, &small.agent.root);
}

#[test]
fn a_file_that_changed_on_the_agents_side_is_no_basis() {
    let small = Small::start(&[]);
    let (here, there) = (small.source.join("large"), small.agent.root.join("large"));
    fs::write(
        &here,
        "a line of a file that is worth a delta\n".repeat(1000),
    )
    .unwrap();
    small.push(&[]).expect("done");
    edit(&there);
    edit(&there);
    edit(&here);
    let pushed = small.push(&[]).expect("done");
    assert_eq!(pushed.json["drift"], json!(["large"]));
    assert_same_tree(&small.source, &small.agent.root);
}

#[test]
fn a_push_that_deletes_more_than_half_stops_until_it_is_forced() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let small = Small::start(&names);
    small.push(&[]).expect("done");
    let delete = |names: &[&str]| {
        for name in names {
            fs::remove_file(small.source.join(name)).unwrap();
        }
    };
    let names_there = || tree(&small.agent.root).into_keys().collect::<Vec<_>>();

    delete(&names[..5]);
    small.push(&[]).expect("done");
    assert_same_tree(&small.source, &small.agent.root);

    delete(&names[5..8]);
    small.push(&[]).expect_error("deletes-too-much", 1);
    // It isn't the memory that stops it.
    fs::remove_dir_all(small.world.path("home/.local/state/patchwire")).unwrap();
    small.push(&[]).expect_error("deletes-too-much", 1);
    assert_eq!(
        names_there(),
        names[5..].iter().map(PathBuf::from).collect::<Vec<_>>()
    );
    small.push(&["--force"]).expect("done");
    assert_same_tree(&small.source, &small.agent.root);

    delete(&names[8..]);
    small.push(&[]).expect_error("empty", 1);
    fs::remove_dir(&small.source).unwrap();
    small.push(&[]).expect_error("config", 2);
    small.push(&["--force"]).expect_error("config", 2);
    fs::write(&small.source, "no directory\n").unwrap();
    small.push(&[]).expect_error("config", 2);
    assert_eq!(names_there(), ["i", "j"].map(PathBuf::from));

    fs::remove_file(&small.source).unwrap();
    fs::create_dir(&small.source).unwrap();
    small.push(&["--force"]).expect("done");
    assert_same_tree(&small.source, &small.agent.root);
}

/// A few files, and an app that does nothing.
pub(crate) struct Small {
    pub(crate) world: World,
    _relay: Relay,
    pub(crate) link: Link,
    pub(crate) source: PathBuf,
    pub(crate) agent: Agent,
}

impl Small {
    /// Starts with files of these names.
    pub(crate) fn start(names: &[&str]) -> Self {
        let world = World::new();
        let relay = Relay::start(&world);
        let link = world.link(&relay, "small", "dev");
        let source = world.path("source");
        fs::create_dir(&source).unwrap();
        for name in names {
            fs::write(source.join(name), format!("{name} as it was\n")).unwrap();
        }
        let root = world.path("target");
        let options = ["--ready", "alive:10ms"];
        let agent = Agent::start(&world, &link, &root, &options, &["sleep", "600"]);
        Self {
            world,
            _relay: relay,
            link,
            source,
            agent,
        }
    }

    pub(crate) fn push(&self, options: &[&str]) -> Pushed {
        self.world.push_with(&self.link, &self.source, options)
    }
}
