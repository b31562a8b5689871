//! What a command that goes on says as things happen, written by a thread of its own.
//!
//! A terminal that is stopped (Ctrl+S) or slow holds up that thread alone: neither the work nor its
//! end.

use std::{fmt, thread, time::Duration};

use patchwire_client::Progress;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    time::timeout,
};

use crate::progress::PushProgress;

/// How many texts of either kind may wait to be written.
const WAITING: usize = 1024;

/// How long the last of them may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes something. `false` once nothing is to be written any more.
type Write = Box<dyn FnOnce() -> bool + Send>;

/// Where texts are given to be written, one after the other, beside how far a push is.
pub(crate) struct Writer {
    ours: mpsc::Sender<Write>,
    others: mpsc::Sender<Write>,
    /// Not in the queue: the newest alone counts.
    progress: watch::Sender<Option<Progress>>,
    written: watch::Receiver<()>,
}

/// Where texts are given that can wait. It ends with what gives them.
#[derive(Clone)]
pub(crate) struct Others {
    others: mpsc::Sender<Write>,
    progress: watch::Sender<Option<Progress>>,
}

impl Writer {
    /// Begins to write.
    pub(crate) fn new(quiet: bool) -> Self {
        let (ours, our_texts) = mpsc::channel(WAITING);
        let (others, other_texts) = mpsc::channel(WAITING);
        let (progress, steps) = watch::channel(None);
        let (writing, written) = watch::channel(());
        let runtime = Handle::current();
        thread::spawn(move || {
            let shown = Shown {
                quiet,
                steps,
                progress: None,
            };
            runtime.block_on(shown.write(our_texts, other_texts));
            drop(writing);
        });
        Self {
            ours,
            others,
            progress,
            written,
        }
    }

    /// Writes this before what comes from elsewhere.
    pub(crate) fn write(&self, write: impl FnOnce() -> bool + Send + 'static) {
        // Full, it holds more than anyone will read.
        let _ = self.ours.try_send(Box::new(write));
    }

    /// Where to give texts that can wait until there is room for them.
    pub(crate) fn others(&self) -> Others {
        Others {
            others: self.others.clone(),
            progress: self.progress.clone(),
        }
    }

    /// Shows how far a push is.
    pub(crate) fn progress(&self, step: Progress) {
        self.progress.send_replace(Some(step));
    }

    /// Shows that no more: not beside anything that is given to be written after this.
    pub(crate) fn end_progress(&self) {
        self.progress.send_replace(None);
    }

    /// Resolves when nothing is written any more.
    pub(crate) async fn closed(&self) {
        // It never changes.
        let _ = self.written.clone().changed().await;
    }

    /// Waits until all is written: what comes from elsewhere, too, which has ended by now.
    pub(crate) async fn end(self) {
        let Self {
            ours,
            others,
            progress,
            mut written,
        } = self;
        progress.send_replace(None);
        drop((ours, others, progress));
        let _ = timeout(PATIENCE, written.changed()).await;
    }
}

impl Others {
    /// Writes this once there is room. `false` if nothing is written any more.
    pub(crate) async fn write(&self, write: impl FnOnce() -> bool + Send + 'static) -> bool {
        self.others.send(Box::new(write)).await.is_ok()
    }

    /// See [`Writer::end_progress`].
    pub(crate) fn end_progress(&self) {
        self.progress.send_replace(None);
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// What stands there, on the thread that writes.
struct Shown {
    quiet: bool,
    steps: watch::Receiver<Option<Progress>>,
    /// Drawing blocks, as writing does, and so does all else while it draws.
    progress: Option<PushProgress>,
}

impl Shown {
    /// Writes texts until there are no more, or nobody reads them.
    async fn write(mut self, mut ours: mpsc::Receiver<Write>, mut others: mpsc::Receiver<Write>) {
        loop {
            let write = tokio::select! {
                biased;
                Ok(()) = self.steps.changed() => {
                    self.step();
                    continue;
                }
                Some(write) = ours.recv() => write,
                Some(write) = others.recv() => write,
                else => break,
            };
            // One that came while the last text was written.
            self.step();
            let goes_on = match &self.progress {
                Some(progress) => progress.beside(write),
                None => write(),
            };
            if !goes_on {
                break;
            }
        }
        if let Some(progress) = self.progress {
            progress.end();
        }
    }

    fn step(&mut self) {
        // Copied: while it is borrowed, telling of the next one waits.
        let step = *self.steps.borrow_and_update();
        match step {
            Some(step) => {
                let progress = &mut self.progress;
                let progress = progress.get_or_insert_with(|| PushProgress::new(self.quiet));
                progress.show(step);
            }
            None => {
                if let Some(progress) = self.progress.take() {
                    progress.end();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc::sync_channel};

    use super::*;

    #[tokio::test]
    async fn a_terminal_that_is_stopped_holds_up_nothing_and_the_order_stays() {
        let writer = Writer::new(true);
        let written = Arc::new(Mutex::new(Vec::new()));
        let text = |text: usize| {
            let written = Arc::clone(&written);
            move || {
                written.lock().unwrap().push(text);
                true
            }
        };
        let (stopped, is_stopped) = sync_channel(0);
        let (go_on, goes_on) = sync_channel::<()>(0);
        writer.write(move || {
            stopped.send(()).unwrap();
            goes_on.recv().is_ok()
        });
        is_stopped.recv().unwrap();
        // It is being written; more than there is room for comes after it.
        let others = writer.others();
        assert!(others.write(text(WAITING)).await);
        for number in 0..WAITING + 10 {
            writer.progress(Progress::Connecting);
            writer.write(text(number));
        }
        writer.end_progress();
        drop(others);
        go_on.send(()).unwrap();
        let mut all_written = writer.written.clone();
        writer.end().await;
        assert!(all_written.changed().await.is_err());
        // Those of ours that had room, then the other.
        assert_eq!(*written.lock().unwrap(), Vec::from_iter(0..=WAITING));
    }

    #[tokio::test]
    async fn it_ends_when_nobody_reads() {
        let writer = Writer::new(true);
        let others = writer.others();
        others.write(|| false).await;
        writer.closed().await;
        assert!(!others.write(|| true).await);
    }
}
