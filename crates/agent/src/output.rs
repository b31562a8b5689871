//! What the app wrote lately: a bounded ring of lines that any number of followers read.
//!
//! The app is never slowed by a reader: a follower that falls behind misses lines, and sees that
//! it did by their sequence numbers.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use patchwire_protocol::limits;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::watch,
};

/// The most lines that are kept.
pub const RING_LINES: usize = 10_000;

/// The most bytes of text that are kept.
pub const RING_BYTES: usize = 4 << 20;

/// How many lines a follower takes at once.
const FOLLOW_LINES: usize = 256;

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The standard output.
    Stdout,
    /// The standard error.
    Stderr,
}

/// One line of the app's output, or a piece of one that is longer than [`limits::LOG_LINE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its place among all lines since the agent started: 1, 2, 3, …
    pub sequence: u64,
    /// Where it was written to.
    pub stream: Stream,
    /// When it was complete, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its bytes without the newline, at most [`limits::LOG_LINE`].
    pub text: Arc<[u8]>,
}

/// The last lines of the app's output, at most [`RING_LINES`] and [`RING_BYTES`].
#[derive(Debug)]
pub struct OutputRing {
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Line>,
    bytes: usize,
    /// What came after the last newline, per stream.
    partial: [Vec<u8>; 2],
}

impl Default for OutputRing {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            newest: watch::Sender::new(0),
        }
    }
}

