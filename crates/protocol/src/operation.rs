//! How one tree becomes another: the operations of a push.

pub mod stream;

use crate::{
    codec::{Decode, Encode},
    manifest::{Entry, Manifest, ManifestError},
    path::RelativePath,
};

/// One change to a tree. A path stands in at most one operation of a push.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum Operation {
    /// What stands at `path` is no longer part of the tree.
    Delete {
        /// A path of the base.
        path: RelativePath,
    },
    /// `entry` stands at `path` from now on, whatever stood there before.
    Put {
        /// Any path.
        path: RelativePath,
        /// What stands there from now on.
        entry: Entry,
        /// Where a file's content comes from; [`Source::None`] for everything else.
        source: Source,
    },
}

/// Where the content of a file comes from.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum Source {
    /// The entry has no content: a directory or a symbolic link.
    None,
    /// The content's first `kept` bytes are what the agent kept of it, by its digest, from an attempt
    /// that was cut off; the rest follows in the content stream: all of it with 0, nothing if `kept`
    /// is the file's length.
    Whole {
        /// How many bytes are not sent again; at most the file's length.
        kept: u64,
    },
    /// An encoded delta follows in the content stream; its basis is the file at this path of the
    /// base. It says itself where it ends.
    Delta {
        /// A file of the base.
        basis: RelativePath,
    },
    /// The content is that of the file at this path of the base: a move, a copy, a new mode.
    Copy {
        /// A file of the base.
        from: RelativePath,
    },
}

/// Why operations don't fit the tree they are for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// A path stands in two operations.
    #[error("{path:?} stands in two operations of a push")]
    Twice {
        /// The path.
        path: RelativePath,
    },
    /// A path is to be deleted that the base doesn't have.
    #[error("{path:?} is to be deleted and is not there")]
    NotThere {
        /// The path.
        path: RelativePath,
    },
    /// A source names what is not a file of the base.
    #[error("{path:?} is to be made from {from:?}, which is not a file of the base")]
    NoBasis {
        /// The file to be made.
        path: RelativePath,
        /// What it was to be made from.
        from: RelativePath,
    },
    /// A file without a source, or a source for what has no content.
    #[error("{path:?} has a source that does not fit what it is")]
    Source {
        /// The path.
        path: RelativePath,
    },
    /// The result is not a tree.
    #[error("the operations do not give a tree")]
    Result(#[from] ManifestError),
}

impl Operation {
    /// The path this operation is about.
    #[must_use]
    pub const fn path(&self) -> &RelativePath {
        match self {
            Self::Delete { path } | Self::Put { path, .. } => path,
        }
    }

    /// What stands at its path from now on, if anything.
    #[must_use]
    pub const fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Delete { .. } => None,
            Self::Put { entry, .. } => Some(entry),
        }
    }

    /// Tells whether it takes something away.
    #[must_use]
    pub const fn is_delete(&self) -> bool {
        matches!(self, Self::Delete { .. })
    }

    /// The bytes of its paths and of a link's target: what it costs in memory beside a fixed size.
    #[must_use]
    pub fn path_bytes(&self) -> u64 {
        let source = match self {
            Self::Put { source, .. } => source.path().map_or(0, |path| path.as_bytes().len()),
            Self::Delete { .. } => 0,
        };
        let target = match self {
            Self::Put { entry, .. } => entry.target_len(),
            Self::Delete { .. } => 0,
        };
        (self.path().as_bytes().len() + source + target) as u64
    }

    /// Tells whether this operation has a part in the content stream, if only an empty one. A push
    /// of which this holds for none has no such stream.
    #[must_use]
    pub const fn is_sent(&self) -> bool {
        match self {
            Self::Put { source, .. } => source.is_sent(),
            Self::Delete { .. } => false,
        }
    }
}

impl Source {
    /// The file of the base that it names.
    #[must_use]
    pub const fn path(&self) -> Option<&RelativePath> {
        match self {
            Self::None | Self::Whole { .. } => None,
            Self::Delta { basis: path } | Self::Copy { from: path } => Some(path),
        }
    }

    /// Tells whether this source has a part in the content stream, if only an empty one.
    #[must_use]
    pub const fn is_sent(&self) -> bool {
        matches!(self, Self::Whole { .. } | Self::Delta { .. })
    }
}

