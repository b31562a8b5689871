//! The stat cache: digests of files that haven't changed since they were read.

use std::{collections::HashMap, fs, io, path::Path};

use patchwire_delta::Digest;
use patchwire_protocol::{
    codec::{self, Decode, Encode},
    path::RelativePath,
};

use crate::{
    confine::Stat,
    sealed::{self, Magic},
    time::Time,
};

const MAGIC: Magic = *b"pw-stat\x01";

/// How far a file's times must lie before the moment it was looked at for its digest to be kept.
///
/// A file written twice within the file system's granularity looks the same both times. The
/// coarsest granularity in use is FAT's two seconds.
const RACY_SECONDS: i64 = 2;

/// The largest cache file that is read, in bytes: twice what a tree at its limits needs.
const MAX_FILE: u64 = 1 << 30;

/// Remembers for each path what its file looked like (size, mtime, ctime, inode) when its digest
/// was computed.
///
/// A cache is only ever a saving: an unreadable, damaged or foreign one is an empty one.
#[derive(Clone, Debug, Default)]
pub struct StatCache {
    known: HashMap<RelativePath, Known>,
    changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "codec::bincode")]
struct Known {
    len: u64,
    modified: Time,
    changed: Time,
    inode: u64,
    digest: [u8; Digest::LEN],
}

impl StatCache {
    /// Reads a cache from a file; empty if that isn't there or isn't sound.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(metadata) if metadata.len() <= MAX_FILE => {}
            _ => return Self::default(),
        }
        fs::read(path).map_or_else(|_| Self::default(), |bytes| Self::from_bytes(&bytes))
    }

    /// Writes the cache to a file, replacing it as a whole. Its directory must exist.
    ///
    /// # Errors
    ///
    /// The system's, from writing or renaming.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        // Not synced: a cache lost or torn by a power cut is an empty one.
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let written =
            fs::write(&temporary, self.to_bytes()).and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // The write's error is the one to tell; what's left of it, if anything, is a stray file.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let known: Vec<(RelativePath, Known)> = sealed::unseal(MAGIC, bytes).unwrap_or_default();
        Self {
            known: known.into_iter().collect(),
            changed: false,
        }
    }

    /// Tells whether anything is remembered or forgotten since the last time this was asked.
    pub(crate) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut known: Vec<_> = self.known.iter().collect();
        known.sort_unstable_by_key(|(path, _)| *path);
        sealed::seal(MAGIC, &known)
    }

    /// The digest of the file at `path`, if it looks as it did when that was computed.
    pub(crate) fn digest(&self, path: &RelativePath, stat: &Stat) -> Option<Digest> {
        let known = self.known.get(path)?;
        let same = known.len == stat.len
            && known.modified == stat.modified
            && known.changed == stat.changed
            && known.inode == stat.inode;
        same.then(|| Digest::from_bytes(known.digest))
    }

    /// Remembers a digest that was computed at or after `looked`, unless the file is too new for
    /// its times to tell a later change.
    pub(crate) fn record(
        &mut self,
        path: &RelativePath,
        stat: &Stat,
        digest: Digest,
        looked: Time,
    ) {
        let trusted = looked.plus_seconds(-RACY_SECONDS);
        if stat.modified >= trusted || stat.changed >= trusted {
            self.forget(path);
            return;
        }
        let known = Known {
            len: stat.len,
            modified: stat.modified,
            changed: stat.changed,
            inode: stat.inode,
            digest: *digest.as_bytes(),
        };
        self.changed |= self.known.insert(path.clone(), known) != Some(known);
    }

    pub(crate) fn forget(&mut self, path: &RelativePath) {
        self.changed |= self.known.remove(path).is_some();
    }

    /// Forgets every path for which `keep` is false.
    pub(crate) fn retain(&mut self, keep: impl Fn(&RelativePath) -> bool) {
        let before = self.known.len();
        self.known.retain(|path, _| keep(path));
        self.changed |= self.known.len() != before;
    }

    /// The number of files remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Tells whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confine::Kind;

    const NOW: Time = Time {
        seconds: 1000,
        nanos: 0,
    };

    fn stat(modified: i64, changed: i64) -> Stat {
        let time = |seconds| Time { seconds, nanos: 5 };
        Stat {
            kind: Kind::File,
            mode: 0o644,
            len: 3,
            modified: time(modified),
            changed: time(changed),
            device: 1,
            inode: 7,
        }
    }

    #[test]
    fn only_what_is_old_enough_is_trusted() {
        let path = RelativePath::try_from("a").unwrap();
        let digest = Digest::of(b"abc");
        let mut cache = StatCache::default();
        for new in [stat(998, 10), stat(10, 999), stat(2000, 10)] {
            cache.record(&path, &new, digest, NOW);
            assert_eq!(cache.digest(&path, &new), None);
        }
        let old = stat(997, 997);
        cache.record(&path, &old, digest, NOW);
        assert_eq!(cache.digest(&path, &old), Some(digest));
        for other in [
            stat(996, 997),
            stat(997, 998),
            Stat { len: 4, ..old },
            Stat { inode: 8, ..old },
        ] {
            assert_eq!(cache.digest(&path, &other), None);
        }
        cache.record(&path, &stat(999, 999), digest, NOW);
        assert_eq!(
            cache.digest(&path, &old),
            None,
            "an older record is dropped"
        );
    }

    #[test]
    fn a_cache_survives_its_file_and_damage_empties_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index");
        assert!(StatCache::load(&file).is_empty());
        let path = RelativePath::try_from("a").unwrap();
        let mut cache = StatCache::default();
        cache.record(&path, &stat(1, 1), Digest::of(b"abc"), NOW);
        cache.save(&file).unwrap();
        let loaded = StatCache::load(&file);
        assert_eq!(loaded.digest(&path, &stat(1, 1)), Some(Digest::of(b"abc")));
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(StatCache::load(&file).is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
