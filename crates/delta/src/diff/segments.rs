//! A target divided among threads.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::search::{Blocks, Match, Search};

/// How much of the target is searched at a time, rounded up to whole blocks.
const SEGMENT: usize = 8 << 20;

/// Finds the matches of a whole target, in their order.
///
/// Each segment is searched on its own, as if its blocks had not moved, and the results are stitched
/// together: a match that reaches into the next segment cuts what was found there.
pub(super) fn matches(blocks: &Blocks<'_>, target: &[u8], threads: NonZeroUsize) -> Vec<Match> {
    let segment_len = SEGMENT.next_multiple_of(blocks.block_len());
    let count = target.len().div_ceil(segment_len).max(1);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        loop {
            let segment = next.fetch_add(1, Ordering::Relaxed);
            if segment >= count {
                return found;
            }
            found.push((
                segment,
                search(blocks, target, segment * segment_len, segment_len),
            ));
        }
    };
    let mut segments = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.get().min(count))
            .map(|_| scope.spawn(work))
            .collect();
        let mut found = work();
        for other in others {
            match other.join() {
                Ok(others) => found.extend(others),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found
    });
    segments.sort_unstable_by_key(|(segment, _)| *segment);
    let mut all = Vec::new();
    for (_, segment) in segments {
        stitch(blocks, target, &mut all, segment);
    }
    all
}

/// The matches that begin in one segment; those that continue one another are one.
///
/// The search knows nothing of the target before: what it may hash in vain grows with the bytes that
/// it has searched itself, or that of all segments together would grow with their square.
fn search(blocks: &Blocks<'_>, target: &[u8], start: usize, len: usize) -> Vec<Match> {
    let view = Search::VIEW * blocks.block_len();
    let end = target.len().min(start + len + view);
    let window = &target[start..end];
    let mut search = Search::new(blocks, 0, start / blocks.block_len());
    let mut matches: Vec<Match> = Vec::new();
    while let Some(found) = search.next_match(window, end == target.len()) {
        let at = start + found.at;
        push(&mut matches, Match { at, ..found });
    }
    matches
}

fn stitch(blocks: &Blocks<'_>, target: &[u8], all: &mut Vec<Match>, segment: Vec<Match>) {
    let end = |found: &Match| found.at + found.len;
    let done = all.last().map_or(0, end);
    let mut segment = segment
        .into_iter()
        .skip_while(move |found| end(found) <= done)
        .peekable();
    if let Some(first) = segment.peek_mut() {
        let overlap = done.saturating_sub(first.at);
        first.at += overlap;
        first.offset += overlap as u64;
        first.len -= overlap;
    }
    // The search before ended at the boundary, and this one began with a guess: between the two, the
    // blocks may go on.
    let until = segment.peek().map_or(target.len(), |first| first.at);
    while let Some(last) = all.last().copied() {
        let at = end(&last);
        let Some(found) = blocks.at_offset(last.offset + last.len as u64, &target[at..until])
        else {
            break;
        };
        push(all, Match { at, ..found });
    }
    segment.for_each(|found| push(all, found));
}

fn push(matches: &mut Vec<Match>, found: Match) {
    match matches.last_mut() {
        Some(last)
            if last.at + last.len == found.at && last.offset + last.len as u64 == found.offset =>
        {
            last.len += found.len;
        }
        _ => matches.push(found),
    }
}
