//! The signature as it is documented, computed in the slowest way.

use std::collections::HashMap;

use patchwire_delta::{Seed, Signature, SignatureOptions};
use proptest::prelude::*;
use twox_hash::XxHash3_128;

use crate::inputs::{case, noise, options};

proptest! {
    #[test]
    fn signatures_are_as_documented(case in case(), seed in any::<u64>()) {
        let basis = case.basis();
        let with_seed = SignatureOptions { seed: Seed(seed), ..options(case.block_size) };
        let signature = Signature::of(&basis, with_seed).encode();
        prop_assert!(signature == documented(&basis, case.block_size, seed));
    }
}

/// Content without anchors, with anchors that are all alike, and blocks longer than their reach.
#[test]
fn signatures_of_odd_contents_are_as_documented() {
    let zeros = vec![0; 10_000];
    let periodic: Vec<u8> = (0..700_u32).flat_map(u32::to_be_bytes).collect();
    let contents = [
        &zeros[..],
        &periodic.repeat(40),
        &[&zeros[..], &noise(300_000, 2), &periodic].concat(),
    ];
    for content in contents {
        for block_size in [511, 512, 700, 2048, 65_536, 131_072] {
            for seed in [0, u64::MAX] {
                let with_seed = SignatureOptions {
                    seed: Seed(seed),
                    ..options(block_size)
                };
                let signature = Signature::of(content, with_seed).encode();
                assert!(signature == documented(content, block_size, seed));
            }
        }
    }
}

/// A signature of a basis of at most 8 MiB.
fn documented(basis: &[u8], block_size: u32, seed: u64) -> Vec<u8> {
    let block_len = usize::try_from(block_size).unwrap();
    let mut signature = b"PWS\x02".to_vec();
    signature.extend(block_size.to_be_bytes());
    signature.extend(seed.to_be_bytes());
    signature.extend((basis.len() as u64).to_be_bytes());
    let mut seen = HashMap::new();
    for block in basis.chunks(block_len) {
        let anchor = if block.len() == block_len {
            rarest_anchor(block, seed, &mut seen)
        } else {
            None
        };
        match anchor {
            Some((place, key)) => {
                signature.extend(key.to_be_bytes());
                signature.extend(u16::try_from(place).unwrap().to_be_bytes());
            }
            None => {
                signature.extend(weak(block).to_be_bytes());
                if block_size >= 512 {
                    signature.extend([0, 0]);
                }
            }
        }
        let strong = XxHash3_128::oneshot_with_seed(seed, block);
        signature.extend(&strong.to_be_bytes()[..6]);
    }
    signature
}

/// The place and the key of the anchor whose key was there least often, the first of several.
///
/// Keys are counted by their low sixteen bits, up to 255.
fn rarest_anchor(block: &[u8], seed: u64, seen: &mut HashMap<u32, u8>) -> Option<(usize, u32)> {
    if block.len() < 512 {
        return None;
    }
    let counted = anchors(block, seed).map(|(place, key)| {
        let count = seen.entry(key & 0xFFFF).or_insert(0);
        *count = count.saturating_add(1);
        (*count, place, key)
    });
    counted.min().map(|(_, place, key)| (place, key))
}

/// The places and keys of all anchors of a block of at least 512 bytes.
pub(crate) fn anchors(block: &[u8], seed: u64) -> impl Iterator<Item = (usize, u32)> {
    let reach = block.len().min(65_536);
    // Eight positions in what an anchor may be in, on average.
    let threshold = u32::MAX / u32::try_from(reach / 8).unwrap();
    let is_selected = move |at: usize| {
        let gram = u32::from_le_bytes(block[at..][..4].try_into().unwrap());
        gram.wrapping_mul(0x9E37_79B1).wrapping_add(1 << 31) < threshold
    };
    let places = (16..=reach - 64)
        .filter(move |place| is_selected(*place) && !(place - 16..*place).any(is_selected));
    places.map(move |place| (place, key(block[place..][..64].try_into().unwrap(), seed)))
}

fn key(bytes: [u8; 64], seed: u64) -> u32 {
    let mut state = seed;
    // SplitMix64 gives a word to mix with each of the eight.
    let words: Vec<u64> = bytes
        .chunks(8)
        .map(|bytes| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = state;
            word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            u64::from_le_bytes(bytes.try_into().unwrap()) ^ word ^ word >> 31
        })
        .collect();
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        u64::try_from(product >> 64).unwrap()
            ^ u64::try_from(product & u128::from(u64::MAX)).unwrap()
    };
    let pairs = words.chunks(2).map(|pair| fold(pair[0], pair[1]));
    let both = pairs.fold(0, |both: u64, fold| both.rotate_left(23) ^ fold);
    u32::try_from(both.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32).unwrap()
}

fn weak(block: &[u8]) -> u32 {
    let bytes = (1u32..).zip(block.iter().rev());
    bytes.fold(0, |hash: u32, (weight, byte)| {
        hash.wrapping_add(
            weight
                .wrapping_add(0x9E37_79B1)
                .wrapping_mul(u32::from(*byte)),
        )
    })
}
