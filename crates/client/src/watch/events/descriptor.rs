//! An inotify descriptor that can be waited for. The crate's one module with `unsafe`.

#![expect(
    unsafe_code,
    reason = "tokio registers foreign descriptors only so; the safe constructor is deprecated"
)]

use std::{io, os::fd::OwnedFd};

use rustix::fs::inotify::{self, CreateFlags};
use tokio::io::{Interest, unix::AsyncFd};

/// Makes an inotify instance that watches nothing yet.
pub(super) fn open() -> io::Result<AsyncFd<OwnedFd>> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // SAFETY: `inotify` is open, `as_raw_fd` of an `OwnedFd` is always the same, and the descriptor
    // is closed by nobody but the `AsyncFd` that owns it from here on.
    Ok(unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }?)
}
