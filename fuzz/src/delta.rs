//! The delta engine: its own encodings, and librsync's.

use std::{
    io::{Cursor, Read},
    num::NonZeroUsize,
};

use patchwire_delta::{
    BlockSize, DecodeError, Delta, DiffOptions, Digest, FirstRound, Op, PatchError, ReadError,
    Regions, RoundError, Seed, Signature, SignatureOptions, diff, diff_read, diff_with, librsync,
    patch_read, whole_read,
};

pub mod content;

use content::Instructions;

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

/// A signature, whatever its hashes are, costs literals at most and never gives another target; from
/// slices and readers alike.
pub fn signature(data: &[u8]) {
    let mut stream = Pieces {
        bytes: data,
        piece: 5,
    };
    let read = Signature::decode_from(&mut stream);
    let signature = match (Signature::decode(data), read) {
        (Ok(signature), Ok(read)) => {
            assert_eq!(read, signature);
            assert!(stream.bytes.is_empty());
            signature
        }
        // A reader leaves what follows a signature; a slice has to be exactly one.
        (Err(DecodeError::Trailing { len }), Ok(_)) => {
            assert_eq!(stream.bytes.len() as u64, len);
            return;
        }
        (Err(error), Err(ReadError::Malformed(read))) => {
            assert_eq!(read, error);
            return;
        }
        (slice, read) => panic!("{slice:?} from slices, {read:?} from readers"),
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
        Err(PatchError::Mismatch { .. } | PatchError::WrongBasis) => {}
        Err(error) => panic!("{error:?}"),
    }

    let mut streamed = Vec::new();
    diff_read(&signature, &target[..], &mut streamed).expect("memory has no errors");
    assert_eq!(streamed, delta.encode());
}

/// A delta gives the target that it has the digest of, or an error; on slices and readers alike.
pub fn delta(data: &[u8]) {
    let basis = basis();
    match Delta::decode(data) {
        Ok(delta) => {
            assert_eq!(delta.encode(), data);
            let lengths = delta.ops().iter().map(Op::len);
            assert_eq!(delta.target_len(), lengths.sum::<u64>());
            assert!(delta.literal_bytes() <= data.len() as u64);
            let _ = every_way(&basis, data, MAX_LEN);
        }
        // A reader leaves what follows a delta; a slice has to be exactly one.
        Err(DecodeError::Trailing { len }) => {
            let (mut rest, mut output) = (data, Vec::new());
            if patch_read(Cursor::new(&basis), &mut rest, &mut output, MAX_LEN).is_ok() {
                assert_eq!(rest.len() as u64, len);
            }
        }
        Err(error) => {
            let read = patch_read(Cursor::new(&basis), data, Vec::new(), MAX_LEN);
            assert!(
                read.is_err(),
                "{error:?} from slices, {read:?} from readers"
            );
        }
    }
}

