//! The git repository around a root: where its parts are, and which files it tracks.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use gix_index::{File as IndexFile, decode::Options, hash};
use patchwire_protocol::path::escape;

/// Why the repository around a root can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// A file or directory of the repository can't be read.
    #[error("cannot read “{path}”")]
    Io {
        /// The file, escaped.
        path: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The index isn't one that can be read: which files are tracked isn't known.
    #[error("cannot read git's index “{path}”, which says what is tracked: {reason}")]
    Index {
        /// The index, escaped.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A repository that a root lies in.
#[derive(Debug)]
pub(super) struct Repository {
    /// The top of the work tree.
    pub(super) top: PathBuf,
    /// The root's path below the top, with a slash at the end; empty at the top.
    pub(super) prefix: Vec<u8>,
    git_dir: PathBuf,
    /// Where `info/exclude` is: differs from `git_dir` in a linked work tree.
    common_dir: PathBuf,
}

impl Repository {
    /// Looks for a repository from `root` upwards.
    pub(super) fn discover(root: &Path) -> Result<Option<Self>, RepositoryError> {
        let root = fs::canonicalize(root).map_err(io_error(root))?;
        for top in root.ancestors() {
            let Some(git_dir) = git_dir(top)? else {
                continue;
            };
            let common_dir = match read_line(&git_dir.join("commondir"))? {
                Some(path) => git_dir.join(path),
                None => git_dir.clone(),
            };
            let below = root.strip_prefix(top).unwrap_or(Path::new(""));
            let mut prefix = below.as_os_str().as_bytes().to_vec();
            if !prefix.is_empty() {
                prefix.push(b'/');
            }
            return Ok(Some(Self {
                top: top.to_owned(),
                prefix,
                git_dir,
                common_dir,
            }));
        }
        Ok(None)
    }

    pub(super) fn exclude_file(&self) -> PathBuf {
        self.common_dir.join("info/exclude")
    }

    /// The files and directories outside the root that a change of the rules shows in.
    pub(super) fn sources(&self) -> [PathBuf; 2] {
        [self.index_file(), self.exclude_file()]
    }

    pub(super) fn index_file(&self) -> PathBuf {
        self.git_dir.join("index")
    }

    /// Reads which paths are tracked.
    pub(super) fn tracked(&self) -> Result<Tracked, RepositoryError> {
        let path = self.index_file();
        // A repository in which nothing was ever added has none.
        if !path.try_exists().map_err(io_error(&path))? {
            return Ok(Tracked::default());
        }
        let index = IndexFile::at(&path, hash::Kind::Sha1, true, Options::default());
        let index = index.map_err(|error| RepositoryError::Index {
            path: escape(path.as_os_str().as_bytes()).to_string(),
            reason: format!("{error:#}"),
        })?;
        Ok(Tracked(Some(Paths::of(&index))))
    }
}

/// Tells whether git is changing the repository that `root` lies in just now, as `git checkout` does
/// while it exchanges files: it holds the lock of its index. A git that was killed may have left that
/// lock behind.
#[must_use]
pub fn is_git_at_work(root: &Path) -> bool {
    // A repository that can't be read is told of by the scan.
    let Ok(Some(repository)) = Repository::discover(root) else {
        return false;
    };
    let lock = repository.git_dir.join("index.lock");
    lock.symlink_metadata().is_ok()
}

/// What git's index says, if there is one: the paths that are tracked, from the repository's top,
/// sorted.
///
/// A sparse index names directories that are not to be there, in whole. What is there all the same
/// counts as untracked: only git's objects say more.
#[derive(Debug, Default)]
pub(super) struct Tracked(Option<Paths>);

/// Paths one after the other, and where each ends: a third of what the index itself takes.
#[derive(Debug, PartialEq, Eq)]
struct Paths {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Paths {
    fn of(index: &IndexFile) -> Self {
        let entries = index.entries();
        let paths = entries.iter().map(|entry| entry.path(index));
        let mut bytes = Vec::with_capacity(paths.clone().map(|path| path.len()).sum());
        let mut ends = Vec::with_capacity(entries.len());
        for path in paths {
            bytes.extend_from_slice(path);
            ends.push(bytes.len());
        }
        Self { bytes, ends }
    }

    fn get(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    /// The first path that isn't before `path`.
    fn first_from(&self, path: &[u8]) -> Option<&[u8]> {
        let (mut start, mut end) = (0, self.ends.len());
        while start < end {
            let middle = start.midpoint(end);
            match self.get(middle) {
                Some(there) if there < path => start = middle + 1,
                _ => end = middle,
            }
        }
        self.get(start)
    }
}

impl Tracked {
    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.first_from(path) == Some(path)
    }

    /// Tells whether anything inside the directory `dir` is tracked.
    pub(super) fn has_inside(&self, dir: &[u8]) -> bool {
        let start = [dir, b"/"].concat();
        self.first_from(&start)
            .is_some_and(|path| path.starts_with(&start))
    }

    /// Tells whether both name the same paths.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// The first path that isn't before `path`.
    fn first_from(&self, path: &[u8]) -> Option<&[u8]> {
        self.0.as_ref()?.first_from(path)
    }
}

/// The git directory of a work tree whose top is `top`, if that's what it is.
fn git_dir(top: &Path) -> Result<Option<PathBuf>, RepositoryError> {
    let dot_git = top.join(".git");
    let is_git_dir = |path: &Path| path.join("HEAD").symlink_metadata().is_ok();
    match fs::metadata(&dot_git) {
        Ok(metadata) if metadata.is_dir() => Ok(is_git_dir(&dot_git).then_some(dot_git)),
        Ok(metadata) if metadata.is_file() => {
            // A linked work tree or a submodule.
            let line = read_line(&dot_git)?.unwrap_or_default();
            let target = line.to_str().and_then(|line| line.strip_prefix("gitdir: "));
            let target = target.map(|target| top.join(target));
            Ok(target.filter(|target| is_git_dir(target)))
        }
        // Also above the root where we may not look: git doesn't go on there either.
        _ => Ok(None),
    }
}

/// The first line of a small file, as a path.
fn read_line(file: &Path) -> Result<Option<PathBuf>, RepositoryError> {
    match fs::read(file) {
        Ok(bytes) => {
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(&[]);
            Ok(Some(PathBuf::from(std::ffi::OsStr::from_bytes(line))))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(file)(error)),
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> RepositoryError {
    let path = escape(path.as_os_str().as_bytes()).to_string();
    |source| RepositoryError::Io { path, source }
}
