//! The bytes of an encoded delta, and why bytes are not an encoding of ours.

use std::{
    io::{self, BufRead, Read, Write},
    num::NonZeroU16,
};

use crate::{BlockSize, BlockSizeError, Digest, Op, Seed, basis::BasisId, op::MAX_LITERAL};

/// Why bytes are not a signature, a delta or a request for regions. Offsets are from their beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the input ends too early, after {len} bytes")]
    Truncated {
        /// How many bytes there are.
        len: u64,
    },
    /// Bytes follow after the end.
    #[error("{len} bytes follow after the end")]
    Trailing {
        /// How many bytes are too much.
        len: u64,
    },
    /// The bytes begin otherwise than a signature or a delta of ours.
    #[error("the input begins with {found:02x?} instead of {expected:02x?}")]
    WrongMagic {
        /// The first three bytes.
        found: [u8; 3],
        /// What they should be.
        expected: [u8; 3],
    },
    /// The version of the encoding is not known here.
    #[error("version {version} of the encoding is not known")]
    UnknownVersion {
        /// The version found.
        version: u8,
    },
    /// The block size is refused.
    #[error(transparent)]
    BlockSize(#[from] BlockSizeError),
    /// A signature's block has its anchor where none can be.
    #[error("a block's anchor at {place}, said at offset {offset}, is outside the block")]
    Place {
        /// The anchor's place in its block.
        place: NonZeroU16,
        /// The block's place in the encoding.
        offset: u64,
    },
    /// A signature announces too many blocks.
    #[error("{count} blocks are more than a signature may have")]
    TooManyBlocks {
        /// The number of blocks that follows from the lengths.
        count: u64,
    },
    /// A delta has an operation that is not known.
    #[error("unknown operation {tag:#04x} at offset {offset}")]
    UnknownOp {
        /// The operation's first byte.
        tag: u8,
        /// Its place in the encoding.
        offset: u64,
    },
    /// A delta has an operation that adds nothing.
    #[error("empty operation at offset {offset}")]
    EmptyOp {
        /// The operation's place in the encoding.
        offset: u64,
    },
    /// A literal is longer than one operation may carry.
    #[error("a literal of {len} bytes at offset {offset} is over the limit")]
    LiteralTooLong {
        /// The announced length in bytes.
        len: u64,
        /// The operation's place in the encoding.
        offset: u64,
    },
    /// A number is over 64 bits, or not in its shortest form.
    #[error("malformed number at offset {offset}")]
    MalformedNumber {
        /// The number's place in the encoding.
        offset: u64,
    },
    /// A delta says neither that it has a basis nor that it has none.
    #[error("{tag:#04x} at offset {offset} instead of 0 or 1")]
    UnknownBasis {
        /// The byte found.
        tag: u8,
        /// Its place in the encoding.
        offset: u64,
    },
    /// A delta without a basis copies from it.
    #[error("a copy at offset {offset}, but there is no basis")]
    CopyWithoutBasis {
        /// The operation's place in the encoding.
        offset: u64,
    },
    /// A request for regions has one that is empty or touches the one before.
    #[error("empty range or gap at offset {offset}")]
    EmptyRange {
        /// The range's place in the encoding.
        offset: u64,
    },
    /// A request for regions has one that doesn't begin with a block.
    #[error("the range at offset {offset} doesn't begin at a multiple of the block size")]
    UnalignedRange {
        /// The range's place in the encoding.
        offset: u64,
    },
    /// A request for regions has one that ends behind 2⁶⁴ bytes.
    #[error("the range at offset {offset} ends behind 2^64 bytes")]
    RangeTooLong {
        /// The range's place in the encoding.
        offset: u64,
    },
    /// The operations of a delta make more than 2⁶⁴ bytes.
    #[error("the operations before offset {offset} make more than 2^64 bytes")]
    TargetTooLong {
        /// The place in the encoding after the operation that is too much.
        offset: u64,
    },
    /// The operations of a delta do not add up to the length it announces.
    #[error("the operations make {actual} bytes instead of {expected}")]
    WrongLength {
        /// The announced length of the target.
        expected: u64,
        /// What the operations add up to.
        actual: u64,
    },
}

