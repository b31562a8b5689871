//! What developer and agent say to each other inside their inner session.
//!
//! The agent's first message is a [`Greeting`], for which the developer need not wait. The developer's
//! first message says what the stream
//! is for: [`DeveloperMessage::Push`], [`DeveloperMessage::Status`], [`DeveloperMessage::Logs`] or
//! [`DeveloperMessage::Follow`]. Every message is one frame (see [`crate::frame`]); its body is the variant's index as a
//! variable-length integer (one byte here), then the fields in order.

use super::{
    push::{Answer, OfferId, Phase, Push},
    status::{LogLine, LogsRequest, Status},
    value::{Text, WireDigest},
};
#[cfg(doc)]
use crate::limits;
use crate::{
    codec::{Decode, Encode},
    path::RelativePath,
};

/// What the agent says first on every stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Greeting {
    /// The agent's name, its host's by default.
    pub name: Text,
    /// A random number of the agent's state: another one means that what it had is lost.
    pub epoch: u64,
    /// The root of what it last committed.
    pub root: Option<WireDigest>,
}

/// What a developer says to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum DeveloperMessage {
    /// 0: a push begins, or begins again from another base.
    Push(Box<Push>),
    /// 1: the next piece of its content stream, one to [`limits::CONTENT_PART`] bytes: zstd frames
    /// that hold its operations (see [`crate::operation::stream`]), and behind them what every one
    /// that [`is_sent`](crate::operation::Source::is_sent) sends, in their order.
    Content(Vec<u8>),
    /// 2: the content stream is whole.
    ContentEnd,
    /// 3: asks for signatures of files that were offered, one to [`limits::SIGNATURES`].
    Sign(Vec<SignRequest>),
    /// 4: the push is called off. Nothing of it stays.
    Abort,
    /// 5: asks how the agent and its app are.
    Status,
    /// 6: asks for lines of the app's output.
    Logs(LogsRequest),
    /// 7: content is still being read and there is nothing to send yet; at most [`limits::ALIVE`]
    /// times in a push.
    Alive,
    /// 8: asks how the agent and its app are, now and whenever that changes: an
    /// [`AgentMessage::Status`] comes at once and after every change, the newest where several came
    /// close together. Whatever the developer says next ends it.
    Follow,
}

/// What an agent says to a developer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum AgentMessage {
    /// 0: first on every stream.
    Greeting(Greeting),
    /// 1: the push's base isn't what stands here; [`AgentMessage::Listing`]s say what does.
    Rebase(Rebase),
    /// 2: the next bytes of what stands here, one to [`limits::CONTENT_PART`].
    Listing(Vec<u8>),
    /// 3: the next part of a signature that was asked for.
    Signature(SignaturePart),
    /// 4: the push has come so far. Also sent again while one phase lasts, so that silence means
    /// a lost agent.
    Progress(Phase),
    /// 5: how the push ended.
    Answer(Box<Answer>),
    /// 6: how the agent and its app are.
    Status(Box<Status>),
    /// 7: the next lines of the app's output.
    LogLines(Vec<LogLine>),
    /// 8: what was said makes no sense here; the stream ends.
    Misunderstood(Text),
    /// 9: so many bytes of the content stream have been taken. Said every
    /// [`limits::ACKNOWLEDGE`] bytes, so that the next may be sent.
    Received(u64),
}

/// What the agent has, when it isn't what a push was planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Rebase {
    /// The agent's epoch.
    pub epoch: u64,
    /// Whether the entries are what a push committed here (with what drifted as it is now), or only
    /// what lies on the disk, good as a basis and not ours to delete.
    pub managed: bool,
    /// The offer's random number, to name it by and to shorten its digests with.
    pub offer: OfferId,
    /// How many bytes follow, at most [`limits::LISTING`]: a [`crate::listing`] as one zstd frame.
    pub listing: u64,
}

/// A signature that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct SignRequest {
    /// A file that was offered.
    pub path: RelativePath,
    /// What of it.
    pub what: SignWhat,
}

/// What of a file is to be signed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum SignWhat {
    /// 0: all of it, in blocks for one round.
    Whole,
    /// 1: all of it, in blocks for the first of two rounds.
    FirstRound,
    /// 2: these encoded [`patchwire_delta::Regions`].
    Regions(Vec<u8>),
}

/// A piece of an encoded signature.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct SignaturePart {
    /// Which of the paths in [`DeveloperMessage::Sign`], in their order.
    pub index: u32,
    /// The bytes, at most [`limits::CONTENT_PART`]; only a signature's last part may have none. A
    /// file that can't be signed (it is gone) has one part without bytes.
    pub bytes: Vec<u8>,
    /// Whether this is the signature's last part.
    pub last: bool,
}
