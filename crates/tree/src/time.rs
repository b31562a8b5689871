//! File times.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use patchwire_protocol::codec::{self, Decode, Encode};

/// A file's time as the system keeps it: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[bincode(crate = "codec::bincode")]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

impl From<Time> for SystemTime {
    fn from(time: Time) -> Self {
        let nanos = Duration::from_nanos(time.nanos.into());
        let seconds = Duration::from_secs(time.seconds.unsigned_abs());
        match time.seconds < 0 {
            true => UNIX_EPOCH - seconds + nanos,
            false => UNIX_EPOCH + seconds + nanos,
        }
    }
}

impl Time {
    pub(crate) fn now() -> Self {
        // A clock before 1970 is as good as one that stands at 1970.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            nanos: now.subsec_nanos(),
        }
    }

    /// This time, moved by whole seconds.
    pub(crate) const fn plus_seconds(self, seconds: i64) -> Self {
        Self {
            seconds: self.seconds.saturating_add(seconds),
            nanos: self.nanos,
        }
    }
}
