//! The processes in which inputs are made and in-process engines run.
//!
//! Each in-process engine has one for each workload: the time on the processor and the memory of that
//! process are the engine's alone. It is this program, started again, with one JSON value per line on
//! its stdin and stdout. The process that starts them never holds an input: what it has resident
//! counts as the least peak of every program it starts.

mod serve;

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

pub(crate) use self::serve::{Meter, work};
use super::{engines::InProcess, files::Files, operation::Operation, workloads::Workload};
use crate::{
    child::{Dialogue, Interruption},
    measure::Cost,
};

/// The hidden subcommand that [`work`]s.
const SUBCOMMAND: &str = "delta-worker";

/// How long anything but an operation may take. What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What a worker is to do.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// Makes the inputs of a workload; [`Reply::Generated`].
    Generate {
        workload: Workload,
        len: usize,
        block_size: u32,
        files: Files,
    },
    /// Takes an engine and the inputs into memory; [`Reply::Loaded`].
    Load {
        engine: InProcess,
        block_size: u32,
        files: Files,
    },
    /// Runs an operation; [`Reply::Started`], [`Reply::Finished`] and [`Reply::Checked`].
    Run {
        operation: Operation,
        measured: Measured,
    },
    /// Makes the deltas of one round with blocks of many sizes; [`Reply::SingleRounds`].
    SingleRounds,
    /// Makes the inputs of [`sparse`](super::sparse); [`Reply::Generated`].
    GenerateSparse { len: u64, files: Files },
    /// Runs an operation on these; [`Reply::Started`], [`Reply::Finished`] and [`Reply::Checked`].
    RunSparse { operation: Operation, files: Files },
    /// Compresses a file; [`Reply::Compressed`].
    Compress { path: PathBuf },
}

/// What is measured of an operation: the peak of the memory means something only in a process that has
/// freed nothing before, as an allocator need not give that back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Measured {
    Time,
    Memory,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Generated { note: Option<String> },
    Loaded,
    Started { cpu: Duration },
    Finished { cost: Cost },
    Checked { made: Made },
    SingleRounds { rounds: SingleRounds },
    Compressed { bytes: u64 },
    Failed { error: String },
}

/// What an operation has made.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Made {
    /// Its length.
    pub(crate) bytes: u64,
    /// Its length once compressed, where that can't be found out later from a file.
    pub(crate) zstd_bytes: Option<u64>,
}

/// What goes over the wire if a file is pushed in one round: the signature and the delta.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct SingleRound {
    pub(crate) block_size: u32,
    pub(crate) made: Made,
}

/// One round with blocks of many sizes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct SingleRounds {
    /// The one with the fewest bytes, compressed.
    pub(crate) best: SingleRound,
    /// The one with the block size that goes with the length of the basis.
    pub(crate) usual: SingleRound,
}

/// What became of an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    Done {
        cost: Cost,
        made: Made,
    },
    /// It went over the limit, and the process that ran it was killed.
    OverLimit {
        /// The time on the processor until then.
        cpu: Duration,
    },
}

/// A worker, which ends with this value.
#[derive(Debug)]
pub(crate) struct Worker {
    dialogue: Dialogue,
}

impl Worker {
    pub(crate) fn start(interruption: &Interruption) -> anyhow::Result<Self> {
        // This very program, even if another was built in its place meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg(SUBCOMMAND);
        let dialogue = Dialogue::start(command, interruption)?;
        Ok(Self { dialogue })
    }

    /// Makes the inputs of a workload, and gives what a reader must know of them.
    pub(crate) fn generate(
        &mut self,
        workload: Workload,
        len: usize,
        block_size: u32,
        files: &Files,
    ) -> anyhow::Result<Option<String>> {
        self.send(&Request::Generate {
            workload,
            len,
            block_size,
            files: files.clone(),
        })?;
        match self.receive()? {
            Reply::Generated { note } => Ok(note),
            reply => unexpected(&reply),
        }
    }

