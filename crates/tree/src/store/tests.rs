use std::fs;

use super::*;
use crate::testing::{Tree, mkfifo, open, path, push, scratch, skipped, stage};

#[test]
fn state_may_lie_elsewhere_but_not_in_the_tree() {
    let dir = scratch();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("inner")).unwrap();
    let outside = dir.path().join("state/deep");
    let (mut store, _) = Store::open(&root, &outside, 5).unwrap();
    push(&mut store, 1, &Tree::new(&["a = 1"])).unwrap();
    assert_eq!(store.epoch(), 5);
    assert!(!root.join(".patchwire").exists());
    for inside in ["inner/state", "inner", ".patchwire/state", ""] {
        let error = Store::open(&root, &root.join(inside), 0).unwrap_err();
        assert!(
            matches!(error, StoreError::InsideRoot { .. }),
            "{inside}: {error}"
        );
    }
}

#[test]
fn state_on_another_file_system_is_refused() {
    let (here, there) = (scratch(), tempfile::tempdir().unwrap());
    let device = |dir: &tempfile::TempDir| {
        use std::os::unix::fs::MetadataExt;
        dir.path().metadata().unwrap().dev()
    };
    if device(&here) == device(&there) {
        return skipped("there is one file system only");
    }
    let error = Store::open(here.path(), there.path(), 0).unwrap_err();
    assert!(
        matches!(error, StoreError::OtherFileSystem { .. }),
        "{error}"
    );
    assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0);
}

#[test]
fn callers_keep_small_files() {
    let dir = scratch();
    let store = open(dir.path());
    assert_eq!(store.read_state("push_id").unwrap(), None);
    for content in ["one", "another, longer"] {
        store.write_state("push_id", content.as_bytes()).unwrap();
        assert_eq!(
            store.read_state("push_id").unwrap().unwrap(),
            content.as_bytes()
        );
    }
    for bad in ["", "journal", "lock", "../x", "a/b", "push_id.tmp"] {
        assert!(
            matches!(store.write_state(bad, b""), Err(StoreError::Name { .. })),
            "{bad}"
        );
        assert!(
            matches!(store.read_state(bad), Err(StoreError::Name { .. })),
            "{bad}"
        );
    }
}

#[test]
fn damaged_state_is_an_error_and_a_damaged_index_is_not() {
    let dir = scratch();
    let state = dir.path().join(".patchwire");
    let mut store = open(dir.path());
    push(&mut store, 1, &Tree::new(&["a = 1"])).unwrap();
    store.inventory().unwrap();
    drop(store);
    fs::write(state.join("index"), "damaged").unwrap();
    assert_eq!(open(dir.path()).inventory().unwrap().drift, []);
    for name in ["committed", "undo"] {
        let sound = fs::read(state.join(name)).unwrap();
        fs::write(state.join(name), &sound[..sound.len() - 1]).unwrap();
        let error = Store::open(dir.path(), &state, 0).unwrap_err();
        assert!(
            matches!(&error, StoreError::Damaged { name: n } if n == name),
            "{error}"
        );
        fs::write(state.join(name), sound).unwrap();
    }
    assert!(open(dir.path()).open_file(&path("a")).is_ok());
}

#[test]
fn changes_that_are_many_are_folded_into_one() {
    let dir = scratch();
    let committed = dir.path().join(".patchwire/committed");
    let len = || fs::metadata(&committed).unwrap().len();
    let mut store = open(dir.path());
    let mut longest = 0;
    let mut folded = 0;
    for turn in 0..60u32 {
        let tree = Tree::new(&["a = 1", &format!("b = {turn}")]);
        let before = len();
        let staged = stage(&mut store, 1, &tree).unwrap();
        store.commit(staged, &[7; 3000], &mut |_| ()).unwrap();
        store.set_verified(turn % 2 == 0).unwrap();
        longest = longest.max(len());
        folded += u32::from(len() < before);
        if folded == 1 || turn == 59 {
            drop(store);
            store = open(dir.path());
            assert_eq!(*store.managed(), tree.manifest());
            assert_eq!(store.committed().unwrap().verified, turn % 2 == 0);
        }
    }
    assert!(folded > 0 && longest < 100_000, "{folded} {longest}");
    store.roll_back(&mut |_| ()).unwrap();
    assert_eq!(*store.managed(), Tree::new(&["a = 1", "b = 58"]).manifest());
}

#[test]
fn a_record_that_was_said_to_be_kept_and_is_gone_is_damage() {
    let dir = scratch();
    let state = dir.path().join(".patchwire");
    let mut store = open(dir.path());
    let mut lens = Vec::new();
    for (id, content) in [(1, "a = 1"), (2, "a = 2"), (3, "a = 3")] {
        push(&mut store, id, &Tree::new(&[content])).unwrap();
        lens.push(fs::metadata(state.join("committed")).unwrap().len());
    }
    store.set_verified(true).unwrap();
    drop(store);
    let sound = fs::read(state.join("committed")).unwrap();
    for damage in [100, lens[1] - 1, lens[2] - 1] {
        let mut bytes = sound.clone();
        bytes[usize::try_from(damage).unwrap()] ^= 1;
        fs::write(state.join("committed"), bytes).unwrap();
        let error = Store::open(dir.path(), &state, 0).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
    // What was cut off is only that the app was ready.
    fs::write(state.join("committed"), &sound[..sound.len() - 1]).unwrap();
    let mut store = open(dir.path());
    assert!(!store.committed().unwrap().verified);
    assert_eq!(*store.managed(), Tree::new(&["a = 3"]).manifest());
    push(&mut store, 4, &Tree::new(&["a = 4"])).unwrap();
    drop(store);
    assert_eq!(
        *open(dir.path()).managed(),
        Tree::new(&["a = 4"]).manifest()
    );
}

#[test]
fn a_root_is_bare_until_a_file_lies_in_it_or_something_was_committed() {
    let dir = scratch();
    let mut store = open(dir.path());
    Tree::new(&[
        "empty/",
        "deep/",
        "deep/er/",
        "linked -> /etc",
        "dangling -> x",
    ])
    .write(dir.path());
    mkfifo(&dir.path().join("deep/fifo"));
    fs::create_dir(dir.path().join(".git")).unwrap();
    fs::write(dir.path().join(".git/HEAD"), "ref").unwrap();
    assert!(store.is_bare());
    let file = dir.path().join("deep/er/file");
    fs::write(&file, "").unwrap();
    assert!(!store.is_bare());
    fs::remove_file(&file).unwrap();
    assert!(store.is_bare());
    push(&mut store, 1, &Tree::new(&["empty/"])).unwrap();
    assert!(!store.is_bare());
}
