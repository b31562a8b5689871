//! Signatures: what one end tells the other about its basis.

use std::{
    io::{self, Read, Write},
    num::{NonZeroU16, NonZeroUsize},
};

use crate::{
    BlockSize, DecodeError, ReadError, Seed,
    anchor::Layout,
    encoding::{Artefact, Reader, check_magic},
    strong::Strong,
};

mod make;

use make::Maker;

/// The hashes of a basis, block by block: all that `diff` needs to know of it.
///
/// Each block has a strong hash, and a *mark* by which it is found: the key and the place of one of
/// its anchors, places that its content chose, or where it has none, its weak hash.
///
/// # Encoding
///
/// Integers are big-endian. The number of blocks follows from the two lengths, so the encoding ends
/// itself. How the hashes are computed is said in
/// [docs/delta.md](https://github.com/patchwire/patchwire/blob/main/docs/delta.md).
///
/// ```text
/// offset  size  field
///      0     3  "PWS"
///      3     1  version, 2
///      4     4  block size, BlockSize::MIN..=BlockSize::MAX
///      8     8  seed of the hashes
///     16     8  basis length
///     24        per block, the last of them may be short:
///            4    key of the anchor, or weak hash
///            2    place of the anchor in the block, 0 if there is none; not there at all if the
///                 block size is below 512
///            6    strong hash
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    block_size: BlockSize,
    seed: Seed,
    basis_len: u64,
    blocks: Vec<Block>,
}

/// How to make a [`Signature`].
#[derive(Debug, Clone, Copy)]
pub struct SignatureOptions {
    /// The block size; `None` chooses [`BlockSize::for_len`]. A basis that would have more than
    /// [`Signature::MAX_BLOCKS`] blocks gets larger ones.
    pub block_size: Option<BlockSize>,
    /// The seed of the hashes: see [`Seed`].
    pub seed: Seed,
    /// How many threads may work at it, of which each takes 8 MiB of the basis at a time. The
    /// signature is the same with any number.
    pub threads: NonZeroUsize,
}

