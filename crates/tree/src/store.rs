//! The agent's side: a root directory, the state that belongs to it, and which tree stands there.

mod log;

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::Arc,
};

use patchwire_protocol::{
    codec,
    manifest::{Entry, Manifest},
    path::RelativePath,
};
use rustix::fs::{FlockOperation, flock};

use crate::{
    confine::{Context, Dir, PathError, Stat},
    fault::Fault,
    index::StatCache,
    inventory::vigil::Vigil,
    journal::{CommitRecord, Direction, JOURNAL_MAGIC, Journal},
    rules::RulesError,
    sealed,
    step::Ground,
    store::log::{Contents, Log},
};

/// How many files are read again after a start rather than that the stat cache is written.
pub(crate) const UNSAVED: usize = 1024;

/// The largest state file that is read, in bytes.
const MAX_STATE_FILE: u64 = 1 << 30;

const LOCK: &str = "lock";
const EPOCH: &str = "epoch";
const COMMITTED: &str = "committed";
const JOURNAL: &str = "journal";
pub(crate) const UNDO: &str = "undo";
const INDEX: &str = "index";
const STAGING: &str = "staging";
pub(crate) const KEPT: &str = "kept";
const PROBE: &[u8] = b"probe";
/// Always the same, so that one left by a crash goes with the next.
const PROBE_IN_ROOT: &[u8] = b".patchwire-probe";
const OWN_NAMES: [&str; 8] = [LOCK, EPOCH, COMMITTED, JOURNAL, UNDO, INDEX, STAGING, KEPT];

/// Why a store can't be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The rules of a mirror can't be known.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The lock of the state directory is held.
    #[error("another agent uses the state directory “{state}”")]
    InUse {
        /// The state directory, escaped.
        state: String,
    },
    /// Files can't be moved between the state directory and the root.
    #[error(
        "the state directory “{state}” is not on the root's file system: choose another with --state"
    )]
    OtherFileSystem {
        /// The state directory, escaped.
        state: String,
    },
    /// The state directory would be part of the tree.
    #[error(
        "the state directory “{state}” lies inside the root: choose one outside, or .patchwire at its top"
    )]
    InsideRoot {
        /// The state directory, escaped.
        state: String,
    },
    /// A state file was written by another version, or is damaged.
    #[error(
        "the state file “{name}” is damaged or of another version: move the state directory away to begin anew"
    )]
    Damaged {
        /// The file's name in the state directory.
        name: String,
    },
    /// Not a name for a caller's state file.
    #[error("“{name}” can't name a state file")]
    Name {
        /// The name.
        name: String,
    },
    /// An earlier change could be neither made nor taken back.
    #[error("an earlier change is half made: open the store again to take it back")]
    HalfMade,
}

/// What opening a store found unfinished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing.
    Clean,
    /// A change that had been made; its last formality was missing.
    Finished,
    /// A change half made, which was taken back: the tree is as it was before.
    TakenBack {
        /// Paths that can't come back, because someone removed the directory they were in.
        lost: Vec<RelativePath>,
    },
}

/// A root directory whose managed part changes only as a whole.
///
/// Methods block on the disk: call them where that is allowed.
#[derive(Debug)]
pub struct Store {
    pub(crate) root: Dir,
    pub(crate) state: Dir,
    pub(crate) staging: Dir,
    /// The status of the state directory, by which a scan of the root leaves it out.
    pub(crate) state_stat: Stat,
    pub(crate) index: StatCache,
    pub(crate) record: Option<CommitRecord>,
    /// The tree that the record stands for.
    pub(crate) managed: Arc<Manifest>,
    log: Log,
    /// The last change made.
    pub(crate) undo: Option<Journal>,
    pub(crate) half_made: bool,
    pub(crate) vigil: Vigil,
    pub(crate) fault: Fault,
    epoch: u64,
    _lock: Lock,
}

