//! What was measured, for a person and for a program.

use std::{
    fmt,
    io::{self, Write},
};

use serde::Serialize;

use super::{
    engines::{Engine, Program},
    operation::{Against, Operation},
    rounds::{Figures, Measurements, Stop, Terms},
    workloads::Workload,
};
use crate::measure::Spread;

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
    rounds: usize,
    /// A run took longer than the limit and was stopped: there are no figures.
    over_limit: bool,
    note: Option<String>,
}

/// How many times the time on a processor of an engine a peer needs.
#[derive(Debug, Clone, Copy)]
struct Ratio {
    median: f64,
    /// `None` if the peer was stopped: then it is this or more.
    range: Option<[f64; 2]>,
}

/// A program that was asked for, and its version; `None` where it isn't installed.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) program: Program,
    pub(crate) version: Option<String>,
}

impl Measurements {
    /// A row for each operation of each engine, those of missing peers last.
    pub(crate) fn rows(&self, peers: &[Peer], terms: Terms) -> Vec<Row> {
        let measured = self.figures.iter().map(|figures| {
            let ratio = |against| self.ratio(figures, against);
            let fast_rsync = ratio(Against::FastRsync);
            let reused = ratio(Against::FastRsyncReused);
            let rdiff = ratio(Against::Rdiff);
            Row {
                workload: self.workload.name(),
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
                rounds: figures.costs.len(),
                over_limit: matches!(figures.stopped, Some(Stop::OverLimit { .. })),
                note: self.note(figures, peers, terms),
            }
        });
        let missing = peers.iter().filter(|peer| peer.version.is_none());
        let missing = missing.flat_map(|peer| {
            let engine = Engine::Program(peer.program);
            engine.operations().iter().map(move |operation| Row {
                workload: self.workload.name(),
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

    /// The ratio of one operation of an engine to its counterpart: none where either has none, and
    /// none of a peer to itself.
    fn ratio(&self, ours: &Figures, against: Against) -> Option<Ratio> {
        let engine = match against {
            Against::FastRsync | Against::FastRsyncReused => Engine::FAST_RSYNC,
            Against::Rdiff => Engine::RDIFF,
        };
        let operation = ours.operation.counterpart(against)?;
        let theirs = self
            .figures
            .iter()
            .find(|figures| figures.engine == engine && figures.operation == operation)?;
        if ours.engine == engine {
            return None;
        }
        if let Some(Stop::OverLimit { cpu }) = theirs.stopped {
            let median = ours.cpu().map(|ours| cpu.as_secs_f64() / ours);
            return median
                .filter(|ratio| ratio.is_normal())
                .map(|median| Ratio {
                    median,
                    range: None,
                });
        }
        let rounds = ours.costs.iter().zip(&theirs.costs);
        let ratios = rounds.map(|(ours, theirs)| theirs.cpu.as_secs_f64() / ours.cpu.as_secs_f64());
        let spread = Spread::of(ratios.filter(|ratio| ratio.is_normal()).collect())?;
        Some(Ratio {
            median: spread.median,
            range: Some([spread.min, spread.max]),
        })
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
        let notes = [stopped, version, remark, self.note.clone()];
        let notes: Vec<String> = notes.into_iter().flatten().collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// Prints the table of this workload.
    pub(crate) fn print(&self, out: &mut impl Write, terms: Terms) -> io::Result<()> {
        writeln!(
            out,
            "{}: basis {}, target {}",
            self.workload.name(),
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
        // The length of a target is no news.
        let is_shown = matches!(
            figures.operation,
            Operation::Signature | Operation::Diff | Operation::Whole
        );
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
        "  {operation:<13} {engine:<10} {cpu:>9} {wall:>8} {output:>11} {zstd:>11} {peak:>9}  \
         {fast_rsync:<27} {rdiff}"
    );
    writeln!(out, "{}", line.trim_end())
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, range } = self;
        match range {
            Some([min, max]) => write!(f, "{median:.2}x [{min:.2}..{max:.2}]"),
            None => write!(f, "at least {median:.1}x"),
        }
    }
}

impl Ratio {
    const fn is_at_least(self) -> bool {
        self.range.is_none()
    }
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

fn over(terms: Terms) -> String {
    format!("over {} s", terms.limit.as_secs_f64())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
