//! The binary `patchwire-relay`.

use std::{io, process::ExitCode};

use anyhow::Error;
use clap::Parser;
use patchwire_relay::{Args, run};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    args.start_logging();
    let (code, error): (u8, Error) = match (args.into_config(), shutdown_signal()) {
        (Ok(config), Ok(shutdown)) => match run(config, shutdown).await {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (1, error.into()),
        },
        (Err(error), _) => (2, error.into()),
        (_, Err(error)) => (1, error.into()),
    };
    tracing::error!("{error:#}");
    code.into()
}

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
