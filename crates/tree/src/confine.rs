//! File operations that cannot leave a directory, whatever races on the disk.
//!
//! Every operation goes through a held descriptor of the directory it happens in and names one
//! component there; links are never followed. A path is walked component by component from the
//! root's descriptor (`openat` with `O_NOFOLLOW`), so that a directory swapped for a link between
//! two calls makes the walk fail instead of leaving the root. A check of a path's text followed by a
//! call on that text can't give this: see rsync's fixes from 3.4 to 3.5.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use patchwire_protocol::path::{RelativePath, escape};
use rustix::{
    fs::{self as sys, AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, Timespec, Timestamps},
    io::{Errno, retry_on_intr},
};

use crate::time::Time;

/// An operation on a path failed. The path is shown escaped.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} “{path}”")]
pub struct PathError {
    /// What was being done: “open”, “rename”, …
    pub action: &'static str,
    /// The path, escaped; relative to the root where it lies in it.
    pub path: String,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

impl PathError {
    pub(crate) fn new(action: &'static str, path: impl AsRef<[u8]>, source: io::Error) -> Self {
        Self {
            action,
            path: escape(path.as_ref()).to_string(),
            source,
        }
    }
}

/// Adds to an [`io::Error`] what was being done, and to what.
pub(crate) trait Context<T> {
    fn context(self, action: &'static str, path: impl AsRef<[u8]>) -> Result<T, PathError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: &'static str, path: impl AsRef<[u8]>) -> Result<T, PathError> {
        self.map_err(|source| PathError::new(action, path, source))
    }
}

/// What stands at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    /// A fifo, a socket or a device.
    Special,
}

impl Kind {
    /// `None` where the system doesn't say.
    const fn of(kind: FileType) -> Option<Self> {
        match kind {
            FileType::RegularFile => Some(Self::File),
            FileType::Directory => Some(Self::Directory),
            FileType::Symlink => Some(Self::Symlink),
            FileType::Unknown => None,
            _ => Some(Self::Special),
        }
    }
}

/// The status of what stands at a name; of a link, the link's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) kind: Kind,
    /// Permission bits with set-id and sticky, `& 0o7777`.
    pub(crate) mode: u32,
    pub(crate) len: u64,
    pub(crate) modified: Time,
    pub(crate) changed: Time,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Whether it has another name somewhere, as all directories have.
    pub(crate) has_other_names: bool,
}

impl Stat {
    fn of(stat: &sys::Stat) -> Self {
        let kind = Kind::of(FileType::from_raw_mode(stat.st_mode));
        let time = |seconds, nanos: u64| Time {
            seconds,
            nanos: u32::try_from(nanos).unwrap_or(0),
        };
        Self {
            kind: kind.unwrap_or(Kind::Special),
            mode: stat.st_mode & 0o7777,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            changed: time(stat.st_ctime, stat.st_ctime_nsec),
            device: stat.st_dev,
            inode: stat.st_ino,
            has_other_names: stat.st_nlink > 1,
        }
    }

    /// The status of what a path that its operator gave leads to, following links.
    pub(crate) fn of_path(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&retry_on_intr(|| sys::stat(path))?))
    }

    /// The status of an open file.
    pub(crate) fn of_file(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::of(&sys::fstat(file)?))
    }
}

/// A directory held open. Names passed to its methods are single components.
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd);

const OPEN_DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The file systems that nobody else writes to, by `f_type` (see `man 2 statfs`): ext2 to ext4, XFS,
/// Btrfs, tmpfs, F2FS, ZFS, bcachefs, overlayfs.
const LOCAL: [u32; 8] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0xf2f5_2010,
    0x2fc1_2fc1,
    0xca45_1a4e,
    0x794c_7630,
];

