//! From a weak hash to the blocks that have it.

use crate::{Signature, strong::Strong};

/// The full-sized blocks of a signature, found by their hashes.
///
/// A Bloom filter turns nearly every foreign weak hash away with one load. Behind it stands a sorted
/// table with a directory over the high bits, not a hash table: however the hashes in a signature
/// were chosen, a look-up takes a logarithm of steps, so a hostile signature can't make it slow.
#[derive(Debug)]
pub(crate) struct Index {
    filter: Vec<u64>,
    filter_shift: u32,
    /// `entries[directory[n]..directory[n + 1]]` are those whose keys have the high bits `n`.
    directory: Vec<u32>,
    directory_shift: u32,
    entries: Vec<Entry>,
}

/// A block; blocks with equal hashes are one entry, the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    key: u32,
    strong: Strong,
    block: u32,
}

impl Index {
    pub(crate) fn new(signature: &Signature) -> Self {
        let blocks = &signature.blocks()[..signature.full_blocks()];
        let mut entries: Vec<Entry> = (0u32..)
            .zip(blocks)
            .map(|(block, hashes)| Entry {
                key: key(hashes.weak),
                strong: hashes.strong,
                block,
            })
            .collect();
        entries.sort_unstable();
        entries.dedup_by_key(|entry| (entry.key, entry.strong));

        // At least one bit each, as a shift by the whole width is an overflow.
        let directory_bits = entries.len().next_power_of_two().ilog2().max(1);
        let directory_shift = u32::BITS - directory_bits;
        let directory = (0..=1u64 << directory_bits)
            .map(|high| {
                let below =
                    entries.partition_point(|entry| u64::from(entry.key) < high << directory_shift);
                u32::try_from(below).unwrap_or(u32::MAX)
            })
            .collect();

        let filter_bits = (entries.len() / BLOCKS_PER_WORD)
            .next_power_of_two()
            .ilog2()
            .max(1);
        let filter_shift = u64::BITS - filter_bits;
        let mut filter = vec![0; 1 << filter_bits];
        for hashes in blocks {
            let (word, mask) = filter_place(hashes.weak, filter_shift);
            filter[word] |= mask;
        }
        Self {
            filter,
            filter_shift,
            directory,
            directory_shift,
            entries,
        }
    }

    /// Whether a block may have this weak hash; `false` is certain.
    #[inline(always)]
    pub(crate) fn may_have(&self, weak: u32) -> bool {
        let (word, mask) = filter_place(weak, self.filter_shift);
        self.filter[word] & mask == mask
    }

    /// The blocks that have this weak hash, by their strong hash.
    pub(crate) fn candidates(&self, weak: u32) -> &[Entry] {
        let key = key(weak);
        let bucket = (key >> self.directory_shift) as usize;
        let (start, end) = (self.directory[bucket], self.directory[bucket + 1]);
        let bucket = &self.entries[start as usize..end as usize];
        let from = bucket.partition_point(|entry| entry.key < key);
        let candidates = &bucket[from..];
        &candidates[..candidates.partition_point(|entry| entry.key == key)]
    }
}

/// The block among `candidates` that has this strong hash too.
pub(crate) fn find(candidates: &[Entry], strong: Strong) -> Option<usize> {
    let found = candidates.binary_search_by_key(&strong, |entry| entry.strong);
    found.ok().map(|at| candidates[at].block as usize)
}

/// Four blocks to a word of three bits each let about one foreign hash in a hundred through.
const BLOCKS_PER_WORD: usize = 4;

/// Spreads a weak hash over its high bits; one to one.
#[inline(always)]
const fn key(weak: u32) -> u32 {
    weak.wrapping_mul(0x9E37_79B1)
}

/// A word of the filter and three bits in it (Putze, Sanders and Singler, "Cache-, hash- and
/// space-efficient Bloom filters", 2007).
#[expect(
    clippy::cast_possible_truncation,
    reason = "the shift leaves fewer bits than the filter has words"
)]
#[inline(always)]
const fn filter_place(weak: u32, shift: u32) -> (usize, u64) {
    let hash = (weak as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mask = 1 << (hash >> 8 & 63) | 1 << (hash >> 14 & 63) | 1 << (hash >> 20 & 63);
    ((hash >> shift) as usize, mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockSize, Seed, SignatureOptions};

    fn signature(basis: &[u8]) -> Signature {
        let options = SignatureOptions {
            block_size: Some(BlockSize::try_from(64).unwrap()),
            seed: Seed(7),
        };
        Signature::of(basis, options)
    }

    #[test]
    fn every_full_block_is_found_and_the_first_of_equal_ones() {
        let basis: Vec<u8> = (0..64 * 300 + 5)
            .map(|n: u32| (n / 64 % 100).to_le_bytes()[0])
            .collect();
        let signature = signature(&basis);
        let index = Index::new(&signature);
        assert_eq!(index.entries.len(), 100);
        for (block, hashes) in signature.blocks()[..300].iter().enumerate() {
            assert!(index.may_have(hashes.weak));
            let found = find(index.candidates(hashes.weak), hashes.strong);
            assert_eq!(found, Some(block % 100));
        }
    }

    #[test]
    fn an_empty_basis_has_an_index() {
        let index = Index::new(&signature(b""));
        assert!(!index.may_have(0));
        assert!(index.candidates(0).is_empty());
        assert!(index.candidates(u32::MAX).is_empty());
    }

    #[test]
    fn the_filter_lets_few_foreign_hashes_through() {
        let basis: Vec<u8> = (0..64 * 4096u32)
            .map(|n| n.wrapping_mul(0x85EB_CA6B).rotate_left(13).to_le_bytes()[1])
            .collect();
        let index = Index::new(&signature(&basis));
        let passed = (0..1_000_000u32)
            .map(|n| n.wrapping_mul(0xC2B2_AE35))
            .filter(|weak| index.may_have(*weak))
            .count();
        assert!(passed < 60_000, "{passed} of a million passed");
    }
}
