//! `patchwire status`.

use std::process::ExitCode;

use patchwire_client::report::StatusReport;

use crate::{cli::Status, context::Context, failure::Failure, output};

pub(crate) async fn run(context: &Context, status: &Status) -> Result<ExitCode, Failure> {
    let client = context.client(&context.project()?)?;
    let status_now = client.status().await;
    client.close().await;
    let report = StatusReport::from(status_now?);
    match status.json {
        true => output::json(&report),
        false => output::text(&output::status::human(&report)),
    }
    Ok(ExitCode::SUCCESS)
}
