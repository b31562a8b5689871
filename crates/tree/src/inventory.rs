//! What really lies on the agent's disk.

use std::io;

use patchwire_protocol::{
    limits,
    manifest::{Entry, LinkTarget, Manifest, ManifestEntry, Mode},
    path::{RESERVED, RelativePath},
};

use crate::{
    confine::{Context, Dir, Kind, PathError, Stat, Walker, no_such_place},
    content,
    index::StatCache,
    store::{Store, StoreError},
    time::Time,
};

/// What lies on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// What stands at managed paths; all there is, if nothing was ever committed.
    pub manifest: Manifest,
    /// Managed paths at which something else or nothing stands.
    pub drift: Vec<RelativePath>,
}

impl Store {
    /// Looks at every managed path; where nothing was ever committed, at all that lies in the root
    /// (without the state and `.git`, as far as it is readable, up to [`limits::ENTRIES`]).
    ///
    /// Only files that changed since the last time are read.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if a managed path can't be looked at.
    pub fn inventory(&mut self) -> Result<Inventory, StoreError> {
        self.check_whole()?;
        let mut observer = Observer::new(&mut self.index);
        let inventory = match &self.record {
            Some(_) => managed(&self.root, &self.managed, &mut observer)?,
            None => {
                let mut entries = Vec::new();
                let state = (self.state_stat.device, self.state_stat.inode);
                everything(&self.root, None, state, &mut observer, &mut entries);
                // Found by a walk, so always a tree; were it not, nothing would be known to be there.
                let manifest = Manifest::from_unsorted(entries).unwrap_or_default();
                Inventory {
                    manifest,
                    drift: Vec::new(),
                }
            }
        };
        let known = match &self.record {
            Some(_) => &self.managed,
            None => &inventory.manifest,
        };
        self.index.retain(known);
        self.save_index();
        Ok(inventory)
    }

    /// Whether there is nothing here yet: nothing was ever committed, and no file lies anywhere in
    /// the root, the state and `.git` aside. Links count for nothing, wherever they lead, and neither
    /// does what can't be read.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.record.is_none() && !has_file(&self.root, limits::DEPTH)
    }
}

fn managed(
    root: &Dir,
    manifest: &Manifest,
    observer: &mut Observer<'_>,
) -> Result<Inventory, PathError> {
    let mut walker = Walker::new(root);
    let mut inventory = Inventory::default();
    let mut entries = Vec::with_capacity(manifest.len());
    for ManifestEntry { path, entry } in manifest.entries() {
        let there = observer
            .observe_at(&mut walker, path)
            .context("look at", path.as_bytes())?;
        if there.as_ref() != Some(entry) {
            inventory.drift.push(path.clone());
        }
        // Something below what is no directory any more wasn't found, so this stays a tree.
        entries.extend(there.map(|entry| ManifestEntry {
            path: path.clone(),
            entry,
        }));
    }
    inventory.manifest = Manifest::from_sorted(entries).unwrap_or_default();
    Ok(inventory)
}

/// Finds all there is; what can't be read isn't there, since nobody said that it has to be.
fn everything(
    dir: &Dir,
    at: Option<&RelativePath>,
    state: (u64, u64),
    observer: &mut Observer<'_>,
    entries: &mut Vec<ManifestEntry>,
) {
    let mut names = dir.list().unwrap_or_default();
    names.sort_unstable();
    for name in names {
        if name == b".git" || (at.is_none() && name == RESERVED) {
            continue;
        }
        let path = match at {
            Some(at) => at.join(&name),
            None => RelativePath::new(&name),
        };
        let (Ok(path), Ok(stat)) = (path, dir.stat(&name)) else {
            continue;
        };
        if (stat.device, stat.inode) == state {
            continue;
        }
        let Ok(Some(entry)) = observer.observe(dir, &path, &stat) else {
            continue;
        };
        if entries.len() as u64 >= limits::ENTRIES {
            return;
        }
        let inner = entry.is_directory().then(|| dir.open_dir(&name));
        entries.push(ManifestEntry {
            path: path.clone(),
            entry,
        });
        if let Some(Ok(inner)) = inner {
            everything(&inner, Some(&path), state, observer, entries);
        }
    }
}

/// Whether a file lies in a directory, or at most `depth` levels below.
fn has_file(dir: &Dir, depth: usize) -> bool {
    let is_root = depth == limits::DEPTH;
    let mut names = dir.list().unwrap_or_default().into_iter();
    names.any(|name| {
        if name == b".git" || (is_root && name == RESERVED) {
            return false;
        }
        match dir.stat(&name) {
            Ok(stat) => match stat.kind {
                Kind::File => true,
                Kind::Directory if depth > 0 => dir
                    .open_dir(&name)
                    .is_ok_and(|inner| has_file(&inner, depth - 1)),
                Kind::Directory | Kind::Symlink | Kind::Special => false,
            },
            Err(_) => false,
        }
    })
}

/// Turns what stands at paths into entries, with the help of a stat cache.
#[derive(Debug)]
pub(crate) struct Observer<'a> {
    cache: &'a mut StatCache,
    started: Time,
}

impl<'a> Observer<'a> {
    pub(crate) fn new(cache: &'a mut StatCache) -> Self {
        Self {
            cache,
            started: Time::now(),
        }
    }

    /// What stands at `path`; `None` for nothing, and for what no manifest can hold.
    pub(crate) fn observe_at(
        &mut self,
        walker: &mut Walker<'_>,
        path: &RelativePath,
    ) -> io::Result<Option<Entry>> {
        let Some(stat) = find(walker, path)? else {
            return Ok(None);
        };
        self.observe(walker.parent_of(path)?, path, &stat)
    }

    /// As [`Self::observe_at`], for what has this status in the directory `dir`.
    pub(crate) fn observe(
        &mut self,
        dir: &Dir,
        path: &RelativePath,
        stat: &Stat,
    ) -> io::Result<Option<Entry>> {
        let mode = Mode::from_bits(stat.mode);
        Ok(match stat.kind {
            Kind::Special => None,
            Kind::Directory => Some(Entry::Directory { mode }),
            Kind::Symlink => LinkTarget::new(dir.read_link(path.name())?)
                .ok()
                .map(|target| Entry::Symlink { target }),
            Kind::File => {
                if let Some(digest) = self.cache.digest(path, stat) {
                    let len = stat.len;
                    return Ok(Some(Entry::File { mode, len, digest }));
                }
                // One that the app is writing to all the time counts as one that can't be known.
                let read = content::stable_digest(|| dir.open_file(path.name()))?;
                read.map(|(stat, digest)| {
                    self.cache.record(path, &stat, digest, self.started);
                    Entry::File {
                        mode: Mode::from_bits(stat.mode),
                        len: stat.len,
                        digest,
                    }
                })
            }
        })
    }
}

/// The status of what stands at `path`, also where a directory on the way is missing or none.
pub(crate) fn find(walker: &mut Walker<'_>, path: &RelativePath) -> io::Result<Option<Stat>> {
    match walker.parent_of(path).and_then(|dir| dir.find(path.name())) {
        Err(error) if no_such_place(&error) => Ok(None),
        result => result,
    }
}
