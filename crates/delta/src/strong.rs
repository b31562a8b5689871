//! The strong hash: what says that a block is the same.

use std::fmt;

use twox_hash::xxhash3_128;

/// The seed of a signature's hashes.
///
/// Choose it at random, anew for each signature: XXH3 does not resist collisions made for a known seed,
/// so who can write to basis or target should not know it before both are fixed. A collision can never
/// give wrong output, as [`patch`](crate::patch()) checks the whole target, but it costs sending the
/// target whole. A signature has its seed in plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed(pub u64);

/// The strong hash of one block: the first six bytes of its seeded XXH3-128, in canonical order.
///
/// Where it is compared with those of all blocks, 48 bits would be few: what is found so must have the
/// block's mark as well, which makes 80.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Strong(u64);

impl Strong {
    pub(crate) const LEN: usize = 6;

    pub(crate) const fn from_bytes([a, b, c, d, e, f]: [u8; Self::LEN]) -> Self {
        Self(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    pub(crate) const fn to_bytes(self) -> [u8; Self::LEN] {
        let [_, _, bytes @ ..] = self.0.to_be_bytes();
        bytes
    }

    /// The hash as a number below 2⁴⁸.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

/// Computes strong hashes under one seed.
#[derive(Clone)]
pub(crate) struct StrongHasher {
    seed: u64,
    /// Derived from the seed once instead of once a block.
    secret: Box<[u8]>,
}

impl StrongHasher {
    pub(crate) fn new(Seed(seed): Seed) -> Self {
        let secret = xxhash3_128::Hasher::with_seed(seed).into_secret();
        Self { seed, secret }
    }

    #[inline]
    pub(crate) fn hash(&self, block: &[u8]) -> Strong {
        let hash =
            xxhash3_128::Hasher::oneshot_with_seed_and_secret(self.seed, &self.secret, block)
                .expect("a secret made from a seed is long enough");
        Strong((hash >> (128 - 8 * Strong::LEN)) as u64)
    }
}

impl fmt::Debug for StrongHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrongHasher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_head_of_xxh3_128() {
        // XXH3-128 of the empty input without a seed, from the reference implementation.
        let empty = 0x99aa_06d3_0147_98d8_6001_c324_468d_497f_u128.to_be_bytes();
        let hasher = StrongHasher::new(Seed(0));
        assert_eq!(hasher.hash(b"").to_bytes(), empty[..6]);
        assert_ne!(hasher.hash(b""), StrongHasher::new(Seed(1)).hash(b""));
    }

    #[test]
    fn the_secret_is_the_seeds_own() {
        for len in [0, 16, 240, 241, 2048] {
            let block = vec![7; len];
            for seed in [0, 1, u64::MAX] {
                let whole = xxhash3_128::Hasher::oneshot_with_seed(seed, &block).to_be_bytes();
                let hash = StrongHasher::new(Seed(seed)).hash(&block);
                assert_eq!(hash.to_bytes(), whole[..6], "{len} bytes, seed {seed}");
            }
        }
    }
}
