//! The worker itself.

use std::{
    cell::OnceCell,
    fs::{self, File},
    io::{self, BufRead, Read, Write},
    mem,
};

use anyhow::{Context, bail, ensure};

use super::{Made, Measured, Reply, Request, SingleRound, SingleRounds};
use crate::{
    delta::{
        engines::{Engine, InProcess, Inputs, Output, single_round},
        files::{Files, holds, remove_if_present},
        operation::Operation,
        sparse,
    },
    measure::{Resident, cpu_time, timed},
};

/// The level of zstd that what is sent is compressed with.
const ZSTD_LEVEL: i32 = 3;

/// The block sizes among which the best for one round is sought.
const BLOCK_SIZES: [u32; 9] = [256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

/// Does what stdin asks for, until its end.
pub(crate) fn work() -> anyhow::Result<()> {
    let mut bench = None;
    for line in io::stdin().lock().lines() {
        if let Err(error) = handle(serde_json::from_str(&line?)?, &mut bench) {
            let error = format!("{error:#}");
            return say(&Reply::Failed { error });
        }
    }
    Ok(())
}

fn handle(request: Request, bench: &mut Option<Bench>) -> anyhow::Result<()> {
    match request {
        Request::Generate {
            workload,
            len,
            block_size,
            files,
        } => {
            let pair = workload.generate(len, block_size);
            fs::write(files.basis(), pair.basis)?;
            fs::write(files.target(), pair.target)?;
            say(&Reply::Generated { note: pair.note })
        }
        Request::Load {
            engine,
            block_size,
            files,
        } => {
            *bench = Some(Bench::load(engine, block_size, files)?);
            say(&Reply::Loaded)
        }
        Request::Run {
            operation,
            measured,
        } => {
            let bench = bench.as_mut().context("nothing is loaded")?;
            let made = bench
                .run(operation, measured)
                .with_context(|| format!("{} {}", bench.engine().name(), operation.name()))?;
            say(&Reply::Checked { made })
        }
        Request::SingleRounds => {
            let bench = bench.as_mut().context("nothing is loaded")?;
            let rounds = bench.single_rounds()?;
            say(&Reply::SingleRounds { rounds })
        }
        Request::Compress { path } => {
            let bytes = compressed_len(File::open(path)?)?;
            say(&Reply::Compressed { bytes })
        }
        Request::GenerateSparse { len, files } => {
            sparse::generate(len, &files)?;
            say(&Reply::Generated { note: None })
        }
        Request::RunSparse { operation, files } => {
            let mut meter = Meter::new(Some(Measured::Memory));
            let bytes = sparse::run(operation, &files, &mut meter)?;
            let zstd_bytes = None;
            let made = Made { bytes, zstd_bytes };
            say(&Reply::Checked { made })
        }
    }
}

fn say(reply: &Reply) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, reply)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// An engine, and what it works on.
struct Bench {
    in_process: InProcess,
    inputs: Inputs,
    buffer: Vec<u8>,
}

impl Bench {
    fn load(in_process: InProcess, block_size: u32, files: Files) -> anyhow::Result<Self> {
        let engine = Engine::InProcess(in_process);
        let made = |operation| match fs::read(files.output(engine, operation)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        };
        Ok(Self {
            in_process,
            inputs: Inputs {
                basis: fs::read(files.basis())?,
                target: fs::read(files.target())?,
                block_size,
                signature: made(Operation::Signature)?,
                delta: made(Operation::Diff)?,
                digest: OnceCell::new(),
                files,
            },
            buffer: Vec::new(),
        })
    }

    const fn engine(&self) -> Engine {
        Engine::InProcess(self.in_process)
    }

    /// Runs an operation, says what it has cost, and checks what it has made.
    fn run(&mut self, operation: Operation, measured: Measured) -> anyhow::Result<Made> {
        let target_len = self.inputs.target.len();
        if operation == Operation::PatchReused && self.buffer.len() != target_len {
            // Filled, so that each page of it is there.
            self.buffer.clear();
            self.buffer.resize(target_len, 0xFF);
        }
        let file = self.inputs.files.output(self.engine(), operation);
        if operation.makes_file() {
            remove_if_present(&file)?;
        }
        let mut meter = Meter::new(Some(measured));
        let output = self
            .in_process
            .run(operation, &self.inputs, &mut self.buffer, &mut meter)?;
        let mut zstd_bytes = None;
        let bytes = match output {
            Output::Signature(bytes) => {
                let len = bytes.len();
                self.check_signature(operation, bytes)?;
                len
            }
            Output::SignatureFile => {
                let bytes = fs::read(&file)?;
                let len = bytes.len();
                self.check_signature(operation, bytes)?;
                len
            }
            Output::Delta(bytes) => {
                let len = bytes.len();
                self.check_delta(operation, bytes)?;
                len
            }
            Output::DeltaFile if holds(&file, &self.inputs.delta)? => self.inputs.delta.len(),
            Output::DeltaFile => {
                let bytes = fs::read(&file)?;
                let len = bytes.len();
                self.check_delta(operation, bytes)?;
                len
            }
            Output::Target(bytes) => {
                check(&bytes, &self.inputs.target)?;
                bytes.len()
            }
            Output::TargetFile => {
                ensure!(
                    holds(&file, &self.inputs.target)?,
                    "what was made is not the target"
                );
                remove_if_present(&file)?;
                target_len
            }
            Output::Messages(messages) => {
                zstd_bytes = Some(compressed(&messages)?);
                let bytes = messages.iter().map(Vec::len).sum();
                self.check_messages(messages)?;
                bytes
            }
            Output::Unchecked(len) => len,
        } as u64;
        Ok(Made { bytes, zstd_bytes })
    }

