//! The `patchwire-agent` binary.

use std::process::ExitCode;

use clap::Parser;
use patchwire_agent::cli::Cli;

fn main() -> ExitCode {
    patchwire_agent::main(Cli::parse(), &["guard"])
}
