//! The command line as it is typed, where neither relay nor agent is needed but the demo's own.

#[path = "../common/mod.rs"]
mod common;
mod delta;
mod demo;
mod docs;
mod failures;
mod help;
mod init;
mod links;
mod schema;
mod shell;
mod terminal;
mod user;
