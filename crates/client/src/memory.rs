//! What a client remembers of an agent between pushes: the tree it last confirmed, and signatures
//! of that tree's larger files, so that a push needs no question first.
//!
//! All of it is only ever a guess that saves time. What is lost, corrupt or stale costs a round
//! trip, and never a wrong tree: the agent compares roots, and every file is verified.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

use patchwire_delta::{Digest, DigestReader, Seed, Signature, SignatureOptions};
use patchwire_protocol::{
    codec::{self, Decode, Encode},
    manifest::{Entry, Manifest},
    message::value::WireDigest,
};
use patchwire_tree::{DELTA_MIN, StatCache};

const MAGIC: &[u8] = b"patchwire memory 2\n";

/// The tree that an agent last confirmed.
#[derive(Clone, Debug, Encode, Decode)]
#[bincode(crate = "patchwire_protocol::codec::bincode")]
pub(crate) struct Remembered {
    /// The epoch of the agent's state.
    pub(crate) epoch: u64,
    /// The tree's root.
    pub(crate) root: WireDigest,
    /// The tree.
    pub(crate) manifest: Manifest,
}

/// The memory of one deployment as seen from one root: a directory of ours.
#[derive(Debug)]
pub(crate) struct Memory {
    directory: PathBuf,
}

impl Memory {
    /// Makes the directory, if that is possible: what can't be remembered only costs time.
    pub(crate) fn new(directory: PathBuf) -> Self {
        if let Err(error) = fs::create_dir_all(&directory) {
            tracing::debug!(%error, "nothing can be remembered in {}", directory.display());
        }
        Self { directory }
    }

    /// Where all is kept.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the scan's stat cache is kept.
    pub(crate) fn stat_cache(&self) -> PathBuf {
        self.directory.join("stat-cache")
    }

    /// Keeps the scan's stat cache.
    pub(crate) fn keep(&self, cache: &StatCache) {
        if let Err(error) = cache.save(&self.stat_cache()) {
            // The next scan is slower, and that is all.
            tracing::debug!(%error, "can't keep the stat cache");
        }
    }

    /// What is remembered, if it is there and whole.
    pub(crate) fn recall(&self) -> Option<Remembered> {
        let bytes = fs::read(self.directory.join("base")).ok()?;
        let (digest, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
        if Digest::of(rest).as_bytes() != digest {
            tracing::debug!("what was remembered of the agent is corrupt");
            return None;
        }
        codec::decode_state(rest).ok()
    }

    /// Remembers a tree, and makes signatures of those of its larger files that have none yet,
    /// from the developer's files at `root` as far as they still are what the tree says.
    pub(crate) fn remember(&self, remembered: &Remembered, root: &Path) -> io::Result<()> {
        let body = codec::encode(remembered);
        let bytes = [MAGIC, Digest::of(&body).as_bytes(), &body].concat();
        fs::create_dir_all(self.signatures())?;
        write_atomically(&self.directory.join("base"), &bytes)?;

        let mut wanted = HashSet::new();
        for entry in remembered.manifest.entries() {
            let Entry::File { len, digest, .. } = entry.entry else {
                continue;
            };
            if len < DELTA_MIN {
                continue;
            }
            let name = digest.to_string();
            let path = self.signatures().join(&name);
            if wanted.insert(name) && !path.exists() {
                let Ok(file) = patchwire_tree::open_file(root, &entry.path) else {
                    continue;
                };
                let mut file = DigestReader::new(file);
                let Ok(signature) = Signature::read(&mut file, len, options(digest)) else {
                    continue;
                };
                if file.digest() == digest {
                    write_atomically(&path, &signature.encode())?;
                }
            }
        }
        for stale in fs::read_dir(self.signatures())? {
            let stale = stale?;
            if stale
                .file_name()
                .to_str()
                .is_none_or(|name| !wanted.contains(name))
            {
                removed(fs::remove_file(stale.path()))?;
            }
        }
        Ok(())
    }

    /// Forgets the tree, so that the next push asks the agent what it has.
    pub(crate) fn forget(&self) -> io::Result<()> {
        removed(fs::remove_file(self.directory.join("base")))
    }

    /// Notes that a push is on its way that the agent keeps a part of if it is cut.
    pub(crate) fn note_interruption(&self) {
        if let Err(error) = fs::write(self.interrupted(), []) {
            tracing::debug!(%error, "an interruption will not be remembered");
        }
    }

    /// Whether a push was cut, so that the agent may have kept a part of it.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted().exists()
    }

    /// Notes that the agent has answered.
    pub(crate) fn note_answer(&self) {
        if let Err(error) = removed(fs::remove_file(self.interrupted())) {
            tracing::debug!(%error, "an interruption can't be forgotten");
        }
    }

    fn interrupted(&self) -> PathBuf {
        self.directory.join("interrupted")
    }

    /// The signature of the content with this digest, if it is remembered.
    pub(crate) fn signature(&self, digest: Digest) -> Option<Signature> {
        let bytes = fs::read(self.signatures().join(digest.to_string())).ok()?;
        Signature::decode(&bytes).ok()
    }

    fn signatures(&self) -> PathBuf {
        self.directory.join("signatures")
    }
}

/// Another command for the same root may have removed it first.
fn removed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A signature that stays on this machine is seeded by its content's digest, which is fixed before
/// and not chosen by whoever wrote the content.
fn options(digest: Digest) -> SignatureOptions {
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    SignatureOptions::new(Seed(u64::from_le_bytes([a, b, c, d, e, f, g, h])))
}

fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    io::Write::write_all(&mut file, bytes)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use patchwire_protocol::manifest::{ManifestEntry, Mode};

    use super::*;

    fn remembered(content: &[u8]) -> Remembered {
        let entry = Entry::File {
            mode: Mode::from_bits(0o644),
            len: content.len() as u64,
            digest: Digest::of(content),
        };
        let entries = vec![ManifestEntry {
            path: "f".try_into().unwrap(),
            entry,
        }];
        let manifest = Manifest::from_sorted(entries).unwrap();
        Remembered {
            epoch: 3,
            root: WireDigest(manifest.root()),
            manifest,
        }
    }

    #[test]
    fn a_tree_and_its_signatures_are_remembered_until_they_are_corrupt() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        let memory = Memory::new(directory.path().join("memory"));
        assert!(memory.recall().is_none());

        let (old, new) = (vec![1; 20_000], vec![2; 20_000]);
        fs::write(root.join("f"), &old).unwrap();
        memory.remember(&remembered(&old), &root).unwrap();
        let recalled = memory.recall().unwrap();
        assert_eq!(
            (recalled.epoch, recalled.manifest),
            (3, remembered(&old).manifest)
        );
        assert_eq!(
            memory.signature(Digest::of(&old)).unwrap().basis_len(),
            20_000
        );

        // A file that is no longer what the tree says gets no signature, and what the tree no
        // longer has loses its own.
        memory.remember(&remembered(&new), &root).unwrap();
        assert!(memory.signature(Digest::of(&new)).is_none());
        assert!(memory.signature(Digest::of(&old)).is_none());

        let base = directory.path().join("memory/base");
        let mut bytes = fs::read(&base).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&base, bytes).unwrap();
        assert!(memory.recall().is_none());
        memory.forget().unwrap();
        memory.forget().unwrap();
    }
}
