//! The developer's side of Patchwire.

pub mod config;
pub mod links;
pub mod report;
