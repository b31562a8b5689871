use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::*;
use crate::{
    Recovery,
    fault::{
        Fault,
        hook::{Crashed, Effect, Hook},
    },
    testing::{Node, Tree, mkfifo, open, open_with, path, push, scratch, stage},
};

fn big(edit: &str) -> Node {
    Node::File(
        format!("{}{edit}{}", "a".repeat(9000), "b".repeat(9000)).into(),
        0o644,
    )
}

const ENOSPC: Effect = Effect::Fail(28);

/// A tree with everything that the push to [`after`] changes, and what it leaves.
fn before() -> Tree {
    Tree::new(&[
        "same = 1",
        "changed = old",
        "mode = m",
        "moved = content",
        "deleted = d",
        "link -> same",
        "dir/",
        "dir/a = a",
        "dir/sub/",
        "dir/sub/b = b",
        "to-file/",
        "to-file/x = x",
        "to-dir = f",
        "to-link = l",
        "kept/",
        "kept/k = k",
        "narrow/",
        "narrow/n = n",
    ])
    .with("big", big("old"))
    .with("narrow", Node::Dir(0o555))
}

fn after() -> Tree {
    Tree::new(&[
        "same = 1",
        "changed = new",
        "mode ! = m",
        "new/",
        "new/moved = content",
        "link -> changed",
        "to-file = now a file",
        "to-dir/",
        "to-dir/inner = i",
        "to-link -> same",
        "kept/",
        "kept/k = k",
        "kept/l = l",
        "narrow/",
        "narrow/n = changed",
        "empty/",
    ])
    .with("big", big("new"))
    .with("kept", Node::Dir(0o700))
    .with("narrow", Node::Dir(0o555))
}

/// What the app wrote, and no push may lose.
fn scatter_unmanaged(root: &Path) {
    fs::create_dir(root.join("to-file/__pycache__")).unwrap();
    fs::write(root.join("to-file/__pycache__/x.pyc"), "cache").unwrap();
    fs::write(root.join("app.log"), "log").unwrap();
}

/// A store in which [`before`] is committed and the app has run.
fn committed(root: &Path) -> Tree {
    let mut store = open(root);
    push(&mut store, 1, &before()).unwrap();
    store.set_verified(true).unwrap();
    scatter_unmanaged(root);
    Tree::read(root)
}

fn with_unmanaged(tree: Tree) -> Tree {
    tree.with("app.log", Node::File("log".into(), 0o644))
}

#[test]
fn a_push_of_every_kind_of_change_and_back() {
    let dir = scratch();
    let root = dir.path();
    let old = committed(root);
    let mut store = open(root);
    let mut windows = Vec::new();
    let staged = stage(&mut store, 2, &after()).unwrap();
    assert_eq!(Tree::read(root), old, "staging touches nothing");
    let done = store
        .commit(staged, &[], &mut |window| windows.push(window))
        .unwrap();
    assert_eq!(windows, [Window::Opens, Window::Closes]);
    assert_eq!(Tree::read(root), with_unmanaged(after()));
    assert_eq!(done.moved_aside, [path("to-file/__pycache__")]);
    assert_eq!((done.drift, done.warnings), (vec![], vec![]));
    let record = store.committed().unwrap();
    assert_eq!(*store.managed(), after().manifest());
    assert!(!record.verified);
    assert!(store.previous().unwrap().verified);
    assert!(store.inventory().unwrap().drift.is_empty());

    let back = store.roll_back(&mut |_| ()).unwrap();
    assert!(back.paths.contains(&path("changed")));
    assert_eq!(back.lost, []);
    assert_eq!(Tree::read(root), old, "with what the app had written");
    let record = store.committed().unwrap();
    assert_eq!((record.push_id, record.verified), ([1; 16], true));
    assert!(matches!(
        store.roll_back(&mut |_| ()),
        Err(CommitError::NothingToRollBack)
    ));
    push(&mut store, 3, &after()).unwrap();
    assert_eq!(Tree::read(root), with_unmanaged(after()));
}

#[test]
fn committed_trees_outlive_the_store() {
    let dir = scratch();
    committed(dir.path());
    let state = dir.path().join(".patchwire");
    let (store, recovery) = Store::open(dir.path(), &state, 99).unwrap();
    assert_eq!((recovery, store.epoch()), (Recovery::Clean, 1));
    assert_eq!(*store.managed(), before().manifest());
    let again = Store::open(dir.path(), &state, 0);
    assert!(matches!(again, Err(StoreError::InUse { .. })));
}

