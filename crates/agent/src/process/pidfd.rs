//! Waiting for the end of a process that isn't our child. The crate's one module with `unsafe`.

#![expect(
    unsafe_code,
    reason = "tokio registers foreign descriptors only so; the safe constructor is deprecated"
)]

use std::{io, os::fd::OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{Interest, unix::AsyncFd};

/// A descriptor of a process, which is that one's for good: ids are given out again.
#[derive(Debug)]
pub(super) struct PidFd(AsyncFd<OwnedFd>);

impl PidFd {
    /// Opens the process that has this id now.
    pub(super) fn open(pid: Pid) -> io::Result<Self> {
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        // SAFETY: `process` is open, `as_raw_fd` of an `OwnedFd` is always the same, and the
        // descriptor is closed by nobody but the `AsyncFd` that owns it from here on.
        let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }?;
        Ok(Self(process))
    }

    /// Waits for the end of all its threads.
    pub(super) async fn ended(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_waited_for_and_one_that_never_was_is_refused() {
        let mut child = std::process::Command::new("tail")
            .args(["-f", "/dev/null"])
            .spawn()
            .unwrap();
        let process = PidFd::open(Pid::from_child(&child)).unwrap();
        let (ended, ()) = tokio::join!(process.ended(), async { child.kill().unwrap() });
        ended.unwrap();
        child.wait().unwrap();

        // Beyond the kernel's largest id.
        let nobody = PidFd::open(Pid::from_raw(1 << 30).unwrap()).unwrap_err();
        assert_eq!(
            nobody.raw_os_error(),
            Some(rustix::io::Errno::SRCH.raw_os_error())
        );
    }
}
