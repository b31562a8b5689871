//! Long inputs, divided among threads.

use patchwire_delta::{DiffOptions, Digest, Signature, diff, diff_with};

use crate::inputs::{bits, noise, options};

/// What is searched at a time, rounded up to blocks.
const SEGMENT: usize = 8 << 20;

/// Noise, with stretches that have no anchors, that repeat, and that are nothing.
fn basis() -> Vec<u8> {
    let mut basis = noise(3 * SEGMENT + 12_345, 1);
    let len = basis.len();
    basis[SEGMENT - 300_000..][..500_000].copy_from_slice(&bits(500_000, 2));
    basis[2 * SEGMENT - 200_000..][..400_000].fill(0);
    let period: Vec<u8> = noise(1000, 3).into_iter().cycle().take(300_000).collect();
    basis[2 * SEGMENT + 500_000..][..300_000].copy_from_slice(&period);
    basis.copy_within(..100_000, len - 150_000);
    basis
}

/// With a change of every kind, before, over and behind the ends of segments.
fn target(basis: &[u8]) -> Vec<u8> {
    let mut target = basis.to_vec();
    target.splice(1000..1000, *b"inserted");
    target.splice(SEGMENT - 70_000..SEGMENT - 69_000, noise(70_500, 4));
    target.splice(SEGMENT + 500_000..SEGMENT + 500_000, noise(7, 5));
    target.drain(2 * SEGMENT - 10..2 * SEGMENT + 10);
    let moved: Vec<u8> = target.drain(3_000_000..4_000_001).collect();
    target.splice(2 * SEGMENT - 400_000..2 * SEGMENT - 400_000, moved);
    target.extend_from_slice(&basis[SEGMENT - 1_000_000..SEGMENT + 1_000_000]);
    target
}

#[test]
fn long_inputs_have_the_same_signature_and_nearly_the_same_delta() {
    let basis = basis();
    let target = target(&basis);
    let digest = Digest::of(&target);
    for block_size in [64, 700, 2048, 65_536] {
        let signature = Signature::of(&basis, options(block_size));
        let single = diff(&signature, &target).literal_bytes();
        for threads in [1, 2, 3] {
            let threads = threads.try_into().unwrap();
            let mut signature_options = options(block_size);
            signature_options.threads = threads;
            assert!(Signature::of(&basis, signature_options) == signature);
            let read = Signature::read(&basis[..], 0, signature_options).unwrap();
            assert!(read == signature);

            let delta = diff_with(
                &signature,
                &target,
                DiffOptions {
                    threads,
                    digest: None,
                },
            );
            assert_eq!(delta.digest(), digest);
            assert!(delta.apply(&basis, target.len() as u64).unwrap() == target);
            let segments = (target.len() / SEGMENT) as u64;
            let slack = if threads.get() == 1 {
                0
            } else {
                2 * segments * u64::from(block_size)
            };
            let literals = delta.literal_bytes();
            assert!(
                literals <= single + slack,
                "{literals} with {threads} threads, {single} with one, blocks of {block_size}"
            );
        }
    }
}

/// Every byte of the target stands elsewhere than in the basis: no guess helps.
#[test]
fn shifted_segments_are_stitched() {
    let basis = noise(2 * SEGMENT + 100_000, 6);
    let target = [b"inserted", &basis[..], b"appended"].concat();
    let signature = Signature::of(&basis, options(2048));
    let threads = 2.try_into().unwrap();
    let delta = diff_with(
        &signature,
        &target,
        DiffOptions {
            threads,
            digest: None,
        },
    );
    assert_eq!(delta.literal_bytes(), 16);
    assert_eq!(delta.ops().len(), 3);
}
