//! The `patchwire-relay` binary.

use std::process::ExitCode;

use clap::Parser;
use patchwire_relay::Args;

fn main() -> ExitCode {
    patchwire_relay::main(Args::parse())
}