impl Store {
    /// Opens the store of `root` with its state in `state`, both directories that may be links;
    /// the latter is created if need be. A change that a crash interrupted is finished or taken
    /// back: the tree is wholly the new one or wholly the old one.
    ///
    /// `fresh_epoch` names this state if it is new: a random number, by which others tell that
    /// what they remember of an earlier one no longer holds.
    ///
    /// # Errors
    ///
    /// [`StoreError`], also if another process has the state open.
    pub fn open(
        root: &Path,
        state: &Path,
        fresh_epoch: u64,
    ) -> Result<(Self, Recovery), StoreError> {
        Self::open_with(root, state, fresh_epoch, Fault::default())
    }

    pub(crate) fn open_with(
        root: &Path,
        state: &Path,
        fresh_epoch: u64,
        fault: Fault,
    ) -> Result<(Self, Recovery), StoreError> {
        let real = |path: &Path| {
            path.canonicalize()
                .context("open", path.as_os_str().as_bytes())
        };
        let shown = || patchwire_protocol::path::escape(state.as_os_str().as_bytes()).to_string();
        let root_dir = Dir::open_root(root).context("open", root.as_os_str().as_bytes())?;
        let state_dir = open_state(state).context("open", state.as_os_str().as_bytes())?;
        let at_top = root_dir
            .find(patchwire_protocol::path::RESERVED)
            .context("read the status of", b".patchwire")?;
        let own = |dir: &Dir| dir.own_stat().context("read the status of", b".");
        let state_stat = own(&state_dir)?;
        let is_at_top = at_top.is_some_and(|stat| same(&stat, &state_stat));
        if !is_at_top && is_inside(&state_dir, &own(&root_dir)?).context("look around", b".")? {
            return Err(StoreError::InsideRoot { state: shown() });
        }
        let lock = lock(&state_dir).map_err(|error| match error.source.kind() {
            io::ErrorKind::WouldBlock => StoreError::InUse { state: shown() },
            _ => error.into(),
        })?;
        probe_rename(&root_dir, &state_dir).map_err(|error| match error.source.kind() {
            io::ErrorKind::CrossesDevices => StoreError::OtherFileSystem { state: shown() },
            _ => error.into(),
        })?;
        if state_dir
            .find(STAGING.as_bytes())
            .context("find", STAGING)?
            .is_none()
        {
            state_dir
                .make_dir(STAGING.as_bytes())
                .context("create", STAGING)?;
        }
        let staging = state_dir
            .open_dir(STAGING.as_bytes())
            .context("open", STAGING)?;
        let contents = read_log(&state_dir)?;
        let mut store = Self {
            epoch: 0,
            index: StatCache::default(),
            log: open_log(&state_dir, &contents).context("open", COMMITTED)?,
            record: contents.record,
            managed: Arc::new(contents.manifest),
            undo: None,
            half_made: false,
            vigil: Vigil::new(real(root)?, real(state)?),
            root: root_dir,
            state: state_dir,
            staging,
            state_stat,
            fault,
            _lock: lock,
        };
        store.load(fresh_epoch)?;
        let recovery = store.recover()?;
        store.sweep()?;
        // For its own sake: what was kept for too long goes.
        store.kept()?;
        Ok((store, recovery))
    }

    /// The number that names this state: the one it was created with.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What was committed last, unless nothing ever was.
    #[must_use]
    pub const fn committed(&self) -> Option<&CommitRecord> {
        self.record.as_ref()
    }

    /// What [`Self::roll_back`] would bring back.
    #[must_use]
    pub fn previous(&self) -> Option<&CommitRecord> {
        let undo = self.undo.as_ref()?;
        match undo.direction {
            Direction::Forward => undo.previous.as_ref(),
            Direction::Back => None,
        }
    }

    /// The managed tree: empty if nothing was ever committed.
    #[must_use]
    pub fn managed(&self) -> Arc<Manifest> {
        Arc::clone(&self.managed)
    }

    /// Notes whether the app was ready on the tree that stands. Does nothing if that is known, or
    /// there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the record can't be written.
    pub fn set_verified(&mut self, verified: bool) -> Result<(), StoreError> {
        self.check_whole()?;
        if let Some(mut record) = self.record.clone().filter(|r| r.verified != verified) {
            record.verified = verified;
            if let Err(error) = self.append_record(&record, &[]) {
                self.cut_record()?;
                return Err(error.into());
            }
            self.record = Some(record);
        }
        Ok(())
    }

