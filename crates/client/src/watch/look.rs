//! One look at the directory: a scan, and watches on what it looked into.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use patchwire_tree::{
    EventsError, LiveTree, Scan, ScanError, ScanOptions, ScanProgress, StatCache, Watches,
};

use crate::memory::Memory;

/// How often to scan again because there were directories that nobody had watched yet. If they go
/// on to appear, their events come.
const ROUNDS: u32 = 5;

/// After changes in how many directories the stat cache is kept: each time costs as much as a scan.
const SAVED: usize = 64;

/// What a look needs, and gives back.
#[derive(Debug)]
pub(crate) struct Look {
    root: PathBuf,
    memory: Arc<Memory>,
    /// Kept from look to look, so that it is read from the disk once.
    cache: Option<StatCache>,
    tree: LiveTree,
    /// Whether all is to be looked at, whatever was heard.
    is_doubted: bool,
    /// `None` where saves can't be heard of.
    pub(crate) watches: Option<Watches>,
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(super) outcome: Outcome,
    /// How long one scan took.
    pub(super) took: Duration,
    /// How long all of it took: the scans and the watches.
    pub(super) spent: Duration,
    /// Why the directory can't be watched any more.
    pub(crate) deaf: Option<EventsError>,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    /// Git was at work, and was to be heeded.
    Busy,
    Found {
        scan: Scan,
        started: Instant,
        git_at_work: bool,
    },
    Failed(ScanError),
}

impl Look {
    pub(crate) fn new(root: &Path, options: &ScanOptions, memory: &Arc<Memory>) -> Self {
        Self {
            root: root.to_owned(),
            memory: Arc::clone(memory),
            cache: None,
            tree: LiveTree::new(root, options),
            is_doubted: false,
            watches: None,
        }
    }

    /// In which directories something happened since this was asked last, if that is known.
    fn changed(&mut self) -> Option<BTreeSet<PathBuf>> {
        let heard = self.heard();
        heard.filter(|_| !std::mem::take(&mut self.is_doubted))
    }

    fn heard(&mut self) -> Option<BTreeSet<PathBuf>> {
        self.watches.as_mut().and_then(Watches::take_changed)
    }

    /// Has the next scan look at all there is: a file was not what the last one found. It may have been
    /// written to in a way that nobody hears of.
    pub(crate) const fn doubt(&mut self) {
        self.is_doubted = true;
    }

    /// Scans what changed, or all, and keeps the stat cache if that was all.
    fn scan(
        &mut self,
        changed: Option<&BTreeSet<PathBuf>>,
        progress: &(dyn Fn(ScanProgress) + Sync),
    ) -> Result<Scan, ScanError> {
        let cache = match &mut self.cache {
            Some(cache) => cache,
            // Both are large where the tree is.
            none => none.insert(thread::scope(|scope| {
                let loading = scope.spawn(|| StatCache::load(&self.memory.stat_cache()));
                self.tree.read_rules();
                let loaded = loading.join();
                loaded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })),
        };
        let scan = self.tree.scan(cache, changed, progress)?;
        // What few saves changed is read again by the next process.
        if changed.is_none_or(|changed| changed.len() > SAVED) && cache.take_changed() {
            self.memory.keep(cache);
        }
        Ok(scan)
    }

    /// Scans once: what changed, if that is known. For whoever has no time to watch anything new.
    pub(crate) fn once(
        &mut self,
        progress: &(dyn Fn(ScanProgress) + Sync),
    ) -> Result<Scan, ScanError> {
        let changed = self.changed();
        let scan = self.scan(changed.as_ref(), progress)?;
        // In what isn't watched yet, nothing is heard.
        let watches = self.watches.as_ref();
        self.is_doubted |= watches.is_some_and(|watches| !watches.are_of(&scan.directories));
        Ok(scan)
    }

