//! From hashes to the blocks that have them.

use crate::{Signature, signature::Mark, strong::Strong};

/// The full-sized blocks of a signature, found by their hashes.
///
/// However the hashes in a signature were chosen, a look-up takes a bounded number of steps: what
/// would take more to find is not found, and costs its sender literals.
#[derive(Debug)]
pub(crate) struct Index {
    strong: Table,
    anchors: Anchors,
    filter: Filter,
    /// The weak hashes that the filter knows, in their order.
    weak: Vec<u32>,
}

impl Index {
    pub(crate) fn new(signature: &Signature) -> Self {
        let blocks = &signature.blocks()[..signature.full_blocks()];
        let is_weak = |mark| matches!(mark, Mark::Weak(_));
        let weak_count = blocks.iter().filter(|block| is_weak(block.mark)).count();
        let mut index = Self {
            strong: Table::new(blocks.len()),
            anchors: Anchors::new(blocks.len() - weak_count),
            filter: Filter::new(weak_count),
            weak: Vec::with_capacity(weak_count),
        };
        for (number, block) in (0u32..).zip(blocks) {
            let is_first = index.strong.insert(block.strong.get(), number, |other| {
                blocks[other as usize].strong == block.strong
            });
            if is_first {
                match block.mark {
                    Mark::Anchor { key, place } => index.anchors.insert(key, place.get()),
                    Mark::Weak(weak) => {
                        index.filter.insert(weak);
                        index.weak.push(weak);
                    }
                }
            }
        }
        index.weak.sort_unstable();
        index
    }

    /// The first block that has this strong hash.
    pub(crate) fn block(&self, signature: &Signature, strong: Strong) -> Option<usize> {
        let blocks = signature.blocks();
        let found = self.strong.find(strong.get(), |block| {
            blocks[block as usize].strong == strong
        });
        found.map(|block| block as usize)
    }

    /// Whether an anchor may have this key; `false` is certain.
    #[inline]
    pub(crate) fn may_have_anchor(&self, key: u32) -> bool {
        self.anchors.may_have(key)
    }

    /// The places in blocks where an anchor with this key stands.
    #[inline]
    pub(crate) fn places(&self, key: u32) -> impl Iterator<Item = usize> {
        self.anchors.places(key)
    }

    /// Whether any block has no anchor.
    pub(crate) const fn has_weak(&self) -> bool {
        !self.weak.is_empty()
    }

    /// Whether a block without anchor has this weak hash.
    ///
    /// The filter lets about one in a hundred through that none has. A strong hash for each would be
    /// more than the search allows itself: a hundredth of a large block, for every byte.
    #[inline(always)]
    pub(crate) fn may_have(&self, weak: u32) -> bool {
        self.filter.may_have(weak) && self.has(weak)
    }

    #[inline(never)]
    fn has(&self, weak: u32) -> bool {
        self.weak.binary_search(&weak).is_ok()
    }
}

/// How many slots of a table are looked at before giving up. At a load of a half, honest hashes make
/// no run so long.
const PROBES: usize = 64;

/// A hash table of blocks with linear probing.
#[derive(Debug)]
struct Table {
    /// The low half of a hash, and the block's number plus one; or 0.
    slots: Vec<u64>,
    shift: u32,
}

impl Table {
    fn new(count: usize) -> Self {
        let bits = slot_bits(count);
        Self {
            slots: vec![0; 1 << bits],
            shift: u64::BITS - bits,
        }
    }

    /// Puts the block in and says so, unless an equal one is in, or there is no place for it.
    fn insert(&mut self, hash: u64, block: u32, is_equal: impl Fn(u32) -> bool) -> bool {
        for slot in probe(hash, self.shift, self.slots.len()) {
            match unpack(self.slots[slot]) {
                None => {
                    self.slots[slot] = pack(hash, block);
                    return true;
                }
                Some((tag, other)) if tag == low(hash) && is_equal(other) => return false,
                Some(_) => {}
            }
        }
        false
    }

    fn find(&self, hash: u64, is_equal: impl Fn(u32) -> bool) -> Option<u32> {
        for slot in probe(hash, self.shift, self.slots.len()) {
            let (tag, block) = unpack(self.slots[slot])?;
            if tag == low(hash) && is_equal(block) {
                return Some(block);
            }
        }
        None
    }
}

/// At most so many places are tried for one key, each at the price of a strong hash.
const PLACES: usize = 8;

/// The keys of anchors with their places; a pair that several blocks share is there once.
#[derive(Debug)]
struct Anchors {
    /// One bit a key, for sixteen times as many bits as keys: turns nearly all foreign keys away
    /// from memory that the second-level cache holds.
    filter: Vec<u64>,
    filter_shift: u32,
    /// A key, and its place plus one; or 0.
    slots: Vec<u64>,
    shift: u32,
}

impl Anchors {
    fn new(count: usize) -> Self {
        let bits = slot_bits(count);
        // Eight bits for each of the at least two slots that a key has, and at least one word.
        let filter_bits = (bits + 3).max(6);
        Self {
            filter: vec![0; 1 << (filter_bits - 6)],
            filter_shift: u32::BITS - filter_bits.min(u32::BITS - 1),
            slots: vec![0; 1 << bits],
            shift: u64::BITS - bits,
        }
    }

