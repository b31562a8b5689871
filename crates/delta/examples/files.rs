//! Signs, diffs and patches files.
//!
//! ```text
//! cargo run --release -p patchwire-delta --example files -- sign OLD SIGNATURE [THREADS]
//! cargo run --release -p patchwire-delta --example files -- diff SIGNATURE NEW DELTA [THREADS]
//! cargo run --release -p patchwire-delta --example files -- patch OLD DELTA OUT
//! ```

use std::{
    env,
    error::Error,
    fs::{self, File},
    hash::{BuildHasher, Hasher, RandomState},
    io::{BufReader, BufWriter, Write},
    num::NonZeroUsize,
    path::Path,
    process::ExitCode,
};

use patchwire_delta::{
    DiffOptions, PatchError, Seed, Signature, SignatureOptions, diff_read, diff_with, patch_read,
};
use tempfile::NamedTempFile;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["sign", basis, signature] => sign(basis, signature, NonZeroUsize::MIN)?,
        ["sign", basis, signature, threads] => sign(basis, signature, threads.parse()?)?,
        ["diff", signature, target, delta] => diff(signature, target, delta, NonZeroUsize::MIN)?,
        ["diff", signature, target, delta, threads] => {
            diff(signature, target, delta, threads.parse()?)?;
        }
        ["patch", basis, delta, out] => patch(basis, delta, out)?,
        _ => {
            eprintln!("usage: files sign OLD SIGNATURE [THREADS]");
            eprintln!("       files diff SIGNATURE NEW DELTA [THREADS]");
            eprintln!("       files patch OLD DELTA OUT");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn sign(basis: &str, signature: &str, threads: NonZeroUsize) -> Result<(), Box<dyn Error>> {
    let basis = File::open(basis)?;
    let len = basis.metadata()?.len();
    let options = SignatureOptions {
        threads,
        ..SignatureOptions::new(random_seed())
    };
    let made = Signature::read(basis, len, options)?;
    let mut out = BufWriter::new(File::create(signature)?);
    made.write(&mut out)?;
    out.flush()?;
    eprintln!(
        "{} bytes in blocks of {}: a signature of {} bytes",
        made.basis_len(),
        made.block_size().get(),
        made.encoded_len()
    );
    Ok(())
}

fn diff(
    signature: &str,
    target: &str,
    delta: &str,
    threads: NonZeroUsize,
) -> Result<(), Box<dyn Error>> {
    let signature = Signature::decode_from(BufReader::new(File::open(signature)?))?;
    let mut out = BufWriter::new(File::create(delta)?);
    let (literal, delta_len) = if threads.get() == 1 {
        // In bounded memory, as the target is read.
        let summary = diff_read(&signature, File::open(target)?, &mut out)?;
        (summary.literal, summary.delta_len)
    } else {
        // Threads need the target in memory.
        let target = fs::read(target)?;
        let options = DiffOptions {
            threads,
            ..DiffOptions::default()
        };
        let made = diff_with(&signature, &target, options);
        (made.literal_bytes(), made.write(&mut out)?)
    };
    out.flush()?;
    eprintln!("a delta of {delta_len} bytes, {literal} of them literals");
    Ok(())
}

fn patch(basis: &str, delta: &str, out: &str) -> Result<(), Box<dyn Error>> {
    // What is written is known to be right when all of it is there: it gets its name then.
    let directory = Path::new(out)
        .parent()
        .filter(|path| *path != Path::new(""));
    let mut made = NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
    let basis = File::open(basis)?;
    let delta = BufReader::new(File::open(delta)?);
    // A delta from someone else should not fill the disk: allow what you expect.
    let max_len = 1 << 40;
    let summary = match patch_read(basis, delta, &mut made, max_len) {
        Ok(summary) => summary,
        Err(PatchError::WrongBasis) => return Err("another basis: sign it, and diff again".into()),
        Err(error) => return Err(error.into()),
    };
    made.as_file().sync_all()?;
    made.persist(out)?;
    eprintln!("{} bytes, {}", summary.target_len, summary.digest);
    Ok(())
}

/// The standard library has no random numbers, but hashers with random keys.
fn random_seed() -> Seed {
    Seed(RandomState::new().build_hasher().finish())
}
