//! Deltas and signatures that were cut, changed or made up: an error, never a wrong target.

use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};

use patchwire_delta::{
    BlockSizeError, DecodeError, Delta, DiffError, PatchError, ReadError, Signature,
    SignatureError, diff, diff_read, patch, patch_read,
};
use proptest::prelude::*;

use crate::inputs::{case, dribble, noise, options, signature};

const MAX_LEN: u64 = 4 << 20;

fn patched(basis: &[u8], delta: impl BufRead) -> Result<Vec<u8>, PatchError> {
    let mut output = Vec::new();
    patch_read(Cursor::new(basis), delta, &mut output, MAX_LEN).map(|_| output)
}

/// What each way to apply an encoded delta says.
fn every_way(basis: &[u8], delta: &[u8], max_len: u64) -> Vec<Result<Vec<u8>, PatchError>> {
    let mut output = Vec::new();
    let read = patch_read(Cursor::new(basis), delta, &mut output, max_len).map(|_| output);
    let mut results = vec![patch(basis, delta, max_len), read];
    if let Ok(delta) = Delta::decode(delta) {
        results.push(delta.apply(basis, max_len));
        let mut into = b"what was there before".to_vec();
        let result = delta.apply_into(basis, max_len, &mut into);
        assert!(result.is_ok() || into.is_empty(), "something is left");
        results.push(result.map(|()| into));
        let mut to = Vec::new();
        results.push(delta.apply_to(basis, max_len, &mut to).map(|()| to));
    }
    results
}

/// A basis, a target that needs both kinds of operations, and their delta.
fn example() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let basis = noise(2000, 1);
    let target = [&basis[..900], b"inserted", &basis[1000..], &basis[..128]].concat();
    let delta = diff(&signature(&basis, 64), &target).encode();
    (basis, target, delta)
}

/// The same with blocks that have anchors.
fn example_with_anchors() -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let basis = noise(4000, 1);
    let target = [&basis[..1000], b"inserted", &basis[1000..], &basis[..512]].concat();
    let delta = diff(&signature(&basis, 512), &target).encode();
    (basis, target, delta)
}

#[test]
fn a_delta_cut_anywhere_is_truncated() {
    let (basis, target, delta) = example();
    assert_eq!(patch(&basis, &delta, MAX_LEN).unwrap(), target);
    for delta in [delta, Delta::whole(&target[..500]).encode()] {
        for len in 0..delta.len() {
            for result in every_way(&basis, &delta[..len], MAX_LEN) {
                let error = result.unwrap_err();
                let truncated =
                    matches!(error, PatchError::Malformed(DecodeError::Truncated { .. }));
                assert!(truncated, "cut at {len}: {error:?}");
            }
        }
        let longer = [&delta[..], &[0]].concat();
        assert_eq!(
            Delta::decode(&longer),
            Err(DecodeError::Trailing { len: 1 })
        );
    }
}

#[test]
fn a_signature_cut_anywhere_is_truncated() {
    for (block_size, entry_len) in [(64, 10), (512, 12)] {
        let encoded = signature(&noise(1000, 1), block_size).encode();
        for cut in 0..encoded.len() {
            let truncated = DecodeError::Truncated { len: cut as u64 };
            assert_eq!(Signature::decode(&encoded[..cut]), Err(truncated));
            let read = Signature::decode_from(dribble(&encoded[..cut], 5));
            assert!(matches!(read, Err(ReadError::Malformed(error)) if error == truncated));
        }
        for extra in [1, entry_len, entry_len + 1] {
            let longer = [&encoded[..], &vec![0; extra]].concat();
            let len = extra as u64;
            assert_eq!(
                Signature::decode(&longer),
                Err(DecodeError::Trailing { len })
            );
        }
    }
}