    /// Opens a file of the root for reading, following no link below it.
    ///
    /// # Errors
    ///
    /// [`PathError`] if it is gone, not a regular file, or can't be read.
    pub fn open_file(&self, path: &RelativePath) -> Result<File, PathError> {
        self.root
            .walk_to_parent(path)
            .and_then(|parent| parent.open_file(path.name()))
            .context("open", path.as_bytes())
    }

    /// Keeps a small file of the caller's in the state directory, mode 0600, replaced as a whole.
    ///
    /// # Errors
    ///
    /// [`StoreError::Name`] unless `name` is of `[a-z0-9_]` and not one of the store's own.
    pub fn write_state(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_name(name)?;
        Ok(self.write_file(name, bytes)?)
    }

    /// Reads a file kept by [`Self::write_state`]; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`Self::write_state`].
    pub fn read_state(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_name(name)?;
        Ok(self.read_file(name)?)
    }

    pub(crate) fn check_whole(&self) -> Result<(), StoreError> {
        match self.half_made {
            true => Err(StoreError::HalfMade),
            false => Ok(()),
        }
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        let standing = self.record.as_ref().map_or(0, |record| record.sequence);
        let undo = self.undo.as_ref().map_or(0, |undo| undo.sequence);
        standing.max(undo) + 1
    }

    /// Tells whether the record on the disk is that of another change than `journal`'s.
    pub(crate) fn stands_without(&self, journal: &Journal) -> bool {
        let sequence = |contents: Contents| contents.record.map(|record| record.sequence);
        read_log(&self.state).is_ok_and(|contents| sequence(contents) != Some(journal.sequence))
    }

    /// Says on the disk that `changes` were made to the tree that stands, which makes it `record`'s.
    pub(crate) fn append_record(
        &mut self,
        record: &CommitRecord,
        changes: &[(&RelativePath, Option<&Entry>)],
    ) -> Result<(), PathError> {
        self.log
            .append(record, changes, &self.fault)
            .context("write", COMMITTED)
    }

    /// Takes away what [`Self::append_record`] failed to say.
    pub(crate) fn cut_record(&self) -> Result<(), PathError> {
        self.log.cut(&self.fault).context("write", COMMITTED)
    }

    /// Writes the record's file anew once it holds many changes. That it can't be costs space only.
    pub(crate) fn fold_record(&mut self) -> Result<(), PathError> {
        let Some(record) = self.record.as_ref().filter(|_| self.log.is_long()) else {
            return Ok(());
        };
        let file = self.write_temporary(COMMITTED, &[])?;
        let len = log::write(&file, record, &self.managed).context("write", COMMITTED)?;
        file.sync_all()
            .and_then(|()| self.fault.point("written"))
            .and_then(|()| self.rename_temporary(COMMITTED))
            .context("write", COMMITTED)?;
        self.log.replace(file, len);
        self.state.sync().context("sync", COMMITTED)
    }

    pub(crate) fn write_journal(&self, journal: &Journal) -> Result<(), PathError> {
        self.write_file(JOURNAL, &sealed::seal(JOURNAL_MAGIC, journal))
    }

    /// The change was made: its journal becomes what to roll back.
    pub(crate) fn keep_journal(&self) -> Result<(), PathError> {
        self.fault
            .point("keep journal")
            .and_then(|()| {
                self.state
                    .rename(JOURNAL.as_bytes(), &self.state, UNDO.as_bytes())
            })
            .and_then(|()| self.state.sync())
            .context("rename", JOURNAL)
    }

    /// The change was not made: its journal goes.
    pub(crate) fn drop_journal(&self) -> Result<(), PathError> {
        self.remove_file(JOURNAL)
    }

    /// Keeps the stat cache of what is in `known`, or managed, once there is much to keep: the rest
    /// costs time at the next start only, as does one that can't be kept.
    pub(crate) fn save_index(&mut self, known: Option<&Manifest>) {
        if self.index.unsorted() < UNSAVED {
            return;
        }
        self.index.retain(known.unwrap_or(&self.managed));
        self.write_index();
    }

