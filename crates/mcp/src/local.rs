//! A relay and an agent as processes of this machine: what `demo` and `dev` stand on.

use std::{ffi::OsString, iter, path::PathBuf};

use anyhow::{Context, Error};
use patchwire_transport::{DeploymentLink, RelayLink, secret_file};

use crate::embedded;

mod process;

pub(crate) use process::Process;
use process::{Launch, Output};

/// The developer's link, in the directory of both.
pub(crate) const DEVELOPER_LINK: &str = "developer.link";

const AGENT_LINK: &str = "agent.link";

/// Where relay and agent work, and how they are started.
///
/// The relay's state lies in `relay` there, the logs in `relay.log` and `agent.log`.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) directory: PathBuf,
    /// Whether they end when this process does, however that ends.
    pub(crate) held: bool,
    /// How much they log to our standard error. With 0 they log to their files.
    pub(crate) verbose: u8,
}

/// An agent, and the app that it is to run.
#[derive(Debug)]
pub(crate) struct AgentLaunch<'a> {
    /// Options of `patchwire-agent run`. Paths are relative to [`Local::directory`].
    pub(crate) options: &'a [&'a str],
    /// The app's program and its arguments.
    pub(crate) command: &'a [OsString],
    /// What the app's environment has besides ours.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// Whether the app's output comes to [`Process::output`] instead of the log.
    pub(crate) output: bool,
}

impl Local {
    /// Starts a relay on a free port of this machine, and waits until it can be reached.
    pub(crate) async fn start_relay(&self) -> Result<(Process, RelayLink), Error> {
        let arguments = ["--listen=127.0.0.1:0", "--state=relay"].map(OsString::from);
        let mut relay = Process::start(Launch {
            name: embedded::RELAY,
            local: self,
            stdout: Output::Pipe,
            stderr: match self.verbose {
                0 => Output::Log,
                _ => Output::Ours,
            },
            environment: &[],
            arguments: self.verbosity().chain(arguments).collect(),
        })?;
        let link = relay.first_line().await;
        let link = self.with_log(link, embedded::RELAY)?;
        Ok((relay, link.trim().parse()?))
    }

    /// Starts an agent with the narrowed link of a deployment. The full link is written beside it,
    /// for other commands.
    pub(crate) fn start_agent(
        &self,
        link: &DeploymentLink,
        launch: &AgentLaunch<'_>,
    ) -> Result<Process, Error> {
        for (name, link) in [(DEVELOPER_LINK, link), (AGENT_LINK, &link.narrow())] {
            secret_file::replace(&self.directory.join(name), link.expose().as_bytes())
                .with_context(|| format!("can't write {name}"))?;
        }
        let mut arguments: Vec<OsString> = self.verbosity().collect();
        let (stdout, stderr) = match launch.output {
            true => (Output::Pipe, Output::Pipe),
            false => (Output::Log, Output::Log),
        };
        if launch.output && self.verbose == 0 {
            let log = process::log_path(&self.directory, embedded::AGENT);
            arguments.extend(["--log-file".into(), log.into()]);
        }
        arguments.extend(["run".into(), format!("--link=@{AGENT_LINK}").into()]);
        arguments.extend(launch.options.iter().map(OsString::from));
        arguments.extend(iter::once("--".into()).chain(launch.command.iter().cloned()));
        Process::start(Launch {
            name: embedded::AGENT,
            local: self,
            stdout,
            stderr,
            environment: launch.environment,
            arguments,
        })
    }

    /// Adds what a process logged to an error.
    pub(crate) fn with_log<T>(&self, result: Result<T, Error>, process: &str) -> Result<T, Error> {
        result.map_err(|error| match process::log_tail(&self.directory, process) {
            Some(log) => error.context(format!("the {process} logged:\n{log}")),
            None => error,
        })
    }

    fn verbosity(&self) -> impl Iterator<Item = OsString> + use<> {
        iter::repeat_n("-v".into(), self.verbose.into())
    }
}
