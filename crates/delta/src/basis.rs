//! Which basis a delta is for.

use std::io::{self, Read};

use twox_hash::xxhash3_128;

use crate::{BlockSize, Seed, Signature, strong::StrongHasher};

/// What a delta says of its basis, so that it isn't applied to another one unnoticed.
///
/// It tells bases apart, but proves nothing: the digest of the target does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BasisId {
    pub(crate) len: u64,
    pub(crate) block_size: BlockSize,
    pub(crate) seed: Seed,
    /// The first four bytes of the XXH3-128 of all strong hashes.
    pub(crate) fingerprint: u32,
}

impl BasisId {
    pub(crate) fn of(signature: &Signature) -> Self {
        let mut fingerprint = Fingerprint::new();
        for block in signature.blocks() {
            fingerprint.add(block.strong.to_bytes());
        }
        Self {
            len: signature.basis_len(),
            block_size: signature.block_size(),
            seed: signature.seed(),
            fingerprint: fingerprint.finish(),
        }
    }

    /// Whether this is the basis, read from its beginning to its end.
    pub(crate) fn is(&self, mut basis: impl Read) -> io::Result<bool> {
        let hasher = StrongHasher::new(self.seed);
        let mut fingerprint = Fingerprint::new();
        let mut block = Vec::new();
        let mut len = 0;
        loop {
            block.clear();
            let wanted = u64::from(self.block_size.get());
            let read = basis.by_ref().take(wanted).read_to_end(&mut block)? as u64;
            len += read;
            if read > 0 {
                fingerprint.add(hasher.hash(&block).to_bytes());
            }
            if read < wanted {
                return Ok(len == self.len && fingerprint.finish() == self.fingerprint);
            }
        }
    }
}

struct Fingerprint {
    hasher: xxhash3_128::Hasher,
    /// Small writes cost the hasher more than the hashing.
    waiting: Vec<u8>,
}

impl Fingerprint {
    fn new() -> Self {
        Self {
            hasher: xxhash3_128::Hasher::new(),
            waiting: Vec::with_capacity(Self::WAITING),
        }
    }

    fn add(&mut self, hash: [u8; 6]) {
        self.waiting.extend_from_slice(&hash);
        if self.waiting.len() + hash.len() > Self::WAITING {
            self.hasher.write(&self.waiting);
            self.waiting.clear();
        }
    }

    fn finish(mut self) -> u32 {
        self.hasher.write(&self.waiting);
        let [a, b, c, d, ..] = self.hasher.finish_128().to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    const WAITING: usize = 6 << 10;
}
