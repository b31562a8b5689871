//! What was measured, for a person and for a program.

mod floors;
mod ratio;
mod sparse;
mod wire;

use std::{
    io::{self, Write},
    num::NonZeroUsize,
};

use serde::Serialize;

use self::ratio::{Ratio, processors};
pub(crate) use self::{
    floors::print_floors,
    sparse::{SparseFigures, print_sparse},
    wire::print_wire,
};
use super::{
    engines::{Engine, Program},
    operation::{Against, Operation},
    rounds::{Figures, Measurements, Stop, Terms},
    worker::SingleRound,
    workloads::Workload,
};

/// One operation of one engine on one workload.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Row {
    workload: &'static str,
    engine: &'static str,
    operation: &'static str,
    /// The length of what the operation reads: of the basis for a signature, else of the target.
    input_bytes: u64,
    /// The median over the rounds.
    cpu_seconds: Option<f64>,
    /// The median over the rounds.
    wall_seconds: Option<f64>,
    output_bytes: Option<u64>,
    output_zstd_bytes: Option<u64>,
    peak_rss_bytes: Option<u64>,
    ratio_fast_rsync: Option<f64>,
    ratio_fast_rsync_range: Option<[f64; 2]>,
    /// The peer was stopped at the limit: the ratio is this or more.
    ratio_fast_rsync_at_least: bool,
    ratio_fast_rsync_reused: Option<f64>,
    ratio_fast_rsync_reused_range: Option<[f64; 2]>,
    ratio_fast_rsync_reused_at_least: bool,
    ratio_rdiff: Option<f64>,
    ratio_rdiff_range: Option<[f64; 2]>,
    ratio_rdiff_at_least: bool,
    /// The wall time of one thread, divided by that of two.
    ratio_one_thread: Option<f64>,
    ratio_one_thread_range: Option<[f64; 2]>,
    /// The time per byte, divided by that on the workload `unrelated`.
    times_unrelated: Option<f64>,
    times_unrelated_range: Option<[f64; 2]>,
    /// The fewest compressed bytes of one round, and with which blocks.
    single_round_best_zstd_bytes: Option<u64>,
    single_round_best_block_size: Option<u32>,
    /// Those with the block size that goes with the length of the basis.
    single_round_usual_zstd_bytes: Option<u64>,
    single_round_usual_block_size: Option<u32>,
    /// The compressed bytes of two rounds, divided by the fewest of one.
    ratio_single_round: Option<f64>,
    rounds: usize,
    /// A run took longer than the limit and was stopped: there are no figures.
    over_limit: bool,
    note: Option<String>,
}

/// A program that was asked for, and its version; `None` where it isn't installed.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) program: Program,
    pub(crate) version: Option<String>,
}

impl Measurements {
    /// A row for each operation of each engine, those of missing peers last.
    pub(crate) fn rows(&self, unrelated: Option<&Self>, peers: &[Peer], terms: Terms) -> Vec<Row> {
        let measured = self.figures.iter().map(|figures| {
            let ratio = |against| self.ratio(figures, against);
            let fast_rsync = ratio(Against::FastRsync);
            let reused = ratio(Against::FastRsyncReused);
            let rdiff = ratio(Against::Rdiff);
            let one_thread = self.times_one_thread(figures);
            let times_unrelated = self.slowdown(figures, unrelated);
            let is_two_rounds = figures.operation == Operation::TwoRounds;
            let single_rounds = self.single_rounds.filter(|_| is_two_rounds);
            let zstd_bytes = |round: SingleRound| round.made.zstd_bytes;
            Row {
                workload: self.name(),
                engine: figures.engine.name(),
                operation: figures.operation.name(),
                input_bytes: figures.input_bytes,
                cpu_seconds: figures.cpu(),
                wall_seconds: figures.wall(),
                output_bytes: figures.output_bytes,
                output_zstd_bytes: figures.output_zstd_bytes,
                peak_rss_bytes: figures.peak_bytes,
                ratio_fast_rsync: fast_rsync.map(|ratio| ratio.median),
                ratio_fast_rsync_range: fast_rsync.and_then(|ratio| ratio.range),
                ratio_fast_rsync_at_least: fast_rsync.is_some_and(Ratio::is_at_least),
                ratio_fast_rsync_reused: reused.map(|ratio| ratio.median),
                ratio_fast_rsync_reused_range: reused.and_then(|ratio| ratio.range),
                ratio_fast_rsync_reused_at_least: reused.is_some_and(Ratio::is_at_least),
                ratio_rdiff: rdiff.map(|ratio| ratio.median),
                ratio_rdiff_range: rdiff.and_then(|ratio| ratio.range),
                ratio_rdiff_at_least: rdiff.is_some_and(Ratio::is_at_least),
                ratio_one_thread: one_thread.map(|ratio| ratio.median),
                ratio_one_thread_range: one_thread.and_then(|ratio| ratio.range),
                times_unrelated: times_unrelated.map(|ratio| ratio.median),
                times_unrelated_range: times_unrelated.and_then(|ratio| ratio.range),
                single_round_best_zstd_bytes: single_rounds.and_then(|of| zstd_bytes(of.best)),
                single_round_best_block_size: single_rounds.map(|of| of.best.block_size),
                single_round_usual_zstd_bytes: single_rounds.and_then(|of| zstd_bytes(of.usual)),
                single_round_usual_block_size: single_rounds.map(|of| of.usual.block_size),
                ratio_single_round: single_rounds.and_then(|_| self.times_single_round(figures)),
                rounds: figures.costs.len(),
                over_limit: matches!(figures.stopped, Some(Stop::OverLimit { .. })),
                note: self.note(figures, peers, terms),
            }
        });
        let missing = peers.iter().filter(|peer| peer.version.is_none());
        // Peers have no part in a variant.
        let missing = missing.filter(|_| !self.is_full_size).flat_map(|peer| {
            let engine = Engine::Program(peer.program);
            engine.operations().iter().map(move |operation| Row {
                workload: self.name(),
                engine: engine.name(),
                operation: operation.name(),
                input_bytes: self.input_len(*operation),
                note: Some(format!(
                    "not installed: Debian has it in the package {}",
                    peer.program.package()
                )),
                ..Row::default()
            })
        });
        measured.chain(missing).collect()
    }

