//! One step of a commit, done and undone; both may be repeated.
//!
//! Every step owns the names `N`, `N.old` and `N.aside` in its push's slots: what the step puts
//! into the tree waits in `N`, and what it takes out of the tree is kept there. What a step has
//! done is told from the slots alone (a name that exists, an inode), never from a list of steps
//! done, so that a journal written once, before the first step, is enough to go either way after a
//! crash at any point, recovery included.

use std::io;

use patchwire_protocol::{
    codec::{self, Decode, Encode},
    path::RelativePath,
};

use crate::{
    confine::{Context, Dir, Kind, PathError, no_such_place, unsupported},
    fault::Fault,
    time::Time,
};

/// One change of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "codec::bincode")]
pub(crate) struct Step {
    pub(crate) path: RelativePath,
    /// The number of the step's slot.
    pub(crate) slot: u32,
    pub(crate) action: Action,
}

/// What a step does at its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "codec::bincode")]
pub(crate) enum Action {
    /// Puts the slot's content where nothing is. Done if the slot is empty.
    Create {
        /// The earliest mtime a file may get: later than any that the path had.
        floor: Time,
    },
    /// Exchanges the slot's content, neither it nor the other a directory. Done if the slot doesn't
    /// hold the inode that was staged.
    Replace {
        /// The inode that was staged; another than the one it replaces.
        staged: u64,
    },
    /// Moves what is there into the slot, a directory with all that it holds. Done if the slot is
    /// full.
    Remove,
    /// Removes a directory that is empty by then, where directories can't be renamed. Done if it
    /// isn't there.
    RemoveDirectory {
        /// Its mode.
        mode: u32,
    },
    /// Changes the mode of a directory.
    SetMode {
        /// Before.
        from: u32,
        /// After.
        to: u32,
    },
}

/// Where steps are done.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) root: &'a Dir,
    pub(crate) slots: &'a Dir,
    pub(crate) fault: &'a Fault,
}

