//! Two rounds: large blocks first, then small ones where the large ones did not match.
//!
//! One round has to choose: small blocks make a large signature, large blocks leave much of the
//! target to be sent for each change. In two rounds both can be small, at the price of a second
//! question and answer. That a file is searched again with smaller blocks where it differs is an old
//! idea (Langford, "Multiround rsync", 2001; Suel, Noel and Trendafilov, "Improved file
//! synchronization techniques for maintaining large replicated collections over slow networks", 2004).

use std::io::{Read, Seek, SeekFrom, Write};

use crate::{
    Delta, DiffError, DiffOptions, DiffSummary, Digest, Op, Signature, SignatureError,
    basis::BasisId,
    diff::{self, MergingWriter, Ops},
    search::{Blocks, Match, Search},
};

mod regions;

use regions::Gap;
pub use regions::Regions;

/// What the first of two rounds found, at the end that has the target.
///
/// The end with the basis sends a signature in large blocks
/// ([`for_two_rounds`](crate::BlockSize::for_two_rounds)); this end searches its target for them, and
/// asks for smaller blocks of the [`Regions`] that may have what is missing; the other signs these; and
/// this end makes the delta, an ordinary one, from both. It pays where the time for the bytes that it
/// saves is more than that of a round trip: compare [`FirstRound::missing`], which it can save at most,
/// with [`Regions::signature_len`], which it costs.
/// [docs/delta.md](https://github.com/patchwire/patchwire/blob/main/docs/delta.md) has more of this, and
/// the sources.
///
/// Memory: 24 bytes for each stretch that was found.
///
/// ```
/// use patchwire_delta::{BlockSize, DiffOptions, FirstRound, Regions, Seed, Signature, SignatureOptions};
///
/// let basis: Vec<u8> = (0..400_000u32).flat_map(|n| n.wrapping_mul(n | 1).to_le_bytes()).collect();
/// let mut target = basis.clone();
/// target.splice(700_000..700_010, *b"something else");
///
/// // Where the basis is: large blocks.
/// let options = SignatureOptions {
///     block_size: Some(BlockSize::for_two_rounds(basis.len() as u64)),
///     ..SignatureOptions::new(Seed(1))
/// };
/// let first = Signature::of(&basis, options).encode();
///
/// // Where the target is: which parts of the basis to look at closer.
/// let round = FirstRound::of(&Signature::decode(&first)?, &target, DiffOptions::default());
/// let request = round.regions().encode();
///
/// // Where the basis is: small blocks, of these parts alone.
/// let regions = Regions::decode(&request)?;
/// let second = regions.sign(std::io::Cursor::new(&basis), Seed(2))?.encode();
///
/// // Where the target is: the delta.
/// let delta = round.finish(&Signature::decode(&second)?, &target)?.encode();
/// assert!(first.len() + request.len() + second.len() + delta.len() < 25_000);
///
/// // Where the basis is.
/// assert_eq!(patchwire_delta::patch(&basis, &delta, 2 << 20)?, target);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct FirstRound {
    basis: BasisId,
    copies: Vec<Copied>,
    target_len: u64,
    digest: Digest,
    regions: Regions,
}

/// A stretch of the target that the basis has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Copied {
    at: u64,
    offset: u64,
    len: u64,
}

/// Why two rounds give no delta.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// A region is not inside the basis: the request is for another one.
    #[error("a region ends at {end}, behind the basis of {basis_len} bytes")]
    Outside {
        /// Where the region ends.
        end: u64,
        /// The length of the basis in bytes.
        basis_len: u64,
    },
    /// Making the second signature failed.
    #[error("can't sign the regions")]
    Sign(#[from] SignatureError),
    /// The second signature is not of the regions that were asked for.
    #[error(
        "the second signature is of {basis_len} bytes in blocks of {block_size}, instead of {expected_len} in blocks of {expected_block_size}"
    )]
    OtherRegions {
        /// What it is of, in bytes.
        basis_len: u64,
        /// Its block size in bytes.
        block_size: u32,
        /// The length of the regions in bytes.
        expected_len: u64,
        /// The block size that was asked for in bytes.
        expected_block_size: u32,
    },
    /// The target has another length than in the first round.
    #[error("the target has {len} bytes instead of {expected} as in the first round")]
    OtherTarget {
        /// The length now in bytes.
        len: u64,
        /// The length in the first round in bytes.
        expected: u64,
    },
    /// Reading the target or writing the delta failed.
    #[error(transparent)]
    Diff(#[from] DiffError),
}

