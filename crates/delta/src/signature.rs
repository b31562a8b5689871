//! Signatures: what one end tells the other about its basis.

use std::io::{self, Read};

use crate::{
    BlockSize, DecodeError, Digest, Seed,
    encoding::{Artefact, check_magic},
    strong::Strong,
    weak::Weak,
};

/// The hashes of a basis, block by block: all that `diff` needs to know of it.
///
/// # Encoding
///
/// Integers are big-endian. The number of blocks follows from the two lengths, so the encoding has
/// exactly one valid length.
///
/// ```text
/// offset  size  field
///      0     3  "PWS"
///      3     1  version, 1
///      4     4  block size, BlockSize::MIN..=BlockSize::MAX
///      8     8  seed of the strong hashes
///     16     8  basis length
///     24    32  BLAKE3 of the basis
///     56        per block, the last of them may be short:
///            4    weak hash
///            8    strong hash
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    block_size: BlockSize,
    seed: Seed,
    basis_len: u64,
    digest: Digest,
    blocks: Vec<Block>,
}

/// How to make a [`Signature`].
#[derive(Debug, Clone, Copy)]
pub struct SignatureOptions {
    /// The block size; `None` chooses [`BlockSize::for_len`]. A basis that would have more than
    /// [`Signature::MAX_BLOCKS`] blocks gets larger ones.
    pub block_size: Option<BlockSize>,
    /// The seed of the strong hashes: see [`Seed`].
    pub seed: Seed,
}

impl SignatureOptions {
    /// Options that let the length of the basis choose the block size.
    #[must_use]
    pub const fn new(seed: Seed) -> Self {
        Self {
            block_size: None,
            seed,
        }
    }

    fn block_size_for(&self, basis_len: u64) -> BlockSize {
        let mut size = self
            .block_size
            .unwrap_or_else(|| BlockSize::for_len(basis_len));
        while size.count(basis_len) > Signature::MAX_BLOCKS && size.get() < BlockSize::MAX {
            size = size.doubled();
        }
        size
    }
}

/// Why a basis has no signature.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// Reading the basis failed.
    #[error("can't read the basis at offset {offset}")]
    Read {
        /// How many bytes were read before.
        offset: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// The basis has more blocks than a signature may have, or was much longer than announced.
    #[error(
        "the basis has more than {} blocks of {block_size} bytes",
        Signature::MAX_BLOCKS
    )]
    TooManyBlocks {
        /// The block size in bytes.
        block_size: u32,
    },
}

impl Signature {
    /// The most blocks a signature has: 16 TiB of the largest.
    pub const MAX_BLOCKS: u64 = 1 << 24;

    /// Makes the signature of a basis in memory.
    #[must_use]
    pub fn of(basis: &[u8], options: SignatureOptions) -> Self {
        let block_size = options.block_size_for(basis.len() as u64);
        let mut builder = Builder::new(block_size, options.seed);
        for piece in basis.chunks(piece_len(block_size)) {
            builder.push(piece);
        }
        builder.finish()
    }

