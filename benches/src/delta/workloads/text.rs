//! Edits of lines in texts.

use std::{collections::BTreeMap, ops::Range};

use super::{Pair, real, scaled};
use crate::noise::Noise;

/// How many edits there are in 256 MiB.
const EDITS: usize = 4096;

/// One edit of so many moves lines, the others insert, delete or replace some.
const MOVES: usize = 16;

/// Texts of this machine, and the same with lines inserted, deleted, replaced and moved.
pub(super) fn pair(len: usize) -> Pair {
    let real = real::texts(len);
    let target = edited(&real.bytes, scaled(EDITS, len));
    Pair {
        basis: real.bytes,
        target,
        note: real.note,
    }
}

fn edited(basis: &[u8], edits: usize) -> Vec<u8> {
    let lines: Vec<&[u8]> = basis.split_inclusive(|byte| *byte == b'\n').collect();
    let mut noise = Noise::new(EDITS as u64);
    // One edit in each stretch of the text: what becomes of some of its lines.
    let stretch = |edit: usize| edit * lines.len() / edits..(edit + 1) * lines.len() / edits;
    let mut changes: Vec<(Range<usize>, usize)> = Vec::new();
    let mut moved: BTreeMap<usize, Vec<Range<usize>>> = BTreeMap::new();
    for edit in 0..edits {
        let lines = stretch(edit);
        let start = noise.within(lines.start..lines.end.max(lines.start + 1));
        let (most_deleted, inserted) = if edit % MOVES == MOVES - 1 {
            (noise.within(20..200), 0)
        } else {
            match noise.within(0..3) {
                0 => (0, noise.within(1..6)),
                1 => (noise.within(1..6), 0),
                _ => {
                    let replaced = noise.within(1..4);
                    (replaced, replaced)
                }
            }
        };
        let deleted = start..lines.end.min(start + most_deleted).max(start);
        if edit % MOVES == MOVES - 1 {
            let to = noise.within(0..edits);
            moved.entry(to).or_default().push(deleted.clone());
        }
        changes.push((deleted, inserted));
    }

    let mut target = Vec::with_capacity(basis.len() + basis.len() / 64);
    for (edit, (deleted, inserted)) in changes.into_iter().enumerate() {
        let stretch = stretch(edit);
        for lines_moved in moved.remove(&edit).unwrap_or_default() {
            target.extend(lines[lines_moved].concat());
        }
        target.extend(lines[stretch.start..deleted.start].concat());
        for _ in 0..inserted {
            target.extend(real::line(&mut noise).into_bytes());
        }
        target.extend(lines[deleted.end..stretch.end].concat());
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_lines_stay_and_some_move() {
        let basis: String = (0..20_000).map(|line| format!("line {line}\n")).collect();
        let target = String::from_utf8(edited(basis.as_bytes(), 64)).unwrap();
        let lines: Vec<&str> = target.lines().collect();
        let numbers: Vec<u32> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("line ")?.parse().ok())
            .collect();
        assert!(numbers.len() > 19_500, "{} lines stay", numbers.len());
        assert!(lines.len() > numbers.len(), "some are inserted");
        assert!(!numbers.is_sorted(), "some are moved");
    }
}
