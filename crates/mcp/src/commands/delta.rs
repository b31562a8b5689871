//! `patchwire delta`: the delta engine on files.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Error, bail};
use patchwire_delta::{Seed, Signature, SignatureOptions, diff_read, librsync, patch_read};
use patchwire_transport::random_u64;

use crate::{
    cli::{Delta, DeltaCommand, Format},
    context::Context,
    failure::Failure,
    progress::ReadProgress,
};

mod file;

use file::{Input, Output};

/// The most of a file that is held in memory where its format asks for all of it.
const MAX_IN_MEMORY: u64 = 1 << 30;

/// What the length of a basis is taken for where it isn't known, which makes blocks of 8 KiB.
const UNKNOWN_LEN: u64 = 64 << 20;

pub(crate) async fn run(context: &Context, delta: Delta) -> Result<ExitCode, Failure> {
    let (inputs, out) = match &delta.command {
        DeltaCommand::Signature { basis, signature } => (vec![basis], signature),
        DeltaCommand::Diff {
            signature,
            target,
            delta,
        } => (vec![signature, target], delta),
        DeltaCommand::Patch { basis, delta, out } => (vec![basis, delta], out),
    };
    if inputs.iter().filter(|path| Input::is_stdin(path)).count() > 1 {
        return Err(Failure::usage(anyhow::anyhow!(
            "standard input can be one of the files alone"
        )));
    }
    let failed = |error| Failure::failed("delta", error);
    // Before there is anything that could stay behind.
    let interrupted = patchwire_agent::shutdown_signal().map_err(|error| failed(error.into()))?;
    let output = Output::create(out).map_err(failed)?;
    let writer = output.writer().map_err(failed)?;

    let quiet = context.options.quiet;
    let work = tokio::task::spawn_blocking(move || work(&delta, quiet, writer));
    // When it is interrupted, the output is dropped here and nothing of it stays, whatever the
    // work is waiting for.
    tokio::select! {
        done = work => done.map_err(Error::from).flatten().map_err(failed)?,
        () = interrupted => {
            return Err(Failure::new(130, "interrupted", anyhow::anyhow!("interrupted")));
        }
    }
    output.finish().map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

fn work(delta: &Delta, quiet: bool, writer: File) -> Result<(), Error> {
    let mut out = BufWriter::with_capacity(256 << 10, writer);
    match (&delta.command, delta.format) {
        (DeltaCommand::Signature { basis, .. }, Format::Patchwire) => {
            out.write_all(&signature(basis, quiet)?)?;
        }
        (DeltaCommand::Signature { basis, .. }, Format::Librsync) => {
            let basis = whole(basis)?;
            let block_size = patchwire_delta::BlockSize::for_len(basis.len() as u64);
            out.write_all(&librsync::signature(&basis, block_size.get())?)?;
        }
        (
            DeltaCommand::Diff {
                signature, target, ..
            },
            Format::Patchwire,
        ) => {
            let signature = Signature::decode(&whole(signature)?)
                .with_context(|| format!("“{}” is not a signature", signature.display()))?;
            let target = Input::open(target)?;
            let progress = ReadProgress::new(quiet, target.len());
            diff_read(&signature, progress.counting(target), &mut out)?;
            progress.end();
        }
        (
            DeltaCommand::Diff {
                signature, target, ..
            },
            Format::Librsync,
        ) => {
            out.write_all(&librsync::diff(&whole(signature)?, &whole(target)?)?)?;
        }
        (DeltaCommand::Patch { basis, delta, .. }, Format::Patchwire) => {
            patch(basis, delta, quiet, &mut out)?;
        }
        (DeltaCommand::Patch { basis, delta, .. }, Format::Librsync) => {
            let max_len = usize::try_from(MAX_IN_MEMORY)?;
            out.write_all(&librsync::patch(&whole(basis)?, &whole(delta)?, max_len)?)?;
        }
    }
    Ok(out.flush()?)
}

fn signature(basis: &Path, quiet: bool) -> Result<Vec<u8>, Error> {
    let basis = Input::open(basis)?;
    let len = basis.len();
    let progress = ReadProgress::new(quiet, len);
    let options = SignatureOptions::new(Seed(random_u64()?));
    let signature = Signature::read(
        progress.counting(basis),
        len.unwrap_or(UNKNOWN_LEN),
        options,
    )?;
    progress.end();
    Ok(signature.encode())
}

fn patch(basis: &Path, delta: &Path, quiet: bool, out: &mut impl Write) -> Result<(), Error> {
    let basis = Input::open(basis)?.seekable()?;
    let delta_file = Input::open(delta)?;
    let progress = ReadProgress::new(quiet, delta_file.len());
    let mut delta_file = BufReader::with_capacity(256 << 10, progress.counting(delta_file));
    // The delta is the user's own choice, and its output goes to a file: there is no bound to guess.
    patch_read(BufReader::new(basis), &mut delta_file, out, u64::MAX)?;
    if delta_file.read(&mut [0])? != 0 {
        bail!("“{}” goes on after its delta has ended", delta.display());
    }
    progress.end();
    Ok(())
}

/// Reads a file into memory, if it is not too large for that.
fn whole(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let input = Input::open(path)?;
    let read = input.take(MAX_IN_MEMORY + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("can't read “{}”", path.display()))?;
    if bytes.len() as u64 > MAX_IN_MEMORY {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge))
            .with_context(|| format!("“{}” has over {MAX_IN_MEMORY} bytes", path.display()));
    }
    Ok(bytes)
}