impl SignatureOptions {
    /// Options that let the length of the basis choose the block size, with one thread.
    #[must_use]
    pub const fn new(seed: Seed) -> Self {
        Self {
            block_size: None,
            seed,
            threads: NonZeroUsize::MIN,
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

    /// Makes the signature of a basis in memory, in time linear in its length.
    ///
    /// Memory: the signature, 16 bytes a block.
    ///
    /// # Panics
    ///
    /// Panics if the system has no more threads, where [`SignatureOptions::threads`] asks for some.
    #[must_use]
    pub fn of(basis: &[u8], options: SignatureOptions) -> Self {
        let block_size = options.block_size_for(basis.len() as u64);
        Self {
            block_size,
            seed: options.seed,
            basis_len: basis.len() as u64,
            blocks: make::blocks(basis, block_size, options.seed, options.threads),
        }
    }

    /// Makes the signature of a basis from a reader, up to its end.
    ///
    /// `len_hint`, in bytes, chooses the block size where the options don't; a basis of another length
    /// gets a valid signature too. The reader is read in large pieces and need not be buffered.
    /// Memory: the signature and, with one thread, 256 KiB or a block, else 8 MiB for each.
    ///
    /// # Errors
    ///
    /// [`SignatureError::Read`] if the reader fails, [`SignatureError::TooManyBlocks`] if the basis
    /// is too long.
    ///
    /// # Panics
    ///
    /// Panics if the system has no more threads, where [`SignatureOptions::threads`] asks for some.
    pub fn read(
        mut basis: impl Read,
        len_hint: u64,
        options: SignatureOptions,
    ) -> Result<Self, SignatureError> {
        let block_size = options.block_size_for(len_hint);
        let mut maker = Maker::new(block_size, options.seed);
        let capacity = make::piece_len(block_size, options.threads);
        let mut signature = Self {
            block_size,
            seed: options.seed,
            basis_len: 0,
            blocks: Vec::new(),
        };
        let expected = usize::try_from(len_hint).unwrap_or(usize::MAX);
        let mut buffer = Vec::with_capacity(capacity.min(expected.saturating_add(1)));
        loop {
            buffer.clear();
            let read = basis
                .by_ref()
                .take(capacity as u64)
                .read_to_end(&mut buffer)
                .map_err(|source| SignatureError::Read {
                    offset: signature.basis_len,
                    source,
                })?;
            signature.basis_len += read as u64;
            if block_size.count(signature.basis_len) > Self::MAX_BLOCKS {
                return Err(SignatureError::TooManyBlocks {
                    block_size: block_size.get(),
                });
            }
            if options.threads.get() > 1 {
                let blocks = make::blocks(&buffer, block_size, options.seed, options.threads);
                signature.blocks.extend(blocks);
            } else {
                maker.push(&buffer, &mut signature.blocks);
            }
            if read < capacity {
                return Ok(signature);
            }
        }
    }

    /// The length of the basis in bytes.
    #[must_use]
    pub const fn basis_len(&self) -> u64 {
        self.basis_len
    }

    /// The length of every block but the last, which may be shorter.
    #[must_use]
    pub const fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// The length of [`Signature::encode`]'s result in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        HEADER + self.blocks.len() * self.coder().len()
    }

    /// The length of the encoded signature of a basis in bytes.
    pub(crate) fn encoded_len_of(basis_len: u64, block_size: BlockSize) -> u64 {
        let blocks = block_size.count(basis_len);
        HEADER as u64 + blocks * Coder::new(block_size).len() as u64
    }

    /// Encodes the signature.
    #[expect(
        clippy::missing_panics_doc,
        reason = "writing to a vector has no errors"
    )]
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        self.write(&mut bytes)
            .expect("writing to a vector has no errors");
        bytes
    }

    /// Writes the encoded signature in small pieces: let `out` be buffered.
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        out.write_all(&Artefact::Signature.magic())?;
        out.write_all(&self.block_size.get().to_be_bytes())?;
        out.write_all(&self.seed.0.to_be_bytes())?;
        out.write_all(&self.basis_len.to_be_bytes())?;
        let coder = self.coder();
        self.blocks
            .iter()
            .try_for_each(|block| coder.write(block, &mut out))
    }

    /// Decodes a signature from input that need not be trusted.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if `bytes` is not exactly one signature.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        let len = bytes.len() as u64;
        let signature = Self::decode_from(&mut bytes).map_err(|error| match error {
            ReadError::Malformed(error) => error,
            // A slice has no other errors.
            ReadError::Io(_) => DecodeError::Truncated { len },
        })?;
        match bytes.len() as u64 {
            0 => Ok(signature),
            len => Err(DecodeError::Trailing { len }),
        }
    }

    /// Decodes a signature from a reader that need not be trusted, as it comes, and reads no byte
    /// more: let `input` be buffered.
    ///
    /// Memory: at most five times what has come so far, whatever length is announced. A signature can
    /// have 200 MB: give `input.take(limit)` where that is too much.
    ///
    /// # Errors
    ///
    /// [`ReadError`] says whether the reader failed or what it gave is not a signature.
    pub fn decode_from(input: impl Read) -> Result<Self, ReadError> {
        let mut reader = Reader::new(input);
        check_magic(reader.array()?, Artefact::Signature)?;
        let block_size = BlockSize::try_from(u32::from_be_bytes(reader.array()?))
            .map_err(DecodeError::BlockSize)?;
        let seed = Seed(u64::from_be_bytes(reader.array()?));
        let basis_len = u64::from_be_bytes(reader.array()?);
        let count = block_size.count(basis_len);
        if count > Self::MAX_BLOCKS {
            return Err(DecodeError::TooManyBlocks { count }.into());
        }
        let coder = Coder::new(block_size);
        let mut blocks = Vec::new();
        let last_is_short = !basis_len.is_multiple_of(u64::from(block_size.get()));
        for left in (0..count).rev() {
            let offset = reader.offset();
            let block = coder.read(&mut reader)?;
            if let Mark::Anchor { place, .. } = block.mark
                && left == 0
                && last_is_short
            {
                return Err(DecodeError::Place { place, offset }.into());
            }
            blocks.push(block);
        }
        Ok(Self {
            block_size,
            seed,
            basis_len,
            blocks,
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

    fn coder(&self) -> Coder {
        Coder::new(self.block_size)
    }
}

/// The hashes of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) mark: Mark,
    pub(crate) strong: Strong,
}

/// What a block is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The key of one of its anchors, and where in the block that is.
    Anchor { key: u32, place: NonZeroU16 },
    /// Its weak hash, as it has no anchor.
    Weak(u32),
}

/// How the blocks of a signature are encoded, which depends on their size.
#[derive(Debug, Clone, Copy)]
struct Coder(Option<Layout>);

impl Coder {
    fn new(block_size: BlockSize) -> Self {
        Self(Layout::of(block_size))
    }

    /// The length of an encoded block.
    const fn len(self) -> usize {
        match self.0 {
            Some(_) => 6 + Strong::LEN,
            None => 4 + Strong::LEN,
        }
    }

