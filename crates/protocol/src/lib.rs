//! The words that developer, relay and agent speak.
//!
//! Values and their encoding, and, behind the feature `push`, one push as a pair of sans-IO state
//! machines. Nothing here opens, spawns, or reads a clock.

#[cfg(feature = "push")]
pub mod app;
pub mod codec;
pub mod frame;
#[cfg(feature = "push")]
mod front;
pub mod limits;
#[cfg(feature = "push")]
pub mod listing;
#[cfg(feature = "push")]
pub mod manifest;
pub mod message;
pub mod name;
#[cfg(feature = "push")]
pub mod operation;
#[cfg(feature = "push")]
pub mod path;
#[cfg(feature = "push")]
pub mod session;
#[cfg(feature = "push")]
pub mod sketch;
pub mod version;
