//! What can go wrong at the developer's end, and what the command line makes of it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use patchwire_protocol::{message::push::PatternsError, name::Name, path::RelativePath};
use patchwire_transport::{ConnectError, OpenError, ReceiveError, Refusal, SendError};
use patchwire_tree::ScanError;

use crate::content::ContentError;

/// Why a request did not come to an answer. What an agent answers is no error: see
/// [`crate::PushReport`].
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The relay can't be reached or refuses us, which all requests are told that waited for it.
    #[error(transparent)]
    Connect(Arc<ConnectError>),
    /// The agent can't be reached through the relay.
    #[error(transparent)]
    Open(OpenError),
    /// An agent is attached, and says nothing.
    #[error(
        "the agent of {app}/{deployment} did not answer within {}: is its machine overloaded or \
         cut off?",
        humantime::format_duration(*wait)
    )]
    Unanswered {
        /// The app.
        app: Name,
        /// The deployment.
        deployment: Name,
        /// How long it had.
        wait: Duration,
    },
    /// The connection was lost before there was an answer, and nothing was applied.
    #[error("the connection to the agent was lost: try again")]
    Lost {
        /// Why, if it is known.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// No agent is attached to the deployment.
    #[error(
        "no agent is attached to {app}/{deployment}: start one with `patchwire-agent run --link \
         @FILE --root DIR -- COMMAND` at its machine, where FILE holds what `patchwire link --agent` \
         prints"
    )]
    NoAgent {
        /// The app.
        app: Name,
        /// The deployment.
        deployment: Name,
    },
    /// The agent speaks in a way that we don't understand.
    #[error("the agent misbehaves: {what}: is it of the same version?")]
    Misbehaved {
        /// What it did.
        what: String,
    },
    /// The agent says that about us.
    #[error("the agent doesn't understand us: {what}: is it of the same version?")]
    Misunderstood {
        /// What it said.
        what: String,
    },
    /// The directory isn't there.
    #[error("can't find {}", root.display())]
    Root {
        /// The directory.
        root: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The directory can't be scanned.
    #[error("can't scan {}", root.display())]
    Scan {
        /// The directory.
        root: PathBuf,
        /// Why.
        source: ScanError,
    },
    /// A file can't be read.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// There is nothing to push.
    #[error(
        "{} holds nothing to push, and the agent has something: push with `force` if it shall be \
         empty",
        root.display()
    )]
    Empty {
        /// The directory.
        root: PathBuf,
    },
    /// The push would delete most of what the agent has.
    #[error(
        "this would delete {deleted} of the {managed} entries that the agent has: push with `force` \
         if it shall, or is {} the wrong directory?", root.display()
    )]
    DeletesTooMuch {
        /// How many would be deleted.
        deleted: u64,
        /// How many there are.
        managed: u64,
        /// The directory.
        root: PathBuf,
    },
    /// The agent can't be told of all patterns.
    #[error("a mirror needs fewer `ignore` and `include` patterns")]
    Patterns(#[from] PatternsError),
    /// A file changed every time it was read.
    #[error("{path:?} keeps changing while it is pushed: ignore it, or push when it is quiet")]
    Unsettled {
        /// The file.
        path: RelativePath,
    },
}

/// An error and what it comes from, as one sentence.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// What an error means to whoever started the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The push was refused or failed: exit status 1.
    Refused,
    /// Usage or configuration: exit status 2.
    Usage,
    /// Relay or agent unreachable, or the answer unknown: exit status 3.
    Unreachable,
    /// Refused for its credentials: exit status 4.
    Credentials,
}

/// What an error means, its name for a program, and whether the same may succeed a little later.
type Meaning = (ErrorKind, &'static str, Passing);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Passing {
    Yes,
    No,
}

