//! What the streaming forms take.

use std::io::{self, Write};

use bytesize::ByteSize;

use super::{Row, megabytes};
use crate::{
    delta::{
        engines::Engine,
        operation::Operation,
        sparse::{ISLAND, ISLANDS},
        worker::Made,
    },
    measure::Cost,
};

/// What an operation on files with holes has cost and made.
#[derive(Debug)]
pub(crate) struct SparseFigures {
    pub(crate) operation: Operation,
    pub(crate) input_bytes: u64,
    pub(crate) cost: Cost,
    pub(crate) made: Made,
}

impl SparseFigures {
    pub(crate) fn row(&self) -> Row {
        Row {
            workload: "sparse",
            engine: Engine::PATCHWIRE.name(),
            operation: self.operation.name(),
            input_bytes: self.input_bytes,
            cpu_seconds: Some(self.cost.cpu.as_secs_f64()),
            wall_seconds: Some(self.cost.wall.as_secs_f64()),
            output_bytes: Some(self.made.bytes),
            peak_rss_bytes: self.cost.peak_bytes,
            rounds: 1,
            ..Row::default()
        }
    }
}

/// Prints what the streaming forms take on long files with holes.
pub(crate) fn print_sparse(out: &mut impl Write, all: &[SparseFigures]) -> io::Result<()> {
    writeln!(
        out,
        "holes with {} islands of {} of noise, an edit in each; the target made is the right one",
        ISLANDS,
        ByteSize(ISLAND as u64),
    )?;
    let [input, time, output] = ["input", "CPU s", "output"];
    writeln!(
        out,
        "  {:<19} {input:>11} {time:>8} {:>9} {output:>11} {:>9}",
        "operation", "GB/CPU s", "peak"
    )?;
    for figures in all {
        let seconds = figures.cost.cpu.as_secs_f64();
        writeln!(
            out,
            "  {:<19} {:>11} {seconds:>8.2} {:>9.3} {:>11} {:>9}",
            figures.operation.name(),
            megabytes(figures.input_bytes),
            figures.input_bytes as f64 / seconds / 1e9,
            figures.made.bytes,
            figures
                .cost
                .peak_bytes
                .map_or_else(|| "-".to_owned(), megabytes),
        )?;
    }
    Ok(())
}
