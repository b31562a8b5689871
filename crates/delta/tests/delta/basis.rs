//! A delta applied to another basis than its own, and one that is right for the basis but still wrong:
//! they are told apart, and in both cases the whole target is what to send.

use std::io::{self, Cursor};

use patchwire_delta::{Delta, PatchError, Signature, diff, patch, patch_read};
use proptest::prelude::*;

use crate::inputs::{case, dribble, noise, signature};

const MAX_LEN: u64 = 4 << 20;

/// What every way to apply a delta says, which must be the same, and how much was written before.
fn refused(basis: &[u8], delta: &Delta<'_>) -> (PatchError, usize) {
    let mut into = b"what was there before".to_vec();
    let into_error = delta.apply_into(basis, MAX_LEN, &mut into).unwrap_err();
    assert_eq!(into, b"", "after an error the vector is empty");
    let mut to = Vec::new();
    let to_error = delta.apply_to(basis, MAX_LEN, &mut to).unwrap_err();
    let encoded = delta.encode();
    let (mut rest, mut read) = (&encoded[..], Vec::new());
    let read_error = patch_read(Cursor::new(basis), &mut rest, &mut read, MAX_LEN).unwrap_err();
    assert_eq!(to.len(), read.len());
    let error = delta.apply(basis, MAX_LEN).unwrap_err();
    let patch_error = patch(basis, &encoded, MAX_LEN).unwrap_err();
    for other in [into_error, to_error, read_error, patch_error] {
        assert_eq!(other.to_string(), error.to_string());
    }
    (error, to.len())
}

fn assert_whole_works(basis: &[u8], target: &[u8]) {
    let delta = Delta::whole(target).encode();
    assert_eq!(patch(basis, &delta, MAX_LEN).unwrap(), target);
    let mut output = Vec::new();
    patch_read(Cursor::new(basis), &delta[..], &mut output, MAX_LEN).unwrap();
    assert_eq!(output, target);
}

/// A basis and a target that needs both kinds of operations.
fn example() -> (Vec<u8>, Vec<u8>) {
    let basis = noise(5000, 1);
    let target = [&basis[..900], b"inserted", &basis[1000..], &basis[..1024]].concat();
    (basis, target)
}

#[test]
fn a_basis_of_another_length_is_noticed_at_once() {
    let (basis, target) = example();
    for block_size in [64, 512] {
        let signature = signature(&basis, block_size);
        let delta = diff(&signature, &target);
        let longer = [&basis[..], b"x"].concat();
        for other in [&basis[..4999], &longer, b""] {
            let (error, written) = refused(other, &delta);
            assert!(matches!(error, PatchError::WrongBasis), "{error:?}");
            assert_eq!(written, 0);
            assert_whole_works(other, &target);
        }
    }
}

#[test]
fn another_basis_is_noticed() {
    let (basis, target) = example();
    for block_size in [64, 512] {
        let signature = signature(&basis, block_size);
        let delta = diff(&signature, &target);
        for at in [20, 4999] {
            let mut other = basis.clone();
            other[at] ^= 1;
            let (error, written) = refused(&other, &delta);
            assert!(matches!(error, PatchError::WrongBasis), "{error:?}");
            assert_eq!(written, target.len(), "only the digest tells");
            assert_whole_works(&other, &target);
        }
    }
}

/// What isn't copied from the basis may be anything in it.
#[test]
fn another_basis_that_gives_the_target_is_as_good() {
    let (basis, _) = example();
    let target = [&basis[..900], &basis[1000..]].concat();
    let delta = diff(&signature(&basis, 64), &target);
    let mut other = basis;
    other[950] ^= 1;
    assert_eq!(delta.apply(&other, MAX_LEN).unwrap(), target);
}

#[test]
fn a_damaged_delta_is_not_the_fault_of_the_basis() {
    let (basis, target) = example();
    for block_size in [64, 512] {
        let mut encoded = diff(&signature(&basis, block_size), &target).encode();
        let at = encoded
            .windows(8)
            .position(|bytes| bytes == b"inserted")
            .unwrap();
        encoded[at] ^= 1;
        let delta = Delta::decode(&encoded).unwrap();
        let (error, _) = refused(&basis, &delta);
        let PatchError::Mismatch { expected, actual } = error else {
            panic!("{error:?}");
        };
        assert_eq!(expected, delta.digest());
        assert_ne!(actual, expected);
        assert_whole_works(&basis, &target);
    }
}

/// A signature the hashes of two of whose blocks were exchanged is one of another basis, where these
/// blocks are the other way round.
fn exchanged(signature: &Signature) -> Signature {
    let mut encoded = signature.encode();
    let entry_len = if signature.block_size().get() < 512 {
        10
    } else {
        12
    };
    for at in 24..24 + entry_len {
        encoded.swap(at, at + entry_len);
    }
    Signature::decode(&encoded).unwrap()
}

