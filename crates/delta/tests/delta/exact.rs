//! Nothing is sent that the basis has: every one of its blocks that stands whole in the target, where
//! nothing was matched before, is found.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use patchwire_delta::{Delta, Op, diff, librsync};
use proptest::prelude::*;

use crate::inputs::{bits, noise, noise_case, plain_case, searchable_case, signature};

proptest! {
    /// Against a search of every position, and against fast_rsync, which rolls over every position:
    /// not a byte more, as no two blocks can stand where they overlap.
    #[test]
    fn no_block_of_noise_is_overlooked(case in noise_case()) {
        let (basis, target) = (case.basis(), case.target());
        let delta = diff(&case.signature(), &target);
        prop_assert_eq!(Blocks::of(&basis, case.block_size).overlooked(&delta, &target), None);
        let theirs = literals_of_fast_rsync(&basis, &target, case.block_size);
        prop_assert!(delta.literal_bytes() <= theirs, "{} > {theirs}", delta.literal_bytes());
    }

    /// Where a block may stand at several places that overlap, which one is taken is a matter of luck
    /// in both, and so is what is lost of the block in its way. Content that is nowhere twice, but for
    /// whole blocks, has such places only where it was cut: a block may be lost on either side.
    #[test]
    fn literals_are_few_as_those_of_fast_rsync(case in plain_case()) {
        let (basis, target) = (case.basis(), case.target());
        let delta = diff(&case.signature(), &target);
        let theirs = literals_of_fast_rsync(&basis, &target, case.block_size);
        let slack = (2 * (case.seams() + 1) * case.block_len()) as u64;
        let ours = delta.literal_bytes();
        prop_assert!(ours <= theirs + slack, "{ours} > {theirs} + {slack}");
    }

    /// Whatever the content, zeros and periods of any length: nothing that can be found is left, and
    /// so each of our blocks is in the way of two of theirs at most.
    #[test]
    fn no_block_of_any_content_is_overlooked(case in searchable_case()) {
        let (basis, target) = (case.basis(), case.target());
        let delta = diff(&case.signature(), &target);
        let blocks = Blocks::of(&basis, case.block_size);
        prop_assert_eq!(blocks.overlooked(&delta, &target), None);
        if blocks.all {
            let theirs = literals_of_fast_rsync(&basis, &target, case.block_size);
            let ours: u64 = delta.ops().iter().map(|op| match op {
                Op::Copy { len, .. } => len.div_ceil(u64::from(case.block_size)),
                Op::Literal(_) => 0,
            }).sum();
            let copied = target.len() as u64 - theirs;
            prop_assert!(copied <= 2 * ours * u64::from(case.block_size), "{copied}, {ours} blocks");
        }
    }

    /// Blocks in any order, at any distance from one another, and nothing else.
    #[test]
    fn scattered_blocks_are_all_found(
        block_size in prop::sample::select(&[64u32, 512, 700, 2048, 65_536]),
        mut blocks in prop::collection::vec((any::<u32>(), 0u8..4, 0usize..5000), 1..20),
    ) {
        let len = usize::try_from(block_size).unwrap();
        // Of every kind that is found in its own way.
        let content = |number: usize, kind: u8| match kind {
            0 | 1 => noise(len, number as u64),
            2 => bits(len, number as u64),
            _ => {
                let period = noise(1 + number % 7, number as u64);
                period.into_iter().cycle().take(len).collect()
            }
        };
        let contents: Vec<_> =
            (1..).zip(&blocks).map(|(number, (_, kind, _))| content(number, *kind)).collect();
        let basis = contents.concat();
        let mut order: Vec<_> = contents.iter().zip(blocks.drain(..)).collect();
        order.sort_by_key(|(_, (order, ..))| *order);
        let mut target = Vec::new();
        let mut between = 0;
        for (content, (_, _, distance)) in order {
            target.extend(noise(distance, 1000 + between));
            between += distance as u64;
            target.extend(content);
        }
        let delta = diff(&signature(&basis, block_size), &target);
        prop_assert_eq!(delta.literal_bytes(), between);
    }
}

/// The blocks of a basis that a search can find.
struct Blocks<'b> {
    block_len: usize,
    /// By their first bytes.
    heads: HashMap<&'b [u8], Vec<&'b [u8]>>,
    /// Whether all can be found.
    all: bool,
}

impl<'b> Blocks<'b> {
    /// What can be found follows from the signature: if more than sixteen places go with one key,
    /// only the first sixteen are looked at, and blocks that have theirs elsewhere are found only near
    /// to where they are expected.
    fn of(basis: &'b [u8], block_size: u32) -> Self {
        let block_len = usize::try_from(block_size).unwrap();
        let mut blocks = Self {
            block_len,
            heads: HashMap::new(),
            all: true,
        };
        let encoded = signature(basis, block_size).encode();
        let mut places: HashMap<[u8; 4], BTreeSet<[u8; 2]>> = HashMap::new();
        let mut seen = BTreeSet::new();
        let entry_len = if block_size < 512 { 10 } else { 12 };
        let entries = encoded[24..].chunks_exact(entry_len);
        for (block, entry) in basis.chunks_exact(block_len).zip(entries) {
            if !seen.insert(&entry[entry_len - 6..]) {
                continue;
            }
            if let [a, b, c, d, e, f, _, _, _, _, _, _] = *entry
                && [e, f] != [0, 0]
            {
                let places = places.entry([a, b, c, d]).or_default();
                if places.len() == 16 && !places.contains(&[e, f]) {
                    blocks.all = false;
                    continue;
                }
                places.insert([e, f]);
            }
            let head = blocks.heads.entry(&block[..HEAD]).or_default();
            head.push(block);
        }
        blocks
    }

    /// Where in the literals a block stands.
    fn overlooked(&self, delta: &Delta<'_>, target: &[u8]) -> Option<usize> {
        gaps(delta).into_iter().find_map(|gap| {
            let literal = &target[gap.clone()];
            let mut windows = literal.windows(self.block_len);
            windows
                .position(|window| {
                    let blocks = self.heads.get(&window[..HEAD]);
                    blocks.is_some_and(|blocks| blocks.contains(&window))
                })
                .map(|at| gap.start + at)
        })
    }
}

const HEAD: usize = 32;

/// The literals, however many operations they are.
fn gaps(delta: &Delta<'_>) -> Vec<Range<usize>> {
    let mut gaps: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    for op in delta.ops() {
        let end = at + usize::try_from(op.len()).unwrap();
        if matches!(op, Op::Literal(_)) {
            match gaps.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => gaps.push(at..end),
            }
        }
        at = end;
    }
    gaps
}

/// How many literal bytes fast_rsync's delta has.
fn literals_of_fast_rsync(basis: &[u8], target: &[u8], block_size: u32) -> u64 {
    fn number(rest: &mut &[u8], len: usize) -> u64 {
        let (bytes, behind) = rest.split_at(len);
        *rest = behind;
        bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
    }

    let signature = librsync::signature(basis, block_size).unwrap();
    let delta = librsync::diff(&signature, target).unwrap();
    // The layout is that of librsync: a magic number, operations, and an end.
    let mut rest = &delta[4..];
    let mut literals = 0;
    loop {
        let tag = number(&mut rest, 1);
        let len = match tag {
            0 => return literals,
            1..=64 => tag,
            65..=68 => number(&mut rest, 1 << (tag - 65)),
            _ => {
                number(&mut rest, 1 << ((tag - 69) / 4));
                number(&mut rest, 1 << ((tag - 69) % 4));
                continue;
            }
        };
        literals += len;
        rest = &rest[usize::try_from(len).unwrap()..];
    }
}
