//! The commands, one file each.

use std::{io, process::ExitCode};

use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use crate::{
    cli::{Cli, Command, Options},
    context::Context,
    failure::Failure,
    output,
};

mod completions;
mod delta;
mod demo;
mod dev;
mod init;
mod join;
mod link;
mod logs;
mod man;
mod mcp;
mod push;
mod schema;
mod status;
mod watch;

/// Runs a command, and says how it ended.
pub(crate) fn run(cli: Cli) -> ExitCode {
    start_logging(&cli.options);
    let json = cli.command.json();
    let context = Context::new(cli.options);
    let ended = Runtime::new()
        .map_err(|error| Failure::failed("runtime", error))
        .and_then(|runtime| {
            let ended = runtime.block_on(dispatch(&context, cli.command));
            // What still reads standard input or a file must not hold up the end.
            runtime.shutdown_background();
            ended
        });
    match ended {
        Ok(exit_code) => exit_code,
        Err(failure) => output::failure(&failure, json),
    }
}

async fn dispatch(context: &Context, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Dev(dev) => dev::run(context, dev).await,
        Command::Demo(demo) => demo::run(context, &demo).await,
        Command::Init(init) => init::run(context, init).await,
        Command::Link(link) => link::run(context, link),
        Command::Join(join) => join::run(context, &join),
        Command::Push(push) => push::run(context, push).await,
        Command::Watch(watch) => watch::run(context, watch).await,
        Command::Status(status) => status::run(context, &status).await,
        Command::Logs(logs) => logs::run(context, &logs).await,
        Command::Mcp => mcp::run(context).await,
        Command::Delta(delta) => delta::run(context, delta).await,
        Command::Schema(_) => Ok(schema::run()),
        Command::Completions(completions) => Ok(completions::run(&completions)),
        Command::Man(man) => man::run(&man),
    }
}

/// Sends the log to standard error: standard output is for results.
fn start_logging(options: &Options) {
    let level = match (options.quiet, options.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(console::colors_enabled_stderr())
        .init();
}
