//! The content stream of a push: its operations, and what these send, one after the other,
//! compressed.

use std::{
    fs::{File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use patchwire_delta::{DiffOptions, Digest, FirstRound, Signature, diff_read_with};
use patchwire_protocol::{
    limits,
    manifest::Entry,
    operation::{Operation, Source, stream},
    path::RelativePath,
    session::sender::Content,
};
use tokio::sync::mpsc;

use self::compress::Compressor;

mod compress;

/// How many pieces are compressed ahead of the network.
const AHEAD: usize = 8;

/// How much of a file tells whether it can be compressed.
const SAMPLE: usize = 64 << 10;

/// What is to be sent: the operations, and a basis for each delta, in order.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) root: PathBuf,
    pub(crate) operations: Vec<Operation>,
    pub(crate) bases: Vec<Basis>,
}

/// What a delta is made from.
#[derive(Debug)]
pub(crate) enum Basis {
    /// A signature of the whole file at the other end.
    Signature(Signature),
    /// What two rounds found.
    Rounds(Box<Rounds>),
}

/// Two rounds over one file.
#[derive(Debug)]
pub(crate) struct Rounds {
    pub(crate) first: FirstRound,
    pub(crate) second: Signature,
    /// The file as it was in the first round, when it had the digest of the target.
    pub(crate) read: Unchanged,
}

/// What tells that a file is what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unchanged {
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<Metadata> for Unchanged {
    fn from(metadata: Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Why the content could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The file is there and can't be read.
    #[error("can't read {path:?}")]
    Read {
        /// The file.
        path: RelativePath,
        /// Why.
        source: io::Error,
    },
}

/// Reads and compresses on a thread of its own; the pieces come out of the receiver. Dropping the
/// receiver ends it.
pub(crate) fn read(plan: Plan) -> mpsc::Receiver<Result<Content, ContentError>> {
    let (pieces, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let last = match write(&plan, Pieces::new(&pieces)) {
            Ok(()) => Ok(Content::End),
            Err(Stop::Changed(path)) => Ok(Content::Changed(path)),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Abandoned) => return,
        };
        // Nobody may be there any more to whom it matters.
        let _ = pieces.blocking_send(last);
    });
    receiver
}

enum Stop {
    Changed(RelativePath),
    Failed(ContentError),
    /// The receiver is gone.
    Abandoned,
}

fn abandoned(_: io::Error) -> Stop {
    Stop::Abandoned
}

fn write(plan: &Plan, pieces: Pieces<'_>) -> Result<(), Stop> {
    let operations = stream::pieces(&plan.operations);
    let files = plan
        .operations
        .iter()
        .filter_map(|operation| match operation {
            Operation::Put { entry, source, .. } if source.is_sent() => Some(entry.content_len()),
            Operation::Put { .. } | Operation::Delete { .. } => None,
        });
    // Made twice rather than kept.
    let first = operations.clone().map(|piece| piece.len() as u64).sum();
    let most = files.fold(first, u64::saturating_add);
    let mut out = Compressor::new(pieces, most).map_err(abandoned)?;
    for piece in operations {
        out.write_all(&piece).map_err(abandoned)?;
    }
    let mut bases = plan.bases.iter();
    for operation in &plan.operations {
        let Operation::Put {
            path,
            entry: Entry::File { len, digest, .. },
            source,
        } = operation
        else {
            continue;
        };
        let file = match source {
            Source::None | Source::Copy { .. } => continue,
            Source::Whole { .. } | Source::Delta { .. } => {
                patchwire_tree::open_file(&plan.root, path)
            }
        };
        let file = file.map_err(|_| Stop::Changed(path.clone()))?;
        let sending = Sending {
            path,
            len: *len,
            digest: *digest,
        };
        match (source, bases_of(source, &mut bases)) {
            (_, Some(Basis::Rounds(rounds))) => sending.finish_rounds(rounds, &file, &mut out)?,
            (_, Some(Basis::Signature(signature))) => sending.diff(signature, file, &mut out)?,
            (Source::Whole { kept }, None) => sending.copy(*kept, file, &mut out)?,
            // A delta always has its basis; without one, the file is sent again as it is.
            (_, None) => return Err(Stop::Changed(path.clone())),
        }
    }
    out.finish().map_err(abandoned)
}

fn bases_of<'a>(source: &Source, bases: &mut impl Iterator<Item = &'a Basis>) -> Option<&'a Basis> {
    match source {
        Source::Delta { .. } => bases.next(),
        Source::None | Source::Whole { .. } | Source::Copy { .. } => None,
    }
}

/// A file whose content is sent, one way or another.
struct Sending<'a> {
    path: &'a RelativePath,
    len: u64,
    digest: Digest,
}

