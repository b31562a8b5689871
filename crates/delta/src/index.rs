//! From hashes to the blocks that have them.

use crate::{
    Signature,
    signature::{Block, Mark},
    strong::Strong,
};

/// The full-sized blocks of a signature, found by their strong hashes.
///
/// However the hashes in a signature were chosen, a look-up takes a bounded number of steps, here and
/// in [`Marks`]: what would take more to find is not found, and costs its sender literals.
#[derive(Debug)]
pub(crate) struct Strongs<'s> {
    blocks: &'s [Block],
    table: Table,
}

impl<'s> Strongs<'s> {
    pub(crate) fn new(signature: &'s Signature) -> Self {
        let blocks = full_blocks(signature);
        let mut table = Table::new(blocks.len());
        for (number, block) in (0u32..).zip(blocks) {
            table.insert(block.strong.get(), number, |other| {
                match blocks[other].strong == block.strong {
                    true => Step::Stop,
                    false => Step::Pass,
                }
            });
        }
        Self { blocks, table }
    }

    /// The first block that has this strong hash.
    pub(crate) fn find(&self, strong: Strong) -> Option<usize> {
        let mut candidates = self.table.candidates(strong.get());
        candidates.find(|block| self.blocks[*block].strong == strong)
    }
}

/// The full-sized blocks of a signature, found by what marks them.
#[derive(Debug)]
pub(crate) struct Marks<'s> {
    blocks: &'s [Block],
    anchors: Table,
    /// One bit a key, for sixteen times as many bits as keys at least: turns nearly all foreign keys
    /// away from memory that the second-level cache holds.
    keys: Vec<u64>,
    keys_shift: u32,
    filter: Filter,
    /// The blocks without anchor, by their weak hashes.
    weak: Table,
    has_weak: bool,
}

impl<'s> Marks<'s> {
    pub(crate) fn new(signature: &'s Signature) -> Self {
        let blocks = full_blocks(signature);
        let is_weak = |block: &&Block| matches!(block.mark, Mark::Weak(_));
        let weak_count = blocks.iter().filter(is_weak).count();
        let anchor_count = blocks.len() - weak_count;
        // At least one word.
        let key_bits = (slot_bits(anchor_count) + 3).clamp(6, u32::BITS - 1);
        let mut marks = Self {
            blocks,
            anchors: Table::new(anchor_count),
            keys: vec![0; 1 << (key_bits - 6)],
            keys_shift: u32::BITS - key_bits,
            filter: Filter::new(weak_count),
            weak: Table::new(weak_count),
            has_weak: weak_count > 0,
        };
        for (number, block) in (0u32..).zip(blocks) {
            match block.mark {
                Mark::Anchor { key, .. } => marks.insert_anchor(key, number, block.mark),
                Mark::Weak(weak) => {
                    marks.filter.insert(weak);
                    marks.weak.insert(u64::from(weak), number, |other| {
                        match blocks[other].mark == block.mark {
                            true => Step::Stop,
                            false => Step::Pass,
                        }
                    });
                }
            }
        }
        marks
    }

    fn insert_anchor(&mut self, key: u32, number: u32, mark: Mark) {
        let mut places = 0;
        let is_in = self.anchors.insert(u64::from(key), number, |other| {
            let other = self.blocks[other].mark;
            if matches!(other, Mark::Anchor { key: other, .. } if other == key) {
                places += 1;
            }
            match other == mark || places == PLACES {
                true => Step::Stop,
                false => Step::Pass,
            }
        });
        if is_in {
            let (word, bit) = self.key_bit(key);
            self.keys[word] |= bit;
        }
    }

    /// Whether an anchor may have this key; `false` is certain.
    #[inline]
    pub(crate) fn may_have_anchor(&self, key: u32) -> bool {
        let (word, bit) = self.key_bit(key);
        self.keys[word] & bit != 0
    }

    #[inline]
    fn key_bit(&self, key: u32) -> (usize, u64) {
        let bit = key.wrapping_mul(0x85EB_CA6B) >> self.keys_shift;
        ((bit / u64::BITS) as usize, 1 << (bit % u64::BITS))
    }

    /// The places in blocks where an anchor with this key stands.
    pub(crate) fn places(&self, key: u32) -> impl Iterator<Item = usize> {
        let candidates = self.anchors.candidates(u64::from(key));
        candidates.filter_map(move |block| match self.blocks[block].mark {
            Mark::Anchor { key: other, place } if other == key => Some(usize::from(place.get())),
            _ => None,
        })
    }

    /// Whether any block has no anchor.
    pub(crate) const fn has_weak(&self) -> bool {
        self.has_weak
    }

    /// Whether a block without anchor may have this weak hash; `false` is certain, and `true` is wrong
    /// about one time in a hundred.
    #[inline(always)]
    pub(crate) fn may_have_weak(&self, weak: u32) -> bool {
        self.filter.may_have(weak)
    }