/// Made-up operations on a made-up basis make what they say, or an error; and whose fault it is if
/// they don't is told.
///
/// The first two bytes are the length of the basis, which follows them, then a limit for the length
/// of the target in blocks of 256 bytes, and then operations.
pub fn patch(data: &[u8]) {
    let [high, low, limit, rest @ ..] = data else {
        return;
    };
    let basis_len = usize::from(u16::from_be_bytes([*high, *low]));
    let (basis, ops) = rest.split_at(basis_len.min(rest.len()));
    let max_len = 256 * (1 + u64::from(*limit));

    // As it came, with a digest that is hardly ever right.
    let _ = every_way(basis, ops, max_len);

    // Behind the right head, up to where the operations are malformed, and with the right end.
    let right = Signature::of(basis, options(64, 1));
    let empty = diff(&right, b"").encode();
    let (head, _) = empty.split_at(empty.len() - (1 + 1 + Digest::LEN));
    let (ops, target_len, made) = interpreted(basis, ops);
    let with = |head: &[u8], digest: Digest| {
        let end = number(target_len);
        [head, ops, &[0], &end, digest.as_bytes()].concat()
    };
    let Some(target) = &made else {
        let delta = with(head, Digest::of(b""));
        assert!(every_way(basis, &delta, max_len).is_err());
        return;
    };
    let digest = Digest::of(target);
    match every_way(basis, &with(head, digest), max_len) {
        Ok(output) => assert_eq!(&output, target),
        Err(PatchError::TooLong { .. }) => {
            assert!(target_len > max_len);
            return;
        }
        Err(error) => panic!("{error:?}"),
    }
    let wrong = Digest::of(digest.as_bytes());
    let error = every_way(basis, &with(head, wrong), max_len);
    assert!(
        matches!(error, Err(PatchError::Mismatch { expected, actual })
        if (expected, actual) == (wrong, digest))
    );
    // The fingerprint is the last of the head.
    let mut other = head.to_vec();
    if let Some(last) = other.last_mut() {
        *last ^= 1;
    }
    let error = every_way(basis, &with(&other, wrong), max_len);
    assert!(matches!(error, Err(PatchError::WrongBasis)), "{error:?}");
    let longer = [basis, &[0]].concat();
    let error = every_way(&longer, &with(head, digest), max_len);
    assert!(matches!(error, Err(PatchError::WrongBasis)), "{error:?}");
}

/// The operations up to the first that is malformed or too much, how many bytes they make, and if the
/// basis has what they copy, which; by an interpreter of its own.
fn interpreted<'o>(basis: &[u8], ops: &'o [u8]) -> (&'o [u8], u64, Option<Vec<u8>>) {
    /// A number and what follows it.
    fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
        let len = 1 + bytes.iter().position(|byte| byte & 0x80 == 0)?;
        let (bytes, rest) = bytes.split_at(len);
        let number = bytes.iter().rev().try_fold(0u64, |number, byte| {
            let number = number.checked_mul(1 << 7)?;
            Some(number | u64::from(byte & 0x7F))
        })?;
        let is_shortest = len == 1 || bytes[len - 1] != 0;
        is_shortest.then_some((number, rest))
    }

    let mut target = Some(Vec::new());
    let mut rest = ops;
    let mut total = 0u64;
    let mut next = || {
        let (tag, behind) = rest.split_first()?;
        let (first, behind) = number(behind)?;
        let (bytes, len, behind) = match tag {
            1 => {
                let (len, behind) = number(behind)?;
                let end = first.checked_add(len);
                let range = usize::try_from(first).ok().zip(end?.try_into().ok());
                let bytes = range.and_then(|(start, end)| basis.get(start..end));
                (bytes, len, behind)
            }
            2 => {
                let len = usize::try_from(first).ok().filter(|len| *len <= 65_536)?;
                let (bytes, behind) = behind.split_at_checked(len)?;
                (Some(bytes), first, behind)
            }
            _ => return None,
        };
        total = total
            .checked_add(len)
            .filter(|total| *total <= MAX_LEN && len > 0)?;
        rest = behind;
        match (bytes, &mut target) {
            (Some(bytes), Some(target)) => target.extend_from_slice(bytes),
            _ => target = None,
        }
        Some(())
    };
    while next().is_some() {}
    let done = ops.len() - rest.len();
    (&ops[..done], total, target)
}

