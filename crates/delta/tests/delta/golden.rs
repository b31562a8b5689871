//! The encodings, byte by byte. If one of these fails, change the code, not the test: peers of
//! version 2 are out there.

use patchwire_delta::{Delta, Digest, Op, Signature, diff, patch};

use crate::inputs::options;

/// Two blocks of 64 bytes and a short one of 3.
fn basis() -> Vec<u8> {
    [vec![b'a'; 64], vec![b'b'; 64], b"end".to_vec()].concat()
}

/// Blocks of 512 bytes: one with anchors, one without, and a short one of 3.
fn basis_with_anchors() -> Vec<u8> {
    let mixed = (0..512u32).map(|at| at.wrapping_mul(at + 1).wrapping_mul(0x9E37_79B1));
    let mixed = mixed.map(|number| number.to_be_bytes()[0]);
    [mixed.collect(), vec![b'b'; 512], b"end".to_vec()].concat()
}

#[test]
fn signature() {
    let signature = Signature::of(&basis(), options(64));
    let expected = [
        "505753 02",             // magic "PWS", version
        "00000040",              // block size
        "0000000000005eed",      // seed
        "0000000000000083",      // basis length
        "c14a1860 a9386a59dcd0", // weak and strong hash of the first block
        "4f288cc0 12f99136fa77", // of the second
        "3564d876 5f95a30bef0c", // of the short one
    ];
    assert_eq!(hex(&signature.encode()), expected.concat().replace(' ', ""));
    assert_eq!(Signature::decode(&signature.encode()), Ok(signature));
}

#[test]
fn signature_with_anchors() {
    let signature = Signature::of(&basis_with_anchors(), options(512));
    let expected = [
        "505753 02",                  // magic "PWS", version
        "00000200",                   // block size
        "0000000000005eed",           // seed
        "0000000000000403",           // basis length
        "8d37dbb1 005b de264cbe1099", // key and place of an anchor, and strong hash of the first block
        "79efe600 0000 b71fae3481b4", // weak hash, no place, and strong hash of the second
        "3564d876 0000 5f95a30bef0c", // the same of the short one
    ];
    assert_eq!(hex(&signature.encode()), expected.concat().replace(' ', ""));
    assert_eq!(Signature::decode(&signature.encode()), Ok(signature));
}

#[test]
fn delta() {
    let target = [&basis()[64..131], b"new", &basis()[..128]].concat();
    let delta = diff(&Signature::of(&basis(), options(64)), &target);
    let expected = [
        "505744 02",        // magic "PWD", version
        "01 8301 40",       // for a basis of 131 bytes, in blocks of 64
        "0000000000005eed", // the seed of its signature
        "41a38ca2",         // the fingerprint of its strong hashes
        "01 40 43",         // copy from 64, 67 bytes: the second block and the short one
        "02 03 6e6577",     // literal of 3 bytes, "new"
        "01 00 8001",       // copy from 0, 128 bytes: two blocks in one
        "00 c601",          // end, target length
        &Digest::of(&target).to_string(),
    ];
    let encoded = delta.encode();
    assert_eq!(hex(&encoded), expected.concat().replace(' ', ""));
    assert_eq!(Delta::decode(&encoded), Ok(delta));
    assert_eq!(patch(&basis(), &encoded, 198).unwrap(), target);
}

#[test]
fn delta_with_anchors() {
    let basis = basis_with_anchors();
    let target = [b"new", &basis[..512], &basis[1024..]].concat();
    let delta = diff(&Signature::of(&basis, options(512)), &target);
    let expected = [
        "505744 02",        // magic "PWD", version
        "01 8308 8004",     // for a basis of 1027 bytes, in blocks of 512
        "0000000000005eed", // the seed of its signature
        "c5b27af6",         // the fingerprint of its strong hashes
        "02 03 6e6577",     // literal of 3 bytes, "new"
        "01 00 8004",       // copy from 0, 512 bytes: the first block
        "01 8008 03",       // copy from 1024, 3 bytes: the short one
        "00 8604",          // end, target length
        &Digest::of(&target).to_string(),
    ];
    let encoded = delta.encode();
    assert_eq!(hex(&encoded), expected.concat().replace(' ', ""));
    assert_eq!(Delta::decode(&encoded), Ok(delta));
    assert_eq!(patch(&basis, &encoded, 518).unwrap(), target);
}

#[test]
fn whole_delta() {
    let delta = Delta::whole(b"new");
    let expected = [
        "505744 02",    // magic "PWD", version
        "00",           // for any basis
        "02 03 6e6577", // literal of 3 bytes, "new"
        "00 03",        // end, target length
        &Digest::of(b"new").to_string(),
    ];
    let encoded = delta.encode();
    assert_eq!(hex(&encoded), expected.concat().replace(' ', ""));
    assert_eq!(Delta::decode(&encoded), Ok(delta));
    assert_eq!(patch(b"any", &encoded, 3).unwrap(), b"new");
}

#[test]
fn empty_deltas() {
    let digest = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    let delta = diff(&Signature::of(b"", options(64)), b"");
    let expected = [
        "505744 02",        // magic "PWD", version
        "01 00 40",         // for a basis of nothing, in blocks of 64
        "0000000000005eed", // the seed of its signature
        "99aa06d3",         // the fingerprint of no hashes: XXH3-128 of nothing
        "00 00",            // end, target length
        digest,
    ];
    assert_eq!(hex(&delta.encode()), expected.concat().replace(' ', ""));
    let expected = [
        "505744 02", // magic "PWD", version
        "00",        // for any basis
        "00 00",     // end, target length
        digest,
    ];
    let whole = Delta::whole(b"").encode();
    assert_eq!(hex(&whole), expected.concat().replace(' ', ""));
}

#[test]
fn long_literals_are_several_operations() {
    let target = vec![7; 65_537];
    for delta in [
        diff(&Signature::of(b"", options(64)), &target),
        Delta::whole(&target),
    ] {
        assert_eq!(
            delta.ops(),
            [
                Op::Literal(&target[..65_536]),
                Op::Literal(&target[65_536..])
            ]
        );
        let encoded = delta.encode();
        // Literal of 65 536 bytes, and behind it one of 1 byte and the end.
        let behind = encoded.len() - (3 + 1 + 3 + 32);
        assert_eq!(hex(&encoded[behind - 65_536 - 4..][..4]), "02808004");
        assert_eq!(hex(&encoded[behind..][..7]), "02010700818004");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
