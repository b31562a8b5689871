//! The words about the agent and its app between pushes.

use super::{
    push::{PushId, PushStatus},
    value::{Text, WireDigest},
};
use crate::{
    app::AppState,
    codec::{Decode, Encode},
};

/// How an agent and its app are.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Status {
    /// The agent's name.
    pub name: Text,
    /// The agent's version, as its package says.
    pub version: Text,
    /// The epoch of its state.
    pub epoch: u64,
    /// The root of what is committed.
    pub root: Option<WireDigest>,
    /// How many entries that has.
    pub entries: u64,
    /// The app, where the agent runs one.
    pub app: Option<AppState>,
    /// Whether the app was seen ready on what is committed.
    pub verified: bool,
    /// The push that was committed last.
    pub last_push: Option<LastPush>,
}

/// The push whose tree stands.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct LastPush {
    /// Its name.
    pub push_id: PushId,
    /// Who pushed.
    pub author: Text,
    /// What they said of it.
    pub message: Text,
    /// When it was committed, in milliseconds since 1970 by the agent's clock.
    pub at_ms: u64,
    /// How the last push ended, which need not be this one: what fails is rolled back.
    pub last_result: Option<(PushId, PushStatus)>,
}

/// Which lines of the app's output are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct LogsRequest {
    /// How many of the last lines.
    pub lines: u32,
    /// Whether new lines follow until the developer ends the stream.
    pub follow: bool,
}

/// A line of the app's output.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct LogLine {
    /// When it came, in milliseconds since 1970 by the agent's clock.
    pub at_ms: u64,
    /// Whether it came on standard error.
    pub stderr: bool,
    /// Its bytes, without the line's end; at most [`crate::limits::LOG_LINE`].
    pub text: Vec<u8>,
}
