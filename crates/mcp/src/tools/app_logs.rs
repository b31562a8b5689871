//! `app_logs`: what the app printed.

use std::collections::VecDeque;

use anyhow::anyhow;
use patchwire_client::{ClientError, LogStream, report::LogLineReport};
use patchwire_protocol::{
    limits,
    message::status::{LogLine, LogsRequest},
};
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::Outcome;
use crate::{
    failure::Failure,
    output,
    server::roots::{Roots, Target},
};

pub(crate) const NAME: &str = "app_logs";

/// How many lines are given where the call doesn't say, and at most.
const LINES: u32 = 100;
const MAX_LINES: u32 = 1000;

/// How many bytes of lines are given: what a model can read beside everything else.
const MAX_BYTES: usize = 64 << 10;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// The project's directory, absolute or relative to the server's. Default: the server's own root
    root: Option<String>,
    /// The app's name, to make sure of it: it has to be the one of the root's link
    app: Option<String>,
    /// The deployment's name, to make sure of it: it has to be the one of the root's link
    deployment: Option<String>,
    /// How many of the last lines
    #[schemars(range(min = 1, max = MAX_LINES), extend("default" = LINES))]
    lines: Option<u32>,
}

/// What the app printed.
#[derive(Debug, JsonSchema, Serialize)]
struct LogsReport {
    /// The last lines, oldest first.
    lines: Vec<LogLineReport>,
    /// How many of the lines asked for are left out before those, to keep the result short.
    left_out: u64,
}

pub(crate) fn definition() -> Tool {
    let annotations = ToolAnnotations::new()
        .read_only(true)
        .destructive(false)
        .idempotent(true)
        .open_world(false);
    super::definition::<Arguments, LogsReport>(
        NAME,
        "App logs",
        "Shows the last lines that the app printed, on standard output and standard error.",
        annotations,
    )
}

pub(crate) async fn call(roots: &Roots, arguments: JsonObject) -> Result<Outcome, Failure> {
    let arguments: Arguments = super::parse(arguments)?;
    let lines = arguments.lines.unwrap_or(LINES);
    if !(1..=MAX_LINES).contains(&lines) {
        return Err(Failure::usage(anyhow!(
            "the argument “lines”: {lines} is not between 1 and {MAX_LINES}"
        )));
    }
    let (_, connection) = roots.find(Target {
        root: arguments.root.as_deref(),
        app: arguments.app.as_deref(),
        deployment: arguments.deployment.as_deref(),
    })?;
    let request = LogsRequest {
        lines,
        follow: false,
    };
    let stream = connection.client.logs(request).await?;
    let kept = timeout(limits::STALL, read(stream, lines))
        .await
        .unwrap_or(Err(ClientError::Lost { source: None }))?;
    let report = LogsReport {
        lines: kept.lines.iter().map(LogLineReport::from).collect(),
        left_out: kept.left_out,
    };
    let mut text = human(&kept);
    text.extend(connection.keeper.take_note().map(output::warning));
    Ok(Outcome::new(text, &report, false))
}

/// The last lines that fit.
#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<LogLine>,
    bytes: usize,
    left_out: u64,
}

impl Kept {
    fn put(&mut self, line: LogLine) {
        self.bytes += line.text.len();
        self.lines.push_back(line);
        while self.bytes > MAX_BYTES
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.text.len();
            self.left_out += 1;
        }
    }
}

/// Reads as many lines as were asked for: an agent may go on for ever.
async fn read(mut stream: LogStream, lines: u32) -> Result<Kept, ClientError> {
    let mut kept = Kept::default();
    let mut left = usize::try_from(lines).unwrap_or(usize::MAX);
    while left > 0
        && let Some(mut lines) = stream.next().await?
    {
        lines.truncate(left);
        left -= lines.len();
        lines.into_iter().for_each(|line| kept.put(line));
    }
    Ok(kept)
}

fn human(kept: &Kept) -> String {
    let mut said = match (kept.left_out, kept.lines.len()) {
        (0, 0) => "the app has printed nothing yet\n".to_owned(),
        (0, _) => String::new(),
        (left_out, _) => format!(
            "({left_out} earlier lines are left out: these are the last {} KiB)\n",
            MAX_BYTES >> 10
        ),
    };
    for line in &kept.lines {
        said.push_str(&output::log_line(line));
        said.push('\n');
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine {
            at_ms: 0,
            stderr: false,
            text: text.as_bytes().to_vec(),
        }
    }

    #[test]
    fn the_newest_lines_that_fit_are_kept_and_the_rest_counted() {
        let mut kept = Kept::default();
        let long = "x".repeat(limits::LOG_LINE);
        for _ in 0..20 {
            kept.put(line(&long));
        }
        kept.put(line("newest"));
        assert_eq!(kept.lines.len(), 16);
        assert_eq!(kept.left_out, 5);
        assert_eq!(kept.lines.back().unwrap().text, b"newest");
        assert!(kept.bytes <= MAX_BYTES);
        assert!(human(&kept).starts_with("(5 earlier lines are left out"));
        assert!(human(&kept).ends_with("x\nnewest\n"));
    }

    #[test]
    fn no_lines_are_said_to_be_none() {
        assert_eq!(human(&Kept::default()), "the app has printed nothing yet\n");
    }
}
