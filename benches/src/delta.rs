//! How fast are signature, diff and patch, next to who else does that?
//!
//! # How to read the table
//!
//! See [`HOW_TO_READ`], which `--help` prints.
//!
//! # How it is measured
//!
//! In rounds: in each, every engine runs every operation once, engine after engine, so that a busy
//! moment of the machine hits all. Ratios are taken within a round. An in-process engine has a process
//! for itself, with the inputs in memory ([`worker`]); programs read and write files, in memory where
//! there is room ([`files`]). Everything an engine makes is checked: each signature to be the same,
//! each delta and each patched target byte for byte.

mod engines;
mod files;
mod operation;
mod report;
mod rounds;
mod sparse;
mod worker;
mod workloads;

use std::{
    env,
    io::{self, Write},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use anyhow::{bail, ensure};
use bytesize::ByteSize;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use self::worker::work;
use self::{
    engines::Engine,
    files::{Need, Scratch},
    report::{Peer, Row, SparseFigures, print_conditions, print_floors, print_sparse, print_wire},
    rounds::{Field, Measurements, Terms, runs},
    worker::Worker,
    workloads::Workload,
};
use crate::child::Interruption;

/// What the help says behind the options.
pub(crate) const HOW_TO_READ: &str = "\
How to read the table:

  GB/CPU s          10⁹ bytes of input per second on a processor, over all threads and processes; the \
input is the basis for a signature, else the target. GB/s is the same per second that passed
  output, zstd      the length of the encoded signature or delta, or of all messages of two rounds, and \
compressed by zstd -3; of rsync the bytes sent and received
  peak              in process: the most memory beyond the inputs. Of a program: the most of one of its \
processes, code and libraries included
  times fast_rsync  fast_rsync's time on a processor, divided by that of the engine in the same round: \
above 1 the engine is faster. The median over the rounds, and the least and the greatest. “At least” \
where the peer was stopped at the limit
  times rdiff       the same with rdiff, which also starts and reads and writes files
  times one thread  the time that passed with one thread, divided by that with two. The processors are \
those that both had on average: below 1.8 they had to wait for others, and the figure says little

A program that takes long is measured in fewer rounds, as many as fit 3 s, or once, without a first round \
that does not count; a line below the table says so. Patchwire runs `collisions` at the full size alone, too, where the peers get shorter inputs.

Operations:

  signature     from the basis to the encoded signature
  diff          from the decoded signature, its index included, to the delta as the library gives it: of \
fast_rsync an encoded one with its literals, of patchwire one that borrows them from the target. \
Patchwire is told the digest of the target, which it knows from the scan of the tree, and no peer has \
one. xdelta3 and zstd have no signatures and read the basis
  diff-digest   the same, and patchwire computes the digest
  patch         from the basis and the encoded delta to the target in a fresh vector, which patchwire \
also verifies. One of 32 MiB or less may get memory that the allocator has kept. Programs: to a new file
  patch-reused  the same into a buffer that was used before. It has two ratios: to fast_rsync's patch \
into a fresh vector, as its users call it, and to fast_rsync into a reused buffer
  patch-file    from the basis in memory to a new file
  …-2-threads   the same with two threads
  …-stream      the same from files to a file, in bounded memory, as rdiff does
  two-rounds    both ends of two rounds: first the signature of large blocks, then that of small ones \
where they did not match, and the delta. The size of the large ones follows from the length alone
  digest        BLAKE3 of the target alone, which is part of patchwire's diff-digest and patch
  whole         rsync from the target to a copy of the basis

Bytes on the wire: all that is sent in either direction to push a file, each message compressed by zstd \
-3. One round is a signature and a delta: with the block size that goes with the length of the basis, and \
with the best of 256, 512, 1024 and so on up to 65536, which nobody knows beforehand. Everything is run and \
patched, nothing estimated.

Floors: what patchwire holds itself to, printed if all workloads were run by patchwire and fast_rsync. \
“Ok” or “below” is said of the median; “unknown” is what a stopped peer leaves open.

  signature, patch-reused, patch-file   times fast_rsync on the workload where that is least; \
patch-reused to fast_rsync's patch into a fresh vector. Not where the peers' inputs are shorter
  diff                     times fast_rsync; and on hostile workloads, how many times the time per byte \
on unrelated
  …-2-threads              times one thread, in time that passed
  delta after zstd         the length divided by that of fast_rsync's on the workload where that is most, \
less 64 bytes for the digest and what names the basis, which fast_rsync's has not
  two-rounds               the bytes on the wire, divided by those of the best one round
  peak memory of diff      on the workload where it is most

JSON: a list of objects, one for each operation of each engine on each workload; null where there is \
nothing. ratio_fast_rsync of patch-reused is the one to fast_rsync's patch into a fresh vector, \
ratio_fast_rsync_reused the one to its own patch-reused, and that of diff-digest the one to its diff. \
Where over_limit is true, a run took longer than --limit; where ratio_…_at_least is true, that happened to \
the peer, and the ratio is its time until then. ratio_one_thread is in time that passed. Where patchwire \
runs a workload at the full size alone, its name ends with -full-size; times_unrelated is the time per byte \
divided by that on unrelated. Of two-rounds, output_bytes and output_zstd_bytes are those on the wire, \
single_round_best_… and single_round_usual_… the same of one round, and ratio_single_round the compressed \
bytes divided by those of the best one.

With --sparse: signature, diff and patch from files to files at the block size that goes with their length, \
each in a process of its own. The peak is beyond what that had at the beginning. Nothing is written by the \
patch: what it makes is compared as it comes, and that is part of its time.";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Which of the programs must be installed
    #[arg(long, value_enum, default_value_t = Peers::Installed)]
    peers: Peers,
    /// The length of basis and target: bytes, or as 64MiB or 1GiB
    #[arg(long, default_value = "256MiB", value_parser = parse_size)]
    size: usize,
    /// How many rounds are measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// The block size in bytes
    #[arg(
        long,
        default_value_t = 2048,
        value_parser = clap::value_parser!(u32).range(64..=128 << 10)
    )]
    block_size: u32,
    /// A workload to measure on; all if none is named
    #[arg(long = "workload", value_name = "NAME", value_delimiter = ',')]
    workloads: Vec<Workload>,
    /// An engine to measure; all if none is named
    #[arg(long = "engine", value_name = "NAME", value_delimiter = ',')]
    engines: Vec<Engine>,
    /// How long one run of an operation may take before it is stopped
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    limit: Duration,
    /// Where the files lie while the run lasts; in memory if there is enough, else among the temporary
    /// files
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Measure the memory that patchwire's streaming forms take instead, on files of this length that
    /// are mostly holes
    #[arg(
        long,
        value_name = "LEN",
        value_parser = parse_sparse_len,
        conflicts_with_all = ["peers", "size", "rounds", "block_size", "workloads", "engines", "limit"]
    )]
    sparse: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peers {
    /// All of them: a missing one is an error
    All,
    /// Those that are installed
    Installed,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if let Some(len) = args.sparse {
        return run_sparse(len, args.dir, args.json);
    }
    let all_if_none = |named: Vec<Engine>| match named.as_slice() {
        [] => Engine::value_variants().to_vec(),
        // In the order they have, and each once.
        _ => {
            let all = Engine::value_variants().iter().copied();
            all.filter(|engine| named.contains(engine)).collect()
        }
    };
    let mut engines = all_if_none(args.engines);
    let peers = find_peers(&engines, args.peers)?;
    engines.retain(|engine| {
        let of_peer = |peer: &&Peer| Engine::Program(peer.program) == *engine;
        let peer = peers.iter().find(of_peer);
        peer.is_none_or(|peer| peer.version.is_some())
    });
    ensure!(!engines.is_empty(), "none of these engines is installed");
    let workloads: Vec<Workload> = Workload::value_variants()
        .iter()
        .copied()
        .filter(|workload| args.workloads.is_empty() || args.workloads.contains(workload))
        .collect();
    let terms = Terms {
        rounds: usize::from(args.rounds),
        block_size: args.block_size,
        limit: args.limit,
    };

    let interruption = Interruption::listen()?;
    let scratch = Scratch::create(args.dir.as_deref(), need(args.size, &engines))?;
    let matches = workloads
        .into_iter()
        .flat_map(|workload| matches(workload, args.size, &engines));
    let matches: Vec<(Workload, usize, &[Engine])> = matches.collect();
    let runs = matches
        .iter()
        .map(|(workload, _, engines)| runs(*workload, engines, terms.rounds));
    let progress = ProgressBar::new(runs.sum());
    progress.set_style(ProgressStyle::with_template(
        "{wide_bar} {pos}/{len} {eta} {msg}",
    )?);
    let mut rows: Vec<Row> = Vec::new();
    let mut all: Vec<Measurements> = Vec::new();
    for (workload, len, engines) in matches {
        let files = scratch.files(workload.name())?;
        let field = Field {
            workload,
            terms,
            files: &files,
            interruption: &interruption,
            progress: &progress,
        };
        let measurements = field.measure(len, engines)?;
        files.remove()?;
        // What hostile workloads are held against.
        let unrelated = all.iter().find(|of| of.workload == Workload::Unrelated);
        if args.json {
            rows.extend(measurements.rows(unrelated, &peers, terms));
        } else {
            progress.suspend(|| measurements.print(&mut io::stdout().lock(), unrelated, terms))?;
        }
        all.push(measurements);
    }
    progress.finish_and_clear();

    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &rows)?;
        return Ok(writeln!(out)?);
    }
    let place = scratch.path().display().to_string();
    print_conditions(&mut out, &peers, terms, &place)?;
    writeln!(out)?;
    print_wire(&mut out, &all)?;
    Ok(print_floors(&mut out, &all)?)
}

