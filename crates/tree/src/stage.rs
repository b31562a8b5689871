//! Building what a push brings, beside the tree and without touching it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
};

use patchwire_delta::{Digest, PatchError, patch_read};
use patchwire_protocol::{
    manifest::{Entry, Manifest, Mode},
    operation::{self, Operation, OperationError, Source},
    path::RelativePath,
};

use crate::{
    confine::{Context, Dir, PathError, Walker, set_file_mode},
    inventory::Observer,
    step::slot_name,
    store::{Store, StoreError},
};

/// From how many files on one sync of the whole file system is cheaper than one for each.
const MANY: usize = 16;

const BUFFER: usize = 128 << 10;

/// Why a push can't be staged. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The peer's operations don't fit the tree that stands, or don't give the target.
    #[error(transparent)]
    Operations(#[from] OperationError),
    /// The peer's operations give another tree than the peer says.
    #[error("the operations give the tree {actual}, and not {expected}")]
    Target {
        /// The root digest announced.
        expected: Digest,
        /// The root digest of the operations' result.
        actual: Digest,
    },
    /// The content stream ended early or failed.
    #[error("the content for {path:?} did not arrive")]
    Stream {
        /// The file being built.
        path: RelativePath,
        /// What the stream said.
        #[source]
        source: io::Error,
    },
    /// The peer's content isn't what its operation says.
    #[error("the content for {path:?} is not what was announced")]
    Content {
        /// The file being built.
        path: RelativePath,
        /// What is wrong with a delta; nothing for a whole file with another digest.
        #[source]
        source: Option<PatchError>,
    },
    /// The peer sent more than its operations need.
    #[error("content is left after the last operation")]
    Trailing,
    /// A file to copy from or to patch isn't what it was when the push was planned: the peer has to
    /// plan again.
    #[error("{path:?}, which the push builds on, has changed on this side")]
    Basis {
        /// The file that changed.
        path: RelativePath,
    },
    /// What the push takes for kept of a content isn't (any more): the peer has to plan again.
    #[error("what was kept of the content for {path:?} is gone")]
    NotKept {
        /// The file being built.
        path: RelativePath,
    },
    /// A file operation failed here.
    #[error(transparent)]
    Local(#[from] PathError),
    /// The store can't be used.
    #[error(transparent)]
    Store(StoreError),
}

/// A push that is built, verified, and ready to be committed. Dropped, it is removed.
#[derive(Debug)]
pub struct Staged {
    pub(crate) push_id: [u8; 16],
    pub(crate) sequence: u64,
    pub(crate) target: Manifest,
    pub(crate) operations: Vec<Operation>,
    /// For each operation whether its slot, by its index, is filled.
    pub(crate) filled: Vec<bool>,
    pub(crate) slots: Dir,
    staging: Dir,
    committed: bool,
}

impl Staged {
    /// The tree that stands once this is committed.
    #[must_use]
    pub const fn target(&self) -> &Manifest {
        &self.target
    }

    /// The paths that it changes.
    pub fn paths(&self) -> impl Iterator<Item = &RelativePath> {
        self.operations.iter().map(Operation::path)
    }

    /// The slots belong to a journal now.
    pub(crate) const fn keep(&mut self) {
        self.committed = true;
    }

    pub(crate) fn slots_name(&self) -> Vec<u8> {
        self.sequence.to_string().into_bytes()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a panic it is left for the next opening of the store, as after a kill.
        if self.committed || std::thread::panicking() {
            return;
        }
        if let Err(error) = self.staging.remove_all(&self.slots_name()) {
            tracing::warn!("a staged push can't be removed: {error}");
        }
    }
}

impl Store {
    /// Builds the files of a push beside the tree, verifies each, and makes them last on the disk.
    ///
    /// `base` is the tree that `operations` change into the one whose root is `target`, and
    /// `available` what sources may name: both the committed manifest, or both what
    /// [`Store::inventory`] told the peer; where nothing was ever committed the base is empty.
    /// `content` holds, uncompressed and in the order of the operations, what
    /// [`Source::Whole`] and [`Source::Delta`] need, and nothing more.
    ///
    /// # Errors
    ///
    /// [`StageError`] tells what the peer did wrong from what happened here; the tree is untouched.
    pub fn stage(
        &mut self,
        push_id: [u8; 16],
        base: &Manifest,
        available: &Manifest,
        target: Digest,
        operations: &[Operation],
        content: &mut dyn BufRead,
    ) -> Result<Staged, StageError> {
        self.check_whole().map_err(StageError::Store)?;
        let result = operation::apply(base, available, operations)?;
        let actual = result.root();
        if actual != target {
            return Err(StageError::Target {
                expected: target,
                actual,
            });
        }
        let sequence = self.next_sequence();
        let name = sequence.to_string().into_bytes();
        let make_slots = || {
            if self.staging.find(&name)?.is_some() {
                self.staging.remove_all(&name)?;
            }
            self.staging.make_dir(&name)?;
            Ok((self.staging.open_dir(&name)?, self.staging.try_clone()?))
        };
        let (slots, staging) = make_slots().context("create", &name)?;
        // From here on, what was staged goes with this value.
        let mut staged = Staged {
            push_id,
            sequence,
            target: result,
            operations: operations.to_vec(),
            filled: vec![false; operations.len()],
            slots,
            staging,
            committed: false,
        };
        let sent = operations.iter().filter(|o| is_file(o)).count();
        let mut builder = Builder {
            store: self,
            available,
            base,
            slots: &staged.slots,
            content,
            sync_each: sent <= MANY,
        };
        for (index, operation) in operations.iter().enumerate() {
            staged.filled[index] = builder.build(index, operation)?;
        }
        let path = operations.last().map(Operation::path);
        match builder.content.fill_buf() {
            Ok([]) => {}
            Ok(_) => return Err(StageError::Trailing),
            Err(source) => {
                return Err(match path {
                    Some(path) => StageError::Stream {
                        path: path.clone(),
                        source,
                    },
                    None => StageError::Trailing,
                });
            }
        }
        let sync = match sent <= MANY {
            true => staged.slots.sync(),
            false => staged.slots.sync_file_system(),
        };
        sync.context("sync", &name)?;
        Ok(staged)
    }
}

fn is_file(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Put {
            entry: Entry::File { .. },
            ..
        }
    )
}

