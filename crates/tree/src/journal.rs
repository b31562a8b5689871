//! What is written before a tree is touched, and what is written once it is changed.
//!
//! The commit record says which tree stands, under a sequence number that grows with every change.
//! A journal names the number it leads to. If, on opening, the record has that number, the change
//! was made; else the journal's steps are taken back, in whichever direction they were going.

use patchwire_protocol::{
    codec::{self, Decode, Encode},
    manifest::{Entry, Manifest},
    message::value::WireDigest,
    path::RelativePath,
};

use crate::{sealed::Magic, step::Step, time::Time};

pub(crate) const JOURNAL_MAGIC: Magic = *b"pw-jrnl\x02";

/// Which tree stands, and what its caller wants remembered with it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "codec::bincode")]
pub struct CommitRecord {
    pub(crate) sequence: u64,
    /// The push that made the tree.
    pub push_id: [u8; 16],
    /// The caller's own.
    pub meta: Vec<u8>,
    /// The tree's name, by its root digest.
    pub root: WireDigest,
    /// Whether the app was seen to be ready on this tree.
    pub verified: bool,
    /// The last mtimes of files that are gone, so that one made anew gets a later one.
    pub(crate) gone: Vec<(RelativePath, Time)>,
}

/// Which way a change goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "codec::bincode")]
pub(crate) enum Direction {
    /// A commit: steps are applied, first to last.
    Forward,
    /// A roll back: steps are reverted, last to first.
    Back,
}

/// A change of the tree that is being made; kept afterwards, as what to roll back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "codec::bincode")]
pub(crate) struct Journal {
    /// The sequence number of the record that says that the change was made.
    pub(crate) sequence: u64,
    pub(crate) direction: Direction,
    /// The number that names the directory of the steps' slots.
    pub(crate) slots: u64,
    pub(crate) steps: Vec<Step>,
    /// The record before the commit whose steps these are.
    pub(crate) previous: Option<CommitRecord>,
    /// What stood where the commit changed something, sorted by path.
    pub(crate) former: Vec<(RelativePath, Option<Entry>)>,
}

impl Journal {
    /// The name of the directory that holds the steps' slots.
    pub(crate) fn slots_name(&self) -> Vec<u8> {
        self.slots.to_string().into_bytes()
    }
}

/// What has to change for `from` to become `to`, sorted by path.
pub(crate) fn changes(from: &Manifest, to: &Manifest) -> Vec<(RelativePath, Option<Entry>)> {
    let mut changes: Vec<_> = from
        .differences(to)
        .map(|difference| (difference.path.clone(), difference.new.cloned()))
        .collect();
    // One of these is kept for as long as the tree stands.
    changes.shrink_to_fit();
    changes
}
