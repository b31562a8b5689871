//! The benchmark harness of Patchwire: one question per subcommand, ourselves and our peers in one
//! run.
//!
//! `cargo run --release -p patchwire-benches -- delta`

mod child;
mod compare;
mod delta;
mod dev;
mod measure;
mod noise;
mod programs;
mod tree;

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
    /// What does a push of a whole tree take, next to rsync and git status?
    #[command(after_long_help = tree::HOW_TO_READ)]
    Tree(tree::Args),
    /// A relay of `tree` that goes down after so many bytes
    #[command(hide = true)]
    TreeRelay(tree::RelayArgs),
    /// How long from saving a file to the new code being served, under `patchwire dev`?
    Dev(dev::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().question {
        Question::Delta(args) => delta::run(args),
        Question::DeltaWorker => delta::work(),
        Question::Tree(args) => tree::run(&args),
        Question::TreeRelay(args) => tree::serve_relay(args),
        Question::Dev(args) => dev::run(&args),
    }
}