    /// Makes the signature of a basis from a reader, up to its end.
    ///
    /// `len_hint` chooses the block size; a basis of another length gets a valid signature too.
    /// Memory: the signature and a buffer of 256 KiB or one block.
    ///
    /// # Errors
    ///
    /// [`SignatureError::Read`] if the reader fails, [`SignatureError::TooManyBlocks`] if the basis
    /// is too long.
    pub fn read(
        mut basis: impl Read,
        len_hint: u64,
        options: SignatureOptions,
    ) -> Result<Self, SignatureError> {
        let block_size = options.block_size_for(len_hint);
        let mut builder = Builder::new(block_size, options.seed);
        let capacity = piece_len(block_size);
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let read = basis
                .by_ref()
                .take(capacity as u64)
                .read_to_end(&mut buffer)
                .map_err(|source| SignatureError::Read {
                    offset: builder.basis_len,
                    source,
                })?;
            builder.push(&buffer);
            if block_size.count(builder.basis_len) > Self::MAX_BLOCKS {
                return Err(SignatureError::TooManyBlocks {
                    block_size: block_size.get(),
                });
            }
            if read < capacity {
                return Ok(builder.finish());
            }
        }
    }

    /// The length of the basis in bytes.
    #[must_use]
    pub const fn basis_len(&self) -> u64 {
        self.basis_len
    }

    /// The digest of the basis.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The length of every block but the last.
    #[must_use]
    pub const fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// The length of [`Signature::encode`]'s result in bytes.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        HEADER + self.blocks.len() * Block::LEN
    }

    /// Encodes the signature.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        bytes.extend_from_slice(&Artefact::Signature.magic());
        bytes.extend_from_slice(&self.block_size.get().to_be_bytes());
        bytes.extend_from_slice(&self.seed.0.to_be_bytes());
        bytes.extend_from_slice(&self.basis_len.to_be_bytes());
        bytes.extend_from_slice(self.digest.as_bytes());
        for block in &self.blocks {
            bytes.extend_from_slice(&block.weak.to_be_bytes());
            bytes.extend_from_slice(&block.strong.to_bytes());
        }
        bytes
    }

    /// Decodes a signature from input that need not be trusted.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if `bytes` is not exactly one signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let truncated = DecodeError::Truncated {
            len: bytes.len() as u64,
        };
        let (magic, rest) = bytes.split_first_chunk().ok_or(truncated)?;
        check_magic(*magic, Artefact::Signature)?;
        let (block_size, rest) = rest.split_first_chunk().ok_or(truncated)?;
        let (seed, rest) = rest.split_first_chunk().ok_or(truncated)?;
        let (basis_len, rest) = rest.split_first_chunk().ok_or(truncated)?;
        let (digest, rest) = rest.split_first_chunk().ok_or(truncated)?;

        let block_size = BlockSize::try_from(u32::from_be_bytes(*block_size))?;
        let basis_len = u64::from_be_bytes(*basis_len);
        let count = block_size.count(basis_len);
        if count > Self::MAX_BLOCKS {
            return Err(DecodeError::TooManyBlocks { count });
        }
        let (blocks, ragged) = rest.as_chunks::<{ Block::LEN }>();
        let present = blocks.len() as u64;
        if present < count {
            return Err(truncated);
        }
        if present > count || !ragged.is_empty() {
            let len = rest.len() as u64 - count * Block::LEN as u64;
            return Err(DecodeError::Trailing { len });
        }
        Ok(Self {
            block_size,
            seed: Seed(u64::from_be_bytes(*seed)),
            basis_len,
            digest: Digest::from_bytes(*digest),
            blocks: blocks.iter().map(Block::from_bytes).collect(),
        })
    }

    pub(crate) const fn seed(&self) -> Seed {
        self.seed
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The length in bytes of the last block if it is shorter than the others, else 0.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is less than a block size"
    )]
    pub(crate) const fn short_len(&self) -> usize {
        (self.basis_len % self.block_size.get() as u64) as usize
    }

    /// How many of the blocks have the full size: the first ones, all or all but one.
    pub(crate) const fn full_blocks(&self) -> usize {
        self.blocks.len() - (self.short_len() > 0) as usize
    }
}

/// The hashes of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) weak: u32,
    pub(crate) strong: Strong,
}

impl Block {
    const LEN: usize = size_of::<u32>() + Strong::LEN;

    fn of(bytes: &[u8], seed: Seed) -> Self {
        Self {
            weak: Weak::of(bytes).digest(),
            strong: Strong::of(bytes, seed),
        }
    }

    const fn from_bytes(&[a, b, c, d, ref strong @ ..]: &[u8; Self::LEN]) -> Self {
        Self {
            weak: u32::from_be_bytes([a, b, c, d]),
            strong: Strong::from_bytes(*strong),
        }
    }
}

/// The bytes of an encoded signature before its blocks.
const HEADER: usize = 4 + 4 + 8 + 8 + Digest::LEN;

/// How much of a basis is hashed at a time: whole blocks, and where those are small, few enough to
/// stay in the second-level cache between the hashes that read them.
const fn piece_len(block_size: BlockSize) -> usize {
    (256usize << 10).next_multiple_of(block_size.len())
}

struct Builder {
    block_size: BlockSize,
    seed: Seed,
    basis_len: u64,
    digest: blake3::Hasher,
    blocks: Vec<Block>,
}

impl Builder {
    fn new(block_size: BlockSize, seed: Seed) -> Self {
        Self {
            block_size,
            seed,
            basis_len: 0,
            digest: blake3::Hasher::new(),
            blocks: Vec::new(),
        }
    }

    /// Takes the next piece of the basis: whole blocks, unless it is the last piece.
    fn push(&mut self, piece: &[u8]) {
        self.digest.update(piece);
        self.basis_len += piece.len() as u64;
        let blocks = piece.chunks(self.block_size.len());
        self.blocks
            .extend(blocks.map(|block| Block::of(block, self.seed)));
    }

    fn finish(self) -> Signature {
        Signature {
            block_size: self.block_size,
            seed: self.seed,
            basis_len: self.basis_len,
            digest: self.digest.finalize().into(),
            blocks: self.blocks,
        }
    }
}
