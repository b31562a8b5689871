//! This program as a relay or an agent, in a process of its own.

use std::{
    env,
    fs::{self, File},
    mem,
    path::Path,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Error, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::log_path;

/// How long a process may take to say that it is there, and to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// The longest first line, which holds a link.
const MAX_LINE: u64 = 4 << 10;

/// How many lines of a log are worth showing.
const LOG_LINES: usize = 20;

/// A process of the demo.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    id: Pid,
    stdout: Option<ChildStdout>,
}

impl Process {
    /// Starts this program again, in the demo's directory. It leads its own group, so that an
    /// interrupt from the terminal leaves its end to us. What it prints is logged, or where it
    /// `says_first` what one waits for, kept for [`first_line`](Self::first_line).
    pub(super) fn start<'a>(
        name: &'static str,
        directory: &Path,
        says_first: bool,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Error> {
        let start = || {
            let log = File::create(log_path(directory, name))?;
            let stdout = match says_first {
                true => Stdio::piped(),
                false => log.try_clone()?.into(),
            };
            let mut command = Command::new(env::current_exe()?);
            command
                .args(arguments)
                .current_dir(directory)
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(stdout)
                .stderr(log)
                .kill_on_drop(true);
            // The developer's own links and options are none of the demo's.
            for (variable, _) in env::vars_os() {
                if variable.as_encoded_bytes().starts_with(b"PATCHWIRE_") {
                    command.env_remove(variable);
                }
            }
            command.spawn()
        };
        let mut child = start().with_context(|| format!("can't start the {name}"))?;
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self {
            name,
            id: id.with_context(|| format!("the {name} has already ended"))?,
            stdout: child.stdout.take(),
            child,
        })
    }

    /// The first line that the process prints.
    pub(super) async fn first_line(&mut self) -> Result<String, Error> {
        let name = self.name;
        let stdout = self.stdout.take().context("the line was read before")?;
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout.take(MAX_LINE));
        let read = timeout(PATIENCE, stdout.read_line(&mut line)).await;
        match read.with_context(|| format!("the {name} doesn't start"))?? {
            0 => bail!("the {name} ended as it started"),
            _ => Ok(line),
        }
    }

    /// The process id, for `kill`.
    pub(super) fn id(&self) -> String {
        self.id.as_raw_nonzero().to_string()
    }

    /// Asks the process to end, makes it, and waits until it has.
    pub(super) async fn end(mut self) -> Result<(), Error> {
        let ended = self.child.try_wait()?;
        if ended.is_none() {
            kill_process(self.id, Signal::TERM)?;
        }
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            tracing::warn!("the {} does not end, and is killed", self.name);
            self.child.kill().await?;
        }
        Ok(())
    }

    /// Lets the process go on when this one ends.
    pub(super) fn leave(self) {
        // Dropped, it would be killed, as is right everywhere else.
        mem::forget(self.child);
    }
}

/// The last lines that a process logged.
pub(super) fn log_tail(directory: &Path, process: &str) -> Option<String> {
    let log = fs::read(log_path(directory, process)).ok()?;
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
    (!tail.is_empty()).then(|| tail.join("\n"))
}
