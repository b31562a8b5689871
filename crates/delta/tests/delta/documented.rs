//! `docs/delta.md`, held to what the crate does: its example, byte by byte, and its rules, written down
//! once more as they stand there, the slow way.

use std::{collections::BTreeSet, fs, io::Cursor, path::Path};

use patchwire_delta::{
    BlockSize, Delta, DiffOptions, FirstRound, Op, Regions, Seed, Signature, SignatureOptions, diff,
};
use twox_hash::xxhash3_128;

use crate::inputs::{noise, options};

/// The page, which is not there in the package.
fn page() -> Option<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    if directory.join("Cargo.toml.orig").exists() {
        return None;
    }
    let page = fs::read_to_string(directory.join("../../docs/delta.md"));
    Some(page.expect("the repository has the page"))
}

/// What `seq from to` prints.
fn seq(from: u32, to: u32) -> Vec<u8> {
    (from..=to)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect()
}

/// The bytes of the page's dump after this heading: two digits each, up to what is said of them.
fn dump(page: &str, heading: &str) -> Vec<u8> {
    let after = page.split_once(heading).expect(heading).1;
    let (_, after) = after.split_once("```text\n").expect("a dump follows");
    let (lines, _) = after.split_once("```").expect("it ends");
    let bytes = lines.lines().flat_map(|line| {
        line.split_whitespace()
            .take_while(|word| word.len() == 2)
            .map_while(|byte| u8::from_str_radix(byte, 16).ok())
    });
    bytes.collect()
}

#[test]
fn the_example_is_what_is_made() {
    let Some(page) = page() else { return };
    let basis = seq(1, 400);
    let signature = Signature::of(&basis, options(512));
    assert_eq!(dump(&page, "#### The signature"), signature.encode());

    let target = seq(0, 400);
    let delta = diff(&signature, &target);
    assert_eq!(dump(&page, "#### The delta"), delta.encode());
    assert_eq!(delta.apply(&basis, 4096).unwrap(), target);

    let whole = dump(&page, "#### A delta without a basis");
    assert_eq!(whole, Delta::whole(b"new\n").encode());

    let target = String::from_utf8(seq(1, 400)).unwrap();
    let target = target.replace("\n200\n", "\ntwo hundred\n");
    let round = FirstRound::of(&signature, target.as_bytes(), DiffOptions::default());
    assert_eq!(
        dump(&page, "#### The request of a second round"),
        round.regions().encode()
    );
    let second = round
        .regions()
        .sign(Cursor::new(&basis), Seed(0xF00D))
        .unwrap();
    let delta = round.finish(&second, target.as_bytes()).unwrap();
    let last = "copies 640 bytes from 0, has a literal of 136 bytes, and copies 724 from 768";
    assert!(page.replace('\n', " ").contains(last));
    let copy = |offset, len| Op::Copy { offset, len };
    let literal = Op::Literal(&target.as_bytes()[640..][..136]);
    assert_eq!(delta.ops(), [copy(0, 640), literal, copy(768, 724)]);
}

#[test]
fn the_limits_are_those_of_the_crate() {
    let Some(page) = page() else { return };
    for number in [
        u64::from(BlockSize::MIN),
        u64::from(BlockSize::MAX),
        Signature::MAX_BLOCKS,
    ] {
        // Digits in threes, as the page has them.
        let digits = number.to_string();
        let groups: Vec<&str> = digits
            .as_bytes()
            .rchunks(3)
            .rev()
            .map(|group| std::str::from_utf8(group).unwrap())
            .collect();
        let number = groups.join(" ");
        assert!(page.contains(&number), "{number}");
    }
    for (basis_len, block_size) in [(0, 256), (1 << 20, 1024), (1 << 30, 32_768)] {
        assert_eq!(BlockSize::for_len(basis_len).get(), block_size);
        let row = format!("| {basis_len} | {block_size} |");
        assert!(page.contains(&row), "{row}");
    }
}

/// Every block has the marks that the page says it has.
#[test]
fn signatures_are_as_the_rules_say() {
    let text = seq(1, 60_000);
    let zeros = vec![0; 10_000];
    let periodic: Vec<u8> = (0..700_u32).flat_map(u32::to_be_bytes).collect();
    let contents = [
        &noise(300_000, 1)[..],
        &text,
        &zeros,
        &periodic.repeat(40),
        &[&zeros[..], &noise(9000, 2), &text[..7000]].concat(),
    ];
    for content in contents {
        for block_size in [64, 511, 512, 700, 2048, 65_536, 131_072] {
            for seed in [0, 0x5EED, u64::MAX] {
                let options = SignatureOptions {
                    seed: Seed(seed),
                    ..options(block_size)
                };
                let encoded = Signature::of(content, options).encode();
                check(&encoded, content, block_size, seed);
            }
        }
    }
}

