//! Anchors: places that the content itself chooses, the same wherever the content has moved.
//!
//! At every position of some bytes stands a *gram*, the next four bytes. The position is *selected*
//! if a multiplicative hash of the gram is below a threshold, and it is an *anchor* if none of the
//! sixteen positions before it is selected. So what is an anchor depends on nothing but the twenty
//! bytes around it, and a block has the same anchors wherever it stands, but for those of its first
//! sixteen positions, which are not counted. An anchor's *key* is a seeded hash of the 64 bytes that
//! begin at it.
//!
//! A signature gives for each block the key and the place of one anchor. To find the block in a
//! target it is enough to look up the keys of the target's anchors, one position in hundreds, where
//! a rolling hash has to be looked up at every one. The choice of places by content goes back to
//! Manber ("Finding similar files in a large file system", 1994) and LBFS (2001).

use crate::{
    BlockSize, Seed,
    simd::{Selector, WORD, Word},
};

/// How many bytes a key is computed of.
pub(crate) const KEY_LEN: usize = 64;

/// How far before an anchor no other position is selected.
pub(crate) const ISOLATION: usize = 16;

/// The least block size with anchors. In smaller blocks they would have to be so dense that rolling
/// costs no more.
const LEAST: u32 = 512;

/// How many anchors a block of noise has on average. With eight, one block in 2000 has none.
const PER_BLOCK: usize = 8;

/// Where in a block its anchor may be, and how dense anchors are: both follow from the block size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Anchors and the bytes of their keys lie within so many bytes from the start of the block.
    reach: usize,
}

impl Layout {
    /// The layout for blocks of this size, or `None` if they have no anchors.
    pub(crate) fn of(block_size: BlockSize) -> Option<Self> {
        (block_size.get() >= LEAST).then(|| Self {
            reach: block_size.len().min(REACH_MAX),
        })
    }

    /// The first and the last place in a block where its anchor may be.
    pub(crate) const fn places(self) -> (usize, usize) {
        (ISOLATION, self.reach - KEY_LEN)
    }

    /// What finds the anchors.
    pub(crate) fn finder(self) -> Finder {
        Finder {
            selector: Selector::one_in(self.reach / PER_BLOCK),
            words: [Word::default(); STEP / WORD],
            anchors: [0; ANCHORS],
            before: None,
        }
    }
}

/// Finds the anchors of content that passes by.
#[derive(Debug, Clone)]
pub(crate) struct Finder {
    selector: Selector,
    words: [Word; STEP / WORD],
    anchors: [u16; ANCHORS],
    /// The positions selected in the word before; `None` at the beginning.
    before: Option<u64>,
}

/// How many positions are searched at a time at most.
pub(crate) const STEP: usize = 4096;

/// How many anchors a step has at most: they are more than [`ISOLATION`] positions apart.
pub(crate) const ANCHORS: usize = STEP / ISOLATION;

impl Finder {
    /// Begins anew: the content that follows has nothing before it.
    pub(crate) const fn restart(&mut self) {
        self.before = None;
    }

    /// Finds the anchors among the next `count` positions, at most [`STEP`], which are the first of
    /// `bytes`. Another step can follow if `count` is a multiple of [`WORD`].
    ///
    /// # Panics
    ///
    /// Panics if the gram of the last position ends behind `bytes`.
    #[inline]
    pub(crate) fn find(&mut self, bytes: &[u8], count: usize) -> &[u16] {
        // Whether the first positions are anchors depends on bytes before, which are not there.
        let mut before = self.before.unwrap_or(!0);
        let mut next = 0;
        let mut found = 0;
        for word in self.selector.select(bytes, count, &mut self.words) {
            if usize::from(word.start) != next {
                before = 0;
            }
            let mut anchors = isolated(before, word.bits);
            while anchors != 0 {
                #[expect(clippy::cast_possible_truncation, reason = "it is below 64")]
                let bit = anchors.trailing_zeros() as u16;
                anchors &= anchors - 1;
                self.anchors[found % ANCHORS] = word.start + bit;
                found += 1;
            }
            before = word.bits;
            next = usize::from(word.start) + WORD;
        }
        self.before = Some(if next == count { before } else { 0 });
        &self.anchors[..found]
    }
}

/// Places must fit two bytes, with one value left to say that there is none.
const REACH_MAX: usize = 1 << 16;

/// Computes the keys of anchors under one seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys([u64; 8]);

impl Keys {
    pub(crate) const fn new(Seed(seed): Seed) -> Self {
        // SplitMix64 (Steele, Lea and Flood 2014), from the seed on.
        let mut words = [0; 8];
        let mut state = seed;
        let mut at = 0;
        while at < words.len() {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            words[at] = word ^ (word >> 31);
            at += 1;
        }
        Self(words)
    }

    /// The key of an anchor: products of 128 bits, folded, as wyhash does.
    #[inline]
    pub(crate) fn of(self, bytes: &[u8; KEY_LEN]) -> u32 {
        let word = |at: usize| {
            let (words, _) = bytes.as_chunks::<8>();
            u64::from_le_bytes(words[at]) ^ self.0[at]
        };
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            #[expect(clippy::cast_possible_truncation, reason = "it is one half of two")]
            let low = product as u64;
            let high = (product >> 64) as u64;
            low ^ high
        };
        let both = (0..4).fold(0u64, |both, at| {
            both.rotate_left(23) ^ fold(word(2 * at), word(2 * at + 1))
        });
        (both.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
    }
}

/// Takes from the positions selected in one word those that are anchors; `before` are the positions
/// selected in the word before.
#[inline]
pub(crate) const fn isolated(before: u64, selected: u64) -> u64 {
    let both = (selected as u128) << 64 | before as u128;
    let mut near = both << 1;
    near |= near << 1;
    near |= near << 2;
    near |= near << 4;
    near |= near << 8;
    selected & !((near >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn anchors_have_no_selected_position_shortly_before(
            before in any::<u64>(),
            selected in any::<u64>(),
            sparse in any::<u64>(),
        ) {
            let selected = selected & sparse & sparse.rotate_left(7) & sparse.rotate_left(19);
            let is_selected = |position: usize| match position {
                0..64 => before >> position & 1 == 1,
                _ => selected >> (position - 64) & 1 == 1,
            };
            for position in 64..128 {
                let expected = is_selected(position)
                    && !(position - ISOLATION..position).any(is_selected);
                prop_assert_eq!(isolated(before, selected) >> (position - 64) & 1 == 1, expected);
            }
        }
    }

    #[test]
    fn keys_depend_on_every_byte_and_on_the_seed() {
        let keys = Keys::new(Seed(1));
        let bytes = std::array::from_fn(|at| u8::try_from(at).unwrap());
        for at in 0..KEY_LEN {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert_ne!(keys.of(&changed), keys.of(&bytes), "byte {at}");
        }
        assert_ne!(Keys::new(Seed(2)).of(&bytes), keys.of(&bytes));
    }
}