/// What the first bytes of an encoding say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Artefact {
    Signature,
    Delta,
    Regions,
}

impl Artefact {
    pub(crate) const fn magic(self) -> [u8; 4] {
        let [a, b, c] = self.name();
        [a, b, c, VERSION]
    }

    const fn name(self) -> [u8; 3] {
        match self {
            Self::Signature => *b"PWS",
            Self::Delta => *b"PWD",
            Self::Regions => *b"PWR",
        }
    }
}

const VERSION: u8 = 2;

pub(crate) fn check_magic(
    [a, b, c, version]: [u8; 4],
    expected: Artefact,
) -> Result<(), DecodeError> {
    let expected = expected.name();
    if [a, b, c] != expected {
        return Err(DecodeError::WrongMagic {
            found: [a, b, c],
            expected,
        });
    }
    if version != VERSION {
        return Err(DecodeError::UnknownVersion { version });
    }
    Ok(())
}

/// Writes one encoded delta, operation by operation.
#[derive(Debug)]
pub(crate) struct DeltaWriter<W> {
    out: W,
    written: u64,
    copied: u64,
    literal: u64,
}

/// What a [`DeltaWriter`] has written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) delta_len: u64,
    pub(crate) copied: u64,
    pub(crate) literal: u64,
}

impl<W: Write> DeltaWriter<W> {
    pub(crate) fn start(out: W, basis: Option<&BasisId>) -> io::Result<Self> {
        let mut writer = Self {
            out,
            written: 0,
            copied: 0,
            literal: 0,
        };
        let mut head = Artefact::Delta.magic().to_vec();
        match basis {
            Some(basis) => {
                head.push(BASIS);
                write_varint(basis.len, &mut head)?;
                write_varint(u64::from(basis.block_size.get()), &mut head)?;
                head.extend_from_slice(&basis.seed.0.to_be_bytes());
                head.extend_from_slice(&basis.fingerprint.to_be_bytes());
            }
            None => head.push(NO_BASIS),
        }
        writer.write(&head)?;
        Ok(writer)
    }

    /// Writes one operation; a literal has 1 to [`MAX_LITERAL`] bytes.
    pub(crate) fn op(&mut self, op: Op<'_>) -> io::Result<()> {
        let mut head = [0; 1 + 2 * MAX_VARINT];
        let mut rest = head.as_mut_slice();
        match op {
            Op::Copy { offset, len } => {
                rest.write_all(&[TAG_COPY])?;
                write_varint(offset, &mut rest)?;
                write_varint(len, &mut rest)?;
                self.copied += len;
            }
            Op::Literal(bytes) => {
                rest.write_all(&[TAG_LITERAL])?;
                write_varint(bytes.len() as u64, &mut rest)?;
                self.literal += bytes.len() as u64;
            }
        }
        let unused = rest.len();
        self.write(&head[..head.len() - unused])?;
        match op {
            Op::Copy { .. } => Ok(()),
            Op::Literal(bytes) => self.write(bytes),
        }
    }

    pub(crate) fn finish(mut self, digest: Digest) -> io::Result<Written> {
        let mut end = vec![TAG_END];
        write_varint(self.copied + self.literal, &mut end)?;
        end.extend_from_slice(digest.as_bytes());
        self.write(&end)?;
        Ok(Written {
            delta_len: self.written,
            copied: self.copied,
            literal: self.literal,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// The head of an operation; the bytes of a literal follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpHead {
    Copy { offset: u64, len: u64 },
    Literal { len: usize },
    End { target_len: u64, digest: Digest },
}

/// Why an encoding couldn't be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The reader failed.
    #[error("can't read the encoding")]
    Io(#[source] io::Error),
    /// What it gave is truncated or malformed.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

/// Reads the fields of an encoding, and not a byte more.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    input: R,
    offset: u64,
}

impl<R: Read> Reader<R> {
    pub(crate) const fn new(input: R) -> Self {
        Self { input, offset: 0 }
    }

    /// How many bytes were read.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        let mut filled = 0;
        while filled < N {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) => {
                    let len = self.offset + filled as u64;
                    return Err(DecodeError::Truncated { len }.into());
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Io(error)),
            }
        }
        self.offset += N as u64;
        Ok(bytes)
    }

