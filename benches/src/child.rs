//! Child processes with a time limit, whose cost the kernel tells.

mod dialogue;

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open},
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use wait4::{ResUse, ResourceUsage, Wait4};

pub(crate) use self::dialogue::Dialogue;

/// Whether somebody wants this program to end: then nothing waits any longer, everything returns, and
/// children and files go with the values that hold them.
#[derive(Debug, Clone)]
pub(crate) struct Interruption {
    asked: Arc<AtomicBool>,
}

impl Interruption {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Self { asked })
    }

    /// An error if this program is to end.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.asked.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits until there is something to read, or until the deadline: then it gives `false`.
    pub(crate) fn await_readable(&self, fd: impl AsFd, deadline: Instant) -> anyhow::Result<bool> {
        loop {
            self.check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            // A signal may come just before the system call, which it then doesn't end.
            let timeout = Timespec::try_from(left.min(GLANCE))?;
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => bail!(error),
            }
        }
    }
}

const GLANCE: Duration = Duration::from_millis(200);

/// A child that ends with this value, and all in its process group.
#[derive(Debug)]
pub(crate) struct Running {
    /// `None` once it was waited for.
    child: Option<Child>,
    ended: OwnedFd,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Self> {
        let child = command
            // Its own, so that its children can be ended with it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't start {}", command.get_program().display()))?;
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok(Self {
            child: Some(child),
            ended,
        })
    }

    /// The pipes to and from it, the first time.
    pub(crate) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        let child = self.child.as_mut()?;
        child.stdin.take().zip(child.stdout.take())
    }

    /// Waits for its end; `None` if it goes on until the deadline.
    pub(crate) fn wait(
        &mut self,
        interruption: &Interruption,
        deadline: Instant,
    ) -> anyhow::Result<Option<ResUse>> {
        if !interruption.await_readable(&self.ended, deadline)? {
            return Ok(None);
        }
        let child = self.child.take().context("it was waited for before")?;
        Ok(Some(child.wait4()?))
    }

    /// Its number, as long as nobody has waited for it.
    pub(crate) fn id(&self) -> anyhow::Result<Pid> {
        let child = self.child.as_ref().context("it was waited for before")?;
        Ok(Pid::from_child(child))
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(
        mut self,
        interruption: &Interruption,
        deadline: Instant,
    ) -> anyhow::Result<()> {
        kill_process(self.id()?, Signal::TERM)?;
        self.wait(interruption, deadline)?
            .context("it doesn't end when it is asked to")?;
        Ok(())
    }

    /// Ends it, and says what it has cost.
    pub(crate) fn kill(mut self) -> anyhow::Result<ResourceUsage> {
        let killed = self.kill_and_wait().context("it was waited for before")?;
        Ok(killed?.rusage)
    }

    fn kill_and_wait(&mut self) -> Option<std::io::Result<ResUse>> {
        let child = self.child.take()?;
        // Nobody has waited for it: the id is its own.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        Some(child.wait4())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.kill_and_wait();
    }
}
