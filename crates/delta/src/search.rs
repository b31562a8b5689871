//! The search for the blocks of a basis in a target.

use std::sync::OnceLock;

use crate::{
    Signature,
    anchor::{ANCHORS, Finder, ISOLATION, KEY_LEN, Keys, Layout, STEP},
    index::{Marks, Strongs},
    signature::Mark,
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
    /// Made when they are first needed, which for an unchanged target they aren't.
    strongs: OnceLock<Strongs<'s>>,
    marks: OnceLock<Marks<'s>>,
}

impl<'s> Blocks<'s> {
    pub(crate) fn new(signature: &'s Signature) -> Self {
        Self {
            signature,
            hasher: StrongHasher::new(signature.seed()),
            keys: Keys::new(signature.seed()),
            strongs: OnceLock::new(),
            marks: OnceLock::new(),
        }
    }

    pub(crate) const fn block_len(&self) -> usize {
        self.signature.block_size().len()
    }

    fn marks(&self) -> &Marks<'s> {
        self.marks.get_or_init(|| Marks::new(self.signature))
    }

    /// The places of this key in a few blocks from this one on.
    fn places_near(&self, block: usize, key: u32) -> impl Iterator<Item = usize> {
        let blocks = self.signature.blocks().iter().skip(block).take(LIKELIEST);
        blocks.filter_map(move |block| match block.mark {
            Mark::Anchor { key: other, place } if other == key => Some(usize::from(place.get())),
            _ => None,
        })
    }

    /// The full-sized block that has this strong hash, which is that of `bytes`, and the mark of which
    /// is in them too: 48 bits alone are few where they are compared with those of all blocks.
    fn find(&self, strong: Strong, bytes: &[u8]) -> Option<usize> {
        let strongs = self.strongs.get_or_init(|| Strongs::new(self.signature));
        let found = strongs.find(strong)?;
        let has_mark = match self.signature.blocks()[found].mark {
            Mark::Anchor { key, place } => bytes[usize::from(place.get())..]
                .first_chunk()
                .is_some_and(|bytes| self.keys.of(bytes) == key),
            Mark::Weak(weak) => Weak::of(bytes).digest() == weak,
        };
        has_mark.then_some(found)
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

/// How far a search for anchors and weak hashes has come.
#[derive(Debug)]
struct Scan {
    /// Positions before are searched for anchors.
    cursor: usize,
    /// How many positions to search at once next; 0 if none was searched yet.
    step: usize,
    /// Blocks without anchor that begin before are searched.
    roll: usize,
    /// The block that was expected where the search began: it and the next are the likeliest.
    expected: usize,
}

impl Scan {
    const fn new(at: usize, expected: usize) -> Self {
        Self {
            expected,
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

/// How many blocks from the expected one on are looked for whatever else has the same key: where text
/// repeats itself, more blocks may have one than are tried.
const LIKELIEST: usize = 4;

/// How far a small change moves what follows it, in bytes. Blocks with anchors are longer.
const NEAR: usize = 256;

/// How many positions are rolled over at a time.
const ROLLED: usize = 256;

/// After a change the next match is often near; later ever more positions are searched at once.
const FIRST_STEP: usize = STEP / 4;

/// How many bytes may be hashed in vain where an anchor or a weak hash gives hope: some, and then so
/// many per byte of the target. Honest data stay far below. On data made for it, where most
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
                    let bytes = &window[self.at..][..self.blocks.block_len()];
                    if let Some(found) = self.blocks.find(strong, bytes) {
                        return Some(self.accept(self.at, found));
                    }
                    if let Some((limit, near)) = self.near(block, window) {
                        // Another block may stand before it, or partly in its place.
                        let scan = Scan::new(self.at, block);
                        let before = self.scan_anchored(scan, window, at_end, limit);
                        let (at, found) = before.unwrap_or((limit, near));
                        return Some(self.accept(at, found));
                    }
                    let after = self.at + self.blocks.block_len();
                    self.state = match self.blocks.test(block + 1, &window[after..]) {
                        Some(_) => {
                            self.at = after;
                            State::Expect(block + 1)
                        }
                        None => State::Scan(Scan::new(self.at, block)),
                    };
                }
                State::Scan(_) if at_end && window.len() < self.at + self.blocks.block_len() => {
                    return self.tail(window);
                }
                State::Scan(scan) => {
                    let scan = std::mem::replace(scan, Scan::new(0, 0));
                    let found = match self.anchored.is_some() {
                        true => self.scan_anchored(scan, window, at_end, usize::MAX),
                        false => self.scan_small(scan, window),
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

    /// Looks for the block after the missed one by its anchor, near to where it would be if nothing
    /// had moved; a small change is behind the search so before it has begun.
    fn near(&mut self, missed: usize, window: &[u8]) -> Option<(usize, usize)> {
        let signature = self.blocks.signature;
        let block_len = self.blocks.block_len();
        let next = missed + 1;
        let Mark::Anchor { key, place } = signature.blocks().get(next)?.mark else {
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

    /// Searches on for blocks that begin before `limit`; gives the place of one and its number.
    fn scan_anchored(
        &mut self,
        scan: Scan,
        window: &[u8],
        at_end: bool,
        limit: usize,
    ) -> Option<(usize, usize)> {
        let mut anchored = self.anchored.take()?;
        let found = self.scan(scan, &mut anchored, window, at_end, limit);
        self.anchored = Some(anchored);
        found
    }

    /// Searches on for anchors, and for blocks without; gives the place of a block and its number.
    fn scan(
        &mut self,
        mut scan: Scan,
        anchored: &mut Anchored,
        window: &[u8],
        at_end: bool,
        mut limit: usize,
    ) -> Option<(usize, usize)> {
        let marks = self.blocks.marks();
        let block_len = self.blocks.block_len();
        let (_, last_place) = anchored.layout.places();
        // The first found is not always the first that begins: so the search goes on before it.
        let mut first = None;
        if scan.step == 0 {
            anchored.finder.restart();
            scan.step = FIRST_STEP;
        }
        loop {
            // What an anchor promises must be in view; before a limit it is.
            let is_limited = limit < usize::MAX;
            let needed = if at_end || is_limited {
                KEY_LEN
            } else {
                block_len
            };
            let end = (window.len() + 1).saturating_sub(needed);
            let end = end.min(limit.saturating_add(last_place));
            let mut count = end.saturating_sub(scan.cursor).min(scan.step);
            if !at_end && !is_limited {
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
            simd::prefetch(bytes, count);
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
                let is_gap = marks.has_weak() & (scan.roll + last_place < anchor);
                promises += usize::from(marks.may_have_anchor(key) | is_gap);
                scan.roll = scan.roll.max(anchor + 1 - ISOLATION);
            }
            scan.cursor += count;
            for promise in &anchored.promises[..promises] {
                let starts = promise.roll..promise.anchor.saturating_sub(last_place).min(limit);
                if marks.has_weak()
                    && let Some(found) = self.roll(marks, starts, window)
                {
                    limit = found.0;
                    first = Some(found);
                }
                let likeliest = self.blocks.places_near(scan.expected, promise.key);
                for place in likeliest.chain(marks.places(promise.key)) {
                    // What is at the place itself was looked up before the search began.
                    if let Some(at) = promise.anchor.checked_sub(place)
                        && (self.at + 1..limit).contains(&at)
                        && let Some(block) = self.probe(at, window)
                    {
                        limit = at;
                        first = Some((at, block));
                    }
                }
            }
            let starts = scan.roll..scan.cursor.saturating_sub(last_place).min(limit);
            let searched = scan.roll.max(starts.end);
            if marks.has_weak()
                && let Some(found) = self.roll(marks, starts, window)
            {
                limit = found.0;
                first = Some(found);
            }
            scan.roll = searched;
        }
        if first.is_some() {
            return first;
        }
        self.at = self.at.max(scan.cursor.saturating_sub(block_len));
        scan.roll = scan.roll.max(self.at);
        self.state = State::Scan(scan);
        None
    }

    /// Searches every position, for blocks that are too small to have anchors.
    fn scan_small(&mut self, mut scan: Scan, window: &[u8]) -> Option<(usize, usize)> {
        let marks = self.blocks.marks();
        let end = (window.len() + 1).saturating_sub(self.blocks.block_len());
        let starts = scan.roll..end;
        let searched = scan.roll.max(end);
        if marks.has_weak()
            && let Some(found) = self.roll(marks, starts, window)
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
        marks: &Marks<'_>,
        starts: std::ops::Range<usize>,
        window: &[u8],
    ) -> Option<(usize, usize)> {
        let block_len = self.blocks.block_len();
        let end = starts.end.min((window.len() + 1).saturating_sub(block_len));
        if starts.start >= end {
            return None;
        }
        let mut at = starts.start;
        let mut weak = Weak::of(&[]);
        let mut is_known = false;
        // First the hashes of many positions, then which of them the filter lets pass, and then what
        // these are: so the processor has no branch to guess that depends on the data.
        let mut digests = [0; ROLLED];
        let mut passing = [0; ROLLED];
        while at < end {
            // Up to a boundary that doesn't depend on the window.
            #[expect(clippy::cast_possible_truncation, reason = "it is a small remainder")]
            let past = (self.before % ROLLED as u64) as usize + at;
            let count = (ROLLED - past % ROLLED).min(end - at);
            if self.is_over_budget(at) {
                at += count;
                is_known = false;
                continue;
            }
            if !is_known {
                weak = Weak::of(&window[at..][..block_len]);
                is_known = true;
            }
            let digests = &mut digests[..count];
            // The last window has nothing behind it to roll on to; its hash is the one left over.
            let steps = count.min(window.len() - block_len - at);
            weak.roll_all(
                &window[at..],
                &window[at + block_len..],
                &mut digests[..steps],
            );
            if steps < count {
                digests[steps] = weak.digest();
            }
            let mut passed = 0;
            for (position, digest) in (0u16..).zip(&*digests) {
                passing[passed % ROLLED] = position;
                passed += usize::from(marks.may_have_weak(*digest));
            }
            for position in &passing[..passed] {
                // Those that only the filter lets pass would be too many for strong hashes.
                let weak = digests[usize::from(*position)];
                let at = at + usize::from(*position);
                if marks.has_weak_hash(weak)
                    && let Some(block) = self.probe(at, window)
                {
                    return Some((at, block));
                }
            }
            at += count;
        }
        None
    }

    /// Tests whether a block of the basis is at this place.
    #[inline(never)]
    fn probe(&mut self, at: usize, window: &[u8]) -> Option<usize> {
        let bytes = window.get(at..)?.get(..self.blocks.block_len())?;
        if at < self.at || self.is_over_budget(at) {
            return None;
        }
        let found = self.blocks.find(self.blocks.hasher.hash(bytes), bytes);
        if found.is_none() {
            self.false_alarms += bytes.len() as u64;
        }
        found
    }

    /// Whether too much was hashed in vain for this place of the window.
    const fn is_over_budget(&self, at: usize) -> bool {
        let allowed = FALSE_ALARMS_PER_BYTE * (self.before + at as u64) + FALSE_ALARM_FLOOR;
        self.false_alarms > allowed
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
