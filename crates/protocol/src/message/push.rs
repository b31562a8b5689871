//! The words of a push: what is asked for, and how it ended.

use std::{fmt, str::FromStr};

use super::value::{Text, WireDigest};
use crate::{
    app::{AppState, ReadyCheck, Reload},
    codec::{self, Decode, Decoder, Encode},
    limits,
    path::RelativePath,
    sketch::Sketch,
};

/// The name of one push, a UUID (version 7 by convention), bound to its client and target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct PushId(pub [u8; 16]);

impl fmt::Display for PushId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for PushId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PushId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Ok(Self(text.parse::<uuid::Uuid>()?.into_bytes()))
    }
}

/// Which developer's tree pushes: stable across commands, another for another tree or person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct ClientId(pub [u8; 16]);

/// The tree a push was planned against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum Base {
    /// None: the agent is asked what it has. Nothing follows.
    Unknown,
    /// What the agent committed last, by its root.
    Committed(WireDigest),
    /// What the agent offered in its last `Rebase`.
    Offered(OfferId),
}

/// The random number of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct OfferId(pub u64);

/// A push. Its content stream follows, if it has operations.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Push {
    /// The push's name; the same when it begins again.
    pub push_id: PushId,
    /// Who pushes.
    pub client: ClientId,
    /// The same for people to read: `ana@laptop`.
    pub author: Text,
    /// What the developer says of it.
    pub message: Text,
    /// The epoch of the agent's state that `base` is about.
    pub epoch: u64,
    /// What it was planned against.
    pub base: Base,
    /// What the tree it makes is like, where the base isn't known: the agent then needs to list only
    /// what it has otherwise.
    pub sketch: Option<Sketch>,
    /// The root of the tree it makes.
    pub target: WireDigest,
    /// How many operations the content stream begins with.
    pub operations: u64,
    /// When it may no longer be applied, in milliseconds since the agent greeted on this stream and
    /// by its clock.
    pub expires_ms: u64,
    /// Whether it replaces what another client committed, and deletes as much as it says.
    pub force: bool,
    /// Whether symbolic links may leave the root.
    pub links_may_leave: bool,
    /// Whether what was never pushed goes, too, where it is not ignored.
    pub mirror: Option<Patterns>,
    /// How the app is run, where the agent's own flags don't say.
    pub app: AppOptions,
}

/// What the developer's configuration says of files, on top of the ignore files: within
/// [`limits::PATTERNS`] and [`limits::PATTERN_BYTES`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Patterns {
    ignore: Vec<String>,
    include: Vec<String>,
}

/// Too many patterns for a [`Patterns`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{patterns} patterns with {bytes} bytes, the most is {} with {}",
    limits::PATTERNS,
    limits::PATTERN_BYTES
)]
pub struct PatternsError {
    /// How many patterns.
    pub patterns: usize,
    /// How many bytes they have.
    pub bytes: usize,
}

impl Patterns {
    /// Takes patterns of what is ignored, and of what isn't all the same.
    ///
    /// # Errors
    ///
    /// [`PatternsError`] if they are too many.
    pub fn new(ignore: Vec<String>, include: Vec<String>) -> Result<Self, PatternsError> {
        let patterns = ignore.len() + include.len();
        let bytes = ignore.iter().chain(&include).map(String::len).sum();
        if patterns > limits::PATTERNS || bytes > limits::PATTERN_BYTES {
            return Err(PatternsError { patterns, bytes });
        }
        Ok(Self { ignore, include })
    }

    /// What is ignored.
    #[must_use]
    pub fn ignore(&self) -> &[String] {
        &self.ignore
    }

    /// What isn't, whatever else says so.
    #[must_use]
    pub fn include(&self) -> &[String] {
        &self.include
    }
}

impl<Context> Decode<Context> for Patterns {
    fn decode<D: Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, codec::error::Decode> {
        Self::new(Vec::decode(decoder)?, Vec::decode(decoder)?).map_err(codec::invalid)
    }
}

codec::impl_borrow_decode!(Patterns);

/// How the app is to be reloaded and checked, as the developer's configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct AppOptions {
    /// What makes the app run the new code.
    pub reload: Option<Reload>,
    /// How to know that it does.
    pub ready: Option<ReadyCheck>,
    /// How long that may take, in milliseconds.
    pub ready_timeout_ms: Option<u64>,
    /// Variables of its environment.
    pub environment: Environment,
}

/// Environment variables, names without `=` and neither with NUL, within
/// [`limits::ENVIRONMENT`] and [`limits::ENVIRONMENT_BYTES`]. Values may be secrets: `Debug` shows
/// the names alone.
#[derive(Clone, Default, PartialEq, Eq, Encode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Environment(Vec<(String, String)>);

/// Why variables are not an [`Environment`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// A name is empty, holds `=`, or NUL stands in name or value.
    #[error("“{}” can't be an environment variable", name.escape_debug())]
    Name {
        /// The name.
        name: String,
    },
    /// Too many variables or bytes.
    #[error(
        "{variables} environment variables with {bytes} bytes, the most is {} with {}",
        limits::ENVIRONMENT,
        limits::ENVIRONMENT_BYTES
    )]
    TooLarge {
        /// How many variables.
        variables: usize,
        /// How many bytes they have.
        bytes: usize,
    },
}

