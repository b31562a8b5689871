//! The weak hash: cheap to move along by one byte.

/// The weak hash of a window of bytes, with what is needed to roll it along.
///
/// This is the checksum of Tridgell's thesis (1999, section 3.2.3), the byte sum and the
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
        let mut hash = Self {
            sum: 0,
            weighted: 0,
            len: 0,
        };
        // Fixed-length rows, so that the compiler works on many bytes at once.
        let (rows, rest) = window.as_chunks::<ROW>();
        for row in rows {
            hash.append(row);
        }
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

    #[inline(always)]
    fn append(&mut self, row: &[u8]) {
        let mut sum = 0u32;
        let mut weighted = 0u32;
        for (&byte, &weight) in row.iter().zip(&WEIGHTS[ROW - row.len()..]) {
            sum += u32::from(byte);
            weighted += u32::from(weight) * u32::from(byte);
        }
        #[expect(clippy::cast_possible_truncation, reason = "a row is short")]
        let len = row.len() as u32;
        self.weighted = self
            .weighted
            .wrapping_add(self.sum.wrapping_mul(len))
            .wrapping_add(weighted);
        self.sum = self.sum.wrapping_add(sum);
        self.len = self.len.wrapping_add(len);
    }
}

const ROW: usize = 32;

/// From the length of a row down to 1. The products with bytes fit 16 bits, which the compiler sees
/// and uses.
const WEIGHTS: [u8; ROW] = {
    let mut weights = [0; ROW];
    let (mut at, mut weight) = (ROW, 1);
    while at > 0 {
        at -= 1;
        weights[at] = weight;
        weight += 1;
    }
    weights
};

/// 2³² divided by the golden ratio, made odd: moves the narrow byte sum across the whole range.
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