impl FirstRound {
    /// Searches a target in memory for the blocks of the first signature.
    ///
    /// Cost and memory: as [`diff_with`](crate::diff_with).
    #[must_use]
    pub fn of(signature: &Signature, target: &[u8], options: DiffOptions) -> Self {
        let mut copies = Vec::new();
        diff::matches(signature, target, options.threads, |found| {
            add(&mut copies, found.into());
        });
        let digest = options
            .digest
            .unwrap_or_else(|| Digest::of_with(target, options.threads));
        Self::new(signature, copies, target.len() as u64, digest)
    }

    /// Searches a target, read to its end, for the blocks of the first signature.
    ///
    /// Memory: as [`diff_read_with`](crate::diff_read_with), and 24 bytes for each stretch that the
    /// basis has.
    ///
    /// # Errors
    ///
    /// [`DiffError::ReadTarget`] if the reader fails.
    pub fn read(
        signature: &Signature,
        target: impl Read,
        options: DiffOptions,
    ) -> Result<Self, DiffError> {
        let blocks = Blocks::new(signature);
        let mut search = Search::new(&blocks, 0, 0);
        let mut hasher = options.digest.is_none().then(blake3::Hasher::new);
        let mut copies = Vec::new();
        let mut at = 0;
        let target_len = diff::stream(
            &mut search,
            &mut Vec::new(),
            target,
            |bytes| {
                if let Some(hasher) = &mut hasher {
                    hasher.update(bytes);
                }
            },
            |op| {
                if let Op::Copy { offset, len } = op {
                    add(&mut copies, Copied { at, offset, len });
                }
                at += op.len();
                Ok(())
            },
        )?;
        let digest = options
            .digest
            .unwrap_or_else(|| hasher.unwrap_or_default().finalize().into());
        Ok(Self::new(signature, copies, target_len, digest))
    }

    fn new(signature: &Signature, copies: Vec<Copied>, target_len: u64, digest: Digest) -> Self {
        let basis = BasisId::of(signature);
        let gaps = gaps(&copies, target_len, basis.len);
        let regions = Regions::between(&copies, gaps, basis.len, basis.block_size);
        Self {
            basis,
            copies,
            target_len,
            digest,
            regions,
        }
    }

    /// Searches what is missing for the blocks of the second signature, for yet another round: what
    /// this gives has found what both did, and its regions are of what is still missing. `second` and
    /// `target` are as in [`FirstRound::finish_read`].
    ///
    /// It pays where so much changed in a large basis that the blocks of the second round could not be
    /// small either.
    ///
    /// Memory: as [`FirstRound::read`].
    ///
    /// # Errors
    ///
    /// As [`FirstRound::finish_read`].
    pub fn refine(&self, second: &Signature, target: impl Read + Seek) -> Result<Self, RoundError> {
        self.check(second)?;
        let mut copies = Vec::new();
        let mut at = 0;
        self.search_read(second, target, |op| {
            if let Op::Copy { offset, len } = op {
                add(&mut copies, Copied { at, offset, len });
            }
            at += op.len();
            Ok(())
        })?;
        let gaps = gaps(&copies, self.target_len, self.basis.len);
        let regions = Regions::between(&copies, gaps, self.basis.len, second.block_size());
        Ok(Self {
            basis: self.basis,
            copies,
            target_len: self.target_len,
            digest: self.digest,
            regions,
        })
    }

    /// The parts of the basis that may have what is still missing. If there are none, a second round
    /// is of no use: [`FirstRound::finish_early`].
    #[must_use]
    pub const fn regions(&self) -> &Regions {
        &self.regions
    }

