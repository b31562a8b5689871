//! Whatever became of a basis, the delta brings it back, and says no more than it has to.

use std::io::{BufReader, Cursor, Read};

use patchwire_delta::{
    Delta, DiffOptions, Digest, Op, Signature, SignatureOptions, diff, diff_read, diff_read_with,
    diff_with, patch, patch_read,
};
use proptest::prelude::*;

use crate::inputs::{BLOCK_SIZES, SEED, case, dribble, noise, options, signature};

proptest! {
    #[test]
    fn patching_with_the_difference_gives_the_target(case in case()) {
        let (basis, target) = (case.basis(), case.target());
        let len = target.len() as u64;
        let delta = diff(&case.signature(), &target);
        prop_assert_eq!(delta.target_len(), len);
        prop_assert_eq!(delta.digest(), Digest::of(&target));
        prop_assert_eq!(delta.ops().iter().map(Op::len).sum::<u64>(), len);

        prop_assert_eq!(&delta.apply(&basis, len).unwrap(), &target);
        let mut into = b"what was there before".to_vec();
        delta.apply_into(&basis, len, &mut into).unwrap();
        prop_assert_eq!(&into, &target);
        let mut to = b"what was there before".to_vec();
        delta.apply_to(&basis, len, &mut to).unwrap();
        prop_assert_eq!(&to[21..], &target);

        let encoded = delta.encode();
        prop_assert_eq!(patch(&basis, &encoded, len).unwrap(), &target[..]);
        let decoded = Delta::decode(&encoded).unwrap();
        prop_assert_eq!(decoded.encode(), &encoded[..]);
        prop_assert_eq!(decoded, delta);
    }

    #[test]
    fn no_two_operations_could_be_one(case in case()) {
        let target = case.target();
        let delta = diff(&case.signature(), &target);
        for pair in delta.ops().windows(2) {
            match *pair {
                [Op::Copy { offset, len }, Op::Copy { offset: next, .. }] => {
                    prop_assert_ne!(offset + len, next);
                }
                // The longest that there is.
                [Op::Literal(bytes), Op::Literal(_)] => prop_assert_eq!(bytes.len(), 65_536),
                _ => {}
            }
        }
    }

    #[test]
    fn readers_give_what_slices_give(case in case(), piece in 1usize..2000) {
        let (basis, target) = (case.basis(), case.target());
        let signature = case.signature();
        let options = options(case.block_size);
        let read = Signature::read(dribble(&basis, piece), 1, options).unwrap();
        prop_assert_eq!(&read, &signature);

        let delta = diff(&signature, &target);
        let mut encoded = Vec::new();
        let summary = diff_read(&signature, dribble(&target, piece), &mut encoded).unwrap();
        prop_assert_eq!(&encoded, &delta.encode());
        prop_assert_eq!(summary.target_len, target.len() as u64);
        prop_assert_eq!(summary.delta_len, encoded.len() as u64);
        prop_assert_eq!(summary.literal, delta.literal_bytes());
        prop_assert_eq!(summary.copied + summary.literal, target.len() as u64);
        prop_assert_eq!(summary.digest, Digest::of(&target));
        let mut written = Vec::new();
        prop_assert_eq!(delta.write(&mut written).unwrap(), summary.delta_len);
        prop_assert_eq!(&written, &encoded);

        // The delta ends itself: what follows in the stream is left there.
        encoded.extend_from_slice(b"what follows");
        let mut stream = BufReader::with_capacity(7, dribble(&encoded, piece));
        let mut output = Vec::new();
        let max_len = target.len() as u64;
        let patched = patch_read(Cursor::new(&basis), &mut stream, &mut output, max_len).unwrap();
        prop_assert_eq!(&output, &target);
        prop_assert_eq!(patched.target_len, max_len);
        prop_assert_eq!((patched.copied, patched.literal), (summary.copied, summary.literal));
        prop_assert_eq!(patched.digest, summary.digest);
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        prop_assert_eq!(rest, "what follows");
    }

    #[test]
    fn signatures_are_read_back(case in case(), piece in 1usize..100) {
        let signature = case.signature();
        let encoded = signature.encode();
        prop_assert_eq!(encoded.len(), signature.encoded_len());
        prop_assert_eq!(signature.basis_len(), case.basis().len() as u64);
        prop_assert_eq!(signature.block_size().get(), case.block_size);
        let mut written = Vec::new();
        signature.write(&mut written).unwrap();
        prop_assert_eq!(&written, &encoded);
        prop_assert_eq!(&Signature::decode(&encoded).unwrap(), &signature);

        // A signature ends itself, too.
        written.extend_from_slice(b"what follows");
        let mut stream = dribble(&written, piece);
        prop_assert_eq!(&Signature::decode_from(&mut stream).unwrap(), &signature);
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        prop_assert_eq!(rest, "what follows");
    }

    #[test]
    fn options_change_nothing_else(case in case(), threads in 2usize..4) {
        let (basis, target) = (case.basis(), case.target());
        let threads = threads.try_into().unwrap();
        let signature = case.signature();
        let mut with_threads = options(case.block_size);
        with_threads.threads = threads;
        prop_assert_eq!(&Signature::of(&basis, with_threads), &signature);
        let read = Signature::read(dribble(&basis, 5000), 0, with_threads).unwrap();
        prop_assert_eq!(&read, &signature);

        // All of it is one segment, so that the threads share nothing.
        let delta = diff(&signature, &target);
        let known = DiffOptions { digest: Some(Digest::of(&target)), ..DiffOptions::default() };
        let with_threads = DiffOptions { threads, ..known };
        prop_assert_eq!(&diff_with(&signature, &target, known), &delta);
        prop_assert_eq!(&diff_with(&signature, &target, with_threads), &delta);
        let mut encoded = Vec::new();
        let summary = diff_read_with(&signature, &target[..], &mut encoded, with_threads).unwrap();
        prop_assert_eq!(encoded, delta.encode());
        prop_assert_eq!(summary.digest, delta.digest());
    }

    /// What is sent where nothing else helps.
    #[test]
    fn a_whole_target_needs_no_basis(case in case()) {
        let target = case.target();
        let delta = Delta::whole(&target);
        prop_assert_eq!(delta.literal_bytes(), target.len() as u64);
        prop_assert_eq!(delta.digest(), Digest::of(&target));
        let encoded = delta.encode();
        prop_assert_eq!(Delta::decode(&encoded).unwrap(), delta);
        for basis in [&b""[..], b"any", &case.basis()] {
            prop_assert_eq!(patch(basis, &encoded, target.len() as u64).unwrap(), &target[..]);
        }
    }
}