/// Creates a directory in a slot so that it can be worked in; its own mode is set at the end.
pub(crate) fn stage_directory(slots: &Dir, slot: &[u8], mode: Mode) -> Result<(), PathError> {
    slots
        .make_dir(slot)
        .and_then(|()| slots.open_dir(slot)?.set_mode(mode.bits() | 0o700))
        .context("create", slot)
}

struct Builder<'a> {
    store: &'a mut Store,
    available: &'a Manifest,
    base: &'a Manifest,
    slots: &'a Dir,
    content: &'a mut dyn BufRead,
    sync_each: bool,
}

impl Builder<'_> {
    /// Fills the operation's slot. Tells whether there is something in it.
    fn build(&mut self, index: usize, operation: &Operation) -> Result<bool, StageError> {
        let Operation::Put {
            path,
            entry,
            source,
        } = operation
        else {
            return Ok(false);
        };
        let slot = slot_name(u32::try_from(index).unwrap_or(u32::MAX));
        match entry {
            Entry::Directory { mode } => stage_directory(self.slots, &slot, *mode)?,
            Entry::Symlink { target } => self
                .slots
                .symlink(target.as_bytes(), &slot)
                .context("create the link", path.as_bytes())?,
            Entry::File { mode, len, digest } => {
                if self.stands_already(path, entry, source)? {
                    return Ok(false);
                }
                let wanted = Wanted {
                    path,
                    len: *len,
                    digest: *digest,
                };
                let local = |error| PathError::new("write", path.as_bytes(), error);
                let file = self.slots.create_file(&slot).map_err(local)?;
                self.fill(&file, &wanted, source)?;
                set_file_mode(&file, mode.bits()).map_err(local)?;
                if self.sync_each {
                    file.sync_all().map_err(local)?;
                }
            }
        }
        Ok(true)
    }

    /// A file that was never managed and is already what it is to be is taken as it is, so that
    /// the first push to a copy of the app rewrites nothing.
    fn stands_already(
        &mut self,
        path: &RelativePath,
        entry: &Entry,
        source: &Source,
    ) -> Result<bool, StageError> {
        let from_itself = matches!(source, Source::Copy { from } if from == path);
        if !from_itself || self.base.get(path).is_some() || self.available.get(path) != Some(entry)
        {
            return Ok(false);
        }
        let mut walker = Walker::new(&self.store.root);
        let standing = Observer::new(&mut self.store.index)
            .observe_at(&mut walker, path)
            .context("look at", path.as_bytes())?;
        match standing.as_ref() == Some(entry) {
            true => Ok(true),
            false => Err(StageError::Basis { path: path.clone() }),
        }
    }

    fn fill(
        &mut self,
        file: &File,
        wanted: &Wanted<'_>,
        source: &Source,
    ) -> Result<(), StageError> {
        match source {
            // Refused by `operation::apply` before anything was built.
            Source::None => Ok(()),
            Source::Whole { kept: 1.. } => Err(StageError::NotKept {
                path: wanted.path.clone(),
            }),
            Source::Whole { kept: 0 } => match copy(self.content, file, wanted) {
                Ok(digest) if digest == wanted.digest => Ok(()),
                Ok(_) => Err(wanted.content_error(None)),
                Err(CopyError::Read(source)) => Err(StageError::Stream {
                    path: wanted.path.clone(),
                    source,
                }),
                Err(CopyError::Write(error)) => Err(error.into()),
            },
            Source::Copy { from } => {
                let basis = self.open_basis(from)?;
                match copy(&mut BufReader::with_capacity(BUFFER, basis), file, wanted) {
                    Ok(digest) if digest == wanted.digest => Ok(()),
                    Ok(_) => Err(StageError::Basis { path: from.clone() }),
                    Err(CopyError::Read(error)) => match error.kind() {
                        io::ErrorKind::UnexpectedEof => {
                            Err(StageError::Basis { path: from.clone() })
                        }
                        _ => Err(PathError::new("read", from.as_bytes(), error).into()),
                    },
                    Err(CopyError::Write(error)) => Err(error.into()),
                }
            }
            Source::Delta { basis } => self.patch(file, wanted, basis),
        }
    }

    fn patch(
        &mut self,
        file: &File,
        wanted: &Wanted<'_>,
        basis: &RelativePath,
    ) -> Result<(), StageError> {
        let mut out = BufWriter::with_capacity(BUFFER, file);
        let opened = self.open_basis(basis)?;
        let result = patch_read(opened, &mut *self.content, &mut out, wanted.len);
        let summary = match result {
            Ok(summary) => summary,
            Err(PatchError::ReadDelta(source)) => {
                return Err(StageError::Stream {
                    path: wanted.path.clone(),
                    source,
                });
            }
            Err(PatchError::ReadBasis { source, .. }) => {
                return Err(PathError::new("read", basis.as_bytes(), source).into());
            }
            Err(PatchError::WriteTarget { source, .. }) => return Err(wanted.write_error(source)),
            Err(error) if self.is_basis(basis)? => return Err(wanted.content_error(Some(error))),
            Err(_) => {
                return Err(StageError::Basis {
                    path: basis.clone(),
                });
            }
        };
        out.flush().map_err(|error| wanted.write_error(error))?;
        match (summary.target_len, summary.digest) == (wanted.len, wanted.digest) {
            true => Ok(()),
            false => Err(wanted.content_error(None)),
        }
    }

    /// Tells whether the file at `path` is still the one that the peer knows.
    fn is_basis(&mut self, path: &RelativePath) -> Result<bool, PathError> {
        let mut walker = Walker::new(&self.store.root);
        let standing = Observer::new(&mut self.store.index)
            .observe_at(&mut walker, path)
            .context("look at", path.as_bytes())?;
        Ok(match (standing, self.available.get(path)) {
            (Some(Entry::File { digest: a, .. }), Some(Entry::File { digest: b, .. })) => a == *b,
            _ => false,
        })
    }

    fn open_basis(&self, path: &RelativePath) -> Result<File, StageError> {
        match self.store.open_file(path) {
            Ok(file) => Ok(file),
            // It is gone, or something else stands there.
            Err(error)
                if crate::confine::no_such_place(&error.source)
                    || error.source.kind() == io::ErrorKind::InvalidInput =>
            {
                Err(StageError::Basis { path: path.clone() })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The file to build.
struct Wanted<'a> {
    path: &'a RelativePath,
    len: u64,
    digest: Digest,
}

impl Wanted<'_> {
    fn content_error(&self, source: Option<PatchError>) -> StageError {
        StageError::Content {
            path: self.path.clone(),
            source,
        }
    }

    fn write_error(&self, error: io::Error) -> StageError {
        PathError::new("write", self.path.as_bytes(), error).into()
    }
}

enum CopyError {
    Read(io::Error),
    Write(PathError),
}

/// Copies exactly as many bytes as wanted, and computes their digest.
fn copy(
    from: &mut (impl BufRead + ?Sized),
    mut to: &File,
    wanted: &Wanted<'_>,
) -> Result<Digest, CopyError> {
    let mut hasher = blake3::Hasher::new();
    let mut left = wanted.len;
    while left > 0 {
        let bytes = match from.fill_buf() {
            Ok([]) => return Err(CopyError::Read(io::ErrorKind::UnexpectedEof.into())),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        let take = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        hasher.update(&bytes[..take]);
        to.write_all(&bytes[..take]).map_err(|error| {
            CopyError::Write(PathError::new("write", wanted.path.as_bytes(), error))
        })?;
        from.consume(take);
        left -= take as u64;
    }
    Ok(hasher.finalize().into())
}

#[cfg(test)]
mod tests;