/// At which lengths which engines are measured on a workload.
fn matches(
    workload: Workload,
    size: usize,
    engines: &[Engine],
) -> impl Iterator<Item = (Workload, usize, &[Engine])> {
    let len = workload.len(size);
    // Where some would take ages, ourselves alone.
    let is_alone = len < size && engines.contains(&Engine::PATCHWIRE);
    let alone = is_alone.then_some((workload, size, [Engine::PATCHWIRE].as_slice()));
    [(workload, len, engines)].into_iter().chain(alone)
}

/// Measures what the streaming forms take on files of `len` bytes with holes.
fn run_sparse(len: u64, dir: Option<PathBuf>, is_json: bool) -> anyhow::Result<()> {
    let interruption = Interruption::listen()?;
    let dir = dir.unwrap_or_else(env::temp_dir);
    let scratch = Scratch::create(Some(&dir), sparse::need(len))?;
    let files = scratch.files("sparse")?;
    let progress = ProgressBar::new(sparse::OPERATIONS.len() as u64);
    progress.set_style(ProgressStyle::with_template(
        "{wide_bar} {pos}/{len} {msg}",
    )?);
    Worker::start(&interruption)?.generate_sparse(len, &files)?;
    let mut all = Vec::new();
    for operation in sparse::OPERATIONS {
        progress.set_message(operation.name());
        let input = if operation.is_of_basis() {
            files.basis()
        } else {
            files.target()
        };
        let input_bytes = input.metadata()?.len();
        let (cost, made) = Worker::start(&interruption)?.run_sparse(operation, &files)?;
        all.push(SparseFigures {
            operation,
            input_bytes,
            cost,
            made,
        });
        progress.inc(1);
    }
    progress.finish_and_clear();

    let mut out = io::stdout().lock();
    if is_json {
        let rows: Vec<Row> = all.iter().map(SparseFigures::row).collect();
        serde_json::to_writer_pretty(&mut out, &rows)?;
        return Ok(writeln!(out)?);
    }
    Ok(print_sparse(&mut out, &all)?)
}

