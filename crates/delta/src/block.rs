//! How large a block is.

use std::num::NonZeroU32;

/// The length in bytes of every block of a basis but the last, which may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize(NonZeroU32);

impl BlockSize {
    /// The smallest block size in bytes, where a signature has a sixth of the length of its basis.
    pub const MIN: u32 = 64;
    /// The largest block size in bytes: [`diff_read`](crate::diff_read) holds eight blocks in memory.
    pub const MAX: u32 = 1 << 20;

    /// Chooses a block size for a basis of `basis_len` bytes: about its square root, as rsync does,
    /// so that the signature and the literals around one edit grow alike.
    ///
    /// A multiple of 64, and never below 256 bytes, where a signature would cost more than the literals
    /// it saves. The largest from a basis of a terabyte on.
    #[must_use]
    pub fn for_len(basis_len: u64) -> Self {
        let root = u32::try_from(basis_len.isqrt()).unwrap_or(Self::MAX);
        let rounded = root.min(Self::MAX).next_multiple_of(64).max(256);
        Self(NonZeroU32::new(rounded).unwrap_or(NonZeroU32::MIN))
    }

    /// Chooses a block size for the first of [two rounds](crate::FirstRound) over a basis of
    /// `basis_len` bytes: the power of two that is nearest to six times its square root, and at least
    /// 512. The second round makes up for large blocks, so that they cost least where a dozen places
    /// have changed.
    #[must_use]
    pub fn for_two_rounds(basis_len: u64) -> Self {
        // The root of two makes rounding down rounding to the nearest.
        let wanted = u32::try_from(basis_len.isqrt().saturating_mul(17) / 2).unwrap_or(Self::MAX);
        let bits = wanted.clamp(512, Self::MAX).ilog2();
        Self(NonZeroU32::new(1 << bits).unwrap_or(NonZeroU32::MIN))
    }

    /// The smallest block size.
    pub(crate) const LEAST: Self = Self(NonZeroU32::new(Self::MIN).expect("64 is not zero"));

    /// The block size in bytes.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The block size as a length in memory.
    pub(crate) const fn len(self) -> usize {
        self.0.get() as usize
    }

    /// How many blocks a basis of `basis_len` bytes has.
    pub(crate) const fn count(self, basis_len: u64) -> u64 {
        basis_len.div_ceil(self.0.get() as u64)
    }

    /// Twice the size, or the largest.
    pub(crate) fn doubled(self) -> Self {
        Self(self.0.saturating_mul(TWO).min(LARGEST))
    }
}

const TWO: NonZeroU32 = NonZeroU32::new(2).expect("two is not zero");
const LARGEST: NonZeroU32 = NonZeroU32::new(BlockSize::MAX).expect("the maximum is not zero");

/// A block size outside [`BlockSize::MIN`]`..=`[`BlockSize::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a block size of {block_size} bytes is outside {}..={}",
    BlockSize::MIN,
    BlockSize::MAX
)]
pub struct BlockSizeError {
    /// The refused block size in bytes.
    pub block_size: u32,
}

impl TryFrom<u32> for BlockSize {
    type Error = BlockSizeError;

    fn try_from(block_size: u32) -> Result<Self, BlockSizeError> {
        NonZeroU32::new(block_size)
            .filter(|size| (Self::MIN..=Self::MAX).contains(&size.get()))
            .map(Self)
            .ok_or(BlockSizeError { block_size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_outside_the_bounds_are_refused() {
        for block_size in [0, 1, BlockSize::MIN - 1, BlockSize::MAX + 1, u32::MAX] {
            assert_eq!(
                BlockSize::try_from(block_size),
                Err(BlockSizeError { block_size })
            );
        }
        for block_size in [BlockSize::MIN, 700, BlockSize::MAX] {
            assert_eq!(BlockSize::try_from(block_size).unwrap().get(), block_size);
        }
    }

    #[test]
    fn the_chosen_size_is_near_the_square_root_and_always_valid() {
        for (basis_len, block_size) in [
            (0, 256),
            (1, 256),
            (1 << 20, 1024),
            ((1 << 20) + 2049, 1088),
            (1 << 30, 1 << 15),
            (1 << 40, BlockSize::MAX),
            (u64::MAX, BlockSize::MAX),
        ] {
            let chosen = BlockSize::for_len(basis_len);
            assert_eq!(chosen.get(), block_size, "for {basis_len} bytes");
            assert_eq!(BlockSize::try_from(chosen.get()), Ok(chosen));
        }
    }
}
