//! Making a staged push the tree, as a whole or not at all; and going back.

use std::{io, sync::Arc};

use patchwire_protocol::{
    manifest::{Entry, Manifest},
    message::value::WireDigest,
    operation::Operation,
    path::RelativePath,
};

use crate::{
    confine::{Context, Dir, Kind, PathError, Walker},
    inventory,
    journal::{self, CommitRecord, Direction, Journal},
    stage::{Staged, kept, nest::Place},
    step::{Action, Ground, Step},
    store::{KEPT, Store, StoreError, UNDO, UNSAVED, damaged},
    time::Time,
};

mod steps;

use steps::{Removal, plan_steps};

/// How often a commit is planned again because the tree changed under it.
const ATTEMPTS: usize = 4;

/// Where a commit or a roll back is, for a caller that keeps the app from seeing half of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The tree is about to change.
    Opens,
    /// The tree has changed, or is as it was. Called once for each [`Window::Opens`].
    Closes,
}

/// A push that is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Paths of the push that someone had changed on this side since the last commit: replaced, and
    /// kept for a roll back.
    pub drift: Vec<RelativePath>,
    /// Unmanaged entries that were in the way, or in a directory that is gone: kept for a roll
    /// back. What such a directory holds is not listed one by one.
    pub moved_aside: Vec<RelativePath>,
    /// What went wrong without consequence for the tree.
    pub warnings: Vec<String>,
}

/// A commit that was rolled back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolledBack {
    /// The paths that changed.
    pub paths: Vec<RelativePath>,
    /// Paths that can't come back, because someone removed the directory they were in.
    pub lost: Vec<RelativePath>,
    /// What went wrong without consequence for the tree.
    pub warnings: Vec<String>,
}

/// Tells the caller when the window opens and closes, once each, however many attempts it takes.
struct Gate<'a> {
    window: &'a mut dyn FnMut(Window),
    is_open: bool,
}

impl<'a> Gate<'a> {
    fn new(window: &'a mut dyn FnMut(Window)) -> Self {
        Self {
            window,
            is_open: false,
        }
    }

    fn open(&mut self) {
        if !std::mem::replace(&mut self.is_open, true) {
            (self.window)(Window::Opens);
        }
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.is_open, false) {
            (self.window)(Window::Closes);
        }
    }
}

/// A change that was made.
struct Changed {
    lost: Vec<RelativePath>,
    warnings: Vec<String>,
}

