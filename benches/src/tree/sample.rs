//! What one run has cost, and many.

use std::{collections::BTreeMap, time::Duration};

use crate::measure::{Cost, Spread};

/// What one run has cost, as far as that is measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    pub(crate) wall: Option<Duration>,
    /// Of all processes together.
    pub(crate) cpu: Option<Duration>,
    pub(crate) peak_bytes: Option<u64>,
    /// Bytes, seen from the developer's side.
    pub(crate) sent: Option<u64>,
    pub(crate) received: Option<u64>,
    /// Where the time went, as a report says it.
    pub(crate) timings_ms: BTreeMap<String, f64>,
}

impl From<Cost> for Sample {
    fn from(cost: Cost) -> Self {
        Self {
            wall: Some(cost.wall),
            cpu: Some(cost.cpu),
            peak_bytes: cost.peak_bytes,
            ..Self::default()
        }
    }
}

/// The runs of one engine, one for each round.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) engine: &'static str,
    pub(crate) samples: Vec<Sample>,
}

impl Series {
    pub(crate) const fn new(engine: &'static str) -> Self {
        Self {
            engine,
            samples: Vec::new(),
        }
    }

    /// With one run more.
    pub(crate) fn with(mut self, sample: Sample) -> Self {
        self.samples.push(sample);
        self
    }

    /// What is in the middle of some figure, where every round has it.
    pub(crate) fn spread(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.samples.iter().map(of).collect::<Option<_>>()?)
    }

    /// A figure of ours divided by that of others in the same round.
    pub(crate) fn ratio(
        &self,
        others: &Self,
        of: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<Spread> {
        let rounds = self.samples.iter().zip(&others.samples);
        let ratios = rounds.map(|(one, other)| Some(of(one)? / of(other)?));
        Spread::of(ratios.collect::<Option<_>>()?)
    }
}

/// The time that passed, in seconds.
pub(crate) fn wall(sample: &Sample) -> Option<f64> {
    Some(sample.wall?.as_secs_f64())
}

/// The most memory, in bytes.
pub(crate) fn peak(sample: &Sample) -> Option<f64> {
    Some(sample.peak_bytes? as f64)
}

/// The bytes sent.
pub(crate) fn sent(sample: &Sample) -> Option<f64> {
    Some(sample.sent? as f64)
}

/// The bytes received.
pub(crate) fn received(sample: &Sample) -> Option<f64> {
    Some(sample.received? as f64)
}

/// The bytes both ways.
pub(crate) fn traffic(sample: &Sample) -> Option<f64> {
    Some(sent(sample)? + received(sample)?)
}
