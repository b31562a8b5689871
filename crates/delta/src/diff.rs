//! From a signature and a target to a delta.

use std::{
    io::{self, Read, Write},
    num::NonZeroUsize,
};

use crate::{
    Delta, Digest, Op, Signature,
    basis::BasisId,
    encoding::{DeltaWriter, Written},
    op::{MAX_LITERAL, literals},
    search::{Blocks, Match, Search},
};

mod segments;

/// How to make a [`Delta`].
#[derive(Debug, Clone, Copy)]
pub struct DiffOptions {
    /// The BLAKE3 of the target, where it is known. Otherwise it is computed, which takes longer
    /// than everything else where little has changed.
    ///
    /// A wrong one makes a delta that no basis accepts.
    pub digest: Option<Digest>,
    /// How many threads may work at it; only targets in memory are divided among them, 8 MiB at a
    /// time. More than one may add a block or two of literals for each of these.
    pub threads: NonZeroUsize,
}

impl Default for DiffOptions {
    /// Computes the digest, with one thread.
    fn default() -> Self {
        Self {
            digest: None,
            threads: NonZeroUsize::MIN,
        }
    }
}

/// What [`diff_read`], [`whole_read`](crate::whole_read) or
/// [`FirstRound::finish_read`](crate::FirstRound::finish_read) wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiffSummary {
    /// The length of the target in bytes.
    pub target_len: u64,
    /// The digest of the target.
    pub digest: Digest,
    /// How many bytes of the target are copied from the basis.
    pub copied: u64,
    /// How many bytes of the target are literals.
    pub literal: u64,
    /// The length of the encoded delta in bytes.
    pub delta_len: u64,
}

/// Why there is no delta.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// Reading the target failed.
    #[error("can't read the target at offset {offset}")]
    ReadTarget {
        /// How many bytes were read before.
        offset: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// Writing the delta failed.
    #[error("can't write the delta")]
    WriteDelta(#[source] io::Error),
}

/// Makes the delta from the basis behind `signature` to `target`, as [`diff_with`] the default
/// options.
#[must_use]
pub fn diff<'t>(signature: &Signature, target: &'t [u8]) -> Delta<'t> {
    diff_with(signature, target, DiffOptions::default())
}

/// Makes the delta from the basis behind `signature` to `target`.
///
/// Time is linear in the target and the signature for every input. Memory: at most 40 bytes for each
/// block of the signature, the operations, and 16 KiB for each thread.
///
/// # Panics
///
/// Panics if the system has no more threads, where [`DiffOptions::threads`] asks for some.
#[must_use]
pub fn diff_with<'t>(signature: &Signature, target: &'t [u8], options: DiffOptions) -> Delta<'t> {
    let mut ops = Ops::default();
    matches(signature, target, options.threads, |found| {
        ops.push(target, found);
    });
    Delta {
        basis: Some(BasisId::of(signature)),
        ops: ops.finish(target),
        target_len: target.len() as u64,
        digest: options
            .digest
            .unwrap_or_else(|| Digest::of_with(target, options.threads)),
    }
}

/// Finds the matches of a target in memory, in their order.
pub(crate) fn matches(
    signature: &Signature,
    target: &[u8],
    threads: NonZeroUsize,
    found: impl FnMut(Match),
) {
    let blocks = Blocks::new(signature);
    if threads.get() > 1 {
        segments::matches(&blocks, target, threads)
            .into_iter()
            .for_each(found);
    } else {
        let mut search = Search::new(&blocks, 0, 0);
        std::iter::from_fn(|| search.next_match(target, true)).for_each(found);
    }
}

/// The operations so far, and how much of the target they make.
#[derive(Default)]
pub(crate) struct Ops<'t> {
    ops: Vec<Op<'t>>,
    done: usize,
}

impl<'t> Ops<'t> {
    /// Adds a match behind the last one, and what is between as a literal.
    pub(crate) fn push(&mut self, target: &'t [u8], found: Match) {
        self.ops.extend(literals(&target[self.done..found.at]));
        self.done = found.at + found.len;
        match self.ops.last_mut() {
            Some(Op::Copy { offset, len }) if *offset + *len == found.offset => {
                *len += found.len as u64;
            }
            _ => self.ops.push(copy(found)),
        }
    }

