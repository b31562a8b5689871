//! Building what a push brings, beside the tree and without touching it.

pub(crate) mod kept;
pub(crate) mod nest;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    sync::Arc,
};

use patchwire_delta::{Digest, PatchError, patch_read};
use patchwire_protocol::{
    manifest::{Entry, Manifest, Mode},
    operation::{self, Operation, OperationError, Source},
    path::RelativePath,
};

use crate::{
    confine::{Context, Dir, PathError, Stat, Walker, set_file_mode},
    inventory::Observer,
    stage::{
        kept::{Keeper, Kept},
        nest::{Nest, Place},
    },
    step::slot_name,
    store::{KEPT, Store, StoreError},
    time::Time,
};

/// From how many files on one sync of the whole file system is cheaper than one for each.
const MANY: usize = 16;

const BUFFER: usize = 128 << 10;

/// Why a push can't be staged. Nothing of it is left but the contents that [`Store::kept`] lists.
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

/// A push that is built, verified, and ready to be committed. Dropped, it is removed, but for the
/// contents that came whole: the next attempt need not send them again.
#[derive(Debug)]
pub struct Staged {
    pub(crate) push_id: [u8; 16],
    pub(crate) sequence: u64,
    pub(crate) root: Digest,
    pub(crate) target: Arc<Manifest>,
    pub(crate) operations: Vec<Operation>,
    /// For each operation where it is staged.
    pub(crate) places: Vec<Place>,
    /// The files in directories that are wholly new, by operation.
    pub(crate) nested: Vec<(usize, Stat)>,
    pub(crate) slots: Dir,
    /// How many operations have been built.
    built: usize,
    /// The operation whose content was cut off.
    cut_off: Option<usize>,
    staging: Dir,
    state: Dir,
    fate: Fate,
}

/// What becomes of what was staged, once that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Contents that were sent are kept for the next attempt.
    Kept,
    /// The disk is in trouble: everything is removed.
    Removed,
    /// A journal refers to it.
    Committed,
}

impl Staged {
    /// The tree that stands once this is committed.
    #[must_use]
    pub fn target(&self) -> &Manifest {
        &self.target
    }

    /// The paths that it changes.
    pub fn paths(&self) -> impl Iterator<Item = &RelativePath> {
        self.operations.iter().map(Operation::path)
    }

    /// The slots belong to a journal now.
    pub(crate) const fn hand_over(&mut self) {
        self.fate = Fate::Committed;
    }

    /// Nothing of it is to be kept.
    pub(crate) const fn give_up(&mut self) {
        self.fate = Fate::Removed;
    }

    pub(crate) fn slots_name(&self) -> Vec<u8> {
        self.sequence.to_string().into_bytes()
    }

    /// Puts the contents away that were sent whole, and the beginning of the one that was cut off.
    fn keep_contents(&self) -> io::Result<()> {
        let mut keeper = Keeper::new(&self.state)?;
        let mut nest = Nest::new(&self.slots, &self.operations);
        for (index, operation) in self.operations.iter().enumerate() {
            if let Operation::Put {
                entry: Entry::File { len, digest, .. },
                source: Source::Whole { .. },
                ..
            } = operation
                && (index < self.built || self.cut_off == Some(index))
            {
                let (dir, name) = nest.find(index, self.places[index])?;
                keeper.keep(dir, &name, *digest, *len)?;
            }
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a panic it is left for the next opening of the store, as after a kill.
        if self.fate == Fate::Committed || std::thread::panicking() {
            return;
        }
        if self.fate == Fate::Kept
            && let Err(error) = self.keep_contents()
        {
            tracing::warn!("what was sent of a push can't be kept: {error}");
        }
        if let Err(error) = self.staging.remove_all(&self.slots_name()) {
            tracing::warn!("a staged push can't be removed: {error}");
        }
    }
}

impl Store {
    /// What is kept of the contents of pushes that were cut off or called off, for a day and until
    /// the next commit: a push may name it by [`Source::Whole`].
    ///
    /// # Errors
    ///
    /// [`PathError`] if it can't be looked at.
    pub fn kept(&self) -> Result<Vec<Kept>, PathError> {
        kept::list(&self.state).context("list", KEPT)
    }

