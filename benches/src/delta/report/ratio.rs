//! How many times one time another is, over all rounds.

use std::{fmt, time::Duration};

use crate::{
    delta::{
        engines::Engine,
        operation::{Against, Operation},
        rounds::{Figures, Measurements, Stop},
        worker::SingleRounds,
    },
    measure::{Cost, Spread},
};

/// How many times as much, in the middle and in the outermost rounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ratio {
    pub(super) median: f64,
    /// `None` if a peer was stopped: then it is this or more.
    pub(super) range: Option<[f64; 2]>,
}

impl Ratio {
    pub(super) const fn is_at_least(self) -> bool {
        self.range.is_none()
    }

    /// The times of one divided by those of another, round by round.
    fn of(dividend: &Figures, divisor: &Figures, time: impl Fn(&Cost) -> Duration) -> Option<Self> {
        let rounds = dividend.costs.iter().zip(&divisor.costs);
        let ratios = rounds.map(|(one, other)| time(one).as_secs_f64() / time(other).as_secs_f64());
        let spread = Spread::of(ratios.filter(|ratio| ratio.is_normal()).collect())?;
        Some(Self {
            median: spread.median,
            range: Some([spread.min, spread.max]),
        })
    }
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

impl Measurements {
    /// How many times the time of one operation of an engine its counterpart takes: none where either
    /// has none, and none of a peer to itself.
    pub(super) fn ratio(&self, ours: &Figures, against: Against) -> Option<Ratio> {
        let engine = match against {
            Against::FastRsync | Against::FastRsyncReused => Engine::FAST_RSYNC,
            Against::Rdiff => Engine::RDIFF,
        };
        let operation = ours.operation.counterpart(against)?;
        let theirs = self.of(engine, operation)?;
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
        Ratio::of(theirs, ours, |cost| cost.cpu)
    }

    /// How many times the wall time of an operation with two threads the same takes with one.
    pub(super) fn times_one_thread(&self, ours: &Figures) -> Option<Ratio> {
        let with_one = self.of(ours.engine, ours.operation.with_one_thread()?)?;
        Ratio::of(with_one, ours, |cost| cost.wall)
    }

    /// How many times the time of patchwire's diff on `unrelated` it takes here, per byte of the
    /// target. The two were measured in different rounds, so the range is between the outermost.
    pub(super) fn times_unrelated(&self, unrelated: &Self) -> Option<Ratio> {
        let per_byte = |measurements: &Self| {
            let figures = measurements.of(Engine::PATCHWIRE, Operation::Diff)?;
            let times = figures.costs.iter();
            let times = times.map(|cost| cost.cpu.as_secs_f64() / figures.input_bytes as f64);
            Spread::of(times.collect())
        };
        let (here, there) = (per_byte(self)?, per_byte(unrelated)?);
        Some(Ratio {
            median: here.median / there.median,
            range: Some([here.min / there.max, here.max / there.min]),
        })
    }

    /// The compressed bytes of two rounds, divided by the fewest of one.
    pub(super) fn times_single_round(&self, two_rounds: &Figures) -> Option<f64> {
        let SingleRounds { best, .. } = self.single_rounds?;
        let ours = two_rounds.output_zstd_bytes?;
        Some(ours as f64 / best.made.zstd_bytes? as f64)
    }
}

/// On how many processors an operation ran at the same time.
pub(super) fn processors(figures: &Figures) -> Option<f64> {
    let of_round = |cost: &Cost| cost.cpu.as_secs_f64() / cost.wall.as_secs_f64();
    Some(Spread::of(figures.costs.iter().map(of_round).collect())?.median)
}
