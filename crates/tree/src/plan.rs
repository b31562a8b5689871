//! What has to be done, and sent, to make one tree another. Pure.

use std::collections::{HashMap, HashSet};

use patchwire_delta::Digest;
use patchwire_protocol::{
    manifest::{Difference, Entry, Manifest, ManifestEntry},
    operation::{Operation, Source},
    path::RelativePath,
};

/// The shortest file, in bytes, for which a delta is asked for: below that the signature's way
/// there and back costs more than the file.
pub const DELTA_MIN: u64 = 4 << 10;

/// Nothing is known to be kept when a push is drafted.
const WHOLE: Source = Source::Whole { kept: 0 };

/// A plan that is complete but for which of its files are sent as deltas.
#[derive(Clone, Debug)]
pub struct Draft {
    plan: Plan,
    wants: Vec<RelativePath>,
}

/// The operations of a push, sorted by path, and what they amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The operations: [`patchwire_protocol::operation::apply`] of them to the base is the target.
    pub operations: Vec<Operation>,
    /// Files and links, by what becomes of them.
    pub counts: Counts,
    /// Files that are where they are by a move: from and to.
    pub moves: Vec<(RelativePath, RelativePath)>,
}

/// How many files and links (not directories) a push touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// There was nothing managed at the path.
    pub added: u64,
    /// Content, target, kind or mode differs.
    pub changed: u64,
    /// The path is no longer part of the tree, and its file wasn't moved.
    pub deleted: u64,
    /// Its content stood at a path that is no longer part of the tree.
    pub moved: u64,
}

/// What becomes of one file or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub path: RelativePath,
    /// What becomes of it.
    pub action: Action,
    /// The length of its content in bytes, before where it is deleted.
    pub bytes: u64,
    /// Where it was, if it moves.
    pub from: Option<RelativePath>,
}

/// What becomes of a file or link: see [`Counts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Added,
    /// It is another.
    Changed,
    /// It is gone.
    Deleted,
    /// It is elsewhere.
    Moved,
}

/// Plans the way from `base`, which the agent manages, to `target`. `available` is what lies on the
/// agent's disk and may be copied from: usually `base` itself.
#[must_use]
pub fn plan(base: &Manifest, available: &Manifest, target: &Manifest) -> Draft {
    let differences: Vec<Difference<'_>> = base.differences(target).collect();
    let gone_files: HashSet<&RelativePath> = differences
        .iter()
        .filter(|at| at.new.is_none() && at.old.is_some_and(|old| !old.is_directory()))
        .map(|at| at.path)
        .collect();
    let contents = differences.iter().filter_map(|at| content(at.new?));
    let mut sources = Sources::new(available, &gone_files, &contents.collect());
    let mut plan = Plan {
        operations: Vec::with_capacity(differences.len()),
        ..Plan::default()
    };
    let mut wants = Vec::new();
    for Difference { path, old, new } in differences {
        let Some(entry) = new else {
            let path = path.clone();
            plan.operations.push(Operation::Delete { path });
            continue;
        };
        let (source, from) = sources.choose(path, entry);
        let moved_from = from.filter(|_| old.is_none());
        if source == WHOLE && wants_delta(available.get(path), entry) {
            wants.push(path.clone());
        }
        if !entry.is_directory() {
            match (old, &moved_from) {
                (Some(_), _) => plan.counts.changed += 1,
                (None, Some(_)) => plan.counts.moved += 1,
                (None, None) => plan.counts.added += 1,
            }
        }
        plan.moves
            .extend(moved_from.map(|from| (from, path.clone())));
        plan.operations.push(Operation::Put {
            path: path.clone(),
            entry: entry.clone(),
            source,
        });
    }
    plan.counts.deleted = (gone_files.len() - plan.moves.len()) as u64;
    Draft { plan, wants }
}

impl Counts {
    /// Tells whether more than half of the files and links in `base` would be gone, moved ones not
    /// counted: more likely a wrong root than what the developer wants.
    #[must_use]
    pub fn deletes_more_than_half(self, base: &Manifest) -> bool {
        let files = base.entries().iter().filter(|e| !e.entry.is_directory());
        self.deleted * 2 > files.count() as u64
    }
}