/// Applies `operations` to `base`. `available` is what files sources may name: `base` itself, or
/// what lies on the disk where nothing was ever committed.
///
/// # Errors
///
/// [`OperationError`] if an operation contradicts the trees or another operation.
pub fn apply(
    base: &Manifest,
    available: &Manifest,
    operations: &[Operation],
) -> Result<Manifest, OperationError> {
    for operation in operations {
        match operation {
            Operation::Delete { path } if base.get(path).is_none() => {
                return Err(OperationError::NotThere { path: path.clone() });
            }
            Operation::Delete { .. } => {}
            Operation::Put {
                path,
                entry,
                source,
            } => check_source(path, entry, source, available)?,
        }
    }
    let mut by_path: Vec<&Operation> = operations.iter().collect();
    by_path.sort_unstable_by_key(|operation| operation.path());
    let is_twice = |two: &&[&Operation]| two[0].path() == two[1].path();
    if let Some(two) = by_path.windows(2).find(is_twice) {
        let path = two[0].path().clone();
        return Err(OperationError::Twice { path });
    }
    let changes = by_path.into_iter();
    let changes = changes.map(|operation| (operation.path(), operation.entry()));
    Ok(base.with_sorted_changes(changes)?)
}

fn check_source(
    path: &RelativePath,
    entry: &Entry,
    source: &Source,
    available: &Manifest,
) -> Result<(), OperationError> {
    let from = match (entry, source) {
        (Entry::File { len, .. }, Source::Whole { kept }) if kept <= len => return Ok(()),
        (Entry::Directory { .. } | Entry::Symlink { .. }, Source::None) => return Ok(()),
        (Entry::File { .. }, Source::Delta { basis: from } | Source::Copy { from }) => from,
        _ => return Err(OperationError::Source { path: path.clone() }),
    };
    match (available.get(from), source) {
        (Some(Entry::File { .. }), Source::Delta { .. }) => Ok(()),
        (Some(Entry::File { len, digest, .. }), _) if matches!(entry, Entry::File { len: l, digest: d, .. } if l == len && d == digest) => {
            Ok(())
        }
        _ => Err(OperationError::NoBasis {
            path: path.clone(),
            from: from.clone(),
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::manifest::{
        ManifestEntry,
        tests::{directory, file, path},
    };

    pub(crate) fn put(entry: ManifestEntry, source: Source) -> Operation {
        Operation::Put {
            path: entry.path,
            entry: entry.entry,
            source,
        }
    }

    fn tree(entries: Vec<ManifestEntry>) -> Manifest {
        Manifest::from_unsorted(entries).unwrap()
    }

    #[test]
    fn every_kind_of_change_in_one_push() {
        let base = tree(vec![
            directory("d"),
            file("d/x", "x"),
            file("gone", "1"),
            file("f", "f"),
        ]);
        let moved = put(file("moved", "1"), Source::Copy { from: path("gone") });
        let operations = vec![
            Operation::Delete { path: path("gone") },
            Operation::Delete { path: path("d/x") },
            put(file("d", "now a file"), Source::Whole { kept: 0 }),
            put(directory("f"), Source::None),
            put(file("f/g", "delta"), Source::Delta { basis: path("f") }),
            moved,
        ];
        assert_eq!(
            apply(&base, &base, &operations).unwrap(),
            tree(vec![
                file("d", "now a file"),
                directory("f"),
                file("f/g", "delta"),
                file("moved", "1")
            ])
        );
    }

    #[test]
    fn contradictions_are_refused() {
        let base = tree(vec![directory("d"), file("d/x", "x")]);
        let refused = |operations: Vec<Operation>| apply(&base, &base, &operations).unwrap_err();
        let delete = |at: &str| Operation::Delete { path: path(at) };
        assert!(matches!(
            refused(vec![delete("no")]),
            OperationError::NotThere { .. }
        ));
        assert!(matches!(
            refused(vec![
                delete("d/x"),
                put(file("d/x", ""), Source::Whole { kept: 0 })
            ]),
            OperationError::Twice { .. }
        ));
        assert!(matches!(
            refused(vec![delete("d")]),
            OperationError::Result(_)
        ));
        assert!(matches!(
            refused(vec![put(
                file("y", "y"),
                Source::Copy { from: path("d/x") }
            )]),
            OperationError::NoBasis { .. }
        ));
        assert!(matches!(
            refused(vec![put(
                file("y", "y"),
                Source::Delta { basis: path("d") }
            )]),
            OperationError::NoBasis { .. }
        ));
        assert!(matches!(
            refused(vec![put(file("y", "y"), Source::None)]),
            OperationError::Source { .. }
        ));
        assert!(matches!(
            refused(vec![put(file("y", "y"), Source::Whole { kept: 2 })]),
            OperationError::Source { .. }
        ));
        assert!(matches!(
            refused(vec![put(directory("e"), Source::Whole { kept: 0 })]),
            OperationError::Source { .. }
        ));
    }
}
