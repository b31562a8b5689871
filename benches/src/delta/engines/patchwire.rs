//! Ourselves: the only file of the harness that calls the delta engine.

use std::{
    borrow::Cow,
    fs::File,
    io::{BufReader, BufWriter, Cursor, Write},
    num::NonZeroUsize,
    path::Path,
};

use anyhow::bail;
use patchwire_delta::{
    BlockSize, Delta, DiffOptions, Digest, FirstRound, Regions, Seed, Signature, SignatureOptions,
    diff_read_with, diff_with, patch, patch_read,
};

use super::{Engine, Inputs, Operation, Output};
use crate::delta::worker::Meter;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::Signature,
    Operation::Signature2Threads,
    Operation::SignatureStream,
    Operation::Diff,
    Operation::Diff2Threads,
    Operation::DiffDigest,
    Operation::DiffStream,
    Operation::Patch,
    Operation::PatchReused,
    Operation::PatchFile,
    Operation::PatchStream,
    Operation::TwoRounds,
    Operation::Digest,
];

const SEED: Seed = Seed(0x5EED);
const ANOTHER_SEED: Seed = Seed(0x5EED_5EED);

const TWO: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");

pub(super) fn run<'a>(
    operation: Operation,
    inputs: &'a Inputs,
    buffer: &'a mut Vec<u8>,
    meter: &mut Meter,
) -> anyhow::Result<Output<'a>> {
    let Inputs {
        basis,
        target,
        delta,
        files,
        ..
    } = inputs;
    let max_len = target.len() as u64;
    let block_size = Some(BlockSize::try_from(inputs.block_size)?);
    let out = files.output(Engine::PATCHWIRE, operation);
    Ok(match operation {
        Operation::Signature | Operation::Signature2Threads => {
            let options = SignatureOptions {
                threads: threads(operation),
                ..signature_options(block_size)
            };
            // With the encoding, as the peer's signature is an encoded one from the start.
            Output::Signature(meter.measure(|| Signature::of(basis, options).encode())?)
        }
        Operation::SignatureStream => {
            meter.measure(|| sign_file(&files.basis(), block_size, &out))??;
            Output::SignatureFile
        }
        Operation::Diff | Operation::Diff2Threads | Operation::DiffDigest => {
            let signature = Signature::decode(&inputs.signature)?;
            let options = DiffOptions {
                digest: (operation != Operation::DiffDigest).then(|| known_digest(inputs)),
                threads: threads(operation),
            };
            // With the index over the signature, which is made anew for each target.
            let delta = meter.measure(|| diff_with(&signature, target, options))?;
            Output::Delta(delta.encode())
        }
        Operation::DiffStream => {
            let signature = Signature::decode(&inputs.signature)?;
            let options = with_digest(known_digest(inputs));
            meter.measure(|| diff_file(&signature, &files.target(), options, &out))??;
            Output::DeltaFile
        }
        Operation::Patch => {
            let patched = meter.measure(|| patch(basis, delta, max_len))??;
            Output::Target(Cow::Owned(patched))
        }
        Operation::PatchReused => {
            meter.measure(|| {
                let delta = Delta::decode(delta)?;
                anyhow::Ok(delta.apply_into(basis, max_len, buffer)?)
            })??;
            Output::Target(Cow::Borrowed(buffer))
        }
        Operation::PatchFile => {
            meter.measure(|| {
                let out = File::create_new(&out)?;
                anyhow::Ok(Delta::decode(delta)?.apply_to(basis, max_len, out)?)
            })??;
            Output::TargetFile
        }
        Operation::PatchStream => {
            let delta = files.output(Engine::PATCHWIRE, Operation::Diff);
            meter.measure(|| {
                let mut out = BufWriter::new(File::create_new(&out)?);
                patch_from_files(&files.basis(), &delta, &mut out, max_len)?;
                anyhow::Ok(out.flush()?)
            })??;
            Output::TargetFile
        }
        Operation::TwoRounds => {
            let digest = known_digest(inputs);
            Output::Messages(meter.measure(|| two_rounds(basis, target, digest))??)
        }
        Operation::Digest => {
            let digest = meter.measure(|| Digest::of(target))?;
            Output::Unchecked(digest.as_bytes().len())
        }
        Operation::Whole => bail!("patchwire has no operation {}", operation.name()),
    })
}

