//! What is measured: ourselves, and who does the same.
//!
//! Each file lists the operations of its engines, and is the only one that knows how to call them.

mod fast_rsync;
mod patchwire;
mod programs;

use std::{borrow::Cow, cell::OnceCell};

use clap::builder::PossibleValue;
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    patchwire::{single_round, stream_diff, stream_patch, stream_signature},
    programs::Program,
};
use super::{files::Files, operation::Operation, worker::Meter};

/// Who makes signatures and deltas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    InProcess(InProcess),
    Program(Program),
}

/// An engine that is linked into this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InProcess {
    Patchwire,
    FastRsync,
}

/// What an in-process engine works on.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) basis: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) block_size: u32,
    /// The engine's own, encoded; empty before it was made.
    pub(crate) signature: Vec<u8>,
    /// The engine's own, encoded; empty before it was made.
    pub(crate) delta: Vec<u8>,
    /// The BLAKE3 of the target, once an engine that is told it has asked.
    pub(crate) digest: OnceCell<[u8; 32]>,
    /// The same inputs in files, and where what is made goes.
    pub(crate) files: Files,
}

/// What an in-process engine has made, for others to check.
#[derive(Debug)]
pub(crate) enum Output<'a> {
    /// An encoded signature.
    Signature(Vec<u8>),
    /// An encoded signature, in the file of the operation.
    SignatureFile,
    /// An encoded delta.
    Delta(Vec<u8>),
    /// An encoded delta, in the file of the operation.
    DeltaFile,
    /// The target, in memory.
    Target(Cow<'a, [u8]>),
    /// The target, in the file of the operation.
    TargetFile,
    /// All that two ends send each other, last an encoded delta.
    Messages(Vec<Vec<u8>>),
    /// Something of this length that nobody checks.
    Unchecked(usize),
}

impl Engine {
    pub(crate) const PATCHWIRE: Self = Self::InProcess(InProcess::Patchwire);
    pub(crate) const FAST_RSYNC: Self = Self::InProcess(InProcess::FastRsync);
    pub(crate) const RDIFF: Self = Self::Program(Program::Rdiff);

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::InProcess(InProcess::Patchwire) => "patchwire",
            Self::InProcess(InProcess::FastRsync) => "fast_rsync",
            Self::Program(program) => program.name(),
        }
    }

    /// What it can do.
    pub(crate) const fn operations(self) -> &'static [Operation] {
        match self {
            Self::InProcess(InProcess::Patchwire) => patchwire::OPERATIONS,
            Self::InProcess(InProcess::FastRsync) => fast_rsync::OPERATIONS,
            Self::Program(program) => program.operations(),
        }
    }
}

impl clap::ValueEnum for Engine {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::PATCHWIRE,
            Self::FAST_RSYNC,
            Self::RDIFF,
            Self::Program(Program::Rsync),
            Self::Program(Program::Xdelta3),
            Self::Program(Program::Zstd),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl InProcess {
    /// Runs one of the engine's operations; what is to be measured of it goes through the meter.
    ///
    /// `buffer` is what [`Operation::PatchReused`] uses: as long as the target, and touched.
    pub(crate) fn run<'a>(
        self,
        operation: Operation,
        inputs: &'a Inputs,
        buffer: &'a mut Vec<u8>,
        meter: &mut Meter,
    ) -> anyhow::Result<Output<'a>> {
        match self {
            Self::Patchwire => patchwire::run(operation, inputs, buffer, meter),
            Self::FastRsync => fast_rsync::run(operation, inputs, buffer, meter),
        }
    }
}
