//! The rsync algorithm in process: signatures, deltas and verified patches over bytes.
//!
//! One end has a *basis*, the other a *target* that is much like it. The first sends the
//! [`Signature`] of its basis; the second [`diff`]s its target against it and sends the [`Delta`];
//! the first [`patch`]es its basis with that and has the target, checked against its BLAKE3.
//!
//! What it is not: a program that finds and transfers files (see the rest of Patchwire for that), a
//! compressor (literals are as they are: compress a delta as a whole, with what you have), or a diff
//! of two files at hand (which finds shorter deltas, as it needs no signature).
//!
//! # In memory
//!
//! ```
//! use patchwire_delta::{Seed, Signature, SignatureOptions, diff, patch};
//!
//! let basis = b"fn main() { println!(\"hello\") }\n".repeat(1000);
//! let mut target = basis.clone();
//! target.splice(20_000..20_000, *b"// a comment\n");
//!
//! // Where the basis is. Let the seed be random, and new each time.
//! let seed = Seed(0x5EED);
//! let signature = Signature::of(&basis, SignatureOptions::new(seed)).encode();
//!
//! // Where the target is.
//! let signature = Signature::decode(&signature)?;
//! let delta = diff(&signature, &target).encode();
//! assert!(delta.len() < target.len() / 20);
//!
//! // Where the basis is, again. A delta that makes more than this is refused.
//! let max_len = 1 << 20;
//! assert_eq!(patch(&basis, &delta, max_len)?, target);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Delta::apply_into`] uses the memory of an earlier target again, and [`Delta::apply_to`] writes
//! the target without holding it.
//!
//! # Large files
//!
//! [`Signature::read`], [`diff_read`] and [`patch_read`] do the same on readers and writers, in
//! bounded memory. What is written is verified only at its end, so it gets its name after that.
//!
//! ```
//! use std::{
//!     fs::File,
//!     io::{BufReader, BufWriter, Write},
//! };
//!
//! use patchwire_delta::{Seed, Signature, SignatureOptions, diff_read, patch_read};
//! use tempfile::NamedTempFile;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = |name: &str| directory.path().join(name);
//! # let numbers = |from| (from..200_000_u32).flat_map(|n| n.wrapping_mul(n | 1).to_le_bytes());
//! # std::fs::write(path("old.bin"), numbers(0).collect::<Vec<u8>>())?;
//! # std::fs::write(path("new.bin"), numbers(700).collect::<Vec<u8>>())?;
//! // The signature of a basis. Its length chooses the block size.
//! let basis = File::open(path("old.bin"))?;
//! let len = basis.metadata()?.len();
//! let signature = Signature::read(basis, len, SignatureOptions::new(Seed(0x5EED)))?;
//! let mut out = BufWriter::new(File::create(path("old.sig"))?);
//! signature.write(&mut out)?;
//! out.flush()?;
//!
//! // The delta to a target.
//! let signature = Signature::decode_from(BufReader::new(File::open(path("old.sig"))?))?;
//! let mut out = BufWriter::new(File::create(path("new.delta"))?);
//! let summary = diff_read(&signature, File::open(path("new.bin"))?, &mut out)?;
//! out.flush()?;
//! assert!(summary.delta_len < summary.target_len / 100);
//!
//! // The target, under its name only when it is verified and on the disk. An error before leaves
//! // what was there, and the temporary file is gone.
//! let mut out = NamedTempFile::new_in(directory.path())?;
//! let basis = File::open(path("old.bin"))?;
//! let delta = BufReader::new(File::open(path("new.delta"))?);
//! let max_len = 1 << 40;
//! patch_read(basis, delta, &mut out, max_len)?;
//! out.as_file().sync_all()?;
//! out.persist(path("copy-of-new.bin"))?;
//! # assert_eq!(std::fs::read(path("copy-of-new.bin"))?, std::fs::read(path("new.bin"))?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where a target fits the memory, [`diff_with`] divides it among threads, and so does
//! [`Digest::of_with`]; signatures can be made by several threads from memory and from readers
//! ([`SignatureOptions::threads`]). The program `examples/files.rs` has all of this.
//!
//! # Over a network
//!
//! Signatures and deltas say themselves where they end, so they need no frame. A patch can fail though
//! all went well: the basis may have changed since its signature was made
//! ([`PatchError::WrongBasis`]), or two different blocks may have the same hash
//! ([`PatchError::Mismatch`]). So a protocol needs a way to ask for the whole target.
//!
//! ```
//! use std::{
//!     error::Error,
//!     io::{BufReader, BufWriter, Cursor, Read, Write},
//!     net::{SocketAddr, TcpListener, TcpStream},
//! };
//!
//! use patchwire_delta::{
//!     Delta, PatchError, Seed, Signature, SignatureOptions, diff, patch_read,
//! };
//!
//! /// Where the target is: answers `d` and a signature by a delta, and `w` by the whole.
//! fn serve(stream: &TcpStream, target: &[u8]) -> Result<(), Box<dyn Error + Send + Sync>> {
//!     let mut input = BufReader::new(stream);
//!     let mut output = BufWriter::new(stream);
//!     let mut asked = [0];
//!     input.read_exact(&mut asked)?;
//!     match asked {
//!         [b'd'] => diff(&Signature::decode_from(input)?, target).write(&mut output)?,
//!         _ => Delta::whole(target).write(&mut output)?,
//!     };
//!     Ok(output.flush()?)
//! }
//!
//! /// Where the basis is: asks for a delta, and if that can't be applied, for the whole.
//! fn fetch(
//!     address: SocketAddr,
//!     basis: &[u8],
//!     signature: Option<&Signature>,
//! ) -> Result<Vec<u8>, Box<dyn Error>> {
//!     let stream = TcpStream::connect(address)?;
//!     let mut output = BufWriter::new(&stream);
//!     match signature {
//!         Some(signature) => {
//!             output.write_all(b"d")?;
//!             signature.write(&mut output)?;
//!         }
//!         None => output.write_all(b"w")?,
//!     }
//!     output.flush()?;
//!
//!     const MAX_LEN: u64 = 1 << 20;
//!     let mut target = Vec::new();
//!     match patch_read(Cursor::new(basis), BufReader::new(&stream), &mut target, MAX_LEN) {
//!         Ok(_) => Ok(target),
//!         // A new connection, as nobody knows how much of the delta was read from this one.
//!         Err(PatchError::WrongBasis | PatchError::Mismatch { .. }) if signature.is_some() => {
//!             fetch(address, basis, None)
//!         }
//!         Err(error) => Err(error.into()),
//!     }
//! }
//!
//! let target: Vec<u8> = (1..=20_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
//! let basis = target[5000..].to_vec();
//! # let expected = target.clone();
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! std::thread::spawn(move || {
//!     for stream in listener.incoming() {
//!         serve(&stream?, &target)?;
//!     }
//!     Ok::<(), Box<dyn Error + Send + Sync>>(())
//! });
//!
//! let signature = Signature::of(&basis, SignatureOptions::new(Seed(0x5EED)));
//! assert_eq!(fetch(address, &basis, Some(&signature))?, expected);
//!
//! // The basis has changed since, though not its length: the whole target comes.
//! let changed = vec![b'x'; basis.len()];
//! assert_eq!(fetch(address, &changed, Some(&signature))?, expected);
//! # Ok::<(), Box<dyn Error>>(())
//! ```
//!
//! Where a round trip costs less than the literals around small changes, [`FirstRound`] makes the
//! delta in two rounds: `examples/two_rounds.rs`.
//!
//! # What is trusted
//!
//! Nothing that was decoded, but for signatures of librsync's format ([`librsync::diff`] says why).
//! All decoders take hostile input: they never panic, and use no more memory
//! than they say. [`diff`] takes time linear in the target and the signature for any of them, and
//! [`patch`] makes no more than it is allowed to. What a patch has made has the digest that its delta
//! announces; whether that is the right one is for you to compare, with [`Delta::digest`] or
//! [`PatchSummary::digest`], where the delta's sender is not trusted. [`Seed`] says what the seed is
//! for.
//!
//! The algorithm and the encodings are described, for those who want to write another implementation,
//! in [docs/delta.md](https://github.com/patchwire/patchwire/blob/main/docs/delta.md). [`librsync`]
//! speaks the format of `rdiff`.
//!
//! The crate opens no files, reads no clock, makes no random numbers and knows nothing of async: what
//! it needs is passed in. It starts threads only where it is told to use more than one, and they end
//! before it returns. It has unsafe code in one module, which asks for vector instructions where the
//! processor has them.

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

/// The example of the readme, which is to run, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