    /// Checks that a signature is the one of the first time, and keeps that.
    fn check_signature(&mut self, operation: Operation, signature: Vec<u8>) -> anyhow::Result<()> {
        if self.inputs.signature.is_empty() {
            self.keep(Operation::Signature, &signature)?;
            self.inputs.signature = signature;
        } else {
            // One that changes would be changing ground for the measurements after it, and one of
            // two threads or from a reader has no reason to differ.
            ensure!(
                signature == self.inputs.signature,
                "the signature is not the one of the first time"
            );
        }
        Ok(self.keep_as(operation, Operation::Signature)?)
    }

    /// Checks that a delta makes the target, and keeps it.
    ///
    /// What [`Operation::Diff`] makes is what is patched with from then on.
    fn check_delta(&mut self, operation: Operation, delta: Vec<u8>) -> anyhow::Result<()> {
        if delta == self.inputs.delta {
            return Ok(self.keep_as(operation, Operation::Diff)?);
        }
        self.keep(operation, &delta)?;
        let before = self.check_patch(delta)?;
        if operation != Operation::Diff {
            self.inputs.delta = before;
        }
        Ok(())
    }

    /// Checks that what ends with a delta makes the target.
    fn check_messages(&mut self, mut messages: Vec<Vec<u8>>) -> anyhow::Result<()> {
        let delta = messages.pop().context("nothing was sent")?;
        self.inputs.delta = self.check_patch(delta)?;
        Ok(())
    }

    /// Checks that a delta makes the target; gives the one that was there before it.
    fn check_patch(&mut self, delta: Vec<u8>) -> anyhow::Result<Vec<u8>> {
        let before = mem::replace(&mut self.inputs.delta, delta);
        let mut spare = Vec::new();
        let mut unmeasured = Meter::new(None);
        let patched =
            self.in_process
                .run(Operation::Patch, &self.inputs, &mut spare, &mut unmeasured)?;
        let Output::Target(bytes) = patched else {
            bail!("patch has not made a target");
        };
        check(&bytes, &self.inputs.target)?;
        Ok(before)
    }

    /// Writes what an operation has made, for others.
    fn keep(&self, operation: Operation, bytes: &[u8]) -> io::Result<()> {
        let file = self.inputs.files.output(self.engine(), operation);
        // It may be a link to what another operation has made.
        remove_if_present(&file)?;
        fs::write(file, bytes)
    }

    /// Keeps the same as another operation has made, if nothing is there yet.
    fn keep_as(&self, operation: Operation, other: Operation) -> io::Result<()> {
        let file = |operation| self.inputs.files.output(self.engine(), operation);
        match fs::hard_link(file(other), file(operation)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Pushes the target in one round with blocks of each size.
    fn single_rounds(&mut self) -> anyhow::Result<SingleRounds> {
        let usual = self.single_round(None)?;
        let mut best: Option<SingleRound> = None;
        for block_size in BLOCK_SIZES {
            let round = self.single_round(Some(block_size))?;
            if best.is_none_or(|best| round.made.zstd_bytes < best.made.zstd_bytes) {
                best = Some(round);
            }
        }
        let best = best.context("there are block sizes")?;
        Ok(SingleRounds { best, usual })
    }

    fn single_round(&mut self, block_size: Option<u32>) -> anyhow::Result<SingleRound> {
        let (block_size, messages) = single_round(&self.inputs, block_size)?;
        let made = Made {
            bytes: messages.iter().map(Vec::len).sum::<usize>() as u64,
            zstd_bytes: Some(compressed(&messages)?),
        };
        self.check_messages(messages)
            .with_context(|| format!("blocks of {block_size} bytes"))?;
        Ok(SingleRound { block_size, made })
    }
}

/// Measures the part of an operation that counts.
#[derive(Debug)]
pub(crate) struct Meter {
    /// `None` where an operation runs for its output alone.
    measured: Option<Measured>,
}

impl Meter {
    const fn new(measured: Option<Measured>) -> Self {
        Self { measured }
    }

    /// Runs what counts of an operation, once.
    pub(crate) fn measure<T>(&mut self, work: impl FnOnce() -> T) -> anyhow::Result<T> {
        let Some(measured) = self.measured.take() else {
            return Ok(work());
        };
        let before = if measured == Measured::Memory && Resident::reset_peak().is_ok() {
            Some(Resident::read()?)
        } else {
            None
        };
        say(&Reply::Started { cpu: cpu_time() })?;
        let (made, mut cost) = timed(work);
        if let Some(before) = before {
            let peak = Resident::read()?.peak;
            cost.peak_bytes = Some(peak.saturating_sub(before.now));
        }
        say(&Reply::Finished { cost })?;
        Ok(made)
    }
}

fn check(made: &[u8], target: &[u8]) -> anyhow::Result<()> {
    ensure!(
        made == target,
        "what was made is not the target: {} bytes instead of {}, different from byte {} on",
        made.len(),
        target.len(),
        made.iter().zip(target).take_while(|(a, b)| a == b).count(),
    );
    Ok(())
}

/// The length of messages once each is compressed.
fn compressed(messages: &[Vec<u8>]) -> io::Result<u64> {
    let lens = messages
        .iter()
        .map(|message| compressed_len(message.as_slice()));
    lens.sum()
}

/// The length of something once it is compressed. Memory: that of the compressor.
fn compressed_len(input: impl Read) -> io::Result<u64> {
    struct Counter(u64);

    impl Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut counter = Counter(0);
    zstd::stream::copy_encode(input, &mut counter, ZSTD_LEVEL)?;
    Ok(counter.0)
}
