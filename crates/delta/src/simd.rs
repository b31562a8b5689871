//! What asks the processor for more than the language does: the selection of positions by their
//! grams, which is the inner loop of everything that must be searched, the sums of the weak hash, and
//! prefetching.
//!
//! Each kernel is written portably and for instruction sets of x86-64, which the tests hold to the
//! same results; the processor it runs on decides. This is the only unsafe code of the crate.

#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "unaligned vector loads, prefetching, and calls of functions compiled for an instruction set"
    )
)]

/// Selects positions by their grams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Selector {
    /// A position is selected if the product of its gram, as a signed number, is below this.
    threshold: i32,
    kernel: Kernel,
}

/// How many positions one word of a selection covers.
pub(crate) const WORD: usize = 64;

/// How many bytes a gram has.
const GRAM: usize = 4;

/// The prime nearest to 2³² divided by the golden ratio (Knuth, section 6.4).
const MULTIPLIER: i32 = 0x9E37_79B1_u32.cast_signed();

impl Selector {
    /// Selects one position of noise in `spacing`, which is at least 2.
    pub(crate) fn one_in(spacing: usize) -> Self {
        let spacing = u32::try_from(spacing).unwrap_or(u32::MAX);
        Self {
            threshold: i32::MIN.wrapping_add_unsigned(u32::MAX / spacing),
            kernel: Kernel::of_this_processor(),
        }
    }

    /// Selects among the first `count` positions of `bytes`, at most 64 for each place of `words`,
    /// and gives the words in which any is selected.
    ///
    /// # Panics
    ///
    /// Panics if the gram of the last position ends behind `bytes`, or `words` is too short.
    #[inline]
    pub(crate) fn select<'w>(
        &self,
        bytes: &[u8],
        count: usize,
        words: &'w mut [Word],
    ) -> &'w [Word] {
        let Some(last) = count.checked_sub(1) else {
            return &[];
        };
        let words = &mut words[..count.div_ceil(WORD)];
        let bytes = &bytes[..last + GRAM];
        if count < WORD {
            let mut padded = [0; WORD_BYTES];
            padded[..bytes.len()].copy_from_slice(bytes);
            let selected = portable(&padded, self.threshold, words);
            words[0].bits &= (1 << count) - 1;
            return &words[..selected];
        }
        let selected = match self.kernel {
            Kernel::Portable => portable(bytes, self.threshold, words),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: The processor has AVX2, as `of_this_processor` found out.
            Kernel::Avx2 => unsafe { x86_64::avx2(bytes, self.threshold, words) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: The processor has AVX-512F and BMI2, as `of_this_processor` found out.
            Kernel::Avx512 => unsafe { x86_64::avx512(bytes, self.threshold, words) },
        };
        &words[..selected]
    }
}

/// Which of 64 positions are selected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Word {
    /// The first of the positions.
    pub(crate) start: u16,
    /// Bit `n` is for the position `start + n`.
    pub(crate) bits: u64,
}

/// The sum of all bytes, and the sum of the bytes each times its distance from the end, the last one
/// times 1, both modulo 2³².
#[inline]
pub(crate) fn sums(rows: &[[u8; ROW]]) -> (u32, u32) {
    sums_by(Kernel::of_this_processor(), rows)
}

/// How many bytes are added up at a time.
pub(crate) const ROW: usize = 32;

fn sums_by(kernel: Kernel, rows: &[[u8; ROW]]) -> (u32, u32) {
    match kernel {
        Kernel::Portable => portable_sums(rows),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: The processor has AVX2, as `of_this_processor` found out.
        Kernel::Avx2 | Kernel::Avx512 => unsafe { x86_64::avx2_sums(rows) },
    }
}

fn portable_sums(rows: &[[u8; ROW]]) -> (u32, u32) {
    let (mut sum, mut weighted) = (0u32, 0u32);
    for row in rows {
        // The products fit 16 bits, which the compiler sees and uses.
        let (mut row_sum, mut row_weighted) = (0, 0);
        for (&byte, &weight) in row.iter().zip(&WEIGHTS) {
            row_sum += u32::from(byte);
            row_weighted += u32::from(weight) * u32::from(byte);
        }
        let behind = sum.wrapping_mul(32);
        weighted = weighted.wrapping_add(behind).wrapping_add(row_weighted);
        sum = sum.wrapping_add(row_sum);
    }
    (sum, weighted)
}

