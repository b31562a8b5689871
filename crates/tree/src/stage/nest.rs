//! Where the operations of a push are staged: in slots of their own, or, in a directory that is
//! wholly new, at their places in its slot, so that one rename puts all of it in the tree.

use std::{collections::HashMap, io};

use patchwire_protocol::{
    manifest::{Entry, Manifest},
    operation::Operation,
    path::RelativePath,
};

use super::slot_of;
use crate::{
    confine::{Context, Dir, Kind, PathError, Walker},
    inventory,
};

/// Where an operation is staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: it takes something away, or takes what stands as it is.
    Nowhere,
    /// In the slot with its number.
    Slot,
    /// In the slot of the directory that this operation puts, where its path says.
    Inside {
        /// The operation's index.
        top: usize,
    },
}

/// The operations of a push, by path.
pub(crate) fn by_path(operations: &[Operation]) -> Vec<usize> {
    let mut by_path: Vec<usize> = (0..operations.len()).collect();
    by_path.sort_unstable_by_key(|index| operations[*index].path());
    by_path
}

/// Says where each operation is to be staged. A directory is wholly new if neither the base nor the
/// root has one at its path.
pub(super) fn places(
    root: &Dir,
    base: &Manifest,
    operations: &[Operation],
    by_path: &[usize],
) -> Result<Vec<Place>, PathError> {
    let mut walker = Walker::new(root);
    let mut places = vec![Place::Nowhere; operations.len()];
    // For each directory in a wholly new one, and that itself, the latter's operation.
    let mut tops: HashMap<RelativePath, usize> = HashMap::new();
    for &index in by_path {
        let Operation::Put { path, entry, .. } = &operations[index] else {
            continue;
        };
        let top = path.parent().and_then(|parent| tops.get(&parent)).copied();
        places[index] = top.map_or(Place::Slot, |top| Place::Inside { top });
        if !entry.is_directory() {
            continue;
        }
        if let Some(top) = top {
            tops.insert(path.clone(), top);
        } else if !base.get(path).is_some_and(Entry::is_directory) {
            let there = inventory::find(&mut walker, path).context("look at", path.as_bytes())?;
            if there.is_none_or(|there| there.kind != Kind::Directory) {
                tops.insert(path.clone(), index);
            }
        }
    }
    Ok(places)
}

/// Finds the directories that operations are staged in; cheap where neighbours share theirs.
#[derive(Debug)]
pub(super) struct Nest<'a> {
    slots: &'a Dir,
    operations: &'a [Operation],
    /// The directory in a slot that was asked for last, by its path in the tree.
    last: Option<(RelativePath, Dir)>,
}

impl<'a> Nest<'a> {
    pub(super) const fn new(slots: &'a Dir, operations: &'a [Operation]) -> Self {
        Self {
            slots,
            operations,
            last: None,
        }
    }

    /// The directory that an operation is staged in, and its name there.
    pub(super) fn find(&mut self, index: usize, place: Place) -> io::Result<(&Dir, Vec<u8>)> {
        let path = self.operations[index].path();
        let (Place::Inside { top }, Some(parent)) = (place, path.parent()) else {
            return Ok((self.slots, slot_of(index)));
        };
        if self.last.as_ref().is_none_or(|(path, _)| *path != parent) {
            let above = self.operations[top].path().as_bytes().len();
            let inner = parent.as_bytes()[above..].split(|byte| *byte == b'/');
            let slot = self.slots.open_dir(&slot_of(top))?;
            let dir = inner
                .skip(1)
                .try_fold(slot, |dir, name| dir.open_dir(name))?;
            self.last = Some((parent, dir));
        }
        let dir = self.last.as_ref().map_or(self.slots, |(_, dir)| dir);
        Ok((dir, path.name().to_vec()))
    }
}

/// Gives what lies in the slot of the directory `top`, right below it, slots of its own: a directory
/// stands there by now.
pub(crate) fn unpack(
    slots: &Dir,
    operations: &[Operation],
    by_path: &[usize],
    places: &mut [Place],
    top: usize,
) -> Result<(), PathError> {
    let path = operations[top].path();
    let bound = |last: u8| [path.as_bytes(), &[last]].concat();
    let (start, end) = (bound(b'/'), bound(b'/' + 1));
    let at =
        |key: &[u8]| by_path.partition_point(|index| operations[*index].path().as_bytes() < key);
    let dir = slots
        .open_dir(&slot_of(top))
        .context("open", slot_of(top))?;
    // The directory right below that holds what comes now.
    let mut below: HashMap<RelativePath, usize> = HashMap::new();
    for &index in &by_path[at(&start)..at(&end)] {
        if places[index] != (Place::Inside { top }) {
            continue;
        }
        let inner = operations[index].path();
        let parent = inner.parent();
        if parent.as_ref() != Some(path) {
            let above = parent.and_then(|parent| below.get(&parent)).copied();
            let Some(above) = above else { continue };
            places[index] = Place::Inside { top: above };
            if is_directory(&operations[index]) {
                below.insert(inner.clone(), above);
            }
            continue;
        }
        let slot = slot_of(index);
        let unpack = || {
            if is_directory(&operations[index]) {
                // Only what may be written to can be moved to another directory.
                dir.make_accessible(inner.name())?;
            }
            dir.rename_new(inner.name(), slots, &slot)
        };
        unpack().context("stage", inner.as_bytes())?;
        places[index] = Place::Slot;
        if is_directory(&operations[index]) {
            below.insert(inner.clone(), index);
        }
    }
    Ok(())
}

pub(super) fn is_directory(operation: &Operation) -> bool {
    matches!(operation, Operation::Put { entry, .. } if entry.is_directory())
}