impl OutputRing {
    /// Takes in bytes that were written at `at_ms`, milliseconds since 1970.
    pub fn push(&self, stream: Stream, bytes: &[u8], at_ms: u64) {
        let mut ring = self.lock();
        let mut partial = std::mem::take(&mut ring.partial[stream as usize]);
        let mut newest = self.newest();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (part, ended) = match part.strip_suffix(b"\n") {
                Some(part) => (part, true),
                None => (part, false),
            };
            partial.extend_from_slice(part);
            while partial.len() > limits::LOG_LINE {
                let rest = partial.split_off(limits::LOG_LINE);
                newest += 1;
                ring.add(newest, stream, at_ms, &partial);
                partial = rest;
            }
            if ended {
                newest += 1;
                let text = partial.strip_suffix(b"\r").unwrap_or(&partial);
                ring.add(newest, stream, at_ms, text);
                partial.clear();
            }
        }
        ring.partial[stream as usize] = partial;
        self.announce(newest);
    }

    /// Makes lines of what was written without a newline at its end.
    pub fn flush(&self, at_ms: u64) {
        let mut ring = self.lock();
        let mut newest = self.newest();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let partial = std::mem::take(&mut ring.partial[stream as usize]);
            if !partial.is_empty() {
                newest += 1;
                ring.add(newest, stream, at_ms, &partial);
            }
        }
        self.announce(newest);
    }

    /// The sequence number of the newest line, 0 if there was none. It serves as a mark: what
    /// comes later is [`Self::since`] it.
    #[must_use]
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// The last `count` lines that came after the mark `since`, oldest first.
    #[must_use]
    pub fn tail(&self, since: u64, count: usize) -> Vec<Line> {
        let ring = self.lock();
        let start = ring
            .after(since)
            .max(ring.lines.len().saturating_sub(count));
        ring.lines.range(start..).cloned().collect()
    }

    /// The first `count` lines after the one with the number `sequence`, oldest first.
    ///
    /// If the first of them isn't `sequence + 1`, those between were lost.
    #[must_use]
    pub fn since(&self, sequence: u64, count: usize) -> Vec<Line> {
        let ring = self.lock();
        let lines = ring.lines.range(ring.after(sequence)..);
        lines.take(count).cloned().collect()
    }

    /// Returns a receiver that sees the number of the newest line change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Writes every line after the mark `since` to `stdout` or `stderr`, whichever it came from,
    /// and then to `written` how far it has come. Returns only when a write fails.
    pub async fn forward(
        &self,
        mut since: u64,
        mut stdout: impl AsyncWrite + Unpin,
        mut stderr: impl AsyncWrite + Unpin,
        written: &watch::Sender<u64>,
    ) -> io::Error {
        let mut write = async || {
            let mut newest = self.subscribe();
            loop {
                // Marked as seen before the lines are taken: what comes later wakes us again.
                newest.borrow_and_update();
                let lines = self.since(since, FOLLOW_LINES);
                for line in &lines {
                    let lost = line.sequence - since - 1;
                    since = line.sequence;
                    if lost > 0 {
                        let note = format!("[{lost} lines of the app's output left out]\n");
                        stderr.write_all(note.as_bytes()).await?;
                    }
                    let text = [&line.text, b"\n".as_slice()].concat();
                    match line.stream {
                        Stream::Stdout => stdout.write_all(&text).await?,
                        Stream::Stderr => stderr.write_all(&text).await?,
                    }
                }
                stdout.flush().await?;
                stderr.flush().await?;
                written.send_replace(since);
                if lines.is_empty() && newest.changed().await.is_err() {
                    // The sender is ours, and we are still here.
                    return std::future::pending::<io::Result<Never>>().await;
                }
            }
        };
        match write().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn announce(&self, newest: u64) {
        self.newest.send_if_modified(|seen| {
            let more = *seen != newest;
            *seen = newest;
            more
        });
    }

    /// A thread that panicked has left a ring that is still one: nothing in here can stop halfway.
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Never {}

impl Ring {
    fn add(&mut self, sequence: u64, stream: Stream, at_ms: u64, text: &[u8]) {
        self.bytes += text.len();
        self.lines.push_back(Line {
            sequence,
            stream,
            at_ms,
            text: text.into(),
        });
        while self.lines.len() > RING_LINES || self.bytes > RING_BYTES {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= oldest.text.len();
        }
    }

    /// The index of the first line after the one with this number.
    fn after(&self, sequence: u64) -> usize {
        self.lines.partition_point(|line| line.sequence <= sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Line]) -> Vec<String> {
        let text = |line: &Line| String::from_utf8_lossy(&line.text).into_owned();
        lines.iter().map(text).collect()
    }

    #[test]
    fn lines_are_put_together_per_stream() {
        let ring = OutputRing::default();
        ring.push(Stream::Stdout, b"on", 1);
        ring.push(Stream::Stderr, b"two\r\nfo", 2);
        ring.push(Stream::Stdout, b"e\n\nthree", 3);
        assert_eq!(texts(&ring.since(0, 9)), ["two", "one", ""]);
        ring.flush(4);
        ring.flush(5);
        let lines = ring.since(3, 9);
        assert_eq!(texts(&lines), ["three", "fo"]);
        assert_eq!(
            (lines[1].sequence, lines[1].stream, lines[1].at_ms),
            (5, Stream::Stderr, 4)
        );
    }

    #[test]
    fn long_lines_are_cut_and_a_full_one_is_not_followed_by_an_empty_one() {
        let ring = OutputRing::default();
        let long = "x".repeat(limits::LOG_LINE);
        ring.push(Stream::Stdout, format!("{long}\n{long}yy\n").as_bytes(), 0);
        assert_eq!(texts(&ring.since(0, 9)), [&long, &long, "yy"]);
        ring.push(Stream::Stdout, &[b'z'; 3 * limits::LOG_LINE + 1], 0);
        assert_eq!(ring.newest(), 6, "no newline, and yet nothing piles up");
    }

    #[test]
    fn the_ring_is_bounded_in_lines_and_in_bytes() {
        let ring = OutputRing::default();
        ring.push(Stream::Stdout, &b"\n".repeat(RING_LINES + 7), 0);
        let first = &ring.since(0, 1)[0];
        assert_eq!(first.sequence, 8);

        let line = [&[b'x'; limits::LOG_LINE], b"\n".as_slice()].concat();
        for _ in 0..2 * RING_BYTES / limits::LOG_LINE {
            ring.push(Stream::Stdout, &line, 0);
        }
        let lines = ring.tail(0, usize::MAX);
        let bytes: usize = lines.iter().map(|line| line.text.len()).sum();
        assert_eq!(bytes, RING_BYTES);
    }

    #[test]
    fn a_mark_divides_what_came_before() {
        let ring = OutputRing::default();
        ring.push(Stream::Stdout, b"old\n", 0);
        let mark = ring.newest();
        assert!(ring.tail(mark, 9).is_empty());
        ring.push(Stream::Stderr, b"a\nb\nc\n", 0);
        assert_eq!(texts(&ring.tail(mark, 9)), ["a", "b", "c"]);
        assert_eq!(texts(&ring.tail(mark, 2)), ["b", "c"]);
        assert_eq!(texts(&ring.since(mark, 2)), ["a", "b"]);
    }

    #[tokio::test]
    async fn lines_are_forwarded_as_they_come_and_losses_are_told() {
        let ring = OutputRing::default();
        ring.push(Stream::Stdout, b"before\n", 0);
        let (mut out, mut err, written) = (Vec::new(), Vec::new(), watch::Sender::new(0));
        let mut progress = written.subscribe();
        let write = async {
            ring.push(Stream::Stdout, b"one\n", 0);
            progress.wait_for(|written| *written == 2).await.unwrap();
            ring.push(Stream::Stderr, b"two\n", 0);
            progress.wait_for(|written| *written == 3).await.unwrap();
            // More than the ring holds, before the follower can run again.
            ring.push(Stream::Stdout, &b"\n".repeat(RING_LINES + 5), 0);
            let last = ring.newest();
            progress.wait_for(|written| *written == last).await.unwrap();
        };
        tokio::select! {
            error = ring.forward(1, &mut out, &mut err, &written) => panic!("{error}"),
            () = write => {}
        }
        assert_eq!(out.len(), 4 + RING_LINES);
        assert_eq!(
            str::from_utf8(&err).unwrap(),
            "two\n[5 lines of the app's output left out]\n"
        );
    }
}
