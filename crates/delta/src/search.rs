//! The search for the blocks of a basis in a target.

use crate::{anchor::KEY_LEN, signature::Mark, simd, strong::Strong};

mod blocks;
mod scan;

pub(crate) use blocks::Blocks;
use scan::{Anchored, Scan};

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
/// At each place of the target, in this order:
///
/// 1. the block after the one that matched last: unchanged stretches cost one strong hash a byte;
/// 2. any block with the hash just computed: blocks that moved by a multiple of their size;
/// 3. the block after the expected one, by its anchor, near to where it would be if nothing had
///    moved: a small change. Then 4 says whether another begins before it;
/// 4. every anchor of what follows: blocks that moved by any distance, at the price of selecting
///    positions;
/// 5. where a block's length has no anchor, every position, by rolling the weak hash along (Tridgell
///    1999, chapter 3), for blocks that have no anchor either. Small blocks have none at all;
/// 6. at the end of the target, the short last block of the basis.
///
/// What is found depends on the target alone, not on where the windows were cut: nothing is decided
/// until enough bytes are in view ([`Search::VIEW`]), or the end is.
#[derive(Debug)]
pub(crate) struct Search<'b, 's> {
    blocks: &'b Blocks<'s>,
    /// No match begins before this place of the window.
    at: usize,
    /// How much of the target came before the window.
    before: u64,
    state: State,
    /// What finds anchors, where blocks have any.
    anchored: Option<Box<Anchored>>,
    /// What the strong hash was computed over in vain, in bytes.
    false_alarms: u64,
}

#[derive(Debug)]
enum State {
    /// This block may come next.
    Expect(usize),
    /// Another than this block came, with this hash.
    Missed(usize, Strong),
    /// Nothing is known of what comes.
    Scan(Scan),
}

/// How far a small change moves what follows it, in bytes. Blocks with anchors are longer.
const NEAR: usize = 256;

/// How many bytes may be hashed in vain where an anchor or a weak hash gives hope: some, and then so
/// many per byte of the target. Few honest data come near it. On data made for it, where most
/// positions promise a block and none holds it, the search stays linear, and what it skips is sent
/// as a literal.
const FALSE_ALARM_FLOOR: u64 = 4 << 20;
const FALSE_ALARMS_PER_BYTE: u64 = 4;

impl<'b, 's> Search<'b, 's> {
    /// How many blocks must be in view for a decision, before and behind the place it is made for.
    pub(crate) const VIEW: usize = 4;

    /// A search that begins at this place, where a block may be expected.
    pub(crate) fn new(blocks: &'b Blocks<'s>, at: usize, expected: usize) -> Self {
        Self {
            anchored: Anchored::of(blocks),
            blocks,
            at,
            before: 0,
            state: State::Expect(expected),
            false_alarms: 0,
        }
    }

    /// How many bytes must be in view, before and behind the place a decision is made for.
    pub(crate) const fn view(&self) -> usize {
        Self::VIEW * self.blocks.block_len()
    }

    /// Begins anew at this place of the window, where a block may be expected.
    pub(crate) fn jump(&mut self, at: usize, expected: usize) {
        self.at = at;
        self.state = State::Expect(expected);
    }

    /// Takes notice that the window of `len` bytes is gone and another part of the target follows.
    pub(crate) const fn end_window(&mut self, len: usize) {
        self.before += len as u64;
    }

    /// How far into the window the search has come: no match begins before.
    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    /// Takes notice that the first `len` bytes of the window, all searched, are gone.
    pub(crate) const fn advance_window(&mut self, len: usize) {
        self.at -= len;
        self.before += len as u64;
        if let State::Scan(scan) = &mut self.state {
            scan.cursor -= len;
            scan.roll -= len;
        }
    }

    /// Finds the next match in `window`; `at_end` says that the target ends with it.
    ///
    /// `None` means that it needs to see more, or if `at_end`, that there is no other match. Matches
    /// that continue one another may come one by one.
    pub(crate) fn next_match(&mut self, window: &[u8], at_end: bool) -> Option<Match> {
        loop {
            match &mut self.state {
                State::Expect(block) => {
                    let block = *block;
                    let found = self.run(block, window, at_end);
                    if found.is_some() {
                        return found;
                    }
                    if matches!(self.state, State::Expect(_)) {
                        return None;
                    }
                }
                State::Missed(block, strong) => {
                    let (block, strong) = (*block, *strong);
                    if let Some((at, found)) = self.missed(block, strong, window, at_end) {
                        return Some(self.accept(at, found));
                    }
                }
                State::Scan(_) if at_end && window.len() < self.at + self.blocks.block_len() => {
                    return self.tail(window);
                }
                State::Scan(scan) => {
                    let scan = *scan;
                    return match self.scan(scan, window, at_end) {
                        Some((at, block)) => Some(self.accept(at, block)),
                        None if at_end => self.tail(window),
                        None => None,
                    };
                }
            }
        }
    }

