//! The parts of a basis that a second round looks at.

use std::{
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
};

use super::{Copied, RoundError};
use crate::{
    BlockSize, DecodeError, ReadError, Seed, Signature, SignatureError, SignatureOptions,
    encoding::{Artefact, Reader, check_magic, write_varint},
};

/// Parts of a basis, and the size of the blocks in which they are to be signed: what the end that has
/// the target asks of the other for the second of two rounds.
///
/// # Encoding
///
/// It ends itself. A *number* is unsigned LEB128 in its shortest form. The ranges are in order, don't
/// touch one another, and none is empty.
///
/// ```text
/// "PWR"  version, 2
/// block size: number  count: number
/// for each range, which begins at a multiple of the block size:
///     bytes since the end of the one before: number, at least 1 but for the first
///     length: number, at least 1
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions {
    block_size: BlockSize,
    ranges: Vec<Range<u64>>,
    /// Where each range begins in what they are together.
    starts: Vec<u64>,
    /// How long they are together.
    len: u64,
}

/// A part of the target that the first round did not find, between two that it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// Where it begins and ends in the target.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where what stands before it ends in the basis, and what stands behind it begins.
    pub(super) left: u64,
    pub(super) right: u64,
}

/// Shorter gaps are cheaper sent than asked about.
const GAP_MIN: u64 = 2 * BlockSize::MIN as u64;

impl Regions {
    /// Asks for nothing: what to send where a second round would not pay, before the delta of
    /// [`FirstRound::finish_early`](super::FirstRound::finish_early).
    #[must_use]
    pub fn none() -> Self {
        Self::new(BlockSize::LEAST, Vec::new())
    }

    /// The parts of the basis that the gaps of a target are likely made of: those between the same
    /// two neighbours. Where the neighbours are not near each other in the basis, as much as the gap
    /// is long next to each of them. What the target has elsewhere already is left out.
    pub(super) fn between(
        copies: &[Copied],
        gaps: impl Iterator<Item = Gap>,
        basis_len: u64,
        block_size: BlockSize,
    ) -> Self {
        let size = u64::from(block_size.get());
        let mut wanted = Vec::new();
        let mut count = 0;
        for Gap {
            start,
            end,
            left,
            right,
        } in gaps
        {
            let len = end - start;
            if len < GAP_MIN {
                continue;
            }
            if (left..=left.saturating_add(len + NEIGHBOURHOOD * size)).contains(&right) {
                count += (len.min(right - left) / (CHANGE * size)).max(1);
                wanted.push(left..right);
            } else {
                count += 1;
                wanted.push(left..left.saturating_add(len + size).min(basis_len));
                wanted.push(right.saturating_sub(len + size)..right);
            }
        }
        let copied = copies
            .iter()
            .map(|copied| copied.offset..copied.offset + copied.len);
        let ranges = without(joined(wanted), &joined(copied.collect()));
        let ranges: Vec<_> = joined(
            ranges
                .into_iter()
                .map(|range| {
                    let end = range.end.next_multiple_of(size).min(basis_len);
                    range.start - range.start % size..end
                })
                .collect(),
        );
        let len: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let small = small_blocks(block_size, len, count);
        // The same blocks once more would find nothing.
        let ranges = if small < block_size {
            ranges
        } else {
            Vec::new()
        };
        Self::new(small, ranges)
    }

    fn new(block_size: BlockSize, ranges: Vec<Range<u64>>) -> Self {
        let starts = ranges.iter().scan(0, |end, range| {
            let start = *end;
            *end += range.end - range.start;
            Some(start)
        });
        Self {
            block_size,
            starts: starts.collect(),
            len: ranges.iter().map(|range| range.end - range.start).sum(),
            ranges,
        }
    }

    /// The ranges of the basis, in bytes, in order.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Whether there is nothing to look at.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many bytes the ranges have together.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// The size of the blocks in which they are to be signed.
    #[must_use]
    pub const fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// How many bytes the encoded second signature has: what the second round costs, together with
    /// the encoded request. What it can save are at most the [missing
    /// bytes](super::FirstRound::missing).
    #[must_use]
    pub fn signature_len(&self) -> u64 {
        Signature::encoded_len_of(self.len(), self.block_size)
    }

