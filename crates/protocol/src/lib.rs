//! The words that developer, relay and agent speak.

pub mod app;
pub mod codec;
pub mod frame;
pub mod limits;
pub mod name;
pub mod version;