/// From the length of a row down to 1.
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

/// Asks for `len` bytes from 16 KiB behind the beginning of `bytes` on, which will soon be read.
#[inline]
pub(crate) fn prefetch(bytes: &[u8], len: usize) {
    const AHEAD: usize = 16 << 10;
    let ahead = bytes.get(AHEAD..).unwrap_or_default();
    for line in ahead[..len.min(ahead.len())].chunks(CACHE_LINE) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: Any address may be prefetched, and this one is of valid bytes.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }
}

/// Whether the processor needs to be asked for what a sequential reader reads.
///
/// Where this was measured (Zen 5), a reader that begins in the second half of a cache line, as
/// happens behind every second insertion, gets 12 GB/s from memory, and any other 29. Asked for, it
/// is 27 for both.
#[inline]
pub(crate) fn needs_prefetch(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr() % CACHE_LINE >= CACHE_LINE / 2
}

const CACHE_LINE: usize = 64;

/// What the inner loop is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    fn of_this_processor() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                let has_more = is_x86_feature_detected!("avx512f");
                return match has_more && is_x86_feature_detected!("bmi2") {
                    true => Self::Avx512,
                    false => Self::Avx2,
                };
            }
        }
        Self::Portable
    }
}

/// Written so that the compiler finds the vectors in it.
fn portable(bytes: &[u8], threshold: i32, words: &mut [Word]) -> usize {
    let mut selected = 0;
    for (start, bytes, shift) in grams(bytes) {
        let mut below = [false; WORD];
        for (position, below) in below.iter_mut().enumerate() {
            let gram = std::array::from_fn(|at| bytes[position + at]);
            *below = i32::from_le_bytes(gram).wrapping_mul(MULTIPLIER) < threshold;
        }
        if below.iter().fold(false, |any, below| any | below) {
            let bits = below.iter().rev();
            let bits = bits.fold(0, |bits, below| bits << 1 | u64::from(*below)) >> shift;
            words[selected] = Word { start, bits };
            selected += usize::from(bits != 0);
        }
    }
    selected
}

/// The start of each word, the bytes of its grams, and by how much to shift the bits selected from
/// them: the last word, if it is not whole, is taken from the whole one that ends with it.
///
/// There are none if there is no whole word.
#[inline(always)]
fn grams(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8; WORD_BYTES], usize)> {
    let mut rest = bytes;
    let mut last = bytes.last_chunk();
    (0..).step_by(WORD).map_while(move |start| {
        if let Some(whole) = rest.first_chunk() {
            rest = &rest[WORD..];
            return Some((start, whole, 0));
        }
        let missing = WORD_BYTES - rest.len();
        let last = last.take().filter(|_| missing < WORD)?;
        Some((start, last, missing))
    })
}