    /// Follows the target for as long as the expected blocks come.
    fn run(&mut self, mut block: usize, window: &[u8], at_end: bool) -> Option<Match> {
        let start = self.at;
        let offset = self.blocks.offset(block);
        let signature = self.blocks.signature;
        let block_len = self.blocks.block_len();
        self.state = loop {
            let rest = &window[self.at..];
            if !at_end && rest.len() < Self::VIEW * block_len {
                break State::Expect(block);
            }
            if block == signature.full_blocks()
                && let Some(len) = self.blocks.test(block, rest)
            {
                self.at += len;
                block += 1;
                continue;
            }
            let Some(bytes) = rest.get(..block_len) else {
                break State::Scan(Scan::new(self.at, block));
            };
            if simd::needs_prefetch(rest) {
                simd::prefetch(rest, block_len);
            }
            let strong = self.blocks.hasher.hash(bytes);
            let expected = signature.blocks()[..signature.full_blocks()].get(block);
            if expected.is_none_or(|expected| expected.strong != strong) {
                break State::Missed(block, strong);
            }
            self.at += block_len;
            block += 1;
        };
        let len = self.at - start;
        (len > 0).then_some(Match {
            at: start,
            offset,
            len,
        })
    }

    /// Goes on after a full-sized block.
    fn accept(&mut self, at: usize, block: usize) -> Match {
        let len = self.blocks.block_len();
        self.at = at + len;
        self.state = State::Expect(block + 1);
        Match {
            at,
            offset: self.blocks.offset(block),
            len,
        }
    }

    /// Finds out what came instead of the expected block, which has this strong hash; where that is
    /// not near, the state says how to go on.
    fn missed(
        &mut self,
        block: usize,
        strong: Strong,
        window: &[u8],
        at_end: bool,
    ) -> Option<(usize, usize)> {
        let bytes = &window[self.at..][..self.blocks.block_len()];
        if let Some(found) = self.blocks.find(strong, bytes) {
            return Some((self.at, found));
        }
        let scan = Scan::new(self.at, block);
        if let Some(near) = self.near(block, window) {
            // Another block may stand before it, or partly in its place.
            let (limit, _) = near;
            return Some(
                self.scan_before(scan, limit, window, at_end)
                    .unwrap_or(near),
            );
        }
        let after = self.at + self.blocks.block_len();
        self.state = match self.blocks.test(block + 1, &window[after..]) {
            Some(_) => {
                self.at = after;
                State::Expect(block + 1)
            }
            None => State::Scan(scan),
        };
        None
    }

    /// Looks for the block after the missed one by its anchor, near to where it would be if nothing
    /// had moved; a small change is behind the search so before it has begun.
    fn near(&mut self, missed: usize, window: &[u8]) -> Option<(usize, usize)> {
        let signature = self.blocks.signature;
        let block_len = self.blocks.block_len();
        let next = missed + 1;
        let full = &signature.blocks()[..signature.full_blocks()];
        let Mark::Anchor { key, place } = full.get(next)?.mark else {
            return None;
        };
        let anchored = self.anchored.as_mut()?;
        let middle = self.at + block_len + usize::from(place.get());
        let start = middle - NEAR;
        let end = (middle + NEAR).min((window.len() + 1).saturating_sub(KEY_LEN));
        let bytes = window.get(start..)?;
        anchored.finder.restart();
        let anchors = anchored.finder.find(bytes, end.saturating_sub(start));
        let found = anchors.iter().find_map(|anchor| {
            let bytes = bytes[usize::from(*anchor)..].first_chunk::<KEY_LEN>()?;
            let at = (start + usize::from(*anchor)).checked_sub(usize::from(place.get()))?;
            (self.blocks.keys.of(bytes) == key && at >= self.at).then_some(at)
        });
        let at = found?;
        if self.blocks.test(next, &window[at..]).is_none() {
            self.false_alarms += block_len as u64;
            return None;
        }
        // The missed block may stand before it, moved but whole.
        let before = at.checked_sub(block_len).filter(|before| *before > self.at);
        match before {
            Some(before) if self.blocks.test(missed, &window[before..]).is_some() => {
                Some((before, missed))
            }
            _ => Some((at, next)),
        }
    }

    /// The first place of the window where as much may have been hashed in vain as was.
    ///
    /// What is tested so depends on the places alone, and not on how many are looked at at a time.
    fn first_allowed(&self) -> usize {
        let excess = self.false_alarms.saturating_sub(FALSE_ALARM_FLOOR);
        let allowed = excess.div_ceil(FALSE_ALARMS_PER_BYTE);
        usize::try_from(allowed.saturating_sub(self.before)).unwrap_or(usize::MAX)
    }

    /// Tests the short last block at the end of the target; nothing is left to search then.
    fn tail(&mut self, target: &[u8]) -> Option<Match> {
        let from = self.at;
        self.at = target.len();
        self.state = State::Scan(Scan::new(self.at, 0));
        let start = target
            .len()
            .checked_sub(self.blocks.signature.short_len())?;
        if start < from || start == target.len() {
            return None;
        }
        let block = self.blocks.signature.full_blocks();
        let len = self.blocks.test(block, &target[start..])?;
        Some(Match {
            at: start,
            offset: self.blocks.offset(block),
            len,
        })
    }
}

#[cfg(test)]
mod tests;
