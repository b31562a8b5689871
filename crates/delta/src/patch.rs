//! From a basis and a delta to the target.

use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};

use crate::{
    DecodeError, Delta, Digest, Op,
    basis::BasisId,
    encoding::{DeltaReader, OpHead, ReadError},
};

/// What [`patch_read`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchSummary {
    /// The length of the target in bytes.
    pub target_len: u64,
    /// The digest of the target, as the delta says it: the output was checked against it.
    pub digest: Digest,
    /// How many bytes were copied from the basis.
    pub copied: u64,
    /// How many bytes were literals.
    pub literal: u64,
}

/// Why there is no target.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// Reading the delta failed.
    #[error("can't read the delta")]
    ReadDelta(#[source] io::Error),
    /// Reading the basis failed.
    #[error("can't read the basis at offset {offset}")]
    ReadBasis {
        /// Where it failed.
        offset: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// Writing the target failed.
    #[error("can't write the target at offset {offset}")]
    WriteTarget {
        /// How many bytes were written before.
        offset: u64,
        /// What the writer said.
        source: io::Error,
    },
    /// The delta is truncated or malformed.
    #[error("malformed delta")]
    Malformed(#[from] DecodeError),
    /// The delta copies bytes that the basis doesn't have, although that has the length which the delta
    /// names: it is malformed.
    #[error("the delta copies {len} bytes at offset {offset} of a basis of {basis_len}")]
    CopyOutside {
        /// Where the copy begins.
        offset: u64,
        /// How many bytes it copies.
        len: u64,
        /// The length of the basis.
        basis_len: u64,
    },
    /// The target is longer than the caller allows.
    #[error("the target has {len} bytes or more, over the limit of {max_len}")]
    TooLong {
        /// The length of the target up to the operation that was too much.
        len: u64,
        /// The caller's limit.
        max_len: u64,
    },
    /// There is no memory for the target.
    #[error("no memory for a target of {len} bytes")]
    OutOfMemory {
        /// The length of the target.
        len: u64,
    },
    /// The delta is for another basis, or the basis has changed since its signature was made: begin
    /// anew with a signature, or send [`Delta::whole`].
    #[error("the delta is for another basis, or the basis has changed since")]
    WrongBasis,
    /// The result is not the target, although the basis is the right one, and must be thrown away.
    ///
    /// Two different blocks had the same hash under the signature's seed, or the delta was damaged.
    /// Another delta from the same signature may fail too: send [`Delta::whole`].
    #[error(
        "the result has the digest {actual} instead of {expected}, by a collision of hashes or a damaged delta: send the target whole"
    )]
    Mismatch {
        /// The digest of the target.
        expected: Digest,
        /// The digest of the result.
        actual: Digest,
    },
}

impl From<ReadError> for PatchError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(source) => Self::ReadDelta(source),
            ReadError::Malformed(error) => Self::Malformed(error),
        }
    }
}

/// Applies an encoded delta, which need not be trusted, to its basis, and checks the result.
///
/// `max_len` bounds the target, in bytes, and with it the memory: a delta of a few bytes can ask for
/// any multiple of the basis.
///
/// # Errors
///
/// [`PatchError::Malformed`] if `delta` is not exactly one delta, else as [`Delta::apply`].
pub fn patch(basis: &[u8], delta: &[u8], max_len: u64) -> Result<Vec<u8>, PatchError> {
    Delta::decode(delta)?.apply(basis, max_len)
}

