//! What a search knows of the basis.

use std::sync::OnceLock;

use super::Match;
use crate::{
    Signature,
    anchor::Keys,
    index::{Marks, Strongs},
    signature::Mark,
    strong::{Strong, StrongHasher},
    weak::Weak,
};

/// A signature with what it takes to find its blocks; searches in several threads share it.
#[derive(Debug)]
pub(crate) struct Blocks<'s> {
    pub(super) signature: &'s Signature,
    pub(super) hasher: StrongHasher,
    pub(super) keys: Keys,
    /// Made when they are first needed, which for an unchanged target they aren't.
    strongs: OnceLock<Strongs<'s>>,
    marks: OnceLock<Marks<'s>>,
}

impl<'s> Blocks<'s> {
    pub(crate) fn new(signature: &'s Signature) -> Self {
        Self {
            signature,
            hasher: StrongHasher::new(signature.seed()),
            keys: Keys::new(signature.seed()),
            strongs: OnceLock::new(),
            marks: OnceLock::new(),
        }
    }

    pub(crate) const fn block_len(&self) -> usize {
        self.signature.block_size().len()
    }

    pub(super) fn marks(&self) -> &Marks<'s> {
        self.marks.get_or_init(|| Marks::new(self.signature))
    }

    /// The places of this key in a few blocks from this one on.
    pub(super) fn places_near(&self, block: usize, key: u32) -> impl Iterator<Item = usize> {
        let blocks = self.signature.blocks().iter().skip(block).take(LIKELIEST);
        blocks.filter_map(move |block| match block.mark {
            Mark::Anchor { key: other, place } if other == key => Some(usize::from(place.get())),
            _ => None,
        })
    }

    /// The full-sized block that has this strong hash, which is that of `bytes`, and the mark of which
    /// is in them too: 48 bits alone are few where they are compared with those of all blocks.
    pub(super) fn find(&self, strong: Strong, bytes: &[u8]) -> Option<usize> {
        let strongs = self.strongs.get_or_init(|| Strongs::new(self.signature));
        let found = strongs.find(strong)?;
        let has_mark = match self.signature.blocks()[found].mark {
            Mark::Anchor { key, place } => bytes[usize::from(place.get())..]
                .first_chunk()
                .is_some_and(|bytes| self.keys.of(bytes) == key),
            Mark::Weak(weak) => Weak::of(bytes).digest() == weak,
        };
        has_mark.then_some(found)
    }

    /// Whether the basis' block is what `bytes` begin with, and how long it is.
    #[inline]
    pub(crate) fn test(&self, block: usize, bytes: &[u8]) -> Option<usize> {
        let strong = self.signature.blocks().get(block)?.strong;
        let len = if block < self.signature.full_blocks() {
            self.block_len()
        } else {
            self.signature.short_len()
        };
        (self.hasher.hash(bytes.get(..len)?) == strong).then_some(len)
    }

    /// The block that begins at this place of the basis, if `bytes` begin with it.
    pub(crate) fn at_offset(&self, offset: u64, bytes: &[u8]) -> Option<Match> {
        let block_len = self.block_len() as u64;
        let block = usize::try_from(offset / block_len).ok()?;
        let len = self
            .test(block, bytes)
            .filter(|_| offset.is_multiple_of(block_len))?;
        Some(Match { at: 0, offset, len })
    }

    pub(crate) const fn offset(&self, block: usize) -> u64 {
        block as u64 * self.signature.block_size().get() as u64
    }
}

/// How many blocks from the expected one on are looked for whatever else has the same key: where text
/// repeats itself, more blocks may have one than are tried.
const LIKELIEST: usize = 4;
