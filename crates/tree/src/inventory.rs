//! What really lies on the agent's disk.

mod mirror;
pub(crate) mod vigil;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use patchwire_delta::Digest;
use patchwire_protocol::{
    limits,
    manifest::{Entry, LinkTarget, Manifest, ManifestEntry, Mode},
    path::{RESERVED, RelativePath},
};

use self::vigil::Changed;
use crate::{
    confine::{Context, Dir, Kind, PathError, Stat, Walker, no_such_place},
    content,
    index::{Lookup, StatCache},
    stage::Staged,
    store::{Store, StoreError},
    time::Time,
};

/// What lies on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// What stands at managed paths; all there is, if nothing was ever committed.
    pub manifest: Arc<Manifest>,
    /// Managed paths at which something else or nothing stands.
    pub drift: Vec<RelativePath>,
}

impl Store {
    /// Looks at every managed path; where nothing was ever committed, at all that lies in the root
    /// (without the state and `.git`, as far as it is readable, up to [`limits::ENTRIES`]).
    ///
    /// Only files that changed since the last time are read. All processors look.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if a managed path can't be looked at.
    pub fn inventory(&mut self) -> Result<Inventory, StoreError> {
        self.check_whole()?;
        if self.record.is_none() {
            return Ok(self.inventory_of_everything());
        }
        self.look_at_managed()?;
        let differing = self.vigil.differing();
        let manifest = match differing.is_empty() {
            true => Arc::clone(&self.managed),
            // Below what is no directory any more nothing was found, so this stays a tree.
            false => Arc::new(self.managed.with_changes(differing).unwrap_or_default()),
        };
        let drift = differing.keys().cloned().collect();
        Ok(Inventory { manifest, drift })
    }

    /// The managed paths at which something else or nothing stands, but for those that a staged push
    /// touches, which its commit looks at.
    ///
    /// # Errors
    ///
    /// As [`Self::inventory`].
    pub fn drift_beside(&mut self, staged: &Staged) -> Result<Vec<RelativePath>, StoreError> {
        self.check_whole()?;
        self.look_at_managed()?;
        let mut drift = self.vigil.differing().clone();
        if !drift.is_empty() {
            for touched in staged.paths() {
                drift.remove(touched);
            }
        }
        Ok(drift.into_keys().collect())
    }

    /// Watches the managed directories, so that the next look at them is one at what changed. It takes
    /// an inotify watch for each; where that can't be, or others may write to the file system, each look
    /// is one at everything. Does nothing before the first commit.
    ///
    /// Blocks for about as long as a look at everything, if directories were committed: for the time
    /// after a push.
    pub fn watch(&mut self) {
        if self.record.is_none() || self.half_made || !self.root.is_local() {
            return;
        }
        for _ in 0..WATCH_ROUNDS {
            let Some(new) = self.vigil.watch(&self.managed) else {
                return;
            };
            let changed = self.vigil.take_changed().map(|changed| changed.and(new));
            if let Err(error) = self.look(changed) {
                tracing::debug!("{error}: {}", error.source);
                return;
            }
        }
    }

    /// Finds out what stands at the managed paths at which not what was committed stands.
    fn look_at_managed(&mut self) -> Result<(), PathError> {
        let changed = self.vigil.take_changed();
        let was_partial = changed.is_some();
        self.look(changed)?;
        // With a directory goes all that it holds.
        if was_partial && !self.vigil.is_complete() {
            self.look(None)?;
        }
        Ok(())
    }

    /// Looks at the managed paths in the directories that changed, or at all.
    fn look(&mut self, changed: Option<Changed>) -> Result<(), PathError> {
        let some = changed.map(|changed| (changed.entries(&self.managed), changed));
        let entries = match &some {
            Some((entries, _)) => entries,
            None => self.managed.entries(),
        };
        let look = Look {
            root: &self.root,
            index: &self.index,
            chunks: entries.chunks(CHUNK).collect(),
            next: AtomicUsize::new(0),
        };
        let mut differing = Vec::new();
        // What is written by another name is heard of there alone.
        let mut has_links = match &some {
            Some((_, changed)) => changed.has_links(&self.root),
            None => false,
        };
        for seen in look.on_all_processors()? {
            has_links |= seen.has_links;
            differing.extend(seen.differing);
            self.remember(seen.read);
        }
        let looked_at = some
            .as_ref()
            .map(|(entries, changed)| (changed, &entries[..]));
        self.vigil
            .saw(looked_at, differing, has_links, &self.managed);
        self.save_index(None);
        Ok(())
    }

