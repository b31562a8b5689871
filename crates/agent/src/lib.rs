//! Placeholder crate root, replaced as the crate is built.

pub mod app;
pub mod guard;
pub mod output;
pub mod process;
pub mod ready;
pub mod supervisor;