    /// Makes the signature of the regions of a basis, as if they were one after the other.
    ///
    /// Regions that come from a peer that isn't trusted can ask for no more than one signature of
    /// the whole basis, in blocks of [`BlockSize::MIN`].
    ///
    /// # Errors
    ///
    /// [`RoundError::Outside`] if a region is not inside the basis, [`RoundError::Sign`] if reading
    /// fails or the regions have too many blocks.
    pub fn sign(&self, mut basis: impl Read + Seek, seed: Seed) -> Result<Signature, RoundError> {
        let failed = |source| SignatureError::Read { offset: 0, source };
        let basis_len = basis.seek(SeekFrom::End(0)).map_err(failed)?;
        if let Some(last) = self.ranges.last()
            && last.end > basis_len
        {
            let end = last.end;
            return Err(RoundError::Outside { end, basis_len });
        }
        if self.block_size.count(self.len()) > Signature::MAX_BLOCKS {
            let block_size = self.block_size.get();
            return Err(SignatureError::TooManyBlocks { block_size }.into());
        }
        let options = SignatureOptions {
            block_size: Some(self.block_size),
            ..SignatureOptions::new(seed)
        };
        let regions = RegionsReader {
            basis,
            ranges: self.ranges.iter(),
            left: 0,
        };
        Ok(Signature::read(regions, self.len(), options)?)
    }

    /// Encodes the request.
    #[expect(
        clippy::missing_panics_doc,
        reason = "writing to a vector has no errors"
    )]
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Artefact::Regions.magic().to_vec();
        let mut end = 0;
        let mut number = |number: u64| {
            write_varint(number, &mut bytes).expect("writing to a vector has no errors");
        };
        number(u64::from(self.block_size.get()));
        number(self.ranges.len() as u64);
        for range in &self.ranges {
            number(range.start - end);
            number(range.end - range.start);
            end = range.end;
        }
        bytes
    }

    /// Decodes a request from input that need not be trusted.
    ///
    /// Memory: at most 24 times the length of `bytes`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if `bytes` is not exactly one request.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        let len = bytes.len() as u64;
        let regions = Self::decode_from(&mut bytes).map_err(|error| match error {
            ReadError::Malformed(error) => error,
            // A slice has no other errors.
            ReadError::Io(_) => DecodeError::Truncated { len },
        })?;
        match bytes.len() as u64 {
            0 => Ok(regions),
            len => Err(DecodeError::Trailing { len }),
        }
    }

    /// Decodes a request from a reader that need not be trusted, as it comes, and reads no byte
    /// more: let `input` be buffered.
    ///
    /// Memory: at most 24 times what has come so far, which only the reader bounds: a request has as
    /// many ranges as its sender likes. Give it one that ends ([`Read::take`]) where it comes from a
    /// peer.
    ///
    /// # Errors
    ///
    /// [`ReadError`] says whether the reader failed or what it gave is not a request.
    pub fn decode_from(input: impl Read) -> Result<Self, ReadError> {
        let mut reader = Reader::new(input);
        check_magic(reader.array()?, Artefact::Regions)?;
        let block_size = u32::try_from(reader.varint()?).unwrap_or(u32::MAX);
        let block_size = BlockSize::try_from(block_size).map_err(DecodeError::BlockSize)?;
        let count = reader.varint()?;
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for _ in 0..count {
            let offset = reader.offset();
            let (skipped, len) = (reader.varint()?, reader.varint()?);
            let before = ranges.last().map(|range| range.end);
            if len == 0 || (skipped == 0 && before.is_some()) {
                return Err(DecodeError::EmptyRange { offset }.into());
            }
            let start = before.unwrap_or(0).checked_add(skipped);
            let size = u64::from(block_size.get());
            if start.is_some_and(|start| !start.is_multiple_of(size)) {
                return Err(DecodeError::UnalignedRange { offset }.into());
            }
            let range = start.and_then(|start| Some(start..start.checked_add(len)?));
            ranges.push(range.ok_or(DecodeError::RangeTooLong { offset })?);
        }
        Ok(Self::new(block_size, ranges))
    }

    /// Where a place of the basis is in the regions together; behind what is before it, if it is in
    /// none.
    pub(super) fn position(&self, offset: u64) -> u64 {
        let next = self.ranges.partition_point(|range| range.end <= offset);
        match self.ranges.get(next) {
            Some(range) => self.starts[next] + offset.saturating_sub(range.start),
            None => self.len(),
        }
    }

    /// Gives what was found in the regions together as what it is in the basis, which may be
    /// several pieces.
    pub(super) fn real(&self, found: Copied, mut give: impl FnMut(Copied)) {
        let result: Result<(), std::convert::Infallible> = self.try_real(found, |copied| {
            give(copied);
            Ok(())
        });
        match result {
            Ok(()) => {}
        }
    }

    pub(super) fn try_real<E>(
        &self,
        mut found: Copied,
        mut give: impl FnMut(Copied) -> Result<(), E>,
    ) -> Result<(), E> {
        while found.len > 0 {
            let number = self.starts.partition_point(|start| *start <= found.offset) - 1;
            let range = &self.ranges[number];
            let inside = found.offset - self.starts[number];
            let len = found
                .len
                .min((range.end - range.start).saturating_sub(inside));
            debug_assert!(len > 0, "what is found is inside the regions");
            if len == 0 {
                return Ok(());
            }
            give(Copied {
                at: found.at,
                offset: range.start + inside,
                len,
            })?;
            found.at += len;
            found.offset += len;
            found.len -= len;
        }
        Ok(())
    }
}

