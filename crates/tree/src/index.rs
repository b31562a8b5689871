//! The stat cache: digests of files that haven't changed since they were read.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
};

use patchwire_delta::Digest;
use patchwire_protocol::{
    manifest::{Manifest, ManifestEntry},
    path::RelativePath,
};

use crate::{
    confine::Stat,
    sealed::{self, Magic},
    time::Time,
};

const MAGIC: Magic = *b"pw-stat\x02";

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
/// A cache is only ever a saving: an unreadable, damaged or foreign one is an empty one. It takes 76
/// bytes per file and those of its path, on the disk and in memory.
#[derive(Clone, Debug, Default)]
pub struct StatCache {
    known: Sorted,
    /// What was learnt since `known` was made: what a file looks like, or that it isn't known.
    learnt: BTreeMap<RelativePath, Option<Known>>,
    changed: bool,
}

/// Files sorted by path, as they lie in the cache's file.
///
/// A row is, little-endian: where its path ends in `paths` (`u32`), length and inode (`u64` each),
/// mtime and ctime (seconds `i64`, nanoseconds `u32`, each), and 32 bytes of digest.
#[derive(Clone, Debug, Default)]
struct Sorted {
    rows: Vec<u8>,
    /// All paths, one after the other.
    paths: Vec<u8>,
}

/// What part of the files that are known is many to learn of at once.
const MANY: usize = 16;

const ROW: usize = 4 + 8 + 8 + 12 + 12 + Digest::LEN;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    len: u64,
    inode: u64,
    modified: Time,
    changed: Time,
    digest: Digest,
}

impl Known {
    const fn new(stat: &Stat, digest: Digest) -> Self {
        Self {
            len: stat.len,
            inode: stat.inode,
            modified: stat.modified,
            changed: stat.changed,
            digest,
        }
    }
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
        let write = || {
            self.write(&File::create(&temporary)?)?;
            fs::rename(&temporary, path)
        };
        let written = write();
        if written.is_err() {
            // The write's error is the one to tell; what's left of it, if anything, is a stray file.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let (rows, paths) = sealed::unseal(MAGIC, bytes).unwrap_or_default();
        Self {
            known: Sorted { rows, paths },
            ..Self::default()
        }
    }

    /// Tells whether anything is remembered or forgotten since the last time this was asked.
    pub const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Writes the cache into an empty file.
    pub(crate) fn write(&self, file: &File) -> io::Result<()> {
        let write = |known: &Sorted| sealed::write(MAGIC, &(&known.rows, &known.paths), file);
        match self.learnt.is_empty() {
            true => write(&self.known),
            false => write(&self.merged(|_| true)),
        }
    }

    #[cfg(test)]
    pub(crate) fn digest(&self, path: &RelativePath, stat: &Stat) -> Option<Digest> {
        Lookup::new(self).digest(path.as_bytes(), stat)
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
        match is_settled(stat, looked) {
            true => self.trust(path, stat, digest),
            false => self.forget(path),
        }
    }

    /// Remembers a digest of a file that has, to the nanosecond, the mtime that we gave it: whoever
    /// writes to it gives it another.
    pub(crate) fn trust(&mut self, path: &RelativePath, stat: &Stat, digest: Digest) {
        self.learn(path, Some(Known::new(stat, digest)));
    }

