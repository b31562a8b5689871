//! What the scripts of both ends of a push are made of.
//!
//! A script is a list of steps of two bytes each: what happens, and which variant of it.

use patchwire_delta::Digest;
use patchwire_protocol::{
    manifest::{Entry, LinkTarget, Manifest, ManifestEntry, Mode},
    message::{
        push::{AppOptions, Base, ClientId, Failure, FailureCode, Push, PushId},
        value::{Text, WireDigest},
    },
    operation::{Operation, Source},
    path::RelativePath,
};

/// The longest script that is followed, in steps: what is not found in fewer is not found in more.
const STEPS: usize = 256;

/// A path of this tree.
#[must_use]
pub fn at(path: &str) -> RelativePath {
    path.try_into().expect("the paths of scripts are paths")
}

/// The entry of a file.
#[must_use]
pub fn file(path: &str, content: &str) -> ManifestEntry {
    ManifestEntry {
        path: at(path),
        entry: Entry::File {
            mode: Mode::from_bits(0o644),
            len: content.len() as u64,
            digest: Digest::of(content.as_bytes()),
        },
    }
}

/// The entry of a directory.
#[must_use]
pub fn directory(path: &str) -> ManifestEntry {
    ManifestEntry {
        path: at(path),
        entry: Entry::Directory {
            mode: Mode::from_bits(0o755),
        },
    }
}

/// The entry of a symbolic link.
#[must_use]
pub fn link(path: &str, target: &str) -> ManifestEntry {
    let target = LinkTarget::new(target.as_bytes()).expect("the targets of scripts are targets");
    ManifestEntry {
        path: at(path),
        entry: Entry::Symlink { target },
    }
}

/// An operation that puts an entry.
#[must_use]
pub fn put(entry: ManifestEntry, source: Source) -> Operation {
    Operation::Put {
        path: entry.path,
        entry: entry.entry,
        source,
    }
}

/// A small tree.
#[must_use]
pub fn tree() -> Manifest {
    let entries = vec![
        file("a", "one"),
        directory("d"),
        file("d/b", "two"),
        link("l", "d/b"),
    ];
    Manifest::from_sorted(entries).expect("the entries are sorted and rooted")
}

/// Operations of every kind; each alone is a push.
#[must_use]
pub fn operations() -> [Operation; 6] {
    [
        put(file("a", "three"), Source::Whole { kept: 0 }),
        put(file("d/b", "2"), Source::Delta { basis: at("d/b") }),
        put(file("moved", "one"), Source::Copy { from: at("a") }),
        put(link("m", "a"), Source::None),
        Operation::Delete { path: at("l") },
        put(file("resumed", "four"), Source::Whole { kept: 2 }),
    ]
}

/// The header of a push.
#[must_use]
pub fn push(id: u8, base: Base, operations: u64) -> Push {
    Push {
        push_id: PushId([id; 16]),
        client: ClientId([2; 16]),
        author: Text::cut("ana@laptop"),
        message: Text::default(),
        epoch: 7,
        base,
        target: root(),
        operations,
        expires_ms: 0,
        force: false,
        sketch: None,
        links_may_leave: false,
        mirror: None,
        app: AppOptions::default(),
    }
}

/// The root of [`tree`].
#[must_use]
pub fn root() -> WireDigest {
    WireDigest(tree().root())
}

/// A failure of the shell's.
#[must_use]
pub fn failure() -> Failure {
    Failure::new(FailureCode::Io, "disk full")
}

/// The steps of a script.
pub(crate) fn steps(data: &[u8]) -> impl Iterator<Item = [u8; 2]> {
    data.as_chunks().0.iter().copied().take(STEPS)
}
