//! What patchwire holds itself to.

use std::io::{self, Write};

use bytesize::ByteSize;
use clap::ValueEnum;

use super::{
    megabytes,
    ratio::{Ratio, processors},
};
use crate::delta::{
    engines::Engine,
    operation::{Against, Operation},
    rounds::{Figures, Measurements},
    workloads::Workload,
};

/// One thing that must hold.
struct Floor {
    what: String,
    /// What was measured, as it is to be read.
    measured: String,
    /// What must hold, as it is to be read.
    bound: String,
    /// `None` if a peer was stopped before it was known.
    is_met: Option<bool>,
}

/// Prints all floors, if all that takes was measured.
pub(crate) fn print_floors(out: &mut impl Write, all: &[Measurements]) -> io::Result<()> {
    let Some(board) = Board::of(all) else {
        return Ok(());
    };
    writeln!(out, "Floors: --help says what they mean")?;
    for Floor {
        what,
        measured,
        bound,
        is_met,
    } in board.floors()
    {
        let is_met = match is_met {
            Some(true) => "ok",
            Some(false) => "below",
            None => "unknown",
        };
        writeln!(out, "  {what:<44} {measured:<40} {bound:<16} {is_met}")?;
    }
    writeln!(out)
}

/// All measurements of a run in which nothing is missing.
struct Board<'a> {
    /// One for each workload, in their order, with all engines.
    all: Vec<&'a Measurements>,
    /// Those with inputs as long as asked for.
    full_size: Vec<&'a Measurements>,
}

impl<'a> Board<'a> {
    /// `None` if a workload or one of the two engines is missing.
    fn of(measurements: &'a [Measurements]) -> Option<Self> {
        let mut all = Vec::new();
        let mut full_size = Vec::new();
        for workload in Workload::value_variants() {
            let mut of_workload = measurements.iter().filter(|of| of.workload == *workload);
            let with_peers = of_workload.clone().find(|of| !of.is_full_size)?;
            for engine in [Engine::PATCHWIRE, Engine::FAST_RSYNC] {
                with_peers.of(engine, Operation::Diff)?;
            }
            all.push(with_peers);
            full_size.push(of_workload.find(|of| of.is_full_size).unwrap_or(with_peers));
        }
        Some(Self { all, full_size })
    }