impl Sending<'_> {
    /// All of it but what is kept at the other end.
    fn copy(&self, kept: u64, file: File, out: &mut Compressor<'_>) -> Result<(), Stop> {
        self.read(file, |file| {
            // What is kept is not sent, but the digest is of the whole.
            io::copy(&mut file.by_ref().take(kept), &mut io::sink())?;
            let mut sample = Vec::new();
            if self.len - kept >= compress::WORTH_A_SAMPLE {
                file.by_ref().take(SAMPLE as u64).read_to_end(&mut sample)?;
                out.expect_like(&sample)?;
            } else {
                out.expect_small()?;
            }
            out.write_all(&sample)?;
            io::copy(file, out)?;
            Ok(())
        })
    }

    fn diff(
        &self,
        signature: &Signature,
        file: File,
        out: &mut Compressor<'_>,
    ) -> Result<(), Stop> {
        // If it is of another content by now, the reader notices.
        let options = DiffOptions {
            digest: Some(self.digest),
            ..DiffOptions::default()
        };
        out.expect_small().map_err(abandoned)?;
        self.read(file, |file| {
            diff_read_with(signature, file, out, options)
                .map(drop)
                .map_err(io::Error::other)
        })
    }

    /// Only what the rounds did not find is read again: that the file is the one they read is told
    /// by its status.
    fn finish_rounds(
        &self,
        rounds: &Rounds,
        file: &File,
        out: &mut Compressor<'_>,
    ) -> Result<(), Stop> {
        let changed = || Stop::Changed(self.path.clone());
        out.expect_small().map_err(abandoned)?;
        let is_unchanged = |file: &File| {
            let metadata = file.metadata().map(Unchanged::from);
            metadata.is_ok_and(|now| now == rounds.read)
        };
        let before = is_unchanged(file);
        // It fails where the file can't be read, where it has another length, and where nobody takes
        // what it writes: then nobody is told either.
        let finished = before && rounds.first.finish_read(&rounds.second, file, out).is_ok();
        match finished && is_unchanged(file) {
            true => Ok(()),
            false => Err(changed()),
        }
    }

    /// Reads the file, and checks that it is what the target's manifest says.
    fn read(
        &self,
        file: File,
        read: impl FnOnce(&mut Reader<File>) -> io::Result<()>,
    ) -> Result<(), Stop> {
        let mut file = Reader {
            // A file that grew must not make the stream longer than announced.
            file: file.take(self.len),
            failed: None,
            hasher: blake3::Hasher::new(),
        };
        let result = read(&mut file);
        if let Some(source) = file.failed {
            return Err(Stop::Failed(ContentError::Read {
                path: self.path.clone(),
                source,
            }));
        }
        result.map_err(abandoned)?;
        let unread = file.file.limit() > 0;
        if unread || Digest::from(file.hasher.finalize()) != self.digest {
            return Err(Stop::Changed(self.path.clone()));
        }
        Ok(())
    }
}

/// A file that is digested as it is read, and that remembers its own failure, which is another
/// than the stream's.
struct Reader<R> {
    file: io::Take<R>,
    failed: Option<io::Error>,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read(buffer) {
            Ok(read) => {
                self.hasher.update(&buffer[..read]);
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}

/// Cuts what is written into pieces of [`limits::CONTENT_PART`] bytes.
#[derive(Debug)]
struct Pieces<'a> {
    pieces: &'a mpsc::Sender<Result<Content, ContentError>>,
    buffer: Vec<u8>,
    link: Link,
}

/// How the link took what it was given.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// How many pieces found as many waiting as may wait: the link is what takes time.
    full: u32,
    /// How many found none waiting: this end is.
    empty: u32,
}

impl<'a> Pieces<'a> {
    fn new(pieces: &'a mpsc::Sender<Result<Content, ContentError>>) -> Self {
        Self {
            pieces,
            buffer: Vec::new(),
            link: Link::default(),
        }
    }
}

