//! The agent of Patchwire.

mod answers;
mod app;
pub mod cli;
pub mod config;
mod deployment;
mod guard;
mod output;
mod process;
mod push;
mod ready;
mod run;
mod serve;
mod supervisor;

pub use run::{RunError, run};
