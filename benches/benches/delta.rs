//! The inner loops of the delta engine, as far as its public functions reach them.
//!
//! For work on the engine: `cargo bench -p patchwire-benches`. How it compares with others is told by
//! `cargo run --release -p patchwire-benches -- delta`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use patchwire_delta::{BlockSize, Seed, Signature, SignatureOptions, diff, patch};

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
    let mut group = criterion.benchmark_group("diff");
    group.throughput(Throughput::Bytes(LEN as u64));
    for (name, block_size, target) in [
        ("identical", 2048, &basis),
        ("edited", 2048, &edited),
        ("unrelated", 2048, &unrelated),
        ("identical, small blocks", 64, &basis),
        ("edited, small blocks", 64, &edited),
        ("unrelated, small blocks", 64, &unrelated),
    ] {
        let signature = Signature::of(&basis, options(block_size));
        group.bench_function(name, |bencher| {
            bencher.iter(|| diff(black_box(&signature), target));
        });
    }
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
        let delta = diff(&signature, target).encode();
        group.bench_function(name, |bencher| {
            bencher.iter(|| patch(black_box(&basis), &delta, 2 * LEN as u64));
        });
    }
}

criterion_group!(benches, signature, diffs, patches);
criterion_main!(benches);

fn options(block_size: u32) -> SignatureOptions {
    SignatureOptions {
        block_size: Some(BlockSize::try_from(block_size).expect("a valid size")),
        ..SignatureOptions::new(Seed(0x5EED))
    }
}

/// A byte more in every 16 KiB.
fn edited(basis: &[u8]) -> Vec<u8> {
    basis.chunks(16 << 10).collect::<Vec<_>>().join(&b'+')
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