impl Environment {
    /// Takes variables.
    ///
    /// # Errors
    ///
    /// [`EnvironmentError`] if a name can't be one, or they are too large.
    pub fn new(variables: Vec<(String, String)>) -> Result<Self, EnvironmentError> {
        let bytes = variables
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if variables.len() > limits::ENVIRONMENT || bytes > limits::ENVIRONMENT_BYTES {
            return Err(EnvironmentError::TooLarge {
                variables: variables.len(),
                bytes,
            });
        }
        let bad = |(name, value): &&(String, String)| {
            name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
        };
        match variables.iter().find(bad) {
            Some((name, _)) => Err(EnvironmentError::Name { name: name.clone() }),
            None => Ok(Self(variables)),
        }
    }

    /// The variables.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl<Context> Decode<Context> for Environment {
    fn decode<D: Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, codec::error::Decode> {
        Self::new(Vec::decode(decoder)?).map_err(codec::invalid)
    }
}

codec::impl_borrow_decode!(Environment);

/// How far a push has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum Phase {
    /// 0: it waits for another push to end.
    Queued,
    /// 1: files are built and verified.
    Staging,
    /// 2: the app is stopped and the tree exchanged.
    Committing,
    /// 3: the app is reloaded, and waited for until it is ready.
    Reloading,
    /// 4: the app wasn't ready: the previous tree comes back.
    RollingBack,
}

/// How a push ended, at the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum PushStatus {
    /// 0: the tree is committed and the app ready on it.
    Done,
    /// 1: the tree was the agent's already.
    NoChanges,
    /// 2: refused, or not ready with nothing to go back to.
    Failed,
    /// 3: committed, not ready, and the previous tree is back.
    RolledBack,
    /// 4: another client pushed since.
    Conflict,
}

/// Why a push did not end as wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum FailureCode {
    /// 0: what was sent contradicts itself or the protocol.
    Invalid,
    /// 1: the push came after it had expired.
    Expired,
    /// 2: nothing came for too long.
    Stalled,
    /// 3: the push was called off.
    Aborted,
    /// 4: the agent could not write: disk full, read-only, no rights.
    Io,
    /// 5: the tree changed under the push too often.
    Unsettled,
    /// 6: another client pushed since.
    Conflict,
    /// 7: the push id is another client's or another target's.
    PushIdTaken,
    /// 8: a symbolic link leaves the root.
    LinkLeavesRoot,
    /// 9: the app ended before it was ready, or could not be started.
    AppExited,
    /// 10: the app was not ready in time.
    NotReady,
    /// 11: the reload command failed, or the app could not be signalled.
    ReloadFailed,
}

impl FailureCode {
    /// The code as JSON shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Stalled => "stalled",
            Self::Aborted => "aborted",
            Self::Io => "io",
            Self::Unsettled => "unsettled",
            Self::Conflict => "conflict",
            Self::PushIdTaken => "push-id-taken",
            Self::LinkLeavesRoot => "link-leaves-root",
            Self::AppExited => "app-exited",
            Self::NotReady => "not-ready",
            Self::ReloadFailed => "reload-failed",
        }
    }
}

/// What went wrong, for a program and for a person.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Failure {
    /// For a program.
    pub code: FailureCode,
    /// For a person.
    pub message: Text,
}

impl Failure {
    /// Makes a failure of a message.
    #[must_use]
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: Text::cut(message),
        }
    }
}

/// How long the agent took for what, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct AgentTimings {
    /// From the staged tree to the committed one, with the app's end where it restarts.
    pub commit_us: u64,
    /// From the commit to the app's new process or the signal or command given.
    pub reload_us: u64,
    /// From there to the readiness check's result.
    pub ready_us: u64,
}

/// How a push ended. Its lists hold at most [`limits::LISTED`] paths or texts, and
/// [`limits::LOG_TAIL_LINES`] lines.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Answer {
    /// The push.
    pub push_id: PushId,
    /// How it ended.
    pub status: PushStatus,
    /// Why it did not end as wished.
    pub failure: Option<Failure>,
    /// The epoch of the agent's state.
    pub epoch: u64,
    /// The root of what is committed now, whatever became of this push.
    pub root: Option<WireDigest>,
    /// How long it took.
    pub timings: AgentTimings,
    /// How the app is, where the agent runs one.
    pub app: Option<AppState>,
    /// Whether the readiness check saw the new code start.
    pub verified: bool,
    /// The app's last lines since this push started it.
    pub log_tail: Vec<Text>,
    /// Managed paths that someone changed on the agent's side.
    pub drift: Vec<RelativePath>,
    /// What else the developer should know.
    pub warnings: Vec<Text>,
    /// Who pushed in between, if that is why.
    pub conflict: Option<ConflictWith>,
}

/// Another client's push that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct ConflictWith {
    /// Who.
    pub author: Text,
    /// When, in milliseconds since 1970 by the agent's clock.
    pub at_ms: u64,
    /// Which push.
    pub push_id: PushId,
    /// What it changed, at most [`limits::LISTED`] paths.
    pub paths: Vec<RelativePath>,
}