/// Applies an encoded delta, which need not be trusted, and writes the target to `out`.
///
/// From `delta` exactly the delta's bytes are consumed, whatever follows them; of `basis`, any part
/// may be read, from anywhere. What is copied is read and written in pieces of up to 256 KiB, and
/// literals as `delta` has them in its buffer. Memory: 256 KiB, or a block where a failure is looked
/// into.
///
/// The output is checked as a whole: **after an error, throw away what was written.** How much of the
/// delta was consumed then is not said, but for [`PatchError::Mismatch`]: all of it.
///
/// # Errors
///
/// [`PatchError`] says which side failed, and whether the delta, the basis or the environment did.
pub fn patch_read(
    mut basis: impl Read + Seek,
    delta: impl BufRead,
    out: impl Write,
    max_len: u64,
) -> Result<PatchSummary, PatchError> {
    let basis_len = basis
        .seek(SeekFrom::End(0))
        .map_err(|source| PatchError::ReadBasis { offset: 0, source })?;
    let mut basis_at = basis_len;
    let mut reader = DeltaReader::start(delta)?;
    if reader.basis().is_some_and(|id| id.len != basis_len) {
        return Err(PatchError::WrongBasis);
    }
    let mut output = Output {
        out,
        digest: blake3::Hasher::new(),
    };
    let mut copied = 0;
    let mut buffer = Vec::new();
    loop {
        let written = output.len();
        let within = |len| match written.checked_add(len) {
            Some(total) if total <= max_len => Ok(()),
            total => Err(PatchError::TooLong {
                len: total.unwrap_or(u64::MAX),
                max_len,
            }),
        };
        match reader.head()? {
            OpHead::Copy { offset, len } => {
                let end = copy_end(offset, len, basis_len)?;
                within(len)?;
                let failed = |source| PatchError::ReadBasis { offset, source };
                if basis_at != offset {
                    basis.seek(SeekFrom::Start(offset)).map_err(failed)?;
                }
                basis_at = end;
                buffer.resize(BUFFER, 0);
                let mut left = len;
                while left > 0 {
                    let now = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
                    basis.read_exact(&mut buffer[..now]).map_err(failed)?;
                    output.write(&buffer[..now])?;
                    left -= now as u64;
                }
                copied += len;
            }
            OpHead::Literal { len } => {
                within(len as u64)?;
                let mut left = len;
                while left > 0 {
                    let (taken, result) = reader.literal(left, |bytes| output.write(bytes))?;
                    result?;
                    left -= taken;
                }
            }
            OpHead::End { target_len, digest } => {
                if target_len != written {
                    return Err(PatchError::Malformed(DecodeError::WrongLength {
                        expected: target_len,
                        actual: written,
                    }));
                }
                let actual = output.digest.finalize().into();
                verify(reader.basis(), digest, actual, || {
                    basis.seek(SeekFrom::Start(0)).map(|_| &mut basis)
                })?;
                return Ok(PatchSummary {
                    target_len,
                    digest,
                    copied,
                    literal: written - copied,
                });
            }
        }
    }
}

/// Applies a delta into an empty vector.
pub(crate) fn apply(
    delta: &Delta<'_>,
    basis: &[u8],
    max_len: u64,
    target: &mut Vec<u8>,
) -> Result<(), PatchError> {
    let len = check(delta, basis, max_len)?;
    usize::try_from(len)
        .ok()
        .and_then(|len| target.try_reserve_exact(len).ok())
        .ok_or(PatchError::OutOfMemory { len })?;
    // Hashed while it is in the cache still, but not in the small pieces it comes in.
    let mut hasher = blake3::Hasher::new();
    let mut hashed = 0;
    for op in delta.ops() {
        let mut rest = source(op, basis)?;
        while let Some((piece, behind)) = rest.split_at_checked(HASHED.min(rest.len()))
            && !piece.is_empty()
        {
            target.extend_from_slice(piece);
            rest = behind;
            let ready = (target.len() - hashed) / HASHED * HASHED;
            hasher.update(&target[hashed..hashed + ready]);
            hashed += ready;
        }
    }
    hasher.update(&target[hashed..]);
    verify(
        delta.basis,
        delta.digest(),
        hasher.finalize().into(),
        || Ok(basis),
    )
}