/// Does `change` with an effect at the n-th point, for every n that there is.
fn at_every_point(
    effect: Effect,
    change: impl Fn(&mut Store) -> Result<(), CommitError>,
    check: impl Fn(&Path, &Tree, usize),
) {
    for nth in 0.. {
        let dir = scratch();
        let root = dir.path();
        let old = committed(root);
        let hook = Hook::new(nth, effect);
        let mut store = open(root);
        store.fault.hook = Some(hook.clone());
        let result = catch_unwind(AssertUnwindSafe(|| change(&mut store)));
        drop(store);
        if !hook.is_spent() {
            result.expect("no crash").expect("no failure");
            assert!(nth > 60, "only {nth} points: the test doesn't test much");
            return;
        }
        if let Err(panic) = result {
            assert!(panic.is::<Crashed>(), "a real panic at point {nth}");
        }
        check(root, &old, nth);
    }
}

/// Opens the store, as an agent started anew does, and tells which tree stands.
fn reopen(root: &Path, old: &Tree, new: &Tree, nth: usize) -> bool {
    let store = open(root);
    let tree = Tree::read(root);
    let is_new = *store.managed() == after().manifest();
    assert_eq!(&tree, if is_new { new } else { old }, "at point {nth}");
    let staging = root.join(".patchwire/staging");
    assert_eq!(
        fs::read_dir(staging).unwrap().count(),
        1,
        "only what to roll back to is kept"
    );
    is_new
}

fn push_after(store: &mut Store) -> Result<(), CommitError> {
    let staged = stage(store, 2, &after()).map_err(|error| match error {
        crate::StageError::Local(error) => CommitError::Undone(error),
        error => panic!("{error}"),
    })?;
    store.commit(staged, &[], &mut |_| ()).map(drop)
}

#[test]
fn a_crash_at_any_point_of_a_push_leaves_a_whole_tree() {
    let new = with_unmanaged(after());
    at_every_point(Effect::Crash, push_after, |root, old, nth| {
        reopen(root, old, &new, nth);
    });
}

#[test]
fn a_crash_while_recovering_from_a_crash_leaves_a_whole_tree() {
    let new = with_unmanaged(after());
    // Of the first crash's points some; of the second's all.
    for first in (0..200).step_by(19) {
        for second in 0.. {
            let dir = scratch();
            let root = dir.path();
            let old = committed(root);
            let crash = |nth| Some(Hook::new(nth, Effect::Crash));
            let mut store = open(root);
            store.fault.hook = crash(first);
            let _ = catch_unwind(AssertUnwindSafe(|| push_after(&mut store)));
            drop(store);
            let hook = crash(second);
            let fault = Fault {
                hook: hook.clone(),
                ..Fault::default()
            };
            let reopened = catch_unwind(AssertUnwindSafe(|| open_with(root, fault)));
            drop(reopened);
            reopen(root, &old, &new, first * 1000 + second);
            if !hook.unwrap().is_spent() {
                break;
            }
        }
    }
}

#[test]
fn a_failure_at_any_point_of_a_push_leaves_the_old_tree_at_once() {
    let new = with_unmanaged(after());
    at_every_point(
        ENOSPC,
        |store| {
            let old = Tree::read(&root_of(store));
            let result = push_after(store);
            let tree = Tree::read(&root_of(store));
            match &result {
                Ok(()) => assert_eq!(tree, new),
                Err(CommitError::Undone(_)) => {
                    assert_eq!(tree, old);
                    assert_eq!(*store.managed(), before().manifest());
                }
                Err(error) => panic!("{error}"),
            }
            Ok(())
        },
        |root, old, nth| {
            if !reopen(root, old, &new, nth) {
                push_after(&mut open(root)).expect("the next push succeeds");
                assert_eq!(Tree::read(root), new);
            }
        },
    );
}

