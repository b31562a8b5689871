//! The encodings, byte by byte. If one of these fails, change the code, not the test: peers of
//! version 1 are out there.

use patchwire_delta::{Delta, Digest, Op, Signature, diff, patch};

use crate::inputs::options;

/// Two blocks of 64 bytes and a short one of 3.
fn basis() -> Vec<u8> {
    [vec![b'a'; 64], vec![b'b'; 64], b"end".to_vec()].concat()
}

#[test]
fn signature() {
    let signature = Signature::of(&basis(), options(64));
    let expected = [
        "505753 01",        // magic "PWS", version
        "00000040",         // block size
        "0000000000005eed", // seed
        "0000000000000083", // basis length
        &Digest::of(&basis()).to_string(),
        "c14a1860 a9386a59dcd043c3", // weak and strong hash of the first block
        "4f288cc0 12f99136fa7714a3", // of the second
        "3564d876 5f95a30bef0c0fd9", // of the short one
    ];
    assert_eq!(hex(&signature.encode()), expected.concat().replace(' ', ""));
    assert_eq!(Signature::decode(&signature.encode()), Ok(signature));
}

#[test]
fn delta() {
    let target = [&basis()[64..131], b"new", &basis()[..128]].concat();
    let delta = diff(&Signature::of(&basis(), options(64)), &target);
    let expected = [
        "505744 01",           // magic "PWD", version
        "01 40 43",            // copy from 64, 67 bytes: the second block and the short one
        "02 03 6e6577",        // literal of 3 bytes, "new"
        "01 00 8001",          // copy from 0, 128 bytes: two blocks in one
        "00 00000000000000c6", // end, target length
        &Digest::of(&target).to_string(),
    ];
    let encoded = delta.encode();
    assert_eq!(hex(&encoded), expected.concat().replace(' ', ""));
    assert_eq!(Delta::decode(&encoded), Ok(delta));
    assert_eq!(patch(&basis(), &encoded, 198).unwrap(), target);
}

#[test]
fn empty_delta() {
    let delta = diff(&Signature::of(b"", options(64)), b"");
    let expected = [
        "505744 01",           // magic "PWD", version
        "00 0000000000000000", // end, target length
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    ];
    assert_eq!(hex(&delta.encode()), expected.concat().replace(' ', ""));
}

#[test]
fn long_literals_are_several_operations() {
    let target = vec![7; 65_537];
    let delta = diff(&Signature::of(b"", options(64)), &target);
    assert_eq!(
        delta.ops(),
        [
            Op::Literal(&target[..65_536]),
            Op::Literal(&target[65_536..])
        ]
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
