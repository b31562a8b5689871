//! The crate `fast_rsync`, in the same kind of process as ourselves.

use std::{
    borrow::Cow,
    fs::File,
    io::{BufWriter, Write},
};

use anyhow::bail;
use fast_rsync::{Signature, SignatureOptions, apply_limited, diff};

use super::{Engine, Inputs, Operation, Output};
use crate::delta::worker::Meter;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::Signature,
    Operation::Diff,
    Operation::Patch,
    Operation::PatchReused,
    Operation::PatchFile,
];

/// As many bytes of strong hash as ours.
const STRONG_LEN: u32 = 8;

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
    Ok(match operation {
        Operation::Signature => {
            let options = SignatureOptions {
                block_size: inputs.block_size,
                crypto_hash_size: STRONG_LEN,
            };
            let signature = meter.measure(|| Signature::calculate(basis, options))?;
            Output::Signature(signature.into_serialized())
        }
        Operation::Diff => {
            let signature = Signature::deserialize(inputs.signature.clone())?;
            let delta = meter.measure(|| {
                let mut delta = Vec::new();
                diff(&signature.index(), target, &mut delta)?;
                anyhow::Ok(delta)
            })??;
            Output::Delta(delta)
        }
        Operation::Patch => {
            let patched = meter.measure(|| {
                // It need not grow: the peer at its best.
                let mut patched = Vec::with_capacity(target.len());
                apply_limited(basis, delta, &mut patched, target.len())?;
                anyhow::Ok(patched)
            })??;
            Output::Target(Cow::Owned(patched))
        }
        Operation::PatchReused => {
            meter.measure(|| {
                buffer.clear();
                apply_limited(basis, delta, buffer, target.len())
            })??;
            Output::Target(Cow::Borrowed(buffer))
        }
        Operation::PatchFile => {
            meter.measure(|| {
                // Long copies pass the buffer by.
                let mut out = BufWriter::new(File::create_new(
                    inputs.files.output(Engine::FAST_RSYNC, operation),
                )?);
                apply_limited(basis, delta, &mut out, target.len())?;
                anyhow::Ok(out.flush()?)
            })??;
            Output::TargetFile
        }
        _ => bail!("fast_rsync has no operation {}", operation.name()),
    })
}
