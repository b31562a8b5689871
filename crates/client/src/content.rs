//! The content stream of a push: what its operations send, one after the other, compressed.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

use patchwire_delta::{DiffOptions, Digest, Signature, diff_read_with};
use patchwire_protocol::{
    limits,
    manifest::Entry,
    operation::{Operation, Source},
    path::RelativePath,
    session::sender::Content,
};
use tokio::sync::mpsc;

/// How many pieces are compressed ahead of the network.
const AHEAD: usize = 4;

/// Fast, and already three times smaller for source code.
const LEVEL: i32 = 3;

/// What is to be sent: the operations, and a signature for each delta, in order.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) root: PathBuf,
    pub(crate) operations: Vec<Operation>,
    pub(crate) signatures: Vec<Signature>,
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
        let last = match compress(
            &plan,
            Pieces {
                pieces: &pieces,
                buffer: Vec::new(),
            },
        ) {
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

fn compress(plan: &Plan, pieces: Pieces<'_>) -> Result<(), Stop> {
    let abandoned = |_: io::Error| Stop::Abandoned;
    let mut out = zstd::Encoder::new(pieces, LEVEL).map_err(abandoned)?;
    let mut signatures = plan.signatures.iter();
    for operation in &plan.operations {
        let Operation::Put {
            path,
            entry: Entry::File { len, digest, .. },
            source,
        } = operation
        else {
            continue;
        };
        let (signature, kept) = match source {
            Source::Whole { kept } => (None, *kept),
            Source::Delta { .. } => (signatures.next(), 0),
            Source::None | Source::Copy { .. } => continue,
        };
        let file =
            patchwire_tree::open_file(&plan.root, path).map_err(|_| Stop::Changed(path.clone()))?;
        // A file that grew must not make the stream longer than announced.
        let mut file = Reader {
            file: file.take(*len),
            failed: None,
            hasher: blake3::Hasher::new(),
        };
        let result = match signature {
            Some(signature) => {
                // If it is of another content by now, the reader notices.
                let options = DiffOptions {
                    digest: Some(*digest),
                    ..DiffOptions::default()
                };
                diff_read_with(signature, &mut file, &mut out, options)
                    .map(drop)
                    .map_err(io::Error::other)
            }
            // What is kept is not sent, but the digest is of the whole.
            None => io::copy(&mut (&mut file).take(kept), &mut io::sink())
                .and_then(|_| io::copy(&mut file, &mut out))
                .map(drop),
        };
        if let Some(source) = file.failed {
            return Err(Stop::Failed(ContentError::Read {
                path: path.clone(),
                source,
            }));
        }
        result.map_err(abandoned)?;
        let unread = file.file.limit() > 0;
        if unread || Digest::from(file.hasher.finalize()) != *digest {
            return Err(Stop::Changed(path.clone()));
        }
    }
    out.finish().map_err(abandoned)?.flush().map_err(abandoned)
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
struct Pieces<'a> {
    pieces: &'a mpsc::Sender<Result<Content, ContentError>>,
    buffer: Vec<u8>,
}

impl Pieces<'_> {
    fn send(&mut self) -> io::Result<()> {
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

    use patchwire_delta::{Seed, SignatureOptions};
    use patchwire_protocol::manifest::Mode;

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
            signatures: vec![signature],
        })
        .await;
        assert!(matches!(last, Ok(Content::End)));
        let content = zstd::decode_all(&bytes[..]).unwrap();
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
                signatures: Vec::new(),
            })
            .await;
            assert!(matches!(last, Ok(Content::Changed(path)) if path.as_bytes() == b"a"));
        }
        let operations = vec![put("gone", b"whole", Source::Whole { kept: 0 })];
        let root = root.path().to_owned();
        let (_, last) = collect(Plan {
            root,
            operations,
            signatures: Vec::new(),
        })
        .await;
        assert!(matches!(last, Ok(Content::Changed(path)) if path.as_bytes() == b"gone"));
    }
}
