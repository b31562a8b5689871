//! Relay, agent, app and developers as real processes: the whole path, as users see it.

mod push;
mod world;
