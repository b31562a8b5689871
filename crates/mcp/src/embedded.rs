//! The relay and the agent inside this binary, so that `demo` and `dev` run three real processes of
//! it.
//!
//! They have their own command lines, which share no option with the developer's: the first
//! arguments decide, before those are looked at.

use std::{ffi::OsString, io, iter, process::ExitCode, thread};

use clap::Parser;
use rustix::process::{Signal, getpid, kill_process};

/// The first argument that makes this binary a relay.
pub(crate) const RELAY: &str = "relay";

/// The first argument that makes this binary an agent.
pub(crate) const AGENT: &str = "agent";

/// The argument before those with which the program ends once its standard input does: so it ends
/// with the process that started it, also where that is killed.
pub(crate) const HELD: &str = "held";

/// Another program inside this one.
#[derive(Debug)]
pub(crate) struct Embedded {
    program: Program,
    held: bool,
}

#[derive(Debug)]
enum Program {
    Relay(Box<patchwire_relay::Args>),
    Agent(patchwire_agent::cli::Cli),
}

impl Embedded {
    /// The program that the arguments ask for, if it isn't the developer's own. Ends the process
    /// where it is one and its arguments can't be understood.
    pub(crate) fn requested(arguments: &[OsString]) -> Option<Self> {
        let arguments = arguments.get(1..)?;
        let held = arguments.first().is_some_and(|first| first == HELD);
        let (first, rest) = arguments[usize::from(held)..].split_first()?;
        let named = |name: &str| {
            iter::once(OsString::from(format!("patchwire {name}"))).chain(rest.iter().cloned())
        };
        let program = match first.to_str()? {
            RELAY => Program::Relay(Box::new(Parser::parse_from(named(RELAY)))),
            AGENT => Program::Agent(Parser::parse_from(named(AGENT))),
            _ => return None,
        };
        Some(Self { program, held })
    }

    pub(crate) fn run(self) -> ExitCode {
        if self.held {
            thread::spawn(end_with_stdin);
        }
        match self.program {
            Program::Relay(args) => patchwire_relay::main(*args),
            Program::Agent(cli) => patchwire_agent::main(cli, &[AGENT, "guard"]),
        }
    }
}

/// Waits for the end of standard input, and ends this process as a person would.
fn end_with_stdin() {
    // An error is an end as well.
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    let _ = kill_process(getpid(), Signal::TERM);
}
