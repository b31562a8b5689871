//! The command line as it is typed, where neither relay nor agent is needed.

mod delta;
mod failures;
mod help;
mod links;
mod user;
