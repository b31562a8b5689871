//! From arguments to an exit status, for every binary that has the relay in it.

use std::{io, process::ExitCode};

use anyhow::Error;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use crate::{config::Args, server::run};

/// Runs a relay until the process is told to end.
#[must_use]
pub fn main(args: Args) -> ExitCode {
    args.start_logging();
    let config = match args.into_config() {
        Ok(config) => config,
        Err(error) => return fail(&error.into(), 2),
    };
    let ran = Runtime::new()
        .map_err(Error::from)
        .and_then(|runtime| runtime.block_on(async { Ok(run(config, shutdown_signal()?).await?) }));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &Error, status: u8) -> ExitCode {
    tracing::error!("{error:#}");
    status.into()
}

/// Resolves when the process is told to end.
fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
