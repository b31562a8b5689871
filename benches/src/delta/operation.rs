//! What is measured of an engine.

/// Something an engine does, in the order in which a round runs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Operation {
    /// From the basis to its encoded signature.
    Signature,
    /// From the decoded signature and the target to the delta as the engine gives it. With a program,
    /// from and to files; with one that has no signatures, from the basis.
    Diff,
    /// From the basis and the encoded delta to the target, in a new vector or file.
    Patch,
    /// The same into a buffer that was used before.
    PatchReused,
    /// The same from a basis in memory into a new file.
    PatchFile,
    /// The digest of the target alone.
    Digest,
    /// From a copy of the basis and the target to a copy of the target.
    Whole,
}

/// Which operation of a peer another engine's is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Against {
    FastRsync,
    /// fast_rsync into a buffer that was used before.
    FastRsyncReused,
    Rdiff,
}

impl Operation {
    /// In the order of a round: what makes a delta comes before what applies it.
    pub(crate) const ALL: &[Self] = &[
        Self::Signature,
        Self::Diff,
        Self::Patch,
        Self::PatchReused,
        Self::PatchFile,
        Self::Digest,
        Self::Whole,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Diff => "diff",
            Self::Patch => "patch",
            Self::PatchReused => "patch-reused",
            Self::PatchFile => "patch-file",
            Self::Digest => "digest",
            Self::Whole => "whole",
        }
    }

    /// Whether it reads the basis alone: then its length is what the throughput is counted in, else
    /// the target's.
    pub(crate) const fn is_of_basis(self) -> bool {
        matches!(self, Self::Signature)
    }

    /// The operation of the same engine whose output it starts from, where an engine has that one.
    pub(crate) const fn needed(self) -> Option<Self> {
        match self {
            Self::Diff => Some(Self::Signature),
            Self::Patch | Self::PatchReused | Self::PatchFile => Some(Self::Diff),
            Self::Signature | Self::Digest | Self::Whole => None,
        }
    }

    /// The operation of a peer that this one is held against.
    pub(crate) const fn counterpart(self, against: Against) -> Option<Self> {
        match (self, against) {
            (Self::Signature | Self::Diff | Self::Patch, Against::FastRsync | Against::Rdiff)
            | (Self::PatchFile, Against::FastRsync) => Some(self),
            // Into a fresh vector is how its own benchmark and its users call it.
            (Self::PatchReused, Against::FastRsync) => Some(Self::Patch),
            (Self::PatchReused, Against::FastRsyncReused) => Some(Self::PatchReused),
            (
                Self::Signature | Self::Diff | Self::Patch | Self::PatchFile,
                Against::FastRsyncReused,
            )
            | (Self::PatchReused | Self::PatchFile, Against::Rdiff)
            | (Self::Digest | Self::Whole, _) => None,
        }
    }
}
