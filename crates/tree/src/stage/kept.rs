//! What is kept of pushes that were cut off, so that the next attempt sends only the rest.
//!
//! A directory of contents, each named by its digest and length; as many bytes of it are kept as
//! the file is long. Nothing of this is believed: a push that takes a content up hashes it whole.

use std::{fs::File, io};

use patchwire_delta::Digest;

use crate::{
    confine::{Dir, Kind},
    store::KEPT,
    time::Time,
};

/// The directory in the state directory.
const NAME: &[u8] = KEPT.as_bytes();

/// The most bytes kept in all.
const BUDGET: u64 = 4 << 30;

/// The most contents kept.
const MOST: usize = 1 << 16;

/// How long a content is kept, in seconds, if no commit comes: a day.
const LIFETIME: i64 = 24 * 60 * 60;

/// What is kept of one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The digest of the whole content.
    pub digest: Digest,
    /// The length of the whole content, in bytes.
    pub len: u64,
    /// How many of its first bytes are kept; as many as it has if nothing is missing.
    pub have: u64,
}

/// Lists what is kept in the state directory `state`, and removes what was kept for too long.
pub(crate) fn list(state: &Dir) -> io::Result<Vec<Kept>> {
    let dir = match state.open_dir(NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        dir => dir?,
    };
    let oldest = Time::now().plus_seconds(-LIFETIME);
    let mut list = Vec::new();
    for name in dir.list()? {
        let stat = dir.stat(&name)?;
        match parse(&name).filter(|(_, len)| stat.kind == Kind::File && stat.len <= *len) {
            Some((digest, len)) if stat.modified >= oldest => list.push(Kept {
                digest,
                len,
                have: stat.len,
            }),
            _ => dir.remove_all(&name)?,
        }
    }
    list.sort_unstable_by(|a, b| a.digest.as_bytes().cmp(b.digest.as_bytes()));
    Ok(list)
}

/// Puts contents away, as far as there is room.
#[derive(Debug)]
pub(super) struct Keeper {
    dir: Dir,
    room: u64,
    places: usize,
}

impl Keeper {
    pub(super) fn new(state: &Dir) -> io::Result<Self> {
        match state.make_dir(NAME) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let known = list(state)?;
        let used = known.iter().map(|kept| kept.have).sum();
        Ok(Self {
            dir: state.open_dir(NAME)?,
            room: BUDGET.saturating_sub(used),
            places: MOST.saturating_sub(known.len()),
        })
    }

    /// Moves the file `name` in `from` here: all or the beginning of a content.
    pub(super) fn keep(
        &mut self,
        from: &Dir,
        name: &[u8],
        digest: Digest,
        len: u64,
    ) -> io::Result<()> {
        let have = from.stat(name)?.len;
        let kept = file_name(digest, len);
        let known = self.dir.find(&kept)?.map_or(0, |stat| stat.len);
        if have > known && have <= len && have <= self.room && self.places > 0 {
            from.make_accessible(name)?;
            from.rename(name, &self.dir, &kept)?;
            self.room -= have;
            self.places -= 1;
        }
        Ok(())
    }
}

/// Opens what is kept of a content; `None` if that is nothing.
pub(super) fn open(state: &Dir, digest: Digest, len: u64) -> io::Result<Option<File>> {
    let open = || state.open_dir(NAME)?.open_file(&file_name(digest, len));
    absent_is_none(open())
}

/// Moves what is kept of a content to the new name `slot` in `slots`, and opens it for reading and
/// writing; `None` if that is nothing.
pub(super) fn take(
    state: &Dir,
    digest: Digest,
    len: u64,
    slots: &Dir,
    slot: &[u8],
) -> io::Result<Option<File>> {
    let take = || {
        let dir = state.open_dir(NAME)?;
        dir.rename_new(&file_name(digest, len), slots, slot)?;
        slots.reopen_file(slot)
    };
    absent_is_none(take())
}

/// Forgets one content.
pub(super) fn forget(state: &Dir, digest: Digest, len: u64) -> io::Result<()> {
    let forget = || state.open_dir(NAME)?.unlink(&file_name(digest, len));
    absent_is_none(forget()).map(drop)
}

/// Forgets everything.
pub(crate) fn clear(state: &Dir) -> io::Result<()> {
    absent_is_none(state.remove_all(NAME)).map(drop)
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

fn file_name(digest: Digest, len: u64) -> Vec<u8> {
    format!("{digest}.{len}").into_bytes()
}

fn parse(name: &[u8]) -> Option<(Digest, u64)> {
    let (digest, len) = str::from_utf8(name).ok()?.split_once('.')?;
    let digest = Digest::from(blake3::Hash::from_hex(digest).ok()?);
    Some((digest, len.parse().ok()?))
}
