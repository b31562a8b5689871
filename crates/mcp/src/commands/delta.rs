//! `patchwire delta`: the delta engine on files.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    num::NonZeroUsize,
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Error, bail};
use patchwire_delta::{
    BlockSize, DiffOptions, Seed, Signature, SignatureOptions, diff_read, diff_with, librsync,
    patch_read,
};
use patchwire_transport::random_u64;

use crate::{
    cli::{Delta, DeltaCommand, Format},
    context::Context,
    failure::Failure,
    progress::{FileProgress, WorkProgress},
};

mod advice;
mod file;

use file::{Input, Output};

/// The most of a file that is held in memory where its format, or the number of threads, asks for all
/// of it.
const MAX_IN_MEMORY: u64 = 1 << 30;

/// What the length of a basis is taken for where it isn't known, which makes blocks of 8 KiB.
const UNKNOWN_LEN: u64 = 64 << 20;

pub(crate) async fn run(context: &Context, delta: Delta) -> Result<ExitCode, Failure> {
    let (inputs, out) = match &delta.command {
        DeltaCommand::Signature {
            basis, signature, ..
        } => (vec![basis], signature),
        DeltaCommand::Diff {
            signature,
            target,
            delta,
            ..
        } => (vec![signature, target], delta),
        DeltaCommand::Patch { basis, delta, out } => (vec![basis, delta], out),
    };
    if inputs.iter().filter(|path| Input::is_stdin(path)).count() > 1 {
        return Err(Failure::usage(anyhow::anyhow!(
            "standard input can be one of the files alone"
        )));
    }
    check_block_size(&delta).map_err(Failure::usage)?;
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

/// Checks the block size that is asked for, before anything is opened.
fn check_block_size(delta: &Delta) -> Result<(), Error> {
    let DeltaCommand::Signature {
        block_size: Some(block_size),
        ..
    } = delta.command
    else {
        return Ok(());
    };
    let checked = match delta.format {
        Format::Patchwire => BlockSize::try_from(block_size)
            .map(drop)
            .map_err(Error::from),
        Format::Librsync => librsync::signature(&[], block_size)
            .map(drop)
            .map_err(Error::from),
    };
    checked.context("--block-size")
}

fn work(delta: &Delta, quiet: bool, writer: File) -> Result<(), Error> {
    match &delta.command {
        DeltaCommand::Signature {
            block_size,
            threads,
            basis,
            ..
        } => match delta.format {
            Format::Patchwire => signature(basis, *block_size, threads.get(), quiet, writer),
            Format::Librsync => librsync_signature(basis, *block_size, quiet, writer),
        },
        DeltaCommand::Diff {
            threads,
            signature,
            target,
            ..
        } => match delta.format {
            Format::Patchwire => diff(signature, target, threads.get(), quiet, writer),
            Format::Librsync => librsync_diff(signature, target, quiet, writer),
        },
        DeltaCommand::Patch {
            basis, delta: path, ..
        } => match delta.format {
            Format::Patchwire => patch(basis, path, quiet, writer),
            Format::Librsync => librsync_patch(basis, path, quiet, writer),
        },
    }
}

fn signature(
    basis: &Path,
    block_size: Option<u32>,
    threads: NonZeroUsize,
    quiet: bool,
    out: File,
) -> Result<(), Error> {
    let basis = Input::open(basis)?;
    let len = basis.len();
    let progress = FileProgress::new(quiet, len);
    let options = SignatureOptions {
        block_size: block_size.map(BlockSize::try_from).transpose()?,
        threads,
        ..SignatureOptions::new(Seed(random_u64()?))
    };
    let len = len.unwrap_or(UNKNOWN_LEN);
    let signature =
        Signature::read(progress.counting(basis), len, options).map_err(advice::on_signature)?;
    progress.end();
    let mut out = buffered(out);
    signature.write(&mut out)?;
    Ok(out.flush()?)
}

fn diff(
    signature: &Path,
    target: &Path,
    threads: NonZeroUsize,
    quiet: bool,
    out: File,
) -> Result<(), Error> {
    let mut encoded = BufReader::with_capacity(BUFFER, Input::open(signature)?);
    let decoded = Signature::decode_from(&mut encoded)
        .map_err(|error| advice::on_reading(error, signature, "a signature"))?;
    expect_end(&mut encoded, signature)?;
    let mut out = buffered(out);
    let input = Input::open(target)?;
    if threads.get() > 1 && input.len().is_some_and(|len| len <= MAX_IN_MEMORY) {
        let progress = WorkProgress::new(quiet, "searching");
        let target = whole(input, target)?;
        let options = DiffOptions {
            threads,
            ..DiffOptions::default()
        };
        diff_with(&decoded, &target, options).write(&mut out)?;
        progress.end();
    } else {
        let progress = FileProgress::new(quiet, input.len());
        diff_read(&decoded, progress.counting(input), &mut out)?;
        progress.end();
    }
    Ok(out.flush()?)
}

fn patch(basis: &Path, delta: &Path, quiet: bool, out: File) -> Result<(), Error> {
    let input = Input::open(basis)?.seekable()?;
    let mut encoded = BufReader::with_capacity(BUFFER, Input::open(delta)?);
    // The length of the target is at the end of its delta: what it is of is not known.
    let progress = FileProgress::new(quiet, None);
    let mut out = buffered(progress.counting_writes(out));
    // The delta is the user's own choice, and its output goes to a file: there is no bound to guess.
    patch_read(BufReader::new(input), &mut encoded, &mut out, u64::MAX)
        .map_err(|error| advice::on_patch(error, basis, delta))?;
    expect_end(&mut encoded, delta)?;
    out.flush()?;
    progress.end();
    Ok(())
}

fn librsync_signature(
    basis: &Path,
    block_size: Option<u32>,
    quiet: bool,
    mut out: File,
) -> Result<(), Error> {
    let progress = WorkProgress::new(quiet, "hashing");
    let basis = whole(Input::open(basis)?, basis)?;
    let block_size = block_size.unwrap_or_else(|| BlockSize::for_len(basis.len() as u64).get());
    let signature = librsync::signature(&basis, block_size)?;
    progress.end();
    Ok(out.write_all(&signature)?)
}

fn librsync_diff(signature: &Path, target: &Path, quiet: bool, mut out: File) -> Result<(), Error> {
    let progress = WorkProgress::new(quiet, "searching");
    let encoded = whole(Input::open(signature)?, signature)?;
    let target = whole(Input::open(target)?, target)?;
    let delta = librsync::diff(&encoded, &target)
        .map_err(|error| advice::on_librsync(error, None, signature))?;
    progress.end();
    Ok(out.write_all(&delta)?)
}

fn librsync_patch(basis: &Path, delta: &Path, quiet: bool, mut out: File) -> Result<(), Error> {
    let progress = WorkProgress::new(quiet, "patching");
    let encoded = whole(Input::open(delta)?, delta)?;
    let input = whole(Input::open(basis)?, basis)?;
    let max_len = usize::try_from(MAX_IN_MEMORY)?;
    let target = librsync::patch(&input, &encoded, max_len)
        .map_err(|error| advice::on_librsync(error, Some(basis), delta))?;
    progress.end();
    Ok(out.write_all(&target)?)
}

/// How much is read and written at a time.
const BUFFER: usize = 256 << 10;

fn buffered<W: Write>(out: W) -> BufWriter<W> {
    BufWriter::with_capacity(BUFFER, out)
}

/// Fails if something follows.
fn expect_end(input: &mut impl Read, path: &Path) -> Result<(), Error> {
    if io::copy(&mut input.take(1), &mut io::sink())? > 0 {
        bail!("“{}” goes on after its end: fetch it again", path.display());
    }
    Ok(())
}

/// Reads a file into memory, if it is not too large for that.
fn whole(input: Input, path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = input.take(MAX_IN_MEMORY + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("can't read “{}”", path.display()))?;
    if bytes.len() as u64 > MAX_IN_MEMORY {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge))
            .with_context(|| format!("“{}” has over {MAX_IN_MEMORY} bytes", path.display()));
    }
    Ok(bytes)
}
