//! The developer's side: what a directory holds that is to be pushed.

use std::{
    collections::BTreeSet,
    fs::File,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use patchwire_delta::Digest;
use patchwire_protocol::{
    limits,
    manifest::{Entry, LinkTarget, LinkTargetError, Manifest, ManifestEntry, ManifestError, Mode},
    path::{self, RelativePath},
};

use crate::{
    confine::{Context, Dir, PathError, Stat},
    index::{StatCache, is_settled},
    rules::{self, Rules, RulesError},
    time::Time,
};

mod collisions;
mod read;
mod walk;

use read::Read;
use walk::{Nodes, Walk};

/// How often a scan that a change cut short is begun again.
const ATTEMPTS: usize = 5;

/// What part of the directories may be looked at again one by one: for more, all are walked, by all
/// processors.
const FEW: usize = 4;

/// Of so few directories all may be.
const ONE_BY_ONE: usize = 64;

/// How many paths a stat cache may learn of before a live tree has it sorted.
const UNSORTED: usize = 4096;

/// What to push, beyond what git's rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// Patterns, in the syntax of `.gitignore`, of ignored files to push all the same.
    pub include: Vec<String>,
    /// Patterns, in the syntax of `.gitignore`, of files not to push, tracked or not.
    pub ignore: Vec<String>,
    /// Which symbolic links may be pushed.
    pub symlinks: SymlinkPolicy,
    /// What is pushed of permissions.
    pub modes: ModePolicy,
    /// The user's own excludes. Default: where git looks for them, by its global configuration.
    pub excludes_file: Option<PathBuf>,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            ignore: Vec::new(),
            symlinks: SymlinkPolicy::default(),
            modes: ModePolicy::default(),
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

/// What is pushed of the permissions of files and directories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModePolicy {
    /// All permission bits.
    #[default]
    All,
    /// Whether the owner may execute a file: 0755 if so, and 0644 if not. 0755 for directories.
    Executable,
}

impl ModePolicy {
    fn file(self, stat: &Stat, digest: Digest) -> Entry {
        let mode = match self {
            Self::All => stat.mode,
            Self::Executable if stat.mode & 0o100 != 0 => 0o755,
            Self::Executable => 0o644,
        };
        Entry::File {
            mode: Mode::from_bits(mode),
            len: stat.len,
            digest,
        }
    }

    const fn directory(self, stat: &Stat) -> Mode {
        Mode::from_bits(match self {
            Self::All => stat.mode,
            Self::Executable => 0o755,
        })
    }
}

/// A directory as it was seen.
#[derive(Clone, Debug)]
pub struct Scan {
    /// What is to be pushed.
    pub manifest: Arc<Manifest>,
    /// Fifos, sockets and devices, which are not pushed.
    pub skipped: Vec<RelativePath>,
    /// What the rules leave out of the directories that were looked into, at most 65 536 entries,
    /// and nothing of what those hold. Names that can't be pushed are left out.
    pub ignored: Vec<RelativePath>,
    /// Pairs of names in one directory that are one and the same on a disk that doesn't tell upper from
    /// lower case, or that keeps Unicode in a normal form. Both are pushed as they are.
    pub collisions: Vec<(RelativePath, RelativePath)>,
    /// How many files were read because the cache didn't know them.
    pub files_read: u64,
    /// The directories that were looked into, relative to the root, which is the first and empty;
    /// each comes after those that it is in. What is ignored as a whole isn't among them. All that
    /// changes what is to be pushed happens in them, but for what git keeps elsewhere: its index
    /// (`git add -f` of an ignored file), `.git/info/exclude`, the user's own ignore file, and
    /// ignore files above the root. The next scan heeds those.
    pub directories: Arc<[PathBuf]>,
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
    /// Several things can't be read: a handful of them.
    #[error("cannot read {}", reasons(errors))]
    Unreadable {
        /// What, and why not; sorted by path.
        errors: Vec<PathError>,
    },
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

impl ScanError {
    /// Of all that went wrong, what is to be told.
    fn of_all(mut errors: Vec<(Arc<[u8]>, Self)>) -> Option<Self> {
        errors.sort_by(|(a, _), (b, _)| a.cmp(b));
        let unreadable = |(_, error)| match error {
            Self::Path(error) | Self::Rules(RulesError::File(error)) => Ok(error),
            error => Err(error),
        };
        match errors.len() {
            0 | 1 => errors.pop().map(|(_, error)| error),
            _ => match errors.into_iter().map(unreadable).collect() {
                Ok(errors) => Some(Self::Unreadable { errors }),
                Err(first) => Some(first),
            },
        }
    }

