//! The agent of Patchwire: it runs beside an app, takes pushes for it, commits them atomically,
//! reloads the app, knows whether that is ready, and brings the previous tree back if it isn't.
//!
//! The `patchwire-agent` binary is [`main`] over [`cli`]; [`run`] is the same for a program that
//! embeds it. A push comes in by [`run`] (the connection to the relay), `serve` (one stream) and
//! `push` (one conversation), and acts on `deployment` (tree, app and answers).
//!
//! The app is looked after by a pure [`supervisor`]; everything else around it is [`app`]'s shell.
//! It knows nothing of how developers find what to push: that is `patchwire-client`.
//!
//! ```no_run
//! use clap::Parser;
//! use patchwire_agent::cli::Cli;
//!
//! let arguments = Cli::parse_from(["patchwire-agent", "run", "--root", ".", "--", "./app"]);
//! patchwire_agent::main(arguments, &["guard"]);
//! ```

mod answers;
pub mod app;
pub mod cli;
pub mod config;
mod deployment;
mod entry;
mod failure;
pub mod guard;
pub mod output;
pub mod process;
mod push;
pub mod ready;
mod run;
mod serve;
pub mod supervisor;

pub use entry::{main, shutdown_signal};
pub use run::{RunError, run};
