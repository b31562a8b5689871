//! What a developer has, in three bytes for each two entries: so that an agent that is asked what it
//! has need not list what is the same.
//!
//! The entries of a tree are put into groups by a hash of their paths, and each group is summed up: the
//! sum of a hash of each of its entries, of which three bytes are given. Where an agent has the same
//! sum for a group, it takes it that both have the same entries. The hashes are the first eight bytes
//! of BLAKE3, little-endian, over a random number and the path, or the encoded entry: nobody can make
//! entries whose sums are the same. Where they are by chance, the root of the tree that is built on it
//! tells the agent so, which then lists all it has.

use patchwire_delta::Digest;

use crate::{
    codec::{self, Decode, Decoder, Encode},
    limits,
    manifest::{Manifest, ManifestEntry},
    path::RelativePath,
};

/// The length of a group's sum in bytes: a group that differs looks the same once in 2²⁴ times.
const SUM: usize = 3;

/// Entries in a group, on average. More of them cost less here, and more of the listing for each change.
const GROUP: usize = 2;

/// What a developer has, summed up by groups. See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Sketch {
    seed: u64,
    /// Of each group [`SUM`] bytes.
    sums: Vec<u8>,
}

impl Sketch {
    /// Sums up a tree. `seed` is random. Takes two short hashes for each entry.
    #[must_use]
    pub fn of(manifest: &Manifest, seed: u64) -> Self {
        let groups = (manifest.len() / GROUP).clamp(1, limits::SKETCH_GROUPS);
        Self {
            sums: sums(manifest, seed, groups),
            seed,
        }
    }

    /// How many groups there are.
    #[must_use]
    pub const fn groups(&self) -> usize {
        self.sums.len() / SUM
    }

    /// Which of its groups another tree has the same, too.
    #[must_use]
    pub fn same(&self, other: &Manifest) -> Vec<bool> {
        let theirs = sums(other, self.seed, self.groups());
        let both = self.sums.chunks(SUM).zip(theirs.chunks(SUM));
        both.map(|(ours, theirs)| ours == theirs).collect()
    }

    /// Which group a path is in.
    #[must_use]
    pub fn group(&self, path: &RelativePath) -> usize {
        group(path, self.seed, self.groups())
    }
}

fn sums(manifest: &Manifest, seed: u64, groups: usize) -> Vec<u8> {
    let mut sums = vec![0u64; groups];
    for entry in manifest.entries() {
        let sum = &mut sums[group(&entry.path, seed, groups)];
        *sum = sum.wrapping_add(hash(seed, &codec::encode::<ManifestEntry>(entry)));
    }
    let first = |sum: u64| sum.to_be_bytes().into_iter().take(SUM);
    sums.into_iter().flat_map(first).collect()
}

fn group(path: &RelativePath, seed: u64, groups: usize) -> usize {
    let group = hash(seed, path.as_bytes()) % (groups.max(1) as u64);
    usize::try_from(group).expect("it is below a number of groups")
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let digest = Digest::of(&[&seed.to_le_bytes(), bytes].concat());
    let first = digest.as_bytes().first_chunk();
    u64::from_le_bytes(*first.expect("a digest has 32 bytes"))
}

impl<Context> Decode<Context> for Sketch {
    fn decode<D: Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, codec::error::Decode> {
        let seed = u64::decode(decoder)?;
        let sums = codec::decode_bytes(decoder, SUM * limits::SKETCH_GROUPS)?;
        if sums.is_empty() || !sums.len().is_multiple_of(SUM) {
            return Err(codec::invalid(format!("{} bytes of sums", sums.len())));
        }
        Ok(Self { seed, sums })
    }
}

codec::impl_borrow_decode!(Sketch);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::file;

    fn tree(count: u32, change: impl Fn(u32) -> String) -> Manifest {
        let files = (0..count).map(|n| file(&format!("f{n:05}"), &change(n)));
        Manifest::from_sorted(files.collect()).unwrap()
    }

    #[test]
    fn only_the_groups_of_what_differs_differ() {
        let ours = tree(1000, |n| n.to_string());
        let theirs = tree(1001, |n| match n {
            500 => "other".to_owned(),
            _ => n.to_string(),
        });
        let sketch = Sketch::of(&ours, 7);
        assert_eq!(sketch.groups(), 500);
        assert_eq!(sketch.same(&ours), vec![true; 500]);
        let same = sketch.same(&theirs);
        for name in ["f00500", "f01000"] {
            assert!(!same[sketch.group(&name.try_into().unwrap())], "{name}");
        }
        assert!(same.iter().filter(|same| !**same).count() <= 2);
        assert_ne!(Sketch::of(&ours, 8).sums, sketch.sums);
    }

    #[test]
    fn a_sketch_without_a_group_or_with_a_part_of_one_is_refused() {
        for len in [0, 1, 4, SUM * (limits::SKETCH_GROUPS + 1)] {
            let sketch = Sketch {
                seed: 1,
                sums: vec![0; len],
            };
            assert!(
                codec::decode::<Sketch>(&codec::encode(&sketch)).is_err(),
                "{len}"
            );
        }
        let sketch = Sketch::of(&Manifest::default(), 1);
        assert_eq!(sketch.groups(), 1);
        let again = codec::decode::<Sketch>(&codec::encode(&sketch)).unwrap();
        assert_eq!(again, sketch);
    }
}
