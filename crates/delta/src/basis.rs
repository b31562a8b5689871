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
        let mut block = Vec::with_capacity(self.block_size.len());
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::SignatureOptions;

    fn basis(len: usize) -> Vec<u8> {
        let numbers = (0..u32::MAX).map(|at| at.wrapping_mul(at | 1).to_be_bytes()[0]);
        numbers.take(len).collect()
    }

    fn id(basis: &[u8]) -> BasisId {
        let options = SignatureOptions {
            block_size: Some(BlockSize::try_from(BlockSize::MIN).unwrap()),
            ..SignatureOptions::new(Seed(7))
        };
        BasisId::of(&Signature::of(basis, options))
    }

    /// More hashes than wait for the hasher at a time, and just as many.
    #[test]
    fn the_fingerprint_is_of_all_strong_hashes() {
        let hasher = StrongHasher::new(Seed(7));
        for blocks in [0, 1, 1023, 1024, 1025, 2048, 3000] {
            let basis = basis(blocks * 64);
            let hashes: Vec<_> = basis
                .chunks(64)
                .map(|block| hasher.hash(block).to_bytes())
                .collect();
            let whole = xxhash3_128::Hasher::oneshot(hashes.as_flattened());
            assert_eq!(id(&basis).fingerprint, (whole >> 96) as u32);
        }
    }

    #[test]
    fn a_basis_is_told_from_every_other() {
        for len in [0, 1, 63, 64, 65, 1000] {
            let basis = basis(len);
            let id = id(&basis);
            assert_eq!(id.len, len as u64);
            assert!(id.is(&basis[..]).unwrap());
            assert!(!id.is((&basis[..]).chain(&[0][..])).unwrap());
            if let Some((_, shorter)) = basis.split_last() {
                assert!(!id.is(shorter).unwrap());
            }
            for at in 0..len {
                let mut other = basis.clone();
                other[at] ^= 1;
                assert!(!id.is(&other[..]).unwrap(), "byte {at} of {len}");
            }
        }
    }

    #[test]
    fn a_basis_that_fails_is_neither() {
        struct Broken;

        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }

        let basis = basis(100);
        let failed = id(&basis).is(basis[..64].chain(Broken)).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::PermissionDenied);
    }
}
