//! The command line of the agent, as types.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use patchwire_protocol::app::{ReadyCheck, Reload};
use patchwire_transport::LinkSource;

/// Runs beside an app: takes pushes, commits them atomically, reloads the app, and rolls back when
/// it isn't ready.
#[derive(Debug, Parser)]
#[command(
    name = "patchwire-agent",
    version,
    about,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say more on standard error; twice for even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Log to this file instead of standard error, which is the app's alone then.
    #[arg(long, global = true, value_name = "FILE", env = "PATCHWIRE_LOG_FILE")]
    pub log_file: Option<PathBuf>,
}

/// What the agent can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an app, and take pushes for it.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Ends the app if the agent is killed. Started by the agent itself.
    #[command(hide = true)]
    Guard,
}

const RUN_EXAMPLES: &str = "\
Examples:
  The link in a file (the value on a command line can be seen by others):
    patchwire-agent run --link @/run/secrets/patchwire --root /srv/shop -- python3 app.py

  A check that tells when the app serves, and the link from the environment:
    PATCHWIRE_LINK_FILE=/run/secrets/patchwire \\
      patchwire-agent run --root /srv/shop --ready http://127.0.0.1:8000/health -- python3 app.py

  An app that reloads by a signal, which is sent if the new code can be imported:
    patchwire-agent run --link @link --root . --ready http://127.0.0.1:8000/health \\
      --reload 'command:python3 -c \"import app\" && kill -HUP $(cat /tmp/app.pid)' \\
      -- gunicorn --pid /tmp/app.pid app:app";

/// How to run an app. Every option can also stand in the environment, as `PATCHWIRE_` and its name.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The deployment link, or @FILE that holds it, or - for standard input.
    #[arg(
        long,
        value_name = "LINK",
        env = "PATCHWIRE_LINK",
        hide_env_values = true
    )]
    pub link: Option<LinkSource>,
    /// A file that holds the deployment link; --link goes before it.
    #[arg(long, value_name = "FILE", env = "PATCHWIRE_LINK_FILE", hide = true)]
    pub link_file: Option<PathBuf>,
    /// The directory that pushes change, and that the app runs in. As long as there is no file in it,
    /// the app waits for the first push.
    #[arg(long, value_name = "DIR", env = "PATCHWIRE_ROOT")]
    pub root: PathBuf,
    /// Where the agent keeps its own state [default: ROOT/.patchwire].
    #[arg(long, value_name = "DIR", env = "PATCHWIRE_STATE")]
    pub state: Option<PathBuf>,
    /// How the app takes up new code: restart, signal:NAME, command:TEXT or none. Goes before what
    /// the developer's patchwire.toml says [default: restart].
    #[arg(long, value_name = "R", env = "PATCHWIRE_RELOAD")]
    pub reload: Option<Reload>,
    /// When the app is ready: http://HOST:PORT/PATH (any 2xx), tcp:PORT, command:TEXT,
    /// alive:DURATION, or auto (it answers HTTP on a port that it listens on; if it was never seen to
    /// since the agent started, it is alive after 1s). Goes before what patchwire.toml says [default:
    /// alive:1s].
    #[arg(long, value_name = "CHECK", env = "PATCHWIRE_READY")]
    pub ready: Option<ReadyCheck>,
    /// How long the app may take to be ready before the push is rolled back [default: 30s].
    #[arg(long, value_name = "T", env = "PATCHWIRE_READY_TIMEOUT", value_parser = duration)]
    pub ready_timeout: Option<Duration>,
    /// How the agent is called in answers and in the status [default: the host's name].
    #[arg(long, env = "PATCHWIRE_NAME")]
    pub name: Option<String>,
    /// The app's program and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_after_the_dashes_is_the_apps() {
        let cli = Cli::parse_from([
            "patchwire-agent",
            "run",
            "--root",
            "/srv",
            "--reload",
            "signal:HUP",
            "--",
            "app",
            "--root",
            "x",
        ]);
        let Command::Run(args) = cli.command else {
            panic!("{:?}", cli.command)
        };
        assert_eq!(args.command, ["app", "--root", "x"]);
        assert_eq!(args.reload, Some("signal:HUP".parse().unwrap()));
    }
}
