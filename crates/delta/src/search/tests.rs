use proptest::prelude::*;

use super::*;
use crate::{BlockSize, Seed, SignatureOptions};

const BLOCK: usize = BlockSize::MIN as usize;

fn signature(basis: &[u8]) -> Signature {
    let options = SignatureOptions {
        block_size: Some(BlockSize::try_from(BlockSize::MIN).unwrap()),
        ..SignatureOptions::new(Seed(1))
    };
    Signature::of(basis, options)
}

fn noise(len: usize, mut state: u64) -> Vec<u8> {
    let step = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(step).take(len).collect()
}

/// The blocks that are found: where in the target, and where in the basis.
fn matches(basis: &[u8], target: &[u8]) -> Vec<(usize, u64)> {
    let signature = signature(basis);
    let blocks = Blocks::new(&signature);
    let mut search = Search::new(&blocks, 0, 0);
    let found = std::iter::from_fn(|| search.next_match(target, true));
    found.flat_map(|found| single(found, 0)).collect()
}

fn single(found: Match, start: usize) -> impl Iterator<Item = (usize, u64)> {
    let steps = (0..found.len).step_by(BLOCK);
    steps.map(move |step| (start + found.at + step, found.offset + step as u64))
}

#[test]
fn a_changed_block_is_bridged_along_the_diagonal() {
    let basis = noise(BLOCK * 12, 1);
    let mut target = basis.clone();
    target[BLOCK * 3 + 5] ^= 1;
    let kept = (0..12).filter(|block| *block != 3);
    let kept: Vec<_> = kept
        .map(|block| (block * BLOCK, (block * BLOCK) as u64))
        .collect();
    assert_eq!(matches(&basis, &target), kept);
}

#[test]
fn blocks_moved_into_a_gap_are_found() {
    let basis = noise(BLOCK * 12, 2);
    let mut target = basis.clone();
    // Blocks 3 and 4 become one of noise with block 9 in its middle.
    target[BLOCK * 3..BLOCK * 5].copy_from_slice(&noise(BLOCK * 2, 3));
    target[BLOCK * 3 + 30..BLOCK * 4 + 30].copy_from_slice(&basis[BLOCK * 9..BLOCK * 10]);
    let found = matches(&basis, &target);
    assert!(found.contains(&(BLOCK * 3 + 30, (BLOCK * 9) as u64)));
    assert!(found.contains(&(BLOCK * 5, (BLOCK * 5) as u64)));
    assert_eq!(found.len(), 11);
}

#[test]
fn the_short_last_block_is_found_at_the_end_and_before_an_appendix() {
    let basis = noise(BLOCK * 2 + 17, 4);
    let end = (BLOCK * 2) as u64;
    let edited = [b"inserted".as_slice(), &basis].concat();
    let tail = (8 + BLOCK * 2, end);
    assert_eq!(matches(&basis, &edited).last(), Some(&tail));
    let appended = [&basis, b"appended".as_slice()].concat();
    assert_eq!(matches(&basis, &appended).last(), Some(&(BLOCK * 2, end)));
    let alone = [b"x".as_slice(), &basis[BLOCK * 2..]].concat();
    assert_eq!(matches(&basis, &alone), [(1, end)]);
}

proptest! {
    /// The smallest windows that decide anything, slid as far as they can be, find the same.
    #[test]
    fn what_is_found_does_not_depend_on_the_windows(
        changes in prop::collection::vec(
            (
                0usize..BLOCK * 60,
                prop_oneof![0usize..BLOCK * 3, (1usize..10).prop_map(|blocks| blocks * BLOCK)],
            ),
            0..8,
        ),
        step in 1usize..BLOCK * 4,
    ) {
        let basis = noise(BLOCK * 60 + 9, 5);
        let mut target = basis.clone();
        for (at, len) in changes {
            let at = at.min(target.len());
            let end = target.len().min(at + len);
            target.splice(at..end, noise(len / BLOCK * BLOCK, at as u64));
        }
        prop_assert_eq!(matches_in_windows(&basis, &target, step), matches(&basis, &target));
    }
}

fn matches_in_windows(basis: &[u8], target: &[u8], step: usize) -> Vec<(usize, u64)> {
    let signature = signature(basis);
    let blocks = Blocks::new(&signature);
    let mut search = Search::new(&blocks, 0, 0);
    let mut all = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        end = target.len().min(end + step);
        while let Some(found) = search.next_match(&target[start..end], end == target.len()) {
            all.extend(single(found, start));
        }
        if end == target.len() {
            return all;
        }
        let searched = search.position();
        search.advance_window(searched);
        start += searched;
    }
}

/// Every window of the target has the weak hash of many different blocks of the basis.
#[test]
fn false_alarms_are_bounded() {
    let basis: Vec<u8> = (0..BLOCK - 2)
        .flat_map(|at| {
            // A second difference of zero keeps both sums.
            let mut block = [5u8; BLOCK];
            block[at] += 1;
            block[at + 1] -= 2;
            block[at + 2] += 1;
            block
        })
        .collect();
    let target = vec![5; 4 << 20];
    let signature = signature(&basis);
    let blocks = Blocks::new(&signature);
    let mut search = Search::new(&blocks, 0, 0);
    assert!(blocks.index().may_have(Weak::of(&target[..BLOCK]).digest()));
    assert_eq!(search.next_match(&target, true), None);
    let allowed = FALSE_ALARM_FLOOR + FALSE_ALARMS_PER_BYTE * target.len() as u64;
    assert!(
        search.false_alarms > FALSE_ALARM_FLOOR,
        "the input is hostile"
    );
    assert!(search.false_alarms <= allowed + BLOCK as u64);

    let whole = search.false_alarms;
    let mut search = Search::new(&blocks, 0, 0);
    assert_eq!(search.next_match(&target[..1 << 20], false), None);
    let searched = search.position();
    search.advance_window(searched);
    assert_eq!(search.next_match(&target[searched..], true), None);
    assert_eq!(search.false_alarms, whole, "the windows don't matter");
}
