//! What `dev` shows: the app's lines as they come, and our own beside them.
//!
//! A thread of its own writes, one line after the other. A terminal that is stopped (Ctrl+S) or slow
//! holds up the app's lines, which the agent keeps or leaves out, but neither pushes nor the end.

use std::{thread, time::Duration};

use patchwire_client::Progress;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    runtime::Handle,
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    output::dev::{self, Places, Stream},
    progress::PushProgress,
};

/// How many lines of either kind may wait to be written.
const LINES: usize = 1024;

/// The longest piece of a line that is written at once.
const MAX_LINE: u64 = 64 << 10;

/// How long the last lines may take to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where lines are given to be written.
#[derive(Debug)]
pub(super) struct Screen {
    ours: mpsc::Sender<String>,
    app: mpsc::Sender<(Stream, Vec<u8>)>,
    progress: PushProgress,
    written: watch::Receiver<()>,
    quiet: bool,
}

impl Screen {
    /// Begins to write.
    pub(super) fn new(quiet: bool, places: Places) -> Self {
        let (ours, our_lines) = mpsc::channel(LINES);
        let (app, app_lines) = mpsc::channel(LINES);
        let (writing, written) = watch::channel(());
        let progress = PushProgress::new(quiet);
        let runtime = Handle::current();
        thread::spawn({
            let progress = progress.clone();
            move || {
                runtime.block_on(write(our_lines, app_lines, &progress, &places));
                drop(writing);
            }
        });
        Self {
            ours,
            app,
            progress,
            written,
            quiet,
        }
    }

    /// Says something that is to be known.
    pub(super) fn say(&self, text: &str) {
        for line in text.lines() {
            // Full, it holds more than anyone will read.
            let _ = self.ours.try_send(line.to_owned());
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
        self.progress.show(step);
    }

    /// Shows that no more.
    pub(super) fn end_progress(&self) {
        self.progress.end();
    }

    /// Writes the lines of a pipe until it ends.
    pub(super) fn pass(&self, stream: Stream, pipe: impl AsyncRead + Unpin + Send + 'static) {
        let app = self.app.clone();
        tokio::spawn(async move {
            let mut pipe = BufReader::new(pipe);
            loop {
                let mut line = Vec::new();
                let read = (&mut pipe)
                    .take(MAX_LINE)
                    .read_until(b'\n', &mut line)
                    .await;
                if !matches!(read, Ok(1..)) || app.send((stream, line)).await.is_err() {
                    break;
                }
            }
        });
    }

    /// Resolves when nobody reads any more.
    pub(super) async fn closed(&self) {
        // It never changes.
        let _ = self.written.clone().changed().await;
    }

    /// Waits until all is written: what comes from the pipes, too, which have ended by now.
    pub(super) async fn end(self) {
        let Self {
            ours,
            app,
            mut written,
            ..
        } = self;
        drop((ours, app));
        let _ = timeout(PATIENCE, written.changed()).await;
    }
}

/// Writes lines until there are no more, or nobody reads them.
async fn write(
    mut ours: mpsc::Receiver<String>,
    mut app: mpsc::Receiver<(Stream, Vec<u8>)>,
    progress: &PushProgress,
    places: &Places,
) {
    loop {
        let goes_on = tokio::select! {
            biased;
            Some(line) = ours.recv() => {
                progress.beside(|| dev::our_line(&line));
                true
            }
            Some((stream, line)) = app.recv() => {
                progress.end();
                dev::app_line(stream, &line, places)
            }
            else => false,
        };
        if !goes_on {
            return;
        }
    }
}
