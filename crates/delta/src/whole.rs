//! Targets that are sent whole, without a basis.

use std::io::{Read, Write};

use crate::{
    DiffError, DiffSummary, Op,
    encoding::{DeltaWriter, Written},
    op::MAX_LITERAL,
};

/// Writes the delta that makes a target, read to its end, of any basis: the same bytes as
/// [`Delta::whole`](crate::Delta::whole) and [`Delta::encode`](crate::Delta::encode).
///
/// This is what to send of a target that is not in memory after
/// [`PatchError::Mismatch`](crate::PatchError::Mismatch) and
/// [`PatchError::WrongBasis`](crate::PatchError::WrongBasis). It is some 40 bytes longer than the
/// target, and 4 more for each 64 KiB of it. Memory: 64 KiB. Let `out` be buffered.
///
/// # Errors
///
/// [`DiffError`] says whether the reader or the writer failed.
pub fn whole_read(mut target: impl Read, out: impl Write) -> Result<DiffSummary, DiffError> {
    let mut writer = DeltaWriter::start(out, None).map_err(DiffError::WriteDelta)?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = Vec::with_capacity(MAX_LITERAL);
    loop {
        piece.clear();
        let read = target
            .by_ref()
            .take(MAX_LITERAL as u64)
            .read_to_end(&mut piece)
            .map_err(|source| DiffError::ReadTarget {
                offset: hasher.count(),
                source,
            })?;
        hasher.update(&piece);
        if read > 0 {
            writer
                .op(Op::Literal(&piece))
                .map_err(DiffError::WriteDelta)?;
        }
        if read < MAX_LITERAL {
            break;
        }
    }
    let digest = hasher.finalize().into();
    let Written {
        delta_len,
        copied,
        literal,
    } = writer.finish(digest).map_err(DiffError::WriteDelta)?;
    Ok(DiffSummary {
        target_len: literal,
        digest,
        copied,
        literal,
        delta_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Delta;

    #[test]
    fn what_is_read_is_what_is_in_memory() {
        let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        for len in [0, 1, MAX_LITERAL - 1, MAX_LITERAL, MAX_LITERAL + 1, 800_000] {
            let target = &bytes[..len];
            let mut delta = Vec::new();
            let summary = whole_read(target, &mut delta).unwrap();
            assert_eq!(delta, Delta::whole(target).encode(), "{len} bytes");
            assert_eq!(summary.delta_len, delta.len() as u64);
            assert_eq!((summary.copied, summary.literal), (0, len as u64));
            assert_eq!(crate::patch(b"any", &delta, 1 << 20).unwrap(), target);
        }
    }
}
