//! The strong hash: what says that a block is the same.

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The seed of a signature's strong hashes.
///
/// Choose it at random, after the basis is fixed: xxh3 does not resist collisions made for a known
/// seed. A collision can never give wrong output, as `patch` checks the whole target, but it costs
/// sending the target whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed(pub u64);

/// The strong hash of one block: the first eight bytes of its seeded XXH3-128, in canonical order.
///
/// Eight bytes are enough at any length: a rolled position is tested only where its weak hash fits,
/// so a terabyte against a million blocks makes some 2²⁸ tests, and errs once in 2³⁶ runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Strong(u64);

impl Strong {
    pub(crate) const LEN: usize = 8;

    #[inline]
    pub(crate) fn of(block: &[u8], seed: Seed) -> Self {
        let hash = xxh3_128_with_seed(block, seed.0).to_be_bytes();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        Self::from_bytes([a, b, c, d, e, f, g, h])
    }

    pub(crate) const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    pub(crate) const fn to_bytes(self) -> [u8; Self::LEN] {
        self.0.to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_head_of_xxh3_128() {
        // XXH3-128 of the empty input without a seed, from the reference implementation.
        let empty = 0x99aa_06d3_0147_98d8_6001_c324_468d_497f_u128.to_be_bytes();
        assert_eq!(Strong::of(b"", Seed(0)).to_bytes(), empty[..8]);
        assert_ne!(Strong::of(b"", Seed(0)), Strong::of(b"", Seed(1)));
    }
}
