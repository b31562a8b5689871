//! The benchmark harness of Patchwire: one question per subcommand, ourselves and our peers in one
//! run.
//!
//! `cargo run --release -p patchwire-benches -- delta`

mod delta;
mod dev;
mod measure;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Measures Patchwire against its peers")]
struct Args {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// How fast are signature, diff and patch, next to fast_rsync, rdiff, rsync, xdelta3 and zstd?
    #[command(after_long_help = delta::HOW_TO_READ)]
    Delta(delta::Args),
    /// One in-process engine of `delta`, or what makes its inputs: commands on stdin
    #[command(hide = true)]
    DeltaWorker,
    /// How long from saving a file to the new code being served, under `patchwire dev`?
    Dev(dev::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().question {
        Question::Delta(args) => delta::run(args),
        Question::DeltaWorker => delta::work(),
        Question::Dev(args) => dev::run(&args),
    }
}
