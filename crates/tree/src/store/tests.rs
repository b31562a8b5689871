use std::fs;

use super::*;
use crate::testing::{Tree, mkfifo, open, path, push, scratch, skipped};

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