    /// [`Self::record`] of many files, sorted by path, each path once.
    pub(crate) fn record_all<'a>(
        &mut self,
        files: impl Iterator<Item = (&'a RelativePath, &'a Stat, Digest)> + Clone,
        looked: Time,
    ) {
        self.learn_all(files.map(|(path, stat, digest)| {
            let known = is_settled(stat, looked).then(|| Known::new(stat, digest));
            (path, known)
        }));
    }

    /// [`Self::trust`] of many files, sorted by path, each path once.
    pub(crate) fn trust_all<'a>(
        &mut self,
        files: impl Iterator<Item = (&'a RelativePath, &'a Stat, Digest)> + Clone,
    ) {
        self.learn_all(files.map(|(path, stat, digest)| (path, Some(Known::new(stat, digest)))));
    }

    fn learn(&mut self, path: &RelativePath, known: Option<Known>) {
        if self.find(path) != known {
            self.learnt.insert(path.clone(), known);
            self.changed = true;
        }
    }

    /// Many files are sorted in at once: to learn of them one after the other takes twice the memory.
    fn learn_all<'a>(
        &mut self,
        files: impl Iterator<Item = (&'a RelativePath, Option<Known>)> + Clone,
    ) {
        if files.clone().count() <= self.known.len() / MANY {
            return files.for_each(|(path, known)| self.learn(path, known));
        }
        if !self.learnt.is_empty() {
            self.known = self.merged(|_| true);
            self.learnt.clear();
        }
        let files = files.map(|(path, known)| (path.as_bytes(), known));
        self.known = self.known.with_changes(files, |_| true);
        self.changed = true;
    }

    pub(crate) fn forget(&mut self, path: &RelativePath) {
        self.learn(path, None);
    }

    /// Forgets every path that isn't in `manifest`. Linear in both.
    pub(crate) fn retain(&mut self, manifest: &Manifest) {
        let mut rest = manifest.entries().iter();
        let mut is_there =
            |path: &[u8]| rest.any(|ManifestEntry { path: there, .. }| there.as_bytes() == path);
        if self.learnt.is_empty() && self.known.iter().all(|(path, _)| is_there(path)) {
            return;
        }
        let mut rest = manifest.entries();
        let before = self.len();
        self.known = self.merged(|path| {
            let ahead = rest.partition_point(|entry| entry.path.as_bytes() < path);
            rest = &rest[ahead..];
            rest.first()
                .is_some_and(|entry| entry.path.as_bytes() == path)
        });
        self.learnt.clear();
        self.changed |= self.known.len() != before;
    }

    /// How many paths were learnt of since all were sorted last.
    pub(crate) fn unsorted(&self) -> usize {
        self.learnt.len()
    }

    /// The number of files remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.learnt.is_empty() {
            true => self.known.len(),
            false => self.merged(|_| true).len(),
        }
    }

    /// Tells whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn find(&self, path: &RelativePath) -> Option<Known> {
        Lookup::new(self).find(path.as_bytes())
    }

    /// What is known by now of the paths that `keep`, which is asked in their order, is true for.
    fn merged(&self, keep: impl FnMut(&[u8]) -> bool) -> Sorted {
        let learnt = self.learnt.iter();
        let learnt = learnt.map(|(path, known)| (path.as_bytes(), *known));
        self.known.with_changes(learnt, keep)
    }
}

/// Looks files up, fastest in the order of their paths.
#[derive(Debug)]
pub(crate) struct Lookup<'a> {
    cache: &'a StatCache,
    /// The row after the one that was found last.
    next: usize,
}

impl<'a> Lookup<'a> {
    pub(crate) const fn new(cache: &'a StatCache) -> Self {
        Self { cache, next: 0 }
    }

    /// The digest of the file at `path`, if it looks as it did when that was computed.
    pub(crate) fn digest(&mut self, path: &[u8], stat: &Stat) -> Option<Digest> {
        let known = self.find(path)?;
        let same = known.len == stat.len
            && known.modified == stat.modified
            && known.changed == stat.changed
            && known.inode == stat.inode;
        same.then_some(known.digest)
    }

    fn find(&mut self, path: &[u8]) -> Option<Known> {
        if let Some(learnt) = self.cache.learnt.get(path) {
            return *learnt;
        }
        let known = &self.cache.known;
        let mut at = self.next;
        if known.path(at) != path {
            let (mut start, mut end) = (0, known.len());
            while start < end {
                at = start.midpoint(end);
                match known.path(at).cmp(path) {
                    Ordering::Less => start = at + 1,
                    Ordering::Equal => break,
                    Ordering::Greater => end = at,
                }
            }
            if start == end {
                return None;
            }
        }
        self.next = at + 1;
        known.row(at)
    }
}