    fn of_unreadable(mut errors: Vec<PathError>) -> Self {
        match errors.len() {
            1 => Self::Path(errors.remove(0)),
            _ => Self::Unreadable { errors },
        }
    }
}

fn reasons(errors: &[PathError]) -> String {
    let reason = |error: &PathError| format!("“{}” ({})", error.path, error.source);
    errors.iter().map(reason).collect::<Vec<_>>().join(", ")
}

/// Finds what is to be pushed below `root`: what `git ls-files -co --exclude-standard` lists there
/// and is there, with [`ScanOptions::include`], without [`ScanOptions::ignore`] and what
/// `.patchwireignore` files say. Empty directories that nothing ignores are part of the tree.
///
/// Nested repositories and submodules are plain directories. A root that its repository ignores is
/// scanned all the same: it was asked for. Outside a repository the same ignore files hold.
///
/// Directories are listed, and files that `cache` doesn't know are read, on all processors;
/// `progress` is called from several threads. Takes about 600 bytes of memory per entry with the cache,
/// git's index and the manifest, at paths of 45 bytes; 900 where the cache knows nothing yet.
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
    LiveTree::new(root, options).scan(cache, None, progress)
}

/// A root that is scanned again and again, by somebody who hears of what happens in it.
#[derive(Debug)]
pub struct LiveTree {
    root: PathBuf,
    options: ScanOptions,
    /// Read ahead.
    rules: Option<Rules>,
    warm: Option<Warm>,
}

/// What the last scan found.
#[derive(Debug)]
struct Warm {
    dir: Arc<Dir>,
    identity: (u64, u64),
    rules: Rules,
    nodes: Nodes,
    started: Time,
    /// What they amount to.
    last: Scan,
}

impl LiveTree {
    /// A root that was never scanned.
    #[must_use]
    pub fn new(root: &Path, options: &ScanOptions) -> Self {
        Self {
            root: root.to_owned(),
            options: options.clone(),
            rules: None,
            warm: None,
        }
    }

    /// Reads what git tracks and ignores for a whole scan that follows at once, which else does it
    /// itself: for a caller that has something else to read meanwhile.
    pub fn read_rules(&mut self) {
        // What is wrong with them, the scan finds too.
        self.rules = self.new_rules().ok();
    }

    fn new_rules(&self) -> Result<Rules, RulesError> {
        Rules::new(
            &self.root,
            &self.options.include,
            &self.options.ignore,
            self.options.excludes_file.as_deref(),
        )
    }

