//! Deltas in memory: the operations that turn a basis into a target.

use std::io::{self, Write};

use crate::{
    DecodeError, Digest, PatchError,
    basis::BasisId,
    encoding::{DeltaReader, DeltaWriter, OpHead, ReadError, Written},
};

/// The most bytes of one literal operation; longer literals are several operations.
pub(crate) const MAX_LITERAL: usize = 64 << 10;

/// One operation of a delta: where the next bytes of the target come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'t> {
    /// Bytes that the basis has.
    Copy {
        /// Where they begin in the basis.
        offset: u64,
        /// How many they are, never 0.
        len: u64,
    },
    /// Bytes that the basis doesn't have: 1 to 65 536, longer ones are several operations.
    Literal(&'t [u8]),
}

impl Op<'_> {
    /// How many bytes of the target this makes.
    #[expect(clippy::len_without_is_empty, reason = "an operation is never empty")]
    #[must_use]
    pub const fn len(&self) -> u64 {
        match self {
            Self::Copy { len, .. } => *len,
            Self::Literal(bytes) => bytes.len() as u64,
        }
    }
}

/// The operations that turn a basis into a target, and the digest that proves they did.
///
/// Literals are borrowed: from the target when `diff` made the delta, from the encoding when it was
/// decoded.
///
/// # Encoding
///
/// It ends itself, so a reader can take it out of a longer stream without knowing its length. A
/// *number* is unsigned LEB128 in its shortest form, at most ten bytes; the other integers are
/// big-endian.
///
/// ```text
/// "PWD"  version, 2
/// 00                                              it needs no basis, and has no copies, or
/// 01  length: number  block size: number          it is for the basis of this signature
///     seed: 8 bytes  fingerprint: 4 bytes
/// any number of operations:
///     01  offset: number  length: number          copy from the basis
///     02  length: number  bytes                   literal, 1 to 65 536 bytes
/// 00  target length: number  BLAKE3 of the target: 32 bytes
/// ```
///
/// The fingerprint is the first four bytes of the XXH3-128 of the strong hashes of all blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta<'t> {
    pub(crate) basis: Option<BasisId>,
    pub(crate) ops: Vec<Op<'t>>,
    pub(crate) target_len: u64,
    pub(crate) digest: Digest,
}

impl<'t> Delta<'t> {
    /// The delta that makes `target` of any basis: the whole of it as literals. This is what to send
    /// after [`PatchError::Mismatch`] and [`PatchError::WrongBasis`]. [`whole_read`](crate::whole_read)
    /// does the same for a target that is read.
    #[must_use]
    pub fn whole(target: &'t [u8]) -> Self {
        Self {
            basis: None,
            ops: literals(target).collect(),
            target_len: target.len() as u64,
            digest: Digest::of(target),
        }
    }

    /// The operations, in the order of the target.
    #[must_use]
    pub fn ops(&self) -> &[Op<'t>] {
        &self.ops
    }

    /// The length of the target in bytes: the sum of the operations.
    #[must_use]
    pub const fn target_len(&self) -> u64 {
        self.target_len
    }

    /// The digest of the target, as the delta's sender says it.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// How many bytes of the target are literals.
    #[must_use]
    pub fn literal_bytes(&self) -> u64 {
        let literals = self.ops.iter().map(|op| match op {
            Op::Copy { .. } => 0,
            Op::Literal(bytes) => bytes.len() as u64,
        });
        literals.sum()
    }

    /// Encodes the delta: its literals, and a few bytes for each operation.
    #[expect(
        clippy::missing_panics_doc,
        reason = "writing to a vector has no errors"
    )]
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes)
            .expect("writing to a vector has no errors");
        bytes
    }

    /// Writes the encoded delta in small pieces, and gives its length in bytes: let `out` be buffered.
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn write(&self, out: impl Write) -> io::Result<u64> {
        let mut writer = DeltaWriter::start(out, self.basis.as_ref())?;
        for op in &self.ops {
            writer.op(*op)?;
        }
        let Written { delta_len, .. } = writer.finish(self.digest)?;
        Ok(delta_len)
    }

    /// Decodes a delta from input that need not be trusted.
    ///
    /// Memory: the operations, at worst, where they are the smallest, 24 times the length of `bytes`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if `bytes` is not exactly one delta.
    pub fn decode(bytes: &'t [u8]) -> Result<Self, DecodeError> {
        let decode = || {
            let mut reader = DeltaReader::start(bytes)?;
            let mut ops = Vec::new();
            let mut actual = 0u64;
            loop {
                let op = match reader.head()? {
                    OpHead::Copy { offset, len } => Op::Copy { offset, len },
                    OpHead::Literal { len } => Op::Literal(reader.borrow(len)?),
                    OpHead::End { target_len, digest } if target_len == actual => {
                        reader.expect_end()?;
                        return Ok(Delta {
                            basis: reader.basis(),
                            ops,
                            target_len,
                            digest,
                        });
                    }
                    OpHead::End {
                        target_len: expected,
                        ..
                    } => return Err(DecodeError::WrongLength { expected, actual }.into()),
                };
                let offset = reader.offset();
                actual = actual
                    .checked_add(op.len())
                    .ok_or(DecodeError::TargetTooLong { offset })?;
                ops.push(op);
            }
        };
        decode().map_err(|error| match error {
            ReadError::Malformed(error) => error,
            ReadError::Io(_) => DecodeError::Truncated {
                // A slice has no other errors.
                len: bytes.len() as u64,
            },
        })
    }

    /// Applies the delta to its basis, and checks the result against [`Delta::digest`].
    ///
    /// `max_len` bounds the target, in bytes, and with it the memory.
    ///
    /// # Errors
    ///
    /// As [`Delta::apply_into`].
    pub fn apply(&self, basis: &[u8], max_len: u64) -> Result<Vec<u8>, PatchError> {
        let mut target = Vec::new();
        self.apply_into(basis, max_len, &mut target)?;
        Ok(target)
    }

    /// Applies the delta to its basis into `target`, whose content is replaced and whose memory is
    /// used again, and checks the result against [`Delta::digest`].
    ///
    /// After an error `target` is empty.
    ///
    /// # Errors
    ///
    /// [`PatchError::WrongBasis`] if the delta is for another basis, and [`PatchError::Mismatch`] if
    /// the result is not the target: see there for what to do. [`PatchError::TooLong`] if the target
    /// is over `max_len` bytes, [`PatchError::OutOfMemory`] if there is no memory for it, and
    /// [`PatchError::CopyOutside`] if an operation copies what the basis doesn't have.
    pub fn apply_into(
        &self,
        basis: &[u8],
        max_len: u64,
        target: &mut Vec<u8>,
    ) -> Result<(), PatchError> {
        target.clear();
        let result = crate::patch::apply(self, basis, max_len, target);
        if result.is_err() {
            target.clear();
        }
        result
    }

    /// Applies the delta to its basis and writes the target to `out`, 16 KiB at a time, straight
    /// from basis and literals where these are long enough.
    ///
    /// The output is checked as a whole: **after an error, throw away what was written.**
    ///
    /// # Errors
    ///
    /// As [`Delta::apply_into`], and [`PatchError::WriteTarget`].
    pub fn apply_to(&self, basis: &[u8], max_len: u64, out: impl Write) -> Result<(), PatchError> {
        crate::patch::apply_to(self, basis, max_len, out)
    }
}

/// Bytes as literal operations.
pub(crate) fn literals(bytes: &[u8]) -> impl Iterator<Item = Op<'_>> {
    bytes.chunks(MAX_LITERAL).map(Op::Literal)
}