/// A number as an encoded delta has it.
fn number(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Applies an encoded delta in every way, all of which agree: on the target, or on the error unless
/// one of them saw another first. None writes more than it may.
fn every_way(basis: &[u8], encoded: &[u8], max_len: u64) -> Result<Vec<u8>, PatchError> {
    let mut read = Vec::new();
    let mut rest = encoded;
    let summary = patch_read(Cursor::new(basis), &mut rest, &mut read, max_len);
    assert!(read.len() as u64 <= max_len);
    let result = patchwire_delta::patch(basis, encoded, max_len);
    match (&result, &summary) {
        (Ok(target), Ok(summary)) => {
            assert_eq!(target, &read);
            assert!(rest.is_empty());
            assert_eq!(summary.target_len, read.len() as u64);
            assert_eq!(summary.digest, Digest::of(&read));
            assert_eq!(summary.copied + summary.literal, summary.target_len);
        }
        (Err(_), Err(_)) | (Err(PatchError::Malformed(DecodeError::Trailing { .. })), Ok(_)) => {}
        (slice, read) => panic!("{slice:?} from slices, {read:?} from readers"),
    }
    let Ok(delta) = Delta::decode(encoded) else {
        return result;
    };
    let mut to = Vec::new();
    let to_result = delta.apply_to(basis, max_len, &mut to);
    assert!(to.len() as u64 <= max_len.min(delta.target_len()));
    let mut into = encoded.to_vec();
    let into_result = delta.apply_into(basis, max_len, &mut into);
    match &result {
        Ok(target) => {
            assert_eq!(Digest::of(target), delta.digest());
            assert!(to_result.is_ok() && into_result.is_ok());
            assert_eq!((&to, &into), (target, target));
        }
        Err(error) => {
            assert!(into.is_empty());
            for other in [to_result, into_result] {
                let other = other.expect_err("one way failed");
                assert_eq!(other.to_string(), error.to_string());
            }
        }
    }
    result
}

/// From any basis to any target and back, on slices, on readers that give little at a time, with
/// threads, and in librsync's format.
///
/// The first byte chooses the block size, the second the size of the pieces that readers give, and
/// the rest are instructions that make basis and target: see [`Instructions`].
pub fn roundtrip(data: &[u8]) {
    const BLOCK_SIZES: [u32; 8] = [64, 100, 300, 512, 700, 1024, 2048, 4096];
    let [block_size, piece, rest @ ..] = data else {
        return;
    };
    let block_size = BLOCK_SIZES[usize::from(block_size % 8)];
    let piece = 1 + usize::from(*piece) * 50;
    let (basis, target) = Instructions::new(rest).basis_and_target();

    let [single, double] = [1, 2].map(|threads| options(block_size, threads));
    let signature = Signature::of(&basis, single);
    assert_eq!(Signature::of(&basis, double), signature);
    for options in [single, double] {
        let slowly = Pieces {
            bytes: &basis,
            piece,
        };
        let read = Signature::read(slowly, basis.len() as u64, options);
        assert_eq!(read.expect("memory has no errors"), signature);
    }
    assert_eq!(
        Signature::decode(&signature.encode()).as_ref(),
        Ok(&signature)
    );

    let delta = diff(&signature, &target);
    let encoded = delta.encode();
    let output = every_way(&basis, &encoded, target.len() as u64);
    assert_eq!(output.ok().as_ref(), Some(&target));
    let slowly = Pieces {
        bytes: &target,
        piece,
    };
    let mut streamed = Vec::new();
    diff_read(&signature, slowly, &mut streamed).expect("memory has no errors");
    assert_eq!(streamed, encoded);
    assert_eq!(Delta::decode(&encoded).as_ref(), Ok(&delta));
    let options = DiffOptions {
        digest: Some(Digest::of(&target)),
        threads: double.threads,
    };
    assert_eq!(diff_with(&signature, &target, options), delta);

    let whole = Delta::whole(&target).encode();
    let output = every_way(&basis, &whole, target.len() as u64);
    assert_eq!(output.ok().as_ref(), Some(&target));
    let slowly = Pieces {
        bytes: &target,
        piece,
    };
    let mut streamed = Vec::new();
    whole_read(slowly, &mut streamed).expect("memory has no errors");
    assert_eq!(streamed, whole);

    let signature = librsync::signature(&basis, block_size).expect("the block size is in bounds");
    let delta = librsync::diff(&signature, &target).expect("the signature is our own");
    assert_eq!(
        librsync::patch(&basis, &delta, target.len()).as_ref(),
        Ok(&target)
    );
}

/// With a seed of its own for each block size.
fn options(block_size: u32, threads: usize) -> SignatureOptions {
    SignatureOptions {
        block_size: Some(BlockSize::try_from(block_size).expect("it is in bounds")),
        seed: Seed(u64::from(block_size)),
        threads: NonZeroUsize::new(threads).expect("there is one at least"),
    }
}

/// A request for regions is answered with a signature of just these, or refused.
pub fn regions(data: &[u8]) {
    let Ok(regions) = Regions::decode(data) else {
        return;
    };
    assert_eq!(regions.encode(), data);
    let basis = basis();
    match regions.sign(Cursor::new(&basis), Seed(1)) {
        Ok(signature) => {
            let parts = regions.ranges().iter().map(|range| {
                let place = |at: u64| usize::try_from(at).expect("it is inside the basis");
                &basis[place(range.start)..place(range.end)]
            });
            let parts = parts.collect::<Vec<_>>().concat();
            let options = SignatureOptions {
                block_size: Some(regions.block_size()),
                ..SignatureOptions::new(Seed(1))
            };
            assert_eq!(signature, Signature::of(&parts, options));
            assert_eq!(signature.encoded_len() as u64, regions.signature_len());
        }
        Err(RoundError::Outside { end, basis_len }) => {
            assert!(end > basis_len);
            assert_eq!(basis_len, basis.len() as u64);
        }
        Err(error) => panic!("{error:?}"),
    }
}

/// From any basis to any target and back in two rounds, on slices and readers; and a second signature
/// that is made up costs the delta, but never gives another target.
///
/// The first byte chooses the block size, the second how long the made-up part is.
pub fn rounds(data: &[u8]) {
    const BLOCK_SIZES: [u32; 6] = [128, 300, 512, 1000, 1024, 4096];
    let [block_size, made_up, rest @ ..] = data else {
        return;
    };
    let (made_up, rest) = rest.split_at(rest.len().min(usize::from(*made_up)));
    let (basis, target) = Instructions::new(rest).basis_and_target();
    let block_size = BLOCK_SIZES[usize::from(*block_size) % BLOCK_SIZES.len()];
    let signature = Signature::of(&basis, options(block_size, 1));

    let round = FirstRound::of(&signature, &target, DiffOptions::default());
    let early = round.finish_early(&target).expect("the target is the same");
    assert_eq!(early, diff(&signature, &target));
    let regions = round.regions();
    assert_eq!(Regions::decode(&regions.encode()).as_ref(), Ok(regions));
    let second = regions.sign(Cursor::new(&basis), Seed(2));
    let second = second.expect("the regions are of this basis");

    // The blocks of the answer, as somebody else would have them.
    let mut other = second.encode();
    for (byte, made_up) in other[24..].iter_mut().zip(made_up) {
        *byte ^= made_up;
    }
    for second in [Ok(second), Signature::decode(&other)]
        .into_iter()
        .flatten()
    {
        let delta = round.finish(&second, &target).expect("they fit");
        let slowly = Pieces {
            bytes: &target,
            piece: 77,
        };
        let read = FirstRound::read(&signature, slowly, DiffOptions::default());
        let read = read.expect("memory has no errors");
        let mut streamed = Vec::new();
        let finished = read.finish_read(&second, Cursor::new(&target), &mut streamed);
        finished.expect("they fit");
        assert_eq!(streamed, delta.encode());
        match every_way(&basis, &streamed, target.len() as u64) {
            Ok(output) => assert_eq!(output, target),
            Err(PatchError::Mismatch { .. }) => assert!(made_up.iter().any(|byte| *byte != 0)),
            Err(error) => panic!("{error:?}"),
        }
        assert!(delta.literal_bytes() <= round.missing());
    }
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