impl Ground<'_> {
    /// Does all steps in order. Returns for each the mtime of the file that it put in place.
    pub(crate) fn apply_all(&self, steps: &[Step]) -> Result<Vec<Option<Time>>, PathError> {
        let apply = |step: &Step| self.apply(step).context("change", step.path.as_bytes());
        steps.iter().map(apply).collect()
    }

    /// Undoes all steps, last to first, as far as they were done. Returns the paths that can't come
    /// back, because someone else removed the directory they were in.
    pub(crate) fn revert_all(&self, steps: &[Step]) -> Result<Vec<RelativePath>, PathError> {
        let mut lost = Vec::new();
        for step in steps.iter().rev() {
            match self.revert(step) {
                Err(error) if no_such_place(&error) => lost.push(step.path.clone()),
                result => result.context("restore", step.path.as_bytes())?,
            }
        }
        Ok(lost)
    }

    /// Makes the steps last.
    pub(crate) fn sync(&self, steps: &[Step]) -> Result<(), PathError> {
        /// From how many directories on one sync of the whole file system is cheaper.
        const MANY: usize = 16;
        let mut parents: Vec<_> = steps.iter().map(|step| step.path.parent()).collect();
        parents.sort_unstable();
        parents.dedup();
        if parents.len() > MANY {
            return self.slots.sync_file_system().context("sync", b".");
        }
        for parent in parents {
            let (dir, name) = match &parent {
                None => (self.root.try_clone(), &b"."[..]),
                Some(parent) => (self.root.walk(parent), parent.as_bytes()),
            };
            match dir.and_then(|dir| dir.sync()) {
                // It went with a step, or the directory that holds it did.
                Err(error) if no_such_place(&error) => {}
                result => result.context("sync", name)?,
            }
        }
        self.slots.sync().context("sync", b"the slots")
    }

    fn apply(&self, step: &Step) -> io::Result<Option<Time>> {
        let (slot, name) = (slot_name(step.slot), step.path.name());
        let parent = match self.root.walk_to_parent(&step.path) {
            Err(error) if no_such_place(&error) && step.action.is_removal() => return Ok(None),
            result => result?,
        };
        let mut put = None;
        self.fault.point("step")?;
        match step.action {
            Action::Create { floor } => {
                if let Some(staged) = self.slots.find(&slot)? {
                    if staged.kind == Kind::File {
                        let time = Time::now().max(floor);
                        self.slots.set_modified(&slot, time)?;
                        put = Some(time);
                    }
                    self.fault.point("create")?;
                    self.put_back(&slot, &parent, name)?;
                }
            }
            Action::Replace { staged } => put = self.replace(&slot, staged, &parent, name)?,
            Action::Remove => {
                if self.slots.find(&slot)?.is_none() {
                    let standing = parent.find(name)?;
                    self.fault
                        .point(match standing.map(|standing| standing.kind) {
                            Some(Kind::Directory) => "rename directory",
                            _ => "remove",
                        })?;
                    if_there(parent.rename_new(name, self.slots, &slot))?;
                }
            }
            Action::RemoveDirectory { .. } => if_there(parent.remove_dir(name))?,
            Action::SetMode { to, .. } => parent.open_dir(name)?.set_mode(to)?,
        }
        self.fault.point("stepped")?;
        Ok(put)
    }

    fn revert(&self, step: &Step) -> io::Result<()> {
        let (slot, name) = (slot_name(step.slot), step.path.name());
        self.fault.point("step back")?;
        match step.action {
            Action::Create { .. } => {
                let Ok(parent) = self.root.walk_to_parent(&step.path) else {
                    return Ok(());
                };
                if self.slots.find(&slot)?.is_none() {
                    if_there(parent.rename_new(name, self.slots, &slot))?;
                    self.fault.point("uncreated")?;
                }
                let aside = aside_name(step.slot);
                if_there(self.slots.rename_new(&aside, &parent, name))?;
            }
            Action::Replace { staged } => {
                let parent = self.root.walk_to_parent(&step.path)?;
                self.replace_back(step.slot, staged, &parent, name)?;
            }
            Action::Remove => {
                if let Some(kept) = self.slots.find(&slot)? {
                    let parent = self.root.walk_to_parent(&step.path)?;
                    if kept.kind == Kind::File {
                        let time = Time::now().max(kept.modified.plus_seconds(1));
                        self.slots.set_modified(&slot, time)?;
                    }
                    self.fault.point("put back")?;
                    self.put_back(&slot, &parent, name)?;
                }
            }
            Action::RemoveDirectory { mode } => {
                let parent = self.root.walk_to_parent(&step.path)?;
                if parent.find(name)?.is_none() {
                    parent.make_dir(name)?;
                    parent.open_dir(name)?.set_mode(mode)?;
                }
            }
            Action::SetMode { from, .. } => {
                // Where it isn't there, the step that made it was not done.
                let dir = self
                    .root
                    .walk_to_parent(&step.path)
                    .and_then(|parent| parent.open_dir(name));
                match dir {
                    Err(error) if no_such_place(&error) => {}
                    dir => dir?.set_mode(from)?,
                }
            }
        }
        self.fault.point("stepped back")
    }

    /// Moves a slot's content to its path. What someone put there meanwhile is kept aside.
    fn put_back(&self, slot: &[u8], parent: &Dir, name: &[u8]) -> io::Result<()> {
        match self.slots.rename_new(slot, parent, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let aside = [slot, b".aside"].concat();
                parent.rename_new(name, self.slots, &aside)?;
                self.slots.rename_new(slot, parent, name)
            }
            result => result,
        }
    }

    /// Puts what was staged in the place of what stands there, and returns its mtime.
    fn replace(
        &self,
        slot: &[u8],
        staged: u64,
        parent: &Dir,
        name: &[u8],
    ) -> io::Result<Option<Time>> {
        match self.slots.find(slot)? {
            Some(stat) if stat.inode == staged => {}
            _ => return Ok(None),
        }
        let old = [slot, b".old"].concat();
        let standing = parent.find(name)?.or(self.slots.find(&old)?);
        let floor = standing.map(|standing| standing.modified.plus_seconds(1));
        let time = Time::now().max(floor.unwrap_or_default());
        self.slots.set_modified(slot, time)?;
        self.fault.point("replace")?;
        if parent.find(name)?.is_none() {
            self.put_back(slot, parent, name)?;
            return Ok(Some(time));
        }
        match self.exchange(slot, parent, name) {
            Err(error) if unsupported(&error) => {
                parent.rename_new(name, self.slots, &old)?;
                self.fault.point("between two renames")?;
                self.put_back(slot, parent, name)?;
            }
            result => result?,
        }
        Ok(Some(time))
    }

    fn replace_back(&self, slot: u32, staged: u64, parent: &Dir, name: &[u8]) -> io::Result<()> {
        let (slot, old) = (slot_name(slot), [&slot_name(slot)[..], b".old"].concat());
        let waiting = self.slots.find(&slot)?;
        let kept = match waiting {
            Some(stat) if stat.inode == staged => None,
            Some(stat) => Some((&slot, stat)),
            None => {
                // Done with two renames: first make the slot as it was staged.
                if_there(parent.rename_new(name, self.slots, &slot))?;
                self.fault.point("between two renames back")?;
                None
            }
        };
        let kept = match kept {
            Some(kept) => Some(kept),
            None => self.slots.find(&old)?.map(|stat| (&old, stat)),
        };
        let Some((from, stat)) = kept else {
            return Ok(());
        };
        let standing = parent.find(name)?;
        let newest = standing.map_or(stat.modified, |standing| {
            standing.modified.max(stat.modified)
        });
        let time = Time::now().max(newest.plus_seconds(1));
        self.slots.set_modified(from, time)?;
        self.fault.point("replace back")?;
        if standing.is_some() && *from == slot {
            self.exchange(&slot, parent, name)
        } else {
            self.put_back(from, parent, name)
        }
    }

    fn exchange(&self, slot: &[u8], parent: &Dir, name: &[u8]) -> io::Result<()> {
        self.fault.point("exchange")?;
        self.slots.exchange(slot, parent, name)?;
        self.fault.point("exchanged")
    }
}

impl Action {
    const fn is_removal(self) -> bool {
        matches!(self, Self::Remove | Self::RemoveDirectory { .. })
    }
}

/// The name of a slot in its push's directory.
pub(crate) fn slot_name(slot: u32) -> Vec<u8> {
    slot.to_string().into_bytes()
}

fn aside_name(slot: u32) -> Vec<u8> {
    format!("{slot}.aside").into_bytes()
}

/// What isn't there need not be taken away.
fn if_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
