//! What does a push of a whole tree take, next to rsync and `git status`?
//!
//! Everything is real: relay, agent and developer are processes of the programs that users have, and
//! rsync speaks to itself through a pipe as through ssh.

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

use anyhow::{Context, ensure};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) use self::relay::{Args as RelayArgs, serve as serve_relay};
use self::{
    peers::version,
    report::Measured,
    rows::{Field, Row, Sizes},
    site::Site,
};
use crate::{child::Interruption, programs::Programs};

/// What the help says behind the options.
pub(crate) const HOW_TO_READ: &str = "\
How it is measured: trees are generated, the same in every run, or are a project's releases. Relay, agent \
(--reload none) and developer are processes on this machine; rsync is `rsync -a --delete` from one process to \
another through a pipe, as through ssh, with -z where bytes are counted. In each round all have their turn, \
after one round that doesn't count. Caches are warm, nothing needs root. After each push the target is \
compared with the source: names, kinds, modes and contents. Where nothing is left to be written is waited for \
before each run that writes.

How to read the tables:

  wall ms           the time that passed: of a command from its start to its end, of a server from the \
call to the answer. The median over the rounds, and the outermost
  cpu ms            the time on a processor: of patchwire developer, relay and agent together, of rsync both \
ends. What runs on is known to 10 ms for each process
  sent, received    bytes, from the developer's side: as patchwire's report and as rsync --stats say it
  peak              the most resident memory of the developer's process; of rsync and git, of the largest
  times …           the wall time, divided by that of the peer in the same round; the median, and the \
outermost
  floor             what must hold of the median; “ok”, or “below” where it doesn't

Rows:

  unchanged    `patchwire push` where nothing has changed, in the large tree and in a release of Django. \
`walk` is readdir and fstatat by one thread
  edits        `patchwire push` after 20 files of the small tree had a line replaced
  warm         the tool push_changes of `patchwire mcp`, after one line was replaced in the large tree
  first-push   `patchwire push` of the small tree to an empty root: encrypted, verified and durable when it \
ends. Next to rsync as it is, with `sync -f` behind it, and with --fsync
  traffic      as warm, in the small tree, with 1 and with 20 edited files
  renames      a file of 500 MB and a directory of 1000 files have other names
  insert       one byte more at the front of a file of 500 MB; once more with the developer's memory removed
  lost-base    the agent's state is removed, its root stays; ten lines are new
  releases     a project's release over the one before, with the developer's memory removed. Downloaded by \
pip, npm and cargo, and kept beside this program; what can't be had is named and left out
  cuts         a first push of 1 GiB, while the relay is killed and started again at ten random places. A \
command that gives up is started again. The relay counts what is sent
  memory       the most resident memory of `patchwire push` and of the agent: the first push of the large \
tree, and one edited line with both started anew

JSON: a list of objects, one for each engine of each row (two rows and more have several parts, named \
ROW-PART); null where there is nothing. Figures are medians, but of peak_rss_bytes the most; floors and notes \
stand with the first engine, which is patchwire.

  row, what, engine, files, rounds
  wall_seconds, wall_seconds_range, cpu_seconds, bytes_sent, bytes_received, peak_rss_bytes
  ratio_rsync, ratio_git, ratio_walk    the wall time divided by the peer's; each with …_range
  timings_ms    scan, send, commit, reload, ready and total, as patchwire reports them
  floors        objects with what, measured, at_most, unit (times or bytes) and ok
  notes         texts

The exit status is 0 whatever the floors say, and 1 if something could not be measured or a target was not \
what its source is.

Examples:
  patchwire-benches tree --quick
  patchwire-benches tree --only warm,unchanged --files 20000 --rounds 9
  patchwire-benches tree --json > tree.json";

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
    let mut failed = Vec::new();
    for row in chosen {
        match row.measure(&mut field) {
            Ok(measured) => {
                if !args.json {
                    progress.suspend(|| {
                        let mut out = io::stdout().lock();
                        measured.iter().try_for_each(|of| of.print(&mut out))
                    })?;
                }
                all.extend(measured);
            }
            Err(error) => {
                interruption.check()?;
                // The others can be measured all the same.
                progress.suspend(|| eprintln!("NOT MEASURED: {}: {error:#}", row.name()));
                failed.push(row.name());
            }
        }
    }
    progress.finish_and_clear();

    let mut out = io::stdout().lock();
    if args.json {
        let rows: Vec<_> = all.iter().flat_map(Measured::rows).collect();
        serde_json::to_writer_pretty(&mut out, &rows)?;
        writeln!(out)?;
    } else {
        writeln!(
            out,
            "{} rounds after one that doesn't count; {}; caches are warm",
            sizes.rounds,
            versions.join("; ")
        )?;
    }
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}