impl Draft {
    /// The files that would better be sent as a delta, if the agent's signature of the file that
    /// stands at the same path were at hand.
    #[must_use]
    pub fn wants(&self) -> &[RelativePath] {
        &self.wants
    }

    /// What the plan amounts to, with or without signatures.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.plan.counts
    }

    /// What becomes of which file or link, sorted by path. `base` is what was planned from.
    #[must_use]
    pub fn changes(&self, base: &Manifest) -> Vec<Change> {
        let from: HashMap<_, _> = self
            .plan
            .moves
            .iter()
            .map(|(from, to)| (to, from))
            .collect();
        let gone: HashSet<_> = self.plan.moves.iter().map(|(from, _)| from).collect();
        let change = |operation: &Operation| {
            let path = operation.path();
            let old = base.get(path);
            let (entry, action) = match operation {
                Operation::Delete { .. } => (old?, Action::Deleted),
                Operation::Put { entry, .. } if from.contains_key(path) => (entry, Action::Moved),
                Operation::Put { entry, .. } if old.is_some() => (entry, Action::Changed),
                Operation::Put { entry, .. } => (entry, Action::Added),
            };
            let is_moved_away = action == Action::Deleted && gone.contains(path);
            let counts = !entry.is_directory() && !is_moved_away;
            counts.then(|| Change {
                path: path.clone(),
                action,
                bytes: entry.content_len(),
                from: from.get(path).map(|from| (*from).clone()),
            })
        };
        self.plan.operations.iter().filter_map(change).collect()
    }

    /// How many bytes of content the plan would send, by the file or directory at the top of the
    /// tree that they are in: the most first, deltas not counted.
    #[must_use]
    pub fn largest(&self) -> Vec<(RelativePath, u64)> {
        let mut largest: Vec<(RelativePath, u64)> = Vec::new();
        for operation in &self.plan.operations {
            let Operation::Put {
                path,
                entry,
                source: Source::Whole { .. },
            } = operation
            else {
                continue;
            };
            let top = top(path);
            match largest.last_mut() {
                Some((last, bytes)) if *last == top => *bytes += entry.content_len(),
                _ => largest.push((top, entry.content_len())),
            }
        }
        largest.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        largest
    }

    /// Completes the plan: of [`Self::wants`], those for which `has_signature` holds are sent as
    /// deltas, the others whole.
    #[must_use]
    pub fn finish(self, has_signature: impl Fn(&RelativePath) -> bool) -> Plan {
        let Self { mut plan, wants } = self;
        for operation in &mut plan.operations {
            if let Operation::Put { path, source, .. } = operation
                && wants.binary_search(path).is_ok()
                && has_signature(path)
            {
                *source = Source::Delta {
                    basis: path.clone(),
                };
            }
        }
        plan
    }
}

impl Plan {
    /// Tells whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}

/// Where content may be copied from.
struct Sources<'a> {
    available: &'a Manifest,
    /// Where the contents that are asked for lie on the agent's disk: paths that will be gone last,
    /// so that they are popped first and each makes one move.
    by_digest: HashMap<&'a Digest, Vec<(&'a RelativePath, bool)>>,
}

impl<'a> Sources<'a> {
    fn new(
        available: &'a Manifest,
        gone_files: &HashSet<&RelativePath>,
        asked_for: &HashSet<&Digest>,
    ) -> Self {
        let mut by_digest: HashMap<_, Vec<_>> = HashMap::new();
        if !asked_for.is_empty() {
            for ManifestEntry { path, entry } in available.entries() {
                if let Some(digest) = content(entry).filter(|digest| asked_for.contains(digest)) {
                    let paths = by_digest.entry(digest).or_default();
                    paths.push((path, gone_files.contains(path)));
                }
            }
        }
        for paths in by_digest.values_mut() {
            paths.sort_by_key(|(_, gone)| *gone);
        }
        Self {
            available,
            by_digest,
        }
    }