    fn insert(&mut self, key: u32, place: u16) {
        let mut others = 0;
        for slot in probe(u64::from(key), self.shift, self.slots.len()) {
            match unpack(self.slots[slot]) {
                None => {
                    self.slots[slot] = pack(u64::from(key), u32::from(place));
                    let (word, bit) = self.filter_place(key);
                    self.filter[word] |= bit;
                    return;
                }
                Some((other, _)) if other != key => {}
                Some((_, other)) if other == u32::from(place) => return,
                Some(_) => others += 1,
            }
            if others == PLACES {
                return;
            }
        }
    }

    #[inline]
    fn may_have(&self, key: u32) -> bool {
        let (word, bit) = self.filter_place(key);
        self.filter[word] & bit != 0
    }

    fn places(&self, key: u32) -> impl Iterator<Item = usize> {
        probe(u64::from(key), self.shift, self.slots.len())
            .map_while(|slot| unpack(self.slots[slot]))
            .filter_map(move |(other, place)| (other == key).then_some(place as usize))
    }

    #[inline]
    fn filter_place(&self, key: u32) -> (usize, u64) {
        let bit = key.wrapping_mul(0x85EB_CA6B) >> self.filter_shift;
        ((bit / u64::BITS) as usize, 1 << (bit % u64::BITS))
    }
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

const fn pack(hash: u64, number: u32) -> u64 {
    hash << 32 | (number as u64 + 1)
}

/// The low half of the hash, and the number.
#[inline]
fn unpack(slot: u64) -> Option<(u32, u32)> {
    let number = low(slot).checked_sub(1)?;
    Some((low(slot >> 32), number))
}

#[expect(clippy::cast_possible_truncation, reason = "it is the low half")]
const fn low(number: u64) -> u32 {
    number as u32
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
            let index = Index::new(&signature);
            let mut anchored = 0;
            for (number, block) in signature.blocks().iter().enumerate() {
                assert_eq!(index.block(&signature, block.strong), Some(number));
                match block.mark {
                    Mark::Anchor { key, place } => {
                        anchored += 1;
                        assert!(
                            index
                                .places(key)
                                .any(|found| found == usize::from(place.get()))
                        );
                    }
                    Mark::Weak(weak) => assert!(index.has_weak() && index.may_have(weak)),
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
        let index = Index::new(&signature);
        let strong = |block: usize| signature.blocks()[block].strong;
        assert_eq!(index.block(&signature, strong(2)), Some(0));
        assert_eq!(index.block(&signature, strong(3)), None);
    }

    #[test]
    fn an_empty_basis_has_an_index() {
        for (basis, block_size) in [(0, 64), (0, 512), (63, 64), (511, 512)] {
            let signature = signature(&noise(basis), block_size);
            let index = Index::new(&signature);
            assert!(!index.has_weak() && !index.may_have(0));
            assert_eq!(index.places(0).count(), 0);
            let strong = Strong::from_bytes([0; 6]);
            assert_eq!(index.block(&signature, strong), None);
        }
    }

    #[test]
    fn the_filters_let_few_foreign_hashes_through() {
        let hashes = |range: std::ops::Range<u32>| {
            range.map(|number| number.wrapping_mul(number | 1).wrapping_mul(0x9E37_79B1))
        };
        // As many for each word and each slot as there can be.
        for count in [1 << 10, (1 << 12) - 1, 1 << 16] {
            let mut filter = Filter::new(count as usize);
            let mut anchors = Anchors::new(count as usize);
            for hash in hashes(0..count) {
                filter.insert(hash);
                anchors.insert(hash, 16);
            }
            assert!(hashes(0..count).all(|hash| filter.may_have(hash) && anchors.may_have(hash)));
            let foreign = || hashes(1 << 20..2 << 20);
            let share = |through: usize| through * 1000 / (1 << 20);
            let weak = share(foreign().filter(|hash| filter.may_have(*hash)).count());
            assert!(weak < 12, "{weak} of 1000");
            let keys = share(foreign().filter(|hash| anchors.may_have(*hash)).count());
            assert!(keys < 65, "{keys} of 1000");
        }
    }

    #[test]
    fn many_places_of_one_key_are_cut() {
        let mut anchors = Anchors::new(1000);
        for place in 16..1016 {
            anchors.insert(7, place);
        }
        assert_eq!(
            anchors.places(7).collect::<Vec<_>>(),
            Vec::from_iter(16..24)
        );
        assert_eq!(anchors.places(8).count(), 0);
    }

    #[test]
    fn hashes_made_for_one_slot_end_the_search() {
        let mut table = Table::new(1000);
        // The inverse of the spreading factor makes hashes that spread to small numbers.
        let inverse = 0xF1DE_83E1_9937_733D_u64;
        assert_eq!(inverse.wrapping_mul(0x9E37_79B9_7F4A_7C15), 1);
        for number in 0..1000u32 {
            table.insert(inverse.wrapping_mul(u64::from(number)), number, |_| false);
        }
        let taken = table.slots.iter().filter(|slot| **slot != 0).count();
        assert_eq!(taken, PROBES);
    }
}
