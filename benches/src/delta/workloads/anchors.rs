//! The worst case of a search by anchors: their keys fit everywhere, and the strong hash nowhere.
//!
//! Made for patchwire, as `docs/delta.md` describes its format: basis and target have the same few
//! anchors again and again, each at many different places of the basis' blocks, and noise between
//! them, in which there are no others. A rolling checksum is not attacked.

use super::{
    Pair,
    selection::{GRAM, ISOLATION, KEY_LEN, SELECTED, Selection},
};
use crate::noise::Noise;

/// How long a stretch with an anchor is, and the noise before the next.
const UNIT: usize = 96;
const BETWEEN: usize = 32;

/// Where in a unit the anchor stands: nothing before the unit can make it none, nor what is behind it
/// another key.
const PLACE: usize = 24;

/// A unit, or noise instead, and the noise behind it.
const SLOT: usize = UNIT + BETWEEN;

const _: () = assert!(PLACE >= ISOLATION && PLACE + KEY_LEN <= UNIT);

/// How many different keys there are.
const KEYS: usize = 16;

/// A basis and a target of the same units in different orders, with different noise between them.
pub(super) fn pair(len: usize, block_len: usize) -> Pair {
    let mut maker = Maker::new(block_len);
    let slots = (block_len / SLOT).max(1);
    let mut basis = Vec::with_capacity(len + slots * SLOT);
    while basis.len() < len {
        // The first of a block's anchors may be the one it is found by: so a block begins with more
        // or less noise.
        let without = maker.noise.within(0..slots);
        for slot in 0..slots {
            maker.push_slot(slot >= without, &mut basis);
        }
    }
    let mut target = Vec::with_capacity(len + SLOT);
    while target.len() < len {
        maker.push_slot(true, &mut target);
    }
    basis.truncate(len);
    target.truncate(len);
    Pair::new(basis, target)
}

struct Maker {
    noise: Noise,
    selection: Selection,
    /// All begin with the same bytes, so that what comes before one may come before any.
    units: Vec<Vec<u8>>,
}

impl Maker {
    fn new(block_len: usize) -> Self {
        let selection = Selection::of(block_len);
        let mut noise = Noise::new(0x00A2_C402);
        let head = [1; GRAM - 1];
        let mut units = Vec::new();
        while units.len() < KEYS {
            let mut unit = noise.bytes(UNIT);
            unit[..head.len()].copy_from_slice(&head);
            unit[PLACE..PLACE + GRAM].copy_from_slice(&SELECTED);
            if selection.positions(&unit).eq([PLACE]) {
                units.push(unit);
            }
        }
        Self {
            noise,
            selection,
            units,
        }
    }

    /// Adds a unit and noise, or noise alone.
    fn push_slot(&mut self, has_anchor: bool, bytes: &mut Vec<u8>) {
        if has_anchor {
            bytes.extend(self.noise.pick(&self.units));
        } else {
            self.push_noise(UNIT, bytes);
        }
        self.push_noise(BETWEEN, bytes);
    }

    /// Adds noise in which nothing is selected, also not where it meets its neighbours.
    fn push_noise(&mut self, len: usize, bytes: &mut Vec<u8>) {
        let before = bytes.len();
        let head = &self.units[0][..GRAM - 1];
        loop {
            bytes.extend(self.noise.bytes(len));
            bytes.extend(head);
            let is_free = !self
                .selection
                .any(&bytes[before.saturating_sub(head.len())..]);
            bytes.truncate(if is_free { before + len } else { before });
            if is_free {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn anchors_are_those_of_the_units_and_stand_at_many_places() {
        for block_len in [512, 2048, 8192] {
            let Pair { basis, target, .. } = pair(256 << 10, block_len);
            let selection = Selection::of(block_len);
            let mut places: HashMap<&[u8], HashSet<usize>> = HashMap::new();
            for at in selection.positions(&basis) {
                assert_eq!(at % SLOT, PLACE, "block size {block_len}");
                let key = &basis[at..][..KEY_LEN];
                places.entry(key).or_default().insert(at % block_len);
            }
            assert_eq!(places.len(), KEYS);
            assert!(places.values().all(|places| places.len() >= 3));

            let anchors: Vec<usize> = selection.positions(&target).collect();
            assert_eq!(anchors.len(), target.len() / SLOT);
            let blocks: HashSet<&[u8]> = basis.chunks(block_len).collect();
            for at in anchors {
                let key = &target[at..][..KEY_LEN];
                for place in &places[key] {
                    let start = at.checked_sub(*place);
                    let window = start.and_then(|start| target[start..].get(..block_len));
                    assert!(window.is_none_or(|window| !blocks.contains(window)));
                }
            }
        }
    }
}