/// How many bytes the grams of a whole word have.
const WORD_BYTES: usize = WORD + GRAM - 1;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_shuffle_epi32, _mm256_add_epi32,
        _mm256_castsi256_si128, _mm256_cmpgt_epi32, _mm256_extracti128_si256, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_movemask_epi8, _mm256_mullo_epi32,
        _mm256_packs_epi16, _mm256_packs_epi32, _mm256_sad_epu8, _mm256_set1_epi16,
        _mm256_set1_epi32, _mm256_setzero_si256, _mm512_cmplt_epi32_mask, _mm512_loadu_si512,
        _mm512_mullo_epi32, _mm512_set1_epi32, _pdep_u64,
    };

    use super::{MULTIPLIER, ROW, WEIGHTS, WORD_BYTES, Word, grams};

    // Both write every word to the next free place and then decide whether it stays, as a branch
    // that is taken one time in five would be guessed wrong that often. Those that stay are put in
    // order later.

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(bytes: &[u8], threshold: i32, words: &mut [Word]) -> usize {
        let multiplier = _mm256_set1_epi32(MULTIPLIER);
        let threshold = _mm256_set1_epi32(threshold);
        let mut selected = 0;
        for (start, bytes, shift) in grams(bytes) {
            let below = |at: usize| {
                // SAFETY: The 32 bytes from `at` on are inside, as it is 35 at most.
                let grams = unsafe {
                    debug_assert!(at + 32 <= WORD_BYTES);
                    _mm256_loadu_si256(bytes.as_ptr().add(at).cast::<__m256i>())
                };
                _mm256_cmpgt_epi32(threshold, _mm256_mullo_epi32(grams, multiplier))
            };
            // Of each 16 positions every fourth, four times over.
            let half = |at: usize| {
                let low = _mm256_packs_epi32(below(at), below(at + 1));
                let high = _mm256_packs_epi32(below(at + 2), below(at + 3));
                _mm256_movemask_epi8(_mm256_packs_epi16(low, high)).cast_unsigned()
            };
            let bits = u64::from(half(32)) << 32 | u64::from(half(0));
            if shift > 0 {
                return finish(
                    words,
                    selected,
                    transposed,
                    start,
                    transposed(bits) >> shift,
                );
            }
            words[selected] = Word { start, bits };
            selected += usize::from(bits != 0);
        }
        finish(words, selected, transposed, 0, 0)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2_sums(rows: &[[u8; ROW]]) -> (u32, u32) {
        let zero = _mm256_setzero_si256();
        let ones = _mm256_set1_epi16(1);
        let load = |row: &[u8; ROW]| {
            // SAFETY: A row is 32 bytes.
            unsafe { _mm256_loadu_si256(row.as_ptr().cast::<__m256i>()) }
        };
        let weights = load(&WEIGHTS);
        // The sum of what came before each row counts once more for each of its places.
        let (mut sum, mut before, mut weighted) = (zero, zero, zero);
        for row in rows {
            let bytes = load(row);
            before = _mm256_add_epi32(before, sum);
            sum = _mm256_add_epi32(sum, _mm256_sad_epu8(bytes, zero));
            // At most 2 · 255 · 32, which fits 16 bits with a sign.
            let pairs = _mm256_maddubs_epi16(bytes, weights);
            weighted = _mm256_add_epi32(weighted, _mm256_madd_epi16(pairs, ones));
        }
        let total = |vector: __m256i| {
            let half = _mm_add_epi32(
                _mm256_castsi256_si128(vector),
                _mm256_extracti128_si256::<1>(vector),
            );
            let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b01_00_11_10>(half));
            let last = _mm_add_epi32(quarter, _mm_shuffle_epi32::<0b10_11_00_01>(quarter));
            _mm_cvtsi128_si32(last).cast_unsigned()
        };
        let behind = total(before).wrapping_mul(32);
        (total(sum), total(weighted).wrapping_add(behind))
    }

    #[target_feature(enable = "avx512f,bmi2")]
    pub(super) fn avx512(bytes: &[u8], threshold: i32, words: &mut [Word]) -> usize {
        let multiplier = _mm512_set1_epi32(MULTIPLIER);
        let threshold = _mm512_set1_epi32(threshold);
        let interleaved = |bits: u64| {
            (0..4).fold(0, |word, offset| {
                word | _pdep_u64(bits >> (16 * offset), EVERY_FOURTH << offset)
            })
        };
        let mut selected = 0;
        for (start, bytes, shift) in grams(bytes) {
            let below = |at: usize| {
                // SAFETY: The 64 bytes from `at` on are inside, as it is 3 at most.
                let grams = unsafe {
                    debug_assert!(at + 64 <= WORD_BYTES);
                    _mm512_loadu_si512(bytes.as_ptr().add(at).cast::<__m512i>())
                };
                let products = _mm512_mullo_epi32(grams, multiplier);
                u64::from(_mm512_cmplt_epi32_mask(products, threshold))
            };
            // Every fourth position, four times over.
            let bits = below(3) << 48 | below(2) << 32 | below(1) << 16 | below(0);
            if shift > 0 {
                return finish(
                    words,
                    selected,
                    interleaved,
                    start,
                    interleaved(bits) >> shift,
                );
            }
            words[selected] = Word { start, bits };
            selected += usize::from(bits != 0);
        }
        finish(words, selected, interleaved, 0, 0)
    }

    /// Orders the bits of the selected words, and adds a last one that has been ordered.
    #[inline(always)]
    fn finish(
        words: &mut [Word],
        mut selected: usize,
        order: impl Fn(u64) -> u64,
        start: u16,
        bits: u64,
    ) -> usize {
        for word in &mut words[..selected] {
            word.bits = order(word.bits);
        }
        if bits != 0 {
            words[selected] = Word { start, bits };
            selected += 1;
        }
        selected
    }

    /// Transposes each 16 bits as a square of four by four (Warren, "Hacker's Delight", 7-3).
    const fn transposed(mut bits: u64) -> u64 {
        let swap = (bits ^ bits >> 3) & 0x0A0A_0A0A_0A0A_0A0A;
        bits ^= swap ^ swap << 3;
        let swap = (bits ^ bits >> 6) & 0x00CC_00CC_00CC_00CC;
        bits ^ swap ^ swap << 6
    }

    /// The positions of a word that are 0 modulo 4.
    const EVERY_FOURTH: u64 = 0x1111_1111_1111_1111;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Kernel {
        /// All that run here; the portable one always does.
        fn all() -> impl Iterator<Item = Self> {
            let best = Self::of_this_processor();
            let all = [
                Self::Portable,
                #[cfg(target_arch = "x86_64")]
                Self::Avx2,
                #[cfg(target_arch = "x86_64")]
                Self::Avx512,
            ];
            all.into_iter()
                .take_while(move |kernel| *kernel != best)
                .chain([best])
        }
    }

    proptest! {
        #[test]
        fn every_kernel_selects_by_the_gram_alone(
            bytes in prop::collection::vec(any::<u8>(), GRAM..700),
            spacing in 2usize..40,
        ) {
            let count = bytes.len() - GRAM + 1;
            let mut selector = Selector::one_in(spacing);
            for kernel in Kernel::all() {
                selector.kernel = kernel;
                let mut words = [Word::default(); 11];
                let selected = selector.select(&bytes, count, &mut words);
                for position in 0..count.div_ceil(WORD) * WORD {
                    let expected = bytes.get(position..position + GRAM).is_some_and(|gram| {
                        let gram = i32::from_le_bytes(gram.try_into().unwrap());
                        gram.wrapping_mul(MULTIPLIER) < selector.threshold
                    });
                    let is_selected = is_selected(selected, position);
                    prop_assert_eq!(is_selected, expected, "{:?} at {}", kernel, position);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_kernel_sums_the_same(rows in prop::collection::vec(any::<[u8; ROW]>(), 0..40)) {
            let bytes = rows.as_flattened();
            let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
            let weights = (1..).zip(bytes.iter().rev());
            let weighted: u32 = weights.map(|(weight, byte)| weight * u32::from(*byte)).sum();
            for kernel in Kernel::all() {
                prop_assert_eq!(sums_by(kernel, &rows), (sum, weighted), "{:?}", kernel);
            }
        }
    }

    #[test]
    fn as_many_positions_are_selected_as_asked_for() {
        let bytes: Vec<u8> = (0..1u32 << 18)
            .flat_map(|at| {
                at.wrapping_mul(0x85EB_CA6B)
                    .rotate_left(13)
                    .wrapping_mul(at | 1)
                    .to_le_bytes()
            })
            .collect();
        let bytes = [&bytes[..], &[0; GRAM]].concat();
        for spacing in [2, 64, 256, 2048] {
            let mut words = [Word::default(); 64];
            let mut ones = 0;
            for part in bytes.windows(4096 + GRAM).step_by(4096) {
                let selected = Selector::one_in(spacing).select(part, 4096, &mut words);
                ones += selected
                    .iter()
                    .map(|word| word.bits.count_ones())
                    .sum::<u32>();
            }
            let expected = (1 << 20) / u32::try_from(spacing).unwrap();
            assert!(
                ones.abs_diff(expected) < expected / 4,
                "{ones} of {expected}"
            );
        }
    }

    fn is_selected(words: &[Word], position: usize) -> bool {
        words.iter().any(|word| {
            let bit = position.checked_sub(usize::from(word.start));
            bit.is_some_and(|bit| bit < WORD && word.bits >> bit & 1 == 1)
        })
    }
}