/// Checks a signature by the rules of the page.
fn check(encoded: &[u8], basis: &[u8], block_size: u32, seed: u64) {
    let block_len = block_size as usize;
    let head = [
        &b"PWS\x02"[..],
        &block_size.to_be_bytes(),
        &seed.to_be_bytes(),
        &(basis.len() as u64).to_be_bytes(),
    ];
    let (start, mut rest) = encoded.split_at(24);
    assert_eq!(start, head.concat());
    for block in basis.chunks(block_len) {
        let number = u32::from_be_bytes(*take(&mut rest));
        let place = if block_size < 512 {
            0
        } else {
            usize::from(u16::from_be_bytes(*take(&mut rest)))
        };
        let anchors = if block_size < 512 || block.len() < block_len {
            BTreeSet::new()
        } else {
            anchors(block)
        };
        if anchors.is_empty() {
            assert_eq!((number, place), (weak(block), 0));
        } else {
            assert!(anchors.contains(&place), "{place}: {anchors:?}");
            assert_eq!(number, key(&block[place..place + 64], seed));
        }
        let strong: &[u8; 6] = take(&mut rest);
        let hash = xxhash3_128::Hasher::oneshot_with_seed(seed, block);
        assert_eq!(strong[..], hash.to_be_bytes()[..6]);
    }
    assert!(rest.is_empty());
}

fn take<'b, const N: usize>(bytes: &mut &'b [u8]) -> &'b [u8; N] {
    let (taken, rest) = bytes.split_first_chunk().expect("there is more");
    *bytes = rest;
    taken
}

fn weak(block: &[u8]) -> u32 {
    let len = block.len() as u64;
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let weighted: u64 = (0..)
        .zip(block)
        .map(|(at, byte)| (len - at) * u64::from(*byte))
        .sum();
    ((weighted + sum * 0x9E37_79B1) & 0xFFFF_FFFF) as u32
}

fn anchors(block: &[u8]) -> BTreeSet<usize> {
    let reach = block.len().min(65_536);
    let width = 0xFFFF_FFFF / (reach as u64 / 8);
    let selected: BTreeSet<usize> = (0..block.len() - 3)
        .filter(|&at| {
            let gram = u32::from_le_bytes(*block[at..].first_chunk().unwrap());
            let product = u64::from(gram.wrapping_mul(0x9E37_79B1));
            (0x8000_0000..0x8000_0000 + width).contains(&product)
        })
        .collect();
    selected
        .iter()
        .copied()
        .filter(|&at| (16..=reach - 64).contains(&at))
        .filter(|&at| selected.range(at - 16..at).next().is_none())
        .collect()
}

fn key(bytes: &[u8], seed: u64) -> u32 {
    let mut state = seed;
    let words: Vec<u64> = bytes
        .chunks(8)
        .map(|bytes| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^= word >> 31;
            word ^ u64::from_le_bytes(bytes.try_into().unwrap())
        })
        .collect();
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        u64::try_from(product & u128::from(u64::MAX)).unwrap() ^ (product >> 64) as u64
    };
    let pairs = words.chunks(2).map(|pair| fold(pair[0], pair[1]));
    let both = pairs.fold(0, |both: u64, fold| both.rotate_left(23) ^ fold);
    (both.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}

/// Another implementation may choose another anchor of a block, and both find the same.
#[test]
fn which_anchor_a_block_has_is_free() {
    let basis = noise(40_000, 7);
    let seed = 0x5EED;
    let mut encoded = Signature::of(&basis, options(2048)).encode();
    for (block, encoded) in basis.chunks_exact(2048).zip(encoded[24..].chunks_mut(12)) {
        if let Some(&last) = anchors(block).last() {
            encoded[..4].copy_from_slice(&key(&block[last..last + 64], seed).to_be_bytes());
            encoded[4..6].copy_from_slice(&u16::try_from(last).unwrap().to_be_bytes());
        }
    }
    let ours = Signature::of(&basis, options(2048));
    let theirs = Signature::decode(&encoded).unwrap();
    assert_ne!(theirs, ours);
    let target = [b"something new", &basis[..30_000], b"more", &basis[9000..]].concat();
    assert_eq!(diff(&theirs, &target), diff(&ours, &target));
}

#[test]
fn a_request_for_nothing_is_one() {
    let none = Regions::none();
    assert_eq!(none.encode(), b"PWR\x02\x40\x00");
    assert_eq!(Regions::decode(&none.encode()), Ok(none));
}