    /// The source of what stands at `path`, and where it was moved from if it was.
    fn choose(&mut self, path: &RelativePath, entry: &Entry) -> (Source, Option<RelativePath>) {
        let Entry::File { len, digest, .. } = entry else {
            return (Source::None, None);
        };
        if matches!(self.available.get(path), Some(Entry::File { digest: same, .. }) if same == digest)
        {
            return (Source::Copy { from: path.clone() }, None);
        }
        // Copying nothing saves nothing, and files that are empty aren't therefore related.
        if *len == 0 {
            return (WHOLE, None);
        }
        let Some(paths) = self.by_digest.get_mut(digest) else {
            return (WHOLE, None);
        };
        let Some(last) = paths.last_mut() else {
            return (WHOLE, None);
        };
        let from = last.0.clone();
        let moved = std::mem::take(&mut last.1).then(|| from.clone());
        if moved.is_some() {
            // The next copy of the same content is a move of the next path that will be gone.
            paths.rotate_right(1);
        }
        (Source::Copy { from }, moved)
    }
}

/// The digest of a file's content.
const fn content(entry: &Entry) -> Option<&Digest> {
    match entry {
        Entry::File { digest, .. } => Some(digest),
        Entry::Directory { .. } | Entry::Symlink { .. } => None,
    }
}

/// The file or directory at the top of the tree that `path` is, or is in.
fn top(path: &RelativePath) -> RelativePath {
    let mut top = path.clone();
    while let Some(parent) = top.parent() {
        top = parent;
    }
    top
}

