//! Relay, agent, app and developers as real processes: the whole path, as users see it.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod care;
mod demo;
mod failures;
mod follow;
mod hostile;
mod kills;
mod project;
mod push;
mod seconds;
mod secrecy;
mod world;
