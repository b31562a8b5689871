//! The delta engine: its own encodings, and librsync's.

use std::io::{Cursor, Read};

use patchwire_delta::{
    BlockSize, DecodeError, Delta, Digest, Op, PatchError, Seed, Signature, SignatureOptions, diff,
    diff_read, librsync, patch_read,
};

/// The longest target that is made of hostile input, in bytes.
const MAX_LEN: u64 = 64 << 10;

/// The basis that hostile signatures and deltas are for: 1500 bytes, so that no usual block size
/// divides it, and no two blocks alike.
#[must_use]
pub fn basis() -> Vec<u8> {
    (0..1500u32)
        .map(|at| at.wrapping_mul(0x9E37_79B1).to_be_bytes()[0])
        .collect()
}

/// A target much like [`basis`], which needs both copies and literals.
#[must_use]
pub fn target() -> Vec<u8> {
    let basis = basis();
    [&basis[..700], b"inserted", &basis[800..], &basis[..300]].concat()
}

/// A signature, whatever its hashes are, costs literals at most and never gives another target.
pub fn signature(data: &[u8]) {
    let Ok(signature) = Signature::decode(data) else {
        return;
    };
    assert_eq!(signature.encode(), data);
    assert_eq!(signature.encoded_len(), data.len());

    let (basis, target) = (basis(), target());
    let delta = diff(&signature, &target);
    assert_eq!(delta.target_len(), target.len() as u64);
    assert_eq!(delta.digest(), Digest::of(&target));
    for op in delta.ops() {
        if let Op::Copy { offset, len } = op {
            assert!(offset + len <= signature.basis_len(), "{op:?}");
        }
    }
    match delta.apply(&basis, MAX_LEN) {
        Ok(output) => assert_eq!(output, target),
        Err(PatchError::Mismatch { .. } | PatchError::CopyOutside { .. }) => {}
        Err(error) => panic!("{error:?}"),
    }

    let mut streamed = Vec::new();
    diff_read(&signature, &target[..], &mut streamed).expect("memory has no errors");
    assert_eq!(streamed, delta.encode());
}

/// A delta gives the target that it has the digest of, or an error; on slices and readers alike.
pub fn delta(data: &[u8]) {
    let basis = basis();
    let (mut rest, mut output) = (data, Vec::new());
    let read = patch_read(Cursor::new(&basis), &mut rest, &mut output, MAX_LEN);
    match Delta::decode(data) {
        Ok(delta) => {
            assert_eq!(delta.encode(), data);
            assert_eq!(
                delta.target_len(),
                delta.ops().iter().map(Op::len).sum::<u64>()
            );
            assert!(delta.literal_bytes() <= data.len() as u64);
            match (delta.apply(&basis, MAX_LEN), read) {
                (Ok(applied), Ok(summary)) => {
                    assert_eq!(applied, output);
                    assert_eq!(Digest::of(&output), delta.digest());
                    assert_eq!(summary.digest, delta.digest());
                    assert_eq!(summary.copied + summary.literal, output.len() as u64);
                    assert!(rest.is_empty());
                }
                (Err(_), Err(_)) => {}
                (applied, read) => panic!("{applied:?} from slices, {read:?} from readers"),
            }
        }
        // A reader leaves what follows a delta; a slice has to be exactly one.
        Err(DecodeError::Trailing { len }) => {
            if read.is_ok() {
                assert_eq!(rest.len() as u64, len);
            }
        }
        Err(error) => assert!(
            read.is_err(),
            "{error:?} from slices, {read:?} from readers"
        ),
    }
}

/// From any basis to any target and back, on slices, on readers that give little at a time, and in
/// librsync's format.
///
/// The first byte chooses block and piece size, the second where the basis ends in the rest.
pub fn roundtrip(data: &[u8]) {
    let [sizes, split, rest @ ..] = data else {
        return;
    };
    let rest = &rest[..rest.len().min(16 << 10)];
    let (basis, new) = rest.split_at(rest.len() * usize::from(*split) / 256);
    let (head, tail) = basis.split_at(basis.len() / 3);
    let target = [tail, new, head, tail].concat();

    let block_size = 64 * (1 + u32::from(sizes % 8));
    let piece = 1 + usize::from(sizes / 8) * 50;
    let options = SignatureOptions {
        block_size: Some(BlockSize::try_from(block_size).expect("64 to 512 are block sizes")),
        seed: Seed(u64::from(*split)),
    };
    let signature = Signature::of(basis, options);
    let slowly = Pieces {
        bytes: basis,
        piece,
    };
    let read = Signature::read(slowly, basis.len() as u64, options).expect("memory has no errors");
    assert_eq!(read, signature);

    let delta = diff(&signature, &target);
    assert_eq!(
        delta.apply(basis, target.len() as u64).ok().as_ref(),
        Some(&target)
    );
    let slowly = Pieces {
        bytes: &target,
        piece,
    };
    let mut streamed = Vec::new();
    diff_read(&signature, slowly, &mut streamed).expect("memory has no errors");
    assert_eq!(streamed, delta.encode());
    assert_eq!(Delta::decode(&streamed).as_ref(), Ok(&delta));

    let signature = librsync::signature(basis, block_size).expect("the block size is in bounds");
    let delta = librsync::diff(&signature, &target).expect("the signature is our own");
    assert_eq!(
        librsync::patch(basis, &delta, target.len()).as_ref(),
        Ok(&target)
    );
}

/// A signature in librsync's format: whatever its hashes are, the delta makes as much as it should.
pub fn librsync_signature(data: &[u8]) {
    // Made-up hashes are looked up at every position: few positions keep each run short.
    let target = &target()[600..900];
    if let Ok(delta) = librsync::diff(data, target) {
        match librsync::patch(&basis(), &delta, target.len()) {
            Ok(output) => assert_eq!(output.len(), target.len()),
            Err(librsync::LibrsyncError::CopyOutside { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// A delta in librsync's format: an error, or a target within the limit.
pub fn librsync_delta(data: &[u8]) {
    use librsync::{LibrsyncError, patch};
    let basis = basis();
    if let Ok(output) = patch(&basis, data, 64 << 10) {
        assert_eq!(patch(&basis, data, output.len()).as_ref(), Ok(&output));
        if let Some(max_len) = output.len().checked_sub(1) {
            let refused = patch(&basis, data, max_len);
            assert_eq!(refused, Err(LibrsyncError::TooLong { max_len }));
        }
    }
}

/// A reader that gives at most `piece` bytes at a time.
struct Pieces<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.piece.min(buffer.len());
        self.bytes.read(&mut buffer[..len])
    }
}
