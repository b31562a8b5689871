//! Scattered edits in binaries.

use super::{Pair, real, scaled};
use crate::noise::Noise;

/// The longest edit in bytes.
const MAX_EDIT: usize = 64;

/// Binaries of this machine, and the same with `edits` in 256 MiB of them.
pub(super) fn pair(len: usize, edits: usize) -> Pair {
    let real = real::binaries(len);
    let target = edited(&real.bytes, scaled(edits, len), edits as u64);
    Pair {
        basis: real.bytes,
        target,
        note: real.note,
    }
}

/// Overwrites, inserts and deletes 1 to 64 bytes at each of `edits` places.
pub(crate) fn edited(basis: &[u8], edits: usize, seed: u64) -> Vec<u8> {
    let mut noise = Noise::new(seed);
    let mut target = Vec::with_capacity(basis.len() + edits * MAX_EDIT);
    let mut done = 0;
    for edit in 0..edits {
        // One in each stretch of the basis, anywhere in it.
        let (start, end) = (
            edit * basis.len() / edits,
            (edit + 1) * basis.len() / edits - MAX_EDIT,
        );
        let at = noise.within(start..end);
        let len = noise.within(1..MAX_EDIT + 1);
        target.extend_from_slice(&basis[done..at]);
        done = match noise.within(0..3) {
            0 => {
                target.extend(noise.bytes(len));
                at + len
            }
            1 => {
                target.extend(noise.bytes(len));
                at
            }
            _ => at + len,
        };
    }
    target.extend_from_slice(&basis[done..]);
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_places_differ_as_there_are_edits() {
        let basis = Noise::new(1).bytes(64 << 10);
        for edits in [1, 2, 40] {
            let target = edited(&basis, edits, 7);
            // Each stretch of the basis without an edit is in the target; those of 16 bytes are told
            // apart well enough.
            let kept = basis
                .chunks(512)
                .filter(|part| target.windows(part.len()).any(|window| window == *part))
                .count();
            let changed = basis.chunks(512).count() - kept;
            assert!(
                (edits / 2..=2 * edits).contains(&changed),
                "{edits} edits have changed {changed} parts"
            );
        }
    }
}
