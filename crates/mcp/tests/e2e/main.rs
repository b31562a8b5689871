//! Relay, agent, app and developers as real processes: the whole path, as users see it.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod care;
#[path = "../common/mod.rs"]
mod common;
mod demo;
mod dev;
mod edges;
mod failures;
mod follow;
mod frameworks;
mod hostile;
mod kills;
mod mcp;
mod mirror;
mod model;
mod project;
mod push;
mod seconds;
mod secrecy;
mod storms;
mod watch;
mod wire;
mod world;