#[test]
fn a_crash_while_a_failed_push_is_taken_back_leaves_a_whole_tree() {
    let new = with_unmanaged(after());
    // Of the failure's points some, the record's writing among them; of the crash's all.
    let failures = (20..120)
        .step_by(33)
        .map(|nth| Hook::new(nth, ENOSPC))
        .chain([Hook::at("appended", ENOSPC)]);
    for failure in failures {
        for nth in 0.. {
            let dir = scratch();
            let root = dir.path();
            let old = committed(root);
            let crash = Hook::new(nth, Effect::Crash);
            let mut store = open(root);
            store.fault.hook = Some(failure.fresh().then(crash.clone()));
            let result = catch_unwind(AssertUnwindSafe(|| push_after(&mut store)));
            drop(store);
            // A record that was written and not taken back yet still makes the new tree the one.
            let is_new = reopen(root, &old, &new, nth);
            if !crash.is_spent() {
                let result = result.expect("no crash");
                assert_eq!(is_new, result.is_ok(), "{result:?}");
                break;
            }
        }
    }
}

#[test]
fn what_can_be_neither_made_nor_taken_back_locks_the_store_until_it_is_opened_again() {
    let dir = scratch();
    let root = dir.path();
    let old = committed(root);
    let mut store = open(root);
    let failing = Hook::at("exchanged", ENOSPC).then(Hook::at("replace back", ENOSPC));
    store.fault.hook = Some(failing);
    let failed = push_after(&mut store);
    assert!(
        matches!(failed, Err(CommitError::HalfMade { .. })),
        "{failed:?}"
    );
    let refused = store.inventory();
    assert!(matches!(refused, Err(StoreError::HalfMade)), "{refused:?}");
    drop(store);
    assert!(!reopen(root, &old, &with_unmanaged(after()), 0));
}

#[test]
fn a_crash_at_any_point_of_a_roll_back_leaves_a_whole_tree() {
    let new = with_unmanaged(after());
    for nth in 0.. {
        let dir = scratch();
        let root = dir.path();
        let old = committed(root);
        let mut store = open(root);
        push(&mut store, 2, &after()).unwrap();
        let hook = Hook::new(nth, Effect::Crash);
        store.fault.hook = Some(hook.clone());
        let result = catch_unwind(AssertUnwindSafe(|| store.roll_back(&mut |_| ())));
        drop(store);
        if !hook.is_spent() {
            result.expect("no crash").expect("no failure");
            assert!(nth > 40);
            return;
        }
        if reopen(root, &old, &new, nth) {
            open(root).roll_back(&mut |_| ()).expect("still possible");
            assert_eq!(Tree::read(root), old);
        }
    }
}

#[test]
fn without_exchange_two_renames_do_and_a_crash_between_them_is_mended() {
    let new = with_unmanaged(after());
    for effect_at in ["between two renames", "replace", "stepped"] {
        let dir = scratch();
        let root = dir.path();
        let old = committed(root);
        let mut store = open(root);
        let hook = Hook::at(effect_at, Effect::Crash);
        store.fault.hook = Some(hook.clone());
        store.fault.no_exchange = true;
        let result = catch_unwind(AssertUnwindSafe(|| push_after(&mut store)));
        assert!(result.is_err() && hook.is_spent());
        drop(store);
        assert!(!reopen(root, &old, &new, 0));
        let mut store = open(root);
        store.fault.no_exchange = true;
        push_after(&mut store).unwrap();
        assert_eq!(Tree::read(root), new);
        store.roll_back(&mut |_| ()).unwrap();
        assert_eq!(Tree::read(root), old);
    }
}

#[test]
fn directories_that_cannot_be_renamed_are_taken_apart() {
    let dir = scratch();
    let root = dir.path();
    let old = committed(root);
    let mut store = open(root);
    store.fault.no_directory_renames = true;
    let staged = stage(&mut store, 2, &after()).unwrap();
    let mut windows = Vec::new();
    store
        .commit(staged, &[], &mut |window| windows.push(window))
        .unwrap();
    assert_eq!(
        windows,
        [Window::Opens, Window::Closes],
        "one stop for two attempts"
    );
    assert_eq!(Tree::read(root), with_unmanaged(after()));
    store.roll_back(&mut |_| ()).unwrap();
    assert_eq!(Tree::read(root), old);
}

