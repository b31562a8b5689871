//! From the operations of a push, and what really stands on the disk, to steps.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
};

use patchwire_protocol::{
    limits,
    manifest::{Entry, Manifest, Mode},
    operation::Operation,
    path::RelativePath,
};

use super::{CommitError, retain_recent};
use crate::{
    confine::{Context, Dir, Kind, PathError, Stat, Walker},
    inventory::{self, Observer},
    stage::{
        Staged,
        nest::{self, Place},
        stage_directory,
    },
    step::{Action, Step, slot_name},
    store::Store,
    time::Time,
};

/// How directories are taken out of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// With one rename, with whatever they hold.
    Whole,
    /// Entry by entry, where the file system refuses to rename them.
    EachEntry,
}

#[derive(Debug)]
pub(super) struct Planned {
    pub(super) steps: Vec<Step>,
    pub(super) drift: Vec<RelativePath>,
    pub(super) moved_aside: Vec<RelativePath>,
    pub(super) gone: Vec<(RelativePath, Time)>,
}

/// Plans a commit. Removals come first, deepest first; then what is put, parents first.
pub(super) fn plan_steps(
    store: &Store,
    staged: &mut Staged,
    removal: Removal,
) -> Result<Planned, CommitError> {
    let record = store.record.as_ref();
    let by_path = nest::by_path(&staged.operations);
    let mut planner = Planner {
        walker: Walker::new(&store.root),
        observer: Observer::new(&store.index),
        slots: &staged.slots,
        base: &store.managed,
        first: record.is_none(),
        target: &staged.target,
        removal,
        next_slot: slot_number(staged.operations.len()),
        taken_out: Vec::new(),
        put: Vec::new(),
        opened: BTreeMap::new(),
        final_modes: BTreeMap::new(),
        known_directories: HashSet::new(),
        created: HashSet::new(),
        left: HashSet::new(),
        drift: BTreeSet::new(),
        moved_aside: BTreeSet::new(),
        gone: record.map_or_else(BTreeMap::new, |r| r.gone.iter().cloned().collect()),
    };
    planner.find_left(&staged.operations, &by_path)?;
    let (operations, places) = (&staged.operations, &mut staged.places);
    for &index in &by_path {
        let slot = slot_number(index);
        let (path, entry) = match &operations[index] {
            Operation::Delete { path } => {
                planner.delete(path, slot)?;
                continue;
            }
            Operation::Put { path, entry, .. } => (path, entry),
        };
        match places[index] {
            // Taken as it stands when it was staged.
            Place::Nowhere => planner.keep(path, entry)?,
            Place::Slot => {
                let is_there = planner.put(path, entry, slot)?;
                if is_there {
                    nest::unpack(&staged.slots, operations, &by_path, places, index)?;
                }
            }
            Place::Inside { .. } => planner.put_inside(path),
        }
    }
    Ok(planner.finish())
}

struct Planner<'a> {
    walker: Walker<'a>,
    observer: Observer<'a>,
    slots: &'a Dir,
    base: &'a Manifest,
    /// Nothing was ever committed: nothing that stands there is drift.
    first: bool,
    target: &'a Manifest,
    removal: Removal,
    next_slot: u32,
    taken_out: Vec<Step>,
    put: Vec<Step>,
    /// Directories that have to be made writable for the time of the commit, and their modes.
    opened: BTreeMap<RelativePath, u32>,
    /// Directories that get another mode once all is in place: from and to.
    final_modes: BTreeMap<RelativePath, (u32, u32)>,
    /// Directories above put paths that are there, or will be.
    known_directories: HashSet<RelativePath>,
    created: HashSet<RelativePath>,
    /// Directories that were never pushed and are to go, but hold something that stays.
    left: HashSet<RelativePath>,
    drift: BTreeSet<RelativePath>,
    moved_aside: BTreeSet<RelativePath>,
    gone: BTreeMap<RelativePath, Time>,
}

