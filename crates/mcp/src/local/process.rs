//! This program as a relay or an agent, in a process of its own.

use std::{
    env,
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    mem,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Error, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::Local;
use crate::{context::own_variables, embedded};

/// How long a process may take to say that it is there, and to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// The longest first line, which holds a link.
const MAX_LINE: u64 = 4 << 10;

/// How many lines of a log are worth showing.
const LOG_LINES: usize = 20;

/// How much of a log is looked at for these.
const LOG_TAIL: u64 = 64 << 10;

/// What to start.
pub(super) struct Launch<'a> {
    /// Which program of this binary.
    pub(super) name: &'static str,
    pub(super) local: &'a Local,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    pub(super) environment: &'a [(&'a str, &'a str)],
    pub(super) arguments: Vec<OsString>,
}

/// Where something that a process writes goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// To its log.
    Log,
    /// To us.
    Pipe,
    /// To where our standard error goes.
    Ours,
}

/// A relay or an agent.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    id: Pid,
    /// What a held process ends with.
    _lifeline: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Process {
    /// Starts this program again. It leads its own group, so that an interrupt from the terminal
    /// leaves its end to us.
    pub(super) fn start(launch: Launch<'_>) -> Result<Self, Error> {
        let Launch { name, local, .. } = launch;
        let start = || {
            let log = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(log_path(&local.directory, name))?;
            let mut command = Command::new(env::current_exe()?);
            command
                .args(local.held.then_some(embedded::HELD))
                .arg(name)
                .args(launch.arguments)
                .current_dir(&local.directory)
                .process_group(0)
                .stdin(match local.held {
                    true => Stdio::piped(),
                    false => Stdio::null(),
                })
                .stdout(to(launch.stdout, &log)?)
                .stderr(to(launch.stderr, &log)?)
                .kill_on_drop(true);
            // The developer's own links and options are none of theirs.
            for variable in own_variables() {
                command.env_remove(variable);
            }
            command.envs(launch.environment.iter().copied()).spawn()
        };
        let mut child = start().with_context(|| format!("can't start the {name}"))?;
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self {
            name,
            id: id.with_context(|| format!("the {name} has already ended"))?,
            // Not left with the child, which closes it as soon as it is waited for.
            _lifeline: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
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

    /// What the process writes, where that comes to us. Can be had once.
    pub(crate) fn output(&mut self) -> Option<(ChildStdout, ChildStderr)> {
        self.stdout.take().zip(self.stderr.take())
    }

    /// The process id, for `kill`.
    pub(crate) fn id(&self) -> String {
        self.id.as_raw_nonzero().to_string()
    }

    /// Waits until the process has ended. Dropping the future loses nothing.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks the process to end, makes it, and waits until it has.
    pub(crate) async fn end(mut self) -> Result<(), Error> {
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
    pub(crate) fn leave(self) {
        // Dropped, it would be killed, as is right everywhere else.
        mem::forget(self.child);
    }
}

/// Where a process logs.
pub(super) fn log_path(directory: &Path, process: &str) -> PathBuf {
    directory.join(format!("{process}.log"))
}

/// The last lines that a process logged.
pub(super) fn log_tail(directory: &Path, process: &str) -> Option<String> {
    let read = || {
        let mut log = File::open(log_path(directory, process))?;
        let start = log.metadata()?.len().saturating_sub(LOG_TAIL);
        log.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        log.take(LOG_TAIL).read_to_end(&mut tail)?;
        Ok::<_, io::Error>(tail)
    };
    let log = read().ok()?;
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
    (!tail.is_empty()).then(|| tail.join("\n"))
}

fn to(output: Output, log: &File) -> io::Result<Stdio> {
    Ok(match output {
        Output::Log => log.try_clone()?.into(),
        Output::Pipe => Stdio::piped(),
        Output::Ours => io::stderr().into(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_last_lines_of_a_log_are_shown_however_long_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let tail = |log: &str| {
            fs::write(log_path(directory.path(), "agent"), log).unwrap();
            log_tail(directory.path(), "agent")
        };
        assert_eq!(log_tail(directory.path(), "agent"), None);
        assert_eq!(tail(""), None);
        assert_eq!(tail("one\ntwo\n").unwrap(), "one\ntwo");
        let lines = (0..50_000).map(|line| format!("line {line}\n"));
        let shown = tail(&lines.collect::<String>()).unwrap();
        assert_eq!(shown.lines().count(), LOG_LINES);
        assert!(shown.starts_with("line 49980\n") && shown.ends_with("line 49999"));
        // Nor by lines that don't end.
        let shown = tail(&"x".repeat(1 << 20)).unwrap();
        assert_eq!(shown.len() as u64, LOG_TAIL);
    }
}
