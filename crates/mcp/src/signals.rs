//! What tells a command to end.

use std::{future::poll_fn, task::Poll};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// Signals that don't end the program by themselves any more.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(u8, Signal)>);

impl Signals {
    /// Those that people and their tools end a program with.
    pub(crate) fn to_end() -> Result<Self, Failure> {
        Self::new(&[SignalKind::interrupt(), SignalKind::terminate()])
    }

    /// The same, and that its terminal is gone.
    pub(crate) fn to_end_or_hang_up() -> Result<Self, Failure> {
        Self::new(&[
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::terminate(),
        ])
    }

    fn new(kinds: &[SignalKind]) -> Result<Self, Failure> {
        let heard = kinds.iter().map(|kind| {
            // What shells make of a program that a signal ended.
            let exit_code = u8::try_from(128 + kind.as_raw_value()).unwrap_or(u8::MAX);
            Ok((exit_code, signal(*kind)?))
        });
        heard
            .collect::<std::io::Result<_>>()
            .map(Self)
            .map_err(|error| Failure::failed("signals", error))
    }

    /// The exit status of a program that ends for the next one. Cancel safe.
    pub(crate) async fn next(&mut self) -> u8 {
        poll_fn(|context| {
            for (exit_code, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*exit_code);
                }
            }
            Poll::Pending
        })
        .await
    }
}