/// The programs among the engines.
fn find_peers(engines: &[Engine], needed: Peers) -> anyhow::Result<Vec<Peer>> {
    let programs = engines.iter().filter_map(|engine| match engine {
        Engine::Program(program) => Some(*program),
        Engine::InProcess(_) => None,
    });
    let peers: Vec<Peer> = programs
        .map(|program| Peer {
            program,
            version: program.version(),
        })
        .collect();
    let missing: Vec<&str> = peers
        .iter()
        .filter(|peer| peer.version.is_none())
        .map(|peer| peer.program.package())
        .collect();
    if needed == Peers::All && !missing.is_empty() {
        bail!(
            "peers are missing; on Debian: apt install {}",
            missing.join(" ")
        );
    }
    Ok(peers)
}

/// What a run with inputs of this length needs at most.
fn need(len: usize, engines: &[Engine]) -> Need {
    let in_process = engines
        .iter()
        .filter(|engine| matches!(engine, Engine::InProcess(_)));
    let in_process = in_process.count() as u64;
    // With what is longer than asked for, and signatures.
    let len = len as u64 + len as u64 / 4 + (32 << 20);
    Need {
        // Basis and target; a delta of each engine, at worst as long as the target, and more of one
        // that makes it in several ways; and what is patched, of which rsync has two.
        files: (2 + engines.len() as u64 + 2 + 2) * len,
        // Of each engine: basis, target, delta, one more of it, and two that are patched. Before that,
        // what makes the basis and the target.
        memory: (6 * in_process).max(4) * len,
    }
}

fn parse_size(text: &str) -> Result<usize, String> {
    let size = parse_within(text, MIN_SIZE..=MAX_SIZE)?;
    usize::try_from(size).map_err(|error| error.to_string())
}

fn parse_sparse_len(text: &str) -> Result<u64, String> {
    parse_within(text, sparse::MIN_LEN..=MAX_SPARSE_LEN)
}

fn parse_within(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let size: ByteSize = text.parse()?;
    if range.contains(&size.as_u64()) {
        return Ok(size.as_u64());
    }
    let (least, most) = (ByteSize(*range.start()), ByteSize(*range.end()));
    Err(format!("{size} is outside {least}..={most}"))
}

/// Below that there is no room for the edits.
const MIN_SIZE: u64 = 64 << 10;
const MAX_SIZE: u64 = 16 << 30;

/// What a file may be long on the usual file systems.
const MAX_SPARSE_LEN: u64 = 8 << 40;
