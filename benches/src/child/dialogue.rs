//! A child that is spoken to in lines.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, bail};

use super::{Interruption, Running};

/// A child with a line of text for each thing that is said on its stdin and stdout, which ends with
/// this value.
#[derive(Debug)]
pub(crate) struct Dialogue {
    running: Running,
    stdin: ChildStdin,
    stdout: ChildStdout,
    received: VecDeque<u8>,
    interruption: Interruption,
}

impl Dialogue {
    pub(crate) fn start(mut command: Command, interruption: &Interruption) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start(command)?;
        let (stdin, stdout) = running.pipes().context("both are pipes")?;
        Ok(Self {
            running,
            stdin,
            stdout,
            received: VecDeque::new(),
            interruption: interruption.clone(),
        })
    }

    pub(crate) const fn running(&self) -> &Running {
        &self.running
    }

    /// Ends the dialogue without waiting for the child.
    pub(crate) fn into_running(self) -> Running {
        self.running
    }

    /// Says one line, which has no end yet.
    pub(crate) fn say(&mut self, mut line: Vec<u8>) -> anyhow::Result<()> {
        line.push(b'\n');
        Ok(self.stdin.write_all(&line)?)
    }

    /// The next line; `None` if there is none until the deadline.
    pub(crate) fn hear(&mut self, deadline: Instant) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.received.drain(..=end).collect()));
            }
            if !self.interruption.await_readable(&self.stdout, deadline)? {
                return Ok(None);
            }
            let mut buffer = [0; 4096];
            let len = self.stdout.read(&mut buffer)?;
            if len == 0 {
                self.interruption.check()?;
                bail!("a child has ended before its work was done");
            }
            self.received.extend(&buffer[..len]);
        }
    }
}
