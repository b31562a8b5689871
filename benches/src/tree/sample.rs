//! What one run has cost, and many.

use std::collections::BTreeMap;

use crate::measure::{Cost, Spread};

/// What one run has cost.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) cost: Cost,
    pub(crate) bytes: Option<Bytes>,
    /// Where the time went, as a report says it.
    pub(crate) timings_ms: BTreeMap<String, f64>,
}

/// The bytes of one run, seen from the developer's side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Bytes {
    pub(crate) const fn both_ways(self) -> u64 {
        self.sent + self.received
    }
}

impl From<Cost> for Sample {
    fn from(cost: Cost) -> Self {
        Self {
            cost,
            bytes: None,
            timings_ms: BTreeMap::new(),
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
    Some(sample.cost.wall.as_secs_f64())
}

/// The bytes both ways.
pub(crate) fn traffic(sample: &Sample) -> Option<f64> {
    Some(sample.bytes?.both_ways() as f64)
}

/// The bytes sent.
pub(crate) fn sent(sample: &Sample) -> Option<f64> {
    Some(sample.bytes?.sent as f64)
}