    pub(crate) fn finish(mut self, target: &'t [u8]) -> Vec<Op<'t>> {
        self.ops.extend(literals(&target[self.done..]));
        self.ops
    }
}

/// Makes the delta from the basis behind `signature` to `target`, read to its end, and writes it
/// encoded, as [`diff_read_with`] the default options.
///
/// # Errors
///
/// As [`diff_read_with`].
pub fn diff_read(
    signature: &Signature,
    target: impl Read,
    out: impl Write,
) -> Result<DiffSummary, DiffError> {
    diff_read_with(signature, target, out, DiffOptions::default())
}

/// Makes the delta from the basis behind `signature` to `target`, read to its end, and writes it
/// encoded: the same bytes as [`diff`] and [`Delta::encode`].
///
/// Memory: at most 40 bytes for each block of the signature, and a window of eight blocks and a
/// megabyte. The target is read in large pieces and need not be buffered; operations are written in
/// small ones, so let `out` be.
///
/// # Errors
///
/// [`DiffError`] says whether the reader or the writer failed.
pub fn diff_read_with(
    signature: &Signature,
    mut target: impl Read,
    out: impl Write,
    options: DiffOptions,
) -> Result<DiffSummary, DiffError> {
    let blocks = Blocks::new(signature);
    let mut search = Search::new(&blocks, 0, 0);
    let mut out = MergingWriter::start(out, &BasisId::of(signature))?;
    let mut hasher = options.digest.is_none().then(blake3::Hasher::new);
    let mut window = Vec::new();
    let target_len = stream(
        &mut search,
        &mut window,
        &mut target,
        |bytes| {
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
        },
        |op| out.op(op),
    )?;
    let digest = options
        .digest
        .unwrap_or_else(|| hasher.unwrap_or_default().finalize().into());
    out.finish(target_len, digest)
}

/// Searches a target as it is read, and gives the operations that make it; copies that continue one
/// another may come one by one. `window` is empty memory to use. Gives the length of the target.
pub(crate) fn stream(
    search: &mut Search<'_, '_>,
    window: &mut Vec<u8>,
    mut target: impl Read,
    mut seen: impl FnMut(&[u8]),
    mut emit: impl FnMut(Op<'_>) -> Result<(), DiffError>,
) -> Result<u64, DiffError> {
    let capacity = 2 * search.view() + MAX_LITERAL + READ_AHEAD;
    window.reserve_exact(capacity);
    let mut target_len = 0;
    loop {
        let wanted = capacity - window.len();
        let read = target
            .by_ref()
            .take(wanted as u64)
            .read_to_end(window)
            .map_err(|source| DiffError::ReadTarget {
                offset: target_len,
                source,
            })?;
        target_len += read as u64;
        seen(&window[window.len() - read..]);
        let at_end = read < wanted;

        // The part of the window before this is given.
        let mut done = 0;
        while let Some(found) = search.next_match(window, at_end) {
            literals(&window[done..found.at]).try_for_each(&mut emit)?;
            emit(copy(found))?;
            done = found.at + found.len;
        }
        if at_end {
            literals(&window[done..]).try_for_each(&mut emit)?;
            search.end_window(window.len());
            window.clear();
            return Ok(target_len);
        }
        // What was searched in vain is literal; whole operations of it can go.
        let settled = done + (search.position() - done) / MAX_LITERAL * MAX_LITERAL;
        literals(&window[done..settled]).try_for_each(&mut emit)?;
        window.drain(..settled);
        search.advance_window(settled);
    }
}

/// How much more than it needs `stream` reads at a time: enough for few and cheap rounds.
const READ_AHEAD: usize = 768 << 10;

/// Writes a delta whose copies may come in pieces.
pub(crate) struct MergingWriter<W> {
    writer: DeltaWriter<W>,
    /// Not yet written, as the next operation may continue it: offset and length.
    pending: Option<(u64, u64)>,
}

impl<W: Write> MergingWriter<W> {
    pub(crate) fn start(out: W, basis: &BasisId) -> Result<Self, DiffError> {
        let writer = DeltaWriter::start(out, Some(basis)).map_err(DiffError::WriteDelta)?;
        Ok(Self {
            writer,
            pending: None,
        })
    }

    pub(crate) fn op(&mut self, op: Op<'_>) -> Result<(), DiffError> {
        match (op, &mut self.pending) {
            (Op::Copy { offset, len }, Some((from, length))) if *from + *length == offset => {
                *length += len;
                Ok(())
            }
            (Op::Copy { offset, len }, _) => {
                self.flush()?;
                self.pending = Some((offset, len));
                Ok(())
            }
            (Op::Literal(_), _) => {
                self.flush()?;
                self.writer.op(op).map_err(DiffError::WriteDelta)
            }
        }
    }

    pub(crate) fn finish(
        mut self,
        target_len: u64,
        digest: Digest,
    ) -> Result<DiffSummary, DiffError> {
        self.flush()?;
        let Written {
            delta_len,
            copied,
            literal,
        } = self.writer.finish(digest).map_err(DiffError::WriteDelta)?;
        Ok(DiffSummary {
            target_len,
            digest,
            copied,
            literal,
            delta_len,
        })
    }

    fn flush(&mut self) -> Result<(), DiffError> {
        match self.pending.take() {
            Some((offset, len)) => self
                .writer
                .op(Op::Copy { offset, len })
                .map_err(DiffError::WriteDelta),
            None => Ok(()),
        }
    }
}

const fn copy(found: Match) -> Op<'static> {
    Op::Copy {
        offset: found.offset,
        len: found.len as u64,
    }
}
