//! Files as `delta` takes them: `-` stands for a standard stream, and an output is there whole or
//! not at all.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Error};
use tempfile::NamedTempFile;

const STREAM: &str = "-";

/// A file to read, or standard input.
#[derive(Debug)]
pub(super) struct Input(File);

impl Input {
    pub(super) fn is_stdin(path: &Path) -> bool {
        path == Path::new(STREAM)
    }

    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let opened = match Self::is_stdin(path) {
            true => duplicate(io::stdin().as_fd()),
            false => File::open(path),
        };
        let file = opened.with_context(|| format!("can't open “{}”", path.display()))?;
        Ok(Self(file))
    }

    /// The length, if it is a file's.
    pub(super) fn len(&self) -> Option<u64> {
        let metadata = self.0.metadata().ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Copies what can't be read from anywhere, as a pipe, to a temporary file.
    pub(super) fn seekable(mut self) -> Result<File, Error> {
        if self.len().is_some() {
            return Ok(self.0);
        }
        let mut copy = tempfile::tempfile().context("can't make a temporary file")?;
        io::copy(&mut self.0, &mut copy).context("can't copy the basis to a temporary file")?;
        Ok(copy)
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

/// Where a result goes once it is whole.
#[derive(Debug)]
pub(super) enum Output {
    /// A file, made under another name beside it.
    File { made: NamedTempFile, path: PathBuf },
    /// Standard output, or what is there and no file. It gets what a temporary file holds.
    Stream { made: File, stream: File },
}

impl Output {
    /// Prepares to write a file. Dropped before [`finish`](Self::finish), it leaves nothing behind.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let failed = || format!("can't write “{}”", path.display());
        if path == Path::new(STREAM) {
            let stream = duplicate(io::stdout().as_fd()).with_context(failed)?;
            return Self::stream(stream);
        }
        // A link is written through, and what it points to replaced.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let permissions = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Some(metadata.permissions()),
            Ok(_) => {
                let stream = OpenOptions::new().write(true).open(&path);
                return Self::stream(stream.with_context(failed)?);
            }
            Err(_) => None,
        };
        let beside = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let made = tempfile::Builder::new()
            // As any new file: less what the umask takes away.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(beside.unwrap_or(Path::new(".")))
            .with_context(failed)?;
        if let Some(permissions) = permissions {
            made.as_file()
                .set_permissions(permissions)
                .with_context(failed)?;
        }
        Ok(Self::File { made, path })
    }

    fn stream(stream: File) -> Result<Self, Error> {
        let made = tempfile::tempfile().context("can't make a temporary file")?;
        Ok(Self::Stream { made, stream })
    }

    /// What the result is written to.
    pub(super) fn writer(&self) -> Result<File, Error> {
        let file = match self {
            Self::File { made, .. } => made.as_file(),
            Self::Stream { made, .. } => made,
        };
        Ok(file.try_clone()?)
    }

    /// Puts the result, which is whole, in its place.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self {
            Self::File { made, path } => {
                let failed = || format!("can't write “{}”", path.display());
                made.as_file().sync_all().with_context(failed)?;
                made.persist(&path).with_context(failed)?;
            }
            Self::Stream {
                mut made,
                mut stream,
            } => {
                made.seek(SeekFrom::Start(0))?;
                let copied = io::copy(&mut made, &mut stream).and_then(|_| stream.flush());
                // What has gone out can't be taken back; that it is not all must be said.
                copied.context("can't write the result: what there is of it is not whole")?;
            }
        }
        Ok(())
    }
}

fn duplicate(stream: BorrowedFd<'_>) -> io::Result<File> {
    Ok(File::from(stream.try_clone_to_owned()?))
}
