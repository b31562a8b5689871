//! The one whole-content digest of the project.

use std::{
    fmt,
    io::{self, Read},
    num::NonZeroUsize,
    thread,
};

use blake3::hazmat::{self, HasherExt, Mode};

/// A BLAKE3 digest (32 bytes) of a whole file, or of a canonical encoding.
///
/// Comparison is not constant-time: digests are names of content, not secrets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The length of a digest in bytes.
    pub const LEN: usize = 32;

    /// Computes the digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Computes the digest of `bytes` with several threads; below a megabyte, with one.
    ///
    /// # Panics
    ///
    /// Panics if the system has no more threads.
    #[must_use]
    pub fn of_with(bytes: &[u8], threads: NonZeroUsize) -> Self {
        let len = bytes.len() as u64;
        if threads.get() == 1 || len < PARALLEL_MIN {
            return Self::of(bytes);
        }
        let (left, right) = split(bytes);
        let (left, right) = both(left, right, 0, threads);
        hazmat::merge_subtrees_root(&left, &right, Mode::Hash).into()
    }

    /// Takes 32 bytes that are already a digest.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

/// Lower-case hexadecimal, 64 characters.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Shorter parts are not worth a thread.
const PARALLEL_MIN: u64 = 1 << 20;

/// Cuts an input as BLAKE3's tree does.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let left = hazmat::left_subtree_len(bytes.len() as u64);
    bytes.split_at(usize::try_from(left).unwrap_or(bytes.len()))
}

/// The chaining values of two neighbouring subtrees, the left of which begins at `offset`.
fn both(
    left: &[u8],
    right: &[u8],
    offset: u64,
    threads: NonZeroUsize,
) -> (hazmat::ChainingValue, hazmat::ChainingValue) {
    let for_left = NonZeroUsize::MIN.max(NonZeroUsize::new(threads.get() / 2).unwrap_or(threads));
    let for_right = NonZeroUsize::new(threads.get() - for_left.get()).unwrap_or(NonZeroUsize::MIN);
    let right_offset = offset + left.len() as u64;
    if threads.get() == 1 {
        return (
            subtree(left, offset, for_left),
            subtree(right, right_offset, for_right),
        );
    }
    thread::scope(|scope| {
        let right = scope.spawn(move || subtree(right, right_offset, for_right));
        let left = subtree(left, offset, for_left);
        match right.join() {
            Ok(right) => (left, right),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn subtree(bytes: &[u8], offset: u64, threads: NonZeroUsize) -> hazmat::ChainingValue {
    if threads.get() > 1 && bytes.len() as u64 >= PARALLEL_MIN {
        let (left, right) = split(bytes);
        let (left, right) = both(left, right, offset, threads);
        return hazmat::merge_subtrees_non_root(&left, &right, Mode::Hash);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset).update(bytes);
    hasher.finalize_non_root()
}

/// A reader that computes the [`Digest`] of what passes through it.
#[derive(Debug)]
pub struct DigestReader<R> {
    input: R,
    hasher: blake3::Hasher,
}

impl<R> DigestReader<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            hasher: blake3::Hasher::new(),
        }
    }

    /// The digest of what was read so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.hasher.finalize().into()
    }
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_give_the_same_digest() {
        let bytes: Vec<u8> = (0..5u32 << 20)
            .map(|at| at.wrapping_mul(at).to_be_bytes()[0])
            .collect();
        for len in [0, 1, 1 << 20, (1 << 20) + 1, (4 << 20) + 1025, 5 << 20] {
            for threads in [1, 2, 3, 8] {
                let threads = NonZeroUsize::new(threads).unwrap();
                assert_eq!(
                    Digest::of_with(&bytes[..len], threads),
                    Digest::of(&bytes[..len])
                );
            }
        }
        let mut reader = DigestReader::new(&bytes[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.digest(), Digest::of(&bytes));
    }

    #[test]
    fn prints_as_hexadecimal() {
        // The BLAKE3 test vector for the empty input.
        assert_eq!(
            Digest::of(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }
}