/// So many blocks without one that was found are taken for more than one change: small ones may be
/// scattered over all of them.
const CHANGE: u64 = 16;

/// Neighbours are near each other if they are not more than a gap and so many blocks apart.
const NEIGHBOURHOOD: u64 = 4;

/// The block size that makes the second signature and the literals that are left over cost about the
/// same, by the number of changes: a divisor of the large one, so that no block lies in two regions.
fn small_blocks(large: BlockSize, len: u64, gaps: u64) -> BlockSize {
    // Ten bytes a block, and half a byte for each byte of the block around the change.
    let wanted = (20 * len / gaps.max(1)).isqrt().max(1);
    let large = large.get();
    let sizes = (2..=large / BlockSize::MIN).filter(|parts| large.is_multiple_of(*parts));
    let sizes = sizes.map(|parts| large / parts);
    let distance = |size: &u32| {
        let (a, b) = (u64::from(*size), wanted);
        a.max(b) * 1024 / a.min(b)
    };
    let size = sizes.min_by_key(distance).unwrap_or(large);
    BlockSize::try_from(size).unwrap_or(BlockSize::LEAST)
}

/// Sorts ranges and makes those one that touch; leaves out empty ones.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, range| {
        let touch = next.start <= range.end;
        if touch {
            range.end = range.end.max(next.end);
        }
        touch
    });
    ranges
}

/// What is in `ranges` but not in `others`; both are sorted and don't touch one another.
fn without(ranges: Vec<Range<u64>>, others: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut others = others.iter().peekable();
    for mut range in ranges {
        while others.next_if(|other| other.end <= range.start).is_some() {}
        while let Some(other) = others.peek().filter(|other| other.start < range.end) {
            if range.start < other.start {
                left.push(range.start..other.start);
            }
            range.start = range.end.min(other.end);
            if other.end > range.end {
                break;
            }
            others.next();
        }
        if !range.is_empty() {
            left.push(range);
        }
    }
    left
}

/// Reads ranges of a basis one after the other.
struct RegionsReader<'r, R> {
    basis: R,
    ranges: std::slice::Iter<'r, Range<u64>>,
    /// How much of the current range is left.
    left: u64,
}

impl<R: Read + Seek> Read for RegionsReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let Some(range) = self.ranges.next() else {
                return Ok(0);
            };
            self.basis.seek(SeekFrom::Start(range.start))?;
            self.left = range.end - range.start;
        }
        let read = self.basis.by_ref().take(self.left).read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}
