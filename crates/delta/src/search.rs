//! The search for the blocks of a basis in a target.

use std::sync::OnceLock;

use crate::{
    Signature,
    anchor::{ANCHORS, Finder, ISOLATION, KEY_LEN, Keys, Layout, STEP},
    index::Index,
    simd::{self, WORD},
    strong::{Strong, StrongHasher},
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

/// A signature with what it takes to find its blocks; searches in several threads share it.
#[derive(Debug)]
pub(crate) struct Blocks<'s> {
    signature: &'s Signature,
    hasher: StrongHasher,
    keys: Keys,
    /// Made when it is first needed, which for an unchanged target it isn't.
    index: OnceLock<Index>,
}

impl<'s> Blocks<'s> {
    pub(crate) fn new(signature: &'s Signature) -> Self {
        Self {
            signature,
            hasher: StrongHasher::new(signature.seed()),
            keys: Keys::new(signature.seed()),
            index: OnceLock::new(),
        }
    }

    pub(crate) const fn block_len(&self) -> usize {
        self.signature.block_size().len()
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| Index::new(self.signature))
    }

    /// Whether the basis' block is what `bytes` begin with, and how long it is.
    #[inline]
    pub(crate) fn test(&self, block: usize, bytes: &[u8]) -> Option<usize> {
        let strong = self.signature.blocks().get(block)?.strong;
        let len = if block < self.signature.full_blocks() {
            self.block_len()
        } else {
            self.signature.short_len()
        };
        (self.hasher.hash(bytes.get(..len)?) == strong).then_some(len)
    }

    /// The block that begins at this place of the basis, if `bytes` begin with it.
    pub(crate) fn at_offset(&self, offset: u64, bytes: &[u8]) -> Option<Match> {
        let block_len = self.block_len() as u64;
        let block = usize::try_from(offset / block_len).ok()?;
        let len = self
            .test(block, bytes)
            .filter(|_| offset.is_multiple_of(block_len))?;
        Some(Match { at: 0, offset, len })
    }

    pub(crate) const fn offset(&self, block: usize) -> u64 {
        block as u64 * self.signature.block_size().get() as u64
    }
}

/// Finds the blocks of a basis in a target that passes by in a window.
///
/// At each place of the target, in this order:
///
/// 1. the block after the one that matched last: unchanged stretches cost one strong hash a byte;
/// 2. any block with the hash just computed: blocks that moved by a multiple of their size;
/// 3. one block later, the block after the expected one: a change that moves nothing;
/// 4. every anchor of what follows: blocks that moved by any distance, at the price of selecting
///    positions;
/// 5. where a block's length has no anchor, every position, by rolling the weak hash along (Tridgell
///    1999, chapter 3), for blocks that have no anchor either. Small blocks have none at all;
/// 6. at the end of the target, the short last block of the basis.
///
/// What is found depends on the target alone, not on where the windows were cut: nothing is decided
/// until enough bytes are in view ([`Search::VIEW`]), or the end is.
#[derive(Debug)]
pub(crate) struct Search<'s> {
    blocks: &'s Blocks<'s>,
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

/// How far a search for anchors and weak hashes has come.
#[derive(Debug)]
struct Scan {
    /// Positions before are searched for anchors.
    cursor: usize,
    /// How many positions to search at once next; 0 if none was searched yet.
    step: usize,
    /// Blocks without anchor that begin before are searched.
    roll: usize,
}

impl Scan {
    const fn new(at: usize) -> Self {
        Self {
            cursor: at,
            step: 0,
            roll: at,
        }
    }
}

/// What a search needs where blocks have anchors.
#[derive(Debug)]
struct Anchored {
    layout: Layout,
    finder: Finder,
    promises: [Promise; ANCHORS],
}

impl Anchored {
    fn new(layout: Layout) -> Box<Self> {
        Box::new(Self {
            layout,
            finder: layout.finder(),
            promises: [Promise::default(); ANCHORS],
        })
    }
}

/// An anchor that may lead to a block.
#[derive(Debug, Clone, Copy, Default)]
struct Promise {
    anchor: usize,
    key: u32,
    /// A block without anchor that ends after it begins here at the earliest.
    roll: usize,
}

/// After a change the next match is often near; later ever more positions are searched at once.
const FIRST_STEP: usize = STEP / 4;

/// How many bytes may be hashed in vain where an anchor or a weak hash gives hope: some, and then so
/// many per byte of the target. Honest data stay far below. On data made for it, where most
/// positions promise a block and none holds it, the search stays linear, and what it skips is sent
/// as a literal.
const FALSE_ALARM_FLOOR: u64 = 4 << 20;
const FALSE_ALARMS_PER_BYTE: u64 = 4;

impl<'s> Search<'s> {
    /// How many blocks must be in view for a decision, before and behind the place it is made for.
    pub(crate) const VIEW: usize = 2;

