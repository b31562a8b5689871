//! Brings a file up to date over TCP in two rounds, between two threads, and says what was sent.
//!
//! ```text
//! cargo run --release -p patchwire-delta --example two_rounds -- OLD NEW
//! ```

use std::{
    env,
    error::Error,
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, BufReader, BufWriter, Cursor, Read, Write},
    net::{TcpListener, TcpStream},
    process::ExitCode,
    thread,
};

use patchwire_delta::{
    BlockSize, Delta, DiffOptions, FirstRound, PatchError, Regions, Seed, Signature,
    SignatureOptions, patch_read,
};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<ExitCode, Failure> {
    let mut paths = env::args_os().skip(1);
    let (Some(old), Some(new)) = (paths.next(), paths.next()) else {
        eprintln!("usage: two_rounds OLD NEW");
        return Ok(ExitCode::from(2));
    };
    let (basis, target) = (fs::read(old)?, fs::read(new)?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let receiver = TcpStream::connect(listener.local_addr()?)?;
    let (sender, _) = listener.accept()?;

    // Each end closes its connection when it is done or has failed, so that the other doesn't wait.
    let target = &target;
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(move || send(&sender, target));
        let received = receive(&receiver, &basis);
        drop(receiver);
        (sender.join(), received)
    });
    let (made, signatures) = received?;
    let (answers, rounds) = sent.map_err(|_| "the sender panicked")??;
    assert!(made == *target, "it was verified");
    eprintln!("{rounds}: {signatures} bytes of signatures, {answers} of requests and deltas");
    eprintln!(
        "{} bytes were sent of a target of {}",
        signatures + answers,
        target.len()
    );
    Ok(ExitCode::SUCCESS)
}

/// The end with the target. Gives how many bytes it sent, and what came of the second round.
fn send(stream: &TcpStream, target: &[u8]) -> Result<(u64, &'static str), Failure> {
    let mut input = BufReader::new(stream);
    let mut output = Counting::new(stream);

    let first = Signature::decode_from(&mut input)?;
    let round = FirstRound::of(&first, target, DiffOptions::default());
    // A second round can save no more than what is missing. Here it has to be four times what it
    // costs; over a slow link with short round trips less would do.
    let regions = round.regions();
    let cost = regions.signature_len() + regions.encode().len() as u64;
    let is_worth_it = !regions.is_empty() && round.missing() > 4 * cost;
    let delta = if is_worth_it {
        output.write_all(&regions.encode())?;
        output.flush()?;
        let second = Signature::decode_from(&mut input)?;
        round.finish(&second, target)?
    } else {
        output.write_all(&Regions::none().encode())?;
        round.finish_early(target)?
    };
    delta.write(&mut output)?;
    output.flush()?;

    // The other end says whether that was all.
    let mut wants_whole = [0];
    input.read_exact(&mut wants_whole)?;
    if wants_whole == [1] {
        Delta::whole(target).write(&mut output)?;
        output.flush()?;
    }
    let rounds = if is_worth_it {
        "two rounds"
    } else {
        "one round"
    };
    Ok((output.written, rounds))
}

/// The end with the basis. Gives the target, and how many bytes it sent.
fn receive(stream: &TcpStream, basis: &[u8]) -> Result<(Vec<u8>, u64), Failure> {
    /// No target may be longer.
    const MAX_LEN: u64 = 1 << 32;
    /// A request with more ranges than fit in here is none of ours.
    const MAX_REQUEST: u64 = 64 << 20;
    let mut input = BufReader::new(stream);
    let mut output = Counting::new(stream);

    let options = SignatureOptions {
        block_size: Some(BlockSize::for_two_rounds(basis.len() as u64)),
        ..SignatureOptions::new(random_seed())
    };
    Signature::of(basis, options).write(&mut output)?;
    output.flush()?;
    let regions = Regions::decode_from(input.by_ref().take(MAX_REQUEST))?;
    if !regions.is_empty() {
        let second = regions.sign(Cursor::new(basis), random_seed())?;
        second.write(&mut output)?;
        output.flush()?;
    }

    let mut target = Vec::new();
    let mut patch = |target: &mut Vec<u8>| {
        target.clear();
        patch_read(Cursor::new(basis), &mut input, target, MAX_LEN)
    };
    match patch(&mut target) {
        Ok(_) => output.write_all(&[0])?,
        // Two blocks had the same hash. The delta was read to its end, and the whole comes next.
        Err(PatchError::Mismatch { .. }) => {
            output.write_all(&[1])?;
            output.flush()?;
            patch(&mut target)?;
        }
        Err(error) => return Err(error.into()),
    }
    output.flush()?;
    Ok((target, output.written))
}

/// A writer that counts.
struct Counting<W: Write> {
    out: BufWriter<W>,
    written: u64,
}

impl<W: Write> Counting<W> {
    fn new(out: W) -> Self {
        Self {
            out: BufWriter::new(out),
            written: 0,
        }
    }
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The standard library has no random numbers, but hashers with random keys.
fn random_seed() -> Seed {
    Seed(RandomState::new().build_hasher().finish())
}
