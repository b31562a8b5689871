//! Killed at any moment, an agent leaves the old tree or the new one, and never a mixture.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use crate::world::{Agent, Node, Process, Relay, World, assert_same_tree, at, tree, wait_until};

const KILLS: usize = 50;

const FILES: u64 = 200;

/// A source in `root`: half of its files stay as they are, the others are changed, moved, added and
/// deleted, and some become directories or links, when `version` becomes the other.
fn write(root: &Path, version: bool) {
    fs::create_dir(root).unwrap();
    let text = |index: u64, salt: u64| -> Vec<u8> {
        (0..400)
            .flat_map(|line| format!("{index} {salt} {}\n", line * index).into_bytes())
            .collect()
    };
    for index in 0..FILES {
        let directory = root.join(format!("package-{}", index % 10));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("module-{index}.py"));
        match (index % 10, version) {
            // Changed, and long enough for a delta.
            (0 | 1, _) => fs::write(&path, text(index, version.into())).unwrap(),
            // Moved.
            (2, true) => fs::write(root.join(format!("moved-{index}.py")), text(index, 0)).unwrap(),
            // Deleted in the one, added in the other.
            (3, true) | (4, false) => {}
            // Another type.
            (5, true) => {
                fs::create_dir(&path).unwrap();
                fs::write(path.join("inside"), text(index, 1)).unwrap();
            }
            (6, true) => symlink("module-0.py", &path).unwrap(),
            (7, true) => {
                fs::write(&path, text(index, 0)).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            }
            _ => fs::write(&path, text(index, 0)).unwrap(),
        }
    }
}

#[test]
fn an_agent_killed_at_any_moment_of_a_push_leaves_the_old_or_the_new_tree() {
    let seed = patchwire_transport::random_u64().unwrap();
    eprintln!("seed {seed}");
    let world = World::new();
    let relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let root = world.path("target");
    let sources = [world.path("a"), world.path("b")];
    write(&sources[0], false);
    write(&sources[1], true);
    let trees: [BTreeMap<PathBuf, Node>; 2] = [tree(&sources[0]), tree(&sources[1])];
    let differs = trees[0]
        .iter()
        .filter(|(path, node)| trees[1].get(*path) != Some(node));
    assert!(differs.count() > 100);

    // Both are pushed with force: they are two checkouts, so that each would be in the other's way.
    let more = ["--force", "--wait", "1s"];
    let push = |version: usize| world.push_with(&link, &sources[version], &more);
    let mut agent = Agent::idle(&world, &link, &root);
    push(0).expect("done");
    let measured = (0..4).map(|round| {
        let start = Instant::now();
        push((round + 1) % 2).expect("done");
        start.elapsed()
    });
    let longest = measured.max().unwrap();

    let journal = root.join(".patchwire/journal");
    let (mut old, mut new, mut taken_back, mut finished, mut state) = (0, 0, 0, 0, seed);
    for kill in 0..KILLS {
        let standing = usize::from(tree(&root) == trees[1]);
        let next = 1 - standing;
        let mut command = world.patchwire();
        command.args(["push", "--json", "--force", "--wait", "1s", "--link"]);
        command
            .arg(at(&link.full))
            .arg("--root")
            .arg(&sources[next]);
        let pushing = Process::start(&mut command);
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let part = f64::from(u32::try_from(state >> 32).unwrap()) / f64::from(u32::MAX);
        // When it is killed is what this test is about: any moment will do, and every other time
        // one while the tree changes or soon after.
        let longest = match kill % 2 {
            0 => longest,
            _ => {
                wait_until("the tree changes", || {
                    journal.exists() || !pushing.output().is_empty()
                });
                longest / 32
            }
        };
        thread::sleep(longest.mul_f64(part));
        agent.process.kill();
        drop(pushing);

        agent = Agent::idle(&world, &link, &root);
        let recovered = agent.process.output();
        taken_back += u32::from(recovered.contains("took back a commit"));
        finished += u32::from(recovered.contains("finished a commit"));
        let stands = tree(&root);
        match trees.iter().position(|tree| *tree == stands) {
            Some(version) if version == standing => old += 1,
            Some(_) => new += 1,
            None => panic!("kill {kill}, seed {seed}: {}", differences(&trees, &stands)),
        }
        let pushed = push(next);
        let status = pushed.json["status"].as_str().map(str::to_owned);
        assert_eq!(
            pushed.status.code(),
            Some(0),
            "kill {kill}, seed {seed}: {pushed:#?}"
        );
        assert!(matches!(status.as_deref(), Some("done" | "no-changes")));
        assert_same_tree(&sources[next], &root);
    }
    eprintln!(
        "the old tree stood {old} times, {taken_back} of them after half a commit; the new one \
         {new} times, {finished} of them before its last formality"
    );
    agent.process.assert_well();
}

/// Where a tree is neither.
fn differences(trees: &[BTreeMap<PathBuf, Node>; 2], stands: &BTreeMap<PathBuf, Node>) -> String {
    let [from_a, from_b] = trees.each_ref().map(|tree| {
        let paths = tree.keys().chain(stands.keys());
        paths
            .filter(|path| tree.get(*path) != stands.get(*path))
            .collect::<Vec<_>>()
    });
    format!("differs from the one in {from_a:?}, from the other in {from_b:?}")
}