    /// Whether a block without anchor has this weak hash.
    pub(crate) fn has_weak_hash(&self, weak: u32) -> bool {
        let mut candidates = self.weak.candidates(u64::from(weak));
        candidates.any(|block| self.blocks[block].mark == Mark::Weak(weak))
    }
}

fn full_blocks(signature: &Signature) -> &[Block] {
    &signature.blocks()[..signature.full_blocks()]
}

/// At most so many places are tried for one key, each at the price of a strong hash.
const PLACES: usize = 16;

/// How many slots of a table are looked at before giving up. At a load of a half, honest hashes make
/// no run so long.
const PROBES: usize = 64;

/// A hash table of blocks with linear probing.
#[derive(Debug)]
struct Table {
    /// Eight bits of a hash, and 24 of a block's number plus one; or 0.
    slots: Vec<u32>,
    shift: u32,
}

/// What a block that is in already means for one that shall be put in.
enum Step {
    Pass,
    Stop,
}

impl Table {
    fn new(count: usize) -> Self {
        let bits = slot_bits(count);
        Self {
            slots: vec![0; 1 << bits],
            shift: u64::BITS - bits,
        }
    }

    /// Puts a block in and says so, unless one that may be equal stops it, or there is no place.
    fn insert(&mut self, hash: u64, block: u32, mut step: impl FnMut(usize) -> Step) -> bool {
        // The number of the last block of the longest signature is one too large.
        if block >= NUMBER {
            return false;
        }
        for slot in probe(hash, self.shift, self.slots.len()) {
            let taken = self.slots[slot];
            if taken == 0 {
                self.slots[slot] = tag(hash) | (block + 1);
                return true;
            }
            if taken & !NUMBER == tag(hash)
                && let Step::Stop = step((taken & NUMBER) as usize - 1)
            {
                return false;
            }
        }
        false
    }

    /// The blocks that may have this hash: eight bits of it are the same.
    #[inline]
    fn candidates(&self, hash: u64) -> impl Iterator<Item = usize> {
        probe(hash, self.shift, self.slots.len())
            .map(|slot| self.slots[slot])
            .take_while(|slot| *slot != 0)
            .filter(move |slot| slot & !NUMBER == tag(hash))
            .map(|slot| (slot & NUMBER) as usize - 1)
    }
}

/// The bits of a slot that are the number of a block.
const NUMBER: u32 = (1 << 24) - 1;

/// Eight bits of a hash that its first slot doesn't depend on much, where a slot has them.
#[inline]
fn tag(hash: u64) -> u32 {
    let [.., low, _, _, _] = spread(hash).to_be_bytes();
    u32::from(low) << 24
}

/// A blocked Bloom filter of weak hashes.
#[derive(Debug)]
struct Filter {
    words: Vec<u64>,
    shift: u32,
}

/// Four blocks to a word of three bits each let about one foreign hash in a hundred through.
const BLOCKS_PER_WORD: usize = 4;

impl Filter {
    fn new(count: usize) -> Self {
        // At least one bit, as a shift by the whole width is an overflow.
        let bits = (count / BLOCKS_PER_WORD).next_power_of_two().ilog2().max(1);
        Self {
            words: vec![0; 1 << bits],
            shift: u64::BITS - bits,
        }
    }

    fn insert(&mut self, weak: u32) {
        let (word, mask) = self.place(weak);
        self.words[word] |= mask;
    }

    #[inline(always)]
    fn may_have(&self, weak: u32) -> bool {
        let (word, mask) = self.place(weak);
        self.words[word] & mask == mask
    }

    /// A word of the filter and three bits in it (Putze, Sanders and Singler, "Cache-, hash- and
    /// space-efficient Bloom filters", 2007).
    #[inline(always)]
    fn place(&self, weak: u32) -> (usize, u64) {
        let hash = spread(u64::from(weak));
        let bit = |at: u32| 1 << (hash >> at & 63);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the shift leaves fewer bits than the filter has words"
        )]
        let word = (hash >> self.shift) as usize;
        (word, bit(8) | bit(16) | bit(24))
    }
}

/// How many slots hold `count` entries at a load of at most a half, as a power of two.
const fn slot_bits(count: usize) -> u32 {
    // At least one bit, as a shift by the whole width is an overflow.
    (2 * count + 2).next_power_of_two().ilog2()
}

/// The slots where an entry with this hash may be, in a table of `len` slots.
#[inline]
fn probe(hash: u64, shift: u32, len: usize) -> impl Iterator<Item = usize> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the shift leaves fewer bits than the table has slots"
    )]
    let first = (spread(hash) >> shift) as usize;
    (first..first + PROBES.min(len)).map(move |slot| slot & (len - 1))
}