    /// What [`Self::times_unrelated`] says, on a workload and of an operation that it is about.
    fn slowdown(&self, figures: &Figures, unrelated: Option<&Self>) -> Option<Ratio> {
        let is_it = self.workload.is_hostile()
            && (figures.engine, figures.operation) == (Engine::PATCHWIRE, Operation::Diff);
        unrelated
            .filter(|_| is_it)
            .and_then(|unrelated| self.times_unrelated(unrelated))
    }

    fn note(&self, figures: &Figures, peers: &[Peer], terms: Terms) -> Option<String> {
        let stopped = figures.stopped.map(|stop| match stop {
            Stop::OverLimit { .. } => over(terms),
            Stop::Without(needed) => format!("{} was over the limit", needed.name()),
        });
        let version = peers
            .iter()
            .find(|peer| Engine::Program(peer.program) == figures.engine)
            .and_then(|peer| peer.version.clone());
        let remark = match figures.engine {
            Engine::Program(program) => program.remark(self.workload).map(str::to_owned),
            Engine::InProcess(_) => None,
        };
        let is_few = figures.stopped.is_none() && figures.costs.len() < terms.rounds;
        let few = is_few.then(|| "fewer rounds, as it takes long".to_owned());
        let threads = figures.operation.with_one_thread().and_then(|_| {
            let processors = processors(figures).filter(|number| *number < BUSY)?;
            Some(format!("the two threads had {processors:.2} processors"))
        });
        let notes = [stopped, few, threads, version, remark, self.note.clone()];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// Prints the table of this workload.
    pub(crate) fn print(
        &self,
        out: &mut impl Write,
        unrelated: Option<&Self>,
        terms: Terms,
    ) -> io::Result<()> {
        writeln!(
            out,
            "{}: basis {}, target {}",
            self.name(),
            megabytes(self.basis_len),
            megabytes(self.target_len),
        )?;
        if let Some(note) = &self.note {
            writeln!(out, "  {note}")?;
        }
        for figures in &self.figures {
            // What is said of all workloads is said once, below them.
            if let Engine::Program(program) = figures.engine
                && figures.operation == Operation::Diff
                && let Some(remark) = program.remark(self.workload)
                && Some(remark) != program.remark(Workload::Identical)
            {
                writeln!(out, "  {}: {remark}", program.name())?;
            }
        }
        let header = [
            "operation",
            "engine",
            "GB/CPU s",
            "GB/s",
            "output",
            "zstd",
            "peak",
            "times fast_rsync",
            "times rdiff",
        ];
        print_line(out, &header)?;
        for figures in &self.figures {
            print_line(out, &self.cells(figures, terms))?;
            if let Some(reused) = self.ratio(figures, Against::FastRsyncReused) {
                let reused = format!("{reused} its patch-reused");
                print_line(out, &["", "", "", "", "", "", "", &reused, ""])?;
            }
        }
        let few = self
            .figures
            .iter()
            .filter(|figures| figures.stopped.is_none() && figures.costs.len() < terms.rounds);
        for figures in few {
            writeln!(
                out,
                "  {} of {} takes long, and was run {} times only",
                figures.operation.name(),
                figures.engine.name(),
                figures.costs.len()
            )?;
        }
        let slowdown = self
            .of(Engine::PATCHWIRE, Operation::Diff)
            .and_then(|figures| self.slowdown(figures, unrelated));
        if let Some(Ratio {
            median,
            range: Some([min, max]),
        }) = slowdown
        {
            writeln!(
                out,
                "  diff of patchwire takes {median:.1} [{min:.1}..{max:.1}] times as long per byte as \
                 on unrelated"
            )?;
        }
        writeln!(out)
    }

    fn cells(&self, figures: &Figures, terms: Terms) -> [String; 9] {
        let nothing = || "-".to_owned();
        let rate = |seconds: Option<f64>| {
            let rate = seconds.map(|seconds| figures.input_bytes as f64 / seconds / 1e9);
            rate.map_or_else(nothing, |rate| format!("{rate:.3}"))
        };
        let cpu = match figures.stopped {
            Some(Stop::OverLimit { .. }) => over(terms),
            Some(Stop::Without(_)) | None => rate(figures.cpu()),
        };
        // The length of a target is no news, nor is that of a digest.
        let is_shown = !figures.operation.makes_target() && figures.operation != Operation::Digest;
        let len = |len: Option<u64>| {
            let shown = len.filter(|_| is_shown);
            shown.map_or_else(nothing, |len| len.to_string())
        };
        let ratio = |against| {
            let ratio = self.ratio(figures, against);
            ratio.map_or_else(String::new, |ratio| ratio.to_string())
        };
        let mut fast_rsync = ratio(Against::FastRsync);
        if figures.operation == Operation::PatchReused && !fast_rsync.is_empty() {
            fast_rsync.push_str(" its patch");
        }
        if let Some(ratio) = self.times_one_thread(figures)
            && let Some(processors) = processors(figures)
        {
            // There is no peer to stand here.
            fast_rsync = format!("{ratio} times one thread, by {processors:.2} processors");
        }
        [
            figures.operation.name().to_owned(),
            figures.engine.name().to_owned(),
            cpu,
            rate(figures.wall()),
            len(figures.output_bytes),
            len(figures.output_zstd_bytes),
            figures.peak_bytes.map_or_else(nothing, megabytes),
            fast_rsync,
            ratio(Against::Rdiff),
        ]
    }
}

fn print_line(out: &mut impl Write, cells: &[impl AsRef<str>; 9]) -> io::Result<()> {
    let [
        operation,
        engine,
        cpu,
        wall,
        output,
        zstd,
        peak,
        fast_rsync,
        rdiff,
    ] = cells.each_ref().map(AsRef::as_ref);
    let line = format!(
        "  {operation:<19} {engine:<10} {cpu:>9} {wall:>8} {output:>11} {zstd:>11} {peak:>9}  \
         {fast_rsync:<27} {rdiff}"
    );
    writeln!(out, "{}", line.trim_end())
}

/// Prints what holds for all tables.
pub(crate) fn print_conditions(
    out: &mut impl Write,
    peers: &[Peer],
    terms: Terms,
    place: &str,
) -> io::Result<()> {
    writeln!(
        out,
        "{} rounds after one that doesn't count, blocks of {} bytes, limit {}, files in {place}",
        terms.rounds,
        terms.block_size,
        humantime::format_duration(terms.limit),
    )?;
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    writeln!(
        out,
        "{processors} processors{}",
        if processors < 2 {
            ": two threads are of no use here"
        } else {
            ""
        }
    )?;
    for Peer { program, version } in peers {
        match version {
            Some(version) => {
                let remark = program.remark(Workload::Identical);
                let remark = remark.map_or_else(String::new, |remark| format!(", {remark}"));
                writeln!(out, "{version}{remark}")?;
            }
            None => writeln!(
                out,
                "{} is not installed: Debian has it in the package {}",
                program.name(),
                program.package()
            )?,
        }
    }
    Ok(())
}

/// Two threads that ran on fewer processors than this had to wait for others.
const BUSY: f64 = 1.8;

fn over(terms: Terms) -> String {
    format!("over {} s", terms.limit.as_secs_f64())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
