//! Why there is no connection, no stream, or no more of them.

use std::{io, time::Duration};

use patchwire_protocol::message::relay::{Refusal, close};
use quinn::ConnectionError;

use crate::{address::Address, inner::HandshakeError, link::LinkError, stream::ReceiveError};

/// Why the relay can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The link is not for this role.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The relay's name has no address.
    #[error("cannot find the relay's host {address}: check the name and the network")]
    Resolve {
        /// The relay.
        address: Address,
        /// What the resolver said.
        source: io::Error,
    },
    /// The system gives no socket.
    #[error("cannot use the network")]
    Socket(#[source] io::Error),
    /// Nothing that answers as a relay is there.
    #[error(
        "cannot reach the relay at {address}: check that it runs and that UDP gets through to its port"
    )]
    Unreachable {
        /// The relay.
        address: Address,
        /// How it ended.
        source: ConnectionError,
    },
    /// Nothing answered in time.
    #[error(
        "the relay at {address} did not answer within {timeout:.0?}: check that it runs and that UDP gets through to its port"
    )]
    TimedOut {
        /// The relay.
        address: Address,
        /// How long it had.
        timeout: Duration,
    },
    /// What answers is not the relay of the link. Nothing secret was sent to it.
    #[error(
        "what answers at {address} is not the relay this link was made for (wrong pin): take a new link from the relay, or find out who answers there"
    )]
    WrongPin {
        /// The relay.
        address: Address,
    },
    /// The relay said no.
    #[error(transparent)]
    Refused(Refusal),
    /// The relay did not keep to the protocol.
    #[error("the relay did not keep to the protocol: update the older of the two")]
    Misbehaved(#[source] ReceiveError),
    /// The connection was lost before the relay said anything.
    #[error("the relay went away while the connection was made: try again")]
    Lost(#[source] Disconnected),
}

impl ConnectError {
    /// Whether trying again is of no use until someone changes the link or the relay.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        match self {
            Self::Link(_) | Self::WrongPin { .. } => true,
            Self::Refused(refusal) => match refusal {
                Refusal::Version { .. }
                | Refusal::RelayKey
                | Refusal::Signature
                | Refusal::DeploymentSecret
                | Refusal::Malformed => true,
                Refusal::NoAgent | Refusal::Draining { .. } | Refusal::Limit => false,
            },
            Self::Resolve { .. }
            | Self::Socket(_)
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Misbehaved(_)
            | Self::Lost(_) => false,
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disconnected {
    /// A newer agent attached in this one's place.
    #[error("a newer agent took this one's place")]
    Replaced,
    /// The relay ends and will be back.
    #[error("the relay is draining")]
    Draining,
    /// The relay says that this end did not keep to the protocol.
    #[error("the relay could not make sense of this program: update the older of the two")]
    Misbehaved,
    /// This end closed it.
    #[error("the connection was closed here")]
    Here,
    /// It was cut.
    #[error("the connection was lost")]
    Lost(#[source] ConnectionError),
}

impl From<ConnectionError> for Disconnected {
    fn from(error: ConnectionError) -> Self {
        let code = match &error {
            ConnectionError::LocallyClosed => return Self::Here,
            ConnectionError::ApplicationClosed(frame) => frame.error_code.into_inner(),
            _ => return Self::Lost(error),
        };
        match u32::try_from(code) {
            Ok(close::REPLACED) => Self::Replaced,
            Ok(close::DRAINING) => Self::Draining,
            Ok(close::MISBEHAVED) => Self::Misbehaved,
            _ => Self::Lost(error),
        }
    }
}

/// Why a developer got no stream to the agent.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No agent is attached: it may come.
    #[error("{}", Refusal::NoAgent)]
    NoAgent,
    /// An agent is attached under the deployment's name, and does not know this link's secret.
    #[error("{}", Refusal::DeploymentSecret)]
    WrongSecret,
    /// The relay said no.
    #[error(transparent)]
    Refused(Refusal),
    /// The relay did not keep to the protocol.
    #[error("the relay did not keep to the protocol: update the older of the two")]
    Misbehaved(#[source] ReceiveError),
    /// The stream was made, and what answers on it is not the agent or went away.
    #[error("the agent could not be spoken to: is it running well, and of this version?")]
    Handshake(#[from] HandshakeError),
    /// The connection is no more.
    #[error("the connection to the relay is lost: try again")]
    Lost(#[source] Disconnected),
    /// The relay cut the stream, because the agent went away.
    #[error("the stream was cut, as when an agent goes away: try again")]
    Cut(#[source] io::Error),
    /// Only developers open streams.
    #[error("only a developer opens streams: this connection is an agent's")]
    NotDeveloper,
}