    fn on(&self, workload: Workload) -> Option<&'a Measurements> {
        self.all.iter().find(|of| of.workload == workload).copied()
    }

    fn on_full_size(&self, workload: Workload) -> Option<&'a Measurements> {
        let mut all = self.full_size.iter();
        all.find(|of| of.workload == workload).copied()
    }

    fn floors(&self) -> Vec<Floor> {
        let mut floors = vec![self.least(Operation::Signature, 1.7)];
        for (workload, floor) in [
            (Workload::Identical, 18.0),
            (Workload::Shifted, 18.0),
            (Workload::Edits200, 16.0),
            (Workload::Edits8192, 10.0),
            (Workload::Sqlite, 9.0),
            (Workload::Unrelated, 10.0),
            (Workload::Collisions, 2.0),
            (Workload::Anchors, 2.0),
        ] {
            let ratio = self
                .on(workload)
                .and_then(|on| on.ratio(ours(on, Operation::Diff)?, Against::FastRsync));
            let what = format!("diff, {}", workload.name());
            floors.push(at_least(what, ratio, floor));
        }
        for workload in [Workload::Collisions, Workload::Anchors] {
            floors.push(self.slowdown(workload));
        }
        floors.push(self.least(Operation::PatchReused, 4.0));
        floors.push(self.least(Operation::PatchFile, 1.5));
        for operation in [Operation::Signature2Threads, Operation::Diff2Threads] {
            for workload in [Workload::Identical, Workload::Unrelated] {
                floors.push(self.threads(operation, workload));
            }
        }
        floors.push(self.delta_len());
        for workload in [Workload::Edits200, Workload::Edits8192] {
            floors.push(self.two_rounds(workload));
        }
        floors.push(self.diff_peak());
        floors
    }

    /// The least ratio to fast_rsync among the workloads, but those with shorter inputs: short ones
    /// get memory that the allocator has kept.
    fn least(&self, operation: Operation, floor: f64) -> Floor {
        let ratios = self.all.iter().zip(&self.full_size);
        let ratios = ratios
            .filter(|(on, full_size)| std::ptr::eq(**on, **full_size))
            .filter_map(|(on, _)| Some((*on, ours(on, operation)?)))
            .map(|(on, figures)| (on, on.ratio(figures, Against::FastRsync)));
        // Where there is no ratio, patchwire was stopped: there is nothing less.
        let median = |ratio: &Option<Ratio>| ratio.map_or(f64::NEG_INFINITY, |ratio| ratio.median);
        let least = ratios.min_by(|(_, one), (_, other)| median(one).total_cmp(&median(other)));
        let (name, ratio) = least.map_or(("-", None), |(on, ratio)| (on.name(), ratio));
        let what = format!("{}, least, on {name}", operation.name());
        at_least(what, ratio, floor)
    }

    fn slowdown(&self, workload: Workload) -> Floor {
        const MOST: f64 = 20.0;
        let times = self
            .on_full_size(workload)
            .zip(self.on(Workload::Unrelated))
            .and_then(|(on, unrelated)| on.times_unrelated(unrelated));
        Floor {
            what: format!("diff, {}, time of unrelated", workload.name()),
            measured: shown(times),
            bound: format!("at most {MOST}x"),
            is_met: Some(times.is_some_and(|times| times.median <= MOST)),
        }
    }

    fn threads(&self, operation: Operation, workload: Workload) -> Floor {
        let figures = self
            .on(workload)
            .and_then(|on| Some((on, ours(on, operation)?)));
        let ratio = figures.and_then(|(on, figures)| on.times_one_thread(figures));
        let what = format!("{}, {}, wall", operation.name(), workload.name());
        let mut floor = at_least(what, ratio, 1.6);
        if let Some(processors) = figures.and_then(|(_, figures)| processors(figures)) {
            floor.measured += &format!(" by {processors:.2} processors");
        }
        floor
    }

    /// The longest delta after compression, as a multiple of fast_rsync's.
    fn delta_len(&self) -> Floor {
        const MOST: f64 = 1.03;
        let ratios = self.all.iter().filter_map(|on| {
            let theirs = on.of(Engine::FAST_RSYNC, Operation::Diff)?;
            let ours = ours(on, Operation::Diff)?.output_zstd_bytes?;
            let ours = ours.saturating_sub(DIGEST_AND_HEADER) as f64;
            Some((on, ours / theirs.output_zstd_bytes? as f64))
        });
        let most = ratios.max_by(|(_, one), (_, other)| one.total_cmp(other));
        let name = most.map_or("-", |(on, _)| on.name());
        Floor {
            what: format!("delta after zstd, most, on {name}"),
            measured: most.map_or_else(nothing, |(_, most)| format!("{most:.3}x fast_rsync's")),
            bound: format!("at most {MOST}x"),
            is_met: Some(most.is_some_and(|(_, most)| most <= MOST)),
        }
    }

    fn two_rounds(&self, workload: Workload) -> Floor {
        const MOST: f64 = 0.7;
        let ratio = self
            .on(workload)
            .and_then(|on| on.times_single_round(ours(on, Operation::TwoRounds)?));
        Floor {
            what: format!("two-rounds, {}, bytes", workload.name()),
            measured: ratio
                .map_or_else(nothing, |ratio| format!("{ratio:.3}x the best one round's")),
            bound: format!("at most {MOST}x"),
            is_met: Some(ratio.is_some_and(|ratio| ratio <= MOST)),
        }
    }

    fn diff_peak(&self) -> Floor {
        const MOST: u64 = 32 << 20;
        let peaks = self.all.iter().chain(&self.full_size);
        let peaks = peaks.map(|on| {
            let peak = ours(on, Operation::Diff).and_then(|figures| figures.peak_bytes);
            (on.name(), peak)
        });
        // Where it is not known it is the most.
        let most = peaks.max_by_key(|(_, peak)| peak.unwrap_or(u64::MAX));
        let (name, peak) = most.unwrap_or(("-", None));
        Floor {
            what: format!("peak memory of diff, most, on {name}"),
            measured: peak.map_or_else(nothing, megabytes),
            bound: format!("at most {}", ByteSize(MOST)),
            is_met: Some(peak.is_some_and(|peak| peak <= MOST)),
        }
    }
}

/// The digest of the target and what names the basis: fast_rsync has neither, and its shortest deltas
/// are shorter than these.
const DIGEST_AND_HEADER: u64 = 64;

fn ours(on: &Measurements, operation: Operation) -> Option<&Figures> {
    on.of(Engine::PATCHWIRE, operation)
}

fn at_least(what: String, ratio: Option<Ratio>, floor: f64) -> Floor {
    Floor {
        what,
        measured: shown(ratio),
        bound: format!("at least {floor}x"),
        is_met: match ratio {
            Some(ratio) if ratio.median >= floor => Some(true),
            Some(ratio) if ratio.is_at_least() => None,
            Some(_) | None => Some(false),
        },
    }
}

fn shown(ratio: Option<Ratio>) -> String {
    ratio.map_or_else(nothing, |ratio| ratio.to_string())
}

fn nothing() -> String {
    "-".to_owned()
}