impl Sorted {
    fn len(&self) -> usize {
        self.rows.len() / ROW
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], Known)> {
        (0..self.len()).filter_map(|at| Some((self.path(at), self.row(at)?)))
    }

    /// The path of a row; empty, as no path is, if there is no such row.
    fn path(&self, at: usize) -> &[u8] {
        let end = |at: usize| {
            let end = *self.rows.get(at * ROW..)?.first_chunk()?;
            Some(u32::from_le_bytes(end) as usize)
        };
        let start = at.checked_sub(1).map_or(Some(0), end);
        let range = start.zip(end(at)).map(|(start, end)| start..end);
        range
            .and_then(|range| self.paths.get(range))
            .unwrap_or_default()
    }

    fn row(&self, at: usize) -> Option<Known> {
        let mut rest = self.rows.get(at * ROW + 4..(at + 1) * ROW)?;
        let len = u64::from_le_bytes(take(&mut rest)?);
        let inode = u64::from_le_bytes(take(&mut rest)?);
        let mut time = || {
            Some(Time {
                seconds: i64::from_le_bytes(take(&mut rest)?),
                nanos: u32::from_le_bytes(take(&mut rest)?),
            })
        };
        Some(Known {
            len,
            inode,
            modified: time()?,
            changed: time()?,
            digest: Digest::from_bytes(take(&mut rest)?),
        })
    }

    /// These rows with others at some paths, or none; of all of them, those whose path `keep` is true
    /// for, which is asked in their order. `changes` are sorted by path, each path once.
    fn with_changes<'a>(
        &self,
        changes: impl Iterator<Item = (&'a [u8], Option<Known>)> + Clone,
        mut keep: impl FnMut(&[u8]) -> bool,
    ) -> Self {
        let (mut rows, mut paths) = (self.rows.len(), self.paths.len());
        for (path, known) in changes.clone() {
            if known.is_some() {
                rows += ROW;
                paths += path.len();
            }
        }
        let mut merged = Self {
            rows: Vec::with_capacity(rows),
            paths: Vec::with_capacity(paths),
        };
        let mut add = |path: &[u8], known: Option<Known>| {
            if let Some(known) = known
                && keep(path)
            {
                merged.push(path, &known);
            }
        };
        let mut changes = changes.peekable();
        for (path, known) in self.iter() {
            while let Some((new, known)) = changes.next_if(|(new, _)| *new < path) {
                add(new, known);
            }
            match changes.next_if(|(new, _)| *new == path) {
                Some((_, known)) => add(path, known),
                None => add(path, Some(known)),
            }
        }
        for (new, known) in changes {
            add(new, known);
        }
        merged
    }

    /// Adds the last row.
    fn push(&mut self, path: &[u8], known: &Known) {
        self.paths.extend_from_slice(path);
        // More paths than a tree may hold: what is not remembered is read again.
        let Ok(end) = u32::try_from(self.paths.len()) else {
            self.paths.truncate(self.paths.len() - path.len());
            return;
        };
        self.rows.extend(end.to_le_bytes());
        self.rows.extend(known.len.to_le_bytes());
        self.rows.extend(known.inode.to_le_bytes());
        for time in [known.modified, known.changed] {
            self.rows.extend(time.seconds.to_le_bytes());
            self.rows.extend(time.nanos.to_le_bytes());
        }
        self.rows.extend(known.digest.as_bytes());
    }
}

/// Tells whether a file that was looked at then is old enough for its times to tell a later change.
pub(crate) fn is_settled(stat: &Stat, looked: Time) -> bool {
    let trusted = looked.plus_seconds(-RACY_SECONDS);
    stat.modified < trusted && stat.changed < trusted
}