#[test]
fn what_someone_changed_is_replaced_kept_and_listed() {
    let dir = scratch();
    let root = dir.path();
    committed(root);
    fs::write(root.join("changed"), "by hand").unwrap();
    fs::write(root.join("same"), "by hand").unwrap();
    fs::remove_file(root.join("deleted")).unwrap();
    fs::remove_dir_all(root.join("kept")).unwrap();
    symlink("/", root.join("kept")).unwrap();
    fs::write(root.join("empty"), "in the way").unwrap();
    fs::create_dir(root.join("new")).unwrap();
    fs::write(root.join("new/mine"), "unmanaged").unwrap();
    let by_hand = Tree::read(root);
    let mut store = open(root);
    let inventory = store.inventory().unwrap();
    let drift = ["changed", "deleted", "kept", "kept/k", "same"].map(path);
    assert_eq!(inventory.drift, drift);
    let done = push(&mut store, 2, &after()).unwrap();
    let drift = ["changed", "deleted", "empty", "kept"].map(path);
    assert_eq!(done.drift, drift);
    assert_eq!(done.moved_aside, ["empty", "to-file/__pycache__"].map(path));
    // Untouched drift stays: `same` as it is, `kept/k` missing.
    let mut expected = with_unmanaged(after())
        .with("same", Node::File("by hand".into(), 0o644))
        .with("new/mine", Node::File("unmanaged".into(), 0o644));
    expected.0.remove("kept/k");
    assert_eq!(Tree::read(root), expected);
    store.roll_back(&mut |_| ()).unwrap();
    assert_eq!(Tree::read(root), by_hand);
}

#[test]
fn the_first_push_takes_what_is_there_already_and_rewrites_only_the_rest() {
    let dir = scratch();
    let root = dir.path();
    let there = Tree::new(&[
        "a = same",
        "b = other",
        "image/",
        "image/c = c",
        "node_modules/",
    ]);
    there.write(root);
    let inode = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
    let (a, b) = (inode("a"), inode("b"));
    let mut store = open(root);
    assert_eq!(*store.inventory().unwrap().manifest, there.manifest());
    let target = Tree::new(&["a = same", "b = new", "image/", "image/c = c", "d = same"]);
    let done = push(&mut store, 1, &target).unwrap();
    assert_eq!((done.drift, done.moved_aside), (vec![], vec![]));
    assert_eq!(
        Tree::read(root),
        target.with("node_modules", Node::Dir(0o755))
    );
    assert_eq!(inode("a"), a);
    assert_ne!(inode("b"), b);
    assert!(matches!(
        store.roll_back(&mut |_| ()),
        Err(CommitError::NothingToRollBack)
    ));
}

#[test]
fn what_appears_while_the_tree_changes_is_kept_aside_and_comes_back() {
    let dir = scratch();
    let root = dir.path();
    let old = committed(root);
    let mut store = open(root);
    let staged = stage(&mut store, 2, &after()).unwrap();
    let meddle = |window| {
        if window == Window::Opens {
            fs::write(root.join("new"), "by the app").unwrap();
            fs::write(root.join("to-file/late"), "by the app").unwrap();
            fs::remove_file(root.join("changed")).unwrap();
            fs::remove_file(root.join("deleted")).unwrap();
        }
    };
    store.commit(staged, &[], &mut { meddle }).unwrap();
    assert_eq!(Tree::read(root), with_unmanaged(after()));
    store.roll_back(&mut |_| ()).unwrap();
    let mut expected = old
        .with("new", Node::File("by the app".into(), 0o644))
        .with("to-file/late", Node::File("by the app".into(), 0o644));
    for gone in ["changed", "deleted"] {
        expected.0.remove(gone);
    }
    assert_eq!(Tree::read(root), expected);
}

#[test]
fn hard_links_are_not_written_through() {
    let dir = scratch();
    let outside = scratch();
    let root = dir.path();
    let mut store = open(root);
    push(&mut store, 1, &Tree::new(&["a = old", "b = b"])).unwrap();
    for name in ["a", "b"] {
        fs::hard_link(root.join(name), outside.path().join(name)).unwrap();
    }
    push(&mut store, 2, &Tree::new(&["a = new", "b ! = b"])).unwrap();
    assert_eq!(Tree::read(outside.path()), Tree::new(&["a = old", "b = b"]));
    assert_eq!(Tree::read(root), Tree::new(&["a = new", "b ! = b"]));
}

