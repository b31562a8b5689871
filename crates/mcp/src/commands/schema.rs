//! `patchwire schema`: the schema of the configuration file.

use std::process::ExitCode;

use patchwire_client::config::schema::schema;

use crate::output;

pub(crate) fn run() -> ExitCode {
    // With an alternate form, a value is written over several lines.
    output::line(&format!("{:#}", schema()));
    ExitCode::SUCCESS
}
