//! The search where nothing is known of what comes.

use std::ops::Range;

use super::{Blocks, Search, State};
use crate::{
    anchor::{ANCHORS, Finder, ISOLATION, KEY_LEN, Layout, STEP},
    index::Marks,
    simd::{self, WORD},
    weak::Weak,
};

/// How far a search for anchors and weak hashes has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan {
    /// Positions before are searched for anchors.
    pub(super) cursor: usize,
    /// How many positions to search at once next; 0 if none was searched yet.
    step: usize,
    /// Blocks without anchor that begin before are searched.
    pub(super) roll: usize,
    /// The block that was expected where the search began: it and the next are the likeliest.
    expected: usize,
}

impl Scan {
    pub(super) const fn new(at: usize, expected: usize) -> Self {
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
pub(super) struct Anchored {
    layout: Layout,
    pub(super) finder: Finder,
    promises: [Promise; ANCHORS],
}

impl Anchored {
    pub(super) fn of(blocks: &Blocks<'_>) -> Option<Box<Self>> {
        let layout = Layout::of(blocks.signature.block_size())?;
        Some(Box::new(Self {
            layout,
            finder: layout.finder(),
            promises: [Promise::default(); ANCHORS],
        }))
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

impl Search<'_, '_> {
    /// Searches on for any block; gives its place and its number.
    pub(super) fn scan(
        &mut self,
        scan: Scan,
        window: &[u8],
        at_end: bool,
    ) -> Option<(usize, usize)> {
        match self.anchored.take() {
            Some(mut anchored) => {
                let found = self.scan_anchors(scan, &mut anchored, usize::MAX, window, at_end);
                self.anchored = Some(anchored);
                found
            }
            None => self.scan_small(scan, window),
        }
    }

    /// Searches for a block that begins before `limit`, which is in view.
    pub(super) fn scan_before(
        &mut self,
        scan: Scan,
        limit: usize,
        window: &[u8],
        at_end: bool,
    ) -> Option<(usize, usize)> {
        let mut anchored = self.anchored.take()?;
        let found = self.scan_anchors(scan, &mut anchored, limit, window, at_end);
        self.anchored = Some(anchored);
        found
    }

    /// Searches for anchors, and for blocks without.
    fn scan_anchors(
        &mut self,
        mut scan: Scan,
        anchored: &mut Anchored,
        mut limit: usize,
        window: &[u8],
        at_end: bool,
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
            // Rolling hashes a block to begin with: so for a block's length at once, or at the end.
            let starts = scan.roll..scan.cursor.saturating_sub(last_place).min(limit);
            if starts.len() >= block_len {
                scan.roll = starts.end;
                if marks.has_weak()
                    && let Some(found) = self.roll(marks, starts, window)
                {
                    limit = found.0;
                    first = Some(found);
                }
            }
        }
        let starts = scan.roll..scan.cursor.saturating_sub(last_place).min(limit);
        scan.roll = scan.roll.max(starts.end);
        if marks.has_weak()
            && let Some(found) = self.roll(marks, starts, window)
        {
            first = Some(found);
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
        starts: Range<usize>,
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
            let allowed = self.first_allowed();
            if at < allowed {
                at = allowed.min(end);
                is_known = false;
                continue;
            }
            let count = ROLLED.min(end - at);
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
                if at < self.first_allowed() || !marks.has_weak_hash(weak) {
                    continue;
                }
                if let Some(block) = self.probe(at, window) {
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
        if at < self.at.max(self.first_allowed()) {
            return None;
        }
        let found = self.blocks.find(self.blocks.hasher.hash(bytes), bytes);
        if found.is_none() {
            self.false_alarms += bytes.len() as u64;
        }
        found
    }
}

/// How many positions are rolled over at a time.
const ROLLED: usize = 256;

/// After a change the next match is often near; later ever more positions are searched at once.
const FIRST_STEP: usize = STEP / 4;
