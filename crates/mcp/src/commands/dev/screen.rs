//! What `dev` shows: the app's lines as they come, and our own beside them.
//!
//! A terminal that is stopped (Ctrl+S) or slow holds up the app's lines, which the agent keeps or
//! leaves out, but neither pushes nor the end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use patchwire_client::Progress;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::{
    output::dev::{self, Places, Stream},
    writer::Writer,
};

/// The longest piece of a line that is written at once.
const MAX_LINE: u64 = 64 << 10;

/// Where lines are given to be written.
#[derive(Debug)]
pub(super) struct Screen {
    writer: Writer,
    places: Arc<Places>,
    /// Whether there is something else to see by now than how far a push is.
    runs: Arc<AtomicBool>,
    quiet: bool,
}

impl Screen {
    /// Begins to write.
    pub(super) fn new(quiet: bool, places: Places) -> Self {
        Self {
            writer: Writer::new(quiet),
            places: Arc::new(places),
            runs: Arc::default(),
            quiet,
        }
    }

    /// Says something that is to be known.
    pub(super) fn say(&self, text: &str) {
        for line in text.lines() {
            let line = line.to_owned();
            self.writer.write(move || {
                dev::our_line(&line);
                true
            });
        }
    }

    /// Says something that is good to know.
    pub(super) fn mention(&self, text: &str) {
        if !self.quiet {
            self.say(text);
        }
    }

    /// Shows how far a push is, until the first has ended or the app has written something.
    pub(super) fn progress(&self, step: Progress) {
        if !self.runs.load(Ordering::Relaxed) {
            self.writer.progress(step);
        }
    }

    /// Shows that no more.
    pub(super) fn end_progress(&self) {
        self.runs.store(true, Ordering::Relaxed);
        self.writer.end_progress();
    }

    /// Writes the lines of a pipe until it ends.
    pub(super) fn pass(&self, stream: Stream, pipe: impl AsyncRead + Unpin + Send + 'static) {
        let (places, runs) = (Arc::clone(&self.places), Arc::clone(&self.runs));
        let writer = self.writer.others();
        tokio::spawn(async move {
            let mut pipe = BufReader::new(pipe);
            loop {
                let mut line = Vec::new();
                let read = (&mut pipe)
                    .take(MAX_LINE)
                    .read_until(b'\n', &mut line)
                    .await;
                if !matches!(read, Ok(1..)) {
                    break;
                }
                if !runs.swap(true, Ordering::Relaxed) {
                    writer.end_progress();
                }
                let places = Arc::clone(&places);
                let write = move || dev::app_line(stream, &line, &places);
                if !writer.write(write).await {
                    break;
                }
            }
        });
    }

    /// Resolves when nobody reads any more.
    pub(super) async fn closed(&self) {
        self.writer.closed().await;
    }

    /// Waits until all is written: what comes from the pipes, too, which have ended by now.
    pub(super) async fn end(self) {
        self.writer.end().await;
    }
}