    /// A search that begins at this place, where a block may be expected.
    pub(crate) fn new(blocks: &'s Blocks<'s>, at: usize, expected: usize) -> Self {
        Self {
            anchored: Layout::of(blocks.signature.block_size()).map(Anchored::new),
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
                    let index = self.blocks.index();
                    if let Some(found) = index.block(self.blocks.signature, strong) {
                        return Some(self.accept(self.at, found));
                    }
                    let after = self.at + self.blocks.block_len();
                    self.state = match self.blocks.test(block + 1, &window[after..]) {
                        Some(_) => {
                            self.at = after;
                            State::Expect(block + 1)
                        }
                        None => State::Scan(Scan::new(self.at)),
                    };
                }
                State::Scan(_) if at_end && window.len() < self.at + self.blocks.block_len() => {
                    return self.tail(window);
                }
                State::Scan(scan) => {
                    let scan = std::mem::replace(scan, Scan::new(0));
                    let found = match self.anchored.take() {
                        Some(mut anchored) => {
                            let found = self.scan(scan, &mut anchored, window, at_end);
                            self.anchored = Some(anchored);
                            found
                        }
                        None => self.scan_small(scan, window),
                    };
                    return match found {
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
                break State::Scan(Scan::new(self.at));
            }
            let Some(bytes) = rest.get(..block_len) else {
                break State::Scan(Scan::new(self.at));
            };
            simd::prefetch(rest, block_len);
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

    /// Searches on for anchors, and for blocks without; gives the place of a block and its number.
    fn scan(
        &mut self,
        mut scan: Scan,
        anchored: &mut Anchored,
        window: &[u8],
        at_end: bool,
    ) -> Option<(usize, usize)> {
        let index = self.blocks.index();
        let block_len = self.blocks.block_len();
        let (_, last_place) = anchored.layout.places();
        // What an anchor promises must be in view.
        let needed = if at_end { KEY_LEN } else { block_len };
        let end = (window.len() + 1).saturating_sub(needed);
        if scan.step == 0 {
            anchored.finder.restart();
            scan.step = FIRST_STEP;
        }
        loop {
            let mut count = end.saturating_sub(scan.cursor).min(scan.step);
            if !at_end {
                count -= count % WORD;
            }
            if count == 0 {
                break;
            }
            scan.step = STEP.min(2 * scan.step);

            // Nearly every anchor is only looked up in a filter. What is worth more is collected
            // first, without branches that the processor would guess wrong.
            let mut promises = 0;
            let bytes = &window[scan.cursor..];
            for &anchor in anchored.finder.find(bytes, count) {
                let Some(key) = bytes[usize::from(anchor)..].first_chunk::<KEY_LEN>() else {
                    break;
                };
                let key = self.blocks.keys.of(key);
                let anchor = scan.cursor + usize::from(anchor);
                anchored.promises[promises % ANCHORS] = Promise {
                    anchor,
                    key,
                    roll: scan.roll,
                };
                // Where a block's length has no anchor, there may be a block without.
                let is_gap = index.has_weak() & (scan.roll + last_place < anchor);
                promises += usize::from(index.may_have_anchor(key) | is_gap);
                scan.roll = scan.roll.max(anchor + 1 - ISOLATION);
            }
            scan.cursor += count;
            for promise in &anchored.promises[..promises] {
                let starts = promise.roll..promise.anchor.saturating_sub(last_place);
                if index.has_weak()
                    && let Some(found) = self.roll(index, starts, window)
                {
                    return Some(found);
                }
                for place in index.places(promise.key) {
                    if let Some(at) = promise.anchor.checked_sub(place)
                        && let Some(block) = self.probe(index, at, window)
                    {
                        return Some((at, block));
                    }
                }
            }
            let starts = scan.roll..scan.cursor.saturating_sub(last_place);
            let searched = scan.roll.max(starts.end);
            if index.has_weak()
                && let Some(found) = self.roll(index, starts, window)
            {
                return Some(found);
            }
            scan.roll = searched;
        }
        self.at = self.at.max(scan.cursor.saturating_sub(block_len));
        scan.roll = scan.roll.max(self.at);
        self.state = State::Scan(scan);
        None
    }

    /// Searches every position, for blocks that are too small to have anchors.
    fn scan_small(&mut self, mut scan: Scan, window: &[u8]) -> Option<(usize, usize)> {
        let index = self.blocks.index();
        let end = (window.len() + 1).saturating_sub(self.blocks.block_len());
        let starts = scan.roll..end;
        let searched = scan.roll.max(end);
        if index.has_weak()
            && let Some(found) = self.roll(index, starts, window)
        {
            return Some(found);
        }
        self.at = searched;
        scan.roll = searched;
        scan.cursor = searched;
        self.state = State::Scan(scan);
        None
    }

    /// Searches the positions in `starts`, by their weak hash, for blocks without anchor.
    fn roll(
        &mut self,
        index: &Index,
        starts: std::ops::Range<usize>,
        window: &[u8],
    ) -> Option<(usize, usize)> {
        let block_len = self.blocks.block_len();
        let end = starts.end.min((window.len() + 1).saturating_sub(block_len));
        if starts.start >= end {
            return None;
        }
        let first = &window[starts.start..][..block_len];
        let mut weak = Weak::of(first);
        let leaving = &window[starts.start..end - 1];
        let entering = &window[starts.start + block_len..];
        let mut steps = leaving.iter().zip(entering);
        let mut at = starts.start;
        loop {
            if index.may_have(weak.digest())
                && let Some(block) = self.probe(index, at, window)
            {
                return Some((at, block));
            }
            at += 1;
            let (leaving, entering) = steps.next()?;
            weak.roll(*leaving, *entering);
        }
    }

    /// Tests whether a block of the basis is at this place.
    #[inline(never)]
    fn probe(&mut self, index: &Index, at: usize, window: &[u8]) -> Option<usize> {
        let bytes = window.get(at..)?.get(..self.blocks.block_len())?;
        let allowed = FALSE_ALARMS_PER_BYTE * (self.before + at as u64) + FALSE_ALARM_FLOOR;
        if at < self.at || self.false_alarms > allowed {
            return None;
        }
        let found = index.block(self.blocks.signature, self.blocks.hasher.hash(bytes));
        if found.is_none() {
            self.false_alarms += bytes.len() as u64;
        }
        found
    }

    /// Tests the short last block at the end of the target; nothing is left to search then.
    fn tail(&mut self, target: &[u8]) -> Option<Match> {
        let from = self.at;
        self.at = target.len();
        self.state = State::Scan(Scan::new(self.at));
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
