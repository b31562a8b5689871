//! Trees written down in a test, on the disk and as manifests.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, BufReader, Cursor, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::Arc,
};

use patchwire_delta::{Digest, Seed, Signature, SignatureOptions, diff_read};
use patchwire_protocol::{
    manifest::{Entry, LinkTarget, Manifest, ManifestEntry, Mode},
    operation::{Operation, Source},
    path::RelativePath,
};

use crate::{
    Committed, StageError, Staged, Store, Window, commit::CommitError, fault::Fault, plan,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    File(Vec<u8>, u32),
    Dir(u32),
    Link(String),
    Fifo,
}

/// A whole directory, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tree(pub(crate) BTreeMap<String, Node>);

/// A directory for a test that syncs often: in memory where there is such a place.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// Says that something was not tested, and fails where it has to be: where `CI` is set.
pub(crate) fn skipped(why: &str) {
    // Not by `eprintln!`: nobody sees what a test that passes prints.
    let _ = writeln!(io::stderr(), "SKIPPED: {why}");
    let is_allowed = env::var_os("CI").is_none();
    assert!(is_allowed, "nothing is skipped under CI: {why}");
}

/// Numbers that are random enough for a test, and the same for the same seed: SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }

    pub(crate) fn choose<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}

pub(crate) fn path(path: &str) -> RelativePath {
    path.try_into().unwrap()
}

impl Tree {
    /// `name/` is a directory, `name -> target` a link, `name = content` a file, and `name ! = content`
    /// an executable one.
    pub(crate) fn new(lines: &[&str]) -> Self {
        let node = |line: &&str| {
            if let Some((name, target)) = line.split_once(" -> ") {
                return (name.to_owned(), Node::Link(target.to_owned()));
            }
            if let Some((name, content)) = line.split_once(" = ") {
                let (name, mode) = match name.strip_suffix(" !") {
                    Some(name) => (name, 0o755),
                    None => (name, 0o644),
                };
                return (name.to_owned(), Node::File(content.into(), mode));
            }
            let name = line.strip_suffix('/').expect("a directory ends in a slash");
            (name.to_owned(), Node::Dir(0o755))
        };
        Self(lines.iter().map(node).collect())
    }

    pub(crate) fn with(mut self, name: &str, node: Node) -> Self {
        self.0.insert(name.to_owned(), node);
        self
    }

    pub(crate) fn manifest(&self) -> Manifest {
        let entry = |(name, node): (&String, &Node)| ManifestEntry {
            path: path(name),
            entry: match node {
                Node::File(content, mode) => Entry::File {
                    mode: Mode::from_bits(*mode),
                    len: content.len() as u64,
                    digest: Digest::of(content),
                },
                Node::Dir(mode) => Entry::Directory {
                    mode: Mode::from_bits(*mode),
                },
                Node::Link(target) => Entry::Symlink {
                    target: LinkTarget::new(target.as_bytes()).unwrap(),
                },
                Node::Fifo => panic!("no manifest holds a fifo"),
            },
        };
        Manifest::from_unsorted(self.0.iter().map(entry).collect()).unwrap()
    }

    /// What lies in `root`, without `.patchwire` and `.git`.
    pub(crate) fn read(root: &Path) -> Self {
        fn visit(root: &Path, dir: &Path, tree: &mut Tree) {
            for entry in fs::read_dir(dir).unwrap() {
                let at = entry.unwrap().path();
                let name = at.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                if name == ".patchwire" || name == ".git" {
                    continue;
                }
                let metadata = at.symlink_metadata().unwrap();
                let mode = metadata.permissions().mode() & 0o7777;
                let node = if metadata.is_dir() {
                    visit(root, &at, tree);
                    Node::Dir(mode)
                } else if metadata.is_symlink() {
                    Node::Link(fs::read_link(&at).unwrap().to_str().unwrap().to_owned())
                } else if metadata.is_file() {
                    Node::File(fs::read(&at).unwrap(), mode)
                } else {
                    Node::Fifo
                };
                tree.0.insert(name, node);
            }
        }
        let mut tree = Self::default();
        visit(root, root, &mut tree);
        tree
    }

    pub(crate) fn write(&self, root: &Path) {
        for (name, node) in &self.0 {
            let at = root.join(name);
            match node {
                Node::File(content, mode) => {
                    fs::write(&at, content).unwrap();
                    fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
                }
                Node::Dir(mode) => {
                    fs::create_dir_all(&at).unwrap();
                    fs::set_permissions(&at, fs::Permissions::from_mode(*mode)).unwrap();
                }
                Node::Link(target) => symlink(target, &at).unwrap(),
                Node::Fifo => mkfifo(&at),
            }
        }
    }
}

pub(crate) fn mkfifo(at: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, at, mode).unwrap();
}

/// Opens the store of `root`, state at its top.
pub(crate) fn open(root: &Path) -> Store {
    open_with(root, Fault::default())
}

pub(crate) fn open_with(root: &Path, fault: Fault) -> Store {
    let state = root.join(".patchwire");
    Store::open_with(root, &state, 1, fault).unwrap().0
}

/// Operations from what stands to `target`, and their content, deltas included.
pub(crate) fn operations(
    store: &mut Store,
    target: &Tree,
) -> (Arc<Manifest>, Vec<Operation>, Vec<u8>) {
    let available = store.inventory().unwrap().manifest;
    let plan = plan(&store.managed(), &available, &target.manifest()).finish(|_| true);
    let mut content = Vec::new();
    for operation in &plan.operations {
        let Operation::Put { path, source, .. } = operation else {
            continue;
        };
        let Some(Node::File(bytes, _)) = target.0.get(path.as_path().to_str().unwrap()) else {
            continue;
        };
        match source {
            Source::Whole { kept } => {
                content.extend(&bytes[usize::try_from(*kept).unwrap()..]);
            }
            Source::Delta { basis } => {
                let basis = store.open_file(basis).unwrap();
                let len = basis.metadata().unwrap().len();
                let options = SignatureOptions::new(Seed(7));
                let signature = Signature::read(basis, len, options).unwrap();
                diff_read(&signature, &bytes[..], &mut content).unwrap();
            }
            Source::None | Source::Copy { .. } => {}
        }
    }
    (available, plan.operations, content)
}

pub(crate) fn stage(store: &mut Store, id: u8, target: &Tree) -> Result<Staged, StageError> {
    let (available, operations, content) = operations(store, target);
    let mut content = BufReader::with_capacity(7, Cursor::new(content));
    let base = store.managed();
    store.stage(
        [id; 16],
        &base,
        &available,
        target.manifest().root(),
        operations,
        &mut content,
    )
}

pub(crate) fn push(store: &mut Store, id: u8, target: &Tree) -> Result<Committed, CommitError> {
    let staged = stage(store, id, target).unwrap();
    store.commit(staged, &[id], &mut |_: Window| ())
}
