//! The rsync algorithm in process: signatures, deltas and verified patches over bytes.
//!
//! One end has a *basis*, the other a *target* that is much like it. The first sends the
//! [`Signature`] of its basis; the second [`diff`]s its target against it and sends the [`Delta`];
//! the first [`patch`]es its basis with that and has the target, checked against its BLAKE3.
//!
//! ```
//! use patchwire_delta::{Seed, Signature, SignatureOptions, diff, patch};
//!
//! let basis = b"fn main() { println!(\"hello\") }\n".repeat(1000);
//! let mut target = basis.clone();
//! target.splice(20_000..20_000, *b"// a comment\n");
//!
//! // Where the basis is. The seed is random, and new each time.
//! let seed = Seed(0x5EED);
//! let signature = Signature::of(&basis, SignatureOptions::new(seed)).encode();
//!
//! // Where the target is.
//! let signature = Signature::decode(&signature)?;
//! let delta = diff(&signature, &target).encode();
//! assert!(delta.len() < target.len() / 20);
//!
//! // Where the basis is, again.
//! let max_len = 1 << 20;
//! assert_eq!(patch(&basis, &delta, max_len)?, target);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Signature::read`], [`diff_read`] and [`patch_read`] do the same on readers and writers, in
//! bounded memory. All decoders take hostile input: they never panic, and use no more memory than
//! they say. [`librsync`] speaks the format of `rdiff`.
//!
//! The crate opens no files, reads no clock, makes no random numbers and knows nothing of async: what
//! it needs is passed in.

mod anchor;
mod basis;
mod block;
mod diff;
mod digest;
mod encoding;
mod index;
pub mod librsync;
mod op;
mod patch;
mod rounds;
mod search;
mod signature;
mod simd;
mod strong;
mod weak;
mod whole;

pub use block::{BlockSize, BlockSizeError};
pub use diff::{DiffError, DiffOptions, DiffSummary, diff, diff_read, diff_read_with, diff_with};
pub use digest::{Digest, DigestReader};
pub use encoding::{DecodeError, ReadError};
pub use op::{Delta, Op};
pub use patch::{PatchError, PatchSummary, patch, patch_read};
pub use rounds::{FirstRound, Regions, RoundError};
pub use signature::{Signature, SignatureError, SignatureOptions};
pub use strong::Seed;
pub use whole::whole_read;
