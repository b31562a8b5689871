//! Ourselves: the only file of the harness that calls the delta engine.

use std::{
    borrow::Cow,
    fs::File,
    io::{BufWriter, Cursor, Write},
};

use anyhow::bail;
use patchwire_delta::{
    BlockSize, Digest, Seed, Signature, SignatureOptions, diff, patch, patch_read,
};

use super::{Inputs, Operation, Output};
use crate::delta::worker::Meter;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::Signature,
    Operation::Diff,
    Operation::Patch,
    Operation::PatchReused,
    Operation::PatchFile,
    Operation::Digest,
];

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
        ..
    } = inputs;
    let max_len = target.len() as u64;
    Ok(match operation {
        Operation::Signature => {
            let options = SignatureOptions {
                block_size: Some(BlockSize::try_from(inputs.block_size)?),
                ..SignatureOptions::new(Seed(0x5EED))
            };
            // With the encoding, as the peer's signature is an encoded one from the start.
            Output::Signature(meter.measure(|| Signature::of(basis, options).encode())?)
        }
        Operation::Diff => {
            let signature = Signature::decode(&inputs.signature)?;
            // With the index over the signature, which `diff` makes anew.
            let delta = meter.measure(|| diff(&signature, target))?;
            Output::Delta(delta.encode())
        }
        Operation::Patch => {
            let patched = meter.measure(|| patch(basis, delta, max_len))??;
            Output::Target(Cow::Owned(patched))
        }
        Operation::PatchReused => {
            meter.measure(|| {
                buffer.clear();
                patch_read(Cursor::new(basis), delta.as_slice(), &mut *buffer, max_len)
            })??;
            Output::Target(Cow::Borrowed(buffer))
        }
        Operation::PatchFile => {
            meter.measure(|| {
                let mut out = BufWriter::new(File::create_new(&inputs.file)?);
                patch_read(Cursor::new(basis), delta.as_slice(), &mut out, max_len)?;
                anyhow::Ok(out.flush()?)
            })??;
            Output::TargetFile
        }
        Operation::Digest => {
            let digest = meter.measure(|| Digest::of(target))?;
            Output::Unchecked(digest.as_bytes().len())
        }
        Operation::Whole => bail!("patchwire has no operation {}", operation.name()),
    })
}
