//! Deltas and signatures that were cut, changed or made up: an error, never a wrong target.

use std::io::{self, BufRead, Cursor, Read, Seek, SeekFrom};

use patchwire_delta::{
    BlockSizeError, DecodeError, DiffError, PatchError, Signature, SignatureError, diff, diff_read,
    patch, patch_read,
};
use proptest::prelude::*;

use crate::inputs::{basis_and_target, noise, options, signature};

const MAX_LEN: u64 = 1 << 20;

fn patched(basis: &[u8], delta: impl BufRead) -> Result<Vec<u8>, PatchError> {
    let mut output = Vec::new();
    patch_read(Cursor::new(basis), delta, &mut output, MAX_LEN).map(|_| output)
}

/// A basis, a target that needs both kinds of operations, and their delta.
fn example() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let basis = noise(2000, 1);
    let target = [&basis[..900], b"inserted", &basis[1000..], &basis[..128]].concat();
    let delta = diff(&signature(&basis, 64), &target).encode();
    (basis, target, delta)
}

#[test]
fn a_delta_cut_anywhere_is_truncated() {
    let (basis, target, delta) = example();
    assert_eq!(patch(&basis, &delta, MAX_LEN).unwrap(), target);
    for len in 0..delta.len() {
        let cut = &delta[..len];
        for result in [patch(&basis, cut, MAX_LEN), patched(&basis, cut)] {
            let error = result.unwrap_err();
            let truncated = matches!(error, PatchError::Malformed(DecodeError::Truncated { .. }));
            assert!(truncated, "cut at {len}: {error:?}");
        }
    }
}

#[test]
fn a_signature_cut_anywhere_is_truncated() {
    let encoded = signature(&noise(1000, 1), 64).encode();
    for len in 0..encoded.len() {
        assert_eq!(
            Signature::decode(&encoded[..len]),
            Err(DecodeError::Truncated { len: len as u64 })
        );
    }
    for extra in [1, 12, 13] {
        let longer = [&encoded[..], &vec![0; extra]].concat();
        let len = extra as u64;
        assert_eq!(
            Signature::decode(&longer),
            Err(DecodeError::Trailing { len })
        );
    }
}

#[test]
fn every_flipped_bit_of_a_delta_is_noticed() {
    let (basis, target, delta) = example();
    for bit in 0..delta.len() * 8 {
        let mut flipped = delta.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(patch(&basis, &flipped, MAX_LEN).is_err(), "bit {bit}");
        assert!(patched(&basis, &flipped[..]).is_err(), "bit {bit}");
    }
    assert_eq!(patched(&basis, &delta[..]).unwrap(), target);
}

