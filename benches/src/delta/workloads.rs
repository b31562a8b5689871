//! What is measured on: pairs of a basis and a target, the same in every run on a machine.

mod anchors;
mod collisions;
mod edits;
mod real;
mod repeats;
mod selection;
mod sqlite;
mod text;

use serde::{Deserialize, Serialize};

pub(crate) use self::edits::edited;
use super::operation::Operation;
use crate::noise::Noise;

/// A kind of basis and target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
pub(crate) enum Workload {
    /// Noise, and the same
    Identical,
    /// Noise, and the same behind one more byte
    Shifted,
    /// Binaries of this machine, and 200 scattered edits to 256 MiB
    #[value(name = "edits-200")]
    Edits200,
    /// Binaries of this machine, and 8192 scattered edits to 256 MiB
    #[value(name = "edits-8192")]
    Edits8192,
    /// Noise, and other noise
    Unrelated,
    /// Texts of this machine, and lines inserted, deleted, replaced and moved
    Text,
    /// Pages as SQLite's, and some rewritten, moved and appended
    Sqlite,
    /// Zeros, and more of them with a few edits
    Zeros,
    /// Short and long periods, and the same in another order
    Periodic,
    /// Blocks with the weak hashes of the target's windows, none of which they are
    Collisions,
    /// Blocks with the anchors of the target, none of which it has
    Anchors,
}

/// A basis and a target.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) basis: Vec<u8>,
    pub(crate) target: Vec<u8>,
    /// What a reader must know of them.
    pub(crate) note: Option<String>,
}

impl Workload {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Identical => "identical",
            Self::Shifted => "shifted",
            Self::Edits200 => "edits-200",
            Self::Edits8192 => "edits-8192",
            Self::Unrelated => "unrelated",
            Self::Text => "text",
            Self::Sqlite => "sqlite",
            Self::Zeros => "zeros",
            Self::Periodic => "periodic",
            Self::Collisions => "collisions",
            Self::Anchors => "anchors",
        }
    }

    /// About how long the basis and the target are, where `len` is asked for.
    ///
    /// What takes some engines ages is shorter, for all of them alike.
    pub(crate) fn len(self, len: usize) -> usize {
        match self {
            Self::Collisions => len.min(collisions::MAX_LEN),
            Self::Identical
            | Self::Shifted
            | Self::Edits200
            | Self::Edits8192
            | Self::Unrelated
            | Self::Text
            | Self::Sqlite
            | Self::Zeros
            | Self::Periodic
            | Self::Anchors => len,
        }
    }

    /// Whether it is made to make patchwire slow.
    pub(crate) const fn is_hostile(self) -> bool {
        matches!(self, Self::Collisions | Self::Anchors)
    }

    /// Whether an operation says anything on it: two rounds are for what was edited.
    pub(crate) const fn has(self, operation: Operation) -> bool {
        match operation {
            Operation::TwoRounds => matches!(
                self,
                Self::Shifted | Self::Edits200 | Self::Edits8192 | Self::Text | Self::Sqlite
            ),
            _ => true,
        }
    }

    /// Makes the basis and the target, about as long as `len` each.
    pub(crate) fn generate(self, len: usize, block_size: u32) -> Pair {
        let block_len = usize::try_from(block_size).unwrap_or(usize::MAX);
        // Each its own.
        let mut noise = Noise::new(0x5EED + self as u64);
        match self {
            Self::Identical => {
                let basis = noise.bytes(len);
                Pair::new(basis.clone(), basis)
            }
            Self::Shifted => {
                let basis = noise.bytes(len);
                let target = [b"+", basis.as_slice()].concat();
                Pair::new(basis, target)
            }
            Self::Edits200 => edits::pair(len, 200),
            Self::Edits8192 => edits::pair(len, 8192),
            Self::Unrelated => Pair::new(noise.bytes(len), noise.bytes(len)),
            Self::Text => text::pair(len),
            Self::Sqlite => sqlite::pair(len),
            Self::Zeros => repeats::zeros(len),
            Self::Periodic => repeats::periodic(len, block_len),
            Self::Collisions => collisions::pair(len, block_len),
            Self::Anchors => anchors::pair(len, block_len),
        }
    }
}

impl Pair {
    const fn new(basis: Vec<u8>, target: Vec<u8>) -> Self {
        Self {
            basis,
            target,
            note: None,
        }
    }
}

/// How many of something a workload of `len` bytes has, if one of 256 MiB or more has `count`.
fn scaled(count: usize, len: usize) -> usize {
    const FULL: u128 = 256 << 20;
    let part = count as u128 * len as u128 / FULL;
    usize::try_from(part).unwrap_or(count).clamp(1, count)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    const LEN: usize = 128 << 10;

    #[test]
    fn workloads_are_the_same_each_time_and_about_as_long_as_asked_for() {
        for workload in Workload::value_variants() {
            let pair = workload.generate(LEN, 2048);
            let again = workload.generate(LEN, 2048);
            assert!(
                pair.basis == again.basis && pair.target == again.target,
                "{workload:?}"
            );
            for len in [pair.basis.len(), pair.target.len()] {
                assert!((LEN / 2..LEN * 8).contains(&len), "{workload:?}: {len}");
            }
            assert_eq!(
                pair.basis == pair.target,
                *workload == Workload::Identical,
                "{workload:?}"
            );
        }
    }

    #[test]
    fn a_workload_is_named_as_on_the_command_line() {
        for workload in Workload::value_variants() {
            let value = workload.to_possible_value().unwrap();
            assert_eq!(value.get_name(), workload.name());
        }
    }

    #[test]
    fn counts_scale_down_only() {
        assert_eq!(scaled(200, 256 << 20), 200);
        assert_eq!(scaled(200, 64 << 20), 50);
        assert_eq!(scaled(200, 1 << 30), 200);
        assert_eq!(scaled(200, 1), 1);
    }
}