    /// Builds the files of a push beside the tree, verifies each, and makes them last on the disk.
    ///
    /// `base` is the tree that `operations` change into the one whose root is `target`, and
    /// `available` what sources may name: both the committed manifest, or both what
    /// [`Store::inventory`] or [`Store::inventory_for_mirror`] told the peer; where nothing was ever committed the base is empty.
    /// `content` holds, uncompressed and in the order of the operations, what
    /// [`Source::Whole`] and [`Source::Delta`] need, and nothing more.
    ///
    /// # Errors
    ///
    /// [`StageError`] tells what the peer did wrong from what happened here; the tree is untouched.
    pub fn stage(
        &self,
        push_id: [u8; 16],
        base: &Manifest,
        available: &Manifest,
        target: Digest,
        operations: Vec<Operation>,
        content: &mut dyn BufRead,
    ) -> Result<Staged, StageError> {
        self.check_whole().map_err(StageError::Store)?;
        let result = operation::apply(base, available, &operations)?;
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
            let slots = self.staging.open_dir(&name)?;
            Ok((slots, self.staging.try_clone()?, self.state.try_clone()?))
        };
        let by_path = nest::by_path(&operations);
        let places = nest::places(&self.root, base, &operations, &by_path)?;
        let (slots, staging, state) = make_slots().context("create", &name)?;
        let is_nested = |(operation, place): (&Operation, &Place)| {
            matches!(place, Place::Inside { .. }) && !nest::is_directory(operation)
        };
        let nested = operations.iter().zip(&places).filter(|at| is_nested(*at));
        let nested = nested.count();
        // From here on, what was staged goes with this value.
        let mut staged = Staged {
            push_id,
            sequence,
            root: target,
            target: Arc::new(result),
            operations,
            places,
            nested: Vec::with_capacity(nested),
            slots,
            built: 0,
            cut_off: None,
            staging,
            state,
            fate: Fate::Kept,
        };
        let operations = &staged.operations;
        let put = operations.iter().filter(|o| !o.is_delete()).count();
        let mut builder = Builder {
            store: self,
            available,
            base,
            nest: Nest::new(&staged.slots, operations),
            floors: self.floors(),
            content,
            sync_each: put <= MANY,
            takers: takers(operations),
        };
        let directories = || {
            let is_directory = |index: &&usize| nest::is_directory(&operations[**index]);
            by_path.iter().filter(is_directory).copied()
        };
        for index in directories() {
            if let Err(error) = builder.make_directory(index, staged.places[index]) {
                staged.give_up();
                return Err(error.into());
            }
        }
        for (index, operation) in operations.iter().enumerate() {
            match builder.build(index, operation, staged.places[index]) {
                Ok(built) => {
                    staged.built = index + 1;
                    match built {
                        Built::AsItStands => staged.places[index] = Place::Nowhere,
                        Built::Nested(stat) => staged.nested.push((index, stat)),
                        Built::Else => {}
                    }
                }
                Err(error) => {
                    match error {
                        StageError::Stream { .. } => staged.cut_off = Some(index),
                        StageError::Local(_) => staged.give_up(),
                        _ => {}
                    }
                    return Err(error);
                }
            }
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
        let finish = |builder: &mut Builder<'_>| {
            for index in directories().rev() {
                builder.finish_directory(index, &operations[index], staged.places[index])?;
            }
            let sync = match builder.sync_each {
                true => staged.slots.sync(),
                false => staged.slots.sync_file_system(),
            };
            sync.context("sync", &name)
        };
        match finish(&mut builder) {
            Ok(()) => Ok(staged),
            Err(error) => {
                staged.give_up();
                Err(error.into())
            }
        }
    }

    /// The earliest mtimes that files may get where others were until a moment ago.
    fn floors(&self) -> HashMap<&RelativePath, Time> {
        let gone = self.record.iter().flat_map(|record| &record.gone);
        gone.map(|(path, last)| (path, last.plus_seconds(1)))
            .collect()
    }
}

/// How many operations take each content up that was kept.
fn takers(operations: &[Operation]) -> HashMap<Digest, usize> {
    let mut takers = HashMap::new();
    for operation in operations {
        if let Operation::Put {
            entry: Entry::File { digest, .. },
            source: Source::Whole { kept: 1.. },
            ..
        } = operation
        {
            *takers.entry(*digest).or_default() += 1;
        }
    }
    takers
}

