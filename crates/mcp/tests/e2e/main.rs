//! Relay, agent, app and developers as real processes: the whole path, as users see it.

mod failures;
mod hostile;
mod kills;
mod push;
mod secrecy;
mod world;
