//! The relay and the agent inside this binary, so that `demo` runs three real processes of it.
//!
//! They have their own command lines, which share no option with the developer's: the first
//! argument decides, before those are looked at.

use std::{ffi::OsString, iter, process::ExitCode};

use clap::Parser;

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