    fn write(self, block: &Block, out: &mut impl Write) -> io::Result<()> {
        let (number, place) = match block.mark {
            Mark::Anchor { key, place } => (key, place.get()),
            Mark::Weak(weak) => (weak, 0),
        };
        let [a, b, c, d] = number.to_be_bytes();
        let [e, f] = place.to_be_bytes();
        let [g, h, i, j, k, l] = block.strong.to_bytes();
        match self.0 {
            Some(_) => out.write_all(&[a, b, c, d, e, f, g, h, i, j, k, l]),
            None => out.write_all(&[a, b, c, d, g, h, i, j, k, l]),
        }
    }

    fn read(self, reader: &mut Reader<impl Read>) -> Result<Block, ReadError> {
        let (number, place, strong) = match self.0 {
            Some(layout) => {
                let offset = reader.offset();
                let [a, b, c, d, e, f, strong @ ..] = reader.array::<12>()?;
                let place = NonZeroU16::new(u16::from_be_bytes([e, f]));
                let (first, last) = layout.places();
                if let Some(place) = place
                    && !(first..=last).contains(&usize::from(place.get()))
                {
                    return Err(DecodeError::Place { place, offset }.into());
                }
                ([a, b, c, d], place, strong)
            }
            None => {
                let [a, b, c, d, strong @ ..] = reader.array::<10>()?;
                ([a, b, c, d], None, strong)
            }
        };
        let number = u32::from_be_bytes(number);
        Ok(Block {
            mark: match place {
                Some(place) => Mark::Anchor { key: number, place },
                None => Mark::Weak(number),
            },
            strong: Strong::from_bytes(strong),
        })
    }
}

/// The bytes of an encoded signature before its blocks.
const HEADER: usize = 4 + 4 + 8 + 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn block_size_for(block_size: Option<u32>, basis_len: u64) -> u32 {
        let options = SignatureOptions {
            block_size: block_size.map(|size| size.try_into().unwrap()),
            ..SignatureOptions::new(Seed(1))
        };
        options.block_size_for(basis_len).get()
    }

    #[test]
    fn a_long_basis_gets_larger_blocks_than_asked_for() {
        let most = Signature::MAX_BLOCKS;
        assert_eq!(block_size_for(Some(64), 64 * most), 64);
        assert_eq!(block_size_for(Some(64), 64 * most + 1), 128);
        assert_eq!(block_size_for(Some(700), 700 * most + 1), 1400);
        assert_eq!(block_size_for(Some(64), u64::MAX), BlockSize::MAX);
        assert_eq!(
            block_size_for(Some(700_000), 700_000 * most + 1),
            BlockSize::MAX
        );
        assert_eq!(block_size_for(None, u64::MAX), BlockSize::MAX);
    }

    /// Anchors and their keys lie inside a block of full size; the short last one has none.
    #[test]
    fn anchors_are_where_they_can_be() {
        let basis: Vec<u8> = (0..300_000u32)
            .map(|at| {
                at.wrapping_mul(at | 1)
                    .wrapping_mul(0x9E37_79B1)
                    .to_be_bytes()[0]
            })
            .collect();
        for size in [512, 700, 2048, 70_000] {
            let block_size = BlockSize::try_from(size).unwrap();
            let options = SignatureOptions {
                block_size: Some(block_size),
                ..SignatureOptions::new(Seed(1))
            };
            let signature = Signature::of(&basis, options);
            let (first, last) = Layout::of(block_size).unwrap().places();
            let mut places = signature.blocks().iter().map(|block| match block.mark {
                Mark::Anchor { place, .. } => Some(usize::from(place.get())),
                Mark::Weak(_) => None,
            });
            if signature.short_len() > 0 {
                assert_eq!(places.next_back(), Some(None));
            }
            let places: Vec<_> = places.flatten().collect();
            assert!(places.len() * 100 > signature.full_blocks() * 95);
            assert!(places.iter().all(|place| (first..=last).contains(place)));
        }
    }

    /// A basis is not signed otherwise because another length was announced.
    #[test]
    fn the_announced_length_chooses_the_block_size_alone() {
        let basis = [7; 100_000];
        let options = SignatureOptions::new(Seed(1));
        let announced = Signature::read(&basis[..], 1 << 20, options).unwrap();
        assert_eq!(announced.block_size().get(), 1024);
        assert_eq!(announced.basis_len(), 100_000);
        let block_size = Some(announced.block_size());
        let same = Signature::of(
            &basis,
            SignatureOptions {
                block_size,
                ..options
            },
        );
        assert_eq!(announced, same);
    }
}