/// Why a tree did not change.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A file operation failed. The tree is as it was before.
    #[error("the tree could not be changed")]
    Undone(#[from] PathError),
    /// A file operation failed, and so did taking the change back. The tree is half changed until
    /// the store is opened again.
    #[error("the tree could be changed only in part, and not be restored ({change})")]
    HalfMade {
        /// Why the change was not made.
        change: PathError,
        /// Why it was not taken back.
        #[source]
        restore: PathError,
    },
    /// What was staged is for a tree that no longer stands.
    #[error("another tree was committed since this was staged")]
    Stale,
    /// A file that the push took as it was has changed since.
    #[error("{path:?}, which the push builds on, has changed on this side")]
    Basis {
        /// The file.
        path: RelativePath,
    },
    /// There is no commit to go back from, or none before it.
    #[error("there is no earlier tree to roll back to")]
    NothingToRollBack,
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Makes a staged push the tree that stands.
    ///
    /// Everything is planned, journaled and synced before `window` opens; between its opening and
    /// closing are only renames. `meta` is kept with the record for the caller.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; but for [`CommitError::HalfMade`] the tree is as it was before.
    pub fn commit(
        &mut self,
        mut staged: Staged,
        meta: &[u8],
        window: &mut dyn FnMut(Window),
    ) -> Result<Committed, CommitError> {
        self.check_whole()?;
        if staged.sequence != self.next_sequence() {
            return Err(CommitError::Stale);
        }
        let mut gate = Gate::new(window);
        let result = self.attempt_commit(&mut staged, meta, &mut gate);
        gate.close();
        match &result {
            Ok(_) | Err(CommitError::HalfMade { .. }) => staged.hand_over(),
            Err(CommitError::Stale | CommitError::Basis { .. }) => {}
            Err(_) => staged.give_up(),
        }
        result
    }

    fn attempt_commit(
        &mut self,
        staged: &mut Staged,
        meta: &[u8],
        gate: &mut Gate<'_>,
    ) -> Result<Committed, CommitError> {
        let mut removal = Removal::Whole;
        for attempt in 1.. {
            let planned = plan_steps(self, staged, removal)?;
            let journal = Journal {
                sequence: staged.sequence,
                direction: Direction::Forward,
                slots: staged.sequence,
                steps: planned.steps,
                previous: self.record.clone(),
                former: journal::changes(&staged.target, &self.managed),
            };
            let record = CommitRecord {
                sequence: staged.sequence,
                push_id: staged.push_id,
                meta: meta.to_vec(),
                root: WireDigest(staged.root),
                verified: false,
                gone: planned.gone,
            };
            let tree = Arc::clone(&staged.target);
            match self.change(journal, record, tree, &staged.slots, gate) {
                Ok(changed) => {
                    self.trust_nested(staged);
                    return Ok(Committed {
                        drift: planned.drift,
                        moved_aside: planned.moved_aside,
                        warnings: changed.warnings,
                    });
                }
                Err(CommitError::Undone(error)) if attempt < ATTEMPTS => {
                    // Overlay file systems refuse to rename directories of their lower layers.
                    match error.source.kind() {
                        io::ErrorKind::CrossesDevices => removal = Removal::EachEntry,
                        // The app made something while we looked.
                        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {}
                        _ => return Err(CommitError::Undone(error)),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(CommitError::Stale)
    }

    /// Brings the tree back that stood before the last commit, with everything that was moved aside.
    /// Files that come back get a new mtime. Once only: what a roll back undid can't be redone.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; but for [`CommitError::HalfMade`] the tree is as it was before.
    pub fn roll_back(&mut self, window: &mut dyn FnMut(Window)) -> Result<RolledBack, CommitError> {
        self.check_whole()?;
        let undo = self.undo.clone();
        let undo = undo.filter(|undo| undo.direction == Direction::Forward);
        let Some((undo, previous)) = undo.and_then(|mut undo| {
            let previous = undo.previous.take()?;
            Some((undo, previous))
        }) else {
            return Err(CommitError::NothingToRollBack);
        };
        let sequence = self.next_sequence();
        let mut paths: Vec<_> = undo.steps.iter().map(|step| step.path.clone()).collect();
        paths.sort_unstable();
        paths.dedup();
        let slots_name = undo.slots_name();
        let slots = self.staging.open_dir(&slots_name);
        let slots =
            slots.map_err(|error| StoreError::from(PathError::new("open", &slots_name, error)))?;
        let former = undo.former.iter();
        let former = former.map(|(path, entry)| (path, entry.as_ref()));
        let tree = self.managed.with_sorted_changes(former);
        // The tree it gives was one before.
        let tree = tree.map_err(|_| damaged(UNDO))?;
        let record = CommitRecord {
            sequence,
            gone: self.gone_by_rolling_back(&undo),
            ..previous
        };
        let journal = Journal {
            sequence,
            direction: Direction::Back,
            ..undo
        };
        let mut gate = Gate::new(window);
        let changed = self.change(journal, record, Arc::new(tree), &slots, &mut gate);
        gate.close();
        let changed = changed?;
        Ok(RolledBack {
            paths,
            lost: changed.lost,
            warnings: changed.warnings,
        })
    }

    /// Writes the journal, does its steps, and writes the record of the tree that they make; or
    /// leaves all as it was, and the gate open.
    fn change(
        &mut self,
        journal: Journal,
        record: CommitRecord,
        tree: Arc<Manifest>,
        slots: &Dir,
        gate: &mut Gate<'_>,
    ) -> Result<Changed, CommitError> {
        if let Err(error) = slots.sync().and_then(|()| self.staging.sync()) {
            return Err(CommitError::Undone(PathError::new(
                "sync", "staging", error,
            )));
        }
        if let Err(error) = self.write_journal(&journal) {
            // It may be there all the same, if only its directory could not be synced.
            return Err(self.give_up(&journal, error));
        }
        let paths = journal.former.iter().map(|(path, _)| path);
        let changes: Vec<_> = paths.clone().map(|path| (path, tree.get(path))).collect();
        let former = journal.former.iter().filter_map(|(_, old)| old.as_ref());
        let mut entries = former.chain(changes.iter().filter_map(|(_, new)| *new));
        if entries.any(Entry::is_directory) {
            self.vigil.directories_changed();
        }
        gate.open();
        let ground = Ground {
            root: &self.root,
            slots,
            fault: &self.fault,
        };
        let moved = match journal.direction {
            Direction::Forward => ground
                .apply_all(&journal.steps)
                .map(|times| (Vec::new(), times)),
            Direction::Back => ground
                .revert_all(&journal.steps)
                .map(|lost| (lost, Vec::new())),
        };
        let (lost, times) = match moved {
            Ok(moved) => moved,
            Err(error) => return Err(self.give_up(&journal, error)),
        };
        gate.close();
        let synced = ground.sync(&journal.steps);
        if let Err(error) = synced.and_then(|()| self.append_record(&record, &changes)) {
            gate.open();
            return Err(self.give_up(&journal, error));
        }
        drop(changes);
        self.record = Some(record);
        self.managed = tree;
        for path in paths {
            self.index.forget(path);
        }
        self.trust_files(&journal.steps, &times);
        let mut warnings = Vec::new();
        let mut note = |done: Result<(), PathError>| {
            if let Err(error) = done {
                warnings.push(format!("{error}: {}", error.source));
            }
        };
        note(self.keep_journal());
        self.undo = Some(journal);
        note(kept::clear(&self.state).context("remove", KEPT));
        note(self.sweep());
        note(self.fold_record());
        self.save_index(None);
        Ok(Changed { lost, warnings })
    }

    /// Remembers the digests of the files that steps put in place with these mtimes, so that they
    /// need not be read.
    fn trust_files(&mut self, steps: &[Step], times: &[Option<Time>]) {
        let mut walker = Walker::new(&self.root);
        for (step, time) in steps.iter().zip(times) {
            if let (Some(time), Some(Entry::File { len, digest, .. })) =
                (time, self.managed.get(&step.path))
                && let Ok(Some(stat)) = inventory::find(&mut walker, &step.path)
                && (stat.kind, stat.len, stat.modified) == (Kind::File, *len, *time)
            {
                self.index.trust(&step.path, &stat, *digest);
            }
        }
    }

    /// As [`Self::trust_files`], for those that came with their directories.
    fn trust_nested(&mut self, staged: &mut Staged) {
        let mut nested = std::mem::take(&mut staged.nested);
        let (operations, places) = (&staged.operations, &staged.places);
        nested.sort_unstable_by_key(|(index, _)| operations[*index].path());
        let files = nested.iter().filter_map(|(index, stat)| {
            let Operation::Put {
                path,
                entry: Entry::File { digest, .. },
                ..
            } = &operations[*index]
            else {
                return None;
            };
            let came_so = matches!(places[*index], Place::Inside { .. });
            came_so.then_some((path, stat, *digest))
        });
        if nested.len() < UNSAVED {
            for (path, stat, digest) in files {
                self.index.trust(path, stat, digest);
            }
            return self.save_index(None);
        }
        // All that is known will be written: there is no need to learn one after the other.
        self.index.trust_all(files);
        self.index.retain(&self.managed);
        self.write_index();
    }

    /// Takes a change back that failed with `change`.
    fn give_up(&mut self, journal: &Journal, change: PathError) -> CommitError {
        // The record first: while it names the tree from before, a crash leads back there. On a disk
        // in trouble it can't be cut, and most often need not be.
        let restore = match self.cut_record() {
            Err(_) if self.stands_without(journal) => Ok(()),
            written => written,
        };
        let restore = restore
            .and_then(|()| self.take_back(journal))
            .and_then(|lost| {
                for path in lost {
                    tracing::warn!("{path:?} can't come back: its directory was removed");
                }
                self.drop_journal()
            });
        match restore {
            Ok(()) => CommitError::Undone(change),
            Err(restore) => {
                self.half_made = true;
                CommitError::HalfMade { change, restore }
            }
        }
    }

    /// The last mtimes of the files that a roll back takes away, and of those gone earlier.
    fn gone_by_rolling_back(&self, undo: &Journal) -> Vec<(RelativePath, Time)> {
        let created = undo
            .steps
            .iter()
            .filter(|step| matches!(step.action, Action::Create { .. }));
        let mut gone = self
            .record
            .as_ref()
            .map_or_else(Vec::new, |record| record.gone.clone());
        gone.extend(created.filter_map(|step| {
            let parent = self.root.walk_to_parent(&step.path).ok()?;
            let stat = parent.find(step.path.name()).ok()??;
            (stat.kind == Kind::File).then(|| (step.path.clone(), stat.modified))
        }));
        retain_recent(&mut gone);
        gone
    }
}

/// Leaves out what any mtime from now on is later than.
fn retain_recent(gone: &mut Vec<(RelativePath, Time)>) {
    let now = Time::now();
    gone.retain(|(_, last)| last.plus_seconds(1) > now);
}

#[cfg(test)]
mod tests;