proptest! {
    #[test]
    fn changed_deltas_never_give_another_target(
        (basis, target) in basis_and_target(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..8),
    ) {
        let mut delta = diff(&signature(&basis, 64), &target).encode();
        for (at, bits) in changes {
            let at = at.index(delta.len());
            delta[at] ^= bits;
        }
        let slice = patch(&basis, &delta, MAX_LEN);
        let read = patched(&basis, &delta[..]);
        // A changed copy may take the same bytes from elsewhere in the basis.
        if let Ok(output) = slice {
            prop_assert_eq!(output, &target[..]);
        }
        if let Ok(output) = read {
            prop_assert_eq!(output, target);
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let with_magic = |magic: &[u8]| [magic, &bytes].concat();
        prop_assert!(patch(b"basis", &with_magic(b"PWD\x01"), MAX_LEN).is_err());
        prop_assert!(patched(b"basis", &with_magic(b"PWD\x01")[..]).is_err());
        let signature = with_magic(b"PWS\x01");
        if let Ok(decoded) = Signature::decode(&signature) {
            prop_assert_eq!(decoded.encode(), signature);
        }
    }

    /// A signature whose hashes are made up may cost literals, but never the target.
    #[test]
    fn changed_signatures_never_give_another_target(
        (basis, target) in basis_and_target(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..8),
    ) {
        let mut encoded = signature(&basis, 64).encode();
        for (at, bits) in changes {
            let at = at.index(encoded.len());
            encoded[at] ^= bits;
        }
        if let Ok(signature) = Signature::decode(&encoded) {
            match diff(&signature, &target).apply(&basis, MAX_LEN) {
                Ok(output) => prop_assert_eq!(output, target),
                Err(PatchError::Mismatch { .. } | PatchError::CopyOutside { .. }) => {}
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
    }
}

#[test]
fn signatures_out_of_bounds_are_refused() {
    let field = |range: std::ops::Range<usize>, bytes: &[u8]| {
        let mut encoded = signature(&noise(1000, 1), 64).encode();
        encoded[range].copy_from_slice(bytes);
        Signature::decode(&encoded)
    };
    let found = *b"PWD";
    let expected = *b"PWS";
    assert_eq!(
        field(0..3, b"PWD"),
        Err(DecodeError::WrongMagic { found, expected })
    );
    assert_eq!(
        field(3..4, &[2]),
        Err(DecodeError::UnknownVersion { version: 2 })
    );
    let block_size = 0;
    assert_eq!(
        field(4..8, &[0; 4]),
        Err(DecodeError::BlockSize(BlockSizeError { block_size }))
    );
    assert_eq!(
        field(16..24, &[0xFF; 8]),
        Err(DecodeError::TooManyBlocks { count: 1 << 58 })
    );
    // A plausible length whose blocks are not there must not be reserved for.
    assert!(matches!(
        field(16..24, &(1u64 << 29).to_be_bytes()),
        Err(DecodeError::Truncated { .. })
    ));
}

#[test]
fn operations_out_of_bounds_are_refused() {
    let basis = [7; 100];
    let refused = |ops: &[u8]| {
        let delta = [b"PWD\x01", ops, &[0; 41]].concat();
        let errors = [
            patch(&basis, &delta, 200).unwrap_err().to_string(),
            patch_read(Cursor::new(basis), &delta[..], io::sink(), 200)
                .unwrap_err()
                .to_string(),
        ];
        assert_eq!(errors[0], errors[1]);
        patch_read(Cursor::new(basis), &delta[..], io::sink(), 200).unwrap_err()
    };
    assert!(matches!(
        refused(&[3]),
        PatchError::Malformed(DecodeError::UnknownOp { tag: 3, offset: 4 })
    ));
    assert!(matches!(
        refused(&[1, 0, 0]),
        PatchError::Malformed(DecodeError::EmptyOp { offset: 4 })
    ));
    assert!(matches!(
        refused(&[2, 0]),
        PatchError::Malformed(DecodeError::EmptyOp { offset: 4 })
    ));
    assert!(matches!(
        refused(&[2, 0x81, 0x80, 0x04]),
        PatchError::Malformed(DecodeError::LiteralTooLong { len: 65_537, .. })
    ));
}

#[test]
fn copies_and_lengths_out_of_bounds_are_refused() {
    let basis = [7; 100];
    let refused = |ops: &[u8], target_len: u64| {
        let mut delta = [b"PWD\x01", ops, &[0]].concat();
        delta.extend_from_slice(&target_len.to_be_bytes());
        delta.extend_from_slice(&[0; 32]);
        let slice = patch(&basis, &delta, 200).unwrap_err();
        let read = patch_read(Cursor::new(basis), &delta[..], io::sink(), 200).unwrap_err();
        assert_eq!(slice.to_string(), read.to_string());
        read
    };
    assert!(matches!(
        refused(&[1, 1, 100], 100),
        PatchError::CopyOutside {
            offset: 1,
            len: 100,
            basis_len: 100
        }
    ));
    let everything = [
        1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 1,
    ];
    assert!(matches!(
        refused(&everything, 1),
        PatchError::CopyOutside {
            offset: u64::MAX,
            len: 1,
            ..
        }
    ));
    assert!(matches!(
        refused(&[1, 0, 100, 1, 0, 100, 1, 0, 1], 201),
        PatchError::TooLong {
            len: 201,
            max_len: 200
        }
    ));
    assert!(matches!(
        refused(&[1, 0, 100], 99),
        PatchError::Malformed(DecodeError::WrongLength {
            expected: 99,
            actual: 100
        })
    ));
    assert!(matches!(
        refused(&[1, 0, 100], 100),
        PatchError::Mismatch { .. }
    ));
}

#[test]
fn another_basis_is_noticed() {
    let (mut basis, _, delta) = example();
    basis[20] ^= 1;
    let error = patch(&basis, &delta, MAX_LEN).unwrap_err();
    assert!(matches!(error, PatchError::Mismatch { .. }), "{error:?}");
    let error = patched(&basis, &delta[..]).unwrap_err();
    assert!(matches!(error, PatchError::Mismatch { .. }), "{error:?}");
}

/// Fails on every use.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

impl BufRead for Broken {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn consume(&mut self, _: usize) {}
}

impl io::Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says it has 2000 bytes, and fails to read them.
impl Seek for Broken {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Ok(2000)
    }
}

#[test]
fn errors_say_which_side_failed() {
    let (basis, target, delta) = example();
    let signature = signature(&basis, 64);
    assert!(matches!(
        Signature::read(Broken, 0, options(64)),
        Err(SignatureError::Read { offset: 0, .. })
    ));
    assert!(matches!(
        diff_read(&signature, Broken, io::sink()),
        Err(DiffError::ReadTarget { offset: 0, .. })
    ));
    assert!(matches!(
        diff_read(&signature, &target[..], Broken),
        Err(DiffError::WriteDelta(_))
    ));
    assert!(matches!(
        patch_read(Cursor::new(&basis), Broken, io::sink(), MAX_LEN),
        Err(PatchError::ReadDelta(_))
    ));
    assert!(matches!(
        patch_read(Broken, &delta[..], io::sink(), MAX_LEN),
        Err(PatchError::ReadBasis { offset: 0, .. })
    ));
    assert!(matches!(
        patch_read(Cursor::new(&basis), &delta[..], Broken, MAX_LEN),
        Err(PatchError::WriteTarget { offset: 0, .. })
    ));
}
