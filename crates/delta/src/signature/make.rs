//! How the hashes of a basis are made.

use std::{
    num::{NonZeroU16, NonZeroUsize},
    thread,
};

use super::{Block, Mark};
use crate::{
    BlockSize, Seed,
    anchor::{Finder, KEY_LEN, Keys, Layout, STEP},
    strong::StrongHasher,
    weak::Weak,
};

/// Makes the blocks of a whole basis, or of a part that begins and ends with a segment.
pub(super) fn blocks(
    basis: &[u8],
    block_size: BlockSize,
    seed: Seed,
    threads: NonZeroUsize,
) -> Vec<Block> {
    let segments = basis.len().div_ceil(segment_len(block_size));
    let share = segments.div_ceil(threads.get()).max(1) * segment_len(block_size);
    let make = |part: &[u8]| {
        let mut blocks = Vec::with_capacity(part.len().div_ceil(block_size.len()));
        Maker::new(block_size, seed).push(part, &mut blocks);
        blocks
    };
    let Some((own, others)) = basis.split_at_checked(share) else {
        return make(basis);
    };
    thread::scope(|scope| {
        let others: Vec<_> = others
            .chunks(share)
            .map(|part| scope.spawn(move || make(part)))
            .collect();
        let mut blocks = make(own);
        for other in others {
            match other.join() {
                Ok(made) => blocks.extend(made),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        blocks
    })
}

/// How much of a basis is read at a time: whole segments for several threads, and for one, whole
/// blocks that stay in the second-level cache.
pub(super) const fn piece_len(block_size: BlockSize, threads: NonZeroUsize) -> usize {
    match threads.get() {
        1 => (256usize << 10).next_multiple_of(block_size.len()),
        threads if threads < MAX_SEGMENTS => segment_len(block_size) * threads,
        _ => segment_len(block_size) * MAX_SEGMENTS,
    }
}

/// How many segments are read at a time at most, and so how many threads work at what is read.
const MAX_SEGMENTS: usize = 64;

/// A segment of a basis: the blocks whose anchors are chosen by how rare they are among themselves.
/// So no thread needs to know of another, and the counts stay in the cache.
const fn segment_len(block_size: BlockSize) -> usize {
    (8usize << 20).next_multiple_of(block_size.len())
}

/// Makes blocks one after the other.
pub(super) struct Maker {
    block_size: usize,
    hasher: StrongHasher,
    anchors: Option<Anchors>,
    /// How much is left of the current segment, in bytes.
    left: usize,
    segment_len: usize,
}

impl Maker {
    pub(super) fn new(block_size: BlockSize, seed: Seed) -> Self {
        Self {
            block_size: block_size.len(),
            hasher: StrongHasher::new(seed),
            anchors: Layout::of(block_size).map(|layout| Anchors::new(layout, seed)),
            left: 0,
            segment_len: segment_len(block_size),
        }
    }

    /// Takes the next piece of the basis: whole blocks, unless it is the last piece.
    pub(super) fn push(&mut self, piece: &[u8], blocks: &mut Vec<Block>) {
        blocks.extend(piece.chunks(self.block_size).map(|block| {
            if self.left == 0 {
                self.left = self.segment_len;
                if let Some(anchors) = &mut self.anchors {
                    anchors.forget();
                }
            }
            self.left -= block.len();
            let strong = self.hasher.hash(block);
            let anchor = match &mut self.anchors {
                Some(anchors) if block.len() == self.block_size => anchors.rarest(block),
                _ => None,
            };
            let mark = match anchor {
                Some((place, key)) => Mark::Anchor { key, place },
                None => Mark::Weak(Weak::of(block).digest()),
            };
            Block { mark, strong }
        }));
    }
}

/// Finds the anchors of blocks, and counts how often their keys were seen.
struct Anchors {
    layout: Layout,
    finder: Finder,
    keys: Keys,
    /// How often keys were seen that have these low bits. Rare keys are told from common ones well
    /// enough by it, and it stays small.
    seen: Vec<u8>,
}

/// As many counters as a segment has anchors, twice over, at the usual block size.
const COUNTERS: usize = 1 << 16;

impl Anchors {
    fn new(layout: Layout, seed: Seed) -> Self {
        Self {
            layout,
            finder: layout.finder(),
            keys: Keys::new(seed),
            seen: vec![0; COUNTERS],
        }
    }

    fn forget(&mut self) {
        self.seen.fill(0);
    }

    /// The anchor of a block whose key was seen least, the first of several.
    fn rarest(&mut self, block: &[u8]) -> Option<(NonZeroU16, u32)> {
        self.finder.restart();
        let (_, last) = self.layout.places();
        // How often it was seen, its place, and its key, in one number to find the least.
        let mut rarest = u64::MAX;
        for step in (0..=last).step_by(STEP) {
            let bytes = &block[step..];
            for &anchor in self.finder.find(bytes, STEP.min(last + 1 - step)) {
                let Some(bytes) = bytes[usize::from(anchor)..].first_chunk::<KEY_LEN>() else {
                    break;
                };
                let key = self.keys.of(bytes);
                let seen = &mut self.seen[key as usize % COUNTERS];
                *seen = seen.saturating_add(1);
                let place = step as u64 + u64::from(anchor);
                rarest = rarest.min(u64::from(*seen) << 48 | place << 32 | u64::from(key));
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "these are its parts")]
        let (place, key) = ((rarest >> 32) as u16, rarest as u32);
        let place = NonZeroU16::new(place)?;
        (rarest != u64::MAX).then_some((place, key))
    }
}
