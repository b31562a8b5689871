//! What an agent has, as it is offered to a developer: names, and of each content as much as tells
//! it from those that the developer has.
//!
//! ```text
//! digests: u8 (0 short, 1 whole) · entries: number · kept: number
//! same: bytes, one bit for each group of the developer's sketch, the lowest first; none without one
//! per entry   path (shared with the one before, rest) · kind: 0 file: mode, length
//!                                                            1 directory: mode
//!                                                            2 symbolic link: target
//! per file    its digest
//! per content that is kept   its length, how much of it is there, its digest
//! ```
//!
//! Entries of a group that is the same on both sides are not listed.
//!
//! A short digest is the first eight bytes of BLAKE3 over the offer's number and the digest. The
//! number is random, so that nobody can make two contents whose short digests are the same. Where two
//! are by chance, the root of the tree that is built on it tells the agent so, which then offers whole
//! digests.

use std::collections::{HashMap, HashSet, hash_map};

use patchwire_delta::Digest;

use crate::{
    codec::{self, Decode, Encode},
    front::{Front, Fronted},
    limits,
    manifest::{Entry, LinkTarget, Manifest, ManifestEntry, ManifestError, Mode},
    message::{push::OfferId, value::WireDigest},
    sketch::Sketch,
};

/// The length of a short digest in bytes.
const SHORT: usize = 8;

/// What an agent kept of a content that it did not get to the end of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The content.
    pub digest: Digest,
    /// Its length in bytes.
    pub len: u64,
    /// How many of its first bytes are there.
    pub have: u64,
}

/// How much of each digest is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum Digests {
    /// 0: enough to tell contents apart, but for an accident.
    Short,
    /// 1: all of it.
    Whole,
}

/// What an agent has, in terms of what the developer has: [`Listing::decode`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// What stands there. The digest of a content that the developer doesn't have is made up.
    pub manifest: Manifest,
    /// Contents of the developer that the agent kept.
    pub kept: Vec<Kept>,
}

