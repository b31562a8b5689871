//! The operations of a push as bytes: what its content stream begins with.
//!
//! One after the other, sorted by path; how many, the push's header says. Each is its path as what
//! it shares with the path before and the rest (lengths and numbers are the codec's), then what
//! becomes of it:
//!
//! ```text
//! 0  deleted
//! 1  a directory                  mode
//! 2  a symbolic link              target
//! 3  a file, all of it sent       mode, length, digest
//! 4  a file, the rest of it sent  mode, length, digest, how much the agent kept
//! 5  a file, a delta of itself    mode, length, digest
//! 6  a file, a delta              mode, length, digest, basis
//! 7  a file, a copy               mode, source
//! 8  a file with another mode     mode
//! ```
//!
//! A basis or a source is written as a path behind the basis or source before it. What is copied is
//! known at the other end, which fills in its length and digest: a directory that was renamed costs
//! little more than its names.

use std::io::{self, Read};

use super::{Operation, Source};
use crate::{
    codec::{self, Decode, Encode},
    front::{Front, Fronted},
    limits,
    manifest::{Entry, LinkTarget, Manifest, Mode},
    message::value::WireDigest,
    path::RelativePath,
};

/// Why bytes are not the operations of a push.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The stream failed, or ended early.
    #[error("the operations did not arrive")]
    Io(#[source] io::Error),
    /// The bytes do not decode.
    #[error("malformed operations")]
    Malformed(#[source] codec::DecodeError),
    /// Their paths are too long in all.
    #[error(
        "operations with {bytes} bytes of paths, the most is {}",
        limits::PATH_BYTES
    )]
    TooLarge {
        /// How many bytes at least.
        bytes: u64,
    },
    /// A file is to be made from what is not a file of the base.
    #[error("{path:?} is to be made from {from:?}, which is not a file of the base")]
    NoBasis {
        /// The file to be made.
        path: RelativePath,
        /// What it was to be made from.
        from: RelativePath,
    },
    /// A link leaves the root, which the push does not allow.
    #[error("the symbolic link {path:?} leaves the root: it points to {target:?}")]
    LinkLeavesRoot {
        /// The link.
        path: RelativePath,
        /// Where it points.
        target: LinkTarget,
    },
}

#[derive(Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
struct Step {
    path: Fronted,
    change: Change,
}

#[derive(Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
enum Change {
    Delete,
    Directory(Mode),
    Symlink(LinkTarget),
    Whole(File),
    Rest(File, u64),
    Delta(File),
    DeltaOf(File, Fronted),
    Copy(Mode, Fronted),
    Mode(Mode),
}

#[derive(Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
struct File {
    mode: Mode,
    len: u64,
    digest: WireDigest,
}

impl File {
    const fn entry(self) -> Entry {
        Entry::File {
            mode: self.mode,
            len: self.len,
            digest: self.digest.0,
        }
    }
}

/// Writes operations, sorted by path, for [`read`].
#[must_use]
pub fn write(operations: &[Operation]) -> Vec<u8> {
    pieces(operations).collect::<Vec<_>>().concat()
}

/// What [`write()`] gives, some operations at a time.
pub fn pieces(operations: &[Operation]) -> impl Iterator<Item = Vec<u8>> + Clone {
    let (mut paths, mut sources) = (Front::default(), Front::default());
    operations.chunks(PIECE).map(move |some| {
        let mut bytes = Vec::new();
        for operation in some {
            let step = Step {
                path: paths.shorten(operation.path()),
                change: change(operation, &mut sources),
            };
            codec::encode_to(&step, &mut bytes);
        }
        bytes
    })
}

/// How many operations are in a piece.
const PIECE: usize = 1024;

fn change(operation: &Operation, sources: &mut Front) -> Change {
    let (path, entry, source) = match operation {
        Operation::Delete { .. } => return Change::Delete,
        Operation::Put {
            path,
            entry,
            source,
        } => (path, entry, source),
    };
    let (mode, len, digest) = match entry {
        Entry::Directory { mode } => return Change::Directory(*mode),
        Entry::Symlink { target } => return Change::Symlink(target.clone()),
        Entry::File { mode, len, digest } => (*mode, *len, WireDigest(*digest)),
    };
    let file = File { mode, len, digest };
    match source {
        // A file without a source is no operation that any plan makes: its content is sent.
        Source::None | Source::Whole { kept: 0 } => Change::Whole(file),
        Source::Whole { kept } => Change::Rest(file, *kept),
        Source::Delta { basis } if basis == path => Change::Delta(file),
        Source::Delta { basis } => Change::DeltaOf(file, sources.shorten(basis)),
        Source::Copy { from } if from == path => Change::Mode(mode),
        Source::Copy { from } => Change::Copy(mode, sources.shorten(from)),
    }
}

