//! The inner loops of the delta engine, as far as its public functions reach them.
//!
//! For work on the engine: `cargo bench -p patchwire-benches`. How it compares with others is told by
//! `cargo run --release -p patchwire-benches -- delta`.

use std::{hint::black_box, io::Cursor, num::NonZeroUsize};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use patchwire_delta::{
    BlockSize, Delta, DiffOptions, Digest, FirstRound, Seed, Signature, SignatureOptions,
    diff_with, patch,
};

/// Fits into the caches of the last level, mostly.
const LEN: usize = 4 << 20;

fn signature(criterion: &mut Criterion) {
    let basis = noise(LEN, 1);
    let mut group = criterion.benchmark_group("signature");
    group.throughput(Throughput::Bytes(LEN as u64));
    for block_size in [64, 256, 1024, 2048, 16 << 10, 128 << 10] {
        let options = options(block_size);
        group.bench_function(BenchmarkId::from_parameter(block_size), |bencher| {
            bencher.iter(|| Signature::of(black_box(&basis), options));
        });
    }
}

fn diffs(criterion: &mut Criterion) {
    let basis = noise(LEN, 1);
    let unrelated = noise(LEN, 2);
    let edited = edited(&basis);
    let [anchors, other_anchors] = [3, 4].map(|seed| full_of_anchors(LEN, seed));
    let [smooth, other_smooth] = [5, 6].map(|seed| ones_and_twos(LEN, seed));
    let mut group = criterion.benchmark_group("diff");
    group.throughput(Throughput::Bytes(LEN as u64));
    for (name, block_size, basis, target) in [
        ("identical", 2048, &basis, &basis),
        ("edited", 2048, &basis, &edited),
        // Nothing but the selection of positions, and looking their keys up.
        ("unrelated", 2048, &basis, &unrelated),
        ("unrelated, sparse anchors", 64 << 10, &basis, &unrelated),
        ("unrelated, dense anchors", 512, &basis, &unrelated),
        // Each anchor promises blocks that aren't there.
        ("anchors that miss", 2048, &anchors, &other_anchors),
        // Every position is rolled over.
        ("no anchors", 2048, &smooth, &other_smooth),
        ("identical, small blocks", 64, &basis, &basis),
        ("edited, small blocks", 64, &basis, &edited),
        ("unrelated, small blocks", 64, &basis, &unrelated),
        ("unrelated, blocks of 256", 256, &basis, &unrelated),
    ] {
        let signature = Signature::of(basis, options(block_size));
        let options = known(target);
        group.bench_function(name, |bencher| {
            bencher.iter(|| diff_with(black_box(&signature), target, options));
        });
    }
    let signature = Signature::of(&basis, options(2048));
    let threads = DiffOptions {
        threads: NonZeroUsize::MIN.saturating_add(1),
        ..known(&unrelated)
    };
    group.bench_function("unrelated, 2 threads", |bencher| {
        bencher.iter(|| diff_with(black_box(&signature), &unrelated, threads));
    });
}

fn two_rounds(criterion: &mut Criterion) {
    let basis = noise(LEN, 1);
    let edited = edited(&basis);
    let known = known(&edited);
    let first = Signature::of(&basis, options(2048));
    let round = FirstRound::of(&first, &edited, known);
    let regions = round.regions();
    let second = regions
        .sign(Cursor::new(&basis), SEED)
        .expect("of this basis");
    let mut group = criterion.benchmark_group("two rounds");
    group.throughput(Throughput::Bytes(LEN as u64));
    group.bench_function("first", |bencher| {
        bencher.iter(|| FirstRound::of(black_box(&first), &edited, known));
    });
    group.bench_function("sign regions", |bencher| {
        bencher.iter(|| black_box(regions).sign(Cursor::new(&basis), SEED));
    });
    group.bench_function("finish", |bencher| {
        bencher.iter(|| round.finish(black_box(&second), &edited));
    });
}

fn patches(criterion: &mut Criterion) {
    let basis = noise(LEN, 1);
    let unrelated = noise(LEN, 2);
    let edited = edited(&basis);
    let signature = Signature::of(&basis, options(2048));
    let mut group = criterion.benchmark_group("patch");
    group.throughput(Throughput::Bytes(LEN as u64));
    for (name, target) in [
        ("identical", &basis),
        ("edited", &edited),
        ("unrelated", &unrelated),
    ] {
        let delta = diff_with(&signature, target, known(target)).encode();
        let max_len = 2 * LEN as u64;
        group.bench_function(name, |bencher| {
            bencher.iter(|| patch(black_box(&basis), &delta, max_len));
        });
        let mut reused = Vec::new();
        group.bench_function(format!("{name}, reused"), |bencher| {
            bencher.iter(|| {
                let delta = Delta::decode(black_box(&delta)).expect("it was encoded");
                delta.apply_into(&basis, max_len, &mut reused)
            });
        });
    }
}

criterion_group!(benches, signature, diffs, two_rounds, patches);
criterion_main!(benches);

const SEED: Seed = Seed(0x5EED);

fn options(block_size: u32) -> SignatureOptions {
    SignatureOptions {
        block_size: Some(BlockSize::try_from(block_size).expect("a valid size")),
        ..SignatureOptions::new(SEED)
    }
}

/// The digest isn't computed: that would be most of the time.
fn known(target: &[u8]) -> DiffOptions {
    DiffOptions {
        digest: Some(Digest::of(target)),
        ..DiffOptions::default()
    }
}

/// The same few stretches with an anchor in each again and again, and noise between them: many blocks
/// are found by the same keys.
fn full_of_anchors(len: usize, seed: u64) -> Vec<u8> {
    // Up to the end of what an anchor's key is computed of.
    const UNIT: usize = 96;
    const BETWEEN: usize = 32;

    let mut units = ones_and_twos(16 * UNIT, 5);
    for unit in units.chunks_mut(UNIT) {
        // And this at all of them.
        unit[24..28].copy_from_slice(&0x8000_0000_u32.to_le_bytes());
    }
    let units: Vec<&[u8]> = units.chunks(UNIT).collect();
    let slots = len / (UNIT + BETWEEN);
    let order = noise(slots, seed ^ 0xFF).into_iter();
    let order = order.map(|number| units[usize::from(number) % units.len()]);
    let between = ones_and_twos(slots * BETWEEN, seed);
    order
        .zip(between.chunks(BETWEEN))
        .flat_map(|(unit, between)| [unit, between].concat())
        .collect()
}

/// Noise of two bytes in which no position is selected, at any block size.
fn ones_and_twos(len: usize, seed: u64) -> Vec<u8> {
    let noise = noise(len, seed).into_iter();
    noise.map(|byte| 1 + byte % 2).collect()
}

/// A byte more in every 17 000, which is in the middle of a block mostly.
fn edited(basis: &[u8]) -> Vec<u8> {
    basis.chunks(17_000).collect::<Vec<_>>().join(&b'+')
}

/// Bytes without a pattern, the same in every run.
fn noise(len: usize, mut state: u64) -> Vec<u8> {
    let step = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(step).take(len).collect()
}