    /// Takes an engine and the inputs into memory.
    pub(crate) fn load(
        &mut self,
        engine: InProcess,
        block_size: u32,
        files: &Files,
    ) -> anyhow::Result<()> {
        self.send(&Request::Load {
            engine,
            block_size,
            files: files.clone(),
        })?;
        match self.receive()? {
            Reply::Loaded => Ok(()),
            reply => unexpected(&reply),
        }
    }

    /// Runs an operation and checks its output, the latter outside of what is measured.
    pub(crate) fn run(
        mut self,
        operation: Operation,
        measured: Measured,
        limit: Duration,
    ) -> anyhow::Result<(Option<Self>, Outcome)> {
        self.send(&Request::Run {
            operation,
            measured,
        })?;
        self.watch(limit)
    }

    /// Follows the run of an operation that was asked for.
    fn watch(mut self, limit: Duration) -> anyhow::Result<(Option<Self>, Outcome)> {
        let cpu_before = match self.receive()? {
            Reply::Started { cpu } => cpu,
            reply => unexpected(&reply)?,
        };
        let cost = match self.receive_until(Instant::now() + limit)? {
            Some(Reply::Finished { cost }) => cost,
            Some(reply) => unexpected(&reply)?,
            None => {
                let used = self.dialogue.into_running().kill()?;
                let cpu = (used.utime + used.stime).saturating_sub(cpu_before);
                return Ok((None, Outcome::OverLimit { cpu }));
            }
        };
        let made = match self.receive()? {
            Reply::Checked { made } => made,
            reply => unexpected(&reply)?,
        };
        let outcome = Outcome::Done { cost, made };
        Ok((Some(self), outcome))
    }

    /// What goes over the wire in one round, with blocks of many sizes.
    pub(crate) fn single_rounds(&mut self) -> anyhow::Result<SingleRounds> {
        self.send(&Request::SingleRounds)?;
        match self.receive()? {
            Reply::SingleRounds { rounds } => Ok(rounds),
            reply => unexpected(&reply),
        }
    }

    /// Makes two long files with holes.
    pub(crate) fn generate_sparse(&mut self, len: u64, files: &Files) -> anyhow::Result<()> {
        let files = files.clone();
        self.send(&Request::GenerateSparse { len, files })?;
        match self.receive()? {
            Reply::Generated { .. } => Ok(()),
            reply => unexpected(&reply),
        }
    }

    /// Runs an operation on long files with holes, in a worker that has done nothing before, and says
    /// how much memory that takes.
    pub(crate) fn run_sparse(
        mut self,
        operation: Operation,
        files: &Files,
    ) -> anyhow::Result<(Cost, Made)> {
        let files = files.clone();
        self.send(&Request::RunSparse { operation, files })?;
        match self.watch(PATIENCE)? {
            (_, Outcome::Done { cost, made }) => Ok((cost, made)),
            (_, Outcome::OverLimit { .. }) => bail!("{} never ends", operation.name()),
        }
    }

    /// The length of a file once it is compressed by zstd at level 3.
    pub(crate) fn compressed_len(&mut self, path: PathBuf) -> anyhow::Result<u64> {
        self.send(&Request::Compress { path })?;
        match self.receive()? {
            Reply::Compressed { bytes } => Ok(bytes),
            reply => unexpected(&reply),
        }
    }

    fn send(&mut self, request: &Request) -> anyhow::Result<()> {
        // A worker that has ended says why on its stdout, or on our stderr.
        self.dialogue.say(serde_json::to_vec(request)?)
    }

    fn receive(&mut self) -> anyhow::Result<Reply> {
        let reply = self.receive_until(Instant::now() + PATIENCE)?;
        reply.context("a worker says nothing any more")
    }

    /// The next reply; `None` if there is none until the deadline.
    fn receive_until(&mut self, deadline: Instant) -> anyhow::Result<Option<Reply>> {
        let Some(line) = self.dialogue.hear(deadline)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&line)? {
            Reply::Failed { error } => bail!(error),
            reply => Ok(Some(reply)),
        }
    }
}

fn unexpected<T>(reply: &Reply) -> anyhow::Result<T> {
    bail!("a worker has said {reply:?} out of turn")
}
