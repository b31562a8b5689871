//! The peers that are programs, by the names Debian has for them.

use std::{env, fs, io, process::Command};

use super::Operation;
use crate::delta::{files::Files, workloads::Workload};

/// A program that makes deltas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Rdiff,
    Rsync,
    Xdelta3,
    Zstd,
}

impl Program {
    pub(super) const fn operations(self) -> &'static [Operation] {
        match self {
            Self::Rdiff => &[Operation::Signature, Operation::Diff, Operation::Patch],
            // These need both files to make a delta.
            Self::Xdelta3 | Self::Zstd => &[Operation::Diff, Operation::Patch],
            Self::Rsync => &[Operation::Whole],
        }
    }

    /// The name of the program.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rdiff => "rdiff",
            Self::Rsync => "rsync",
            Self::Xdelta3 => "xdelta3",
            Self::Zstd => "zstd",
        }
    }

    /// The package of Debian that has the program.
    pub(crate) const fn package(self) -> &'static str {
        self.name()
    }

    /// The version, as the program gives it; `None` where it is not installed.
    pub(crate) fn version(self) -> Option<String> {
        let flag = match self {
            Self::Xdelta3 => "-V",
            Self::Rdiff | Self::Rsync | Self::Zstd => "--version",
        };
        let said = self.start().arg(flag).output().ok()?;
        // xdelta3 says it on stderr.
        let said = [said.stdout, said.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let number = said
            .split([' ', ',', '(', ')', '\n'])
            .map(|word| word.trim_start_matches('v'))
            .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()));
        Some(format!("{} {}", self.name(), number.unwrap_or("(?)")))
    }

    /// Makes ready what one run needs, and the command that does it.
    pub(crate) fn prepare(
        self,
        operation: Operation,
        files: &Files,
        block_size: u32,
    ) -> io::Result<Command> {
        let engine = super::Engine::Program(self);
        let output = files.output(engine, operation);
        let signature = files.output(engine, Operation::Signature);
        let delta = files.output(engine, Operation::Diff);
        let (basis, target) = (files.basis(), files.target());
        let mut command = self.start();
        match (self, operation) {
            (Self::Rdiff, Operation::Signature) => command
                // As fast_rsync, whose format this is, and as many bytes of strong hash as all have
                // here. It is faster than what rdiff does of itself, Rabin-Karp and BLAKE2.
                .args(["--rollsum=rollsum", "--hash=md4", "--sum-size=8"])
                .arg(format!("--block-size={block_size}"))
                .arg("signature")
                .args([basis, output]),
            (Self::Rdiff, Operation::Diff) => {
                command.arg("delta").args([signature, target, output])
            }
            (Self::Rdiff, _) => command.arg("patch").args([basis, delta, output]),
            (Self::Rsync, _) => {
                fs::copy(basis, &output)?;
                // Not --inplace: what it overwrites can't be copied from any more, so that behind
                // an insertion nothing at all would match.
                command
                    .args(["--no-whole-file", "--ignore-times"])
                    .args(["--stats", "--no-human-readable"])
                    .arg(format!("--block-size={block_size}"))
                    .args([target, output])
            }
            (Self::Xdelta3, Operation::Diff) => {
                command.args(["-e", "-s"]).args([basis, target, output])
            }
            (Self::Xdelta3, _) => command.args(["-d", "-s"]).args([basis, delta, output]),
            (Self::Zstd, Operation::Diff) => command
                .args(["-q", "--patch-from"])
                .args([basis, target])
                .arg("-o")
                .arg(output),
            (Self::Zstd, _) => command
                // The window is as long as the basis.
                .args(["-q", "-d", "--long=31", "--patch-from"])
                .args([basis, delta])
                .arg("-o")
                .arg(output),
        };
        Ok(command)
    }

    /// How many bytes went to and fro, of what the program has printed.
    pub(crate) fn transferred(self, printed: &str) -> Option<u64> {
        let field = |name: &str| {
            let line = printed.lines().find_map(|line| line.strip_prefix(name))?;
            line.replace(',', "").trim().parse::<u64>().ok()
        };
        (self == Self::Rsync).then_some(())?;
        Some(field("Total bytes sent:")? + field("Total bytes received:")?)
    }

    /// What a reader must know of the figures on a workload, beside the version.
    pub(crate) const fn remark(self, workload: Workload) -> Option<&'static str> {
        match (self, workload) {
            (Self::Rdiff, Workload::Collisions) => Some(
                "with the rollsum of fast_rsync, which is attacked here; what it takes of itself, \
                 Rabin-Karp, is not",
            ),
            (Self::Rdiff, _) => Some("with the rollsum and the MD4 of fast_rsync"),
            (Self::Rsync, _) => Some("its output are the bytes sent and received"),
            (Self::Xdelta3 | Self::Zstd, _) => None,
        }
    }

    /// With nothing of the user's settings, which would change what is measured.
    fn start(self) -> Command {
        let mut command = Command::new(self.name());
        command.env_clear().env("LC_ALL", "C");
        command.envs(env::var_os("PATH").map(|path| ("PATH", path)));
        command
    }
}
