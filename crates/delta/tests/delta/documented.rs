//! `docs/delta.md`, held to what the crate does: its example, byte by byte, its limits, and what it
//! leaves to the signer.

use std::{fs, io::Cursor, path::Path};

use patchwire_delta::{
    BlockSize, Delta, DiffOptions, FirstRound, Op, Regions, Seed, Signature, diff,
};

use crate::{
    inputs::{SEED, noise, options},
    reference::anchors,
};

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

/// Another implementation may choose another anchor of a block, and both find the same.
#[test]
fn which_anchor_a_block_has_is_free() {
    let basis = noise(40_000, 7);
    let mut encoded = Signature::of(&basis, options(2048)).encode();
    for (block, encoded) in basis.chunks_exact(2048).zip(encoded[24..].chunks_mut(12)) {
        if let Some((place, key)) = anchors(block, SEED.0).last() {
            encoded[..4].copy_from_slice(&key.to_be_bytes());
            encoded[4..6].copy_from_slice(&u16::try_from(place).unwrap().to_be_bytes());
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