    /// How many bytes of the target no block of the first signature has: literals, if there is no
    /// second round. Takes time linear in the stretches that were found.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.target_len - self.copies.iter().map(|copied| copied.len).sum::<u64>()
    }

    /// Makes the delta from what both rounds found; `second`, which need not be trusted, is what
    /// [`Regions::sign`] made of the regions, `target` the same as in the first round. Several
    /// deltas can be made of one first round.
    ///
    /// Cost and memory: as [`diff_with`](crate::diff_with) with the second signature and what was
    /// missing, with one thread.
    ///
    /// # Errors
    ///
    /// [`RoundError::OtherRegions`] or [`RoundError::OtherTarget`] if `second` or `target` can't be
    /// that. Another target of the same length makes a delta that no basis accepts.
    pub fn finish<'t>(
        &self,
        second: &Signature,
        target: &'t [u8],
    ) -> Result<Delta<'t>, RoundError> {
        self.check(second)?;
        self.check_target(target.len() as u64)?;
        let blocks = Blocks::new(second);
        let mut search = Search::new(&blocks, 0, 0);
        let mut ops = Ops::default();
        for piece in self.pieces() {
            match piece {
                Piece::Copied(copied) => ops.push(target, copied.into()),
                Piece::Gap(gap) => {
                    let window = &target[to_usize(gap.start)..to_usize(gap.end)];
                    search.jump(0, self.expected(&gap));
                    while let Some(found) = search.next_match(window, true) {
                        let mut copied = Copied::from(found);
                        copied.at += gap.start;
                        self.regions.real(copied, |copied| {
                            ops.push(target, copied.into());
                        });
                    }
                    search.end_window(window.len());
                }
            }
        }
        Ok(self.delta(ops, target))
    }

    /// Makes the delta from what the first round found alone.
    ///
    /// # Errors
    ///
    /// [`RoundError::OtherTarget`] if `target` can't be that of the first round.
    pub fn finish_early<'t>(&self, target: &'t [u8]) -> Result<Delta<'t>, RoundError> {
        self.check_target(target.len() as u64)?;
        let mut ops = Ops::default();
        for copied in &self.copies {
            ops.push(target, (*copied).into());
        }
        Ok(self.delta(ops, target))
    }

    /// Makes the delta from what both rounds found, and writes it encoded; `target` is read from its
    /// beginning, only where the first round found nothing.
    ///
    /// Memory: as [`diff_read_with`](crate::diff_read_with) with the second signature.
    ///
    /// # Errors
    ///
    /// As [`FirstRound::finish`], and [`RoundError::Diff`] if reading or writing fails.
    pub fn finish_read(
        &self,
        second: &Signature,
        target: impl Read + Seek,
        out: impl Write,
    ) -> Result<DiffSummary, RoundError> {
        self.check(second)?;
        let mut out = MergingWriter::start(out, &self.basis)?;
        self.search_read(second, target, |op| out.op(op))?;
        Ok(out.finish(self.target_len, self.digest)?)
    }

    /// Gives what makes the target, in its order: what the first round found, and what `second` has of
    /// the rest.
    fn search_read(
        &self,
        second: &Signature,
        mut target: impl Read + Seek,
        mut give: impl FnMut(Op<'_>) -> Result<(), DiffError>,
    ) -> Result<(), RoundError> {
        let failed = |offset| move |source| DiffError::ReadTarget { offset, source };
        let len = target.seek(SeekFrom::End(0)).map_err(failed(0))?;
        self.check_target(len)?;
        let blocks = Blocks::new(second);
        let mut search = Search::new(&blocks, 0, 0);
        let mut window = Vec::new();
        for piece in self.pieces() {
            match piece {
                Piece::Copied(copied) => give(copied.op())?,
                Piece::Gap(gap) => {
                    target
                        .seek(SeekFrom::Start(gap.start))
                        .map_err(failed(gap.start))?;
                    search.jump(0, self.expected(&gap));
                    let gap_len = gap.end - gap.start;
                    let mut at = 0;
                    let read = diff::stream(
                        &mut search,
                        &mut window,
                        target.by_ref().take(gap_len),
                        |_| {},
                        |op| {
                            at += op.len();
                            match op {
                                Op::Literal(_) => give(op),
                                Op::Copy { offset, len } => {
                                    let copied = Copied { at, offset, len };
                                    self.regions.try_real(copied, |copied| give(copied.op()))
                                }
                            }
                        },
                    )?;
                    if read != gap_len {
                        return Err(RoundError::OtherTarget {
                            len: gap.start + read,
                            expected: self.target_len,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn delta<'t>(&self, ops: Ops<'t>, target: &'t [u8]) -> Delta<'t> {
        Delta {
            basis: Some(self.basis),
            ops: ops.finish(target),
            target_len: self.target_len,
            digest: self.digest,
        }
    }

    fn check(&self, second: &Signature) -> Result<(), RoundError> {
        let (len, block_size) = (self.regions.len(), self.regions.block_size());
        if (second.basis_len(), second.block_size()) == (len, block_size) {
            return Ok(());
        }
        Err(RoundError::OtherRegions {
            basis_len: second.basis_len(),
            block_size: second.block_size().get(),
            expected_len: len,
            expected_block_size: block_size.get(),
        })
    }

    const fn check_target(&self, len: u64) -> Result<(), RoundError> {
        let expected = self.target_len;
        if len == expected {
            Ok(())
        } else {
            Err(RoundError::OtherTarget { len, expected })
        }
    }

    /// The block of the second signature that continues what stands before a gap.
    fn expected(&self, gap: &Gap) -> usize {
        let block = self.regions.position(gap.left) / u64::from(self.regions.block_size().get());
        to_usize(block)
    }

    /// What was found and what is between, in the order of the target.
    fn pieces(&self) -> impl Iterator<Item = Piece> {
        let mut gaps = gaps(&self.copies, self.target_len, self.basis.len).peekable();
        let mut copies = self.copies.iter().copied().peekable();
        std::iter::from_fn(move || {
            let next = copies.peek().map(|copied| copied.at);
            match gaps.next_if(|gap| next.is_none_or(|at| gap.start < at)) {
                Some(gap) => Some(Piece::Gap(gap)),
                None => copies.next().map(Piece::Copied),
            }
        })
    }
}

enum Piece {
    Copied(Copied),
    Gap(Gap),
}

/// What is between the copies, and before and behind them.
fn gaps(copies: &[Copied], target_len: u64, basis_len: u64) -> impl Iterator<Item = Gap> {
    let ends = copies
        .iter()
        .map(|copied| (copied.at, copied.offset))
        .chain([(target_len, basis_len)]);
    let starts = copies
        .iter()
        .map(|copied| (copied.at + copied.len, copied.offset + copied.len));
    std::iter::once((0, 0))
        .chain(starts)
        .zip(ends)
        .map(|((start, left), (end, right))| Gap {
            start,
            end,
            left,
            right,
        })
        .filter(|gap| gap.start < gap.end)
}

/// A place in a target that is in memory, or the number of a block.
fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn add(copies: &mut Vec<Copied>, copied: Copied) {
    match copies.last_mut() {
        Some(last)
            if last.at + last.len == copied.at && last.offset + last.len == copied.offset =>
        {
            last.len += copied.len;
        }
        _ => copies.push(copied),
    }
}

impl Copied {
    const fn op(self) -> Op<'static> {
        Op::Copy {
            offset: self.offset,
            len: self.len,
        }
    }
}

impl From<Match> for Copied {
    fn from(found: Match) -> Self {
        Self {
            at: found.at as u64,
            offset: found.offset,
            len: found.len as u64,
        }
    }
}

impl From<Copied> for Match {
    fn from(copied: Copied) -> Self {
        Self {
            at: to_usize(copied.at),
            offset: copied.offset,
            len: to_usize(copied.len),
        }
    }
}

#[cfg(test)]
mod tests;
