//! Our own state files: recognised, versioned, and checked before they are believed.
//!
//! Layout: 8 bytes that name the file's kind and version, the BLAKE3 digest of the payload (32
//! bytes), the payload (protocol's codec).

use patchwire_delta::Digest;
use patchwire_protocol::codec::{self, Decode, Encode};

/// Names a kind of state file, and its version in the last byte.
pub(crate) type Magic = [u8; 8];

const HEADER: usize = 8 + Digest::LEN;

pub(crate) fn seal<T: Encode>(magic: Magic, value: &T) -> Vec<u8> {
    let mut bytes = [&magic[..], &[0; Digest::LEN]].concat();
    codec::encode_to(value, &mut bytes);
    let digest = Digest::of(&bytes[HEADER..]);
    bytes[magic.len()..HEADER].copy_from_slice(digest.as_bytes());
    bytes
}

/// `None` if the bytes are of another kind or version, cut off, or damaged.
pub(crate) fn unseal<T: Decode<()>>(magic: Magic, bytes: &[u8]) -> Option<T> {
    let (header, payload) = bytes.split_at_checked(HEADER)?;
    let sound = header[..8] == magic && header[8..] == Digest::of(payload).as_bytes()[..];
    if !sound {
        return None;
    }
    codec::decode_state(payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_damage_is_noticed() {
        let magic = *b"pw-test1";
        let bytes = seal(magic, &vec![1u32, 2, 3]);
        assert_eq!(unseal::<Vec<u32>>(magic, &bytes), Some(vec![1, 2, 3]));
        assert_eq!(unseal::<Vec<u32>>(*b"pw-test2", &bytes), None);
        for len in 0..bytes.len() {
            assert_eq!(unseal::<Vec<u32>>(magic, &bytes[..len]), None);
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(unseal::<Vec<u32>>(magic, &damaged), None);
        }
    }
}
