//! Our own state files: recognised, versioned, and checked before they are believed.
//!
//! Layout: 8 bytes that name the file's kind and version, the BLAKE3 digest of the payload (32
//! bytes), the payload (protocol's codec).

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
};

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

/// Writes what [`seal`] gives into a file that is empty, and needs no memory for it.
pub(crate) fn write<T: Encode>(magic: Magic, value: &T, file: &File) -> io::Result<()> {
    let (_, digest) = write_payload(value, file, HEADER as u64)?;
    let header = [&magic[..], digest.as_bytes()].concat();
    file.write_all_at(&header, 0)
}

/// Writes a value into a file from `start` on. Gives where it ends, and its digest.
pub(crate) fn write_payload<T: Encode>(
    value: &T,
    file: &File,
    start: u64,
) -> io::Result<(u64, Digest)> {
    let payload = Payload {
        file,
        end: start,
        hasher: blake3::Hasher::new(),
    };
    let mut payload = BufWriter::with_capacity(BUFFER, payload);
    codec::encode_into(value, &mut payload)?;
    let Payload { end, hasher, .. } = payload
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    Ok((end, hasher.finalize().into()))
}

const BUFFER: usize = 64 << 10;

/// A payload that is digested as it is written.
struct Payload<'a> {
    file: &'a File,
    end: u64,
    hasher: blake3::Hasher,
}

impl Write for Payload<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.end)?;
        self.hasher.update(&bytes[..written]);
        self.end += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_written_is_what_is_sealed() {
        let magic = *b"pw-test1";
        for len in [0, 1, BUFFER, 3 * BUFFER + 1] {
            let value = vec![7u8; len];
            let mut file = tempfile::tempfile().unwrap();
            write(magic, &value, &file).unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, seal(magic, &value));
        }
    }

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
