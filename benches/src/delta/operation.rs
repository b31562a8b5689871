//! What is measured of an engine.

/// Something an engine does, in the order in which a round runs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Operation {
    /// From the basis to its encoded signature.
    Signature,
    /// The same with two threads.
    Signature2Threads,
    /// The same from a file to a file, in bounded memory.
    SignatureStream,
    /// From the decoded signature and the target to the delta as the engine gives it. With a program,
    /// from and to files; with one that has no signatures, from the basis.
    Diff,
    /// The same with two threads.
    Diff2Threads,
    /// The same, and the digest of the target is computed.
    DiffDigest,
    /// From the decoded signature and a file to a file, in bounded memory.
    DiffStream,
    /// From the basis and the encoded delta to the target, in a new vector or file.
    Patch,
    /// The same into a buffer that was used before.
    PatchReused,
    /// The same from a basis in memory into a new file.
    PatchFile,
    /// The same from files to a file, in bounded memory.
    PatchStream,
    /// Both ends of two rounds: from the basis and the target to a delta, with all messages encoded
    /// and decoded.
    TwoRounds,
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
        Self::Signature2Threads,
        Self::SignatureStream,
        Self::Diff,
        Self::Diff2Threads,
        Self::DiffDigest,
        Self::DiffStream,
        Self::Patch,
        Self::PatchReused,
        Self::PatchFile,
        Self::PatchStream,
        Self::TwoRounds,
        Self::Digest,
        Self::Whole,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Signature2Threads => "signature-2-threads",
            Self::SignatureStream => "signature-stream",
            Self::Diff => "diff",
            Self::Diff2Threads => "diff-2-threads",
            Self::DiffDigest => "diff-digest",
            Self::DiffStream => "diff-stream",
            Self::Patch => "patch",
            Self::PatchReused => "patch-reused",
            Self::PatchFile => "patch-file",
            Self::PatchStream => "patch-stream",
            Self::TwoRounds => "two-rounds",
            Self::Digest => "digest",
            Self::Whole => "whole",
        }
    }

    /// Whether it reads the basis alone: then its length is what the throughput is counted in, else
    /// the target's.
    pub(crate) const fn is_of_basis(self) -> bool {
        matches!(
            self,
            Self::Signature | Self::Signature2Threads | Self::SignatureStream
        )
    }

    /// Whether it makes a target, the length of which is no news.
    pub(crate) const fn makes_target(self) -> bool {
        matches!(
            self,
            Self::Patch | Self::PatchReused | Self::PatchFile | Self::PatchStream
        )
    }

    /// Whether an in-process engine makes a file of it.
    pub(crate) const fn makes_file(self) -> bool {
        matches!(
            self,
            Self::SignatureStream | Self::DiffStream | Self::PatchFile | Self::PatchStream
        )
    }

    /// The operation of the same engine whose output it starts from, where an engine has that one.
    pub(crate) const fn needed(self) -> Option<Self> {
        match self {
            Self::Diff | Self::Diff2Threads | Self::DiffDigest | Self::DiffStream => {
                Some(Self::Signature)
            }
            Self::Patch | Self::PatchReused | Self::PatchFile | Self::PatchStream => {
                Some(Self::Diff)
            }
            Self::Signature
            | Self::Signature2Threads
            | Self::SignatureStream
            | Self::TwoRounds
            | Self::Digest
            | Self::Whole => None,
        }
    }

    /// The operation of the same engine that does the same with one thread, if this one has two.
    pub(crate) const fn with_one_thread(self) -> Option<Self> {
        match self {
            Self::Signature2Threads => Some(Self::Signature),
            Self::Diff2Threads => Some(Self::Diff),
            // All the others have one.
            _ => None,
        }
    }

    /// The operation of a peer that this one is held against.
    pub(crate) const fn counterpart(self, against: Against) -> Option<Self> {
        match (self, against) {
            (Self::Signature | Self::Diff | Self::Patch, Against::FastRsync | Against::Rdiff)
            | (Self::PatchFile, Against::FastRsync)
            | (Self::PatchReused, Against::FastRsyncReused) => Some(self),
            // No peer has a digest to compute.
            (Self::DiffDigest, Against::FastRsync | Against::Rdiff) => Some(Self::Diff),
            // Into a fresh vector is how its own benchmark and its users call it.
            (Self::PatchReused, Against::FastRsync) => Some(Self::Patch),
            // From files to files, as the program works.
            (Self::SignatureStream, Against::Rdiff) => Some(Self::Signature),
            (Self::DiffStream, Against::Rdiff) => Some(Self::Diff),
            (Self::PatchStream, Against::Rdiff) => Some(Self::Patch),
            // Nothing else has one that does the same.
            _ => None,
        }
    }
}