#[test]
fn every_version_of_a_file_has_an_mtime_of_its_own_second() {
    let dir = scratch();
    let root = dir.path();
    let mtime = || {
        let metadata = fs::metadata(root.join("a.py")).unwrap();
        (metadata.mtime(), metadata.mtime_nsec())
    };
    let mut store = open(root);
    push(&mut store, 1, &Tree::new(&["a.py = 1", "b = 1"])).unwrap();
    let mut seen = vec![mtime().0];
    for (id, content) in [(2, "a.py = 2"), (3, "a.py = 3")] {
        push(&mut store, id, &Tree::new(&[content, "b = 1"])).unwrap();
        seen.push(mtime().0);
    }
    store.roll_back(&mut |_| ()).unwrap();
    seen.push(mtime().0);
    push(&mut store, 4, &Tree::new(&["b = 1"])).unwrap();
    push(&mut store, 5, &Tree::new(&["a.py = 4", "b = 1"])).unwrap();
    seen.push(mtime().0);
    push(&mut store, 6, &Tree::new(&["b = 1"])).unwrap();
    store.roll_back(&mut |_| ()).unwrap();
    seen.push(mtime().0);
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
}

#[test]
fn files_that_a_push_put_in_place_need_not_be_read_unless_someone_wrote_to_them() {
    let dir = scratch();
    let mut store = open(dir.path());
    push(&mut store, 1, &Tree::new(&["a = 1", "b = 1", "c = 1"])).unwrap();
    let target = Tree::new(&["a = 2", "b = 2", "c = 1", "d = 2"]);
    let staged = stage(&mut store, 2, &target).unwrap();
    let meddle = |window| {
        if window == Window::Closes {
            fs::write(dir.path().join("b"), "x").unwrap();
        }
    };
    store.commit(staged, &[], &mut { meddle }).unwrap();
    let known = |store: &Store, name: &str| {
        let stat = store.root.stat(name.as_bytes()).unwrap();
        store.index.digest(&path(name), &stat)
    };
    let two = patchwire_delta::Digest::of(b"2");
    assert_eq!(known(&store, "a"), Some(two));
    assert_eq!(known(&store, "b"), None);
    assert_eq!(known(&store, "d"), Some(two));
    assert_eq!(store.inventory().unwrap().drift, [path("b")]);
    fs::write(dir.path().join("a"), "y").unwrap();
    let staged = stage(&mut store, 3, &target.with("d", Node::Dir(0o755))).unwrap();
    assert_eq!(store.drift_beside(&staged).unwrap(), [path("a"), path("b")]);
}

