//! How fast are signature, diff and patch, next to `fast_rsync`?
//!
//! Ours does more: it also makes and checks the BLAKE3 of basis and target. Both sides make their
//! encoded form, with the same block size.

use std::hint::black_box;

use anyhow::ensure;
use patchwire_delta::{BlockSize, Seed, Signature, SignatureOptions, diff, patch};

use crate::measure::{Comparison, compare, print_json, print_table};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// The length of the generated basis in MiB
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    mib: u16,
    /// The block size in bytes
    #[arg(long, default_value_t = 2048)]
    block_size: u32,
    /// How many rounds are measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
}

const PEER: &str = "fast_rsync 0.2 (MD4, no digest of the whole)";

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let len = usize::from(args.mib) << 20;
    let rounds = usize::from(args.rounds);
    let sides = Sides::new(BlockSize::try_from(args.block_size)?);
    let basis = noise(len, 1);
    let edited = |edits: usize| {
        let mut target = basis.clone();
        for at in (0..edits).map(|edit| (2 * edit + 1) * len / (2 * edits)) {
            target.splice(at..at + 3, *b"edited");
        }
        target
    };
    let (few, many) = (edited(50), edited(2048));
    let unrelated = noise(len, 2);

    let mut comparisons = vec![compare(
        "signature",
        len,
        rounds,
        || Ok(black_box(sides.our_signature(&basis).encode()).len()),
        || Ok(black_box(sides.peer_signature(&basis)).serialized().len()),
    )?];
    for (diff_case, patch_case, target) in [
        ("diff, identical", "patch, identical", &basis),
        ("diff, 50 edits", "patch, 50 edits", &few),
        ("diff, 2048 edits", "patch, 2048 edits", &many),
        ("diff, unrelated", "patch, unrelated", &unrelated),
    ] {
        comparisons.extend(sides.compare(diff_case, patch_case, &basis, target, rounds)?);
    }
    if args.json {
        print_json(PEER, &comparisons)
    } else {
        Ok(print_table(PEER, &comparisons)?)
    }
}

/// How both sides make their signatures.
struct Sides {
    options: SignatureOptions,
    peer_options: fast_rsync::SignatureOptions,
}

impl Sides {
    fn new(block_size: BlockSize) -> Self {
        Self {
            options: SignatureOptions {
                block_size: Some(block_size),
                ..SignatureOptions::new(Seed(0x5EED))
            },
            peer_options: fast_rsync::SignatureOptions {
                block_size: block_size.get(),
                // As many bytes of strong hash as ours.
                crypto_hash_size: 8,
            },
        }
    }

    fn our_signature(&self, basis: &[u8]) -> Signature {
        Signature::of(basis, self.options)
    }

    fn peer_signature(&self, basis: &[u8]) -> fast_rsync::Signature {
        fast_rsync::Signature::calculate(basis, self.peer_options)
    }

    fn compare(
        &self,
        diff_case: &'static str,
        patch_case: &'static str,
        basis: &[u8],
        target: &[u8],
        rounds: usize,
    ) -> anyhow::Result<[Comparison; 2]> {
        let signature = self.our_signature(basis);
        let peer_signature = self.peer_signature(basis);
        let peer_diff = || {
            let mut delta = Vec::new();
            fast_rsync::diff(&peer_signature.index(), target, &mut delta)?;
            anyhow::Ok(delta)
        };
        let diffs = compare(
            diff_case,
            target.len(),
            rounds,
            || Ok(black_box(diff(&signature, target).encode()).len()),
            || Ok(black_box(peer_diff()?).len()),
        )?;

        let delta = diff(&signature, target).encode();
        let peer_delta = peer_diff()?;
        let max_len = target.len() as u64;
        let peer_patch = || {
            let mut output = Vec::with_capacity(target.len());
            fast_rsync::apply_limited(basis, &peer_delta, &mut output, target.len())?;
            anyhow::Ok(output)
        };
        ensure!(patch(basis, &delta, max_len)? == target && peer_patch()? == target);
        let patches = compare(
            patch_case,
            target.len(),
            rounds,
            || Ok(black_box(patch(basis, &delta, max_len)?).len()),
            || Ok(black_box(peer_patch()?).len()),
        )?;
        Ok([diffs, patches])
    }
}

/// Bytes without any repetition worth matching, the same in every run.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(|| {
        // SplitMix64 (Steele, Lea and Flood 2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)).to_le_bytes()
    });
    words.flatten().take(len).collect()
}