impl Dir {
    /// Opens a directory by a path that its operator gave, following links.
    pub(crate) fn open_root(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(retry_on_intr(|| {
            sys::open(path, flags, Mode::empty())
        })?))
    }

    /// Opens the directory `name`.
    pub(crate) fn open_dir(&self, name: &[u8]) -> io::Result<Self> {
        let name = component(name)?;
        Ok(Self(retry_on_intr(|| {
            sys::openat(&self.0, name, OPEN_DIRECTORY, Mode::empty())
        })?))
    }

    /// Opens the directory that holds this one.
    pub(crate) fn open_parent(&self) -> io::Result<Self> {
        Ok(Self(retry_on_intr(|| {
            sys::openat(&self.0, "..", OPEN_DIRECTORY, Mode::empty())
        })?))
    }

    /// Opens the directory at `path`, walking every component.
    pub(crate) fn walk(&self, path: &RelativePath) -> io::Result<Self> {
        let mut components = path.components();
        let first = components.next().unwrap_or_default();
        components.try_fold(self.open_dir(first)?, |dir, name| dir.open_dir(name))
    }

    /// The same directory, held once more.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Opens the directory that holds `path`.
    pub(crate) fn walk_to_parent(&self, path: &RelativePath) -> io::Result<Self> {
        match path.parent() {
            Some(parent) => self.walk(&parent),
            None => self.try_clone(),
        }
    }

    /// Opens the regular file `name` for reading. A fifo or a device is refused without waiting.
    pub(crate) fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let name = component(name)?;
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = retry_on_intr(|| sys::openat(&self.0, name, flags, Mode::empty()))?;
        if Stat::of_file(&fd)?.kind != Kind::File {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(fd.into())
    }

    /// Creates the file `name`, mode 0600, which must not be there, and opens it for writing.
    pub(crate) fn create_file(&self, name: &[u8]) -> io::Result<File> {
        let name = component(name)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        Ok(retry_on_intr(|| sys::openat(&self.0, name, flags, mode))?.into())
    }

    /// Opens a file of ours for reading and writing.
    pub(crate) fn reopen_file(&self, name: &[u8]) -> io::Result<File> {
        let name = component(name)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(retry_on_intr(|| sys::openat(&self.0, name, flags, Mode::empty()))?.into())
    }

    pub(crate) fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        let name = component(name)?;
        let stat = retry_on_intr(|| sys::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(Stat::of(&stat))
    }

    /// As [`Self::stat`], with `None` for what isn't there.
    pub(crate) fn find(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        match self.stat(name) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn own_stat(&self) -> io::Result<Stat> {
        Stat::of_file(&self.0)
    }

    /// Tells whether the directory is on a file system that only this system writes to, and so tells of
    /// all that happens.
    pub(crate) fn is_local(&self) -> bool {
        sys::fstatfs(&self.0).is_ok_and(|file_system| {
            let magic = u32::try_from(file_system.f_type);
            magic.is_ok_and(|magic| LOCAL.contains(&magic))
        })
    }

    pub(crate) fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        let name = component(name)?;
        Ok(sys::readlinkat(&self.0, name, Vec::new())?.into_bytes())
    }

    /// Creates the directory `name`, mode 0700.
    pub(crate) fn make_dir(&self, name: &[u8]) -> io::Result<()> {
        let name = component(name)?;
        Ok(sys::mkdirat(&self.0, name, Mode::from_raw_mode(0o700))?)
    }

    pub(crate) fn symlink(&self, target: &[u8], name: &[u8]) -> io::Result<()> {
        let name = component(name)?;
        Ok(sys::symlinkat(target, &self.0, name)?)
    }

    /// Renames `name` to `to_name` in `to`, replacing a file there.
    pub(crate) fn rename(&self, name: &[u8], to: &Self, to_name: &[u8]) -> io::Result<()> {
        let (name, to_name) = (component(name)?, component(to_name)?);
        Ok(retry_on_intr(|| {
            sys::renameat(&self.0, name, &to.0, to_name)
        })?)
    }

    /// Renames `name` to `to_name` in `to`, which must not be there.
    pub(crate) fn rename_new(&self, name: &[u8], to: &Self, to_name: &[u8]) -> io::Result<()> {
        match self.rename_with(name, to, to_name, RenameFlags::NOREPLACE) {
            Err(error) if unsupported(&error) => match to.find(to_name)? {
                Some(_) => Err(Errno::EXIST.into()),
                None => self.rename(name, to, to_name),
            },
            result => result,
        }
    }

    /// Exchanges `name` with `to_name` in `to` in one step. Not every file system can: see
    /// [`unsupported`].
    pub(crate) fn exchange(&self, name: &[u8], to: &Self, to_name: &[u8]) -> io::Result<()> {
        self.rename_with(name, to, to_name, RenameFlags::EXCHANGE)
    }

    fn rename_with(
        &self,
        name: &[u8],
        to: &Self,
        to_name: &[u8],
        flags: RenameFlags,
    ) -> io::Result<()> {
        let (name, to_name) = (component(name)?, component(to_name)?);
        Ok(retry_on_intr(|| {
            sys::renameat_with(&self.0, name, &to.0, to_name, flags)
        })?)
    }

    pub(crate) fn unlink(&self, name: &[u8]) -> io::Result<()> {
        Ok(sys::unlinkat(&self.0, component(name)?, AtFlags::empty())?)
    }

    pub(crate) fn remove_dir(&self, name: &[u8]) -> io::Result<()> {
        Ok(sys::unlinkat(
            &self.0,
            component(name)?,
            AtFlags::REMOVEDIR,
        )?)
    }

    /// Removes `name` and whatever it holds.
    pub(crate) fn remove_all(&self, name: &[u8]) -> io::Result<()> {
        match self.unlink(name) {
            Err(error) if is_directory(&error) => {}
            result => return result,
        }
        let dir = match self.open_dir(name) {
            // A directory that the app made unreadable for its own user.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.make_accessible(name)?;
                self.open_dir(name)?
            }
            result => result?,
        };
        let entries = dir.list()?;
        let mode = dir.own_stat()?.mode;
        if !entries.is_empty() && mode & 0o700 != 0o700 {
            dir.set_mode(mode | 0o700)?;
        }
        entries.iter().try_for_each(|entry| dir.remove_all(entry))?;
        self.remove_dir(name)
    }

    /// Gives the owner all permissions on the file or directory `name`.
    ///
    /// By name, since what lacks them can't be opened; only ever used on names in the
    /// state directory, which nobody else writes to.
    pub(crate) fn make_accessible(&self, name: &[u8]) -> io::Result<()> {
        let stat = self.stat(name)?;
        let mode = Mode::from_raw_mode(stat.mode | 0o700);
        Ok(sys::chmodat(
            &self.0,
            component(name)?,
            mode,
            AtFlags::empty(),
        )?)
    }

    /// Sets this directory's own mode.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(sys::fchmod(&self.0, Mode::from_raw_mode(mode & 0o7777))?)
    }

    /// Sets the time of last modification of `name`; of a link, the link's own.
    pub(crate) fn set_modified(&self, name: &[u8], time: Time) -> io::Result<()> {
        let omit = Timespec {
            tv_sec: 0,
            tv_nsec: sys::UTIME_OMIT,
        };
        let times = Timestamps {
            last_access: omit,
            last_modification: Timespec {
                tv_sec: time.seconds,
                tv_nsec: i64::from(time.nanos),
            },
        };
        let name = component(name)?;
        Ok(sys::utimensat(
            &self.0,
            name,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// The names in this directory, without `.` and `..`, in no order.
    pub(crate) fn list(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in sys::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    /// Calls `each` with what [`Self::list`] gives, and with what stands there where the system says
    /// it along with the name. Only once for a directory that was opened: its position is moved.
    pub(crate) fn each_name(
        &self,
        buffer: &mut Vec<u8>,
        mut each: impl FnMut(&[u8], Option<Kind>),
    ) -> io::Result<()> {
        let mut entries = RawDir::new(&self.0, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                each(name, Kind::of(entry.file_type()));
            }
        }
        Ok(())
    }

    /// Makes what was done to names in this directory last.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| sys::fsync(&self.0))?)
    }

    /// Makes everything written to the directory's file system last.
    pub(crate) fn sync_file_system(&self) -> io::Result<()> {
        Ok(retry_on_intr(|| sys::syncfs(&self.0))?)
    }
}

/// Sets the mode of an open file.
pub(crate) fn set_file_mode(file: &File, mode: u32) -> io::Result<()> {
    Ok(sys::fchmod(file, Mode::from_raw_mode(mode & 0o777))?)
}

/// Tells whether a file system lacks the operation.
pub(crate) fn unsupported(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
    )
}

