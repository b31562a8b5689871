//! Which tree stands: a file of changes, of which the first makes a tree out of nothing.
//!
//! A commit appends what it changes, and so costs that and not the tree. Once the changes are many,
//! the file is written anew with one that makes the tree that stands.
//!
//! Layout: 8 bytes that name the file's kind and version; then for each change the length of its
//! payload (8 bytes, little-endian), the payload's BLAKE3 digest (32 bytes), and the payload, a
//! [`Change`] in protocol's codec. Sequence numbers never go down.
//!
//! What was appended and not synced may be there in part, or not be there, or be nothing but zeros:
//! the file counts as far as it is sound, and is cut there before the next change. That nothing is
//! lost which was synced is checked from outside: the journal of the last change has its number.

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt};

use patchwire_delta::Digest;
use patchwire_protocol::{
    codec,
    manifest::{Entry, Manifest},
    path::RelativePath,
};

use crate::{
    fault::Fault,
    journal::CommitRecord,
    sealed::{self, Magic},
};

const MAGIC: Magic = *b"pw-comm\x02";

/// The length of what stands before a payload.
const HEADER: usize = 8 + Digest::LEN;

/// How many bytes of changes are always allowed to stand behind the first.
const SLACK: u64 = 64 << 10;

/// What a commit changed: its record, and the entries that became others, or none.
type Change = (CommitRecord, Vec<(RelativePath, Option<Entry>)>);

/// The file, held open for appending.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    /// As far as it is sound and acknowledged.
    len: u64,
    /// The length of the first change, with what stands before it.
    first: u64,
}

/// What a log says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// The last record, unless nothing was ever committed.
    pub(super) record: Option<CommitRecord>,
    /// The tree that it stands for.
    pub(super) manifest: Manifest,
    len: u64,
    first: u64,
}

impl Log {
    pub(super) const fn new(file: File, contents: &Contents) -> Self {
        Self {
            file,
            len: contents.len,
            first: contents.first,
        }
    }

    /// Makes the file `file`, which [`write()`] filled, the log.
    pub(super) fn replace(&mut self, file: File, len: u64) {
        *self = Self {
            file,
            len,
            first: len,
        };
    }

    /// Appends a change, and syncs it. If that fails, it may be there all the same: see
    /// [`Self::cut`].
    pub(super) fn append(
        &mut self,
        record: &CommitRecord,
        changes: &[(&RelativePath, Option<&Entry>)],
        fault: &Fault,
    ) -> io::Result<()> {
        fault.point("append")?;
        self.file.set_len(self.len)?;
        let change = (record, changes);
        let len = match self.len {
            0 => begin(&self.file, &change)?,
            len => write_change(&self.file, len, &change)?,
        };
        fault.point("appended")?;
        self.file.sync_data()?;
        if self.len == 0 {
            self.first = len;
        }
        self.len = len;
        Ok(())
    }

    /// Takes away what [`Self::append`] failed to append.
    pub(super) fn cut(&self, fault: &Fault) -> io::Result<()> {
        fault.point("cut")?;
        self.file.set_len(self.len)?;
        self.file.sync_all()
    }

    /// Makes what was read of the file last: another process may have written it and not lived to.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Tells whether the changes since the first are more than a fraction of that: to write the
    /// tree anew then costs a push in a thousand as much as it saves every start.
    pub(super) const fn is_long(&self) -> bool {
        self.len - self.first > SLACK + self.first / 4
    }
}

/// Makes an empty file a log with one change, which makes the whole tree. Gives its length.
pub(super) fn write(file: &File, record: &CommitRecord, manifest: &Manifest) -> io::Result<u64> {
    let entries = manifest.entries().iter();
    let changes: Vec<_> = entries
        .map(|entry| (&entry.path, Some(&entry.entry)))
        .collect();
    begin(file, &(record, changes))
}

/// Reads a log, as far as it is sound; `None` if it is of another kind or version, or says what
/// can't be.
pub(super) fn decode(bytes: &[u8]) -> Option<Contents> {
    let mut contents = Contents::default();
    let Some(mut rest) = bytes.strip_prefix(&MAGIC) else {
        // Cut off, or left as zeros, when the first change was appended.
        let end = bytes.iter().rposition(|byte| *byte != 0);
        let written = &bytes[..end.map_or(0, |last| last + 1)];
        return MAGIC.starts_with(written).then_some(contents);
    };
    let mut changes = BTreeMap::new();
    while let Some((payload, behind)) = split_change(rest) {
        let (record, changed): Change = codec::decode_state(payload).ok()?;
        let is_later = |before: &CommitRecord| before.sequence <= record.sequence;
        if !contents.record.as_ref().is_none_or(is_later) {
            return None;
        }
        changes.extend(changed);
        contents.record = Some(record);
        contents.len = (bytes.len() - behind.len()) as u64;
        if contents.first == 0 {
            contents.first = contents.len;
        }
        rest = behind;
    }
    contents.manifest = Manifest::default().with_changes(&changes).ok()?;
    let is_whole = match &contents.record {
        Some(record) => record.root.0 == contents.manifest.root(),
        None => true,
    };
    is_whole.then_some(contents)
}

/// Writes the first change, and what stands before it. Gives where it ends.
fn begin(file: &File, change: &impl codec::Encode) -> io::Result<u64> {
    file.write_all_at(&MAGIC, 0)?;
    write_change(file, MAGIC.len() as u64, change)
}

/// Writes a change from `start` on. Gives where it ends.
fn write_change(file: &File, start: u64, change: &impl codec::Encode) -> io::Result<u64> {
    let payload = start + HEADER as u64;
    let (end, digest) = sealed::write_payload(change, file, payload)?;
    let len = end - payload;
    let header = [&len.to_le_bytes()[..], digest.as_bytes()].concat();
    file.write_all_at(&header, start)?;
    Ok(end)
}

/// The payload of the change at the beginning of `bytes`, and what stands behind it; `None` if the
/// change isn't there as a whole.
fn split_change(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let (len, digest) = header.split_first_chunk()?;
    let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
    let (payload, behind) = rest.split_at_checked(len)?;
    (*digest == Digest::of(payload).as_bytes()[..]).then_some((payload, behind))
}

#[cfg(test)]
mod tests;