/// Applies a delta to a basis in memory, straight into a writer.
pub(crate) fn apply_to(
    delta: &Delta<'_>,
    basis: &[u8],
    max_len: u64,
    out: impl Write,
) -> Result<(), PatchError> {
    check(delta, basis, max_len)?;
    let mut output = Output {
        out,
        digest: blake3::Hasher::new(),
    };
    // Operations have all lengths, but BLAKE3 works on many chunks at a time only where whole ones
    // are given to it.
    let mut buffer = Vec::with_capacity(WRITTEN);
    for op in delta.ops() {
        let mut rest = source(op, basis)?;
        while !rest.is_empty() {
            if let (true, Some((piece, behind))) =
                (buffer.is_empty(), rest.split_at_checked(WRITTEN))
            {
                output.write(piece)?;
                rest = behind;
                continue;
            }
            let (piece, behind) = rest.split_at(rest.len().min(WRITTEN - buffer.len()));
            buffer.extend_from_slice(piece);
            rest = behind;
            if buffer.len() == WRITTEN {
                output.write(&buffer)?;
                buffer.clear();
            }
        }
    }
    output.write(&buffer)?;
    let actual = output.digest.finalize().into();
    verify(delta.basis, delta.digest(), actual, || Ok(basis))
}

/// Checks what can be known before anything is written, and gives the length of the target.
fn check(delta: &Delta<'_>, basis: &[u8], max_len: u64) -> Result<u64, PatchError> {
    if delta.basis.is_some_and(|id| id.len != basis.len() as u64) {
        return Err(PatchError::WrongBasis);
    }
    let len = delta.target_len();
    if len > max_len {
        return Err(PatchError::TooLong { len, max_len });
    }
    for op in delta.ops() {
        source(op, basis)?;
    }
    Ok(len)
}

/// The bytes that an operation makes.
fn source<'t>(op: &Op<'t>, basis: &'t [u8]) -> Result<&'t [u8], PatchError> {
    match *op {
        Op::Copy { offset, len } => slice(basis, offset, len),
        Op::Literal(bytes) => Ok(bytes),
    }
}

/// How much of the target is hashed at a time: much enough for all lanes of BLAKE3, and little enough
/// to be in the cache still.
const HASHED: usize = 64 << 10;

/// How much is hashed and written at a time from memory: what the first-level cache holds.
const WRITTEN: usize = 16 << 10;

/// How much of the basis is read at a time.
const BUFFER: usize = 256 << 10;

/// The target as it is written, with its digest so far.
struct Output<W> {
    out: W,
    digest: blake3::Hasher,
}

impl<W: Write> Output<W> {
    fn len(&self) -> u64 {
        self.digest.count()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PatchError> {
        let offset = self.len();
        self.digest.update(bytes);
        self.out
            .write_all(bytes)
            .map_err(|source| PatchError::WriteTarget { offset, source })
    }
}

/// What a copy takes from a basis in memory.
fn slice(basis: &[u8], offset: u64, len: u64) -> Result<&[u8], PatchError> {
    let basis_len = basis.len() as u64;
    let end = copy_end(offset, len, basis_len)?;
    let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
    let bytes = range.and_then(|(start, end)| basis.get(start..end));
    bytes.ok_or(PatchError::CopyOutside {
        offset,
        len,
        basis_len,
    })
}

/// Where a copy ends in a basis of this length.
fn copy_end(offset: u64, len: u64, basis_len: u64) -> Result<u64, PatchError> {
    let end = offset.checked_add(len).filter(|end| *end <= basis_len);
    end.ok_or(PatchError::CopyOutside {
        offset,
        len,
        basis_len,
    })
}

/// Checks the result, and if it is wrong, whether that is the basis' fault.
fn verify<R: Read>(
    basis_id: Option<BasisId>,
    expected: Digest,
    actual: Digest,
    basis: impl FnOnce() -> io::Result<R>,
) -> Result<(), PatchError> {
    if expected == actual {
        return Ok(());
    }
    if let Some(id) = basis_id {
        let is_right = basis().and_then(|basis| id.is(basis));
        let is_right = is_right.map_err(|source| PatchError::ReadBasis { offset: 0, source })?;
        if !is_right {
            return Err(PatchError::WrongBasis);
        }
    }
    Err(PatchError::Mismatch { expected, actual })
}
