//! From arguments to an exit status, for every binary that has the agent in it.

use std::{
    env,
    error::Error,
    fs::OpenOptions,
    io::{self, IsTerminal},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::{EnvFilter, fmt::writer::BoxMakeWriter};

use crate::{
    cli::{Cli, Command, RunArgs},
    config::{Config, GuardCommand},
    failure::chain,
    guard,
    run::run,
};

/// Does what the arguments say. `guard` are the arguments with which this program starts itself as
/// [`Command::Guard`].
#[must_use]
pub fn main(cli: Cli, guard: &'static [&'static str]) -> ExitCode {
    if let Err(error) = start_logging(cli.verbose, cli.log_file.as_deref()) {
        return fail(&*error, 2);
    }
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    match cli.command {
        Command::Guard => match runtime.block_on(guard::main_loop()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Command::Run(args) => {
            let config = match configure(*args, guard) {
                Ok(config) => config,
                Err(error) => return fail(&*error, 2),
            };
            let ended = runtime
                .block_on(async { run(config, shutdown_signal()?).await.map_err(Failed::Run) });
            // Threads that wait for a lock or a disk hold up nobody's exit.
            runtime.shutdown_background();
            match ended {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error, 1),
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Run(crate::RunError),
    #[error("can't take signals")]
    Signals(#[from] io::Error),
}

fn configure(args: RunArgs, guard: &'static [&'static str]) -> Result<Config, Box<dyn Error>> {
    // What runs beside us as the same user must not read our link from our memory.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let program = env::current_exe()?;
    let guard = GuardCommand {
        program,
        arguments: guard.to_vec(),
    };
    Ok(Config::new(args, env::vars_os().collect(), guard)?)
}

/// Resolves when this process is told to end, by TERM or INT. They end it no longer by themselves.
///
/// # Errors
///
/// If the signals can't be taken.
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Logs to a file, or to standard error beside what the app writes there.
fn start_logging(verbose: u8, file: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let default = match verbose {
        0 => "patchwire=info,warn",
        1 => "patchwire=debug,warn",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let (writer, colours) = match file {
        Some(path) => {
            let opened = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(path);
            let file = opened.map_err(|source| LogFile {
                path: path.to_owned(),
                source,
            })?;
            (BoxMakeWriter::new(file), false)
        }
        None => {
            let colours = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
            (BoxMakeWriter::new(io::stderr), colours)
        }
    };
    // Already done if another part of this program did it.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colours)
        .try_init();
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("can't log to {}", path.display())]
struct LogFile {
    path: PathBuf,
    source: io::Error,
}

#[expect(
    clippy::print_stderr,
    reason = "why a program ends is said where a person looks"
)]
fn fail(error: &dyn Error, status: u8) -> ExitCode {
    eprintln!("patchwire-agent: {}", chain(error));
    ExitCode::from(status)
}
