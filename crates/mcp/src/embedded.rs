//! The relay and the agent inside this binary, so that `demo` runs three real processes of it.
//!
//! They have their own command lines, which share no option with the developer's: the first
//! argument decides, before those are looked at.

use std::{ffi::OsString, io, iter, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// The first argument that makes this binary a relay.
pub(crate) const RELAY: &str = "relay";

/// The first argument that makes this binary an agent.
pub(crate) const AGENT: &str = "agent";

/// Another program inside this one.
#[derive(Debug)]
pub(crate) enum Program {
    Relay(Box<patchwire_relay::Args>),
    Agent(patchwire_agent::cli::Cli),
}

impl Program {
    /// The program that the arguments ask for, if it isn't the developer's own. Ends the process
    /// where it is one and its arguments can't be understood.
    pub(crate) fn requested(arguments: &[OsString]) -> Option<Self> {
        let (first, rest) = arguments.get(1..)?.split_first()?;
        let named = |name: &str| {
            iter::once(OsString::from(format!("patchwire {name}"))).chain(rest.iter().cloned())
        };
        match first.to_str()? {
            RELAY => Some(Self::Relay(Box::new(Parser::parse_from(named(RELAY))))),
            AGENT => Some(Self::Agent(Parser::parse_from(named(AGENT)))),
            _ => None,
        }
    }

    pub(crate) fn run(self) -> ExitCode {
        match self {
            Self::Relay(args) => patchwire_relay::main(*args),
            Self::Agent(cli) => patchwire_agent::main(cli, &[AGENT, "guard"]),
        }
    }
}

/// Resolves when the process is told to end.
pub(crate) fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
