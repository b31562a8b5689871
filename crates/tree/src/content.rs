//! Reading a file's content while others may write to it.

use std::{fs::File, io};

use patchwire_delta::Digest;

use crate::confine::Stat;

/// How often a file that changes while it is read is read again.
const ATTEMPTS: usize = 5;

/// Reads a file until its status is the same before and after; `None` if it never is.
///
/// `open` is called for each attempt: a file is usually changed by putting another in its place.
pub(crate) fn stable_digest(
    mut open: impl FnMut() -> io::Result<File>,
) -> io::Result<Option<(Stat, Digest)>> {
    for _ in 0..ATTEMPTS {
        let file = open()?;
        let before = Stat::of_file(&file)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file)?;
        let after = Stat::of_file(&file)?;
        if before == after && hasher.count() == after.len {
            return Ok(Some((after, hasher.finalize().into())));
        }
    }
    Ok(None)
}