#[test]
fn a_large_tree_is_looked_at_in_order_whoever_looks() {
    let dir = scratch();
    let mut store = open(dir.path());
    let names: Vec<_> = (0..9000).map(|n| format!("{n:04} = {n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    push(&mut store, 1, &Tree::new(&names)).unwrap();
    assert!(Arc::ptr_eq(
        &store.inventory().unwrap().manifest,
        &store.managed
    ));
    let gone = ["0000", "2047", "2048", "5000", "8999"];
    for gone in gone {
        fs::remove_file(dir.path().join(gone)).unwrap();
    }
    let inventory = store.inventory().unwrap();
    let drift = gone.map(path);
    assert_eq!(inventory.drift, drift);
    assert_eq!(*inventory.manifest, Tree::read(dir.path()).manifest());
    let staged = stage(&mut store, 2, &Tree::new(&names[1..])).unwrap();
    let beside = store.drift_beside(&staged).unwrap();
    assert_eq!(beside, drift[1..]);
}

/// A directory that is wholly new, of every kind of entry.
fn with_package() -> Tree {
    Tree::new(&[
        "pkg/",
        "pkg-b = sorted between",
        "pkg/a ! = a",
        "pkg/link -> a",
        "pkg/narrow/",
        "pkg/narrow/deep/",
        "pkg/narrow/deep/x = x",
        "pkg/narrow/y = y",
        "pkg/z = z",
        "same = 1",
    ])
    .with("pkg/narrow", Node::Dir(0o555))
    .with("pkg/narrow/deep", Node::Dir(0o500))
}

#[test]
fn a_new_directory_comes_and_goes_whole() {
    let dir = scratch();
    let root = dir.path();
    let mut store = open(root);
    let old = Tree::new(&["same = 1"]);
    push(&mut store, 1, &old).unwrap();
    push(&mut store, 2, &with_package()).unwrap();
    assert_eq!(Tree::read(root), with_package());
    let steps = &store.undo.as_ref().unwrap().steps;
    let paths: Vec<_> = steps.iter().map(|step| step.path.clone()).collect();
    assert_eq!(paths, ["pkg", "pkg-b"].map(path));
    let deep = store.root.walk(&path("pkg/narrow/deep")).unwrap();
    let known = store
        .index
        .digest(&path("pkg/narrow/deep/x"), &deep.stat(b"x").unwrap());
    assert_eq!(known, Some(patchwire_delta::Digest::of(b"x")));
    assert_eq!(store.inventory().unwrap().drift, []);
    fs::write(root.join("pkg/cache"), "by the app").unwrap();
    store.roll_back(&mut |_| ()).unwrap();
    assert_eq!(Tree::read(root), old);
}

#[test]
fn a_new_directory_that_someone_makes_meanwhile_is_joined() {
    for made in [
        &["pkg/", "pkg/mine = mine"][..],
        &[
            "pkg/",
            "pkg/narrow/",
            "pkg/narrow/mine = mine",
            "pkg/narrow/y = other",
        ],
        &[
            "pkg/",
            "pkg/narrow/",
            "pkg/narrow/deep/",
            "pkg/z/",
            "pkg/z/mine = mine",
        ],
    ] {
        let dir = scratch();
        let root = dir.path();
        let mut store = open(root);
        push(&mut store, 1, &Tree::new(&["same = 1"])).unwrap();
        let staged = stage(&mut store, 2, &with_package()).unwrap();
        Tree::new(made).write(root);
        let before = Tree::read(root);
        store.commit(staged, &[], &mut |_| ()).unwrap();
        let mut expected = with_package();
        for (name, node) in &Tree::new(made).0 {
            if name.ends_with("mine") && !name.starts_with("pkg/z/") {
                expected = expected.with(name, node.clone());
            }
        }
        assert_eq!(Tree::read(root), expected);
        store.roll_back(&mut |_| ()).unwrap();
        assert_eq!(Tree::read(root), before);
    }
}

#[test]
fn a_directory_that_someone_removed_comes_back_and_all_that_was_in_it_is_drift() {
    let dir = scratch();
    let root = dir.path();
    let mut store = open(root);
    push(&mut store, 1, &with_package()).unwrap();
    fs::set_permissions(root.join("pkg/narrow"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_dir_all(root.join("pkg")).unwrap();
    let there = store.inventory().unwrap().manifest;
    let target = with_package();
    let plan = crate::plan(&there, &there, &target.manifest()).finish(|_| false);
    let content = b"axyz";
    let digest = target.manifest().root();
    let staged = store.stage(
        [2; 16],
        &there,
        &there,
        digest,
        plan.operations,
        &mut &content[..],
    );
    let staged = staged.unwrap();
    assert_eq!(store.drift_beside(&staged).unwrap(), []);
    let done = store.commit(staged, &[], &mut |_| ()).unwrap();
    assert_eq!(Tree::read(root), target);
    let inside = target
        .0
        .keys()
        .filter(|name| *name == "pkg" || name.starts_with("pkg/"));
    let inside: Vec<_> = inside.map(|name| path(name)).collect();
    assert_eq!(done.drift, inside);
}

#[test]
fn a_new_directory_may_take_the_place_of_what_is_in_its_way() {
    let dir = scratch();
    let root = dir.path();
    let mut store = open(root);
    push(&mut store, 1, &Tree::new(&["pkg = a file", "same = 1"])).unwrap();
    let staged = stage(&mut store, 2, &with_package()).unwrap();
    fs::remove_file(root.join("pkg")).unwrap();
    symlink("/", root.join("pkg")).unwrap();
    let done = store.commit(staged, &[], &mut |_| ()).unwrap();
    assert_eq!(done.drift, [path("pkg")]);
    assert_eq!(Tree::read(root), with_package());
}

#[test]
fn files_in_a_new_directory_are_newer_than_those_that_were_there() {
    let dir = scratch();
    let mut store = open(dir.path());
    let mtime = || fs::metadata(dir.path().join("d/a.py")).unwrap().mtime();
    let with = Tree::new(&["b = 1", "d/", "d/a.py = 1"]);
    push(&mut store, 1, &with).unwrap();
    let first = mtime();
    push(&mut store, 2, &Tree::new(&["b = 1"])).unwrap();
    push(&mut store, 3, &with).unwrap();
    assert!(mtime() > first);
}

#[test]
fn a_push_never_follows_links_out_of_the_root() {
    let dir = scratch();
    let outside = scratch();
    let root = dir.path();
    let mut store = open(root);
    push(
        &mut store,
        1,
        &Tree::new(&["d/", "d/a = 1", "d/b = 1", "d/e/"]),
    )
    .unwrap();
    Tree::new(&["a = outside", "b = outside", "e/"]).write(outside.path());
    let before = Tree::read(outside.path());
    fs::rename(root.join("d"), root.join("elsewhere")).unwrap();
    symlink(outside.path(), root.join("d")).unwrap();
    let target = Tree::new(&["d/", "d/a = 2", "d/e/", "d/e/f = 2"]);
    let done = push(&mut store, 2, &target).unwrap();
    assert_eq!(Tree::read(outside.path()), before);
    assert!(done.drift.contains(&path("d")));
    assert_eq!(fs::read(root.join("d/a")).unwrap(), b"2");
    assert!(!root.join("d").symlink_metadata().unwrap().is_symlink());
    store.roll_back(&mut |_| ()).unwrap();
    assert_eq!(Tree::read(outside.path()), before);
    assert!(root.join("d").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn staged_pushes_are_for_one_tree_and_vanish_when_dropped() {
    let dir = scratch();
    let root = dir.path();
    committed(root);
    let mut store = open(root);
    let staged = stage(&mut store, 2, &after()).unwrap();
    let staging = root.join(".patchwire/staging");
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 2);
    let mode = fs::metadata(root.join(".patchwire"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(staged);
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 1);
    let staged = stage(&mut store, 2, &after()).unwrap();
    store.undo.as_mut().unwrap().sequence += 1;
    let stale = store.commit(staged, &[], &mut |_| ());
    assert!(matches!(stale, Err(CommitError::Stale)));
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 1);
}

fn root_of(store: &Store) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    fs::read_link(format!("/proc/self/fd/{}", store.root.as_raw_fd())).unwrap()
}

/// Pushes `target` as a mirror.
fn mirror(store: &mut Store, ignore: &[&str], target: &Tree) -> Committed {
    let ignore: Vec<_> = ignore.iter().map(|&pattern| pattern.to_owned()).collect();
    let base = store.inventory_for_mirror(&ignore, &[]).unwrap().manifest;
    let plan = crate::plan(&base, &base, &target.manifest()).finish(|_| false);
    let root = target.manifest().root();
    let staged = store.stage([9; 16], &base, &base, root, plan.operations, &mut &b""[..]);
    store.commit(staged.unwrap(), &[], &mut |_| ()).unwrap()
}

#[test]
fn a_mirror_takes_away_what_is_neither_pushed_nor_ignored_and_brings_it_back() {
    let dir = scratch();
    let root = dir.path();
    let pushed = Tree::new(&[".gitignore = *.log", "a = 1", "pkg/", "pkg/b = 1"]);
    for is_first in [true, false] {
        let scattered = [
            "app.log = kept",
            "cache/",
            "cache/deep/",
            "cache/deep/x = x",
            "cache/deep/y.log = kept",
            "empty/",
            "logs/",
            "logs/a.log = kept",
            "pkg/stray = s",
            "tmp/",
            "tmp/kept = by a pattern",
            "link -> a",
            "gone/",
            "gone/old/",
            "gone/old/z = z",
        ];
        let root = root.join(is_first.to_string());
        fs::create_dir(&root).unwrap();
        let mut store = open(&root);
        if is_first {
            pushed.write(&root);
        } else {
            push(&mut store, 1, &pushed).unwrap();
        }
        Tree::new(&scattered).write(&root);
        mkfifo(&root.join("gone/fifo"));
        let before = Tree::read(&root);
        let done = mirror(&mut store, &["/tmp/kept"], &pushed);
        let kept = Tree::new(&[
            "app.log = kept",
            "cache/",
            "cache/deep/",
            "cache/deep/y.log = kept",
            "gone/",
            "logs/",
            "logs/a.log = kept",
            "tmp/",
            "tmp/kept = by a pattern",
        ]);
        let mut expected = pushed.clone().with("gone/fifo", Node::Fifo);
        expected.0.extend(kept.0);
        assert_eq!(Tree::read(&root), expected);
        assert_eq!((done.drift, done.moved_aside), (vec![], vec![]));
        let again = store.inventory_for_mirror(&["/tmp/kept".to_owned()], &[]);
        assert_eq!(
            *again.unwrap().manifest,
            pushed.manifest(),
            "nothing is left to do"
        );
        if !is_first {
            store.roll_back(&mut |_| ()).unwrap();
            assert_eq!(Tree::read(&root), before);
        }
    }
}
