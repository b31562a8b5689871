//! `patchwire logs`.

use std::process::ExitCode;

use patchwire_protocol::message::status::LogsRequest;

use crate::{cli::Logs, context::Context, failure::Failure, output};

pub(crate) async fn run(context: &Context, logs: &Logs) -> Result<ExitCode, Failure> {
    let client = context.client(&context.project()?)?;
    let request = LogsRequest {
        lines: logs.lines,
        follow: logs.follow,
    };
    let mut stream = client.logs(request).await?;
    while let Some(lines) = stream.next().await? {
        let reading = match logs.json {
            true => output::log_lines_as_json(&lines),
            false => output::log_lines(&lines),
        };
        if !reading {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}
