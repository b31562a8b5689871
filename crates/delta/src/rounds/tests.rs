use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::{BlockSize, DecodeError, Seed, SignatureOptions};

fn noise(len: usize, mut state: u64) -> Vec<u8> {
    let step = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).to_be_bytes()[2]
    };
    std::iter::repeat_with(step).take(len).collect()
}

fn first(basis: &[u8], block_size: u32) -> Signature {
    let options = SignatureOptions {
        block_size: Some(BlockSize::try_from(block_size).unwrap()),
        ..SignatureOptions::new(Seed(1))
    };
    Signature::of(basis, options)
}

/// Both rounds over slices and over readers, which must agree; gives the delta's literal bytes and
/// those of the first round alone.
fn two_rounds(basis: &[u8], target: &[u8], block_size: u32) -> (u64, u64) {
    let signature = first(basis, block_size);
    let round = FirstRound::of(&signature, target, DiffOptions::default());
    let read = FirstRound::read(&signature, target, DiffOptions::default()).unwrap();
    assert_eq!(read.copies, round.copies);
    assert_eq!(read.digest, round.digest);
    let regions = Regions::decode(&round.regions().encode()).unwrap();
    assert_eq!(&regions, round.regions());
    assert_eq!(&regions, read.regions());

    let second = regions.sign(Cursor::new(basis), Seed(2)).unwrap();
    assert_eq!(second.encoded_len() as u64, regions.signature_len());
    let delta = round.finish(&second, target).unwrap();
    assert_eq!(delta.apply(basis, target.len() as u64).unwrap(), target);
    let mut streamed = Vec::new();
    let summary = read
        .finish_read(&second, Cursor::new(target), &mut streamed)
        .unwrap();
    assert_eq!(streamed, delta.encode());
    assert_eq!(summary.literal, delta.literal_bytes());

    let refined = round.refine(&second, Cursor::new(target)).unwrap();
    assert_eq!(refined.missing(), delta.literal_bytes());
    let regions = Regions::decode(&refined.regions().encode()).unwrap();
    let third = regions.sign(Cursor::new(basis), Seed(3)).unwrap();
    let thrice = refined.finish(&third, target).unwrap();
    assert_eq!(thrice.apply(basis, target.len() as u64).unwrap(), target);
    assert!(thrice.literal_bytes() <= delta.literal_bytes());

    let early = round.finish_early(target).unwrap();
    assert_eq!(early.literal_bytes(), round.missing());
    assert_eq!(early, crate::diff(&signature, target));
    (delta.literal_bytes(), round.missing())
}