/// A bit of the seed or of the fingerprint may go unnoticed where the result is right: they say what
/// went wrong where it isn't. Everything else is noticed.
#[test]
fn a_flipped_bit_of_a_delta_never_gives_another_target() {
    // Magic number, the byte that says there is a basis, and the lengths of basis and blocks.
    let seed = 3 + 1 + 1 + 2 + 1;
    for ((basis, target, delta), seed) in [(example(), seed), (example_with_anchors(), seed + 1)] {
        let head = seed..seed + 8 + 4;
        for bit in 0..delta.len() * 8 {
            let mut flipped = delta.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            for result in every_way(&basis, &flipped, MAX_LEN) {
                match result {
                    Ok(output) => {
                        // The block size is of no use either, where the result is right.
                        assert!((head.start - 2..head.end).contains(&(bit / 8)), "bit {bit}");
                        assert_eq!(output, target);
                    }
                    Err(PatchError::OutOfMemory { .. }) => panic!("bit {bit}"),
                    Err(_) => {}
                }
            }
        }
        for result in every_way(&basis, &delta, MAX_LEN) {
            assert_eq!(result.unwrap(), target);
        }
    }
    let (basis, target, _) = example();
    let delta = Delta::whole(&target[..600]).encode();
    for bit in 0..delta.len() * 8 {
        let mut flipped = delta.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        for result in every_way(&basis, &flipped, MAX_LEN) {
            assert!(result.is_err(), "bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn changed_deltas_never_give_another_target(
        case in case(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..8),
    ) {
        let (basis, target) = (case.basis(), case.target());
        let mut delta = diff(&case.signature(), &target).encode();
        for (at, bits) in changes {
            let at = at.index(delta.len());
            delta[at] ^= bits;
        }
        // A changed copy may take the same bytes from elsewhere in the basis.
        for output in every_way(&basis, &delta, MAX_LEN).into_iter().flatten() {
            prop_assert_eq!(output, &target[..]);
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let with_magic = |magic: &[u8]| [magic, &bytes].concat();
        for magic in [&b"PWD\x02"[..], b"PWD\x02\x00", b"PWD\x02\x01\x05\x40"] {
            for result in every_way(b"basis", &with_magic(magic), MAX_LEN) {
                prop_assert!(result.is_err());
            }
        }
        for magic in [&b"PWS\x02"[..], b"PWS\x02\x00\x00\x00\x40", b"PWS\x02\x00\x00\x02\x00"] {
            let signature = with_magic(magic);
            if let Ok(decoded) = Signature::decode(&signature) {
                prop_assert_eq!(decoded.encode(), signature);
            }
        }
    }

    /// A signature whose hashes are made up may cost literals, or a push, but never the target.
    #[test]
    fn changed_signatures_never_give_another_target(
        case in case(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..8),
    ) {
        let (basis, target) = (case.basis(), case.target());
        let mut encoded = case.signature().encode();
        for (at, bits) in changes {
            let at = at.index(encoded.len());
            encoded[at] ^= bits;
        }
        if let Ok(signature) = Signature::decode(&encoded) {
            prop_assert_eq!(signature.encode(), encoded);
            for result in every_way(&basis, &diff(&signature, &target).encode(), MAX_LEN) {
                match result {
                    Ok(output) => prop_assert_eq!(output, &target[..]),
                    Err(PatchError::Mismatch { .. } | PatchError::WrongBasis) => {}
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                }
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
    for version in [0, 1, 3] {
        assert_eq!(
            field(3..4, &[version]),
            Err(DecodeError::UnknownVersion { version })
        );
    }
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

/// An anchor has sixteen bytes before it and its key behind it in the same block, and within the
/// first 65 536 bytes of it.
#[test]
fn anchors_outside_their_block_are_refused() {
    for (block_size, last) in [
        (512, 512 - 64),
        (700, 700 - 64),
        (65_536, u16::MAX - 63),
        (131_072, u16::MAX - 63),
    ] {
        let basis = noise(2 * usize::try_from(block_size).unwrap(), 1);
        let with_place = |place: u16| {
            let mut encoded = signature(&basis, block_size).encode();
            // Of the second block: behind its key.
            encoded[24 + 12 + 4..][..2].copy_from_slice(&place.to_be_bytes());
            Signature::decode(&encoded).map(|signature| assert_eq!(signature.encode(), encoded))
        };
        for place in [0, 16, 17, last - 1, last] {
            assert_eq!(with_place(place), Ok(()));
        }
        for place in [1, 15, last + 1, u16::MAX] {
            let place = place.try_into().unwrap();
            assert_eq!(
                with_place(u16::from(place)),
                Err(DecodeError::Place { place, offset: 36 })
            );
        }
    }
}

/// The short block has no anchor, or a search by it could reach behind the end of the basis.
#[test]
fn an_anchor_of_the_short_block_is_refused() {
    for (len, place) in [(513, 16), (1023, 16), (1023, 448)] {
        let mut encoded = signature(&noise(len, 1), 512).encode();
        encoded[24 + 12 + 4..][..2].copy_from_slice(&u16::to_be_bytes(place));
        let place = place.try_into().unwrap();
        assert_eq!(
            Signature::decode(&encoded),
            Err(DecodeError::Place { place, offset: 36 })
        );
    }
}

/// The head of a delta for a basis of 100 bytes in blocks of 64, whatever its hashes are.
const HEAD: &[u8] = b"PWD\x02\x01\x64\x40seed....hash";

#[test]
fn heads_out_of_bounds_are_refused() {
    let refused = |delta: &[u8]| {
        let read = patched(&[7; 100], delta).unwrap_err();
        let slice = patch(&[7; 100], delta, MAX_LEN).unwrap_err();
        assert_eq!(slice.to_string(), read.to_string());
        match read {
            PatchError::Malformed(error) => error,
            error => panic!("{error:?}"),
        }
    };
    let [found, expected] = [*b"PWS", *b"PWD"];
    assert_eq!(
        refused(b"PWS\x02\x00"),
        DecodeError::WrongMagic { found, expected }
    );
    for version in [0, 1, 3] {
        let unknown = DecodeError::UnknownVersion { version };
        assert_eq!(refused(&[b'P', b'W', b'D', version, 0]), unknown);
    }
    let offset = 4;
    assert_eq!(
        refused(b"PWD\x02\x02"),
        DecodeError::UnknownBasis { tag: 2, offset }
    );
    let long = b"PWD\x02\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02";
    assert_eq!(refused(long), DecodeError::MalformedNumber { offset: 5 });
    for (block_size, number) in [
        (63, &[63][..]),
        ((1 << 20) + 1, &[0x81, 0x80, 0x40]),
        // Not what is left of it in 32 bits.
        (u32::MAX, &[0xC0, 0x80, 0x80, 0x80, 0x80, 0x01]),
    ] {
        let error = DecodeError::BlockSize(BlockSizeError { block_size });
        assert_eq!(refused(&[b"PWD\x02\x01\x64", number].concat()), error);
    }
}

#[test]
fn operations_out_of_bounds_are_refused() {
    let refused = |ops: &[u8]| {
        let mut errors = [HEAD, b"PWD\x02\x00"].map(|head| {
            let delta = [head, ops, &[0; 41]].concat();
            let slice = patch(&[7; 100], &delta, 200).unwrap_err();
            let read = patch_read(Cursor::new([7; 100]), &delta[..], io::sink(), 200).unwrap_err();
            assert_eq!(slice.to_string(), read.to_string());
            match read {
                PatchError::Malformed(error) => error,
                error => panic!("{error:?}"),
            }
        });
        // Where the operation is, is told from where operations begin.
        for (error, head_len) in errors.iter_mut().zip([HEAD.len() as u64, 5]) {
            match error {
                DecodeError::UnknownOp { offset, .. }
                | DecodeError::EmptyOp { offset }
                | DecodeError::LiteralTooLong { offset, .. }
                | DecodeError::CopyWithoutBasis { offset } => *offset -= head_len,
                error => panic!("{error:?}"),
            }
        }
        errors
    };
    assert_eq!(
        refused(&[3]),
        [DecodeError::UnknownOp { tag: 3, offset: 0 }; 2]
    );
    assert_eq!(refused(&[2, 0]), [DecodeError::EmptyOp { offset: 0 }; 2]);
    assert_eq!(
        refused(&[2, 0x81, 0x80, 0x04]),
        [DecodeError::LiteralTooLong {
            len: 65_537,
            offset: 0
        }; 2]
    );
    let without = DecodeError::CopyWithoutBasis { offset: 0 };
    assert_eq!(
        refused(&[1, 0, 0]),
        [DecodeError::EmptyOp { offset: 0 }, without]
    );
    let outside = [2, 1, b'x', 1, 0, 0];
    let [with, without] = [
        DecodeError::EmptyOp { offset: 3 },
        DecodeError::CopyWithoutBasis { offset: 3 },
    ];
    assert_eq!(refused(&outside), [with, without]);
}

#[test]
fn copies_and_lengths_out_of_bounds_are_refused() {
    let basis = [7; 100];
    let refused = |ops: &[u8], target_len: &[u8]| {
        let delta = [HEAD, ops, &[0], target_len, &[0; 32]].concat();
        let slice = patch(&basis, &delta, 200).unwrap_err();
        for result in every_way(&basis, &delta, 200) {
            assert_eq!(result.unwrap_err().to_string(), slice.to_string());
        }
        slice
    };
    assert!(matches!(
        refused(&[1, 1, 100], &[100]),
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
        refused(&everything, &[1]),
        PatchError::CopyOutside {
            offset: u64::MAX,
            len: 1,
            ..
        }
    ));
    assert!(matches!(
        refused(&[1, 0, 100, 1, 0, 100, 1, 0, 1], &[0xC9, 1]),
        PatchError::TooLong {
            len: 201,
            max_len: 200
        }
    ));
    assert!(matches!(
        refused(&[1, 0, 100], &[99]),
        PatchError::Malformed(DecodeError::WrongLength {
            expected: 99,
            actual: 100
        })
    ));
    // The digest is wrong, and so is the fingerprint.
    assert!(matches!(
        refused(&[1, 0, 100], &[100]),
        PatchError::WrongBasis
    ));
}

/// Two copies of nearly 2⁶⁴ bytes: their sum doesn't fit, and no basis has them.
#[test]
fn targets_over_64_bits_are_refused() {
    let huge = [
        1, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1,
    ];
    let delta = [HEAD, &huge, &huge, &[0, 0], &[0; 32]].concat();
    let offset = (HEAD.len() + 2 * huge.len()) as u64;
    assert_eq!(
        Delta::decode(&delta),
        Err(DecodeError::TargetTooLong { offset })
    );
    assert!(matches!(
        patched(&[7; 100], &delta[..]).unwrap_err(),
        PatchError::CopyOutside { .. }
    ));
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
    let decoded = Delta::decode(&delta).unwrap();
    assert!(matches!(
        decoded.apply_to(&basis, MAX_LEN, Broken),
        Err(PatchError::WriteTarget { offset: 0, .. })
    ));
    assert!(matches!(
        Signature::decode_from(Broken),
        Err(ReadError::Io(_))
    ));
    // In the middle, too.
    let encoded = signature.encode();
    assert!(matches!(
        Signature::decode_from(encoded[..100].chain(Broken)),
        Err(ReadError::Io(_))
    ));
    let patched = |delta| patch_read(Cursor::new(&basis), delta, io::sink(), MAX_LEN);
    assert!(matches!(
        patched(BufReader::new(delta[..100].chain(Broken))),
        Err(PatchError::ReadDelta(_))
    ));
    assert_eq!(
        signature.write(Broken).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert_eq!(
        decoded.write(Broken).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
}
