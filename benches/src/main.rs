//! The benchmark harness of Patchwire: one question per subcommand, ourselves and a peer in one run.
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
    /// How fast are signature, diff and patch, next to fast_rsync?
    Delta(delta::Args),
    /// How long from saving a file to the new code being served, under `patchwire dev`?
    Dev(dev::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().question {
        Question::Delta(args) => delta::run(&args),
        Question::Dev(args) => dev::run(&args),
    }
}
