//! Processes in groups of their own: starting one, reading what it writes, waiting for its end.

use std::{
    ffi::OsString,
    io,
    os::{fd::AsFd, unix::process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use patchwire_protocol::app::Exit;
use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, ChildStderr, ChildStdout, Command},
};

pub use group::{Group, NotPaused};

use crate::output::Stream;

mod group;
#[cfg(target_os = "linux")]
mod pidfd;

/// The most output of a command that is kept: its end.
pub const COMMAND_OUTPUT: usize = 64 << 10;

/// How much is read at once.
const READ: usize = 16 << 10;

/// The most that is read from one pipe after the end of the first process: more than a pipe holds
/// unless someone else keeps writing.
const DRAIN: usize = 1 << 20;

/// What to start: nothing is inherited that isn't in here.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The directory to start it in.
    pub root: PathBuf,
    /// Its whole environment; later entries win.
    pub env: Vec<(OsString, OsString)>,
}

/// A process in a group of its own. Dropped before the group is gone, it kills the group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    group: Group,
    pipes: Pipes,
    exit: Option<Exit>,
    gone: bool,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// How it ended.
    pub exit: Exit,
    /// The end of what it wrote to stdout and stderr, at most [`COMMAND_OUTPUT`] bytes.
    pub output: Vec<u8>,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no program to start.
    #[error("the command is empty")]
    Empty,
    /// The system refused.
    #[error(
        "cannot start “{}” in {}: is it installed on this machine, and executable?",
        program.display().to_string().escape_debug(), root.display()
    )]
    Spawn {
        /// The program, as it was given.
        program: PathBuf,
        /// The directory it was to be started in.
        root: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why a command has no exit status.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// It took too long and was killed.
    #[error("the command did not end within {}", humantime::format_duration(*.timeout))]
    TimedOut {
        /// How long it had.
        timeout: Duration,
        /// The end of what it had written, at most [`COMMAND_OUTPUT`] bytes.
        output: Vec<u8>,
    },
}

impl Launch {
    /// A command for `/bin/sh`.
    #[must_use]
    pub fn shell(command: &str, root: &Path, env: &[(OsString, OsString)]) -> Self {
        Self {
            command: vec!["/bin/sh".into(), "-c".into(), command.into()],
            root: root.to_owned(),
            env: env.to_owned(),
        }
    }

    /// Starts it in a group of its own, with nothing to read and both outputs captured.
    ///
    /// # Errors
    ///
    /// [`SpawnError`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn spawn(&self) -> Result<Process, SpawnError> {
        let (program, arguments) = self.command.split_first().ok_or(SpawnError::Empty)?;
        let failed = |source| SpawnError::Spawn {
            program: program.into(),
            root: self.root.clone(),
            source,
        };
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(&self.root)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let id = child.id().and_then(Group::from_id);
        Ok(Process {
            group: id.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?,
            pipes: Pipes {
                stdout: child.stdout.take(),
                stderr: child.stderr.take(),
                stdout_buffer: vec![0; READ],
                stderr_buffer: vec![0; READ],
            },
            child,
            exit: None,
            gone: false,
        })
    }

    /// Runs it to its end, at most for `timeout`. Nothing that it started outlives it, and
    /// dropping the future kills it.
    ///
    /// # Errors
    ///
    /// [`RunError`]. An exit status that isn't 0 is no error here.
    pub async fn run(&self, timeout: Duration) -> Result<CommandOutput, RunError> {
        let mut process = self.spawn()?;
        let mut output = Vec::new();
        let mut keep_end = |_, bytes: &[u8]| {
            output.extend_from_slice(bytes);
            if output.len() > 2 * COMMAND_OUTPUT {
                output.drain(..output.len() - COMMAND_OUTPUT);
            }
        };
        let exit = tokio::time::timeout(timeout, process.wait(&mut keep_end)).await;
        output.drain(..output.len().saturating_sub(COMMAND_OUTPUT));
        match exit {
            Ok(exit) => Ok(CommandOutput { exit, output }),
            Err(_) => Err(RunError::TimedOut { timeout, output }),
        }
    }
}

impl Process {
    /// Its group, which has the id of the process.
    #[must_use]
    pub const fn group(&self) -> Group {
        self.group
    }

    /// How it ended, if it did and was waited for.
    #[must_use]
    pub const fn exit(&self) -> Option<Exit> {
        self.exit
    }

    /// Waits for the end of the first process, and hands on what the group writes meanwhile.
    ///
    /// All that the process wrote was handed on before this returns. Dropping the future loses
    /// nothing.
    pub async fn wait(&mut self, sink: &mut impl FnMut(Stream, &[u8])) -> Exit {
        if let Some(exit) = self.exit {
            return exit;
        }
        let status = tokio::select! {
            status = self.child.wait() => status,
            never = self.pipes.pump(sink) => match never {},
        };
        self.pipes.drain(sink);
        let exit = match status {
            Ok(status) => exit_of(status),
            Err(error) => {
                // Someone else in this process waited for it: it ended, and how is lost.
                tracing::error!(%error, "the app's exit status is lost");
                Exit::Code(-1)
            }
        };
        *self.exit.insert(exit)
    }

    /// Waits until no process of the group is alive, and hands on what they write meanwhile.
    ///
    /// Dropping the future loses nothing.
    pub async fn gone(&mut self, sink: &mut impl FnMut(Stream, &[u8])) {
        self.wait(sink).await;
        tokio::select! {
            () = self.group.gone() => {}
            never = self.pipes.pump(sink) => match never {},
        }
        self.pipes.drain(sink);
        self.gone = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.gone {
            // A failure means that there is nobody left whom we may kill.
            let _ = self.group.signal(Signal::KILL);
        }
    }
}

