//! `patchwire completions`: what a shell needs to complete the command line.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::{
    cli::{Cli, Completions},
    output,
};

pub(crate) fn run(completions: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(
        completions.shell,
        &mut Cli::command(),
        "patchwire",
        &mut script,
    );
    output::text(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}
