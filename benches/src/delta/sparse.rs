//! How much memory do the streaming forms take on files longer than memory?
//!
//! The files are mostly holes, so that they need little room on the disk, and the patched target is
//! never written at all: it is compared with the real one as it comes.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

use anyhow::{bail, ensure};
use rustix::io::Errno;

use super::{
    engines::{Engine, stream_diff, stream_patch, stream_signature},
    files::{Files, Need},
    operation::Operation,
    worker::Meter,
    workloads::edited,
};
use crate::noise::Noise;

/// The operations, in their order.
pub(crate) const OPERATIONS: [Operation; 3] = [
    Operation::SignatureStream,
    Operation::DiffStream,
    Operation::PatchStream,
];

/// How many islands of noise are in the holes, and how long each is.
pub(crate) const ISLANDS: u64 = 1024;
pub(crate) const ISLAND: usize = 64 << 10;

/// Below that there are no holes.
pub(crate) const MIN_LEN: u64 = 2 * ISLANDS * ISLAND as u64;

/// What that needs: little, but each edit leaves a block or two to be sent, which are the longer the
/// longer the files are.
pub(crate) const fn need(len: u64) -> Need {
    let literals = ISLANDS * 2 * len.isqrt();
    Need {
        files: 2 * ISLANDS * ISLAND as u64 + literals + (256 << 20),
        memory: 64 << 20,
    }
}

/// Makes a basis of `len` bytes, and a target with an edit in each of its islands: so what follows one
/// has moved by some bytes.
pub(crate) fn generate(len: u64, files: &Files) -> anyhow::Result<()> {
    let mut noise = Noise::new(0x5BA5);
    let mut basis = File::create_new(files.basis())?;
    let mut target = File::create_new(files.target())?;
    for number in 0..ISLANDS {
        let island = noise.bytes(ISLAND);
        let hole = len / ISLANDS - ISLAND as u64;
        for (file, island) in [
            (&mut basis, &island),
            (&mut target, &edited(&island, 1, number)),
        ] {
            file.seek(SeekFrom::Current(i64::try_from(hole)?))?;
            file.write_all(island)?;
        }
    }
    for file in [&mut basis, &mut target] {
        // What is left of the division.
        let end = file.stream_position()? + len % ISLANDS;
        file.set_len(end)?;
    }
    Ok(())
}

/// Runs an operation on these files, at the block size that goes with their length, and gives the
/// length of what it makes.
pub(crate) fn run(operation: Operation, files: &Files, meter: &mut Meter) -> anyhow::Result<u64> {
    let file = |operation| files.output(Engine::PATCHWIRE, operation);
    let (signature, delta) = (
        file(Operation::SignatureStream),
        file(Operation::DiffStream),
    );
    match operation {
        Operation::SignatureStream => {
            meter.measure(|| stream_signature(&files.basis(), &signature))??;
            Ok(signature.metadata()?.len())
        }
        Operation::DiffStream => {
            meter.measure(|| stream_diff(&signature, &files.target(), &delta))??;
            Ok(delta.metadata()?.len())
        }
        Operation::PatchStream => {
            let target = File::open(files.target())?;
            let len = target.metadata()?.len();
            let mut checker = Checker::new(target, len);
            meter.measure(|| stream_patch(&files.basis(), &delta, &mut checker, len))??;
            ensure!(
                checker.at == len,
                "what was made has {} bytes, the target {len}",
                checker.at
            );
            Ok(len)
        }
        _ => bail!("{} is not a streaming form", operation.name()),
    }
}

/// Compares what is written with a file, the holes of which it doesn't read.
struct Checker {
    file: File,
    len: u64,
    /// How much was written and is right.
    at: u64,
    /// What is next: a hole, or not, and where that ends.
    is_hole: bool,
    until: u64,
    buffer: Vec<u8>,
}

impl Checker {
    const fn new(file: File, len: u64) -> Self {
        Self {
            file,
            len,
            at: 0,
            is_hole: false,
            until: 0,
            buffer: Vec::new(),
        }
    }

    /// Finds out what begins at `at`.
    fn look(&mut self) -> io::Result<()> {
        let seek = |place| match rustix::fs::seek(&self.file, place) {
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => Ok(self.len),
            sought => sought,
        };
        let data = seek(rustix::fs::SeekFrom::Data(self.at))?;
        self.is_hole = data > self.at;
        self.until = if self.is_hole {
            data
        } else {
            seek(rustix::fs::SeekFrom::Hole(self.at))?
        };
        Ok(())
    }
}

impl Write for Checker {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.at == self.len && !bytes.is_empty() {
            return Err(io::Error::other("what is made is longer than the target"));
        }
        if self.at == self.until {
            self.look()?;
        }
        let left = usize::try_from(self.until - self.at).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(left).min(ZEROS.len())];
        let expected = if self.is_hole {
            &ZEROS[..bytes.len()]
        } else {
            self.buffer.resize(bytes.len(), 0);
            self.file.read_exact_at(&mut self.buffer, self.at)?;
            &self.buffer
        };
        if bytes != expected {
            let at = self.at;
            return Err(io::Error::other(format!(
                "what is made is not the target, in the {} bytes from byte {at} on",
                bytes.len()
            )));
        }
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Also the most that is compared at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checker_takes_nothing_but_what_the_file_holds() {
        let mut file = tempfile::tempfile().unwrap();
        let len = 3 << 20;
        file.set_len(len).unwrap();
        file.seek(SeekFrom::Start(1 << 20)).unwrap();
        file.write_all(&[7; 100]).unwrap();
        let mut right = vec![0; 3 << 20];
        right[1 << 20..][..100].fill(7);

        let checked = |bytes: &[u8]| {
            let mut checker = Checker::new(file.try_clone().unwrap(), len);
            checker.write_all(bytes).is_ok() && checker.at == len
        };
        assert!(checked(&right));
        assert!(!checked(&right[1..]));
        assert!(!checked(&[&right[..], &[0]].concat()));
        for at in [0, (1 << 20) + 99, (1 << 20) + 100, (3 << 20) - 1] {
            let mut wrong = right.clone();
            wrong[at] ^= 1;
            assert!(!checked(&wrong), "byte {at}");
        }
    }
}