fn wants_delta(old: Option<&Entry>, new: &Entry) -> bool {
    let long = |entry: &Entry| entry.content_len() >= DELTA_MIN;
    matches!(old, Some(old) if long(old)) && long(new)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use patchwire_protocol::{
        manifest::{LinkTarget, Mode},
        operation::apply,
    };
    use proptest::prelude::*;

    use super::*;

    fn path(path: &str) -> RelativePath {
        path.try_into().unwrap()
    }

    fn file(content: &str, mode: u32) -> Entry {
        Entry::File {
            mode: Mode::from_bits(mode),
            len: content.len() as u64,
            digest: Digest::of(content.as_bytes()),
        }
    }

    fn directory() -> Entry {
        Entry::Directory {
            mode: Mode::from_bits(0o755),
        }
    }

    fn tree(entries: &[(&str, Entry)]) -> Manifest {
        let entry = |(at, entry): &(&str, Entry)| ManifestEntry {
            path: path(at),
            entry: entry.clone(),
        };
        Manifest::from_unsorted(entries.iter().map(entry).collect()).unwrap()
    }

    #[test]
    fn moves_are_copies_of_what_will_be_gone() {
        let base = tree(&[
            ("a", file("x", 0o644)),
            ("b", file("x", 0o644)),
            ("c", file("y", 0o644)),
        ]);
        let target = tree(&[
            ("c", file("y", 0o755)),
            ("p", file("x", 0o644)),
            ("q", file("x", 0o644)),
            ("r", file("x", 0o644)),
        ]);
        let plan = plan(&base, &base, &target).finish(|_| true);
        let counts = Counts {
            added: 1,
            changed: 1,
            deleted: 0,
            moved: 2,
        };
        assert_eq!(plan.counts, counts);
        assert_eq!(plan.moves.len(), 2);
        assert!(plan.operations.iter().all(|operation| !matches!(
            operation,
            Operation::Put {
                source: Source::Whole { .. } | Source::Delta { .. },
                ..
            }
        )));
        assert!(!plan.counts.deletes_more_than_half(&base));
    }

    #[test]
    fn long_changed_files_want_a_delta_and_get_it_if_there_is_a_signature() {
        let (old, new) = ("o".repeat(5000), "n".repeat(5000));
        let base = tree(&[("big", file(&old, 0o644)), ("small", file("o", 0o644))]);
        let target = tree(&[("big", file(&new, 0o644)), ("small", file("n", 0o644))]);
        let draft = plan(&base, &base, &target);
        assert_eq!(draft.wants(), [path("big")]);
        let source = |plan: Plan, at: usize| match &plan.operations[at] {
            Operation::Put { source, .. } => source.clone(),
            Operation::Delete { .. } => panic!("nothing is deleted"),
        };
        assert_eq!(source(draft.clone().finish(|_| false), 0), WHOLE);
        let with = draft.finish(|_| true);
        assert_eq!(
            source(with.clone(), 0),
            Source::Delta { basis: path("big") }
        );
        assert_eq!(source(with, 1), WHOLE);
    }

    #[test]
    fn what_lies_on_the_disk_already_is_not_sent() {
        let target = tree(&[("a", file("x", 0o644))]);
        let plan = plan(&Manifest::default(), &target, &target).finish(|_| true);
        let from = path("a");
        assert!(
            matches!(&plan.operations[..], [Operation::Put { source: Source::Copy { from: f }, .. }] if *f == from)
        );
    }

    #[test]
    fn what_becomes_of_each_file_is_listed_once() {
        let base = tree(&[
            ("a", file("moved", 0o644)),
            ("b", file("gone", 0o644)),
            ("c", file("old", 0o644)),
        ]);
        let target = tree(&[
            ("c", file("newer", 0o644)),
            ("d", directory()),
            ("d/e", file("moved", 0o644)),
            ("d/f", file("added", 0o644)),
            ("g", file("and more", 0o644)),
        ]);
        let draft = plan(&base, &base, &target);
        let change = |at, action, bytes, from: Option<&str>| Change {
            path: path(at),
            action,
            bytes,
            from: from.map(path),
        };
        assert_eq!(
            draft.changes(&base),
            [
                change("b", Action::Deleted, 4, None),
                change("c", Action::Changed, 5, None),
                change("d/e", Action::Moved, 5, Some("a")),
                change("d/f", Action::Added, 5, None),
                change("g", Action::Added, 8, None),
            ]
        );
        let largest = [(path("g"), 8), (path("c"), 5), (path("d"), 5)];
        assert_eq!(draft.largest(), largest);
    }

    #[test]
    fn the_brake_counts_files_and_not_moves() {
        let base = tree(&[
            ("a", file("1", 0o644)),
            ("b", file("2", 0o644)),
            ("c", file("3", 0o644)),
        ]);
        let one = tree(&[("a", file("1", 0o644))]);
        assert!(
            plan(&base, &base, &one)
                .finish(|_| true)
                .counts
                .deletes_more_than_half(&base)
        );
        let moved = tree(&[
            ("a", file("1", 0o644)),
            ("x", file("2", 0o644)),
            ("y", file("3", 0o644)),
        ]);
        assert!(
            !plan(&base, &base, &moved)
                .finish(|_| true)
                .counts
                .deletes_more_than_half(&base)
        );
    }

    /// Trees over few names and contents, so that they overlap.
    fn any_tree() -> impl Strategy<Value = Manifest> {
        let entry = prop_oneof![
            (0u8..6, prop_oneof![Just(0o644), Just(0o755)]).prop_map(|(content, mode)| {
                file(
                    &content.to_string().repeat(usize::from(content) * 1500),
                    mode,
                )
            }),
            Just(Entry::Directory {
                mode: Mode::from_bits(0o755)
            }),
            Just(Entry::Symlink {
                target: LinkTarget::new(*b"a").unwrap()
            }),
        ];
        let name = prop_oneof!["[a-c]", "[a-c]/[a-c]", "[a-b]/[a-b]/[a-b]"];
        prop::collection::btree_map(name, entry, 0..12).prop_map(|entries| {
            let mut rooted: BTreeMap<RelativePath, Entry> = BTreeMap::new();
            for (at, entry) in entries {
                let mut parent = path(&at).parent();
                while let Some(dir) = parent {
                    parent = dir.parent();
                    rooted.insert(
                        dir,
                        Entry::Directory {
                            mode: Mode::from_bits(0o755),
                        },
                    );
                }
                rooted.entry(path(&at)).or_insert(entry);
            }
            let entries = rooted
                .into_iter()
                .map(|(path, entry)| ManifestEntry { path, entry });
            Manifest::from_unsorted(entries.collect()).unwrap()
        })
    }

    proptest! {
        #[test]
        fn a_plan_makes_the_target(base in any_tree(), disk in any_tree(), target in any_tree(), signed: bool) {
            for available in [&base, &disk] {
                let plan = plan(&base, available, &target).finish(|_| signed);
                prop_assert_eq!(&apply(&base, available, &plan.operations).unwrap(), &target);
                prop_assert!(plan.operations.is_sorted_by_key(|operation| operation.path().clone()));
                prop_assert_eq!(plan.is_empty(), base == target);
            }
        }
    }
}