    /// Keeps the stat cache as it is.
    pub(crate) fn write_index(&self) {
        let save = || {
            let file = self.write_temporary(INDEX, &[])?;
            self.index
                .write(&file)
                .and_then(|()| self.rename_temporary(INDEX))
                .context("write", INDEX)
        };
        if let Err(error) = save() {
            tracing::warn!("{error}: {}", error.source);
        }
    }

    /// Removes what no longer belongs to anything.
    pub(crate) fn sweep(&self) -> Result<(), PathError> {
        let kept = self.undo.as_ref().map(Journal::slots_name);
        for name in self.staging.list().context("list", STAGING)? {
            if Some(&name) != kept.as_ref() {
                self.staging.remove_all(&name).context("remove", &name)?;
            }
        }
        Ok(())
    }

    fn load(&mut self, fresh_epoch: u64) -> Result<(), StoreError> {
        self.undo = self.read_sealed(UNDO, JOURNAL_MAGIC)?;
        let sequence = self.record.as_ref().map_or(0, |record| record.sequence);
        if self
            .undo
            .as_ref()
            .is_some_and(|undo| undo.sequence > sequence)
        {
            return Err(damaged(COMMITTED));
        }
        let index = self.read_file(INDEX)?;
        self.index = index.map_or_else(StatCache::default, |bytes| StatCache::from_bytes(&bytes));
        self.epoch = match self.read_file(EPOCH)? {
            Some(bytes) => codec::decode_state(&bytes).map_err(|_| damaged(EPOCH))?,
            None => {
                self.write_file(EPOCH, &codec::encode(&fresh_epoch))?;
                fresh_epoch
            }
        };
        Ok(())
    }

    fn recover(&mut self) -> Result<Recovery, StoreError> {
        let Some(journal) = self.read_sealed::<Journal>(JOURNAL, JOURNAL_MAGIC)? else {
            return Ok(Recovery::Clean);
        };
        if self.record.as_ref().map(|record| record.sequence) == Some(journal.sequence) {
            self.log.sync().context("sync", COMMITTED)?;
            self.keep_journal()?;
            self.undo = Some(journal);
            return Ok(Recovery::Finished);
        }
        let lost = self.take_back(&journal)?;
        self.drop_journal()?;
        Ok(Recovery::TakenBack { lost })
    }

    /// Takes a change back that was not made, however far it went.
    pub(crate) fn take_back(&self, journal: &Journal) -> Result<Vec<RelativePath>, PathError> {
        let name = journal.slots_name();
        let slots = self.staging.open_dir(&name).context("open", &name)?;
        let ground = Ground {
            root: &self.root,
            slots: &slots,
            fault: &self.fault,
        };
        let lost = match journal.direction {
            Direction::Forward => ground.revert_all(&journal.steps)?,
            Direction::Back => {
                ground.apply_all(&journal.steps)?;
                Vec::new()
            }
        };
        ground.sync(&journal.steps)?;
        Ok(lost)
    }

    fn read_sealed<T: codec::Decode<()>>(
        &self,
        name: &str,
        magic: sealed::Magic,
    ) -> Result<Option<T>, StoreError> {
        let Some(bytes) = self.read_file(name)? else {
            return Ok(None);
        };
        match sealed::unseal(magic, &bytes) {
            Some(value) => Ok(Some(value)),
            None => Err(damaged(name)),
        }
    }

    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, PathError> {
        read_file(&self.state, name)
    }

    fn remove_file(&self, name: &str) -> Result<(), PathError> {
        let remove = || {
            self.fault.point("remove")?;
            match self.state.unlink(name.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => self.state.sync(),
            }
        };
        remove().context("remove", name)
    }

