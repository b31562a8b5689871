//! The developer's side: what a directory holds that is to be pushed.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
};

use patchwire_delta::Digest;
use patchwire_protocol::{
    limits,
    manifest::{Entry, LinkTarget, LinkTargetError, Manifest, ManifestEntry, ManifestError, Mode},
    path::{self, RelativePath},
};

use crate::{
    confine::{Context, Dir, Kind, PathError, Stat, no_such_place},
    content,
    index::StatCache,
    rules::{self, Rules, RulesError, Visit},
    time::Time,
};

/// How often a scan that a change cut short is begun again.
const ATTEMPTS: usize = 5;

/// How much of what is ignored is listed.
const IGNORED: usize = 1 << 16;

/// What to push, beyond what git's rules say.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// Patterns, in the syntax of `.gitignore`, of ignored files to push all the same.
    pub include: Vec<String>,
    /// Patterns, in the syntax of `.gitignore`, of files not to push, tracked or not.
    pub ignore: Vec<String>,
    /// Which symbolic links may be pushed.
    pub symlinks: SymlinkPolicy,
    /// The user's own excludes. Default: where git looks for them, by its global configuration.
    pub excludes_file: Option<PathBuf>,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            ignore: Vec::new(),
            symlinks: SymlinkPolicy::default(),
            excludes_file: rules::global_excludes_file(),
        }
    }
}

/// Which symbolic links may be pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SymlinkPolicy {
    /// Those that stay inside the root; another is an error.
    #[default]
    Inside,
    /// All of them.
    Any,
}

/// A directory as it was seen.
#[derive(Clone, Debug)]
pub struct Scan {
    /// What is to be pushed.
    pub manifest: Manifest,
    /// Fifos, sockets and devices, which are not pushed.
    pub skipped: Vec<RelativePath>,
    /// What the rules leave out of the directories that were looked into, at most 65 536 entries,
    /// and nothing of what those hold. Names that can't be pushed are left out.
    pub ignored: Vec<RelativePath>,
    /// How many files were read because the cache didn't know them.
    pub files_read: u64,
    /// The directories that were looked into, relative to the root, which is the first and empty;
    /// each comes after those that it is in. What is ignored as a whole isn't among them. All that
    /// changes what is to be pushed happens in them, but for what git keeps elsewhere: its index
    /// (`git add -f` of an ignored file), `.git/info/exclude`, the user's own ignore file, and
    /// ignore files above the root. The next scan heeds those.
    pub directories: Vec<PathBuf>,
}

/// How far a scan is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanProgress {
    /// Entries found so far.
    pub entries: u64,
    /// Files that have to be read; known once all entries are found.
    pub files_to_read: u64,
    /// Files read so far.
    pub files_read: u64,
}

/// Why a directory can't be scanned. Nothing that can't be read is taken for deleted.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The root can't be opened, or isn't a directory.
    #[error("the root is not a directory that can be read")]
    Root(#[source] PathError),
    /// What the rules are can't be known.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// Something can't be read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A name can't be pushed.
    #[error(transparent)]
    Name(#[from] path::PathError),
    /// A link points out of the root.
    #[error(
        "{path:?} is a symbolic link to {target:?}, outside the root: ignore it, or set symlinks = \"any\""
    )]
    LinkLeavesRoot {
        /// The link.
        path: RelativePath,
        /// Where it points.
        target: LinkTarget,
    },
    /// A link's target can't be pushed.
    #[error("{path:?} can't be pushed")]
    LinkTarget {
        /// The link.
        path: RelativePath,
        /// What is wrong with its target.
        #[source]
        source: LinkTargetError,
    },
    /// Something kept changing while it was read.
    #[error("“{path}” keeps changing while it is read: ignore it, or try again when it is quiet")]
    Unsettled {
        /// What changed, escaped.
        path: String,
    },
    /// More than a tree may hold.
    #[error(
        "{entries} entries or more, the most is {}: is this the root of the app?",
        limits::ENTRIES
    )]
    TooMany {
        /// How many were found.
        entries: u64,
    },
    /// The entries are no tree.
    #[error("the entries found are not a tree")]
    Manifest(#[from] ManifestError),
}

