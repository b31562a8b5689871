//! What a push makes of what stands at the agent, by the rules alone.

use std::{
    collections::BTreeMap,
    ops::Bound,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::world::Node;

pub(crate) type Tree = BTreeMap<PathBuf, Node>;

/// The pattern of what the developer doesn't push.
pub(crate) const IGNORED: &str = "*.ignored";

/// What of a developer's directory is pushed.
pub(crate) fn pushed_of(source: &Tree) -> Tree {
    let mut pushed = Tree::new();
    // What a directory holds comes before it.
    for (path, node) in source.iter().rev() {
        let belongs = match node {
            Node::File { .. } | Node::Link(_) => true,
            Node::Special => false,
            Node::Directory { .. } => has_inside(&pushed, path) || !has_inside(source, path),
        };
        if belongs && !is_ignored(path) {
            pushed.insert(path.clone(), node.clone());
        }
    }
    pushed
}

fn is_ignored(path: &Path) -> bool {
    let (_, suffix) = IGNORED.split_at(1);
    path.iter()
        .any(|name| name.as_bytes().ends_with(suffix.as_bytes()))
}

fn has_inside(tree: &Tree, directory: &Path) -> bool {
    let after = (Bound::Excluded(directory), Bound::Unbounded);
    let next = tree.range::<Path, _>(after).next();
    next.is_some_and(|(path, _)| path.starts_with(directory))
}

/// An agent before a push: what it committed last, if anything, and what lies on its disk.
#[derive(Debug)]
pub(crate) struct Agent<'a> {
    pub(crate) committed: Option<&'a Tree>,
    pub(crate) disk: &'a Tree,
}

impl Agent<'_> {
    /// Its disk after a push of `target` that was planned from what was committed: what someone
    /// changed on it and what the push isn't about stays as it is.
    pub(crate) fn after(&self, target: &Tree) -> Tree {
        let nothing = Tree::new();
        make(self.disk, self.committed.unwrap_or(&nothing), target)
    }

    /// Its disk after a push of `target` that was planned from what really stands at managed paths.
    pub(crate) fn after_rebase(&self, target: &Tree) -> Tree {
        make(self.disk, &self.standing(), target)
    }

    /// Its disk after a push of `target` as a mirror, which is planned from all that lies there and is
    /// not ignored.
    pub(crate) fn after_mirror(&self, target: &Tree) -> Tree {
        let base = self.standing_for_mirror();
        // In a directory that somebody else made, what is ignored stays, and so does that.
        let (mine, others): (Tree, Tree) = (base.into_iter())
            .partition(|(path, _)| self.is_managed(path) || target.contains_key(path));
        let mut after = self.disk.clone();
        // What a directory holds comes before it.
        for (path, node) in others.iter().rev() {
            if !is_directory(Some(node)) || !has_inside(&after, path) {
                after.remove(path);
            }
        }
        make(&after, &mine, target)
    }

    /// What a mirror makes the same as the developer's directory.
    pub(crate) fn standing_for_mirror(&self) -> Tree {
        let mut all = pushed_of(self.disk);
        // A directory that was pushed counts also where it holds what is ignored and nothing else.
        all.extend(self.standing());
        all
    }

    fn is_managed(&self, path: &Path) -> bool {
        self.committed.is_some_and(|tree| tree.contains_key(path))
    }

    /// What stands at managed paths, as far as it could be pushed.
    pub(crate) fn standing(&self) -> Tree {
        let stands = |path: &Path| self.disk.get(path).filter(|node| **node != Node::Special);
        let managed = self.committed.into_iter().flatten();
        let standing = managed.filter_map(|(path, _)| Some((path.clone(), stands(path)?.clone())));
        standing.collect()
    }

    /// Managed paths where someone changed what stands there.
    pub(crate) fn drift(&self) -> impl Iterator<Item = &PathBuf> {
        let managed = self.committed.into_iter().flatten();
        managed
            .filter(|(path, node)| self.disk.get(*path) != Some(node))
            .map(|(path, _)| path)
    }

    /// Tells whether a push may build upon a file with content that isn't there any more, so that it
    /// has to be planned again: a changed one at its own path, or one whose content goes elsewhere.
    pub(crate) fn may_rebase(&self, target: &Tree) -> bool {
        let Some(committed) = self.committed else {
            return true;
        };
        let touched = |path: &Path| committed.get(path) != target.get(path);
        self.drift().any(|drifted| {
            let content = content_at(committed, drifted);
            let is_basis = |(path, _): (&PathBuf, &Node)| {
                touched(path) && (path == drifted || content_at(target, path) == content)
            };
            content.is_some()
                && content_at(self.disk, drifted) != content
                && target.iter().any(is_basis)
        })
    }

    /// What nobody pushed and what is gone after a push, out of directories that were pushed.
    pub(crate) fn moved_aside<'b>(&'b self, after: &'b Tree) -> impl Iterator<Item = &'b PathBuf> {
        let was_managed = move |path: &Path| {
            let node = self.committed.and_then(|committed| committed.get(path));
            matches!(node, Some(Node::Directory { .. }))
        };
        self.disk.keys().filter(move |path| {
            let stays = after.contains_key(*path);
            !self.is_managed(path) && !stays && path.parent().is_some_and(was_managed)
        })
    }
}

fn content_at<'a>(tree: &'a Tree, path: &Path) -> Option<&'a [u8]> {
    match tree.get(path)? {
        Node::File { content, .. } => Some(content),
        Node::Directory { .. } | Node::Link(_) | Node::Special => None,
    }
}

/// What becomes of a disk when what differs between two trees is done to it.
fn make(disk: &Tree, base: &Tree, target: &Tree) -> Tree {
    let mut after = disk.clone();
    for path in base.keys().filter(|path| !target.contains_key(*path)) {
        remove(&mut after, path);
    }
    let differing = target.iter();
    for (path, node) in differing.filter(|(path, node)| base.get(*path) != Some(node)) {
        let mut above: Vec<_> = path.ancestors().skip(1).collect();
        // The root, which is the empty path.
        above.pop();
        for directory in above.into_iter().rev() {
            if !is_directory(after.get(directory)) {
                remove(&mut after, directory);
                after.insert(directory.to_owned(), target[directory].clone());
            }
        }
        if !is_directory(Some(node)) || !is_directory(after.get(path)) {
            remove(&mut after, path);
        }
        after.insert(path.clone(), node.clone());
    }
    after
}

const fn is_directory(node: Option<&Node>) -> bool {
    matches!(node, Some(Node::Directory { .. }))
}

fn remove(tree: &mut Tree, path: &Path) {
    let below = tree.range::<Path, _>((Bound::Included(path), Bound::Unbounded));
    let below = below.take_while(|(inner, _)| inner.starts_with(path));
    for path in below.map(|(inner, _)| inner.clone()).collect::<Vec<_>>() {
        tree.remove(&path);
    }
}

/// Anchored patterns for rsync of paths that it isn't to look at.
pub(crate) fn excluding<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Vec<u8> {
    let mut patterns = Vec::new();
    for path in paths {
        let path = path.as_os_str();
        let has_wildcard = path.as_bytes().iter().any(|byte| b"*?[".contains(byte));
        patterns.push(b'/');
        for byte in path.as_bytes() {
            // In a pattern without a wildcard a backslash is one.
            if has_wildcard && b"*?[\\".contains(byte) {
                patterns.push(b'\\');
            }
            patterns.push(*byte);
        }
        patterns.push(0);
    }
    patterns
}
