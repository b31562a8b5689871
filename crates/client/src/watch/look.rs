//! One look at the directory: a scan, and watches on what it looked into.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use patchwire_tree::{Scan, ScanError, ScanOptions, ScanProgress, StatCache};

use super::events::{EventsError, Watches};
use crate::memory::Memory;

/// How often to scan again because there were directories that nobody had watched yet. If they go
/// on to appear, their events come.
const ROUNDS: u32 = 5;

/// What a look needs, and gives back.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) root: PathBuf,
    pub(super) options: ScanOptions,
    pub(super) memory: Arc<Memory>,
    /// Kept from look to look, so that it isn't read from the disk each time.
    pub(super) cache: StatCache,
    /// `None` where saves can't be heard of.
    pub(super) watches: Option<Watches>,
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) outcome: Outcome,
    /// How long one scan took.
    pub(super) took: Duration,
    /// How long all of it took: the scans and the watches.
    pub(super) spent: Duration,
    /// Why the directory can't be watched any more.
    pub(super) deaf: Option<EventsError>,
}

#[derive(Debug)]
pub(super) enum Outcome {
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
    /// Scans, and watches what was looked into. What appeared in a directory before that was watched
    /// is found by another scan, so that nothing is lost between the two.
    pub(super) fn look(
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
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let scanned =
                patchwire_tree::scan(&self.root, &self.options, &mut self.cache, progress);
            seen.took = begun.elapsed();
            let scanned = match scanned {
                Ok(scanned) => scan.insert(scanned),
                Err(error) => {
                    seen.outcome = Outcome::Failed(error);
                    seen.spent = started.elapsed();
                    return seen;
                }
            };
            if scanned.files_read > 0 {
                self.memory.keep(&self.cache);
            }
            let Some(watches) = &mut self.watches else {
                break;
            };
            match watches.watch(&scanned.directories) {
                Ok(true) => {}
                Ok(false) => break,
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