/// Tells whether an operation failed because a directory on the way is missing or none.
pub(crate) fn no_such_place(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
    )
}

fn is_directory(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ISDIR | Errno::PERM)
    )
}

/// Lets only what can't leave a directory through to the system.
fn component(name: &[u8]) -> io::Result<&[u8]> {
    match name {
        b"" | b"." | b".." => Err(Errno::INVAL.into()),
        _ if name.contains(&b'/') => Err(Errno::INVAL.into()),
        _ => Ok(name),
    }
}

/// Opens the directories of many paths, in any order; cheap where neighbours share theirs.
///
/// Holds at most one descriptor per level. Only for passes during which nobody of ours renames
/// directories.
#[derive(Debug)]
pub(crate) struct Walker<'a> {
    root: &'a Dir,
    stack: Vec<(RelativePath, Dir)>,
}

impl<'a> Walker<'a> {
    pub(crate) const fn new(root: &'a Dir) -> Self {
        Self {
            root,
            stack: Vec::new(),
        }
    }

    /// The directory that holds `path`.
    pub(crate) fn parent_of(&mut self, path: &RelativePath) -> io::Result<&Dir> {
        while self.stack.pop_if(|(dir, _)| !path.is_inside(dir)).is_some() {}
        let depth = path.components().count() - 1;
        for level in self.stack.len()..depth {
            let ancestor = ancestor(path, level + 1);
            let dir = self
                .stack
                .last()
                .map_or(self.root, |(_, dir)| dir)
                .open_dir(ancestor.name())?;
            self.stack.push((ancestor, dir));
        }
        Ok(self.stack.last().map_or(self.root, |(_, dir)| dir))
    }
}

/// The first `depth` components of `path`, which has more.
fn ancestor(path: &RelativePath, depth: usize) -> RelativePath {
    let above = path.components().count() - depth;
    let mut ancestor = path.clone();
    for _ in 0..above {
        match ancestor.parent() {
            Some(parent) => ancestor = parent,
            None => break,
        }
    }
    ancestor
}

#[cfg(test)]
impl std::os::fd::AsRawFd for Dir {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
