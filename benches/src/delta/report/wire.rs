//! What two rounds send, next to one.

use std::io::{self, Write};

use crate::delta::{
    engines::Engine, operation::Operation, rounds::Measurements, worker::SingleRound,
};

/// Prints a line for each workload on which two rounds were measured.
pub(crate) fn print_wire(out: &mut impl Write, all: &[Measurements]) -> io::Result<()> {
    let mut lines = Vec::new();
    for measurements in all {
        let figures = measurements.of(Engine::PATCHWIRE, Operation::TwoRounds);
        let line = figures.and_then(|figures| {
            let rounds = measurements.single_rounds?;
            Some([
                measurements.name().to_owned(),
                rounds.usual.block_size.to_string(),
                zstd_bytes(rounds.usual)?.to_string(),
                rounds.best.block_size.to_string(),
                zstd_bytes(rounds.best)?.to_string(),
                figures.output_zstd_bytes?.to_string(),
                format!("{:.3}", measurements.times_single_round(figures)?),
            ])
        });
        lines.extend(line);
    }
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "Bytes on the wire, all messages, each compressed by zstd -3"
    )?;
    let header = [
        "workload",
        "usual",
        "one round",
        "best",
        "one round",
        "two rounds",
        "of best",
    ];
    for [
        workload,
        usual,
        with_usual,
        best,
        with_best,
        two_rounds,
        ratio,
    ] in [header.map(str::to_owned)].into_iter().chain(lines)
    {
        writeln!(
            out,
            "  {workload:<12} {usual:>6} {with_usual:>11} {best:>6} {with_best:>11} \
             {two_rounds:>11} {ratio:>8}"
        )?;
    }
    writeln!(out)
}

const fn zstd_bytes(round: SingleRound) -> Option<u64> {
    round.made.zstd_bytes
}
