//! The `patchwire` command line: what a developer types.
//!
//! It is a thin shell over `patchwire-client`. For `demo` and `dev` it starts itself again as a
//! relay and as an agent.

use std::{env, ffi::OsString, process::ExitCode};

use clap::Parser;

mod cli;
mod commands;
mod context;
mod embedded;
mod failure;
mod live;
mod local;
mod output;
mod progress;
mod server;
mod signals;
mod tools;
mod writer;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    if let Some(embedded) = embedded::Embedded::requested(&arguments) {
        return embedded.run();
    }
    match cli::Cli::try_parse_from(&arguments) {
        Ok(cli) => commands::run(cli),
        Err(error) => output::usage(&error, cli::asks_for_json(&arguments)),
    }
}
