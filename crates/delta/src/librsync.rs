//! The interchange format of librsync and its program `rdiff`, over whole files in memory.
//!
//! Signatures are of the kind `rdiff -H md4 -R rollsum signature` makes; deltas and patches work with
//! those of every `rdiff`. The work is done by [`fast_rsync`], behind checks of what it takes on
//! trust. The format has no digest of the whole, so a collision of MD4 gives wrong output unnoticed:
//! where both ends speak it, use this crate's own format.
//!
//! Layouts: librsync's `doc/format.md`.

use fast_rsync::ApplyError;

/// The largest block size in bytes.
pub const MAX_BLOCK_SIZE: u32 = 1 << 20;

/// Why the interchange format can't be written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LibrsyncError {
    /// The block size is 0 or over [`MAX_BLOCK_SIZE`].
    #[error("a block size of {block_size} bytes is outside 1..={MAX_BLOCK_SIZE}")]
    BlockSize {
        /// The refused block size in bytes.
        block_size: u32,
    },
    /// The strong hashes of a signature are empty or longer than MD4's.
    #[error("strong hashes of {strong_len} bytes are outside 1..=16")]
    StrongLen {
        /// The refused length in bytes.
        strong_len: u32,
    },
    /// The signature is one of librsync's other kinds.
    #[error(
        "the signature's hashes ({magic:#010x}) are not supported: make it with `rdiff -H md4 -R rollsum signature`"
    )]
    UnsupportedHash {
        /// The signature's magic number.
        magic: u32,
    },
    /// The input is no signature or delta of librsync.
    #[error("the input begins with {magic:#010x}: it is not of librsync")]
    WrongMagic {
        /// What the input begins with.
        magic: u32,
    },
    /// The input ends inside a field.
    #[error("the input ends too early: {missing} bytes are missing")]
    Truncated {
        /// How many bytes are missing at least.
        missing: usize,
    },
    /// Bytes follow after the delta's end.
    #[error("{len} bytes follow after the end")]
    Trailing {
        /// How many bytes are too much.
        len: usize,
    },
    /// A delta has an operation that is not known.
    #[error("unknown operation {tag:#04x}")]
    UnknownOp {
        /// The operation's first byte.
        tag: u8,
    },
    /// A delta has a copy of nothing.
    #[error("empty copy")]
    EmptyCopy,
    /// A delta copies bytes that the basis doesn't have: it belongs to another basis.
    #[error("the delta copies {len} bytes at offset {offset} of a basis of {basis_len}")]
    CopyOutside {
        /// Where the copy begins.
        offset: u64,
        /// How many bytes it copies.
        len: u64,
        /// The length of the basis.
        basis_len: usize,
    },
    /// The target is longer than the caller allows.
    #[error("the target is over the limit of {max_len} bytes")]
    TooLong {
        /// The caller's limit in bytes.
        max_len: usize,
    },
    /// The engine refused what was checked before, or failed to write to memory.
    #[error("fast_rsync failed unexpectedly")]
    Engine,
}

/// Makes the signature of a basis, with whole MD4 hashes.
///
/// # Errors
///
/// [`LibrsyncError::BlockSize`] if the block size is outside `1..=`[`MAX_BLOCK_SIZE`].
pub fn signature(basis: &[u8], block_size: u32) -> Result<Vec<u8>, LibrsyncError> {
    let options = fast_rsync::SignatureOptions {
        block_size: check_block_size(block_size)?,
        crypto_hash_size: MD4_LEN,
    };
    Ok(fast_rsync::Signature::calculate(basis, options).into_serialized())
}

/// Makes the delta from the basis behind `signature` to `target`.
///
/// A signature made to be slow is slow: don't take one from a peer that isn't trusted.
///
/// # Errors
///
/// [`LibrsyncError`] if `signature` isn't one that [`signature()`] could have made, but for the length
/// of its strong hashes.
pub fn diff(signature: &[u8], target: &[u8]) -> Result<Vec<u8>, LibrsyncError> {
    let (magic, rest) = take_u32(signature)?;
    match magic {
        MD4_ROLLSUM => {}
        BLAKE2_ROLLSUM | MD4_RABIN_KARP | BLAKE2_RABIN_KARP => {
            return Err(LibrsyncError::UnsupportedHash { magic });
        }
        magic => return Err(LibrsyncError::WrongMagic { magic }),
    }
    let (block_size, rest) = take_u32(rest)?;
    check_block_size(block_size)?;
    let (strong_len, blocks) = take_u32(rest)?;
    if !(1..=MD4_LEN).contains(&strong_len) {
        return Err(LibrsyncError::StrongLen { strong_len });
    }
    let block_len = size_of::<u32>() + strong_len as usize;
    let missing = blocks.len().next_multiple_of(block_len) - blocks.len();
    if missing > 0 {
        return Err(LibrsyncError::Truncated { missing });
    }

    let signature = fast_rsync::Signature::deserialize(signature.to_vec())
        .map_err(|_| LibrsyncError::Engine)?;
    let mut delta = Vec::new();
    fast_rsync::diff(&signature.index(), target, &mut delta).map_err(|_| LibrsyncError::Engine)?;
    Ok(delta)
}