/// Finds what is to be pushed below `root`: what `git ls-files -co --exclude-standard` lists there
/// and is there, with [`ScanOptions::include`], without [`ScanOptions::ignore`] and what
/// `.patchwireignore` files say. Empty directories that nothing ignores are part of the tree.
///
/// Nested repositories and submodules are plain directories. A root that its repository ignores is
/// scanned all the same: it was asked for. Outside a repository the same ignore files hold.
///
/// Only files that `cache` doesn't know are read, on all processors; `progress` is called from
/// several threads.
///
/// # Errors
///
/// [`ScanError`] names what can't be read or pushed.
pub fn scan(
    root: &Path,
    options: &ScanOptions,
    cache: &mut StatCache,
    progress: &(dyn Fn(ScanProgress) + Sync),
) -> Result<Scan, ScanError> {
    let name = root.as_os_str().as_bytes();
    let dir = Dir::open_root(root)
        .context("open", name)
        .map_err(ScanError::Root)?;
    let mut changed = None;
    for _ in 0..ATTEMPTS {
        let started = Time::now();
        let mut walk = Walk {
            rules: Rules::new(
                root,
                &options.include,
                &options.ignore,
                options.excludes_file.as_deref(),
            )?,
            symlinks: options.symlinks,
            progress,
            found: Vec::new(),
            path_bytes: 0,
            skipped: Vec::new(),
            ignored: Vec::new(),
            directories: Vec::new(),
        };
        walk.directory(&dir, &[], Visit::Normal)?;
        match read_unknown(&dir, walk.found, cache, started, progress)? {
            Outcome::Complete {
                entries,
                files_read,
            } => {
                let manifest = Manifest::from_unsorted(entries)?;
                cache.retain(|path| manifest.get(path).is_some());
                return Ok(Scan {
                    manifest,
                    skipped: walk.skipped,
                    ignored: walk.ignored,
                    files_read,
                    directories: walk.directories,
                });
            }
            Outcome::Changed(path) => changed = Some(path),
        }
    }
    Err(ScanError::Unsettled {
        path: changed.map(|path| path.to_string()).unwrap_or_default(),
    })
}

/// Opens a file of a scanned root for reading, following no link below it.
///
/// # Errors
///
/// [`PathError`] if it is gone, not a regular file, or can't be read.
pub fn open_file(root: &Path, path: &RelativePath) -> Result<File, PathError> {
    Dir::open_root(root)
        .and_then(|root| root.walk_to_parent(path)?.open_file(path.name()))
        .context("open", path.as_bytes())
}

/// What the walk found at a path.
#[derive(Debug)]
enum Found {
    File(Stat),
    Other(Entry),
}

struct Walk<'a> {
    rules: Rules,
    symlinks: SymlinkPolicy,
    progress: &'a (dyn Fn(ScanProgress) + Sync),
    found: Vec<(RelativePath, Found)>,
    path_bytes: u64,
    skipped: Vec<RelativePath>,
    ignored: Vec<RelativePath>,
    directories: Vec<PathBuf>,
}

impl Walk<'_> {
    /// Visits what the directory `path` holds. Tells whether the directory belongs to the tree.
    ///
    /// Recursion is bounded: deeper than [`limits::DEPTH`] is no [`RelativePath`].
    fn directory(&mut self, dir: &Dir, path: &[u8], visit: Visit) -> Result<bool, ScanError> {
        self.rules.enter(path, dir).map_err(RulesError::File)?;
        self.directories.push(OsStr::from_bytes(path).into());
        let found_before = self.found.len();
        let mut empty = true;
        for name in dir.list().context("list", path)? {
            if rules::is_never_pushed(path, &name) {
                continue;
            }
            empty = false;
            self.entry(dir, path, &name, visit)?;
        }
        self.rules.leave();
        Ok(self.found.len() > found_before || (empty && visit != Visit::Selected))
    }

    fn entry(&mut self, dir: &Dir, at: &[u8], name: &[u8], visit: Visit) -> Result<(), ScanError> {
        let path = match at {
            b"" => name.to_vec(),
            _ => [at, b"/", name].concat(),
        };
        // What vanished after it was listed isn't there.
        let Some(stat) = dir.find(name).context("read the status of", &path)? else {
            return Ok(());
        };
        let is_dir = stat.kind == Kind::Directory;
        let relative = || RelativePath::new(path.clone());
        let Some(visit) = self.rules.judge(&path, is_dir, visit) else {
            if self.ignored.len() < IGNORED {
                self.ignored.extend(relative());
            }
            return Ok(());
        };
        match stat.kind {
            Kind::Directory => {
                let inner = match dir.open_dir(name) {
                    Err(error) if no_such_place(&error) => return Ok(()),
                    result => result.context("open", &path)?,
                };
                // Another bad name matters only if something with it belongs to the tree; this one
                // bounds the recursion.
                if let Err(error @ path::PathError::TooLong { .. }) = relative() {
                    return Err(error.into());
                }
                if self.directory(&inner, &path, visit)? {
                    let mode = Mode::from_bits(stat.mode);
                    self.add(relative()?, Found::Other(Entry::Directory { mode }))?;
                }
            }
            Kind::File => self.add(relative()?, Found::File(stat))?,
            Kind::Symlink => {
                let target = match dir.read_link(name) {
                    Err(error) if no_such_place(&error) => return Ok(()),
                    result => result.context("read the link", &path)?,
                };
                let path = relative()?;
                let target = self.link(&path, target)?;
                self.add(path, Found::Other(Entry::Symlink { target }))?;
            }
            Kind::Special => self.skipped.push(relative()?),
        }
        Ok(())
    }

    fn link(&self, path: &RelativePath, target: Vec<u8>) -> Result<LinkTarget, ScanError> {
        let target = LinkTarget::new(target).map_err(|source| ScanError::LinkTarget {
            path: path.clone(),
            source,
        })?;
        match self.symlinks {
            SymlinkPolicy::Inside if target.leaves_root(path) => Err(ScanError::LinkLeavesRoot {
                path: path.clone(),
                target,
            }),
            SymlinkPolicy::Inside | SymlinkPolicy::Any => Ok(target),
        }
    }

    fn add(&mut self, path: RelativePath, found: Found) -> Result<(), ScanError> {
        self.path_bytes += path.as_bytes().len() as u64;
        self.found.push((path, found));
        let entries = self.found.len() as u64;
        if entries > limits::ENTRIES || self.path_bytes > limits::PATH_BYTES {
            return Err(ScanError::TooMany { entries });
        }
        if entries.is_multiple_of(1024) {
            (self.progress)(ScanProgress {
                entries,
                ..ScanProgress::default()
            });
        }
        Ok(())
    }
}

