//! Relay, agent, app and developers as real processes: the whole path, as users see it.

mod demo;
mod project;
mod push;
mod seconds;
mod world;