fn take<const LEN: usize>(bytes: &mut &[u8]) -> Option<[u8; LEN]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

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
            has_other_names: false,
        }
    }

    fn read_back(cache: &StatCache) -> StatCache {
        let mut file = tempfile::tempfile().unwrap();
        cache.write(&file).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        StatCache::from_bytes(&bytes)
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
        assert_eq!(loaded.len(), 1);
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(StatCache::load(&file).is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn many_files_at_once_are_as_many_one_after_the_other() {
        let path = |name: &str| RelativePath::try_from(name).unwrap();
        let mut cache = StatCache::default();
        for name in ["a", "c", "e"] {
            cache.trust(&path(name), &stat(1, 1), Digest::of(b"old"));
        }
        let mut cache = read_back(&cache);
        cache.trust(&path("d"), &stat(1, 1), Digest::of(b"old"));
        cache.forget(&path("e"));
        let mut one_by_one = cache.clone();
        assert!(cache.take_changed());

        let names = ["a", "b", "d", "f"].map(path);
        let stats: Vec<_> = (2..6).map(|time| stat(time, time)).collect();
        let files = names.iter().zip(&stats);
        let files = files.map(|(path, stat)| (path, stat, Digest::of(path.as_bytes())));
        for (path, stat, digest) in files.clone() {
            one_by_one.trust(path, stat, digest);
        }
        cache.trust_all(files);
        assert!(cache.take_changed());
        assert_eq!(cache.unsorted(), 0);
        assert_eq!(cache.known.rows, one_by_one.merged(|_| true).rows);
        assert_eq!(cache.known.paths, b"abcdf");
    }

    #[test]
    fn what_is_learnt_is_merged_in_order() {
        let path = |name: &str| RelativePath::try_from(name).unwrap();
        let digest = |name: &str| Digest::of(name.as_bytes());
        let mut cache = StatCache::default();
        let record = |cache: &mut StatCache, names: &[&str]| {
            for name in names {
                cache.record(&path(name), &stat(1, 1), digest(name), NOW);
            }
        };
        record(&mut cache, &["d", "b", "a-b", "a/c", "f"]);
        let mut cache = read_back(&cache);
        assert!(!cache.take_changed());
        record(&mut cache, &["a", "g", "b", "c"]);
        cache.forget(&path("d"));
        cache.forget(&path("never there"));
        assert_eq!(cache.unsorted(), 4, "what was known isn't learnt");
        assert!(cache.take_changed());
        let there = ["a", "a-b", "a/c", "b", "c", "f", "g"];
        for cache in [cache.clone(), read_back(&cache)] {
            assert_eq!(cache.len(), there.len());
            let mut lookup = Lookup::new(&cache);
            for name in there.iter().chain(there.iter().rev()) {
                let found = lookup.digest(name.as_bytes(), &stat(1, 1));
                assert_eq!(found, Some(digest(name)), "{name}");
            }
            for name in ["", "d", "a/b", "z"] {
                assert_eq!(lookup.digest(name.as_bytes(), &stat(1, 1)), None, "{name}");
            }
        }
        let manifest = |names: &[&str]| {
            let entry = |name: &&str| ManifestEntry {
                path: path(name),
                entry: patchwire_protocol::manifest::Entry::File {
                    mode: patchwire_protocol::manifest::Mode::from_bits(0o644),
                    len: 3,
                    digest: digest(name),
                },
            };
            Manifest::from_unsorted(names.iter().map(entry).collect()).unwrap()
        };
        cache.retain(&manifest(&["a-b", "b", "c", "e", "f", "g"]));
        assert_eq!((cache.len(), cache.unsorted()), (5, 0));
        assert!(cache.take_changed());
        cache.retain(&manifest(&["a-b", "b", "c", "f", "g", "h"]));
        assert!(!cache.take_changed(), "nothing was forgotten");
        assert_eq!(cache.digest(&path("c"), &stat(1, 1)), Some(digest("c")));
        assert_eq!(cache.digest(&path("a"), &stat(1, 1)), None);
    }
}