    fn inventory_of_everything(&mut self) -> Inventory {
        let mut entries = Vec::new();
        let state = (self.state_stat.device, self.state_stat.inode);
        let mut observer = Observer::new(&self.index);
        everything(&self.root, None, state, &mut observer, &mut entries);
        let read = observer.read;
        self.remember(read);
        // Found by a walk, so always a tree; were it not, nothing would be known to be there.
        let manifest = Arc::new(Manifest::from_unsorted(entries).unwrap_or_default());
        self.save_index(Some(&manifest));
        Inventory {
            manifest,
            drift: Vec::new(),
        }
    }

    fn remember(&mut self, read: Vec<Read>) {
        for Read {
            path,
            stat,
            digest,
            looked,
        } in read
        {
            self.index.record(&path, &stat, digest, looked);
        }
    }

    /// Whether there is nothing here yet: nothing was ever committed, and no file lies anywhere in
    /// the root, the state and `.git` aside. Links count for nothing, wherever they lead, and neither
    /// does what can't be read.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.record.is_none() && !has_file(&self.root, limits::DEPTH)
    }
}

/// How many entries are looked at before the next are taken: enough that a directory is seldom
/// opened twice.
const CHUNK: usize = 2048;

/// How many threads look at most: more wait for the system's own locks.
const THREADS: usize = 8;

/// How often to look again because directories were not watched before. If they go on to appear,
/// the next push looks at everything.
const WATCH_ROUNDS: u32 = 3;

/// What stands at a path.
type Standing = (RelativePath, Option<Entry>);

/// Entries of one tree that are looked at where they are to stand.
struct Look<'a> {
    root: &'a Dir,
    index: &'a StatCache,
    chunks: Vec<&'a [ManifestEntry]>,
    next: AtomicUsize,
}

/// What one thread saw.
#[derive(Default)]
struct Seen {
    differing: Vec<Standing>,
    read: Vec<Read>,
    /// Whether a file has another name somewhere.
    has_links: bool,
}

impl Look<'_> {
    fn on_all_processors(&self) -> Result<Vec<Seen>, PathError> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(THREADS).min(self.chunks.len());
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| self.work())).collect();
            let mut seen = vec![self.work()?];
            for other in others {
                match other.join() {
                    Ok(more) => seen.push(more?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(seen)
        })
    }

    fn work(&self) -> Result<Seen, PathError> {
        let mut walker = Walker::new(self.root);
        let mut observer = Observer::new(self.index);
        let mut differing = Vec::new();
        while let Some(entries) = self.chunks.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            for ManifestEntry { path, entry } in *entries {
                let there = observer
                    .observe_at(&mut walker, path)
                    .context("look at", path.as_bytes())?;
                if there.as_ref() != Some(entry) {
                    differing.push((path.clone(), there));
                }
            }
        }
        Ok(Seen {
            differing,
            read: observer.read,
            has_links: observer.has_links,
        })
    }
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
    known: Lookup<'a>,
    /// The files that had to be read.
    pub(crate) read: Vec<Read>,
    /// Whether a file that was observed has another name somewhere.
    has_links: bool,
}

/// A file that was read.
#[derive(Debug)]
pub(crate) struct Read {
    path: RelativePath,
    stat: Stat,
    digest: Digest,
    /// From when on it was.
    looked: Time,
}

impl<'a> Observer<'a> {
    pub(crate) const fn new(cache: &'a StatCache) -> Self {
        Self {
            known: Lookup::new(cache),
            read: Vec::new(),
            has_links: false,
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
                self.has_links |= stat.has_other_names;
                if let Some(digest) = self.known.digest(path.as_bytes(), stat) {
                    let len = stat.len;
                    return Ok(Some(Entry::File { mode, len, digest }));
                }
                let looked = Time::now();
                // One that the app is writing to all the time counts as one that can't be known.
                let read = content::stable_digest(|| dir.open_file(path.name()))?;
                read.map(|(stat, digest)| {
                    self.read.push(Read {
                        path: path.clone(),
                        stat,
                        digest,
                        looked,
                    });
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