impl Pieces<'_> {
    fn send(&mut self) -> io::Result<()> {
        match self.pieces.capacity() {
            0 => self.link.full += 1,
            AHEAD => self.link.empty += 1,
            _ => {}
        }
        let piece = std::mem::take(&mut self.buffer);
        self.pieces
            .blocking_send(Ok(Content::Piece(piece)))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(limits::CONTENT_PART - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == limits::CONTENT_PART {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.send()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use patchwire_delta::{BlockSize, Seed, SignatureOptions};
    use patchwire_protocol::manifest::{Manifest, Mode};

    use super::*;

    fn put(path: &str, content: &[u8], source: Source) -> Operation {
        let entry = Entry::File {
            mode: Mode::from_bits(0o644),
            len: content.len() as u64,
            digest: Digest::of(content),
        };
        Operation::Put {
            path: path.try_into().unwrap(),
            entry,
            source,
        }
    }

    /// What stands behind the operations.
    fn content_of(bytes: &[u8], operations: u64) -> Vec<u8> {
        let bytes = zstd::decode_all(bytes).unwrap();
        let mut content = &bytes[..];
        stream::read(&mut content, operations, &Manifest::default(), false).unwrap();
        content.to_vec()
    }

    async fn collect(plan: Plan) -> (Vec<u8>, Result<Content, ContentError>) {
        let mut pieces = read(plan);
        let mut bytes = Vec::new();
        loop {
            match pieces.recv().await.expect("it says when it ends") {
                Ok(Content::Piece(piece)) => {
                    assert!(piece.len() <= limits::CONTENT_PART);
                    bytes.extend(piece);
                }
                last => return (bytes, last),
            }
        }
    }

    #[tokio::test]
    async fn whole_files_and_deltas_stand_in_one_stream_in_order() {
        let root = tempfile::tempdir().unwrap();
        let basis = vec![7; 100_000];
        let target = [&basis[..], b"more"].concat();
        fs::write(root.path().join("a"), b"whole").unwrap();
        fs::write(root.path().join("b"), &target).unwrap();
        fs::write(root.path().join("c"), b"kept, and sent").unwrap();
        let signature = Signature::of(&basis, SignatureOptions::new(Seed(1)));
        let delta = Source::Delta {
            basis: "b".try_into().unwrap(),
        };
        let (bytes, last) = collect(Plan {
            root: root.path().to_owned(),
            operations: vec![
                put("a", b"whole", Source::Whole { kept: 0 }),
                put("b", &target, delta),
                put("c", b"kept, and sent", Source::Whole { kept: 6 }),
            ],
            bases: vec![Basis::Signature(signature)],
        })
        .await;
        assert!(matches!(last, Ok(Content::End)));
        let content = content_of(&bytes, 3);
        let delta = content.strip_prefix(b"whole").unwrap();
        let delta = delta.strip_suffix(b"and sent").unwrap();
        assert!(delta.len() < 200);
        assert_eq!(
            patchwire_delta::patch(&basis, delta, 1 << 20).unwrap(),
            target
        );
    }

    #[tokio::test]
    async fn a_file_that_is_no_longer_what_the_manifest_says_is_named() {
        let root = tempfile::tempdir().unwrap();
        for now in [&b"other"[..], b"shor", b"longer than it was", b""] {
            fs::write(root.path().join("a"), now).unwrap();
            let operations = vec![put("a", b"whole", Source::Whole { kept: 0 })];
            let root = root.path().to_owned();
            let (_, last) = collect(Plan {
                root,
                operations,
                bases: Vec::new(),
            })
            .await;
            assert!(matches!(last, Ok(Content::Changed(path)) if path.as_bytes() == b"a"));
        }
        let operations = vec![put("gone", b"whole", Source::Whole { kept: 0 })];
        let root = root.path().to_owned();
        let (_, last) = collect(Plan {
            root,
            operations,
            bases: Vec::new(),
        })
        .await;
        assert!(matches!(last, Ok(Content::Changed(path)) if path.as_bytes() == b"gone"));
    }

    #[tokio::test]
    async fn what_two_rounds_found_is_a_delta_of_the_file_they_read() {
        let root = tempfile::tempdir().unwrap();
        let basis: Vec<u8> = (0..300_000u32)
            .flat_map(|n| n.wrapping_mul(n | 1).to_le_bytes())
            .collect();
        let mut target = basis.clone();
        target.splice(700_000..700_010, *b"something else");
        let path = root.path().join("b");
        let plan = || {
            fs::write(&path, &target).unwrap();
            let first = SignatureOptions {
                block_size: Some(BlockSize::for_two_rounds(basis.len() as u64)),
                ..SignatureOptions::new(Seed(1))
            };
            let signature = Signature::of(&basis, first);
            let first = FirstRound::of(&signature, &target, DiffOptions::default());
            let second = first
                .regions()
                .sign(io::Cursor::new(&basis), Seed(2))
                .unwrap();
            let read = fs::metadata(&path).unwrap().into();
            let rounds = Rounds {
                first,
                second,
                read,
            };
            let delta = Source::Delta {
                basis: "b".try_into().unwrap(),
            };
            Plan {
                root: root.path().to_owned(),
                operations: vec![put("b", &target, delta)],
                bases: vec![Basis::Rounds(Box::new(rounds))],
            }
        };
        let (bytes, last) = collect(plan()).await;
        assert!(matches!(last, Ok(Content::End)));
        let delta = content_of(&bytes, 1);
        assert!(delta.len() < 2000, "{}", delta.len());
        let patched = patchwire_delta::patch(&basis, &delta, 4 << 20).unwrap();
        assert_eq!(patched, target);

        let plan = plan();
        fs::write(root.path().join("other"), &target).unwrap();
        fs::rename(root.path().join("other"), &path).unwrap();
        let (_, last) = collect(plan).await;
        assert!(matches!(last, Ok(Content::Changed(path)) if path.as_bytes() == b"b"));
    }
}
