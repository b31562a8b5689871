use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::testing::{Tree, mkfifo, path, scratch};

/// How often every operation is tried while the directory is swapped: at least, and at most until
/// the race has shown all its faces, however seldom the other thread runs.
const ROUNDS: std::ops::Range<usize> = 2000..2_000_000;

/// A root whose directory `d` is a link to a directory outside at every other moment.
struct Swapped {
    _dir: tempfile::TempDir,
    root: PathBuf,
    outside: PathBuf,
}

impl Swapped {
    fn new() -> Self {
        let dir = scratch();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        let tree = Tree::new(&["f = inside", "sub/"]);
        for place in [root.join("d"), outside.clone()] {
            fs::create_dir_all(&place).unwrap();
            tree.write(&place);
        }
        fs::write(outside.join("f"), "outside").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        Self {
            _dir: dir,
            root,
            outside,
        }
    }

    /// Calls `attempt` again and again while `d` and the link change places, until it has seen
    /// enough.
    fn race(&self, mut attempt: impl FnMut(&Dir) -> bool) {
        let root = Dir::open_root(&self.root).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    root.exchange(b"d", &root, b"link").unwrap();
                }
            });
            // Also when an attempt panics: the scope waits for the thread.
            let _stop = SetOnDrop(&done);
            for round in 0..ROUNDS.end {
                if attempt(&root) && round >= ROUNDS.start {
                    break;
                }
            }
        });
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_operation_leaves_the_root_while_a_directory_is_swapped_for_a_link() {
    let swapped = Swapped::new();
    let before = Tree::read(&swapped.outside);
    let (mut inside, mut refused) = (0, 0);
    swapped.race(|root| {
        let attempt = || {
            let dir = root.walk_to_parent(&path("d/f"))?;
            let mut content = String::new();
            io::Read::read_to_string(&mut dir.open_file(b"f")?, &mut content)?;
            assert_eq!(content, "inside");
            dir.create_file(b"new")?;
            dir.set_modified(b"new", Time::default())?;
            dir.rename_new(b"new", &dir, b"renamed")?;
            dir.exchange(b"renamed", &dir, b"f")?;
            dir.exchange(b"renamed", &dir, b"f")?;
            dir.unlink(b"renamed")?;
            dir.symlink(b"x", b"l")?;
            assert_eq!(dir.read_link(b"l")?, b"x");
            dir.unlink(b"l")?;
            dir.make_dir(b"m")?;
            dir.open_dir(b"m")?.set_mode(0o711)?;
            dir.remove_dir(b"m")?;
            root.walk(&path("d/sub"))?.set_mode(0o755)
        };
        match attempt() {
            Ok(()) => inside += 1,
            Err(error) if no_such_place(&error) => refused += 1,
            Err(error) => panic!("{error}"),
        }
        inside > 0 && refused > 0
    });
    assert_eq!(Tree::read(&swapped.outside), before);
    // Both happened, or the race wasn't one.
    assert!(
        inside > 0 && refused > 0,
        "{inside} inside, {refused} refused"
    );
}

#[test]
fn operations_by_path_do_leave_the_root_in_this_race() {
    let swapped = Swapped::new();
    let mut escaped = 0;
    swapped.race(|_| {
        let at = swapped.root.join("d/f");
        if fs::read_to_string(at).is_ok_and(|content| content == "outside") {
            escaped += 1;
        }
        escaped > 0
    });
    assert!(escaped > 0, "the race above would prove nothing");
}

#[test]
fn names_are_single_components() {
    let dir = scratch();
    let root = Dir::open_root(dir.path()).unwrap();
    for bad in [&b""[..], b".", b"..", b"a/b", b"/etc", b"a\0b"] {
        let refused = |result: io::Result<()>| {
            let error = result.expect_err("not a component");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        };
        refused(root.open_dir(bad).map(drop));
        refused(root.open_file(bad).map(drop));
        refused(root.create_file(bad).map(drop));
        refused(root.make_dir(bad));
        refused(root.unlink(bad));
        refused(root.remove_all(bad));
        refused(root.symlink(b"x", bad));
        refused(root.rename(bad, &root, b"x"));
        refused(root.rename_new(b"x", &root, bad));
        refused(root.exchange(b"x", &root, bad));
    }
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting() {
    let dir = scratch();
    let root = Dir::open_root(dir.path()).unwrap();
    mkfifo(&dir.path().join("fifo"));
    fs::create_dir(dir.path().join("dir")).unwrap();
    for name in [&b"fifo"[..], b"dir"] {
        let error = root.open_file(name).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(root.stat(b"fifo").unwrap().kind, Kind::Special);
}

#[test]
fn whole_directories_are_removed_and_links_in_them_are_not_followed() {
    let dir = scratch();
    Tree::new(&[
        "keep/",
        "keep/k = k",
        "gone/",
        "gone/a/",
        "gone/a/b = b",
        "gone/l -> ../keep",
    ])
    .write(dir.path());
    let root = Dir::open_root(dir.path()).unwrap();
    root.remove_all(b"gone").unwrap();
    assert_eq!(Tree::read(dir.path()), Tree::new(&["keep/", "keep/k = k"]));
}

#[test]
fn a_walker_finds_every_directory_whatever_the_order() {
    let dir = scratch();
    let names = ["a", "a/b", "a/b/c", "a/d", "e", "a-b"];
    for name in names {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let root = Dir::open_root(dir.path()).unwrap();
    let mut walker = Walker::new(&root);
    let mut seen = 0;
    for first in names {
        for second in names {
            for name in [first, second] {
                let at = path(name);
                let expected = root.walk(&at).unwrap().own_stat().unwrap().inode;
                let found = walker.parent_of(&at).unwrap().stat(at.name()).unwrap();
                assert_eq!(found.inode, expected, "{name}");
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 72);
    assert!(walker.parent_of(&path("e/no/x")).is_err());
    assert!(
        walker.parent_of(&path("a/b/c")).is_ok(),
        "an error leaves it usable"
    );
}
