//! The search for the blocks of a basis in a target.

use crate::{
    Signature,
    index::{self, Index},
    strong::Strong,
    weak::Weak,
};

/// A stretch of the target that the basis has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match {
    /// Where it begins in the window.
    pub(crate) at: usize,
    /// Where it begins in the basis.
    pub(crate) offset: u64,
    /// Its length in bytes.
    pub(crate) len: usize,
}

/// Finds the blocks of a basis in a target that passes by in a window.
///
/// In this order, at each place of the target:
///
/// 1. the block after the one that matched last: unchanged stretches cost one strong hash per byte;
/// 2. where that fails, the blocks a little later on the same diagonal. An edit that moves nothing is
///    bridged so, and only the gap is searched by 3, for blocks that fit into it whole;
/// 3. every position, by rolling the weak hash along (Tridgell 1999, chapter 3);
/// 4. at the end of the target, the short last block of the basis.
///
/// What is found depends on the target alone, not on where the windows were cut: nothing is decided
/// until [`Search::look_ahead`] bytes are in view, or the end is.
#[derive(Debug)]
pub(crate) struct Search<'s> {
    signature: &'s Signature,
    index: Index,
    /// Where to search on, in the window.
    at: usize,
    /// How much of the target came before the window.
    before: u64,
    /// The block that may follow the last match.
    expected: Option<usize>,
    /// A match on the diagonal, while the gap before it is searched.
    beyond: Option<(usize, Match)>,
    /// What the strong hash was computed over in vain, in bytes.
    false_alarms: u64,
}

/// How many blocks ahead the diagonal is tried after a mismatch.
const DIAGONAL: [usize; 5] = [1, 2, 3, 4, 8];

/// How many bytes rolled positions may hash in vain: some, and then so many per byte of the target.
/// Honest data stays far below. On data made for it, where most positions fit a block's weak hash
/// but none its strong hash, the search turns linear and what it skips is sent as a literal.
const FALSE_ALARM_FLOOR: u64 = 16 << 20;
const FALSE_ALARMS_PER_BYTE: u64 = 16;

impl<'s> Search<'s> {
    pub(crate) fn new(signature: &'s Signature) -> Self {
        Self {
            signature,
            index: Index::new(signature),
            at: 0,
            before: 0,
            expected: Some(0),
            beyond: None,
            false_alarms: 0,
        }
    }

    /// How many bytes must be in view for a decision, unless the end of the target is.
    pub(crate) const fn look_ahead(&self) -> usize {
        (DIAGONAL[DIAGONAL.len() - 1] + 1) * self.signature.block_size().len()
    }

    /// How far into the window the search has come: no match begins before.
    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    /// Takes notice that the first `len` bytes of the window, all searched, are gone.
    pub(crate) fn advance_window(&mut self, len: usize) {
        self.at -= len;
        self.before += len as u64;
        if let Some((_, beyond)) = &mut self.beyond {
            beyond.at -= len;
        }
    }

    /// Finds the next match in `window`, of one block; `at_end` says that the target ends with it.
    ///
    /// `None` means that it needs to see more, or if `at_end`, that there is no other match.
    pub(crate) fn next_match(&mut self, window: &[u8], at_end: bool) -> Option<Match> {
        let decidable = if at_end {
            window.len()
        } else {
            window.len().saturating_sub(self.look_ahead())
        };
        while self.at < decidable {
            let limit = self.beyond.map_or(window.len(), |(_, found)| found.at);
            if let Some(block) = self.expected.take() {
                if let Some(found) = self.test(block, &window[..limit], self.at) {
                    return Some(self.accept(block, found));
                }
                if self.beyond.is_none() {
                    self.beyond = self.test_diagonal(block, window);
                    continue;
                }
            }
            if let Some((block, found)) = self.roll(&window[..limit], decidable) {
                return Some(self.accept(block, found));
            }
            if self.at + self.block_len() <= limit {
                // All positions that can be decided were.
                return None;
            }
            return match self.beyond.take() {
                Some((block, found)) => Some(self.accept(block, found)),
                None => self.test_tail(window),
            };
        }
        None
    }

    fn accept(&mut self, block: usize, found: Match) -> Match {
        self.at = found.at + found.len;
        self.expected = Some(block + 1);
        found
    }

    /// Tests whether the basis' block is at this place.
    fn test(&self, block: usize, window: &[u8], at: usize) -> Option<Match> {
        let hashes = self.signature.blocks().get(block)?;
        let found = self.found(block, at);
        let bytes = window.get(at..)?.get(..found.len)?;
        (Strong::of(bytes, self.signature.seed()) == hashes.strong).then_some(found)
    }

