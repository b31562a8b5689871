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
            &operations,
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
        &operations,
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