/// Why bytes are not a listing.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// They do not decode.
    #[error("a malformed listing")]
    Malformed(#[source] codec::DecodeError),
    /// What it lists is too much.
    #[error("a listing of {entries} entries, {kept} kept contents and {bytes} bytes of paths")]
    TooLarge {
        /// How many entries.
        entries: u64,
        /// How many contents.
        kept: u64,
        /// How many bytes of paths at least.
        bytes: u64,
    },
    /// It leaves out what is the same as in a sketch of other groups, or there was none.
    #[error("a listing of what differs from another sketch, {bytes} bytes for {groups} groups")]
    Sketch {
        /// How many bytes say which groups are the same.
        bytes: usize,
        /// How many groups there are.
        groups: usize,
    },
    /// What it lists is no tree.
    #[error("a listing of what is no tree")]
    Manifest(#[from] ManifestError),
    /// Something follows it.
    #[error("{trailing} bytes after the end of a listing")]
    Trailing {
        /// How many bytes.
        trailing: usize,
    },
}

#[derive(Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
struct Head {
    digests: Digests,
    entries: u64,
    kept: u64,
    same: Vec<u8>,
}

#[derive(Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
struct Listed {
    path: Fronted,
    what: What,
}

#[derive(Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
enum What {
    File { mode: Mode, len: u64 },
    Directory { mode: Mode },
    Symlink { target: LinkTarget },
}

impl Digests {
    fn write(self, id: OfferId, digest: Digest, bytes: &mut Vec<u8>) {
        match self {
            Self::Short => bytes.extend(short(id, digest)),
            Self::Whole => bytes.extend(digest.as_bytes()),
        }
    }
}

impl Listing {
    /// Writes what stands here and what was kept, but for what the developer has the same by its
    /// sketch. `id` is the offer's.
    #[must_use]
    pub fn encode(
        manifest: &Manifest,
        kept: &[Kept],
        id: OfferId,
        digests: Digests,
        sketch: Option<&Sketch>,
    ) -> Vec<u8> {
        let same = sketch.map(|sketch| (sketch, sketch.same(manifest)));
        let is_listed = |at: &&ManifestEntry| {
            let same = same.as_ref();
            same.is_none_or(|(sketch, same)| !same[sketch.group(&at.path)])
        };
        let listed: Vec<_> = manifest.entries().iter().filter(is_listed).collect();
        let mut bytes = codec::encode(&Head {
            digests,
            entries: listed.len() as u64,
            kept: kept.len() as u64,
            same: same.as_ref().map_or_else(Vec::new, |(_, same)| bits(same)),
        });
        let mut paths = Front::default();
        for ManifestEntry { path, entry } in &listed {
            let path = paths.shorten(path);
            let what = match entry {
                Entry::File { mode, len, .. } => What::File {
                    mode: *mode,
                    len: *len,
                },
                Entry::Directory { mode } => What::Directory { mode: *mode },
                Entry::Symlink { target } => What::Symlink {
                    target: target.clone(),
                },
            };
            codec::encode_to(&Listed { path, what }, &mut bytes);
        }
        // Behind the names, which compress, and digests don't.
        for ManifestEntry { entry, .. } in &listed {
            if let Entry::File { digest, .. } = entry {
                digests.write(id, *digest, &mut bytes);
            }
        }
        for kept in kept {
            codec::encode_to(&(kept.len, kept.have), &mut bytes);
            digests.write(id, kept.digest, &mut bytes);
        }
        bytes
    }

    /// Reads a listing, and recognises the contents of `ours`. `sketch` is the one of `ours` that was
    /// sent before. The bytes need not be trusted.
    ///
    /// # Errors
    ///
    /// [`ListingError`] if they are not exactly one listing.
    pub fn decode(
        bytes: &[u8],
        id: OfferId,
        ours: &Manifest,
        sketch: Option<&Sketch>,
    ) -> Result<Self, ListingError> {
        let mut from = bytes;
        let Head {
            digests,
            entries,
            kept,
            same,
        } = next(&mut from)?;
        let too_large = |bytes| ListingError::TooLarge {
            entries,
            kept,
            bytes,
        };
        if entries > limits::ENTRIES || kept > limits::ENTRIES {
            return Err(too_large(0));
        }
        let groups = sketch.map_or(0, Sketch::groups);
        if !same.is_empty() && same.len() != groups.div_ceil(8) {
            let bytes = same.len();
            return Err(ListingError::Sketch { bytes, groups });
        }
        let mut paths = Front::default();
        let mut path_bytes = 0;
        let mut listed = Vec::new();
        for _ in 0..entries {
            let Listed { path, what } = next(&mut from)?;
            let path = paths.restore(&path).map_err(malformed)?;
            let entry = match what {
                What::File { mode, len } => Entry::File {
                    mode,
                    len,
                    digest: Digest::from_bytes([0; 32]),
                },
                What::Directory { mode } => Entry::Directory { mode },
                What::Symlink { target } => Entry::Symlink { target },
            };
            path_bytes += (path.as_bytes().len() + entry.target_len()) as u64;
            if path_bytes > limits::PATH_BYTES {
                return Err(too_large(path_bytes));
            }
            listed.push(ManifestEntry { path, entry });
        }
        let known = Known::new(ours, id, digests);
        for ManifestEntry { entry, .. } in &mut listed {
            if let Entry::File { len, digest, .. } = entry {
                *digest = known
                    .recognise(&mut from, *len)?
                    .unwrap_or_else(|made_up| made_up);
            }
        }
        let mut ours_kept = Vec::new();
        for _ in 0..kept {
            let (len, have): (u64, u64) = next(&mut from)?;
            if let Ok(digest) = known.recognise(&mut from, len)?
                && have <= len
            {
                ours_kept.push(Kept { digest, len, have });
            }
        }
        if !from.is_empty() {
            return Err(ListingError::Trailing {
                trailing: from.len(),
            });
        }
        let manifest = match sketch.filter(|_| !same.is_empty()) {
            Some(sketch) => {
                let is_same = |at: &&ManifestEntry| {
                    let group = sketch.group(&at.path);
                    same[group / 8] >> (group % 8) & 1 == 1
                };
                listed.extend(ours.entries().iter().filter(is_same).cloned());
                Manifest::from_sorted(fitting(listed))?
            }
            None => Manifest::from_sorted(listed)?,
        };
        Ok(Self {
            manifest,
            kept: ours_kept,
        })
    }
}

/// One bit each, the lowest first.
fn bits(flags: &[bool]) -> Vec<u8> {
    let byte = |flags: &[bool]| {
        let bits = flags.iter().enumerate();
        bits.fold(0, |byte, (at, flag)| byte | u8::from(*flag) << at)
    };
    flags.chunks(8).map(byte).collect()
}

/// Of these entries those that make a tree. Only where a group is not the same, though its sum is, do
/// any not fit.
fn fitting(mut entries: Vec<ManifestEntry>) -> Vec<ManifestEntry> {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries.dedup_by(|a, b| a.path == b.path);
    let mut directories = HashSet::new();
    entries.retain(|at| {
        let fits = at
            .path
            .parent()
            .is_none_or(|parent| directories.contains(&parent));
        if fits && at.entry.is_directory() {
            directories.insert(at.path.clone());
        }
        fits
    });
    entries
}

/// The contents that this end has, by what the other says of them.
struct Known {
    digests: Digests,
    /// The content with a short digest and its length; `None` where there are two.
    by_short: HashMap<[u8; SHORT], Option<(u64, Digest)>>,
}

impl Known {
    fn new(ours: &Manifest, id: OfferId, digests: Digests) -> Self {
        let mut by_short = HashMap::new();
        if digests == Digests::Short {
            for ManifestEntry { entry, .. } in ours.entries() {
                let Entry::File { len, digest, .. } = entry else {
                    continue;
                };
                match by_short.entry(short(id, *digest)) {
                    hash_map::Entry::Vacant(vacant) => {
                        vacant.insert(Some((*len, *digest)));
                    }
                    hash_map::Entry::Occupied(mut taken) => {
                        if taken.get().is_some_and(|(_, other)| other != *digest) {
                            taken.insert(None);
                        }
                    }
                }
            }
        }
        Self { digests, by_short }
    }

    /// Reads a digest. One that isn't known is made up: no content of ours has it.
    fn recognise(
        &self,
        from: &mut &[u8],
        len: u64,
    ) -> Result<Result<Digest, Digest>, ListingError> {
        if self.digests == Digests::Whole {
            let WireDigest(digest) = next(from)?;
            return Ok(Ok(digest));
        }
        let short: [u8; SHORT] = next(from)?;
        Ok(match self.by_short.get(&short) {
            Some(Some((of_len, digest))) if *of_len == len => Ok(*digest),
            _ => {
                let mut made_up = [0; 32];
                made_up[..SHORT].copy_from_slice(&short);
                Err(Digest::from_bytes(made_up))
            }
        })
    }
}

fn short(id: OfferId, digest: Digest) -> [u8; SHORT] {
    let mut bytes = [0; 8 + 32];
    bytes[..8].copy_from_slice(&id.0.to_le_bytes());
    bytes[8..].copy_from_slice(digest.as_bytes());
    let keyed = Digest::of(&bytes);
    *keyed
        .as_bytes()
        .first_chunk()
        .expect("a digest has 32 bytes")
}

fn next<T: Decode<()>>(from: &mut &[u8]) -> Result<T, ListingError> {
    codec::decode_first(from).map_err(ListingError::Malformed)
}

fn malformed(error: codec::error::Decode) -> ListingError {
    ListingError::Malformed(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::{directory, file, path};

    const ID: OfferId = OfferId(7);

    fn theirs() -> Manifest {
        let link = ManifestEntry {
            path: path("l"),
            entry: Entry::Symlink {
                target: LinkTarget::new("d").unwrap(),
            },
        };
        Manifest::from_sorted(vec![
            file("a", "one"),
            directory("d"),
            file("d/b", "two"),
            file("d/c", "theirs alone"),
            link,
        ])
        .unwrap()
    }

    fn ours() -> Manifest {
        Manifest::from_sorted(vec![file("b", "two"), file("c", "one"), file("k", "kept")]).unwrap()
    }

    fn kept(content: &str, have: u64) -> Kept {
        Kept {
            digest: Digest::of(content.as_bytes()),
            len: content.len() as u64,
            have,
        }
    }

    #[test]
    fn what_both_have_is_recognised_and_nothing_else_taken_for_it() {
        let lists = [kept("kept", 3), kept("of another push", 9)];
        let bytes = Listing::encode(&theirs(), &lists, ID, Digests::Short, None);
        let listing = Listing::decode(&bytes, ID, &ours(), None).unwrap();
        assert_eq!(listing.kept, [kept("kept", 3)]);
        for (ours, theirs) in listing.manifest.entries().iter().zip(theirs().entries()) {
            assert_eq!(ours.path, theirs.path);
            match theirs.path.as_bytes() {
                b"d/c" => {
                    assert_ne!(ours.entry, theirs.entry);
                    assert_eq!(ours.entry.content_len(), theirs.entry.content_len());
                }
                _ => assert_eq!(ours.entry, theirs.entry),
            }
        }
        let whole = Listing::encode(&theirs(), &lists, ID, Digests::Whole, None);
        let listing = Listing::decode(&whole, ID, &Manifest::default(), None).unwrap();
        assert_eq!(listing.manifest, theirs());
        assert_eq!(listing.kept, lists);
        assert_eq!(whole.len() - bytes.len(), 5 * (32 - SHORT));
    }

    #[test]
    fn another_number_is_another_digest() {
        let bytes = Listing::encode(&theirs(), &[], ID, Digests::Short, None);
        let listing = Listing::decode(&bytes, OfferId(8), &theirs(), None).unwrap();
        let theirs = theirs();
        let same = listing.manifest.entries().iter().zip(theirs.entries());
        let same = same.filter(|(a, b)| a.entry == b.entry);
        assert_eq!(same.count(), 2, "the directory and the link");
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        let bytes = Listing::encode(&theirs(), &[kept("kept", 1)], ID, Digests::Short, None);
        for end in 0..bytes.len() {
            let cut = Listing::decode(&bytes[..end], ID, &ours(), None);
            assert!(
                matches!(cut, Err(ListingError::Malformed(_))),
                "cut at {end}"
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(
            Listing::decode(&longer, ID, &ours(), None),
            Err(ListingError::Trailing { trailing: 1 })
        ));
        let many = codec::encode(&(0u8, limits::ENTRIES + 1, 0u64, 0u8));
        assert!(matches!(
            Listing::decode(&many, ID, &ours(), None),
            Err(ListingError::TooLarge { .. })
        ));
        let orphan = [
            &codec::encode(&(0u8, 1u64, 0u64, 0u8))[..],
            b"\x00\x03a/b",
            &[1, 0],
        ]
        .concat();
        assert!(matches!(
            Listing::decode(&orphan, ID, &ours(), None),
            Err(ListingError::Manifest(_))
        ));
        // More of a content than there is was never kept.
        let bytes = Listing::encode(
            &Manifest::default(),
            &[kept("kept", 5)],
            ID,
            Digests::Short,
            None,
        );
        assert_eq!(Listing::decode(&bytes, ID, &ours(), None).unwrap().kept, []);
    }

    #[test]
    fn what_is_the_same_by_the_sketch_is_not_listed() {
        let tree = |count: u32, of: &dyn Fn(u32) -> String| {
            let files = (0..count).map(|n| file(&format!("d/{n:04}"), &of(n)));
            let entries = std::iter::once(directory("d")).chain(files);
            Manifest::from_sorted(entries.collect()).unwrap()
        };
        let ours = tree(1000, &|n| n.to_string());
        let changed = tree(1001, &|n| match n {
            7 => "theirs alone".to_owned(),
            8 => "9".to_owned(),
            _ => n.to_string(),
        });
        let sketch = Sketch::of(&ours, 5);
        let all = Listing::encode(&changed, &[], ID, Digests::Short, None);
        let bytes = Listing::encode(&changed, &[], ID, Digests::Short, Some(&sketch));
        assert!(bytes.len() * 20 < all.len(), "{}", bytes.len());
        let listing = Listing::decode(&bytes, ID, &ours, Some(&sketch)).unwrap();
        assert_eq!(
            listing,
            Listing::decode(&all, ID, &ours, Some(&sketch)).unwrap()
        );
        for sketch in [None, Some(Sketch::of(&theirs(), 5))] {
            assert!(matches!(
                Listing::decode(&bytes, ID, &ours, sketch.as_ref()),
                Err(ListingError::Sketch { bytes: 63, .. })
            ));
        }
    }

    /// A directory whose group looks the same, and is not there.
    #[test]
    fn what_does_not_fit_what_is_taken_for_the_same_is_left_out() {
        let ours = Manifest::from_sorted(vec![directory("d"), file("d/a", "a"), file("e", "e")]);
        let ours = ours.unwrap();
        let sketch = Sketch::of(&ours, 1);
        assert_eq!(sketch.groups(), 1);
        let head = |listed: u64, same: u8| codec::encode(&(0u8, listed, 0u64, vec![same]));
        let same = Listing::decode(&head(0, 1), ID, &ours, Some(&sketch)).unwrap();
        assert_eq!(same.manifest, ours);
        let other = [&head(1, 1)[..], b"\x00\x03x/y", &[1, 0]].concat();
        let listing = Listing::decode(&other, ID, &ours, Some(&sketch)).unwrap();
        assert_eq!(listing.manifest, ours);
        let other = [&head(1, 1)[..], b"\x00\x01d", &[2, 1], b"e"].concat();
        let listing = Listing::decode(&other, ID, &ours, Some(&sketch)).unwrap();
        let paths = listing
            .manifest
            .entries()
            .iter()
            .map(|at| at.path.as_bytes());
        assert_eq!(paths.collect::<Vec<_>>(), [b"d", b"e"]);
    }
}
