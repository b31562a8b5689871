//! The worker itself.

use std::{
    fs,
    io::{self, BufRead, Write},
    mem,
    path::Path,
};

use anyhow::{Context, bail, ensure};

use super::{Measured, Reply, Request};
use crate::{
    delta::{
        engines::{Engine, InProcess, Inputs, Output},
        files::{Files, remove_if_present},
        operation::Operation,
    },
    measure::{Resident, cpu_time, timed},
};

/// The level of zstd that deltas are compressed with.
const ZSTD_LEVEL: i32 = 3;

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
            let output_bytes = bench
                .run(operation, measured)
                .with_context(|| format!("{} {}", bench.engine().name(), operation.name()))?;
            say(&Reply::Checked { output_bytes })
        }
        Request::Compress { path } => {
            let bytes = compressed_len(&path)?;
            say(&Reply::Compressed { bytes })
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
    files: Files,
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
                file: files.output(engine, Operation::PatchFile),
            },
            files,
            buffer: Vec::new(),
        })
    }

    const fn engine(&self) -> Engine {
        Engine::InProcess(self.in_process)
    }

    /// Runs an operation, says what it has cost, checks what it has made, and gives the length of that.
    fn run(&mut self, operation: Operation, measured: Measured) -> anyhow::Result<u64> {
        let target_len = self.inputs.target.len();
        if operation == Operation::PatchReused && self.buffer.len() != target_len {
            // Filled, so that each page of it is there.
            self.buffer.clear();
            self.buffer.resize(target_len, 0xFF);
        }
        remove_if_present(&self.inputs.file)?;
        let mut meter = Meter::new(Some(measured));
        let output = self
            .in_process
            .run(operation, &self.inputs, &mut self.buffer, &mut meter)?;
        Ok(match output {
            Output::Signature(bytes) => {
                let len = bytes.len();
                if self.inputs.signature.is_empty() {
                    self.keep(operation, &bytes)?;
                    self.inputs.signature = bytes;
                } else {
                    // One that changes would be changing ground for the measurements after it.
                    ensure!(
                        bytes == self.inputs.signature,
                        "the signature is not the one of the first time"
                    );
                }
                len
            }
            Output::Delta(bytes) => {
                let len = bytes.len();
                self.check_delta(operation, bytes)?;
                len
            }
            Output::Target(bytes) => {
                check(&bytes, &self.inputs.target)?;
                bytes.len()
            }
            Output::TargetFile => {
                let bytes = fs::read(&self.inputs.file)?;
                remove_if_present(&self.inputs.file)?;
                check(&bytes, &self.inputs.target)?;
                bytes.len()
            }
            Output::Unchecked(len) => len,
        } as u64)
    }

    /// Checks that a delta makes the target, and keeps it.
    ///
    /// What [`Operation::Diff`] makes is what is patched with from then on.
    fn check_delta(&mut self, operation: Operation, delta: Vec<u8>) -> anyhow::Result<()> {
        if delta == self.inputs.delta && operation == Operation::Diff {
            return Ok(());
        }
        self.keep(operation, &delta)?;
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
        if operation != Operation::Diff {
            self.inputs.delta = before;
        }
        Ok(())
    }

    /// Writes what an operation has made, for others.
    fn keep(&self, operation: Operation, bytes: &[u8]) -> io::Result<()> {
        fs::write(self.files.output(self.engine(), operation), bytes)
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

/// The length of a file once it is compressed. Memory: that of the compressor.
fn compressed_len(path: &Path) -> io::Result<u64> {
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
    zstd::stream::copy_encode(fs::File::open(path)?, &mut counter, ZSTD_LEVEL)?;
    Ok(counter.0)
}