#[test]
fn the_signature_of_another_basis_is_noticed() {
    let (basis, target) = example();
    for block_size in [64, 512] {
        let delta = diff(&exchanged(&signature(&basis, block_size)), &target);
        let (error, _) = refused(&basis, &delta);
        assert!(matches!(error, PatchError::WrongBasis), "{error:?}");
        assert_whole_works(&basis, &target);
    }
}

/// Where two blocks have the same hash, the signature is the right one, and so is the basis, but the
/// wrong block is copied.
#[test]
fn a_collision_is_not_the_fault_of_the_basis() {
    let (basis, target) = example();
    for block_size in [64, 512] {
        let signature = signature(&basis, block_size);
        let fingerprint = 3 + 1 + 1 + 2 + if block_size < 128 { 1 } else { 2 } + 8;
        let right = diff(&signature, &target).encode();
        let mut encoded = diff(&exchanged(&signature), &target).encode();
        assert_ne!(encoded[fingerprint..][..4], right[fingerprint..][..4]);
        encoded[fingerprint..][..4].copy_from_slice(&right[fingerprint..][..4]);
        let (error, _) = refused(&basis, &Delta::decode(&encoded).unwrap());
        assert!(matches!(error, PatchError::Mismatch { .. }), "{error:?}");
        assert_whole_works(&basis, &target);
    }
}

/// Nobody's fault is not the basis' either.
#[test]
fn a_damaged_whole_delta_is_a_mismatch() {
    let mut encoded = Delta::whole(b"target").encode();
    let last = encoded.len() - 1;
    encoded[last] ^= 1;
    let (error, written) = refused(b"basis", &Delta::decode(&encoded).unwrap());
    assert!(matches!(error, PatchError::Mismatch { .. }), "{error:?}");
    assert_eq!(written, 6);
}

/// To tell whose fault it was, the basis is read again: from its beginning, and as it comes.
#[test]
fn the_basis_is_read_again_as_it_comes() {
    struct Slow<'a>(Cursor<&'a [u8]>);

    impl io::Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let at = usize::try_from(self.0.position()).unwrap();
            let mut slowly = dribble(&self.0.get_ref()[at..], 7);
            // Its first answer is an interruption.
            let _ = slowly.read(buffer);
            let read = slowly.read(buffer)?;
            self.0.set_position((at + read) as u64);
            Ok(read)
        }
    }

    impl io::Seek for Slow<'_> {
        fn seek(&mut self, place: io::SeekFrom) -> io::Result<u64> {
            self.0.seek(place)
        }
    }

    let (basis, target) = example();
    let mut encoded = diff(&signature(&basis, 512), &target).encode();
    let last = encoded.len() - 1;
    encoded[last] ^= 1;
    let patched = |basis: &[u8]| {
        let slow = Slow(Cursor::new(basis));
        patch_read(slow, &encoded[..], io::sink(), MAX_LEN).unwrap_err()
    };
    assert!(matches!(patched(&basis), PatchError::Mismatch { .. }));
    let mut other = basis;
    other[100] ^= 1;
    assert!(matches!(patched(&other), PatchError::WrongBasis));
}

proptest! {
    /// Any other basis of the same length: the target, or the basis is named as the reason.
    #[test]
    fn changed_bases_are_named(
        case in case(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
    ) {
        let (basis, target) = (case.basis(), case.target());
        prop_assume!(!basis.is_empty());
        let delta = diff(&case.signature(), &target);
        let mut other = basis.clone();
        for (at, bits) in changes {
            other[at.index(basis.len())] ^= bits;
        }
        match delta.apply(&other, MAX_LEN) {
            Ok(output) => prop_assert_eq!(output, target),
            Err(_) => {
                let (error, written) = refused(&other, &delta);
                prop_assert!(matches!(error, PatchError::WrongBasis), "{error:?}");
                prop_assert_eq!(written, target.len());
                assert_whole_works(&other, &target);
            }
        }
    }

    #[test]
    fn nothing_is_made_over_the_limit(case in case()) {
        let (basis, target) = (case.basis(), case.target());
        prop_assume!(!target.is_empty());
        let max_len = target.len() as u64 - 1;
        for delta in [diff(&case.signature(), &target), Delta::whole(&target)] {
            let mut into = b"what was there before".to_vec();
            let mut read = Vec::new();
            let encoded = delta.encode();
            let errors = [
                delta.apply(&basis, max_len).unwrap_err(),
                delta.apply_into(&basis, max_len, &mut into).unwrap_err(),
                delta.apply_to(&basis, max_len, io::sink()).unwrap_err(),
                patch(&basis, &encoded, max_len).unwrap_err(),
                patch_read(Cursor::new(&basis), &encoded[..], &mut read, max_len).unwrap_err(),
            ];
            for error in errors {
                prop_assert!(matches!(error, PatchError::TooLong { .. }), "{error:?}");
            }
            prop_assert!(into.is_empty());
            prop_assert!(read.len() < target.len());
        }
    }
}