impl Planner<'_> {
    /// Finds the directories that a mirror can't take away, as they hold what it leaves.
    fn find_left(&mut self, operations: &[Operation], by_path: &[usize]) -> Result<(), PathError> {
        let beside = |index: &usize| match &operations[*index] {
            Operation::Delete { path } if self.base.get(path).is_none() => Some(path),
            _ => None,
        };
        let deleted: Vec<&RelativePath> = by_path.iter().filter_map(beside).collect();
        for path in deleted.iter().rev() {
            let dir = self
                .walker
                .parent_of(path)
                .and_then(|parent| parent.open_dir(path.name()));
            let Ok(dir) = dir else { continue };
            let goes = |name: &Vec<u8>| {
                let inner = path.join(name);
                inner.is_ok_and(|inner| {
                    deleted.binary_search(&&inner).is_ok() && !self.left.contains(&inner)
                })
            };
            let names = dir.list().context("list", path.as_bytes())?;
            if !names.iter().all(goes) {
                self.left.insert((*path).clone());
            }
        }
        Ok(())
    }

    fn delete(&mut self, path: &RelativePath, slot: u32) -> Result<(), PathError> {
        if self.left.contains(path) {
            return Ok(());
        }
        // What a mirror takes away is nobody's drift.
        if self.base.get(path).is_some() {
            self.note_drift(path)?;
        }
        if let Some(stat) = self.find(path)? {
            self.take_out(path, slot, &stat)?;
        }
        Ok(())
    }

    fn keep(&mut self, path: &RelativePath, entry: &Entry) -> Result<(), CommitError> {
        match self.observe(path)?.as_ref() == Some(entry) {
            true => Ok(()),
            false => Err(CommitError::Basis { path: path.clone() }),
        }
    }

    /// Tells whether it is a directory, and one is there already.
    fn put(&mut self, path: &RelativePath, entry: &Entry, slot: u32) -> Result<bool, PathError> {
        self.heal_directories(path)?;
        self.note_drift(path)?;
        let standing = self.find(path)?;
        if let Entry::Directory { mode } = entry {
            self.known_directories.insert(path.clone());
            return self.put_directory(path, *mode, slot, standing);
        }
        if let Some(standing) = standing {
            let staged = self.slots.stat(&slot_name(slot));
            let staged = staged
                .context("find what was staged for", path.as_bytes())?
                .inode;
            // Of equal numbers, as two layers of an overlay may have, the step couldn't tell
            // whether it was done.
            if standing.kind != Kind::Directory && standing.inode != staged {
                self.touch_parent(path)?;
                self.push_put(path, slot, Action::Replace { staged });
                return Ok(false);
            }
            let spare = self.spare_slot();
            self.take_out(path, spare, &standing)?;
        }
        self.create(path, slot)?;
        Ok(false)
    }

    /// What comes with the directory that it is in, which isn't there: what was committed in that is
    /// gone by someone's doing.
    fn put_inside(&mut self, path: &RelativePath) {
        self.gone.remove(path);
        if self.base.get(path).is_some() {
            self.drift.insert(path.clone());
        }
    }

    fn put_directory(
        &mut self,
        path: &RelativePath,
        mode: Mode,
        slot: u32,
        standing: Option<Stat>,
    ) -> Result<bool, PathError> {
        if let Some(standing) = standing {
            if standing.kind == Kind::Directory {
                let to = standing.mode & !0o777 | mode.bits();
                if to != standing.mode {
                    self.final_modes.insert(path.clone(), (standing.mode, to));
                }
                return Ok(true);
            }
            let spare = self.spare_slot();
            self.take_out(path, spare, &standing)?;
        }
        let staged = mode.bits() | 0o700;
        if staged != mode.bits() {
            self.final_modes.insert(path.clone(), (staged, mode.bits()));
        }
        self.created.insert(path.clone());
        self.create(path, slot)?;
        Ok(false)
    }

    fn create(&mut self, path: &RelativePath, slot: u32) -> Result<(), PathError> {
        let floor = self.gone.remove(path);
        let floor = floor.map_or_else(Time::default, |last| last.plus_seconds(1));
        self.touch_parent(path)?;
        self.push_put(path, slot, Action::Create { floor });
        Ok(())
    }

    /// Makes sure that the directories above `path` will be there: managed ones may be missing, or
    /// be something else, by someone's doing on this side.
    fn heal_directories(&mut self, path: &RelativePath) -> Result<(), PathError> {
        let mut missing = Vec::new();
        let mut above = path.parent();
        while let Some(dir) = above.filter(|dir| !self.known_directories.contains(dir)) {
            above = dir.parent();
            missing.push(dir);
        }
        for dir in missing.into_iter().rev() {
            let standing = self.find(&dir)?;
            if standing.is_none_or(|stat| stat.kind != Kind::Directory)
                && let Some(Entry::Directory { mode }) = self.target.get(&dir)
            {
                self.drift.insert(dir.clone());
                let slot = self.spare_slot();
                let name = slot_name(slot);
                if self.slots.find(&name).context("find", &name)?.is_some() {
                    // Of an earlier attempt.
                    self.slots.remove_all(&name).context("remove", &name)?;
                }
                stage_directory(self.slots, &name, *mode)?;
                self.put_directory(&dir, *mode, slot, standing)?;
            }
            self.known_directories.insert(dir);
        }
        Ok(())
    }

    /// Notes a path of the push where not what was committed stands.
    fn note_drift(&mut self, path: &RelativePath) -> Result<(), PathError> {
        if self.first {
            return Ok(());
        }
        let there = self.observe(path)?;
        let committed = self.base.get(path);
        if committed.is_some() && there.as_ref() != committed {
            self.drift.insert(path.clone());
        }
        // A directory that someone made in advance takes nothing from them.
        let in_the_way = match self.target.get(path) {
            Some(Entry::Directory { .. }) => there.is_some_and(|entry| !entry.is_directory()),
            _ => self.find(path)?.is_some(),
        };
        if committed.is_none() && in_the_way {
            self.drift.insert(path.clone());
            self.moved_aside.insert(path.clone());
        }
        Ok(())
    }

    fn take_out(&mut self, path: &RelativePath, slot: u32, stat: &Stat) -> Result<(), PathError> {
        self.touch_parent(path)?;
        if stat.kind == Kind::File {
            let last = self.gone.entry(path.clone()).or_default();
            *last = (*last).max(stat.modified);
        }
        if stat.kind == Kind::Directory {
            return self.take_out_directory(path, slot, stat);
        }
        self.push_taken_out(path, slot, Action::Remove);
        Ok(())
    }

    fn take_out_directory(
        &mut self,
        path: &RelativePath,
        slot: u32,
        stat: &Stat,
    ) -> Result<(), PathError> {
        if stat.mode & 0o700 != 0o700 {
            self.opened.insert(path.clone(), stat.mode);
        }
        let dir = self
            .walker
            .parent_of(path)
            .and_then(|parent| parent.open_dir(path.name()))
            .context("open", path.as_bytes())?;
        let managed = self.base.get(path).is_some_and(Entry::is_directory);
        for name in dir.list().context("list", path.as_bytes())? {
            let inner = match path.join(&name) {
                Ok(inner) => inner,
                Err(_) if self.removal == Removal::Whole => continue,
                Err(error) => {
                    let error = io::Error::new(io::ErrorKind::InvalidInput, error);
                    return Err(PathError::new("move aside", path.as_bytes(), error));
                }
            };
            // What is managed in a directory that goes has an operation of its own.
            if self.base.get(&inner).is_some() && self.target.get(&inner).is_none() {
                continue;
            }
            if managed && !self.first && self.moved_aside.len() < limits::LISTED {
                self.moved_aside.insert(inner.clone());
            }
            if self.removal == Removal::EachEntry {
                let stat = dir.stat(&name).context("look at", inner.as_bytes())?;
                let spare = self.spare_slot();
                self.take_out(&inner, spare, &stat)?;
            }
        }
        let action = match self.removal {
            Removal::Whole => Action::Remove,
            Removal::EachEntry => Action::RemoveDirectory { mode: stat.mode },
        };
        self.push_taken_out(path, slot, action);
        Ok(())
    }

    /// Notes that something is renamed in the directory that holds `path`.
    fn touch_parent(&mut self, path: &RelativePath) -> Result<(), PathError> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        if self.created.contains(&parent) || self.opened.contains_key(&parent) {
            return Ok(());
        }
        if let Some(stat) = self.find(&parent)?
            && stat.kind == Kind::Directory
            && stat.mode & 0o700 != 0o700
        {
            self.opened.insert(parent, stat.mode);
        }
        Ok(())
    }

    fn finish(mut self) -> Planned {
        let removed: HashSet<&RelativePath> =
            self.taken_out.iter().map(|step| &step.path).collect();
        let mut steps = Vec::new();
        for (path, from) in &self.opened {
            let to = from | 0o700;
            steps.push(set_mode(path, *from, to));
            if !removed.contains(path) {
                let last = self.final_modes.get(path).map_or(*from, |(_, last)| *last);
                self.final_modes.insert(path.clone(), (to, last));
            }
        }
        self.taken_out.sort_by(|a, b| b.path.cmp(&a.path));
        steps.append(&mut self.taken_out);
        steps.append(&mut self.put);
        let finals = self.final_modes.iter().rev();
        steps.extend(finals.map(|(path, (from, to))| set_mode(path, *from, *to)));
        let mut gone: Vec<_> = self.gone.into_iter().collect();
        retain_recent(&mut gone);
        Planned {
            steps,
            drift: self.drift.into_iter().collect(),
            moved_aside: self.moved_aside.into_iter().collect(),
            gone,
        }
    }

    fn find(&mut self, path: &RelativePath) -> Result<Option<Stat>, PathError> {
        inventory::find(&mut self.walker, path).context("look at", path.as_bytes())
    }

    fn observe(&mut self, path: &RelativePath) -> Result<Option<Entry>, PathError> {
        self.observer
            .observe_at(&mut self.walker, path)
            .context("look at", path.as_bytes())
    }

    fn spare_slot(&mut self) -> u32 {
        self.next_slot += 1;
        self.next_slot - 1
    }

    fn push_put(&mut self, path: &RelativePath, slot: u32, action: Action) {
        let path = path.clone();
        self.put.push(Step { path, slot, action });
    }

    fn push_taken_out(&mut self, path: &RelativePath, slot: u32, action: Action) {
        let path = path.clone();
        self.taken_out.push(Step { path, slot, action });
    }
}

fn set_mode(path: &RelativePath, from: u32, to: u32) -> Step {
    Step {
        path: path.clone(),
        slot: 0,
        action: Action::SetMode { from, to },
    }
}

/// Operations are far fewer than a slot's number can count: see [`limits::ENTRIES`].
fn slot_number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