#[derive(Debug)]
struct Pipes {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    stdout_buffer: Vec<u8>,
    stderr_buffer: Vec<u8>,
}

enum Never {}

impl Pipes {
    /// Hands on what comes, for ever.
    async fn pump(&mut self, sink: &mut impl FnMut(Stream, &[u8])) -> Never {
        loop {
            tokio::select! {
                len = read(&mut self.stdout, &mut self.stdout_buffer) => {
                    sink(Stream::Stdout, &self.stdout_buffer[..len]);
                }
                len = read(&mut self.stderr, &mut self.stderr_buffer) => {
                    sink(Stream::Stderr, &self.stderr_buffer[..len]);
                }
            }
        }
    }

    /// Hands on what is there now.
    ///
    /// Past the runtime's readiness: that may not have heard yet of what was written last.
    fn drain(&mut self, sink: &mut impl FnMut(Stream, &[u8])) {
        drain(&self.stdout, &mut self.stdout_buffer, &mut |bytes| {
            sink(Stream::Stdout, bytes);
        });
        drain(&self.stderr, &mut self.stderr_buffer, &mut |bytes| {
            sink(Stream::Stderr, bytes);
        });
    }
}

async fn read(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    if let Some(open) = pipe {
        match open.read(buffer).await {
            Ok(0) | Err(_) => *pipe = None,
            Ok(len) => return len,
        }
    }
    std::future::pending().await
}

fn drain(pipe: &Option<impl AsFd>, buffer: &mut [u8], sink: &mut impl FnMut(&[u8])) {
    let Some(pipe) = pipe else { return };
    let mut drained = 0;
    while drained < DRAIN {
        match rustix::io::read(pipe, &mut *buffer) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return,
            Ok(len) => {
                sink(&buffer[..len]);
                drained += len;
            }
        }
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn shell(command: &str) -> Launch {
        let path = ("PATH".into(), std::env::var_os("PATH").unwrap());
        Launch::shell(command, Path::new("/"), &[path])
    }

    /// Starts a command and waits for its first output.
    async fn started(command: &str) -> (Process, String) {
        let mut process = shell(command).spawn().unwrap();
        let mut line = String::new();
        let buffer = &mut process.pipes.stdout_buffer;
        while !line.ends_with('\n') {
            let len = read(&mut process.pipes.stdout, buffer).await;
            line.push_str(str::from_utf8(&buffer[..len]).unwrap());
        }
        (process, line)
    }

    #[tokio::test]
    async fn a_command_has_its_output_its_exit_and_no_other_environment() {
        let ran = shell("echo $HOME; pwd; echo err >&2; exit 3")
            .run(LONG)
            .await
            .unwrap();
        assert_eq!(ran.exit, Exit::Code(3));
        let mut lines: Vec<_> = ran.output.split(|byte| *byte == b'\n').collect();
        lines.sort_unstable();
        assert_eq!(lines, [b"".as_slice(), b"", b"/", b"err"]);

        let ran = shell("kill -9 $$").run(LONG).await.unwrap();
        assert_eq!(ran.exit, Exit::Signal(9));
    }

    #[tokio::test]
    async fn only_the_end_of_much_output_is_kept() {
        let ran = shell("seq 1 100000").run(LONG).await.unwrap();
        assert_eq!(ran.output.len(), COMMAND_OUTPUT);
        assert!(ran.output.ends_with(b"\n99999\n100000\n"));
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_killed_with_all_it_started() {
        let slow = shell("tail -f /dev/null & echo $$; wait");
        let Err(RunError::TimedOut { output, .. }) = slow.run(Duration::from_millis(300)).await
        else {
            panic!("it cannot have ended");
        };
        // On a machine so slow that it did not get as far, there is nobody to look for.
        if let Ok(id) = str::from_utf8(&output).unwrap().trim().parse() {
            Group::from_id(id).unwrap().gone().await;
        }
    }

    #[tokio::test]
    async fn what_cannot_be_started_says_what_and_where() {
        let mut launch = shell("");
        launch.command = vec!["./no-such\nprogram".into()];
        let error = launch.spawn().unwrap_err();
        assert_eq!(
            error.to_string(),
            r"cannot start “./no-such\nprogram” in /: is it installed on this machine, and executable?"
        );
        launch.command.clear();
        assert!(matches!(launch.spawn(), Err(SpawnError::Empty)));
    }

    #[tokio::test]
    async fn a_group_is_gone_when_its_last_member_is() {
        // The first process ends at once.
        let (mut process, line) = started("(echo $$; exec tail -f /dev/null) &").await;
        assert_eq!(line.trim(), process.group().id().to_string());
        let ignore = &mut |_, _: &[u8]| {};
        assert_eq!(process.wait(ignore).await, Exit::Code(0));
        assert!(!process.group().alive().unwrap().is_empty());
        process.group().terminate().unwrap();
        process.gone(ignore).await;
        assert_eq!(process.group().alive().unwrap(), [0u32; 0]);
    }

    #[tokio::test]
    async fn a_paused_group_is_stopped_whole_and_ends_all_the_same() {
        let (mut process, _) = started("tail -f /dev/null & echo up; wait").await;
        let group = process.group();
        group.signal(Signal::STOP).unwrap();
        group.stopped(LONG).await.unwrap();
        assert!(!group.alive().unwrap().is_empty());
        group.terminate().unwrap();
        process.gone(&mut |_, _| {}).await;
        assert_eq!(process.exit(), Some(Exit::Signal(15)));
    }

    #[tokio::test]
    async fn a_dropped_process_takes_its_group_along() {
        let (process, _) = started("tail -f /dev/null & echo up; wait").await;
        let group = process.group();
        drop(process);
        // Its first process is reaped by the runtime; until then it is a zombie.
        while !group.alive().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
