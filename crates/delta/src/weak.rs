//! The weak hash: cheap to move along by one byte.

use crate::simd::{self, ROW};

/// The weak hash of a window of bytes, with what is needed to roll it along.
///
/// This is the checksum of Tridgell's thesis (1999, section 3.2.5), the byte sum and the
/// position-weighted byte sum, with both kept modulo 2³² instead of 2¹⁶: on short blocks of text the
/// 16-bit sums use a fraction of their range. [`Weak::digest`] folds them into 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weak {
    sum: u32,
    weighted: u32,
    len: u32,
}

impl Weak {
    /// Computes the hash of `window`.
    pub(crate) fn of(window: &[u8]) -> Self {
        let (rows, rest) = window.as_chunks::<ROW>();
        let (sum, weighted) = simd::sums(rows);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the length counts modulo 2^32 only, as the sums do"
        )]
        let len = (rows.len() * ROW) as u32;
        let mut hash = Self { sum, weighted, len };
        hash.append(rest);
        hash
    }

    /// Moves the window by one byte: `leaving` was its first, `entering` comes behind its last.
    #[inline(always)]
    pub(crate) const fn roll(&mut self, leaving: u8, entering: u8) {
        self.sum = self
            .sum
            .wrapping_sub(leaving as u32)
            .wrapping_add(entering as u32);
        self.weighted = self
            .weighted
            .wrapping_sub(self.len.wrapping_mul(leaving as u32))
            .wrapping_add(self.sum);
    }

    /// Moves the window along by as many bytes as `digests` has places, and gives the hash before each
    /// step.
    #[inline]
    pub(crate) fn roll_all(&mut self, leaving: &[u8], entering: &[u8], digests: &mut [u32]) {
        for ((digest, leaving), entering) in digests.iter_mut().zip(leaving).zip(entering) {
            *digest = self.digest();
            self.roll(*leaving, *entering);
        }
    }

    /// The hash in 32 bits.
    #[inline(always)]
    pub(crate) const fn digest(self) -> u32 {
        self.weighted.wrapping_add(self.sum.wrapping_mul(SPREAD))
    }

    /// Adds bytes behind the last one.
    fn append(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.sum = self.sum.wrapping_add(u32::from(byte));
            self.weighted = self.weighted.wrapping_add(self.sum);
            self.len = self.len.wrapping_add(1);
        }
    }
}

/// The prime nearest to 2³² divided by the golden ratio (Knuth, section 6.4): moves the narrow byte sum
/// across the whole range.
const SPREAD: u32 = 0x9E37_79B1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rolling_equals_hashing_from_scratch(
            bytes in prop::collection::vec(any::<u8>(), 1..600),
            len in 1usize..300,
        ) {
            let len = len.min(bytes.len());
            let mut rolled = Weak::of(&bytes[..len]);
            for (start, window) in bytes.windows(len).enumerate() {
                prop_assert_eq!(rolled, Weak::of(window));
                if let Some(&entering) = bytes.get(start + len) {
                    rolled.roll(bytes[start], entering);
                }
            }
        }
    }

    #[test]
    fn sums_that_overflow_roll_on() {
        let bytes = vec![0xFF; (1 << 20) + 1];
        let mut rolled = Weak::of(&bytes[..1 << 20]);
        rolled.roll(0xFF, 0xFF);
        assert_eq!(rolled, Weak::of(&bytes[1..]));
    }
}
