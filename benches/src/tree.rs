//! What does a push of a whole tree take, next to rsync and `git status`?
//!
//! Everything is real: relay, agent and developer are processes of the programs that users have, and
//! rsync speaks to itself through a pipe as through ssh.

mod compare;
mod forest;
mod peers;
mod process;
mod relay;
mod report;
mod rows;
mod sample;
mod server;
mod site;

use std::{
    env,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use self::relay::{Args as RelayArgs, serve as serve_relay};
use self::{
    peers::version,
    rows::{Field, Row, Sizes},
    site::Site,
};
use crate::{child::Interruption, programs::Programs};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// The files of the large tree; the small one has a tenth
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    files: u32,
    /// A row to measure; all if none is named
    #[arg(long, value_name = "ROW", value_delimiter = ',', num_args = 1..)]
    only: Vec<Row>,
    /// How many rounds are measured, after one that doesn't count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Measure on little, to see whether all works: nothing is said by the figures
    #[arg(long, conflicts_with = "rounds")]
    quick: bool,
    /// Where the trees lie while the run lasts; beside this program, if nothing is said
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let versions = [version("rsync")?, version("git")?];
    let programs = Programs::build(&["patchwire", "patchwire-agent", "patchwire-relay"])?;
    let interruption = Interruption::listen()?;
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => env::current_exe()?.with_file_name(""),
    };
    let dir = tempfile::Builder::new()
        .prefix("patchwire-bench-")
        .tempdir_in(&dir)
        .with_context(|| format!("can't make a directory in {}", dir.display()))?;
    let site = Site::open(dir.path(), &programs, &interruption)?;
    let sizes = Sizes {
        files: usize::try_from(args.files)?,
        rounds: args.rounds.into(),
        large_file: 500_000_000,
        cut_content: 1 << 30,
        cuts: 10,
        releases: usize::MAX,
    };
    let sizes = match args.quick {
        true => Sizes {
            files: sizes.files.min(2000),
            rounds: 1,
            large_file: 8 << 20,
            cut_content: 32 << 20,
            cuts: 2,
            releases: 0,
        },
        false => sizes,
    };
    let chosen = Row::value_variants().iter().copied();
    let chosen: Vec<Row> = chosen
        .filter(|row| args.only.is_empty() || args.only.contains(row))
        .collect();

    let progress = ProgressBar::new_spinner();
    progress.set_style(ProgressStyle::with_template("{elapsed} {msg}")?);
    let mut field = Field::new(&site, sizes, &progress);
    let mut all = Vec::new();
    for row in chosen {
        let measured = row
            .measure(&mut field)
            .with_context(|| format!("{} can't be measured", row.name()))?;
        if !args.json {
            progress.suspend(|| {
                let mut out = io::stdout().lock();
                measured.iter().try_for_each(|of| of.print(&mut out))
            })?;
        }
        all.extend(measured);
    }
    progress.finish_and_clear();

    let mut out = io::stdout().lock();
    if args.json {
        let rows: Vec<_> = all.iter().flat_map(report::Measured::rows).collect();
        serde_json::to_writer_pretty(&mut out, &rows)?;
        return Ok(writeln!(out)?);
    }
    writeln!(
        out,
        "{} rounds after one that doesn't count; {}; caches are warm",
        args.rounds,
        versions.join("; ")
    )?;
    Ok(())
}
