//! The rsync algorithm in process.

mod digest;

pub use digest::Digest;