const fn threads(operation: Operation) -> NonZeroUsize {
    match operation.with_one_thread() {
        Some(_) => TWO,
        None => NonZeroUsize::MIN,
    }
}

const fn signature_options(block_size: Option<BlockSize>) -> SignatureOptions {
    SignatureOptions {
        block_size,
        ..SignatureOptions::new(SEED)
    }
}

const fn with_digest(digest: Digest) -> DiffOptions {
    DiffOptions {
        digest: Some(digest),
        threads: NonZeroUsize::MIN,
    }
}

/// The digest of the target, which in Patchwire the scan of the tree has found out before.
fn known_digest(inputs: &Inputs) -> Digest {
    let digest = inputs
        .digest
        .get_or_init(|| *Digest::of(&inputs.target).as_bytes());
    Digest::from_bytes(*digest)
}

fn sign_file(basis: &Path, block_size: Option<BlockSize>, out: &Path) -> anyhow::Result<()> {
    let basis = File::open(basis)?;
    let len = basis.metadata()?.len();
    let signature = Signature::read(basis, len, signature_options(block_size))?;
    let mut out = BufWriter::new(File::create_new(out)?);
    signature.write(&mut out)?;
    Ok(out.flush()?)
}

fn diff_file(
    signature: &Signature,
    target: &Path,
    options: DiffOptions,
    out: &Path,
) -> anyhow::Result<()> {
    let mut out = BufWriter::new(File::create_new(out)?);
    diff_read_with(signature, File::open(target)?, &mut out, options)?;
    Ok(out.flush()?)
}

fn patch_from_files(
    basis: &Path,
    delta: &Path,
    out: impl Write,
    max_len: u64,
) -> anyhow::Result<()> {
    let delta = BufReader::new(File::open(delta)?);
    patch_read(File::open(basis)?, delta, out, max_len)?;
    Ok(())
}

/// One push of a file that holds a conversation of two rounds: gives all messages, the delta last.
fn two_rounds(basis: &[u8], target: &[u8], digest: Digest) -> anyhow::Result<Vec<Vec<u8>>> {
    let block_size = BlockSize::for_two_rounds(basis.len() as u64);
    // Where the basis is.
    let first = Signature::of(basis, signature_options(Some(block_size))).encode();
    // Where the target is.
    let signature = Signature::decode(&first)?;
    let round = FirstRound::of(&signature, target, with_digest(digest));
    let regions = round.regions();
    let request = regions.encode();
    if regions.signature_len() + request.len() as u64 >= round.missing() {
        let delta = round.finish_early(target)?.encode();
        return Ok(vec![first, delta]);
    }
    // Where the basis is.
    let second = Regions::decode(&request)?
        .sign(Cursor::new(basis), ANOTHER_SEED)?
        .encode();
    // Where the target is.
    let delta = round.finish(&Signature::decode(&second)?, target)?.encode();
    Ok(vec![first, request, second, delta])
}

/// One push of a file by one round with blocks of this size, or of the size that goes with the length
/// of the basis: gives the block size and both messages, the delta last.
pub(crate) fn single_round(
    inputs: &Inputs,
    block_size: Option<u32>,
) -> anyhow::Result<(u32, Vec<Vec<u8>>)> {
    let block_size = block_size.map(BlockSize::try_from).transpose()?;
    let signature = Signature::of(&inputs.basis, signature_options(block_size));
    let options = with_digest(known_digest(inputs));
    let delta = diff_with(&signature, &inputs.target, options).encode();
    let block_size = signature.block_size().get();
    Ok((block_size, vec![signature.encode(), delta]))
}

