use std::{fs, io::Cursor, path::Path};

use super::*;
use crate::testing::{Node, Tree, open, operations, path, push, scratch};

fn long(edit: &str) -> Node {
    Node::File(format!("{}{edit}", "abc".repeat(4000)).into(), 0o644)
}

fn old() -> Tree {
    Tree::new(&["copied = content", "other = o"]).with("delta", long("old"))
}

/// Of every source one: whole, delta, copy.
fn new() -> Tree {
    Tree::new(&[
        "copied = content",
        "copy = content",
        "other = o",
        "whole = sent",
    ])
    .with("delta", long("new"))
}

/// Stages the push from [`old`] to [`new`] after `spoil`, which fails, and leaves nothing.
fn refused(
    spoil: impl FnOnce(&Path, &mut Manifest, &mut Vec<Operation>, &mut Vec<u8>),
) -> StageError {
    let dir = scratch();
    let root = dir.path();
    let mut store = open(root);
    push(&mut store, 1, &old()).unwrap();
    let (available, mut operations, mut content) = operations(&mut store, &new());
    let mut target = new().manifest();
    spoil(root, &mut target, &mut operations, &mut content);
    let before = Tree::read(root);
    let base = store.managed();
    let error = store
        .stage(
            [2; 16],
            &base,
            &available,
            target.root(),
            operations,
            &mut Cursor::new(content),
        )
        .expect_err("it was spoilt");
    assert_eq!(Tree::read(root), before);
    let staging = fs::read_dir(root.join(".patchwire/staging")).unwrap();
    assert_eq!(
        staging.count(),
        1,
        "only the undo of the first push is left"
    );
    error
}

#[test]
fn sources_are_what_the_test_says() {
    let dir = scratch();
    let mut store = open(dir.path());
    push(&mut store, 1, &old()).unwrap();
    let (available, operations, content) = operations(&mut store, &new());
    let count = |wanted: fn(&Source) -> bool| {
        let is = |o: &&Operation| matches!(o, Operation::Put { source, .. } if wanted(source));
        operations.iter().filter(is).count()
    };
    assert_eq!(count(|source| matches!(source, Source::Whole { .. })), 1);
    assert_eq!(count(|source| matches!(source, Source::Delta { .. })), 1);
    assert_eq!(count(|source| matches!(source, Source::Copy { .. })), 1);
    let target = new().manifest();
    let base = store.managed();
    let staged = store.stage(
        [2; 16],
        &base,
        &available,
        target.root(),
        operations,
        &mut &content[..],
    );
    assert_eq!(staged.unwrap().target(), &target);
}

#[test]
fn content_that_is_not_what_was_announced_is_the_peers_fault() {
    // The delta comes first, and begins with 21 bytes that say what basis it is for.
    let error = refused(|_, _, _, content| content[22] ^= 1);
    assert!(
        matches!(&error, StageError::Content { path: p, .. } if *p == path("delta")),
        "{error}"
    );
    let error = refused(|_, _, _, content| *content.last_mut().unwrap() ^= 1);
    assert!(
        matches!(&error, StageError::Content { path: p, source: None } if *p == path("whole")),
        "{error}"
    );
    let error = refused(|_, _, _, content| content.push(0));
    assert!(matches!(error, StageError::Trailing), "{error}");
    let error = refused(|_, _, _, content| content.truncate(content.len() - 1));
    assert!(
        matches!(&error, StageError::Stream { path: p, .. } if *p == path("whole")),
        "{error}"
    );
}

#[test]
fn operations_have_to_give_the_target() {
    let error = refused(|_, target, _, _| *target = old().manifest());
    assert!(matches!(error, StageError::Target { .. }), "{error}");
    let error = refused(|_, _, operations, _| {
        operations.push(Operation::Delete { path: path("no") });
    });
    assert!(matches!(error, StageError::Operations(_)), "{error}");
}

#[test]
fn a_basis_that_changed_here_is_told_from_bad_content() {
    for (name, content) in [
        ("copied", "Content"),
        ("copied", "shorter"),
        ("copied", "longer than it was"),
        ("delta", "another"),
    ] {
        let error = refused(|root, _, _, _| fs::write(root.join(name), content).unwrap());
        let named = matches!(&error, StageError::Basis { path: p } if *p == path(name));
        assert!(named, "{name} {content}: {error:?}");
    }
    for name in ["copied", "delta"] {
        let gone = refused(|root, _, _, _| fs::remove_file(root.join(name)).unwrap());
        assert!(matches!(gone, StageError::Basis { .. }), "{gone}");
        let fifo = refused(|root, _, _, _| {
            fs::remove_file(root.join(name)).unwrap();
            crate::testing::mkfifo(&root.join(name));
        });
        assert!(matches!(fifo, StageError::Basis { .. }), "{fifo}");
    }
}

