//! Reading the files whose digests aren't known, over all processors.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use patchwire_delta::Digest;
use patchwire_protocol::path::RelativePath;

use crate::{
    confine::{Dir, PathError, Stat, Walker, no_such_place},
    content,
};

/// How many files a thread takes at once: neighbours share their directories.
const BATCH: usize = 16;

/// How many files that can't be read are told of.
const ERRORS: usize = 8;

/// What came of reading files.
pub(super) enum Read {
    /// What each of them is: in no order, by index.
    All(Vec<(usize, Stat, Digest)>),
    /// This one is gone, is no file, or never stood still: what the walk found is wrong.
    Changed(RelativePath),
    /// These can't be read, and perhaps others.
    Unreadable(Vec<PathError>),
}

#[derive(Default)]
struct Failed {
    changed: Option<RelativePath>,
    unreadable: Vec<PathError>,
}

/// Reads files; `report` is told how many have been, from several threads.
pub(super) fn all(root: &Dir, paths: &[&RelativePath], report: &(dyn Fn(u64) + Sync)) -> Read {
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Failed::default());
    let fail = |path: &RelativePath, error: Option<io::Error>| {
        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(error) if failed.unreadable.len() < ERRORS => {
                let error = PathError::new("read", path.as_bytes(), error);
                failed.unreadable.push(error);
            }
            Some(_) => {}
            None => failed.changed = Some(path.clone()),
        }
        if failed.changed.is_some() || failed.unreadable.len() == ERRORS {
            next.store(paths.len(), Ordering::Relaxed);
        }
    };
    let work = || {
        let mut read = Vec::new();
        loop {
            let start = next.fetch_add(BATCH, Ordering::Relaxed).min(paths.len());
            let batch = &paths[start..paths.len().min(start + BATCH)];
            if batch.is_empty() {
                return read;
            }
            let mut walker = Walker::new(root);
            for (index, path) in batch.iter().enumerate() {
                let open = || walker.parent_of(path)?.open_file(path.name());
                match content::stable_digest(open) {
                    Ok(Some((stat, digest))) => read.push((start + index, stat, digest)),
                    Ok(None) => fail(path, None),
                    Err(error) if is_another(&error) => fail(path, None),
                    Err(error) => fail(path, Some(error)),
                }
                report(done.fetch_add(1, Ordering::Relaxed) + 1);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let others = threads.min(paths.len().div_ceil(BATCH)).saturating_sub(1);
    let read = thread::scope(|scope| {
        let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
        let mut read = work();
        for other in others {
            match other.join() {
                Ok(more) => read.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        read
    });
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failed.changed {
        Some(path) => Read::Changed(path),
        None if failed.unreadable.is_empty() => Read::All(read),
        None => {
            failed.unreadable.sort_by(|a, b| a.path.cmp(&b.path));
            Read::Unreadable(failed.unreadable)
        }
    }
}

/// Tells whether there isn't the file that was found.
fn is_another(error: &io::Error) -> bool {
    no_such_place(error) || error.kind() == io::ErrorKind::InvalidInput
}