/// Reads `count` operations and nothing behind them. `available` is what files sources may name.
///
/// `from` need not be trusted; reading from it one byte at a time has to be cheap. Reserves what is
/// there, and never for what is announced.
///
/// # Errors
///
/// [`StreamError`] if that is not what comes.
pub fn read(
    from: &mut impl Read,
    count: u64,
    available: &Manifest,
    links_may_leave: bool,
) -> Result<Vec<Operation>, StreamError> {
    let (mut paths, mut sources) = (Front::default(), Front::default());
    let malformed = |error: codec::error::Decode| StreamError::Malformed(error.into());
    let mut operations = Vec::new();
    let mut bytes = 0;
    for _ in 0..count {
        let Step { path, change } = codec::decode_from(from).map_err(|error| match error {
            codec::StreamError::Io(error) => StreamError::Io(error),
            codec::StreamError::Decode(error) => StreamError::Malformed(error),
        })?;
        let path = paths.restore(&path).map_err(malformed)?;
        let mut source = |fronted: &Fronted| sources.restore(fronted).map_err(malformed);
        let (entry, source) = match change {
            Change::Delete => {
                bytes += path.as_bytes().len() as u64;
                operations.push(Operation::Delete { path });
                continue;
            }
            Change::Directory(mode) => (Entry::Directory { mode }, Source::None),
            Change::Symlink(target) => {
                if !links_may_leave && target.leaves_root(&path) {
                    return Err(StreamError::LinkLeavesRoot { path, target });
                }
                (Entry::Symlink { target }, Source::None)
            }
            Change::Whole(file) => (file.entry(), Source::Whole { kept: 0 }),
            Change::Rest(file, kept) => (file.entry(), Source::Whole { kept }),
            Change::Delta(file) => {
                let basis = path.clone();
                (file.entry(), Source::Delta { basis })
            }
            Change::DeltaOf(file, basis) => {
                let basis = source(&basis)?;
                (file.entry(), Source::Delta { basis })
            }
            Change::Copy(mode, from) => copied(&path, mode, source(&from)?, available)?,
            Change::Mode(mode) => copied(&path, mode, path.clone(), available)?,
        };
        let operation = Operation::Put {
            path,
            entry,
            source,
        };
        bytes += operation.path_bytes();
        if bytes > limits::PATH_BYTES {
            return Err(StreamError::TooLarge { bytes });
        }
        operations.push(operation);
    }
    Ok(operations)
}

fn copied(
    path: &RelativePath,
    mode: Mode,
    from: RelativePath,
    available: &Manifest,
) -> Result<(Entry, Source), StreamError> {
    match available.get(&from) {
        Some(Entry::File { len, digest, .. }) => {
            let (len, digest) = (*len, *digest);
            Ok((Entry::File { mode, len, digest }, Source::Copy { from }))
        }
        _ => Err(StreamError::NoBasis {
            path: path.clone(),
            from,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        manifest::tests::{directory, file, path},
        operation::tests::put,
    };

    fn base() -> Manifest {
        Manifest::from_sorted(vec![file("old", "one"), file("same", "two")]).unwrap()
    }

    fn link(at: &str, to: &str) -> Operation {
        Operation::Put {
            path: path(at),
            entry: Entry::Symlink {
                target: LinkTarget::new(to).unwrap(),
            },
            source: Source::None,
        }
    }

    fn every_kind() -> Vec<Operation> {
        vec![
            put(directory("d"), Source::None),
            Operation::Delete { path: path("d/a") },
            put(file("d/ab", "x"), Source::Whole { kept: 0 }),
            put(file("d/ac", "xyz"), Source::Whole { kept: 2 }),
            put(file("d/b", "y"), Source::Delta { basis: path("d/b") }),
            put(file("d/c", "z"), Source::Delta { basis: path("old") }),
            put(file("d/d", "one"), Source::Copy { from: path("old") }),
            link("l", "d/b"),
            put(file("same", "two"), Source::Copy { from: path("same") }),
        ]
    }

    fn read_all(bytes: &[u8], count: u64) -> Result<Vec<Operation>, StreamError> {
        read(&mut { bytes }, count, &base(), false)
    }

    #[test]
    fn every_kind_of_operation_comes_out_as_it_went_in() {
        let bytes = write(&every_kind());
        assert_eq!(read_all(&bytes, 9).unwrap(), every_kind());
        for end in 0..bytes.len() {
            let cut = read_all(&bytes[..end], 9);
            assert!(matches!(cut, Err(StreamError::Io(_))), "cut at {end}");
        }
        // What follows is the content's.
        let mut rest = &[&bytes[..], b"content"].concat()[..];
        read(&mut rest, 9, &base(), false).unwrap();
        assert_eq!(rest, b"content");
    }

    #[test]
    fn the_bytes_of_operations() {
        let operations = [
            put(directory("da"), Source::None),
            put(file("da/x", "x"), Source::Whole { kept: 0 }),
            put(file("db", "one"), Source::Copy { from: path("old") }),
            Operation::Delete { path: path("old") },
        ];
        let digest = *patchwire_delta::Digest::of(b"x").as_bytes();
        let expected = [
            &[0][..],
            b"\x02da",
            &[1, 251, 0xed, 0x01], // a directory of mode 0755
            &[2],                  // shares "da"
            b"\x02/x",
            &[3, 251, 0xa4, 0x01, 1], // a whole file of mode 0644 and one byte
            &digest,
            &[1], // shares "d"
            b"\x01b",
            &[7, 251, 0xa4, 0x01], // a copy of mode 0644
            b"\x00\x03old",
            &[0],
            b"\x03old",
            &[0], // deleted
        ];
        assert_eq!(write(&operations), expected.concat());
    }

    #[test]
    fn what_may_not_be_is_refused() {
        let refused = |operation: Operation| read_all(&write(&[operation]), 1).unwrap_err();
        let copy = put(file("x", "1"), Source::Copy { from: path("no") });
        assert!(matches!(refused(copy), StreamError::NoBasis { .. }));
        let evil = link("evil", "../../etc");
        assert!(matches!(
            refused(evil.clone()),
            StreamError::LinkLeavesRoot { .. }
        ));
        assert!(read(&mut &write(&[evil])[..], 1, &base(), true).is_ok());
        // It shares more with the path before it than that has.
        assert!(matches!(
            read_all(&[9, 1, b'a', 0], 1),
            Err(StreamError::Malformed(_))
        ));
        assert!(matches!(
            read_all(&[0, 2, b'.', b'.', 0], 1),
            Err(StreamError::Malformed(_))
        ));
    }
}