/// A push of three contents, the last of them cut off after two bytes.
fn cut_off(store: &mut Store) -> Tree {
    let target = Tree::new(&["a = first", "d/", "d/b = second", "d/c = third"]);
    let (available, operations, content) = operations(store, &target);
    let cut = &content[..content.len() - 3];
    let error = store
        .stage(
            [1; 16],
            &store.managed(),
            &available,
            target.manifest().root(),
            operations,
            &mut &cut[..],
        )
        .expect_err("it is cut off");
    assert!(matches!(error, StageError::Stream { .. }), "{error}");
    target
}

/// Stages what [`cut_off`] did not, as if `kept` were kept.
fn resume(
    store: &mut Store,
    target: &Tree,
    kept: impl Fn(&Digest) -> u64,
) -> Result<Staged, StageError> {
    let (available, mut operations, _) = operations(store, target);
    let mut content = Vec::new();
    for operation in &mut operations {
        let Operation::Put {
            path,
            entry: Entry::File { digest, .. },
            source: Source::Whole { kept: have },
        } = operation
        else {
            continue;
        };
        *have = kept(digest);
        let Some(Node::File(bytes, _)) = target.0.get(path.as_path().to_str().unwrap()) else {
            panic!("{path:?} is a file");
        };
        content.extend(&bytes[usize::try_from(*have).unwrap()..]);
    }
    let root = target.manifest().root();
    store.stage(
        [1; 16],
        &store.managed(),
        &available,
        root,
        operations,
        &mut &content[..],
    )
}

fn have(store: &Store) -> impl Fn(&Digest) -> u64 + use<> {
    let kept = store.kept().unwrap();
    move |digest| {
        let known = kept.iter().find(|kept| kept.digest == *digest);
        known.map_or(0, |kept| kept.have)
    }
}

#[test]
fn what_came_before_a_cut_is_taken_up_also_by_another_agent_process() {
    let dir = scratch();
    let mut store = open(dir.path());
    let target = cut_off(&mut store);
    drop(store);
    let mut store = open(dir.path());
    let kept = |content: &str, have| Kept {
        digest: Digest::of(content.as_bytes()),
        len: content.len() as u64,
        have,
    };
    let mut expected = [kept("first", 5), kept("second", 6), kept("third", 2)];
    expected.sort_by_key(|kept| *kept.digest.as_bytes());
    assert_eq!(store.kept().unwrap(), expected);

    let have = have(&store);
    let staged = resume(&mut store, &target, &have).unwrap();
    assert_eq!(store.kept().unwrap(), []);
    drop(staged);
    assert_eq!(store.kept().unwrap().len(), 3, "called off: kept once more");
    let have = self::have(&store);
    let staged = resume(&mut store, &target, &have).unwrap();
    store.commit(staged, &[], &mut |_| ()).unwrap();
    assert_eq!(Tree::read(dir.path()), target);

    push(&mut store, 2, &Tree::new(&["a = 1"])).unwrap();
    cut_off(&mut store);
    assert_ne!(store.kept().unwrap(), []);
    push(&mut store, 3, &Tree::new(&["a = 2"])).unwrap();
    assert_eq!(store.kept().unwrap(), [], "a commit ends it");
}

#[test]
fn a_content_that_two_files_have_is_taken_up_by_both() {
    let dir = scratch();
    let mut store = open(dir.path());
    cut_off(&mut store);
    let target = Tree::new(&["a = third", "b = third", "c = third"]);
    let have = have(&store);
    let staged = resume(&mut store, &target, &have).unwrap();
    store.commit(staged, &[], &mut |_| ()).unwrap();
    assert_eq!(Tree::read(dir.path()), target);
}

#[test]
fn what_is_kept_is_believed_only_by_its_digest() {
    let dir = scratch();
    let mut store = open(dir.path());
    let target = cut_off(&mut store);
    let third = Digest::of(b"third");
    let not_kept = |error| {
        let named = matches!(&error, StageError::NotKept { path: p } if *p == path("d/c"));
        assert!(named, "{error}");
    };
    not_kept(
        resume(&mut store, &target, |digest| {
            3 * u64::from(*digest == third)
        })
        .unwrap_err(),
    );
    let target = cut_off(&mut store);
    let file = dir.path().join(format!(".patchwire/kept/{third}.5"));
    fs::write(&file, "tX").unwrap();
    let have = have(&store);
    not_kept(resume(&mut store, &target, &have).unwrap_err());
    let have = self::have(&store);
    assert_eq!(have(&third), 0, "it is not offered again");
    let staged = resume(&mut store, &target, &have).unwrap();
    store.commit(staged, &[], &mut |_| ()).unwrap();
    assert_eq!(Tree::read(dir.path()), target);
}

#[test]
fn nothing_is_kept_for_longer_than_a_day_nor_what_is_none_of_ours() {
    let dir = scratch();
    let mut store = open(dir.path());
    cut_off(&mut store);
    let kept = dir.path().join(".patchwire/kept");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(90_000);
    let first = kept.join(format!("{}.5", Digest::of(b"first")));
    File::open(&first).unwrap().set_modified(old).unwrap();
    fs::write(kept.join("stray"), "").unwrap();
    assert_eq!(store.kept().unwrap().len(), 2);
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 2);
}