impl ClientError {
    /// What the error means.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.meaning().0
    }

    /// The name of the error for a program: words joined by `-`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.meaning().1
    }

    /// The exit status of a command that fails so.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.kind() {
            ErrorKind::Refused => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Unreachable => 3,
            ErrorKind::Credentials => 4,
        }
    }

    /// Tells whether the same request may succeed on another connection.
    pub(crate) fn is_passing(&self) -> bool {
        self.meaning().2 == Passing::Yes
    }

    fn meaning(&self) -> Meaning {
        use ErrorKind::{Refused, Unreachable, Usage};
        match self {
            Self::Connect(error) => of_connecting(error),
            Self::Open(error) => of_opening(error),
            Self::NoAgent { .. } => (Unreachable, "no-agent", Passing::Yes),
            Self::Unanswered { .. } => (Unreachable, "agent-unreachable", Passing::Yes),
            Self::Lost { .. } => (Unreachable, "connection-lost", Passing::Yes),
            Self::Misbehaved { .. } | Self::Misunderstood { .. } => {
                (Refused, "protocol", Passing::No)
            }
            Self::Root { .. } => (Usage, "root", Passing::No),
            Self::Patterns(_) => (Usage, "patterns", Passing::No),
            Self::Scan { .. } => (Refused, "scan", Passing::No),
            Self::Content(_) => (Refused, "read", Passing::No),
            Self::Empty { .. } => (Refused, "empty", Passing::No),
            Self::DeletesTooMuch { .. } => (Refused, "deletes-too-much", Passing::No),
            Self::Unsettled { .. } => (Refused, "unsettled", Passing::No),
        }
    }
}

fn of_connecting(error: &ConnectError) -> Meaning {
    use ErrorKind::{Credentials, Refused, Unreachable, Usage};
    match error {
        ConnectError::Link(_) => (Usage, "link", Passing::No),
        ConnectError::WrongPin { .. } => (Credentials, "wrong-pin", Passing::No),
        ConnectError::Refused(refusal) => of_refusal(refusal),
        ConnectError::Misbehaved(_) => (Refused, "protocol", Passing::No),
        ConnectError::Resolve { .. }
        | ConnectError::Socket(_)
        | ConnectError::Unreachable { .. }
        | ConnectError::TimedOut { .. } => (Unreachable, "relay-unreachable", Passing::Yes),
        ConnectError::Lost(_) => (Unreachable, "connection-lost", Passing::Yes),
    }
}

fn of_opening(error: &OpenError) -> Meaning {
    use ErrorKind::{Credentials, Refused, Unreachable};
    match error {
        OpenError::NoAgent => (Unreachable, "no-agent", Passing::Yes),
        OpenError::WrongSecret => (Credentials, "wrong-deployment-secret", Passing::No),
        OpenError::Refused(refusal) => of_refusal(refusal),
        OpenError::Misbehaved(_) | OpenError::NotDeveloper => (Refused, "protocol", Passing::No),
        OpenError::Handshake(_) => (Unreachable, "agent-unreachable", Passing::Yes),
        OpenError::Lost(_) | OpenError::Cut(_) => (Unreachable, "connection-lost", Passing::Yes),
    }
}

fn of_refusal(refusal: &Refusal) -> Meaning {
    use ErrorKind::{Credentials, Refused, Unreachable};
    match refusal {
        Refusal::Version { .. } => (Refused, "version", Passing::No),
        Refusal::RelayKey => (Credentials, "wrong-relay-key", Passing::No),
        Refusal::Signature => (Credentials, "wrong-signature", Passing::No),
        Refusal::DeploymentSecret => (Credentials, "wrong-deployment-secret", Passing::No),
        Refusal::NoAgent => (Unreachable, "no-agent", Passing::Yes),
        Refusal::Draining { .. } => (Unreachable, "relay-draining", Passing::Yes),
        Refusal::Limit => (Unreachable, "relay-full", Passing::Yes),
        Refusal::Malformed => (Refused, "protocol", Passing::No),
    }
}

impl From<ReceiveError> for ClientError {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Io(source) => Self::Lost {
                source: Some(Box::new(source)),
            },
            error => Self::Misbehaved {
                what: error.to_string(),
            },
        }
    }
}

impl From<SendError> for ClientError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Io(_) => Self::Lost {
                source: Some(Box::new(error)),
            },
            error => Self::Misunderstood {
                what: error.to_string(),
            },
        }
    }
}
