//! What was measured, for a person and for a program.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;

use super::{
    peers::{GIT_STATUS, RSYNC, WALK},
    sample::{Sample, Series, peak, received, sent, wall},
};
use crate::measure::Spread;

/// What was measured to answer one question.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The name of the row, and of what in it, where that is several.
    pub(crate) row: String,
    /// In a sentence.
    pub(crate) what: String,
    pub(crate) files: usize,
    /// Of patchwire first.
    pub(crate) series: Vec<Series>,
    pub(crate) floors: Vec<Floor>,
    pub(crate) notes: Vec<String>,
}

/// One thing that must hold.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Floor {
    what: String,
    measured: Option<f64>,
    at_most: f64,
    unit: Unit,
    ok: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Times,
    Bytes,
}

impl Floor {
    /// The median is so many times something of others at most.
    pub(crate) fn ratio(what: &str, ratio: Option<Spread>, at_most: f64) -> Self {
        Self::new(what, ratio, at_most, Unit::Times)
    }

    /// The median is so many bytes at most.
    pub(crate) fn bytes(what: &str, bytes: Option<Spread>, at_most: u64) -> Self {
        Self::new(what, bytes, at_most as f64, Unit::Bytes)
    }

    fn new(what: &str, measured: Option<Spread>, at_most: f64, unit: Unit) -> Self {
        let measured = measured.map(|spread| spread.median);
        Self {
            what: what.to_owned(),
            measured,
            at_most,
            unit,
            // What could not be measured did not hold.
            ok: measured.is_some_and(|measured| measured <= at_most),
        }
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let shown = |number: f64| match self.unit {
            Unit::Times => format!("{number:.3}x"),
            Unit::Bytes => format!("{number} bytes"),
        };
        let measured = self.measured.map_or_else(nothing, shown);
        let bound = format!("at most {}", shown(self.at_most));
        let is_met = if self.ok { "ok" } else { "below" };
        let what = &self.what;
        writeln!(
            out,
            "  floor: {what:<46} {measured:>18}  {bound:<26} {is_met}"
        )
    }
}

/// The figures of one engine.
#[derive(Debug, Serialize)]
pub(crate) struct Row<'a> {
    row: &'a str,
    what: &'a str,
    engine: &'static str,
    files: usize,
    rounds: usize,
    wall_seconds: Option<f64>,
    wall_seconds_range: Option<[f64; 2]>,
    cpu_seconds: Option<f64>,
    bytes_sent: Option<f64>,
    bytes_received: Option<f64>,
    peak_rss_bytes: Option<f64>,
    /// The wall time divided by that of others in the same round.
    ratio_rsync: Option<f64>,
    ratio_rsync_range: Option<[f64; 2]>,
    ratio_git: Option<f64>,
    ratio_git_range: Option<[f64; 2]>,
    ratio_walk: Option<f64>,
    ratio_walk_range: Option<[f64; 2]>,
    timings_ms: BTreeMap<&'a str, f64>,
    floors: &'a [Floor],
    notes: &'a [String],
}

impl Measured {
    /// An object for each engine; floors and notes stand with the first, which is patchwire.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.series.iter().enumerate().map(|(index, series)| {
            let times = |peer| self.times(series, peer);
            let range = |spread: Option<Spread>| spread.map(|of| [of.min, of.max]);
            let median = |spread: Option<Spread>| spread.map(|of| of.median);
            let most = |spread: Option<Spread>| spread.map(|of| of.max);
            let [rsync, git, walk] = [RSYNC, GIT_STATUS, WALK].map(times);
            let took = series.spread(wall);
            let is_first = index == 0;
            Row {
                row: &self.row,
                what: &self.what,
                engine: series.engine,
                files: self.files,
                rounds: series.samples.len(),
                wall_seconds: median(took),
                wall_seconds_range: range(took),
                cpu_seconds: median(series.spread(cpu)),
                bytes_sent: median(series.spread(sent)),
                bytes_received: median(series.spread(received)),
                peak_rss_bytes: most(series.spread(peak)),
                ratio_rsync: median(rsync),
                ratio_rsync_range: range(rsync),
                ratio_git: median(git),
                ratio_git_range: range(git),
                ratio_walk: median(walk),
                ratio_walk_range: range(walk),
                timings_ms: stages(series).into_iter().collect(),
                floors: if is_first { &self.floors } else { &[] },
                notes: if is_first { &self.notes } else { &[] },
            }
        })
    }

    /// How many times the wall time of a peer an engine takes, if it isn't that peer.
    fn times(&self, series: &Series, peer: &str) -> Option<Spread> {
        let other = self.series.iter().find(|other| other.engine == peer)?;
        (series.engine != peer).then(|| series.ratio(other, wall))?
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}: {}, {} files", self.row, self.what, self.files)?;
        let header = [
            "engine",
            "wall ms",
            "cpu ms",
            "sent",
            "received",
            "peak",
            "times rsync",
            "times git status",
        ];
        print_line(out, &header)?;
        for series in &self.series {
            let number = |spread: Option<Spread>, scale: f64| {
                spread.map_or_else(nothing, |of| format!("{:.1}", of.median * scale))
            };
            let bytes =
                |spread: Option<Spread>| spread.map_or_else(nothing, |of| of.median.to_string());
            let ratio = |peer| {
                let ratio = self.times(series, peer);
                ratio.map_or_else(nothing, |Spread { median, min, max }| {
                    format!("{median:.3}x [{min:.3}..{max:.3}]")
                })
            };
            let took = series.spread(wall).map_or_else(nothing, |of| {
                let Spread { median, min, max } = of;
                format!("{:.1} [{:.1}..{:.1}]", median * 1e3, min * 1e3, max * 1e3)
            });
            let line = [
                series.engine.to_owned(),
                took,
                number(series.spread(cpu), 1e3),
                bytes(series.spread(sent)),
                bytes(series.spread(received)),
                series
                    .spread(peak)
                    .map_or_else(nothing, |of| format!("{:.1} MB", of.max / 1e6)),
                ratio(RSYNC),
                ratio(GIT_STATUS),
            ];
            print_line(out, &line.each_ref().map(String::as_str))?;
            let stages = stages(series);
            if !stages.is_empty() {
                let stages: Vec<String> = stages
                    .iter()
                    .map(|(stage, ms)| format!("{stage} {ms:.1}"))
                    .collect();
                writeln!(out, "    its milliseconds: {}", stages.join(", "))?;
            }
        }
        for floor in &self.floors {
            floor.print(out)?;
        }
        for note in &self.notes {
            writeln!(out, "  {note}")?;
        }
        writeln!(out)
    }
}

fn print_line(out: &mut impl Write, cells: &[&str; 8]) -> io::Result<()> {
    let [engine, wall, cpu, sent, received, peak, rsync, git] = cells;
    let line = format!(
        "  {engine:<16} {wall:<26} {cpu:>9} {sent:>11} {received:>11} {peak:>10}  {rsync:<24} {git}"
    );
    writeln!(out, "{}", line.trim_end())
}

/// The medians of the stages, in the order they have in a push.
fn stages(series: &Series) -> Vec<(&'static str, f64)> {
    let stages = ["scan", "send", "commit", "reload", "ready", "total"].into_iter();
    stages
        .filter_map(|stage| {
            let spread = series.spread(|sample| sample.timings_ms.get(stage).copied())?;
            Some((stage, spread.median))
        })
        .collect()
}

fn cpu(sample: &Sample) -> Option<f64> {
    Some(sample.cpu?.as_secs_f64())
}

fn nothing() -> String {
    "-".to_owned()
}
