//! Relay, agent, app and developers as real processes: the whole path, as users see it.

mod care;
mod demo;
mod failures;
mod hostile;
mod kills;
mod project;
mod push;
mod seconds;
mod secrecy;
mod world;
