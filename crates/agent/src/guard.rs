//! The guard: a process of its own that ends the app if the agent is killed.
//!
//! The agent starts its own program again as the guard, and tells it over a pipe which process
//! group is the app's. When the pipe ends without a release, the guard ends that group. While it
//! lives it holds the lock that the agent took on `app.lock` in the state directory: an agent
//! started after a crash waits there until the old app is gone.
//!
//! On the pipe, one line each: `group ID GRACE_MS`, `release`.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::timeout,
};

use crate::{process::Group, supervisor::STUCK_AFTER};

/// The file in the state directory that is locked while an app may run.
const LOCK: &str = "app.lock";

/// The lock that says that nobody else's app runs. Dropped, it is released.
#[derive(Debug)]
pub struct AppLock(File);

/// Why the lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent, or the guard of one that was killed, still holds it.
    #[error(
        "“{}” is still locked after {}: another agent runs on this state directory, or the app of \
         one that was killed cannot be ended; end that, or give this agent another --root",
        path.display(), humantime::format_duration(*.waited)
    )]
    Held {
        /// The locked file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The file cannot be opened or locked.
    #[error("cannot lock “{}”: the state directory has to be writable, or choose another with --state", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The agent's end of a guard. Dropped, killed or released by a crash, it makes the guard end
/// the group that it watches.
#[derive(Debug)]
pub struct Guard {
    pipe: ChildStdin,
    /// Kept so that the runtime reaps it.
    _process: Child,
}

/// Takes the lock in the state directory, at most after `patience`: when no app of another agent
/// runs there, not even one whose agent was killed.
///
/// # Errors
///
/// [`LockError`].
pub async fn wait_for_previous(state_dir: &Path, patience: Duration) -> Result<AppLock, LockError> {
    let path = state_dir.join(LOCK);
    let failed = |source| LockError::Io {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => return Ok(AppLock(file)),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    tracing::info!(
        lock = %path.display(),
        "another agent runs here, or the app of one that was killed: waiting for it to end"
    );
    // A thread, as no descriptor tells of a lock; detached, so that it holds up nobody's exit. If
    // nobody waits any more when it gets the lock, that is dropped with the message.
    let (sender, locked) = oneshot::channel();
    std::thread::spawn(move || {
        let locked = file.lock().map(|()| AppLock(file));
        drop(sender.send(locked));
    });
    match timeout(patience, locked).await {
        Ok(Ok(locked)) => locked.map_err(failed),
        Ok(Err(_)) => Err(failed(io::Error::other("the waiting thread ended"))),
        Err(_) => Err(LockError::Held {
            path,
            waited: patience,
        }),
    }
}

impl Guard {
    /// Starts `program` with `arguments`, which has to call [`main_loop`], and gives it the lock.
    ///
    /// # Errors
    ///
    /// If it cannot be started; the lock is released then.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(program: &Path, arguments: &[&str], lock: AppLock) -> io::Result<Self> {
        let mut process = Command::new(program)
            .args(arguments)
            // It needs none of our secrets, and shall not hold on to any directory.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            // The guard prints nothing. Its standard output is how it inherits the lock, with no
            // moment in which nobody holds it.
            .stdout(lock.0)
            .spawn()?;
        let pipe = process.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            pipe,
            _process: process,
        })
    }

    /// Has it watch this group instead of the one before, if any. To end, the group has `grace`.
    ///
    /// # Errors
    ///
    /// If the guard isn't there any more, or does not listen.
    pub fn watch(&self, group: Group, grace: Duration) -> io::Result<()> {
        self.tell(&format!("group {} {}\n", group.id(), grace.as_millis()))
    }

    /// Has it watch nothing: the group is gone.
    ///
    /// # Errors
    ///
    /// If the guard isn't there any more, or does not listen.
    pub fn release(&self) -> io::Result<()> {
        self.tell("release\n")
    }

    /// Writes without waiting: the pipe has room for thousands of lines, and a line this short is
    /// written whole or not at all.
    fn tell(&self, line: &str) -> io::Result<()> {
        rustix::io::write(&self.pipe, line.as_bytes())?;
        Ok(())
    }
}

/// What the guard process does: watches until the agent's end of the pipe is closed, ends the
/// group that it watches by then, and returns when that is gone or cannot be ended.
///
/// # Errors
///
/// If the process cannot be set up, or the pipe cannot be read.
///
/// # Panics
///
/// Outside a tokio runtime with I/O and time.
pub async fn main_loop() -> io::Result<()> {
    // Out of reach of the terminal's ^C, which is for the agent. Fails only where the process
    // leads a group already, and so is out of reach too.
    let _ = rustix::process::setsid();
    // Caught and not listened to: whoever ends all processes around the agent ends the agent too,
    // and the guard follows when the app is gone.
    let _ignored = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ];
    let mut watched = None;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        watched = parse(&line)?;
    }
    if let Some((group, grace)) = watched {
        end(group, grace).await?;
    }
    Ok(())
}

async fn end(group: Group, grace: Duration) -> io::Result<()> {
    group.terminate()?;
    if timeout(grace, group.gone()).await.is_err() {
        group.signal(Signal::KILL)?;
        if timeout(STUCK_AFTER, group.gone()).await.is_err() {
            return Err(io::Error::other("the app's processes cannot be ended"));
        }
    }
    Ok(())
}

fn parse(line: &str) -> io::Result<Option<(Group, Duration)>> {
    let mut words = line.split(' ');
    let watched = match (words.next(), words.next(), words.next(), words.next()) {
        (Some("release"), None, None, None) => Some(None),
        (Some("group"), Some(id), Some(grace), None) => {
            let group = id.parse().ok().and_then(Group::from_id);
            let grace = grace.parse().ok().map(Duration::from_millis);
            group.zip(grace).map(Some)
        }
        _ => None,
    };
    watched.ok_or_else(|| {
        let line = line.escape_debug();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not for a guard: {line}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_the_guard_are_parsed_strictly() {
        let (group, grace) = parse("group 77 5000").unwrap().unwrap();
        assert_eq!((group.id(), grace), (77, Duration::from_secs(5)));
        assert_eq!(parse("release").unwrap(), None);
        for bad in [
            "",
            "group",
            "group 0 1",
            "group 1 1",
            "group -1 1",
            "group 7",
            "release 7",
            "group 7 1 x",
            "group 7 -1",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn the_lock_is_held_once_and_waited_for() {
        let state = tempfile::tempdir().unwrap();
        let forever = Duration::from_secs(600);
        let first = wait_for_previous(state.path(), forever).await.unwrap();
        let refused = wait_for_previous(state.path(), Duration::ZERO).await;
        assert!(
            matches!(refused, Err(LockError::Held { .. })),
            "{refused:?}"
        );
        let second = wait_for_previous(state.path(), forever);
        let (second, ()) = tokio::join!(second, async { drop(first) });
        second.unwrap();

        let missing = wait_for_previous(&state.path().join("missing"), forever).await;
        assert!(matches!(missing, Err(LockError::Io { .. })), "{missing:?}");
    }
}
