use proptest::prelude::*;

use super::*;
use crate::{
    BlockSize, Seed, Signature, SignatureOptions,
    anchor::{ISOLATION, Layout, STEP},
    simd::WORD,
    weak::Weak,
};

/// Blocks so small have no anchors.
const BLOCK: usize = BlockSize::MIN as usize;

fn signature(basis: &[u8], block_len: usize) -> Signature {
    let block_size = u32::try_from(block_len).unwrap();
    let options = SignatureOptions {
        block_size: Some(BlockSize::try_from(block_size).unwrap()),
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

/// Noise of two values: no two stretches are alike, but hardly any position is selected.
fn bits(len: usize, state: u64) -> Vec<u8> {
    noise(len, state).iter().map(|byte| byte >> 7).collect()
}

/// The blocks that are found: where in the target, and where in the basis.
fn matches(signature: &Signature, target: &[u8]) -> Vec<(usize, u64)> {
    let blocks = Blocks::new(signature);
    let mut search = Search::new(&blocks, 0, 0);
    let found = std::iter::from_fn(|| search.next_match(target, true));
    found
        .flat_map(|found| single(found, blocks.block_len(), 0))
        .collect()
}

fn single(found: Match, block_len: usize, start: usize) -> impl Iterator<Item = (usize, u64)> {
    let steps = (0..found.len).step_by(block_len);
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
    assert_eq!(matches(&signature(&basis, BLOCK), &target), kept);
}

#[test]
fn blocks_moved_into_a_gap_are_found() {
    let basis = noise(BLOCK * 12, 2);
    let mut target = basis.clone();
    // Blocks 3 and 4 become one of noise with block 9 in its middle.
    target[BLOCK * 3..BLOCK * 5].copy_from_slice(&noise(BLOCK * 2, 3));
    target[BLOCK * 3 + 30..BLOCK * 4 + 30].copy_from_slice(&basis[BLOCK * 9..BLOCK * 10]);
    let found = matches(&signature(&basis, BLOCK), &target);
    assert!(found.contains(&(BLOCK * 3 + 30, (BLOCK * 9) as u64)));
    assert!(found.contains(&(BLOCK * 5, (BLOCK * 5) as u64)));
    assert_eq!(found.len(), 11);
}

#[test]
fn the_short_last_block_is_found_at_the_end_and_before_an_appendix() {
    for block_len in [BLOCK, 512, 2048] {
        let basis = noise(block_len * 2 + 17, 4);
        let signature = signature(&basis, block_len);
        let end = (block_len * 2) as u64;
        let edited = [b"inserted".as_slice(), &basis].concat();
        let tail = (8 + block_len * 2, end);
        assert_eq!(matches(&signature, &edited).last(), Some(&tail));
        let appended = [&basis, b"appended".as_slice()].concat();
        let found = matches(&signature, &appended);
        assert_eq!(found.last(), Some(&(block_len * 2, end)));
        let alone = [b"x".as_slice(), &basis[block_len * 2..]].concat();
        assert_eq!(matches(&signature, &alone), [(1, end)]);
    }
}

/// Blocks stand wherever one can, and without anything before or behind them.
#[test]
fn a_block_is_found_at_any_distance() {
    for (block_len, content) in [
        (BLOCK, noise(BLOCK, 6)),
        (512, noise(512, 6)),
        (700, noise(700, 6)),
        (700, bits(700, 6)),
        (2048, noise(2048, 6)),
    ] {
        let signature = signature(&content, block_len);
        let around = noise(3 * STEP, 7);
        for before in (0..block_len + 2 * WORD).chain(STEP - 40..STEP + 40) {
            let target = [&around[..before], &content].concat();
            assert_eq!(matches(&signature, &target), [(before, 0)]);
            let target = [&target, &around[..before]].concat();
            assert_eq!(matches(&signature, &target), [(before, 0)]);
        }
    }
}

/// Stretches of a basis in blocks with anchors and without, as `parts` say.
fn mixture(block_len: usize, parts: &[bool]) -> Vec<u8> {
    let parts = parts.iter().zip(10..);
    parts
        .flat_map(|(has_anchors, state)| {
            let len = 5 * block_len - 100;
            if *has_anchors {
                noise(len, state)
            } else {
                bits(len, state)
            }
        })
        .collect()
}

proptest! {
    /// The smallest windows that decide anything, slid as far as they can be, find the same.
    #[test]
    fn what_is_found_does_not_depend_on_the_windows(
        block_len in prop::sample::select(&[BLOCK, 512, 700, 2048]),
        parts in prop::collection::vec(any::<bool>(), 12),
        changes in prop::collection::vec(
            (
                0usize..60,
                prop_oneof![0usize..300, (1usize..10).prop_map(|blocks| blocks << 16)],
                any::<bool>(),
            ),
            0..8,
        ),
        step in 1usize..8192,
    ) {
        let basis = mixture(block_len, &parts);
        let mut target = basis.clone();
        for (at, len, is_noise) in changes {
            // The low half are 64ths of a block, the high half are blocks.
            let len = (len & 0xFFFF) * block_len / 64 + (len >> 16) * block_len;
            let at = (at * block_len).min(target.len());
            let end = target.len().min(at + len);
            let len = len / block_len * block_len;
            let new = if is_noise { noise(len, at as u64) } else { bits(len, at as u64) };
            target.splice(at..end, new);
        }
        let signature = signature(&basis, block_len);
        let (found, _) = matches_in_windows(&signature, &target, step);
        prop_assert_eq!(found, matches(&signature, &target));
    }
}

/// What is found, and how many bytes were hashed in vain for it.
fn matches_in_windows(
    signature: &Signature,
    target: &[u8],
    step: usize,
) -> (Vec<(usize, u64)>, u64) {
    let blocks = Blocks::new(signature);
    let mut search = Search::new(&blocks, 0, 0);
    let mut all = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        end = target.len().min(end + step);
        while let Some(found) = search.next_match(&target[start..end], end == target.len()) {
            all.extend(single(found, blocks.block_len(), start));
        }
        if end == target.len() {
            return (all, search.false_alarms);
        }
        let searched = search.position();
        search.advance_window(searched);
        start += searched;
    }
}

/// How many bytes are hashed in vain at most.
fn allowed(block_len: usize, target: &[u8]) -> u64 {
    let allowed = FALSE_ALARM_FLOOR + FALSE_ALARMS_PER_BYTE * target.len() as u64;
    allowed + block_len as u64
}

/// Every window of the target has the weak hash of many different blocks of the basis.
#[test]
fn false_alarms_by_weak_hashes_are_bounded() {
    for block_len in [BLOCK, 2048, 65_536] {
        let (basis, target) = against_weak_hashes(block_len, 4 << 20);
        let signature = signature(&basis, block_len);
        let blocks = Blocks::new(&signature);
        let weak = Weak::of(&target[..block_len]).digest();
        assert!(blocks.marks().has_weak_hash(weak), "the input is hostile");
        let (found, alarms) = matches_in_windows(&signature, &target, target.len());
        assert_eq!(found, []);
        assert!(alarms > FALSE_ALARM_FLOOR, "the input is hostile");
        assert!(alarms <= allowed(block_len, &target), "{alarms}");
        let (found, in_windows) = matches_in_windows(&signature, &target, 1 << 20);
        assert_eq!(found, []);
        assert_eq!(in_windows, alarms, "the windows don't matter");
    }
}

/// Every anchor of the target has a key that the basis has at many places.
#[test]
fn false_alarms_by_anchors_are_bounded() {
    for block_len in [512, 2048, 65_536] {
        let (basis, target) = against_anchors(block_len, 100, 4 << 20);
        let signature = signature(&basis, block_len);
        let (key, places) = match signature.blocks()[0].mark {
            Mark::Anchor { key, .. } => (key, signature.blocks().iter()),
            Mark::Weak(_) => panic!("the block has an anchor"),
        };
        let mut places: Vec<_> = places
            .filter_map(|block| match block.mark {
                Mark::Anchor { key: other, place } => (other == key).then_some(place),
                Mark::Weak(_) => None,
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 100, "the input is hostile");
        let (found, alarms) = matches_in_windows(&signature, &target, target.len());
        assert_eq!(found, []);
        assert!(alarms > FALSE_ALARM_FLOOR, "the input is hostile");
        assert!(alarms <= allowed(block_len, &target), "{alarms}");
        let (found, in_windows) = matches_in_windows(&signature, &target, 1 << 20);
        assert_eq!(found, []);
        assert_eq!(in_windows, alarms, "the windows don't matter");
    }
}

/// Where several threads search, no part of the target may hash more in vain than another: as much
/// as the target before it allowed would be quadratic in all.
#[test]
fn false_alarms_are_bounded_in_each_thread() {
    const BLOCK: usize = 2048;
    const SEGMENT: usize = 8 << 20;
    let (basis, mut segment) = against_anchors(BLOCK, 100, SEGMENT);
    // A block with its anchor at the beginning, where the search has hashed in vain just before.
    let real = (0..).map(|seed| noise(BLOCK, seed)).find(|block| {
        let signature = signature(block, BLOCK);
        matches!(signature.blocks()[0].mark, Mark::Anchor { place, .. } if place.get() < 100)
    });
    let real = real.unwrap();
    for at in (BLOCK..SEGMENT - 2 * BLOCK).step_by(10_007) {
        segment[at..at + BLOCK].copy_from_slice(&real);
    }
    let signature = signature(&[basis, real].concat(), BLOCK);
    let target = segment.repeat(3);
    let mut found = [const { Vec::new() }; 3];
    crate::diff::matches(&signature, &target, 2.try_into().unwrap(), |matched| {
        found[matched.at / SEGMENT].push((matched.at % SEGMENT, matched.len));
    });
    let [first, second, third] = found;
    assert!(second.len() < SEGMENT / 10_007, "the input is hostile");
    assert_eq!(first, second);
    assert_eq!(second, third);
}

/// Makes a basis and a target against weak hashes: every window of the target has the one that all
/// blocks of the basis have, and none of the blocks is in the target.
fn against_weak_hashes(block_len: usize, target_len: usize) -> (Vec<u8>, Vec<u8>) {
    let changed = (0..block_len - 2).step_by(block_len / 60);
    let basis = changed.flat_map(|at| {
        // A second difference of zero keeps both sums.
        let mut block = vec![5u8; block_len];
        block[at] += 1;
        block[at + 1] -= 2;
        block[at + 2] += 1;
        block
    });
    (basis.collect(), vec![5; target_len])
}

/// Makes a basis and a target against anchors: every 64 bytes the target has an anchor, all of one
/// key, which each block of the basis has at another place, and none of the blocks is in the target.
fn against_anchors(block_len: usize, blocks: usize, target_len: usize) -> (Vec<u8>, Vec<u8>) {
    const GRAM: usize = 4;
    let reach = u32::try_from(block_len.min(65_536)).unwrap();
    let is_selected = |gram: &[u8]| {
        let product = u32::from_le_bytes(gram.try_into().unwrap()).wrapping_mul(0x9E37_79B1);
        // As a signed number, it is among the least.
        product.wrapping_add(1 << 31) < u32::MAX / (reach / 8)
    };
    let mut state = 1u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 32
    };
    // What fills the rest has two values, none of whose grams is selected, and of the key only the
    // first is, whatever stands around.
    let (values, key) = loop {
        let [_, _, _, _, a, b, ..] = random().to_be_bytes();
        let key: [u8; KEY_LEN] = std::array::from_fn(|_| random().to_le_bytes()[3]);
        let has_one_anchor = is_selected(&key[..GRAM])
            && (0..1u32 << 6).all(|bits| {
                let bit = |at: u32| if bits >> at & 1 == 0 { a } else { b };
                let around = [[bit(0), bit(1), bit(2)], [bit(3), bit(4), bit(5)]];
                let fill = around.as_flattened();
                let inside = [&around[0][..], &key, &around[1]].concat();
                let mut others = inside.windows(GRAM).enumerate().chain([(0, &fill[..GRAM])]);
                others.all(|(at, gram)| at == around[0].len() || !is_selected(gram))
            });
        if has_one_anchor {
            break ([a, b], key);
        }
    };
    let mut fill = |len: usize| -> Vec<u8> {
        std::iter::repeat_with(|| values[(random() & 1) as usize])
            .take(len)
            .collect()
    };
    let (first, last) = (ISOLATION, reach as usize - KEY_LEN);
    let basis = (0..blocks).flat_map(|block| {
        let place = first + block * (last - first) / blocks;
        let (before, behind) = (fill(place), fill(block_len - place - KEY_LEN));
        [before, key.to_vec(), behind].concat()
    });
    let basis = basis.collect();
    let windows = (0..target_len / 64).flat_map(|_| [&key[..], &fill(64 - KEY_LEN)].concat());
    (basis, windows.collect())
}

/// A filter lets one foreign hash in a hundred through. A hundredth of a large block for each byte
/// would be more than the search allows itself, and it would overlook what comes later.
#[test]
fn honest_content_without_anchors_raises_no_alarm() {
    for (block_len, content) in [
        (BLOCK, noise as fn(usize, u64) -> Vec<u8>),
        (511, noise),
        (512, bits),
        (2048, bits),
        (65_536, bits),
    ] {
        let basis = content((64 << 10).max(8 * block_len), 1);
        let signature = signature(&basis, block_len);
        assert!(Blocks::new(&signature).marks().has_weak());
        let target = [&content(2 << 20, 3), &basis[block_len..2 * block_len]].concat();
        let (found, alarms) = matches_in_windows(&signature, &target, target.len());
        assert_eq!(found, [(2 << 20, block_len as u64)]);
        assert!(alarms <= FALSE_ALARM_FLOOR / 4, "{alarms} of {block_len}");
    }
}

/// Changes the encoded marks and strong hashes of a signature.
fn forged(signature: &Signature, mut forge: impl FnMut(usize, &mut [u8], &mut [u8])) -> Signature {
    let mut encoded = signature.encode();
    let block_len = if signature.block_size().get() < 512 {
        10
    } else {
        12
    };
    for (number, block) in encoded[24..].chunks_mut(block_len).enumerate() {
        let (mark, strong) = block.split_at_mut(block_len - Strong::LEN);
        forge(number, mark, strong);
    }
    Signature::decode(&encoded).unwrap()
}

/// Whatever a signature says, what is found has the hashes that it says, the windows don't matter,
/// and what is hashed in vain is bounded.
#[test]
fn hostile_signatures_take_no_more_time() {
    for block_len in [BLOCK, 512, 2048, 65_536] {
        let basis = [noise(20 * block_len, 1), bits(10 * block_len, 2)].concat();
        let honest = signature(&basis, block_len);
        let target = [
            &noise(300_000, 3),
            &basis[block_len + 77..],
            &noise(300_000, 3),
            &bits(300_000, 4),
            &vec![0; 300_000],
        ]
        .concat();
        let first = honest.encode()[24..][..4].to_vec();
        let (least, last) = match Layout::of(honest.block_size()) {
            Some(layout) => layout.places(),
            None => (0, 0),
        };
        let place = |mark: &mut [u8], place: usize| {
            if let Some(bytes) = mark.get_mut(4..6) {
                bytes.copy_from_slice(&u16::try_from(place).unwrap().to_be_bytes());
            }
        };
        // The keys of the target itself, in the place of those of the basis.
        let theirs = signature(&target, block_len).encode();
        let size = if block_len < 512 { 10 } else { 12 };
        let their_mark = |number: usize| &theirs[24..][number % 9 * size..][..size - Strong::LEN];
        let signatures = [
            forged(&honest, |_, _, strong| strong.fill(7)),
            forged(&honest, |_, mark, _| mark[..4].copy_from_slice(&first)),
            forged(&honest, |_, mark, _| place(mark, 0)),
            forged(&honest, |_, mark, _| place(mark, least)),
            forged(&honest, |_, mark, _| place(mark, last)),
            forged(&honest, |number, mark, _| {
                mark[..4].copy_from_slice(&first);
                place(mark, least + (last - least) * number / 30);
            }),
            forged(&honest, |number, mark, strong| {
                mark.copy_from_slice(their_mark(number));
                strong[0] ^= 1;
            }),
            forged(&honest, |number, mark, strong| {
                mark[..4].copy_from_slice(&their_mark(number)[..4]);
                place(mark, least + number);
                strong[0] ^= 1;
            }),
        ];
        for (number, signature) in signatures.iter().enumerate() {
            let (found, alarms) = matches_in_windows(signature, &target, target.len());
            assert!(alarms <= allowed(block_len, &target), "{number}: {alarms}");
            let blocks = Blocks::new(signature);
            for (at, offset) in &found {
                assert!(blocks.at_offset(*offset, &target[*at..]).is_some());
            }
            for step in [50_000, 1 << 20] {
                let in_windows = matches_in_windows(signature, &target, step);
                assert_eq!(in_windows, (found.clone(), alarms), "{number}");
            }
        }
    }
}

/// Whatever too much was hashed in vain, what is found depends on the places in the target alone.
#[test]
fn windows_do_not_matter_where_too_much_was_hashed_in_vain() {
    for block_len in [100, 511, 512, 700] {
        let (basis, mut target) = against_weak_hashes(block_len, 6 << 20);
        // So many that some stand where the search is allowed to look again.
        for at in (1 << 20..target.len() - block_len).step_by(4999) {
            target[at..at + block_len].copy_from_slice(&basis[..block_len]);
        }
        let signature = signature(&basis, block_len);
        let whole = matches_in_windows(&signature, &target, target.len());
        assert!(!whole.0.is_empty());
        assert!(whole.1 > FALSE_ALARM_FLOOR, "the input is hostile");
        for step in [1 << 20, 50_000, 77_777] {
            let windows = matches_in_windows(&signature, &target, step);
            assert!(windows == whole, "blocks of {block_len}, steps of {step}");
        }
    }
}
