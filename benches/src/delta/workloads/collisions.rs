//! The worst case of a rolling checksum: it fits everywhere, and the strong hash nowhere.
//!
//! Made for the checksum of rsync (Tridgell 1999, section 3.2.3) and all that are sums of the bytes
//! and of the bytes weighted by their places, whatever they are taken modulo: that of librsync, which
//! fast_rsync and rdiff have, is one, and the weak hash of patchwire another. Patchwire rolls only
//! over what has no anchors, so nothing here has any.

use super::{
    Pair,
    selection::{GRAM, Selection},
};
use crate::noise::Noise;

/// What is longer takes some engines minutes.
pub(super) const MAX_LEN: usize = 8 << 20;

/// The target consists of stretches with a period each, so that a stretch has as many different
/// windows as its period is long. One that is much shorter than a block is often enough: fast_rsync
/// gives a weak hash up after 1024 false alarms, so there must be many of them.
const PERIOD: usize = 64;

/// How many different blocks of the basis have the weak hash of each window.
const VARIANTS: usize = 4;

/// A target of stretches, all windows of which (but for those across the ends of stretches) have the
/// weak hash of some blocks of the basis and differ from all.
pub(super) fn pair(len: usize, block_len: usize) -> Pair {
    let selection = Selection::of(block_len);
    let blocks = PERIOD * VARIANTS;
    let stretches = (len / (blocks * block_len)).max(1);
    let mut noise = Noise::new(0xC0_1115_1035);
    let mut basis = Vec::with_capacity(stretches * blocks * block_len);
    let mut target = Vec::with_capacity(len);
    for _ in 0..stretches {
        let period = period(&mut noise, selection);
        let window = |phase| period.iter().cycle().skip(phase).copied();
        for phase in 0..PERIOD {
            for variant in 1..=VARIANTS {
                let start = basis.len();
                basis.extend(window(phase).take(block_len));
                let from = variant * block_len / (VARIANTS + 2);
                change(&mut basis[start..], from, selection);
            }
        }
        target.extend(window(0).take(len / stretches));
    }
    Pair::new(basis, target)
}

/// Bytes that can be repeated, with room for one more and two less, and without anchors.
fn period(noise: &mut Noise, selection: Selection) -> Vec<u8> {
    loop {
        let period: Vec<u8> = (0..PERIOD).map(|_| noise.byte().clamp(2, 254)).collect();
        let around = [&period[..], &period[..GRAM - 1]].concat();
        if !selection.any(&around) {
            return period;
        }
    }
}

/// Changes a block at `from`, or behind that if there it would get an anchor, so that its weak hash
/// stays: a second difference of zero keeps both sums.
fn change(block: &mut [u8], from: usize, selection: Selection) {
    for at in from..block.len() - 2 {
        block[at] += 1;
        block[at + 1] -= 2;
        block[at + 2] += 1;
        let end = block.len().min(at + 2 + GRAM);
        if !selection.any(&block[at.saturating_sub(GRAM - 1)..end]) {
            return;
        }
        block[at] -= 1;
        block[at + 1] += 2;
        block[at + 2] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    /// The two sums, as librsync's rollsum has them.
    fn sums(window: &[u8]) -> (u16, u16) {
        const OFFSET: u16 = 31;
        window.iter().fold((0u16, 0u16), |(sum, weighted), byte| {
            let sum = sum.wrapping_add(u16::from(*byte) + OFFSET);
            (sum, weighted.wrapping_add(sum))
        })
    }

    #[test]
    fn nearly_every_window_has_the_weak_hash_of_other_blocks() {
        let block_len = 128;
        let Pair { basis, target, .. } = pair(96 << 10, block_len);
        let mut blocks: HashMap<_, HashSet<&[u8]>> = HashMap::new();
        for block in basis.chunks(block_len) {
            blocks.entry(sums(block)).or_default().insert(block);
        }
        let windows = target.windows(block_len);
        let all = windows.len();
        let hostile = windows
            .filter(|window| {
                let alike = blocks.get(&sums(window));
                alike.is_some_and(|alike| alike.len() >= VARIANTS && !alike.contains(window))
            })
            .count();
        assert!(hostile * 100 > all * 99, "{hostile} of {all}");
    }

    #[test]
    fn blocks_have_no_anchors() {
        for block_len in [512, 2048] {
            let Pair { basis, target, .. } = pair(1, block_len);
            let selection = Selection::of(block_len);
            assert!(!selection.any(&target));
            assert!(basis.chunks(block_len).all(|block| !selection.any(block)));
        }
    }
}