    /// Reads an unsigned LEB128 number in its shortest form.
    pub(crate) fn varint(&mut self) -> Result<u64, ReadError> {
        let malformed = DecodeError::MalformedNumber {
            offset: self.offset,
        };
        let mut number = 0u64;
        for shift in (0..u64::BITS).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7F);
            if (bits << shift) >> shift != bits {
                return Err(malformed.into());
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                let shortest = byte != 0 || shift == 0;
                return if shortest {
                    Ok(number)
                } else {
                    Err(malformed.into())
                };
            }
        }
        Err(malformed.into())
    }
}

/// Reads one encoded delta, operation by operation.
#[derive(Debug)]
pub(crate) struct DeltaReader<R> {
    reader: Reader<R>,
    basis: Option<BasisId>,
}

impl<R: BufRead> DeltaReader<R> {
    /// Reads and checks the head of a delta.
    pub(crate) fn start(input: R) -> Result<Self, ReadError> {
        let mut reader = Reader::new(input);
        check_magic(reader.array()?, Artefact::Delta)?;
        let offset = reader.offset();
        let basis = match reader.array()? {
            [NO_BASIS] => None,
            [BASIS] => {
                let len = reader.varint()?;
                let block_size = u32::try_from(reader.varint()?).unwrap_or(u32::MAX);
                Some(BasisId {
                    len,
                    block_size: BlockSize::try_from(block_size).map_err(DecodeError::BlockSize)?,
                    seed: Seed(u64::from_be_bytes(reader.array()?)),
                    fingerprint: u32::from_be_bytes(reader.array()?),
                })
            }
            [tag] => return Err(DecodeError::UnknownBasis { tag, offset }.into()),
        };
        Ok(Self { reader, basis })
    }

    /// The basis that the delta is for, unless it needs none.
    pub(crate) const fn basis(&self) -> Option<BasisId> {
        self.basis
    }

    /// Reads the head of the next operation; the literal before it must have been taken.
    pub(crate) fn head(&mut self) -> Result<OpHead, ReadError> {
        let reader = &mut self.reader;
        let offset = reader.offset();
        let [tag] = reader.array()?;
        match tag {
            TAG_END => Ok(OpHead::End {
                target_len: reader.varint()?,
                digest: Digest::from_bytes(reader.array()?),
            }),
            TAG_COPY if self.basis.is_none() => {
                Err(DecodeError::CopyWithoutBasis { offset }.into())
            }
            TAG_COPY => {
                let (from, len) = (reader.varint()?, reader.varint()?);
                if len == 0 {
                    return Err(DecodeError::EmptyOp { offset }.into());
                }
                Ok(OpHead::Copy { offset: from, len })
            }
            TAG_LITERAL => {
                let len = reader.varint()?;
                match usize::try_from(len) {
                    Ok(0) => Err(DecodeError::EmptyOp { offset }.into()),
                    Ok(len) if len <= MAX_LITERAL => Ok(OpHead::Literal { len }),
                    _ => Err(DecodeError::LiteralTooLong { len, offset }.into()),
                }
            }
            tag => Err(DecodeError::UnknownOp { tag, offset }.into()),
        }
    }

    /// How many bytes were read.
    pub(crate) const fn offset(&self) -> u64 {
        self.reader.offset()
    }

    /// Reads some of a literal's bytes, at least one and at most `len`, and gives them to `take`.
    pub(crate) fn literal<T>(
        &mut self,
        len: usize,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<(usize, T), ReadError> {
        let ready = loop {
            match self.reader.input.fill_buf() {
                Ok(ready) => break ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Io(error)),
            }
        };
        let piece = &ready[..len.min(ready.len())];
        if piece.is_empty() {
            let len = self.reader.offset;
            return Err(DecodeError::Truncated { len }.into());
        }
        let (taken, result) = (piece.len(), take(piece));
        self.reader.input.consume(taken);
        self.reader.offset += taken as u64;
        Ok((taken, result))
    }
}

