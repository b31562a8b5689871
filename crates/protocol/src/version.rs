//! Protocol versions and how two ends agree on one.

use crate::codec::{Decode, Encode};

/// A version of everything on the wire: relay messages, the inner session, push messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Version(pub u16);

/// The version this build speaks.
pub const CURRENT: Version = Version(2);

/// The range of versions an end can speak, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct VersionRange {
    /// The oldest version spoken.
    pub oldest: Version,
    /// The newest version spoken.
    pub newest: Version,
}

impl VersionRange {
    /// What this build speaks.
    pub const SUPPORTED: Self = Self {
        oldest: CURRENT,
        newest: CURRENT,
    };

    /// The newest version both ranges hold, if there is one.
    #[must_use]
    pub fn agree(self, other: Self) -> Option<Version> {
        let newest = self.newest.min(other.newest);
        let oldest = self.oldest.max(other.oldest);
        (oldest <= newest).then_some(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(oldest: u16, newest: u16) -> VersionRange {
        VersionRange {
            oldest: Version(oldest),
            newest: Version(newest),
        }
    }

    #[test]
    fn the_newest_common_version_wins() {
        assert_eq!(range(1, 3).agree(range(2, 5)), Some(Version(3)));
        assert_eq!(range(1, 1).agree(range(1, 1)), Some(Version(1)));
        assert_eq!(range(1, 2).agree(range(3, 4)), None);
        assert_eq!(range(3, 4).agree(range(1, 2)), None);
        assert_eq!(range(4, 1).agree(range(1, 4)), None);
    }
}
