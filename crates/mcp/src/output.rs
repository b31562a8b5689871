//! Standard output, which nothing else writes to, and the last words on standard error.
//!
//! A reader that goes away (`patchwire logs | head`) is no failure: what it no longer reads is left
//! out, and the command ends as it would have.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use patchwire_client::report::LogLineReport;
use patchwire_protocol::message::status::LogLine;
use serde::Serialize;
use serde_json::json;

use crate::failure::Failure;

pub(crate) mod dev;
pub(crate) mod push;
pub(crate) mod status;
pub(crate) mod watch;
mod words;

pub(crate) use words::foreign;

/// Prints one line.
pub(crate) fn line(line: &str) {
    write(|out| writeln!(out, "{line}"));
}

/// Prints text that brings its own line ends.
pub(crate) fn text(text: &str) {
    write(|out| out.write_all(text.as_bytes()));
}

/// Prints a result for programs, on a line of its own.
pub(crate) fn json(value: &impl Serialize) {
    write(|out| write_json(out, value));
}

/// Prints lines of the app's output as they came, but for what could fool a terminal where they go
/// to one. `false` once nobody reads them.
pub(crate) fn log_lines(lines: &[LogLine]) -> bool {
    let terminal = io::stdout().is_terminal();
    write(|out| {
        lines.iter().try_for_each(|line| match terminal {
            true => writeln!(out, "{}", log_line(line)),
            false => {
                out.write_all(&line.text)?;
                out.write_all(b"\n")
            }
        })
    })
}

/// A line of the app's output without what could fool a terminal.
pub(crate) fn log_line(line: &LogLine) -> String {
    foreign(&String::from_utf8_lossy(&line.text))
}

/// Prints lines of the app's output for programs. `false` once nobody reads them.
pub(crate) fn log_lines_as_json(lines: &[LogLine]) -> bool {
    write(|out| {
        let mut lines = lines.iter().map(LogLineReport::from);
        lines.try_for_each(|line| write_json(out, &line))
    })
}

/// Says why a command failed, and what it ends with.
pub(crate) fn failure(failure: &Failure, json: bool) -> ExitCode {
    if json {
        print_error(failure.code, &failure.message());
    }
    aside(&format!("patchwire: {}", failure.message()));
    failure.exit_code.into()
}

/// What went wrong. It may repeat what the agent or the relay said.
pub(crate) fn failure_text(failure: &Failure) -> String {
    foreign_lines(&failure.message())
}

/// What is good to know beside a result. It may repeat what comes from elsewhere.
pub(crate) fn warning(message: impl AsRef<str>) -> String {
    let warning = console::style("warning").yellow();
    format!("{warning}: {}\n", foreign(message.as_ref()))
}

/// Says something that is no result. It may repeat what comes from elsewhere.
pub(crate) fn aside(message: &str) {
    complain(&(foreign_lines(message) + "\n"));
}

fn foreign_lines(message: &str) -> String {
    let lines: Vec<_> = message.lines().map(foreign).collect();
    lines.join("\n")
}

/// Prints help, or says why the arguments can't be understood.
pub(crate) fn usage(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() {
        // Help is printed as it is asked for, whatever becomes of it.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let message = without_secrets(&error.render().to_string());
    if json {
        print_error("usage", message.trim_end());
    }
    complain(&message);
    2.into()
}

fn print_error(code: &str, message: &str) {
    json(&json!({"error": {"code": code, "message": message}}));
}

fn write_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Writes and flushes. `false` if that failed, of which nothing but a closed pipe is worth a word.
fn write(print: impl FnOnce(&mut io::BufWriter<io::StdoutLock<'_>>) -> io::Result<()>) -> bool {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match print(&mut out).and_then(|()| out.flush()) {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                tracing::error!("can't write to standard output: {error}");
            }
            // The rest of the buffer has nowhere to go.
            let _ = out.into_parts();
            false
        }
    }
}

/// Says something beside the results, on standard error. It brings its own line ends.
pub(crate) fn complain(message: &str) {
    // Where standard error is closed, the exit status has to do.
    let _ = io::stderr().lock().write_all(message.as_bytes());
}

/// Leaves the secret part out of links that stand where they don't belong.
fn without_secrets(message: &str) -> String {
    let mut parts = message.split("#v1");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let secret = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
        shown.push_str("#…");
        shown.push_str(part.trim_start_matches(secret));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_among_wrong_arguments_is_not_repeated() {
        assert_eq!(
            without_secrets("unexpected 'patchwire://h:1/a/b#v1a.AQ_E-x.Ag' found, and '#v1.x'"),
            "unexpected 'patchwire://h:1/a/b#…' found, and '#…'"
        );
        assert_eq!(without_secrets("nothing here"), "nothing here");
    }
}