    /// Writes a state file so that it is there as a whole or not at all, also after a power cut.
    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), PathError> {
        let file = self.write_temporary(name, bytes)?;
        file.sync_all()
            .and_then(|()| self.fault.point("written"))
            .and_then(|()| self.rename_temporary(name))
            .and_then(|()| self.fault.point("renamed"))
            .and_then(|()| self.state.sync())
            .context("write", name)
    }

    /// Writes what is to become a state file.
    fn write_temporary(&self, name: &str, bytes: &[u8]) -> Result<File, PathError> {
        let temporary = temporary_name(name);
        let write = || {
            self.fault.point("write")?;
            match self.state.unlink(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = self.state.create_file(&temporary)?;
            file.write_all(bytes)?;
            Ok(file)
        };
        write().context("write", name)
    }

    fn rename_temporary(&self, name: &str) -> io::Result<()> {
        self.state
            .rename(&temporary_name(name), &self.state, name.as_bytes())
    }
}

fn temporary_name(name: &str) -> Vec<u8> {
    format!("{name}.tmp").into_bytes()
}

pub(crate) fn damaged(name: &str) -> StoreError {
    StoreError::Damaged {
        name: name.to_owned(),
    }
}

fn read_file(state: &Dir, name: &str) -> Result<Option<Vec<u8>>, PathError> {
    let read = || {
        let mut bytes = Vec::new();
        let file = state.open_file(name.as_bytes())?;
        file.take(MAX_STATE_FILE).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PathError::new("read", name, error)),
    }
}

fn read_log(state: &Dir) -> Result<Contents, StoreError> {
    let bytes = read_file(state, COMMITTED)?.unwrap_or_default();
    log::decode(&bytes).ok_or_else(|| damaged(COMMITTED))
}

/// Opens the file of records for appending; creates it if nothing was ever committed.
fn open_log(state: &Dir, contents: &Contents) -> io::Result<Log> {
    let name = COMMITTED.as_bytes();
    let file = match state.reopen_file(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = state.create_file(name)?;
            state.sync()?;
            file
        }
        file => file?,
    };
    Ok(Log::new(file, contents))
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || !name.bytes().all(allowed) || OWN_NAMES.contains(&name) {
        return Err(StoreError::Name {
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn open_state(path: &Path) -> io::Result<Dir> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    let dir = Dir::open_root(path)?;
    if dir.own_stat()?.mode & 0o777 != 0o700 {
        dir.set_mode(0o700)?;
    }
    Ok(dir)
}

fn same(a: &Stat, b: &Stat) -> bool {
    (a.device, a.inode) == (b.device, b.inode)
}

/// Tells whether `dir` lies inside the directory with the status `root`, or is it.
fn is_inside(dir: &Dir, root: &Stat) -> io::Result<bool> {
    let mut at = dir.try_clone()?;
    loop {
        let stat = at.own_stat()?;
        if same(&stat, root) {
            return Ok(true);
        }
        let above = at.open_parent()?;
        if same(&above.own_stat()?, &stat) {
            return Ok(false);
        }
        at = above;
    }
}

/// The lock of a state directory.
///
/// Given back in so many words: a child that another thread has just forked holds the descriptor
/// until it executes its program, and with it the lock.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = flock(&self.0, FlockOperation::Unlock) {
            tracing::warn!("the state directory can't be unlocked: {error}");
        }
    }
}

fn lock(state: &Dir) -> Result<Lock, PathError> {
    let name = LOCK.as_bytes();
    let open = || match state.create_file(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => state.open_file(name),
        result => result,
    };
    let lock = || {
        let file = open()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Lock(file))
    };
    lock().context("lock", name)
}

/// Finds out whether files can be moved from the state directory into the root.
///
/// By doing it: a bind mount of the same file system refuses as another file system does.
fn probe_rename(root: &Dir, state: &Dir) -> Result<(), PathError> {
    let probe = || {
        match state.create_file(PROBE) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        match state.rename_new(PROBE, root, PROBE_IN_ROOT) {
            // Left by a crash, or someone's own: that two directories are one file system is known
            // from the next start on.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            moved => {
                moved?;
                root.rename(PROBE_IN_ROOT, state, PROBE)?;
            }
        }
        state.unlink(PROBE)
    };
    probe().context("move a file between the state directory and", b"the root")
}

#[cfg(test)]
mod tests;