#[test]
fn empty_ends_are_read_and_written() {
    for block_size in BLOCK_SIZES {
        for (basis, target) in [(0, 0), (0, 1), (0, 5000), (1, 0), (5000, 0), (1, 1)] {
            let (basis, target) = (noise(basis, 1), noise(target, 1));
            let delta = diff(&signature(&basis, block_size), &target).encode();
            assert_eq!(patch(&basis, &delta, 5000).unwrap(), target);
        }
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
    for block_size in [64, 2048, 65_536, 1 << 20] {
        let signature = signature(&basis, block_size);
        let read = Signature::read(&basis[..], 0, options(block_size)).unwrap();
        assert_eq!(read, signature);
        let delta = diff(&signature, &target);
        let mut encoded = Vec::new();
        diff_read(&signature, &target[..], &mut encoded).unwrap();
        assert_eq!(encoded, delta.encode(), "with blocks of {block_size}");
        assert_eq!(delta.apply(&basis, 1 << 23).unwrap(), target);
        if block_size < 1 << 20 {
            assert!(delta.literal_bytes() < target.len() as u64);
        }
    }
}

#[test]
fn an_identical_file_is_one_copy() {
    let basis = noise((8 << 20) + 123, 3);
    let len = basis.len() as u64;
    let options = SignatureOptions::new(SEED);
    let mut signatures = vec![Signature::of(&basis, options)];
    signatures.extend(BLOCK_SIZES.map(|block_size| signature(&basis, block_size)));
    for signature in signatures {
        let delta = diff(&signature, &basis);
        assert_eq!(delta.ops(), [Op::Copy { offset: 0, len }]);
        assert!(delta.encode().len() < 80);
    }
}

/// Also where the first block is there many times.
#[test]
fn an_identical_file_of_equal_blocks_is_one_copy() {
    let basis = vec![0; 100_003];
    for block_size in BLOCK_SIZES {
        let delta = diff(&signature(&basis, block_size), &basis);
        let len = basis.len() as u64;
        assert_eq!(delta.ops(), [Op::Copy { offset: 0, len }]);
    }
}

#[test]
fn the_short_last_block_is_matched() {
    for block_size in BLOCK_SIZES {
        let len = 3 * usize::try_from(block_size).unwrap();
        let basis = noise(len + 50, 4);
        let signature = signature(&basis, block_size);
        // Where it was, after an insertion, before an appendix, and alone.
        for (target, literals) in [
            (basis.clone(), 0),
            ([b"inserted", &basis[..]].concat(), 8),
            ([&basis[..], b"appended"].concat(), 8),
            ([b"all else is gone", &basis[len..]].concat(), 16),
        ] {
            let delta = diff(&signature, &target);
            assert_eq!(
                delta.literal_bytes(),
                literals,
                "with blocks of {block_size}"
            );
            assert_eq!(delta.apply(&basis, 1 << 20).unwrap(), target);
        }
    }
}

#[test]
fn one_inserted_byte_costs_about_a_block() {
    let basis = noise(1 << 20, 4);
    let automatic = Signature::of(&basis, SignatureOptions::new(SEED));
    let sizes = BLOCK_SIZES.map(|block_size| signature(&basis, block_size));
    for signature in sizes.iter().chain([&automatic]) {
        let block_size = u64::from(signature.block_size().get());
        for at in [0, 1, 500_000, (1 << 20) - 1, 1 << 20] {
            let mut target = basis.clone();
            target.insert(at, b'!');
            let delta = diff(signature, &target);
            assert!(delta.literal_bytes() <= block_size + 1, "inserted at {at}");
            assert_eq!(delta.apply(&basis, 2 << 20).unwrap(), target);
        }
    }
}

#[test]
fn a_new_order_of_blocks_has_no_literals() {
    for block_size in BLOCK_SIZES {
        let len = usize::try_from(block_size).unwrap();
        let basis = noise(len * 10, 5);
        let mut blocks: Vec<_> = basis.chunks(len).collect();
        blocks.reverse();
        let target = blocks.concat();
        let delta = diff(&signature(&basis, block_size), &target);
        assert_eq!(delta.literal_bytes(), 0);
        assert_eq!(delta.apply(&basis, 2 << 20).unwrap(), target);
    }
}
