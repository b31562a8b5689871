//! Process groups: signalling one, stopping it for a moment, and knowing when it is gone.

use std::{fs, io, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpgid},
};

#[cfg(target_os = "linux")]
use super::pidfd::PidFd;

/// How often a group is looked at where the system has no event for it.
const POLL: Duration = Duration::from_millis(20);

/// How often a group that was told to stop is looked at: there is no event for processes that
/// are not our children.
const POLL_STOPPED: Duration = Duration::from_millis(1);

/// A process group that we made, known by the id of its first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group(Pid);

/// Why a group isn't known to be paused.
#[derive(Debug, thiserror::Error)]
pub enum NotPaused {
    /// Some processes did not stop in time.
    #[error("processes {pids:?} of the app did not stop within {waited:?}")]
    Running {
        /// Those that still ran, by id.
        pids: Vec<u32>,
        /// How long they were waited for.
        waited: Duration,
    },
    /// Whether they stopped cannot be seen.
    #[error("the app's processes cannot be looked at in /proc")]
    Unseen(#[source] io::Error),
}

impl Group {
    /// The group whose first process has this id; none if no process can have it.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        // Never 0 or 1: to signal these as a group is to signal our own, or everyone.
        i32::try_from(id)
            .ok()
            .filter(|id| *id > 1)
            .and_then(Pid::from_raw)
            .map(Self)
    }

    /// The id of the group and of its first process.
    #[must_use]
    pub const fn id(self) -> u32 {
        self.0.as_raw_pid().unsigned_abs()
    }

    /// Signals every member. A group that is gone already is fine.
    ///
    /// # Errors
    ///
    /// If there are members and none may be signalled.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        gone_is_fine(kill_process_group(self.0, signal))
    }

    /// Signals the first process alone.
    ///
    /// # Errors
    ///
    /// If it may not be signalled.
    pub fn signal_first(self, signal: Signal) -> io::Result<()> {
        gone_is_fine(kill_process(self.0, signal))
    }

    /// Tells every member to end, also those that are paused.
    ///
    /// # Errors
    ///
    /// If there are members and none may be signalled.
    pub fn terminate(self) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        self.signal(Signal::CONT)
    }

    /// Waits until every member is stopped, after STOP was sent, at most for `patience`.
    ///
    /// # Errors
    ///
    /// [`NotPaused`]; whatever could be stopped stays so until it gets CONT.
    pub async fn stopped(self, patience: Duration) -> Result<(), NotPaused> {
        let mut running = Vec::new();
        let all_stopped = async {
            let mut tick = tokio::time::interval(POLL_STOPPED);
            loop {
                tick.tick().await;
                running = self.members(Activity::Running).map_err(NotPaused::Unseen)?;
                if running.is_empty() {
                    return Ok(());
                }
            }
        };
        match tokio::time::timeout(patience, all_stopped).await {
            Ok(stopped) => stopped,
            Err(_) => Err(NotPaused::Running {
                pids: running,
                waited: patience,
            }),
        }
    }

    /// Waits until no member is alive. Zombies are dead: their parent may never reap them.
    ///
    /// If the first process is our child, it must have been waited for before.
    pub async fn gone(self) {
        loop {
            // As the init of a container we inherit the app's orphans.
            while let Ok(Some(_)) = waitpgid(self.0, WaitOptions::NOHANG) {}
            if rustix::process::test_kill_process_group(self.0) == Err(Errno::SRCH) {
                return;
            }
            let waited = match self.alive() {
                Ok(members) => match members.first() {
                    Some(member) => self.member_gone(*member).await,
                    None => return,
                },
                Err(error) => Err(error),
            };
            if waited.is_err() {
                tokio::time::sleep(POLL).await;
            }
        }
    }

    /// The members that are alive, by id.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be listed.
    pub fn alive(self) -> io::Result<Vec<u32>> {
        self.members(Activity::Alive)
    }

    #[cfg(target_os = "linux")]
    async fn member_gone(self, id: u32) -> io::Result<()> {
        let Some(member) = Self::from_id(id) else {
            return Ok(());
        };
        match PidFd::open(member.0) {
            // The id may have passed to another process before it was opened, but not since.
            Ok(process) if self.has(id, Activity::Alive) => process.ended().await,
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    #[cfg(not(target_os = "linux"))]
    async fn member_gone(self, _id: u32) -> io::Result<()> {
        std::future::ready(Err(io::ErrorKind::Unsupported.into())).await
    }

    fn members(self, activity: Activity) -> io::Result<Vec<u32>> {
        let mut members = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let id = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            members.extend(id.filter(|id| self.has(*id, activity)));
        }
        Ok(members)
    }

    /// Whether the process with this id is a member and as active as that.
    fn has(self, id: u32, activity: Activity) -> bool {
        let Ok(stat) = fs::read(format!("/proc/{id}/stat")) else {
            return false;
        };
        // “id (name) state parent group …”, where the name may contain anything.
        let Some(name_end) = stat.iter().rposition(|byte| *byte == b')') else {
            return false;
        };
        let mut fields = stat[name_end + 1..].split(u8::is_ascii_whitespace).skip(1);
        let state = fields.next();
        let group = fields
            .nth(1)
            .and_then(|group| str::from_utf8(group).ok()?.parse().ok());
        let active = match activity {
            Activity::Alive => !matches!(state, Some(b"Z" | b"X" | b"x")),
            Activity::Running => !matches!(state, Some(b"Z" | b"X" | b"x" | b"T" | b"t")),
        };
        group == Some(self.id()) && active
    }
}

#[derive(Debug, Clone, Copy)]
enum Activity {
    /// Neither dead nor a zombie.
    Alive,
    /// Alive and not stopped.
    Running,
}

fn gone_is_fine(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::SRCH) => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_group_stands_for_everyone() {
        for id in [0, 1, u32::MAX, i32::MIN.unsigned_abs()] {
            assert_eq!(Group::from_id(id), None);
        }
        assert_eq!(Group::from_id(2).map(Group::id), Some(2));
    }
}