    /// Scans, and watches what was looked into. What appeared in a directory before that was watched
    /// is found by another scan, so that nothing is lost between the two.
    pub(crate) fn look(
        &mut self,
        heed_git: bool,
        progress: &(dyn Fn(ScanProgress) + Sync),
    ) -> Seen {
        let mut seen = Seen {
            outcome: Outcome::Busy,
            took: Duration::ZERO,
            spent: Duration::ZERO,
            deaf: None,
        };
        if heed_git && patchwire_tree::is_git_at_work(&self.root) {
            return seen;
        }
        let started = Instant::now();
        let mut scan = None;
        let mut changed = self.changed();
        // Until all of it is watched.
        self.is_doubted = true;
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let scanned = self.scan(changed.as_ref(), progress);
            seen.took = begun.elapsed();
            let scanned = match scanned {
                Ok(scanned) => scan.insert(scanned),
                Err(error) => {
                    seen.outcome = Outcome::Failed(error);
                    seen.spent = started.elapsed();
                    return seen;
                }
            };
            let Some(watches) = &mut self.watches else {
                break;
            };
            match watches.watch(&scanned.directories) {
                Ok(new) if new.is_empty() => {
                    self.is_doubted = false;
                    break;
                }
                Ok(new) => {
                    changed = self.heard();
                    if let Some(changed) = &mut changed {
                        changed.extend(new);
                    }
                }
                Err(error) => {
                    seen.deaf = Some(error);
                    // Others may need them.
                    self.watches = None;
                    break;
                }
            }
        }
        seen.spent = started.elapsed();
        // It may have begun in the meantime: half of what it does is not to be pushed.
        let git_at_work = patchwire_tree::is_git_at_work(&self.root);
        if let Some(scan) = scan.filter(|_| !(heed_git && git_at_work)) {
            seen.outcome = Outcome::Found {
                scan,
                started,
                git_at_work,
            };
        }
        seen
    }
}

/// Which directory stands at a path: its device and inode.
pub(super) type Identity = (u64, u64);

/// Looks which directory stands at `root`.
pub(super) fn identity(root: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(root)?;
    match metadata.is_dir() {
        true => Ok((metadata.dev(), metadata.ino())),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

#[cfg(test)]
mod tests {
    use patchwire_tree::listen;

    use super::*;

    /// Without the excludes of whoever runs the tests.
    fn options() -> ScanOptions {
        ScanOptions {
            excludes_file: None,
            ..ScanOptions::default()
        }
    }

    fn scan(root: &Path) -> Scan {
        patchwire_tree::scan(root, &options(), &mut StatCache::default(), &|_| ()).unwrap()
    }

    fn found(look: &mut Look) -> Scan {
        match look.look(false, &|_| ()).outcome {
            Outcome::Found { scan, .. } => scan,
            outcome => panic!("{outcome:?}"),
        }
    }

    #[test]
    fn all_that_was_saved_before_a_look_is_seen() {
        let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = root.path();
        let path = |name: String| root.join(name);
        fs::write(path(".gitignore".to_owned()), "*.log\n").unwrap();
        let memory = Arc::new(Memory::new(state.path().to_owned()));
        let mut look = Look::new(root, &options(), &memory);
        look.watches = Some(listen(root, state.path()).1);
        for round in 0..60 {
            let (now, before) = (round % 7, (round + 4) % 7);
            match round % 10 {
                0 => fs::create_dir_all(path(format!("{now}/inner"))).unwrap(),
                4 => drop(fs::remove_dir_all(path(format!("{before}")))),
                6 => drop(fs::rename(
                    path(format!("{before}")),
                    path(format!("{before}x")),
                )),
                8 => fs::write(path(".gitignore".to_owned()), format!("*{now}.txt")).unwrap(),
                _ => fs::create_dir_all(path(format!("{now}"))).unwrap(),
            }
            fs::write(path(format!("{round}.txt")), "new").unwrap();
            if path(format!("{now}")).exists() {
                fs::write(path(format!("{now}/file.txt")), round.to_string()).unwrap();
            }
            let (seen, there) = (found(&mut look), scan(root));
            assert_eq!(seen.manifest, there.manifest, "round {round}");
            assert_eq!(seen.directories, there.directories, "round {round}");
        }
    }

    #[test]
    fn what_nobody_hears_of_is_found_once_it_is_doubted() {
        let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = root.path();
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("sub/file"), "before").unwrap();
        let memory = Arc::new(Memory::new(state.path().to_owned()));
        let mut look = Look::new(root, &options(), &memory);
        look.watches = Some(listen(root, state.path()).1);
        let before = found(&mut look);
        assert_eq!(found(&mut look).manifest, before.manifest);
        fs::write(root.join("sub/file"), "after").unwrap();
        // As if it had been written through a mapping.
        look.changed();
        assert_eq!(found(&mut look).manifest, before.manifest);
        look.doubt();
        assert_eq!(found(&mut look).manifest, scan(root).manifest);
    }
}
