//! Interleaved measurements, and how they are told.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// What one case cost ourselves and a peer.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) case: &'static str,
    /// How many bytes of input the case has: what its throughput is counted in.
    pub(crate) bytes: usize,
    pub(crate) ours: Side,
    pub(crate) peer: Side,
}

/// One side of a comparison.
#[derive(Debug)]
pub(crate) struct Side {
    /// The median wall time.
    pub(crate) time: Duration,
    /// The length of what was made.
    pub(crate) output_len: usize,
}

/// Runs both sides by turns, so that a busy moment of the machine hits both, and takes the medians.
///
/// Each side gives the length of what it made.
pub(crate) fn compare(
    case: &'static str,
    bytes: usize,
    rounds: usize,
    mut ours: impl FnMut() -> anyhow::Result<usize>,
    mut peer: impl FnMut() -> anyhow::Result<usize>,
) -> anyhow::Result<Comparison> {
    let mut times = [Vec::new(), Vec::new()];
    let mut lens = [0, 0];
    // The first round warms caches and allocators, and does not count.
    for round in 0..=rounds {
        let sides: [&mut dyn FnMut() -> anyhow::Result<usize>; 2] = [&mut ours, &mut peer];
        for ((side, times), len) in sides.into_iter().zip(&mut times).zip(&mut lens) {
            let start = Instant::now();
            *len = side()?;
            let time = start.elapsed();
            if round > 0 {
                times.push(time);
            }
        }
    }
    let [ours, peer] = times.map(median);
    let [ours_len, peer_len] = lens;
    Ok(Comparison {
        case,
        bytes,
        ours: Side {
            time: ours,
            output_len: ours_len,
        },
        peer: Side {
            time: peer,
            output_len: peer_len,
        },
    })
}

/// The middle one, the later of two.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

impl Comparison {
    /// How many times as fast as the peer we are.
    fn ratio(&self) -> f64 {
        self.peer.time.as_secs_f64() / self.ours.time.as_secs_f64()
    }

    /// Throughput in gigabytes (10⁹) a second.
    fn rate(&self, side: &Side) -> f64 {
        self.bytes as f64 / side.time.as_secs_f64() / 1e9
    }

    fn to_json(&self) -> Value {
        let side = |side: &Side| {
            json!({
                "seconds": side.time.as_secs_f64(),
                "gb_per_s": self.rate(side),
                "output_bytes": side.output_len,
            })
        };
        json!({
            "case": self.case,
            "input_bytes": self.bytes,
            "ours": side(&self.ours),
            "peer": side(&self.peer),
            "ratio": self.ratio(),
        })
    }
}

/// Prints the comparisons for a person.
pub(crate) fn print_table(peer: &str, comparisons: &[Comparison]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:<28} {:>10} {:>10} {:>8} {:>14} {:>14}",
        "", "ours GB/s", "peer GB/s", "ratio", "our bytes", "peer's bytes"
    )?;
    for comparison in comparisons {
        writeln!(
            out,
            "{:<28} {:>10.2} {:>10.2} {:>7.1}x {:>14} {:>14}",
            comparison.case,
            comparison.rate(&comparison.ours),
            comparison.rate(&comparison.peer),
            comparison.ratio(),
            comparison.ours.output_len,
            comparison.peer.output_len,
        )?;
    }
    writeln!(out, "peer: {peer}; one thread, wall time, medians")
}

/// Prints the comparisons for a program.
pub(crate) fn print_json(peer: &str, comparisons: &[Comparison]) -> anyhow::Result<()> {
    let cases: Vec<Value> = comparisons.iter().map(Comparison::to_json).collect();
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &json!({ "peer": peer, "cases": cases }))?;
    writeln!(out)?;
    Ok(())
}