/// Makes the signature of a file, with the block size that goes with its length, in bounded memory.
pub(crate) fn stream_signature(basis: &Path, signature: &Path) -> anyhow::Result<()> {
    sign_file(basis, None, signature)
}

/// Makes the delta to a file, in bounded memory; its digest is computed.
pub(crate) fn stream_diff(signature: &Path, target: &Path, delta: &Path) -> anyhow::Result<()> {
    let signature = Signature::decode_from(BufReader::new(File::open(signature)?))?;
    diff_file(&signature, target, DiffOptions::default(), delta)
}

/// Writes what a delta makes of a file, in bounded memory.
pub(crate) fn stream_patch(
    basis: &Path,
    delta: &Path,
    target: impl Write,
    max_len: u64,
) -> anyhow::Result<()> {
    patch_from_files(basis, delta, target, max_len)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::delta::workloads::Workload;

    const BLOCK_SIZE: u32 = 2048;

    /// The key and the place of the anchor of each block, or its weak hash and 0: as the encoding of a
    /// signature has them.
    fn marks(basis: &[u8]) -> Vec<([u8; 4], u16)> {
        let block_size = BlockSize::try_from(BLOCK_SIZE).unwrap();
        let signature = Signature::of(basis, signature_options(Some(block_size))).encode();
        let (_header, blocks) = signature.split_at(24);
        let (blocks, rest) = blocks.as_chunks::<12>();
        assert!(rest.is_empty());
        let mark =
            |[a, b, c, d, e, f, ..]: &[u8; 12]| ([*a, *b, *c, *d], u16::from_be_bytes([*e, *f]));
        blocks.iter().map(mark).collect()
    }

    #[test]
    fn hostile_anchors_are_what_blocks_are_found_by_and_stand_at_many_places() {
        let pair = Workload::Anchors.generate(2 << 20, BLOCK_SIZE);
        let mut places: HashMap<_, HashSet<u16>> = HashMap::new();
        for (key, place) in marks(&pair.basis) {
            assert_ne!(place, 0, "every block has an anchor");
            places.entry(key).or_default().insert(place);
        }
        // As many as are tried for one key.
        assert!(places.values().all(|places| places.len() >= 8));
        // The target has no other anchors either.
        let keys = marks(&pair.target);
        assert!(keys.iter().all(|(key, _)| places.contains_key(key)));
    }

    #[test]
    fn colliding_blocks_have_no_anchors_and_the_weak_hash_of_several_others() {
        let pair = Workload::Collisions.generate(1 << 20, BLOCK_SIZE);
        let mut blocks: HashMap<_, u32> = HashMap::new();
        for (weak, place) in marks(&pair.basis) {
            assert_eq!(place, 0, "no block has an anchor");
            *blocks.entry(weak).or_default() += 1;
        }
        // Windows at any phase, but for those at the end of a stretch.
        for shift in [0, 1, 700] {
            let of_target = marks(&pair.target[shift..]);
            let hostile = of_target.iter().filter(|(weak, place)| {
                *place == 0 && blocks.get(weak).is_some_and(|count| *count >= 4)
            });
            let (hostile, all) = (hostile.count(), of_target.len());
            assert!(hostile * 100 > all * 98, "{hostile} of {all}");
        }
    }

    #[test]
    fn two_rounds_take_fewer_bytes_than_one_where_few_have_changed() {
        let basis: Vec<u8> = (0..1u32 << 18)
            .flat_map(|at| at.wrapping_mul(at | 1).to_le_bytes())
            .collect();
        let mut target = basis.clone();
        target.splice(300_000..300_000, *b"inserted");
        let messages = two_rounds(&basis, &target, Digest::of(&target)).unwrap();
        assert_eq!(messages.len(), 4);
        let delta = messages.last().unwrap();
        assert_eq!(patch(&basis, delta, 2 << 20).unwrap(), target);
    }
}