/// Applies a delta, which need not be trusted, to its basis.
///
/// `max_len` bounds the target, and with it the memory.
///
/// # Errors
///
/// [`LibrsyncError`] if `delta` is not exactly one delta, doesn't fit the basis, or makes more than
/// `max_len` bytes.
pub fn patch(basis: &[u8], delta: &[u8], max_len: usize) -> Result<Vec<u8>, LibrsyncError> {
    let mut target = Vec::new();
    match fast_rsync::apply_limited(basis, delta, &mut target, max_len) {
        Ok(()) => Ok(target),
        Err(error) => Err(match error {
            ApplyError::WrongMagic { magic } => LibrsyncError::WrongMagic { magic },
            ApplyError::UnexpectedEof {
                expected,
                available,
                ..
            } => LibrsyncError::Truncated {
                missing: expected.saturating_sub(available),
            },
            ApplyError::OutputLimit { .. } => LibrsyncError::TooLong { max_len },
            ApplyError::CopyOutOfBounds {
                offset,
                len,
                data_len: basis_len,
            } => LibrsyncError::CopyOutside {
                offset,
                len,
                basis_len,
            },
            ApplyError::CopyZero => LibrsyncError::EmptyCopy,
            ApplyError::UnknownCommand { command: tag } => LibrsyncError::UnknownOp { tag },
            ApplyError::TrailingData { length: len } => LibrsyncError::Trailing { len },
            ApplyError::Io(_) => LibrsyncError::Engine,
        }),
    }
}

/// Magic numbers of signatures, from librsync's `librsync.h`.
const MD4_ROLLSUM: u32 = 0x7273_0136;
const BLAKE2_ROLLSUM: u32 = 0x7273_0137;
const MD4_RABIN_KARP: u32 = 0x7273_0146;
const BLAKE2_RABIN_KARP: u32 = 0x7273_0147;

/// The length of an MD4 hash in bytes.
const MD4_LEN: u32 = 16;

fn check_block_size(block_size: u32) -> Result<u32, LibrsyncError> {
    if (1..=MAX_BLOCK_SIZE).contains(&block_size) {
        Ok(block_size)
    } else {
        Err(LibrsyncError::BlockSize { block_size })
    }
}

fn take_u32(bytes: &[u8]) -> Result<(u32, &[u8]), LibrsyncError> {
    let missing = size_of::<u32>().saturating_sub(bytes.len());
    let (number, rest) = bytes
        .split_first_chunk()
        .ok_or(LibrsyncError::Truncated { missing })?;
    Ok((u32::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_fields(magic: u32, block_size: u32, strong_len: u32) -> Vec<u8> {
        [magic, block_size, strong_len]
            .map(u32::to_be_bytes)
            .concat()
    }

    #[test]
    fn signatures_that_would_panic_or_mislead_are_refused() {
        let target = [0; 100];
        assert_eq!(
            diff(&with_fields(MD4_ROLLSUM, 0, 16), &target),
            Err(LibrsyncError::BlockSize { block_size: 0 })
        );
        assert_eq!(
            signature(&target, 0),
            Err(LibrsyncError::BlockSize { block_size: 0 })
        );
        let block_size = MAX_BLOCK_SIZE + 1;
        assert_eq!(
            diff(&with_fields(MD4_ROLLSUM, block_size, 16), &target),
            Err(LibrsyncError::BlockSize { block_size })
        );
        for strong_len in [0, 17, u32::MAX] {
            assert_eq!(
                diff(&with_fields(MD4_ROLLSUM, 64, strong_len), &target),
                Err(LibrsyncError::StrongLen { strong_len })
            );
        }
        for magic in [BLAKE2_ROLLSUM, MD4_RABIN_KARP, BLAKE2_RABIN_KARP] {
            assert_eq!(
                diff(&with_fields(magic, 64, 16), &target),
                Err(LibrsyncError::UnsupportedHash { magic })
            );
        }
        assert_eq!(
            diff(&with_fields(0xABCD, 64, 16), &target),
            Err(LibrsyncError::WrongMagic { magic: 0xABCD })
        );
    }

    #[test]
    fn truncation_anywhere_is_an_error() {
        let basis: Vec<u8> = (0..=255).collect();
        let target = [&basis[100..], b"new".as_slice(), &basis[..100]].concat();
        let signature = signature(&basis, 64).unwrap();
        let header = 12;
        for len in (0..signature.len()).filter(|len| *len < header || (len - header) % 20 != 0) {
            let refused = diff(&signature[..len], &target);
            assert!(
                matches!(refused, Err(LibrsyncError::Truncated { .. })),
                "{len}"
            );
        }
        let delta = diff(&signature, &target).unwrap();
        for len in 0..delta.len() {
            let refused = patch(&basis, &delta[..len], target.len());
            assert!(
                matches!(refused, Err(LibrsyncError::Truncated { .. })),
                "{len}"
            );
        }
        assert_eq!(patch(&basis, &delta, target.len()), Ok(target.clone()));
        let max_len = target.len() - 1;
        assert_eq!(
            patch(&basis, &delta, max_len),
            Err(LibrsyncError::TooLong { max_len })
        );
    }
}
