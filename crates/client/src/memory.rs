//! What a client remembers of an agent between pushes: the tree it last confirmed, and signatures
//! of that tree's larger files, so that a push needs no question first.
//!
//! All of it is only ever a guess that saves time. What is lost, corrupt or stale costs a round
//! trip, and never a wrong tree: the agent compares roots, and every file is verified.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use patchwire_delta::{Digest, DigestReader, Seed, Signature, SignatureOptions};
use patchwire_protocol::{
    codec,
    manifest::{Difference, Entry, Manifest},
    message::value::WireDigest,
    path::RelativePath,
};
use patchwire_tree::{DELTA_MIN, StatCache};

const MAGIC: &[u8] = b"patchwire memory 3\n";

/// Which tree an agent last confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The epoch of the agent's state.
    pub(crate) epoch: u64,
    /// The tree's root.
    pub(crate) root: WireDigest,
}

/// The memory of one deployment as seen from one root: a directory of ours.
#[derive(Debug)]
pub(crate) struct Memory {
    directory: PathBuf,
    /// What the file of the tree held when this process last saw it.
    seen: Mutex<Option<Seen>>,
    /// Held by who writes that file.
    saving: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Seen {
    /// The file at the time, if there was one.
    file: Option<FileId>,
    head: Head,
    manifest: Arc<Manifest>,
    /// If the file is yet to become this: the tree that it holds.
    unsaved: Option<Option<Arc<Manifest>>>,
}

/// Tells one version of a file that is only ever replaced from another: inode, length, and the time
/// of its last change in seconds and nanoseconds.
type FileId = (u64, u64, i64, i64);

impl Memory {
    /// Makes the directory, if that is possible: what can't be remembered only costs time.
    pub(crate) fn new(directory: PathBuf) -> Self {
        if let Err(error) = fs::create_dir_all(&directory) {
            tracing::debug!(%error, "nothing can be remembered in {}", directory.display());
        }
        Self {
            directory,
            seen: Mutex::default(),
            saving: Mutex::default(),
        }
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

    /// Which tree is remembered, if one is. Reads a few bytes: whether the tree itself is there and
    /// whole only [`Self::recall`] tells.
    pub(crate) fn head(&self) -> Option<Head> {
        if let Some(seen) = self.seen() {
            return Some(seen.head);
        }
        let mut head = [0; MAGIC.len() + HEAD];
        let mut file = File::open(self.base()).ok()?;
        io::Read::read_exact(&mut file, &mut head).ok()?;
        Some(split_head(&head)?.0)
    }

    /// The tree that is remembered, if it is there and whole.
    pub(crate) fn recall(&self) -> Option<Arc<Manifest>> {
        if let Some(seen) = self.seen() {
            return Some(seen.manifest);
        }
        let id = self.id()?;
        let bytes = fs::read(self.base()).ok()?;
        let (head, rest) = split_head(&bytes)?;
        let (digest, body) = rest.split_first_chunk::<{ Digest::LEN }>()?;
        if Digest::of(body).as_bytes() != digest {
            tracing::debug!("what was remembered of the agent is corrupt");
            return None;
        }
        let manifest = Arc::new(codec::decode_state(body).ok()?);
        self.see(Seen {
            file: Some(id),
            head,
            manifest: Arc::clone(&manifest),
            unsaved: None,
        });
        Some(manifest)
    }

    /// Remembers a tree, for as long as this process lives; [`Self::save`] does it for longer.
    pub(crate) fn learn(&self, head: Head, manifest: &Arc<Manifest>) {
        if self.head() == Some(head) {
            return;
        }
        let unsaved = self.seen().and_then(|seen| seen.unsaved);
        let unsaved = unsaved.unwrap_or_else(|| self.recall());
        self.see(Seen {
            file: self.id(),
            head,
            manifest: Arc::clone(manifest),
            unsaved: Some(unsaved),
        });
    }

    /// Writes down what was learnt, and makes signatures of those of the tree's larger files that have
    /// none yet, from the developer's files at `root` as far as they still are what the tree says. Only
    /// what differs from the tree that was saved before is looked at.
    pub(crate) fn save(&self, root: &Path) -> io::Result<()> {
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = self.seen() else {
            return Ok(());
        };
        let Some(before) = seen.unsaved else {
            return Ok(());
        };
        let Seen { head, manifest, .. } = seen;
        // All of it may have been removed since.
        fs::create_dir_all(self.signatures())?;
        replace(&self.base(), |file| {
            let (epoch, root) = (head.epoch.to_le_bytes(), head.root);
            let before = [MAGIC, &epoch, root.0.as_bytes()].concat();
            let start = before.len() + Digest::LEN;
            file.seek(SeekFrom::Start(start as u64))?;
            let hasher = blake3::Hasher::new();
            let mut body = BufWriter::with_capacity(BUFFER, Body { file, hasher });
            codec::encode_into(&*manifest, &mut body)?;
            let body = body.into_inner().map_err(io::IntoInnerError::into_error)?;
            let digest = body.hasher.finalize();
            file.rewind()?;
            file.write_all(&[&before, &digest.as_bytes()[..]].concat())
        })?;
        self.saved(head, &manifest);
        match before {
            Some(before) => self.sign_changes(&before, &manifest, root),
            None => self.sign_all(&manifest, root),
        }
    }

    /// Takes in that the file holds this by now.
    fn saved(&self, head: Head, manifest: &Arc<Manifest>) {
        let file = self.id();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *seen {
            // Something else was learnt meanwhile.
            Some(seen) if seen.head != head => {
                seen.file = file;
                seen.unsaved = Some(Some(Arc::clone(manifest)));
            }
            Some(seen) => {
                seen.file = file;
                seen.unsaved = None;
            }
            None => {}
        }
    }

    fn sign_changes(&self, before: &Manifest, now: &Manifest, root: &Path) -> io::Result<()> {
        let mut stale = HashSet::new();
        for Difference { path, old, new } in before.differences(now) {
            stale.extend(old.and_then(signed));
            if let Some((digest, len)) = new.and_then(signed) {
                self.sign(path, digest, len, root)?;
            }
        }
        if stale.is_empty() {
            return Ok(());
        }
        for content in now.entries().iter().filter_map(|at| signed(&at.entry)) {
            stale.remove(&content);
        }
        for (digest, _) in stale {
            removed(fs::remove_file(self.signature_of(digest)))?;
        }
        Ok(())
    }

    fn sign_all(&self, now: &Manifest, root: &Path) -> io::Result<()> {
        let mut wanted = HashSet::new();
        for entry in now.entries() {
            if let Some((digest, len)) = signed(&entry.entry)
                && wanted.insert(digest.to_string())
            {
                self.sign(&entry.path, digest, len, root)?;
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

    fn sign(&self, path: &RelativePath, digest: Digest, len: u64, root: &Path) -> io::Result<()> {
        let signature = self.signature_of(digest);
        if signature.exists() {
            return Ok(());
        }
        let Ok(file) = patchwire_tree::open_file(root, path) else {
            return Ok(());
        };
        let mut file = DigestReader::new(file);
        match Signature::read(&mut file, len, options(digest)) {
            Ok(made) if file.digest() == digest => {
                replace(&signature, |file| file.write_all(&made.encode()))
            }
            _ => Ok(()),
        }
    }

    /// Forgets the tree, so that the next push asks the agent what it has.
    pub(crate) fn forget(&self) -> io::Result<()> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
        removed(fs::remove_file(self.base()))
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
        let bytes = fs::read(self.signature_of(digest)).ok()?;
        Signature::decode(&bytes).ok()
    }

    fn base(&self) -> PathBuf {
        self.directory.join("base")
    }

    fn signatures(&self) -> PathBuf {
        self.directory.join("signatures")
    }

    fn signature_of(&self, digest: Digest) -> PathBuf {
        self.signatures().join(digest.to_string())
    }

    fn id(&self) -> Option<FileId> {
        let of = fs::metadata(self.base()).ok()?;
        Some((of.ino(), of.len(), of.ctime(), of.ctime_nsec()))
    }

    /// What this process knows of the file, if that is still the same.
    fn seen(&self) -> Option<Seen> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone().filter(|seen| self.id() == seen.file)
    }

    fn see(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }
}

/// The length of a head as it is written.
const HEAD: usize = 8 + Digest::LEN;

/// Layout: the magic, the epoch (8 bytes, little-endian), the root (32); behind it come the digest
/// of the encoded manifest (32), and that.
fn split_head(bytes: &[u8]) -> Option<(Head, &[u8])> {
    let (epoch, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
    let (root, rest) = rest.split_first_chunk()?;
    let head = Head {
        epoch: u64::from_le_bytes(*epoch),
        root: WireDigest(Digest::from_bytes(*root)),
    };
    Some((head, rest))
}

/// The digest and length of a content that is worth a signature.
const fn signed(entry: &Entry) -> Option<(Digest, u64)> {
    match entry {
        Entry::File { len, digest, .. } if *len >= DELTA_MIN => Some((*digest, *len)),
        Entry::File { .. } | Entry::Directory { .. } | Entry::Symlink { .. } => None,
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

/// Puts what `write` makes in the place of a file, as a whole.
fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    write(file.as_file_mut())?;
    file.persist(path)?;
    Ok(())
}

const BUFFER: usize = 64 << 10;

/// What is digested as it is written.
struct Body<'a> {
    file: &'a mut File,
    hasher: blake3::Hasher,
}

impl Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use patchwire_protocol::manifest::{ManifestEntry, Mode};

    use super::*;

    fn tree(content: &[u8]) -> (Head, Arc<Manifest>) {
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
        let root = WireDigest(manifest.root());
        (Head { epoch: 3, root }, Arc::new(manifest))
    }

    #[test]
    fn a_tree_and_its_signatures_are_remembered_until_they_are_corrupt() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        let memory = Memory::new(directory.path().join("memory"));
        // Another process, which shares nothing with this one but the files.
        let other = || Memory::new(directory.path().join("memory"));
        assert!(memory.head().is_none());
        assert!(memory.recall().is_none());

        let (old, new) = (vec![1; 20_000], vec![2; 20_000]);
        let remember = |content: &[u8]| {
            let (head, manifest) = tree(content);
            memory.learn(head, &manifest);
            assert_eq!(memory.head(), Some(head));
            assert_eq!(memory.recall(), Some(manifest));
            memory.save(&root).unwrap();
        };
        fs::write(root.join("f"), &old).unwrap();
        remember(&old);
        for memory in [&memory, &other()] {
            assert_eq!(memory.head(), Some(tree(&old).0));
            assert_eq!(memory.recall(), Some(tree(&old).1));
        }
        assert_eq!(
            memory.signature(Digest::of(&old)).unwrap().basis_len(),
            20_000
        );

        // A file that is no longer what the tree says gets no signature, and what the tree no
        // longer has loses its own.
        remember(&new);
        assert!(memory.signature(Digest::of(&new)).is_none());
        assert!(memory.signature(Digest::of(&old)).is_none());

        let base = directory.path().join("memory/base");
        let mut bytes = fs::read(&base).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&base, bytes).unwrap();
        assert!(other().recall().is_none());
        memory.forget().unwrap();
        assert!(memory.head().is_none());
        memory.forget().unwrap();
    }
}
