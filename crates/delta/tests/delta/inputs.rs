//! Inputs that the tests share.
use patchwire_delta::{BlockSize, Seed, Signature, SignatureOptions};
use proptest::{collection::vec, prelude::*};

pub(crate) const SEED: Seed = Seed(0x5EED);

pub(crate) fn options(block_size: u32) -> SignatureOptions {
    SignatureOptions {
        block_size: Some(BlockSize::try_from(block_size).unwrap()),
        ..SignatureOptions::new(SEED)
    }
}

pub(crate) fn signature(basis: &[u8], block_size: u32) -> Signature {
    Signature::of(basis, options(block_size))
}

/// Bytes without any repetition worth matching.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let step = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).to_be_bytes()[2]
    };
    std::iter::repeat_with(step).take(len).collect()
}

/// A basis and what became of it, of all the kinds that are easy to get wrong.
pub(crate) fn basis_and_target() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (content(), vec(edit(), 0..6)).prop_map(|(basis, edits)| {
        let mut target = basis.clone();
        for edit in edits {
            edit.apply(&mut target);
        }
        (basis, target)
    })
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![
        Just(0usize),
        1usize..64,
        (0usize..64).prop_map(|blocks| blocks * 64),
        0usize..20_000,
    ];
    let zeros = len.clone().prop_map(|len| vec![0; len]);
    let periodic = (len.clone(), vec(any::<u8>(), 1..150))
        .prop_map(|(len, period)| period.into_iter().cycle().take(len).collect());
    let noisy = (len, any::<u64>()).prop_map(|(len, seed)| noise(len, seed));
    prop_oneof![1 => zeros, 2 => periodic, 4 => noisy]
}

#[derive(Debug, Clone)]
enum Edit {
    Insert(prop::sample::Index, Vec<u8>),
    Delete(prop::sample::Index, usize),
    Change(prop::sample::Index, u8),
    Rotate(prop::sample::Index),
    Append(Vec<u8>),
    Replace(u64, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), vec(any::<u8>(), 1..300)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (index(), 1usize..3000).prop_map(|(at, len)| Edit::Delete(at, len)),
        (index(), 1u8..).prop_map(|(at, bits)| Edit::Change(at, bits)),
        index().prop_map(Edit::Rotate),
        vec(any::<u8>(), 1..300).prop_map(Edit::Append),
        (any::<u64>(), 0usize..5000).prop_map(|(seed, len)| Edit::Replace(seed, len)),
    ]
}

impl Edit {
    fn apply(self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        match self {
            Self::Insert(at, inserted) => {
                let at = at.index(len + 1);
                bytes.splice(at..at, inserted);
            }
            Self::Delete(at, count) => {
                let at = at.index(len + 1);
                bytes.drain(at..len.min(at + count));
            }
            Self::Change(at, bits) if len > 0 => bytes[at.index(len)] ^= bits,
            Self::Rotate(at) if len > 0 => bytes.rotate_left(at.index(len)),
            Self::Change(..) | Self::Rotate(_) => {}
            Self::Append(appended) => bytes.extend(appended),
            Self::Replace(seed, len) => *bytes = noise(len, seed),
        }
    }
}
