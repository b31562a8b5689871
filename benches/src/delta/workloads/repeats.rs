//! Data that repeats itself, where one block of the basis is as good as many others.

use super::{Pair, edits::edited};
use crate::noise::Noise;

/// How many edits there are, whatever the length.
const EDITS: usize = 16;

/// Nothing but zeros, and some more of them with edits.
pub(super) fn zeros(len: usize) -> Pair {
    let target = edited(&vec![0; len + len / 16 + 1], EDITS, 3);
    Pair::new(vec![0; len], target)
}

/// Stretches of different periods, some of which divide the block size, and the same in another order
/// with edits.
pub(super) fn periodic(len: usize, block_len: usize) -> Pair {
    let periods = [
        block_len / 4,
        7,
        block_len,
        block_len - 1,
        2 * block_len,
        block_len / 2 + 3,
        1000,
        3 * block_len + 1,
    ];
    let mut noise = Noise::new(4);
    let mut stretches = periods.map(|period| {
        let once = noise.bytes(period);
        let all = once.iter().copied().cycle();
        all.take(len / periods.len()).collect::<Vec<u8>>()
    });
    let basis = stretches.concat();
    stretches.reverse();
    // Some are longer than they were, some shorter.
    for (number, stretch) in stretches.iter_mut().enumerate() {
        let by = stretch.len() / 10 + number;
        if number % 2 == 0 {
            stretch.truncate(stretch.len() - by);
        } else {
            stretch.extend_from_within(..by);
        }
    }
    Pair::new(basis, edited(&stretches.concat(), EDITS, 5))
}