    fn test_diagonal(&self, block: usize, window: &[u8]) -> Option<(usize, Match)> {
        DIAGONAL.into_iter().find_map(|ahead| {
            let block = block + ahead;
            let at = self.at + ahead * self.block_len();
            Some((block, self.test(block, window, at)?))
        })
    }

    /// Tests the short last block at the end of the target; nothing is left to search then.
    fn test_tail(&mut self, target: &[u8]) -> Option<Match> {
        let start = target.len().checked_sub(self.signature.short_len());
        let from = self.at;
        self.at = target.len();
        let start = start.filter(|start| *start >= from && *start < target.len())?;
        self.test(self.signature.full_blocks(), target, start)
    }

    /// Rolls along `window` for a block that fits into it whole, over positions before `decidable`.
    fn roll(&mut self, window: &[u8], decidable: usize) -> Option<(usize, Match)> {
        let rest = window.get(self.at..)?;
        let (first, entering) = rest.split_at_checked(self.block_len())?;
        let mut weak = Weak::of(first);
        let mut steps = rest.iter().zip(entering).take(decidable - self.at - 1);
        let mut at = self.at;
        loop {
            let digest = weak.digest();
            if self.index.may_have(digest)
                && let Some(block) = self.probe(digest, window, at)
            {
                return Some((block, self.found(block, at)));
            }
            at += 1;
            let Some((leaving, entering)) = steps.next() else {
                self.at = at;
                return None;
            };
            weak.roll(*leaving, *entering);
        }
    }

    /// Tests whether the block at this place, which has the weak hash `weak`, is one of the basis.
    #[cold]
    fn probe(&mut self, weak: u32, window: &[u8], at: usize) -> Option<usize> {
        let candidates = self.index.candidates(weak);
        let allowed = FALSE_ALARMS_PER_BYTE * (self.before + at as u64) + FALSE_ALARM_FLOOR;
        if candidates.is_empty() || self.false_alarms > allowed {
            return None;
        }
        let bytes = &window[at..at + self.block_len()];
        let found = index::find(candidates, Strong::of(bytes, self.signature.seed()));
        if found.is_none() {
            self.false_alarms += bytes.len() as u64;
        }
        found
    }

    fn found(&self, block: usize, at: usize) -> Match {
        let len = if block < self.signature.full_blocks() {
            self.block_len()
        } else {
            self.signature.short_len()
        };
        Match {
            at,
            offset: block as u64 * u64::from(self.signature.block_size().get()),
            len,
        }
    }

    fn block_len(&self) -> usize {
        self.signature.block_size().len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{BlockSize, Seed, SignatureOptions};

    const BLOCK: usize = BlockSize::MIN as usize;

    fn signature(basis: &[u8]) -> Signature {
        let options = SignatureOptions {
            block_size: Some(BlockSize::try_from(BlockSize::MIN).unwrap()),
            seed: Seed(1),
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

    fn matches(basis: &[u8], target: &[u8]) -> Vec<(usize, u64)> {
        let signature = signature(basis);
        let mut search = Search::new(&signature);
        let found = std::iter::from_fn(|| search.next_match(target, true));
        found.map(|found| (found.at, found.offset)).collect()
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
        let mut search = Search::new(&signature);
        let mut all = Vec::new();
        let (mut start, mut end) = (0, 0);
        loop {
            end = target.len().min(end + step);
            while let Some(found) = search.next_match(&target[start..end], end == target.len()) {
                all.push((start + found.at, found.offset));
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
        let mut search = Search::new(&signature);
        assert!(search.index.may_have(Weak::of(&target[..BLOCK]).digest()));
        assert_eq!(search.next_match(&target, true), None);
        let allowed = FALSE_ALARM_FLOOR + FALSE_ALARMS_PER_BYTE * target.len() as u64;
        assert!(
            search.false_alarms > FALSE_ALARM_FLOOR,
            "the input is hostile"
        );
        assert!(search.false_alarms <= allowed + BLOCK as u64);

        let whole = search.false_alarms;
        let mut search = Search::new(&signature);
        assert_eq!(search.next_match(&target[..1 << 20], false), None);
        let searched = search.position();
        search.advance_window(searched);
        assert_eq!(search.next_match(&target[searched..], true), None);
        assert_eq!(search.false_alarms, whole, "the windows don't matter");
    }
}
