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
    /// How many threads may work at it; only targets in memory are divided among them. More than
    /// one may add a block or two of literals for each 8 MiB of the target.
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

/// What [`diff_read`] wrote.
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
/// Time is linear in the target for every input. Memory: at most 40 bytes for each block of the
/// signature, the operations, and 16 KiB for each thread.
#[must_use]
pub fn diff_with<'t>(signature: &Signature, target: &'t [u8], options: DiffOptions) -> Delta<'t> {
    let blocks = Blocks::new(signature);
    let mut ops = Ops::default();
    if options.threads.get() > 1 {
        for found in segments::matches(&blocks, target, options.threads) {
            ops.push(target, found);
        }
    } else {
        let mut search = Search::new(&blocks, 0, 0);
        while let Some(found) = search.next_match(target, true) {
            ops.push(target, found);
        }
    }
    Delta {
        basis: Some(BasisId::of(signature)),
        ops: ops.finish(target),
        target_len: target.len() as u64,
        digest: options
            .digest
            .unwrap_or_else(|| Digest::of_with(target, options.threads)),
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
/// Memory: at most 40 bytes for each block of the signature, and a window of four blocks and a
/// megabyte. Operations are written in small pieces, so let `out` be buffered.
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
    let basis = BasisId::of(signature);
    let mut writer = DeltaWriter::start(out, Some(&basis)).map_err(DiffError::WriteDelta)?;
    let mut hasher = options.digest.is_none().then(blake3::Hasher::new);
    let mut target_len = 0;
    let capacity = 2 * Search::VIEW * blocks.block_len() + MAX_LITERAL + READ_AHEAD;
    let mut window = Vec::with_capacity(capacity);
    // Matched but not yet written, as the next match may continue it.
    let mut pending: Option<Op<'_>> = None;
    // The part of the window before this is matched or written.
    let mut done = 0;
    loop {
        let wanted = capacity - window.len();
        let read = target
            .by_ref()
            .take(wanted as u64)
            .read_to_end(&mut window)
            .map_err(|source| DiffError::ReadTarget {
                offset: target_len,
                source,
            })?;
        target_len += read as u64;
        if let Some(hasher) = &mut hasher {
            hasher.update(&window[window.len() - read..]);
        }
        let at_end = read < wanted;

        let mut write = |op| writer.op(op).map_err(DiffError::WriteDelta);
        while let Some(found) = search.next_match(&window, at_end) {
            if let Some(Op::Copy { offset, len }) = &mut pending
                && done == found.at
                && *offset + *len == found.offset
            {
                *len += found.len as u64;
            } else {
                pending.take().map_or(Ok(()), &mut write)?;
                literals(&window[done..found.at]).try_for_each(&mut write)?;
                pending = Some(copy(found));
            }
            done = found.at + found.len;
        }
        // What was searched in vain is literal; whole operations of it can go.
        let searched = if at_end {
            window.len()
        } else {
            search.position()
        };
        let settled = if at_end {
            searched
        } else {
            done + (searched - done) / MAX_LITERAL * MAX_LITERAL
        };
        if at_end || settled > done {
            pending.take().map_or(Ok(()), &mut write)?;
            literals(&window[done..settled]).try_for_each(&mut write)?;
        }
        if at_end {
            break;
        }
        window.drain(..settled);
        search.advance_window(settled);
        done = 0;
    }

    let digest = match (options.digest, hasher) {
        (Some(digest), _) => digest,
        (None, hasher) => hasher.unwrap_or_default().finalize().into(),
    };
    let Written {
        delta_len,
        copied,
        literal,
    } = writer.finish(digest).map_err(DiffError::WriteDelta)?;
    Ok(DiffSummary {
        target_len,
        digest,
        copied,
        literal,
        delta_len,
    })
}

/// How much more than it needs `diff_read` reads at a time: enough for few and cheap rounds.
const READ_AHEAD: usize = 768 << 10;

const fn copy(found: Match) -> Op<'static> {
    Op::Copy {
        offset: found.offset,
        len: found.len as u64,
    }
}
