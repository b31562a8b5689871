//! From a signature and a target to a delta.

use std::io::{self, Read, Write};

use crate::{
    Delta, Digest, Op, Signature,
    encoding::{DeltaWriter, Written},
    op::MAX_LITERAL,
    search::{Match, Search},
};

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

/// Makes the delta from the basis behind `signature` to `target`.
///
/// Time is linear in the target for every input, memory in the signature and the operations.
#[must_use]
pub fn diff<'t>(signature: &Signature, target: &'t [u8]) -> Delta<'t> {
    let mut search = Search::new(signature);
    let mut ops: Vec<Op<'t>> = Vec::new();
    let mut done = 0;
    while let Some(found) = search.next_match(target, true) {
        ops.extend(literals(&target[done..found.at]));
        done = found.at + found.len;
        match ops.last_mut() {
            Some(Op::Copy { offset, len }) if *offset + *len == found.offset => {
                *len += found.len as u64;
            }
            _ => ops.push(copy(found)),
        }
    }
    ops.extend(literals(&target[done..]));
    Delta {
        ops,
        target_len: target.len() as u64,
        digest: Digest::of(target),
    }
}

/// Makes the delta from the basis behind `signature` to `target`, read to its end, and writes it
/// encoded: the same bytes as [`diff`] and [`Delta::encode`].
///
/// Memory: the signature, and about twenty blocks and half a megabyte. Operations are written in
/// small pieces, so let `out` be buffered.
///
/// # Errors
///
/// [`DiffError`] says whether the reader or the writer failed.
pub fn diff_read(
    signature: &Signature,
    mut target: impl Read,
    out: impl Write,
) -> Result<DiffSummary, DiffError> {
    let mut search = Search::new(signature);
    let mut writer = DeltaWriter::start(out).map_err(DiffError::WriteDelta)?;
    let mut digest = blake3::Hasher::new();
    let capacity = 2 * search.look_ahead() + MAX_LITERAL + READ_AHEAD;
    let mut window = Vec::new();
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
                offset: digest.count(),
                source,
            })?;
        digest.update(&window[window.len() - read..]);
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

    let target_len = digest.count();
    let digest = digest.finalize().into();
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
const READ_AHEAD: usize = 256 << 10;

const fn copy(found: Match) -> Op<'static> {
    Op::Copy {
        offset: found.offset,
        len: found.len as u64,
    }
}

fn literals(bytes: &[u8]) -> impl Iterator<Item = Op<'_>> {
    bytes.chunks(MAX_LITERAL).map(Op::Literal)
}
