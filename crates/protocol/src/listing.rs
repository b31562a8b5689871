//! What an agent has, as it is offered to a developer: names, and of each content as much as tells
//! it from those that the developer has.
//!
//! ```text
//! digests: u8 (0 short, 1 whole) · entries: number · kept: number
//! per entry   path (shared with the one before, rest) · kind: 0 file: mode, length
//!                                                            1 directory: mode
//!                                                            2 symbolic link: target
//! per file    its digest
//! per content that is kept   its length, how much of it is there, its digest
//! ```
//!
//! A short digest is the first eight bytes of BLAKE3 over the offer's number and the digest. The
//! number is random, so that nobody can make two contents whose short digests are the same. Where two
//! are by chance, the root of the tree that is built on it tells the agent so, which then offers whole
//! digests.

use std::collections::{HashMap, hash_map};

use patchwire_delta::Digest;

use crate::{
    codec::{self, Decode, Encode},
    front::{Front, Fronted},
    limits,
    manifest::{Entry, LinkTarget, Manifest, ManifestEntry, ManifestError, Mode},
    message::{push::OfferId, value::WireDigest},
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
    /// Writes what stands here and what was kept. `id` is the offer's.
    #[must_use]
    pub fn encode(manifest: &Manifest, kept: &[Kept], id: OfferId, digests: Digests) -> Vec<u8> {
        let mut bytes = codec::encode(&Head {
            digests,
            entries: manifest.len() as u64,
            kept: kept.len() as u64,
        });
        let mut paths = Front::default();
        for ManifestEntry { path, entry } in manifest.entries() {
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
        for ManifestEntry { entry, .. } in manifest.entries() {
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

    /// Reads a listing, and recognises the contents of `ours`. The bytes need not be trusted.
    ///
    /// # Errors
    ///
    /// [`ListingError`] if they are not exactly one listing.
    pub fn decode(bytes: &[u8], id: OfferId, ours: &Manifest) -> Result<Self, ListingError> {
        let mut from = bytes;
        let Head {
            digests,
            entries,
            kept,
        } = next(&mut from)?;
        let too_large = |bytes| ListingError::TooLarge {
            entries,
            kept,
            bytes,
        };
        if entries > limits::ENTRIES || kept > limits::ENTRIES {
            return Err(too_large(0));
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
        Ok(Self {
            manifest: Manifest::from_sorted(listed)?,
            kept: ours_kept,
        })
    }
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
        let bytes = Listing::encode(&theirs(), &lists, ID, Digests::Short);
        let listing = Listing::decode(&bytes, ID, &ours()).unwrap();
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
        let whole = Listing::encode(&theirs(), &lists, ID, Digests::Whole);
        let listing = Listing::decode(&whole, ID, &Manifest::default()).unwrap();
        assert_eq!(listing.manifest, theirs());
        assert_eq!(listing.kept, lists);
        assert_eq!(whole.len() - bytes.len(), 5 * (32 - SHORT));
    }

    #[test]
    fn another_number_is_another_digest() {
        let bytes = Listing::encode(&theirs(), &[], ID, Digests::Short);
        let listing = Listing::decode(&bytes, OfferId(8), &theirs()).unwrap();
        let theirs = theirs();
        let same = listing.manifest.entries().iter().zip(theirs.entries());
        let same = same.filter(|(a, b)| a.entry == b.entry);
        assert_eq!(same.count(), 2, "the directory and the link");
    }

    #[test]
    fn what_is_no_listing_is_refused() {
        let bytes = Listing::encode(&theirs(), &[kept("kept", 1)], ID, Digests::Short);
        for end in 0..bytes.len() {
            let cut = Listing::decode(&bytes[..end], ID, &ours());
            assert!(
                matches!(cut, Err(ListingError::Malformed(_))),
                "cut at {end}"
            );
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(
            Listing::decode(&longer, ID, &ours()),
            Err(ListingError::Trailing { trailing: 1 })
        ));
        let many = codec::encode(&(0u8, limits::ENTRIES + 1, 0u64));
        assert!(matches!(
            Listing::decode(&many, ID, &ours()),
            Err(ListingError::TooLarge { .. })
        ));
        let orphan = [
            &codec::encode(&(0u8, 1u64, 0u64))[..],
            b"\x00\x03a/b",
            &[1, 0],
        ]
        .concat();
        assert!(matches!(
            Listing::decode(&orphan, ID, &ours()),
            Err(ListingError::Manifest(_))
        ));
        // More of a content than there is was never kept.
        let bytes = Listing::encode(&Manifest::default(), &[kept("kept", 5)], ID, Digests::Short);
        assert_eq!(Listing::decode(&bytes, ID, &ours()).unwrap().kept, []);
    }
}