proptest! {
    #[test]
    fn two_rounds_give_the_target_and_never_more_literals(
        changes in prop::collection::vec((0usize..60_000, 0usize..3000, 0usize..3000), 0..8),
        moved in prop::option::of((0usize..30_000, 30_000usize..60_000, 0usize..60_000)),
        len in 0usize..60_000,
        block_size in prop::sample::select(&[128u32, 1000, 1024, 4096]),
    ) {
        let basis = noise(len, 1);
        let mut target = basis.clone();
        for (at, removed, added) in changes {
            let at = at.min(target.len());
            let end = target.len().min(at + removed);
            target.splice(at..end, noise(added, at as u64));
        }
        if let Some((from, to, at)) = moved {
            let range = from.min(target.len())..to.min(target.len());
            let moved: Vec<u8> = target.drain(range).collect();
            let at = at.min(target.len());
            target.splice(at..at, moved);
        }
        let (literal, missing) = two_rounds(&basis, &target, block_size);
        prop_assert!(literal <= missing);
    }

    #[test]
    fn changed_requests_are_refused_or_answered(
        mut bytes in Just(FirstRound::of(&first(&noise(9000, 1), 1024), &noise(9000, 2), DiffOptions::default()).regions().encode()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(regions) = Regions::decode(&bytes) {
            prop_assert_eq!(regions.encode(), bytes);
            match regions.sign(Cursor::new(noise(9000, 1)), Seed(1)) {
                Ok(signature) => prop_assert_eq!(signature.basis_len(), regions.len()),
                Err(error) => prop_assert!(matches!(error, RoundError::Outside { .. }), "{error:?}"),
            }
        }
    }
}

#[test]
fn one_change_costs_one_small_block() {
    let basis = noise(1 << 20, 3);
    let mut target = basis.clone();
    target.splice(500_000..500_003, *b"changed");
    let block_size = BlockSize::for_two_rounds(1 << 20).get();
    let (literal, missing) = two_rounds(&basis, &target, block_size);
    assert!(missing > u64::from(block_size) - 8, "{missing}");
    assert!(literal < missing / 2, "{literal} of {missing}");
}

/// Scattered changes of which each of the large blocks has some, and few of the small ones.
#[test]
fn a_third_round_finds_what_the_second_could_not() {
    let basis = noise(4 << 20, 6);
    let mut target = basis.clone();
    for at in (0..target.len()).step_by(6000) {
        target[at] ^= 1;
    }
    let block_size = BlockSize::for_two_rounds(4 << 20).get();
    let round = FirstRound::of(&first(&basis, block_size), &target, DiffOptions::default());
    let second = round.regions().sign(Cursor::new(&basis), Seed(2)).unwrap();
    let refined = round.refine(&second, Cursor::new(&target)).unwrap();
    assert!(refined.missing() < round.missing());
    let third = refined.regions().sign(Cursor::new(&basis), Seed(3));
    let delta = refined.finish(&third.unwrap(), &target).unwrap();
    assert_eq!(delta.apply(&basis, 4 << 20).unwrap(), target);
    assert!(delta.literal_bytes() * 2 < refined.missing());

    let other = first(&basis, 1024);
    assert!(matches!(
        round.refine(&other, Cursor::new(&target)),
        Err(RoundError::OtherRegions { .. })
    ));
}

#[test]
fn an_unchanged_target_asks_nothing() {
    let basis = noise(100_000, 4);
    let round = FirstRound::of(&first(&basis, 1024), &basis, DiffOptions::default());
    assert!(round.regions().is_empty());
    assert_eq!(round.regions().signature_len(), 24);
    assert_eq!(round.missing(), 0);
}

#[test]
fn answers_and_targets_that_are_others_are_refused() {
    let basis = noise(50_000, 5);
    let mut target = basis.clone();
    target.drain(20_000..20_500);
    let round = FirstRound::of(&first(&basis, 1024), &target, DiffOptions::default());
    let second = round.regions().sign(Cursor::new(&basis), Seed(1)).unwrap();
    assert!(matches!(
        round.finish(&first(&basis, 1024), &target),
        Err(RoundError::OtherRegions {
            basis_len: 50_000,
            ..
        })
    ));
    assert!(matches!(
        round.finish(&second, &target[1..]),
        Err(RoundError::OtherTarget {
            len: 49_499,
            expected: 49_500
        })
    ));
    assert!(matches!(
        round.finish_read(&second, Cursor::new(&target[1..]), std::io::sink()),
        Err(RoundError::OtherTarget {
            len: 49_499,
            expected: 49_500
        })
    ));
    assert!(matches!(
        round.regions().sign(Cursor::new(&basis[..100]), Seed(1)),
        Err(RoundError::Outside { basis_len: 100, .. })
    ));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let decode = |rest: &[u8]| Regions::decode(&[b"PWR\x02", rest].concat());
    assert!(decode(&[64, 1, 0, 64]).is_ok());
    assert!(decode(&[64, 0]).unwrap().is_empty());
    assert_eq!(decode(&[64, 1, 0]), Err(DecodeError::Truncated { len: 7 }));
    assert_eq!(decode(&[64, 0, 9]), Err(DecodeError::Trailing { len: 1 }));
    assert!(matches!(decode(&[63, 0]), Err(DecodeError::BlockSize(_))));
    assert_eq!(
        decode(&[64, 1, 5, 0]),
        Err(DecodeError::EmptyRange { offset: 6 })
    );
    assert_eq!(
        decode(&[64, 2, 0, 5, 0, 5]),
        Err(DecodeError::EmptyRange { offset: 8 })
    );
    let largest = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1];
    let long = [&[64, 1, 64], &largest[..]].concat();
    assert_eq!(decode(&long), Err(DecodeError::RangeTooLong { offset: 6 }));
    let error = DecodeError::UnalignedRange { offset: 6 };
    assert_eq!(decode(&[64, 1, 63, 64]), Err(error));
}

/// Where the second search has hashed too much in vain, it still doesn't matter whether the target is
/// in memory or read.
#[test]
fn two_rounds_over_hostile_content_are_the_same_on_readers() {
    const BLOCK: usize = 128;
    let fives = |len: usize| vec![5; len];
    // Blocks with the weak hash of every window of fives, as a second difference of zero keeps it.
    let alike = |number: usize| {
        let mut block = fives(BLOCK);
        let at = number % 100;
        block[at] += 1;
        block[at + 1] -= 2;
        block[at + 2] += 1;
        block
    };
    let (head, tail) = (noise(1 << 20, 1), noise(8 << 10, 2));
    let region: Vec<u8> = (0..512).flat_map(alike).collect();
    let basis = [&head[..], &region, &tail].concat();
    let mut gap = fives(8 << 20);
    let real: Vec<u8> = (4..8).flat_map(alike).collect();
    for at in (20_011..gap.len() - 512).step_by(10_007) {
        gap[at..at + 512].copy_from_slice(&real);
    }
    let target = [&head[..], &gap, &tail].concat();
    let (literal, missing) = two_rounds(&basis, &target, 1024);
    assert!(literal < missing, "{literal} of {missing}");
    assert!(literal > missing / 2, "the content is hostile");
}

/// A first block size that no smaller one divides has no second round.
#[test]
fn blocks_that_can_not_be_smaller_are_not_asked_for() {
    let (basis, target) = (noise(10_000, 1), noise(10_000, 2));
    for block_size in [64, 127, 1009] {
        let round = FirstRound::of(&first(&basis, block_size), &target, DiffOptions::default());
        assert!(round.regions().is_empty(), "{block_size}");
    }
    let round = FirstRound::of(&first(&basis, 128), &target, DiffOptions::default());
    assert!(!round.regions().is_empty());
}
