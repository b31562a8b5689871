//! Whatever became of a basis, the delta brings it back, and says no more than it has to.

use std::io::{self, BufReader, Cursor, Read};

use patchwire_delta::{
    Delta, Digest, Op, Signature, SignatureOptions, diff, diff_read, patch, patch_read,
};
use proptest::prelude::*;

use crate::inputs::{SEED, basis_and_target, noise, options, signature};

const BLOCK_SIZES: [u32; 4] = [64, 100, 700, 4096];

/// A reader that gives a few bytes at a time, and is interrupted in between.
struct Dribble<'a> {
    bytes: &'a [u8],
    interrupt: bool,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = buffer.len().min(13);
        self.bytes.read(&mut buffer[..len])
    }
}

const fn dribble(bytes: &[u8]) -> Dribble<'_> {
    Dribble {
        bytes,
        interrupt: false,
    }
}

proptest! {
    #[test]
    fn patching_with_the_difference_gives_the_target(
        (basis, target) in basis_and_target(),
        block_size in prop::sample::select(&BLOCK_SIZES),
    ) {
        let signature = signature(&basis, block_size);
        let delta = diff(&signature, &target);
        prop_assert_eq!(delta.apply(&basis, target.len() as u64).unwrap(), &target[..]);
        prop_assert_eq!(delta.target_len(), target.len() as u64);
        prop_assert_eq!(delta.digest(), Digest::of(&target));

        let encoded = delta.encode();
        prop_assert_eq!(patch(&basis, &encoded, target.len() as u64).unwrap(), &target[..]);
        prop_assert_eq!(Delta::decode(&encoded).unwrap(), delta);
    }

    #[test]
    fn readers_give_what_slices_give(
        (basis, target) in basis_and_target(),
        block_size in prop::sample::select(&BLOCK_SIZES),
    ) {
        let signature = signature(&basis, block_size);
        let read = Signature::read(dribble(&basis), 1, options(block_size)).unwrap();
        prop_assert_eq!(&read, &signature);

        let delta = diff(&signature, &target);
        let mut encoded = Vec::new();
        let summary = diff_read(&signature, dribble(&target), &mut encoded).unwrap();
        prop_assert_eq!(&encoded, &delta.encode());
        prop_assert_eq!(summary.delta_len, encoded.len() as u64);
        prop_assert_eq!(summary.literal, delta.literal_bytes());
        prop_assert_eq!(summary.copied + summary.literal, target.len() as u64);
        prop_assert_eq!(summary.digest, Digest::of(&target));

        // The delta ends itself: what follows in the stream is left there.
        encoded.extend_from_slice(b"what follows");
        let mut stream = BufReader::with_capacity(7, dribble(&encoded));
        let mut output = Vec::new();
        let max_len = target.len() as u64;
        let patched = patch_read(Cursor::new(&basis), &mut stream, &mut output, max_len).unwrap();
        prop_assert_eq!(&output, &target);
        prop_assert_eq!((patched.copied, patched.literal), (summary.copied, summary.literal));
        prop_assert_eq!(patched.digest, summary.digest);
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        prop_assert_eq!(rest, "what follows");
    }

    #[test]
    fn signatures_are_read_back(
        (basis, _) in basis_and_target(),
        block_size in prop::sample::select(&BLOCK_SIZES),
    ) {
        let signature = signature(&basis, block_size);
        let encoded = signature.encode();
        prop_assert_eq!(encoded.len(), signature.encoded_len());
        prop_assert_eq!(signature.basis_len(), basis.len() as u64);
        prop_assert_eq!(Signature::decode(&encoded).unwrap(), signature);
    }
}

/// Windows that are slid many times, with copies, gaps and literals over their boundaries.
#[test]
fn long_targets_stream_as_they_are() {
    let basis = noise(3 << 20, 1);
    let mut target = basis.clone();
    // Between two blocks, which stay neighbours in the basis.
    target.splice(65_536..65_536, *b"inserted");
    target.splice(700_000..700_100, noise(400_000, 2));
    target.splice(2_000_000..2_000_000, basis[..300_001].to_vec());
    for at in (2_400_000..3_000_000).step_by(5003) {
        target[at] ^= 0xFF;
    }
    for block_size in [64, 2048, 65_536] {
        let signature = signature(&basis, block_size);
        let read = Signature::read(&basis[..], 0, options(block_size)).unwrap();
        assert_eq!(read, signature);
        let delta = diff(&signature, &target);
        let mut encoded = Vec::new();
        diff_read(&signature, &target[..], &mut encoded).unwrap();
        assert_eq!(encoded, delta.encode(), "with blocks of {block_size}");
        assert_eq!(delta.apply(&basis, 1 << 23).unwrap(), target);
        assert!(delta.literal_bytes() < target.len() as u64);
    }
}

#[test]
fn an_identical_file_is_one_copy() {
    let basis = noise((8 << 20) + 123, 3);
    let signature = Signature::of(&basis, SignatureOptions::new(SEED));
    let delta = diff(&signature, &basis);
    let len = basis.len() as u64;
    assert_eq!(delta.ops(), [Op::Copy { offset: 0, len }]);
    assert!(delta.encode().len() < 60);
}

#[test]
fn one_inserted_byte_costs_about_a_block() {
    let basis = noise(1 << 20, 4);
    let signature = Signature::of(&basis, SignatureOptions::new(SEED));
    let block_size = u64::from(signature.block_size().get());
    for at in [0, 1, 500_000, (1 << 20) - 1, 1 << 20] {
        let mut target = basis.clone();
        target.insert(at, b'!');
        let delta = diff(&signature, &target);
        assert!(delta.literal_bytes() <= block_size + 1, "inserted at {at}");
        assert_eq!(delta.apply(&basis, 2 << 20).unwrap(), target);
    }
}

#[test]
fn a_new_order_of_blocks_has_no_literals() {
    let basis = noise(64 * 100, 5);
    let mut blocks: Vec<_> = basis.chunks(64).collect();
    blocks.reverse();
    let target = blocks.concat();
    let delta = diff(&signature(&basis, 64), &target);
    assert_eq!(delta.literal_bytes(), 0);
    assert_eq!(delta.apply(&basis, 1 << 20).unwrap(), target);
}
