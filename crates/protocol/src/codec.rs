//! How values become bytes. The only file that names bincode.
//!
//! The encoding is bincode 2's `standard()` configuration (its specification: little-endian,
//! variable-length integers, enum variants by index), through its native derive rather than serde,
//! whose path ignores the limit for some types. Types elsewhere derive [`Encode`] and [`Decode`]
//! with `#[bincode(crate = "patchwire_protocol::codec::bincode")]`.

#[doc(hidden)]
pub use bincode;
use bincode::de::read::Reader;
pub use bincode::{Decode, Encode, de::Decoder, enc::Encoder, impl_borrow_decode};

/// What [`Decode`] and [`Encode`] implementations written by hand return.
pub mod error {
    pub use bincode::error::{DecodeError as Decode, EncodeError as Encode};
}

/// The memory that decoding one message may reserve, in bytes, whatever lengths it announces.
pub const MESSAGE_LIMIT: usize = 16 << 20;

const LIMITED: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<MESSAGE_LIMIT>,
> = bincode::config::standard().with_limit::<MESSAGE_LIMIT>();

/// The memory that decoding one of our own state files may reserve, in bytes.
pub const STATE_LIMIT: usize = 512 << 20;

/// Why bytes are not a value.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes do not decode.
    #[error("malformed message")]
    Malformed(#[source] bincode::error::DecodeError),
    /// The bytes decode to a value that may not exist.
    #[error("invalid message: {what}")]
    Invalid {
        /// Why not.
        what: String,
    },
    /// A value was decoded and bytes were left.
    #[error("{trailing} bytes after the end of the message")]
    Trailing {
        /// How many bytes were left.
        trailing: usize,
    },
}

impl From<error::Decode> for DecodeError {
    fn from(error: error::Decode) -> Self {
        match error {
            error::Decode::OtherString(what) => Self::Invalid { what },
            error => Self::Malformed(error),
        }
    }
}

/// Encodes a value.
///
/// # Panics
///
/// Never for our own types: writing to memory cannot fail, and no `Encode` here refuses a value.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, bincode::config::standard())
        .expect("encoding to memory fails for no type of ours")
}

/// Encodes a value behind what `bytes` holds, without a buffer of its own.
///
/// # Panics
///
/// As [`encode`].
pub fn encode_to<T: Encode>(value: &T, bytes: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, bytes, bincode::config::standard())
        .expect("encoding to memory fails for no type of ours");
}

/// Encodes a value into a writer.
///
/// # Errors
///
/// The writer's.
///
/// # Panics
///
/// As [`encode`].
pub fn encode_into<T: Encode>(value: &T, to: &mut impl std::io::Write) -> std::io::Result<()> {
    match bincode::encode_into_std_write(value, to, bincode::config::standard()) {
        Ok(_) => Ok(()),
        Err(error::Encode::Io { inner, .. }) => Err(inner),
        Err(error) => panic!("encoding fails for no type of ours: {error}"),
    }
}

/// Decodes a message from a peer: untrusted bytes, at most [`MESSAGE_LIMIT`] of memory.
///
/// # Errors
///
/// [`DecodeError`] if the bytes are not exactly one valid value.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_within::<T, MESSAGE_LIMIT>(bytes)
}

/// Decodes one of our own state files, which can be large: at most [`STATE_LIMIT`] of memory.
///
/// # Errors
///
/// [`DecodeError`] if the bytes are not exactly one valid value.
pub fn decode_state<T: Decode<()>>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_within::<T, STATE_LIMIT>(bytes)
}

/// Decodes the value that `bytes` begin with, and leaves what follows it.
///
/// # Errors
///
/// [`DecodeError`] if they don't begin with a valid value.
pub fn decode_first<T: Decode<()>>(bytes: &mut &[u8]) -> Result<T, DecodeError> {
    let (value, used) = bincode::decode_from_slice(bytes, LIMITED).map_err(DecodeError::from)?;
    *bytes = &bytes[used..];
    Ok(value)
}

/// Why a value does not come out of a stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The stream failed, or ended early.
    #[error("the stream failed")]
    Io(#[source] std::io::Error),
    /// What came is no valid value.
    #[error(transparent)]
    Decode(DecodeError),
}

/// Decodes the value that comes next out of a stream, and reads nothing behind it.
///
/// # Errors
///
/// [`StreamError`] if no valid value comes.
pub fn decode_from<T: Decode<()>>(from: &mut impl std::io::Read) -> Result<T, StreamError> {
    bincode::decode_from_std_read(from, LIMITED).map_err(|error| match error {
        error::Decode::Io { inner, .. } => StreamError::Io(inner),
        error => StreamError::Decode(error.into()),
    })
}

/// Makes the error that a hand-written [`Decode`] returns for a value that may not exist.
pub fn invalid(what: impl std::fmt::Display) -> error::Decode {
    error::Decode::OtherString(what.to_string())
}

/// Decodes bytes of which there may be `max` at most, and reserves nothing for more. For the
/// hand-written [`Decode`] of types that bound their length; the same bytes as a `Vec<u8>`'s.
///
/// # Errors
///
/// If more are announced, or fewer are there.
pub fn decode_bytes<D: Decoder>(decoder: &mut D, max: usize) -> Result<Vec<u8>, error::Decode> {
    let announced = u64::decode(decoder)?;
    let len = usize::try_from(announced)
        .ok()
        .filter(|len| *len <= max)
        .ok_or_else(|| invalid(format_args!("{announced} bytes, the most is {max}")))?;
    decoder.claim_bytes_read(len)?;
    let mut bytes = vec![0; len];
    decoder.reader().read(&mut bytes)?;
    Ok(bytes)
}

/// [`decode_bytes`] of UTF-8; the same bytes as a `String`'s.
///
/// # Errors
///
/// As [`decode_bytes`], and if they are not UTF-8.
pub fn decode_text<D: Decoder>(decoder: &mut D, max: usize) -> Result<String, error::Decode> {
    String::from_utf8(decode_bytes(decoder, max)?).map_err(invalid)
}

fn decode_within<T: Decode<()>, const LIMIT: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let decoded = bincode::decode_from_slice(bytes, config);
    let (value, used) = decoded.map_err(DecodeError::from)?;
    match bytes.len() - used {
        0 => Ok(value),
        trailing => Err(DecodeError::Trailing { trailing }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_an_error() {
        let mut bytes = encode(&7u64);
        assert_eq!(decode::<u64>(&bytes).unwrap(), 7);
        bytes.push(0);
        assert!(matches!(
            decode::<u64>(&bytes),
            Err(DecodeError::Trailing { trailing: 1 })
        ));
    }

    #[test]
    fn announced_lengths_reserve_nothing_beyond_the_limit() {
        // A vector that announces 2^60 elements, with none present.
        let bytes = encode(&(1u64 << 60));
        assert!(matches!(
            decode::<Vec<u64>>(&bytes),
            Err(DecodeError::Malformed(_))
        ));
    }
}