/// Spreads a hash over the high bits; one to one.
#[inline(always)]
const fn spread(hash: u64) -> u64 {
    hash.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockSize, Seed, SignatureOptions};

    fn signature(basis: &[u8], block_size: u32) -> Signature {
        let options = SignatureOptions {
            block_size: Some(BlockSize::try_from(block_size).unwrap()),
            ..SignatureOptions::new(Seed(1))
        };
        Signature::of(basis, options)
    }

    fn noise(len: u32) -> Vec<u8> {
        let bytes = (0..len).map(|at| {
            at.wrapping_mul(at | 1)
                .wrapping_mul(0x9E37_79B1)
                .to_be_bytes()[0]
        });
        bytes.collect()
    }

    #[test]
    fn blocks_are_found_by_what_they_have() {
        for block_size in [64, 512, 2048] {
            let signature = signature(&noise(1 << 20), block_size);
            let (strongs, marks) = (Strongs::new(&signature), Marks::new(&signature));
            let mut anchored = 0;
            for (number, block) in signature.blocks().iter().enumerate() {
                assert_eq!(strongs.find(block.strong), Some(number));
                match block.mark {
                    Mark::Anchor { key, place } => {
                        anchored += 1;
                        assert!(
                            marks
                                .places(key)
                                .any(|found| found == usize::from(place.get()))
                        );
                    }
                    Mark::Weak(weak) => {
                        assert!(marks.may_have_weak(weak) && marks.has_weak_hash(weak));
                    }
                }
            }
            let share = anchored * 100 / signature.blocks().len();
            assert!(
                if block_size < 512 {
                    share == 0
                } else {
                    share > 95
                },
                "{share} %"
            );
        }
    }

    #[test]
    fn equal_blocks_are_the_first_of_them_and_the_short_one_is_not_in() {
        let basis = [[1; 64], [2; 64], [1; 64], [1; 64]].concat();
        let signature = signature(&basis[..250], 64);
        let strongs = Strongs::new(&signature);
        let strong = |block: usize| signature.blocks()[block].strong;
        assert_eq!(strongs.find(strong(2)), Some(0));
        assert_eq!(strongs.find(strong(3)), None);
    }

    #[test]
    fn an_empty_basis_has_an_index() {
        for (basis, block_size) in [(0, 64), (0, 512), (63, 64), (511, 512)] {
            let signature = signature(&noise(basis), block_size);
            let (strongs, marks) = (Strongs::new(&signature), Marks::new(&signature));
            assert!(!marks.has_weak() && !marks.may_have_weak(0) && !marks.has_weak_hash(0));
            assert_eq!(marks.places(0).count(), 0);
            assert_eq!(strongs.find(Strong::from_bytes([0; 6])), None);
        }
    }

    #[test]
    fn the_filters_let_few_foreign_hashes_through() {
        let foreign = |salt: u32| {
            (0..1u32 << 18).map(move |number| {
                let number = number.wrapping_add(salt);
                number.wrapping_mul(number | 1).wrapping_mul(0x9E37_79B1) ^ number << 7
            })
        };
        let share = |through: usize| through * 1000 / (1 << 18);
        // As many for each word and each slot as there can be.
        for count in [1 << 10, (1 << 12) - 1, 1 << 14] {
            let small = signature(&noise(count * 64), 64);
            let marks = Marks::new(&small);
            let weak = foreign(1).filter(|hash| marks.may_have_weak(*hash));
            let weak = share(weak.count());
            assert!(weak < 15, "{weak} of 1000");
            let large = signature(&noise(count * 512), 512);
            let marks = Marks::new(&large);
            let keys = foreign(2).filter(|hash| marks.may_have_anchor(*hash));
            let keys = share(keys.count());
            assert!(keys < 65, "{keys} of 1000");
        }
    }

    #[test]
    fn many_places_of_one_key_are_cut() {
        let mut encoded = signature(&noise(1 << 20), 1024).encode();
        for (place, block) in (16u16..).zip(encoded[24..].chunks_mut(12)) {
            block[..4].copy_from_slice(&7u32.to_be_bytes());
            block[4..6].copy_from_slice(&(place % 500 + 16).to_be_bytes());
        }
        let signature = Signature::decode(&encoded).unwrap();
        let marks = Marks::new(&signature);
        assert_eq!(marks.places(7).collect::<Vec<_>>(), Vec::from_iter(32..48));
        assert_eq!(marks.places(8).count(), 0);
    }

    #[test]
    fn hashes_made_for_one_slot_end_the_search() {
        let mut table = Table::new(1000);
        // The inverse of the spreading factor makes hashes that spread to small numbers.
        let inverse = 0xF1DE_83E1_9937_733D_u64;
        assert_eq!(inverse.wrapping_mul(0x9E37_79B9_7F4A_7C15), 1);
        for number in 0..1000u32 {
            table.insert(inverse.wrapping_mul(u64::from(number)), number, |_| {
                Step::Pass
            });
        }
        let taken = table.slots.iter().filter(|slot| **slot != 0).count();
        assert_eq!(taken, PROBES);
    }

    #[test]
    fn the_last_block_of_the_longest_signature_does_no_harm() {
        let mut table = Table::new(10);
        let last = u32::try_from(Signature::MAX_BLOCKS - 1).unwrap();
        assert!(!table.insert(1, last, |_| Step::Pass));
        assert!(table.insert(1, last - 1, |_| Step::Pass));
        assert_eq!(table.candidates(1).collect::<Vec<_>>(), [last as usize - 1]);
    }
}