    /// Scans the root, as [`scan()`] does.
    ///
    /// `changed` are the directories, relative to the root, in which anything may have happened since
    /// the last scan began; `None` if that isn't known. Then only these are looked at, and what is new
    /// in them, if that is sure to give what a whole scan would: not where a file of rules or what git
    /// tracks changed, where the root was replaced, on file systems that others may write to, or if
    /// something fails. Directories with hard links are always looked at.
    ///
    /// What is written through a memory mapping after the file was closed is seen by a whole scan
    /// only: the system tells nobody.
    ///
    /// # Errors
    ///
    /// As [`scan()`].
    pub fn scan(
        &mut self,
        cache: &mut StatCache,
        changed: Option<&BTreeSet<PathBuf>>,
        progress: &(dyn Fn(ScanProgress) + Sync),
    ) -> Result<Scan, ScanError> {
        let warm = self.warm.take();
        if let (Some(mut warm), Some(changed)) = (warm, changed)
            && let Some(scan) = self.update(&mut warm, cache, changed, progress)
        {
            self.warm = Some(warm);
            return Ok(scan);
        }
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.whole(cache, progress)? {
                Ok(scan) => return Ok(scan),
                Err(path) => last = Some(path),
            }
        }
        Err(ScanError::Unsettled {
            path: last.map(|path| path.to_string()).unwrap_or_default(),
        })
    }

    /// Scans all there is; gives the path of a file that changed meanwhile, if one did.
    fn whole(
        &mut self,
        cache: &mut StatCache,
        progress: &(dyn Fn(ScanProgress) + Sync),
    ) -> Result<Result<Scan, RelativePath>, ScanError> {
        let started = Time::now();
        let dir = Dir::open_root(&self.root)
            .context("open", self.root.as_os_str().as_bytes())
            .map_err(ScanError::Root)?;
        let dir = Arc::new(dir);
        let stat = dir.own_stat().context("open", b"");
        let identity = stat.map(|stat| (stat.device, stat.inode))?;
        let rules = match self.rules.take() {
            Some(rules) => rules,
            None => self.new_rules()?,
        };
        let walk = Walk::new(&rules, &self.options, cache, progress, 1);
        let (root, tasks) = walk.root(&dir)?;
        let others = walk.all(tasks)?;
        let mut nodes = Nodes::default();
        nodes.add(&walk, [(0, root)].into_iter().chain(others));
        let all: Vec<usize> = nodes.ids().collect();
        let files_read = match self.read(&dir, &mut nodes, &all, cache, started, progress)? {
            Ok(files_read) => files_read,
            Err(path) => return Ok(Err(path)),
        };
        let scan = nodes.assemble(files_read)?;
        let is_file = |entry: &&ManifestEntry| matches!(entry.entry, Entry::File { .. });
        let files = scan.manifest.entries().iter().filter(is_file).count();
        // If it knew each of as many files as it knows, there is nothing to forget.
        if files_read > 0 || cache.len() != files {
            cache.retain(&scan.manifest);
        }
        if dir.is_local() && nodes.are_on_device(identity.0) {
            self.warm = Some(Warm {
                dir,
                identity,
                rules,
                nodes,
                started,
                last: scan.clone(),
            });
        }
        Ok(Ok(scan))
    }

    /// Looks at what changed alone; `None` where that isn't sure to be enough.
    fn update(
        &self,
        warm: &mut Warm,
        cache: &mut StatCache,
        changed: &BTreeSet<PathBuf>,
        progress: &(dyn Fn(ScanProgress) + Sync),
    ) -> Option<Scan> {
        let started = Time::now();
        let root = Arc::new(Dir::open_root(&self.root).ok()?);
        let now = root.own_stat().ok()?;
        if (now.device, now.inode) != warm.identity
            || warm.nodes.is_sparse()
            || !warm.rules.are_current()
        {
            return None;
        }
        let nodes = &mut warm.nodes;
        let (mut listed, mut replaced) = (BTreeSet::new(), Vec::new());
        let walk = Walk::new(&warm.rules, &self.options, cache, progress, nodes.next_id());
        let mut tasks = Vec::new();
        let mut directories = nodes.with_hard_links();
        directories.extend(changed.iter().cloned());
        if directories.len() > ONE_BY_ONE.max(nodes.ids().count() / FEW) {
            return None;
        }
        // Each after those that it is in: what is in a new directory is found with that.
        for path in directories {
            let (id, dir) = nodes.find(&root, &path)?;
            if !listed.insert(id) {
                continue;
            }
            let before = nodes.get(id)?;
            let (node, inside) = walk.again(&dir, before, nodes).ok()?;
            let is_settled =
                |stat: &Option<Stat>| stat.is_none_or(|s| is_settled(&s, warm.started));
            // A file that has got another name has it in a directory where nothing seems to have happened.
            let is_linked = node.has_hard_links && !before.has_hard_links;
            let are_others = node.ignore_files != before.ignore_files;
            if is_linked || are_others || !node.ignore_files.iter().all(is_settled) {
                return None;
            }
            replaced.push((id, nodes.replace(id, node)?));
            tasks.extend(inside);
        }
        let found = walk.all(tasks).ok()?;
        if found.iter().any(|(_, node)| node.has_hard_links) {
            return None;
        }
        listed.extend(found.iter().map(|(id, _)| *id));
        nodes.add(&walk, found);
        if !nodes.are_on_device(warm.identity.0) {
            return None;
        }
        let listed: Vec<usize> = listed.into_iter().collect();
        let read = self.read(&warm.dir, nodes, &listed, cache, started, progress);
        let files_read = read.ok()?.ok()?;
        let scan = match nodes.edits(&replaced) {
            Some(edits) => {
                let mut scan = warm.last.clone();
                if !edits.is_empty() {
                    scan.manifest = Arc::new(scan.manifest.with_changes(&edits).ok()?);
                }
                Scan { files_read, ..scan }
            }
            None => nodes.assemble(files_read).ok()?,
        };
        warm.last.clone_from(&scan);
        if cache.unsorted() > UNSORTED {
            cache.retain(&scan.manifest);
        }
        Some(scan)
    }

    /// Reads the files of these directories that the cache doesn't know. Tells how many there were, or
    /// which of them makes what the walk found wrong.
    fn read(
        &self,
        dir: &Dir,
        nodes: &mut Nodes,
        ids: &[usize],
        cache: &mut StatCache,
        started: Time,
        progress: &(dyn Fn(ScanProgress) + Sync),
    ) -> Result<Result<u64, RelativePath>, ScanError> {
        let unread = nodes.unread(ids);
        let paths: Vec<&RelativePath> = unread.iter().filter_map(|at| nodes.path(*at)).collect();
        let (entries, files_to_read) = (nodes.entries(), unread.len() as u64);
        let report = |files_read| {
            progress(ScanProgress {
                entries,
                files_to_read,
                files_read,
            });
        };
        report(0);
        let mut files = match read::all(dir, &paths, &report) {
            Read::All(files) => files,
            Read::Changed(path) => return Ok(Err(path)),
            Read::Unreadable(errors) => return Err(ScanError::of_unreadable(errors)),
        };
        files.sort_unstable_by_key(|(index, ..)| paths[*index]);
        let recorded = files.iter();
        let recorded = recorded.map(|(index, stat, digest)| (paths[*index], stat, *digest));
        cache.record_all(recorded, started);
        for (index, stat, digest) in files {
            nodes.set(unread[index], self.options.modes.file(&stat, digest));
        }
        Ok(Ok(files_to_read))
    }
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

#[cfg(test)]
mod tests;