/// Creates a directory in a slot so that it can be worked in; its own mode is set at the end.
pub(crate) fn stage_directory(slots: &Dir, slot: &[u8], mode: Mode) -> Result<(), PathError> {
    slots
        .make_dir(slot)
        .and_then(|()| slots.open_dir(slot)?.set_mode(mode.bits() | 0o700))
        .context("create", slot)
}

struct Builder<'a> {
    store: &'a Store,
    available: &'a Manifest,
    base: &'a Manifest,
    nest: Nest<'a>,
    floors: HashMap<&'a RelativePath, Time>,
    content: &'a mut dyn BufRead,
    /// Whether each file is synced, and each directory; otherwise all are at once.
    sync_each: bool,
    /// By how many operations each kept content is still to be taken up.
    takers: HashMap<Digest, usize>,
}

/// What was built.
enum Built {
    /// Nothing: what stands is taken as it is.
    AsItStands,
    /// A file in a directory that is wholly new, with the status by which it is known.
    Nested(Stat),
    /// Something else.
    Else,
}

impl Builder<'_> {
    /// Creates a directory so that it can be worked in.
    fn make_directory(&mut self, index: usize, place: Place) -> Result<(), PathError> {
        let mut make = || {
            let (dir, name) = self.nest.find(index, place)?;
            dir.make_dir(&name)
        };
        make().context("create", slot_of(index))
    }

    /// Gives a directory its mode, once all that it holds is there. One that is still to be renamed
    /// gets it in the end.
    fn finish_directory(
        &mut self,
        index: usize,
        operation: &Operation,
        place: Place,
    ) -> Result<(), PathError> {
        let Operation::Put {
            path,
            entry: Entry::Directory { mode },
            ..
        } = operation
        else {
            return Ok(());
        };
        let bits = match place {
            Place::Inside { .. } => mode.bits(),
            Place::Slot | Place::Nowhere => mode.bits() | 0o700,
        };
        let mut finish = || {
            let (dir, name) = self.nest.find(index, place)?;
            let dir = dir.open_dir(&name)?;
            dir.set_mode(bits)?;
            match self.sync_each {
                true => dir.sync(),
                false => Ok(()),
            }
        };
        finish().context("create", path.as_bytes())
    }

    /// Builds what an operation puts.
    fn build(
        &mut self,
        index: usize,
        operation: &Operation,
        place: Place,
    ) -> Result<Built, StageError> {
        let Operation::Put {
            path,
            entry,
            source,
        } = operation
        else {
            return Ok(Built::Else);
        };
        let local = |error| PathError::new("write", path.as_bytes(), error);
        match entry {
            Entry::Directory { .. } => {}
            Entry::Symlink { target } => {
                let (dir, name) = self.nest.find(index, place).map_err(local)?;
                dir.symlink(target.as_bytes(), &name)
                    .context("create the link", path.as_bytes())?;
            }
            Entry::File { mode, len, digest } => {
                if self.stands_already(path, entry, source)? {
                    return Ok(Built::AsItStands);
                }
                let wanted = Wanted {
                    path,
                    len: *len,
                    digest: *digest,
                };
                let file = match source {
                    Source::Whole { kept: kept @ 1.. } => {
                        self.resume((index, place), &wanted, *kept)?
                    }
                    _ => {
                        let (dir, name) = self.nest.find(index, place).map_err(local)?;
                        let file = dir.create_file(&name).map_err(local)?;
                        self.fill(&file, &wanted, source)?;
                        file
                    }
                };
                set_file_mode(&file, mode.bits()).map_err(local)?;
                let stat = match place {
                    Place::Inside { .. } => {
                        let floor = self.floors.get(path).copied().unwrap_or_default();
                        date(&file, Time::now().max(floor)).map_err(local)?
                    }
                    // It gets its mtime when it is put in place.
                    Place::Slot | Place::Nowhere => None,
                };
                if self.sync_each {
                    file.sync_all().map_err(local)?;
                }
                return Ok(stat.map_or(Built::Else, Built::Nested));
            }
        }
        Ok(Built::Else)
    }

    /// A file that was never managed and is already what it is to be is taken as it is, so that
    /// the first push to a copy of the app rewrites nothing.
    fn stands_already(
        &self,
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
        let standing = Observer::new(&self.store.index)
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
            Source::Whole { .. } => {
                let mut hasher = blake3::Hasher::new();
                self.receive(file, wanted, wanted.len, &mut hasher)?;
                match Digest::from(hasher.finalize()) == wanted.digest {
                    true => Ok(()),
                    false => Err(wanted.content_error(None)),
                }
            }
            Source::Copy { from } => {
                let mut basis = BufReader::with_capacity(BUFFER, self.open_basis(from)?);
                let mut hasher = blake3::Hasher::new();
                match copy(&mut basis, file, wanted, wanted.len, &mut hasher) {
                    Ok(()) if Digest::from(hasher.finalize()) == wanted.digest => Ok(()),
                    Ok(()) => Err(StageError::Basis { path: from.clone() }),
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

    /// Takes up what is kept of a content, and lets the rest follow. One that is not what it is to be
    /// in the end is kept no longer.
    fn resume(
        &mut self,
        (index, place): (usize, Place),
        wanted: &Wanted<'_>,
        have: u64,
    ) -> Result<File, StageError> {
        let not_kept = || StageError::NotKept {
            path: wanted.path.clone(),
        };
        let local = |error| PathError::new("write", wanted.path.as_bytes(), error);
        let takers = self.takers.entry(wanted.digest).or_default();
        *takers = takers.saturating_sub(1);
        let is_last = *takers == 0;
        let mut hasher = blake3::Hasher::new();
        let (dir, name) = self.nest.find(index, place).map_err(local)?;
        let file = if is_last {
            let (state, digest) = (&self.store.state, wanted.digest);
            let taken = kept::take(state, digest, wanted.len, dir, &name);
            let mut file = taken.map_err(local)?.ok_or_else(not_kept)?;
            if file.metadata().map_err(local)?.len() < have {
                return Err(not_kept());
            }
            // More than the peer knows of it comes again.
            file.set_len(have).map_err(local)?;
            io::copy(&mut file, &mut hasher).map_err(local)?;
            file
        } else {
            let kept = kept::open(&self.store.state, wanted.digest, wanted.len);
            let kept = kept.map_err(local)?.ok_or_else(not_kept)?;
            let mut kept = BufReader::with_capacity(BUFFER, kept);
            let file = dir.create_file(&name).map_err(local)?;
            match copy(&mut kept, &file, wanted, have, &mut hasher) {
                Ok(()) => file,
                Err(CopyError::Read(_)) => return Err(not_kept()),
                Err(CopyError::Write(error)) => return Err(error.into()),
            }
        };
        self.receive(&file, wanted, wanted.len - have, &mut hasher)?;
        match Digest::from(hasher.finalize()) == wanted.digest {
            true => Ok(file),
            false => {
                kept::forget(&self.store.state, wanted.digest, wanted.len).map_err(local)?;
                Err(not_kept())
            }
        }
    }

    /// Writes the next `len` bytes of the content stream.
    fn receive(
        &mut self,
        file: &File,
        wanted: &Wanted<'_>,
        len: u64,
        hasher: &mut blake3::Hasher,
    ) -> Result<(), StageError> {
        match copy(self.content, file, wanted, len, hasher) {
            Ok(()) => Ok(()),
            Err(CopyError::Read(source)) => Err(StageError::Stream {
                path: wanted.path.clone(),
                source,
            }),
            Err(CopyError::Write(error)) => Err(error.into()),
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
    fn is_basis(&self, path: &RelativePath) -> Result<bool, PathError> {
        let mut walker = Walker::new(&self.store.root);
        let standing = Observer::new(&self.store.index)
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

/// Copies exactly `len` bytes, and hashes them.
fn copy(
    from: &mut (impl BufRead + ?Sized),
    mut to: &File,
    wanted: &Wanted<'_>,
    len: u64,
    hasher: &mut blake3::Hasher,
) -> Result<(), CopyError> {
    let mut left = len;
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
    Ok(())
}

/// Gives a file its mtime, and returns its status if the file system keeps that to the nanosecond.
fn date(file: &File, time: Time) -> io::Result<Option<Stat>> {
    file.set_modified(time.into())?;
    let stat = Stat::of_file(file)?;
    Ok(Some(stat).filter(|stat| stat.modified == time))
}

/// The name of an operation's slot. Operations are far fewer than a slot's number can count.
fn slot_of(index: usize) -> Vec<u8> {
    slot_name(u32::try_from(index).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