impl<'t> DeltaReader<&'t [u8]> {
    /// Borrows the bytes of a literal.
    pub(crate) fn borrow(&mut self, len: usize) -> Result<&'t [u8], DecodeError> {
        let reader = &mut self.reader;
        let Some((bytes, rest)) = reader.input.split_at_checked(len) else {
            let len = reader.offset + reader.input.len() as u64;
            return Err(DecodeError::Truncated { len });
        };
        reader.input = rest;
        reader.offset += len as u64;
        Ok(bytes)
    }

    /// Checks that nothing follows.
    pub(crate) const fn expect_end(&self) -> Result<(), DecodeError> {
        let len = self.reader.input.len() as u64;
        if len == 0 {
            Ok(())
        } else {
            Err(DecodeError::Trailing { len })
        }
    }
}

const TAG_END: u8 = 0;
const TAG_COPY: u8 = 1;
const TAG_LITERAL: u8 = 2;

/// Whether a delta has a basis.
const NO_BASIS: u8 = 0;
const BASIS: u8 = 1;

/// The longest LEB128 form of 64 bits.
const MAX_VARINT: usize = 10;

pub(crate) fn write_varint(mut number: u64, out: &mut impl Write) -> io::Result<()> {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return out.write_all(&[low]);
        }
        out.write_all(&[low | 0x80])?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<u64, Option<DecodeError>> {
        let mut reader = Reader::new(bytes);
        reader.varint().map_err(|error| match error {
            ReadError::Io(_) => None,
            ReadError::Malformed(error) => Some(error),
        })
    }

    proptest! {
        #[test]
        fn numbers_are_read_back(number in any::<u64>(), shift in 0u32..64) {
            let number = number >> shift;
            let mut bytes = Vec::new();
            write_varint(number, &mut bytes).unwrap();
            prop_assert!(bytes.len() <= MAX_VARINT);
            prop_assert_eq!(read(&bytes), Ok(number));
            for len in 0..bytes.len() {
                let truncated = DecodeError::Truncated { len: len as u64 };
                prop_assert_eq!(read(&bytes[..len]), Err(Some(truncated)));
            }
        }
    }

    #[test]
    fn numbers_have_one_form_and_64_bits() {
        let malformed = Err(Some(DecodeError::MalformedNumber { offset: 0 }));
        assert_eq!(read(&[0x00]), Ok(0));
        assert_eq!(read(&[0x80, 0x00]), malformed);
        let largest = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
        assert_eq!(read(&largest), Ok(u64::MAX));
        let over = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02];
        assert_eq!(read(&over), malformed);
        assert_eq!(read(&[0x80; 11]), malformed);
    }

    /// A reader whose answers are given one after the other.
    struct Answers<'a>(std::vec::IntoIter<io::Result<&'a [u8]>>);

    impl Read for Answers<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = self.0.next().unwrap_or(Ok(&[]))?;
            buffer[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        }
    }

    fn answers<const N: usize>(answers: [io::Result<&[u8]>; N]) -> Reader<Answers<'_>> {
        Reader::new(Answers(answers.into_iter().collect::<Vec<_>>().into_iter()))
    }

    #[test]
    fn fields_are_read_as_they_come() {
        let interrupted = || Err(io::ErrorKind::Interrupted.into());
        let mut reader = answers([Ok(b"ab"), interrupted(), interrupted(), Ok(b"cd"), Ok(b"e")]);
        assert_eq!(reader.array().unwrap(), *b"abcd");
        assert_eq!(reader.offset(), 4);
        assert_eq!(reader.array().unwrap(), *b"");
        let truncated = reader.array::<2>().unwrap_err();
        assert!(matches!(
            truncated,
            ReadError::Malformed(DecodeError::Truncated { len: 5 })
        ));
    }

    #[test]
    fn what_fails_is_not_truncated() {
        let mut reader = answers([Ok(b"a"), Err(io::ErrorKind::TimedOut.into())]);
        let error = reader.array::<2>().unwrap_err();
        assert!(matches!(error, ReadError::Io(error) if error.kind() == io::ErrorKind::TimedOut));
    }
}