enum Outcome {
    Complete {
        entries: Vec<ManifestEntry>,
        files_read: u64,
    },
    /// Something changed in a way that makes what the walk found wrong.
    Changed(RelativePath),
}

/// Turns what was found into entries, reading the files that the cache doesn't know.
fn read_unknown(
    root: &Dir,
    found: Vec<(RelativePath, Found)>,
    cache: &mut StatCache,
    started: Time,
    progress: &(dyn Fn(ScanProgress) + Sync),
) -> Result<Outcome, ScanError> {
    let total = found.len() as u64;
    let mut entries = Vec::with_capacity(found.len());
    let mut unknown = Vec::new();
    for (path, found) in found {
        let entry = match found {
            Found::Other(entry) => entry,
            Found::File(stat) => match cache.digest(&path, &stat) {
                Some(digest) => file_entry(&stat, digest),
                None => {
                    unknown.push(path);
                    continue;
                }
            },
        };
        entries.push(ManifestEntry { path, entry });
    }
    let files_to_read = unknown.len() as u64;
    let report = |files_read| {
        progress(ScanProgress {
            entries: total,
            files_to_read,
            files_read,
        });
    };
    report(0);
    for (path, read) in read_all(root, &unknown, &report) {
        match read {
            Ok(Some((stat, digest))) => {
                cache.record(&path, &stat, digest, started);
                let entry = file_entry(&stat, digest);
                entries.push(ManifestEntry { path, entry });
            }
            Ok(None) => return Ok(Outcome::Changed(path)),
            Err(error) if no_such_place(&error) || error.kind() == io::ErrorKind::InvalidInput => {
                return Ok(Outcome::Changed(path));
            }
            Err(error) => return Err(PathError::new("read", path.as_bytes(), error).into()),
        }
    }
    Ok(Outcome::Complete {
        entries,
        files_read: files_to_read,
    })
}

type ReadFile = (RelativePath, io::Result<Option<(Stat, Digest)>>);

/// Reads files on all processors; stops early once one can't be read.
fn read_all(root: &Dir, paths: &[RelativePath], report: &(dyn Fn(u64) + Sync)) -> Vec<ReadFile> {
    let (next, done, failed) = (
        AtomicUsize::new(0),
        AtomicU64::new(0),
        AtomicBool::new(false),
    );
    let work = || {
        let mut read = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            let open = || root.walk_to_parent(path)?.open_file(path.name());
            let result = content::stable_digest(open);
            if !matches!(result, Ok(Some(_))) {
                failed.store(true, Ordering::Relaxed);
            }
            read.push((path.clone(), result));
            report(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
        read
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(paths.len());
    if threads <= 1 {
        return work();
    }
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Vec<ReadFile>>| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect()
    })
}

fn file_entry(stat: &Stat, digest: Digest) -> Entry {
    Entry::File {
        mode: Mode::from_bits(stat.mode),
        len: stat.len,
        digest,
    }
}

#[cfg(test)]
mod tests;
