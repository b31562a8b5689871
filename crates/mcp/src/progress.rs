//! What moves on standard error while a person waits: nothing where that is no terminal.

use std::{
    io::{Read, Write},
    time::Duration,
};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use patchwire_client::Progress;
use patchwire_protocol::message::push::Phase;

/// How far a push is.
#[derive(Debug)]
pub(crate) struct PushProgress(ProgressBar);

impl PushProgress {
    pub(crate) fn new(quiet: bool) -> Self {
        let spinner = ProgressBar::with_draw_target(None, target(quiet))
            .with_style(ProgressStyle::default_spinner());
        if !spinner.is_hidden() {
            spinner.enable_steady_tick(Duration::from_millis(100));
        }
        Self(spinner)
    }

    pub(crate) fn show(&self, step: Progress) {
        self.0.set_message(words(step));
    }

    /// Writes something where it would be in the way.
    pub(crate) fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.0.suspend(write)
    }

    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// How far a push is, in words.
pub(crate) fn words(step: Progress) -> String {
    match step {
        Progress::Scanning { entries, files } => match files {
            (read, to_read) if to_read > 0 => format!("reading {read} of {to_read} files"),
            _ => format!("scanning: {entries} entries"),
        },
        Progress::Connecting => "connecting".to_owned(),
        Progress::Sending { sent } => format!("sending: {}", HumanBytes(sent)),
        Progress::Agent(phase) => match phase {
            Phase::Queued => "waiting for another push to end",
            Phase::Staging => "the agent builds the files",
            Phase::Committing => "the agent exchanges the tree",
            Phase::Reloading => "the app reloads",
            Phase::RollingBack => "not ready: the previous tree comes back",
        }
        .to_owned(),
    }
}

/// How much of a file is read or written.
#[derive(Clone, Debug)]
pub(crate) struct FileProgress(ProgressBar);

impl FileProgress {
    /// A bar for a file of this length, where that is known.
    pub(crate) fn new(quiet: bool, len: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(len, target(quiet));
        let template = match len {
            Some(_) => "{wide_bar} {bytes} of {total_bytes}, {eta} left",
            None => "{spinner} {bytes}",
        };
        Self(match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    /// Counts what is read from a reader.
    pub(crate) fn counting<R: Read>(&self, reader: R) -> impl Read + use<R> {
        self.0.wrap_read(reader)
    }

    /// Counts what is written to a writer.
    pub(crate) fn counting_writes<W: Write>(&self, writer: W) -> impl Write + use<W> {
        self.0.wrap_write(writer)
    }

    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// That something is done which doesn't say how far it is.
#[derive(Debug)]
pub(crate) struct WorkProgress(ProgressBar);

impl WorkProgress {
    pub(crate) fn new(quiet: bool, what: &'static str) -> Self {
        let spinner = ProgressBar::with_draw_target(None, target(quiet))
            .with_style(ProgressStyle::default_spinner())
            .with_message(what);
        if !spinner.is_hidden() {
            spinner.tick();
            spinner.enable_steady_tick(Duration::from_millis(100));
        }
        Self(spinner)
    }

    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}

fn target(quiet: bool) -> ProgressDrawTarget {
    match quiet {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    }
}
