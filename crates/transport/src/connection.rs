//! A peer's connection to its relay.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use patchwire_protocol::{
    limits,
    message::relay::{
        EXPORTER_LABEL, EXPORTER_LEN, Hello, Notice, Open, OpenReply, PeerName, PresentedKey,
        Refusal, RelayReply, Role, close,
    },
    version::{Version, VersionRange},
};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::{ClientConfig, ServerConfig};
use tokio::{sync::Mutex, task::JoinSet, time};
use tracing::debug;

use crate::{
    address::Address,
    credentials::Credentials,
    endpoint,
    identity::Pin,
    inner::{HANDSHAKE_TIMEOUT, HandshakeError, IncomingStream, InnerStream},
    link::{DeploymentLink, LinkError},
    stream::{FrameReader, FrameWriter, ReceiveError, SendError, receive_header},
    tls,
};

/// How long one address has before the next is tried beside it (RFC 8305, section 8).
const STAGGER: Duration = Duration::from_millis(250);

/// The most addresses of a host that are tried.
const ADDRESSES: usize = 8;

/// How long the last packets have to leave when a connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

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
        "the relay at {address} did not answer within {timeout:?}: check that it runs and that UDP gets through to its port"
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
    #[error("the relay went away while the connection was made")]
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
    #[error("the agent could not be spoken to")]
    Handshake(#[from] HandshakeError),
    /// The connection is no more.
    #[error("the connection to the relay is no more")]
    Lost(#[source] Disconnected),
    /// The relay cut the stream, because the agent went away.
    #[error("the stream was cut, as when an agent goes away")]
    Cut(#[source] io::Error),
    /// Only developers open streams.
    #[error("only a developer opens streams: this connection is an agent's")]
    NotDeveloper,
}

/// A connection to the relay on which it has welcomed this end.
///
/// Lives while it or a stream of it lives, and does not reconnect by itself: see
/// [`Backoff`](crate::Backoff).
#[derive(Debug)]
pub struct RelayConnection {
    endpoint: Endpoint,
    connection: Connection,
    version: Version,
    inner: Inner,
    notices: Mutex<FrameReader<RecvStream>>,
    /// Held open: its end would say that this end has nothing more to say.
    _control: FrameWriter<SendStream>,
}

#[derive(Debug)]
enum Inner {
    Developer(Arc<ClientConfig>),
    Agent(Arc<ServerConfig>),
}

impl RelayConnection {
    /// Connects to the link's relay and attaches as one end of its deployment.
    ///
    /// `name` is how this end wants to be called; what can't be part of a name is left out.
    /// All of it, finding the host included, takes `timeout` at most.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], which tells an unreachable relay from a wrong one and from a refusal.
    pub async fn connect(
        link: &DeploymentLink,
        role: Role,
        name: &str,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let credentials = link.credentials(role)?;
        let attached = Box::pin(attach(link, &credentials, PeerName::nearest(name)));
        time::timeout(timeout, attached).await.unwrap_or_else(|_| {
            Err(ConnectError::TimedOut {
                address: link.relay().address().clone(),
                timeout,
            })
        })
    }

    /// The version that this end and the relay speak.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The relay's address, as it was reached.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// The present estimate of the round trip to the relay.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.connection.rtt()
    }

    /// Opens a stream to the newest agent of the deployment and authenticates it, within ten seconds.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; only with [`OpenError::Lost`] is the connection of no more use.
    pub async fn open(&self) -> Result<InnerStream, OpenError> {
        let Inner::Developer(config) = &self.inner else {
            return Err(OpenError::NotDeveloper);
        };
        let opened = Box::pin(self.open_with(Arc::clone(config)));
        time::timeout(HANDSHAKE_TIMEOUT, opened)
            .await
            .unwrap_or_else(|_| {
                let timeout = HANDSHAKE_TIMEOUT;
                Err(HandshakeError::TimedOut { timeout }.into())
            })
    }

    async fn open_with(&self, config: Arc<ClientConfig>) -> Result<InnerStream, OpenError> {
        let lost = |error: ConnectionError| OpenError::Lost(error.into());
        let cut = |error: io::Error| match self.connection.close_reason() {
            Some(reason) => lost(reason),
            None => OpenError::Cut(error),
        };
        let (send, mut recv) = self.connection.open_bi().await.map_err(lost)?;
        let mut send = FrameWriter::new(send, limits::FRAME_UNAUTHENTICATED);
        match send.send(&Open::Newest).await {
            Ok(()) => {}
            // The relay may have answered before it read: the answer is what counts.
            Err(error) => debug!(%error, "the relay did not read the stream's header"),
        }
        let reply = receive_header(&mut recv, limits::FRAME_UNAUTHENTICATED)
            .await
            .map_err(|error| match error {
                ReceiveError::Io(error) => cut(error),
                misbehaved => OpenError::Misbehaved(misbehaved),
            })?;
        match reply {
            OpenReply::Opened { agent } => {
                InnerStream::connect(config, send.into_inner(), recv, agent)
                    .await
                    .map_err(|error| match self.connection.close_reason() {
                        Some(reason) => lost(reason),
                        None => error.into(),
                    })
            }
            OpenReply::Refused(Refusal::NoAgent) => Err(OpenError::NoAgent),
            OpenReply::Refused(Refusal::DeploymentSecret) => Err(OpenError::WrongSecret),
            OpenReply::Refused(refusal) => Err(OpenError::Refused(refusal)),
        }
    }

    /// Waits for a developer's stream; a developer's own connection gets none. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Disconnected`] when the connection has ended.
    pub async fn accept(&self) -> Result<IncomingStream, Disconnected> {
        match &self.inner {
            Inner::Agent(config) => {
                let (send, recv) = self.connection.accept_bi().await?;
                Ok(IncomingStream::new(send, recv, Arc::clone(config)))
            }
            Inner::Developer(_) => Err(self.closed().await),
        }
    }

    /// Waits for what the relay has to say next; `None` when it will say no more. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`] if the connection was lost or the relay misbehaved.
    pub async fn notice(&self) -> Result<Option<Notice>, ReceiveError> {
        self.notices.lock().await.receive().await
    }

    /// Waits until the connection has ended. Cancel safe.
    pub async fn closed(&self) -> Disconnected {
        self.connection.closed().await.into()
    }

    /// Ends the connection and every stream on it, and sees to it that the relay hears so.
    pub async fn close(self) {
        self.connection.close(close::DONE.into(), &[]);
        // Without an answer the relay notices by its idle timeout.
        let _ = time::timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

async fn attach(
    link: &DeploymentLink,
    credentials: &Credentials,
    name: PeerName,
) -> Result<RelayConnection, ConnectError> {
    let relay = link.relay();
    let (streams, inner) = match credentials.role() {
        Role::Developer => (
            0,
            Inner::Developer(Arc::new(tls::inner_client(credentials))),
        ),
        Role::Agent => (
            endpoint::STREAMS,
            Inner::Agent(Arc::new(tls::inner_server(credentials))),
        ),
    };
    let (endpoint, connection) = dial(relay.address(), relay.pin(), streams).await?;

    let lost = |error: ConnectionError| ConnectError::Lost(error.into());
    let (send, recv) = connection.open_bi().await.map_err(lost)?;
    let mut exporter = [0; EXPORTER_LEN];
    connection
        .export_keying_material(&mut exporter, EXPORTER_LABEL, &[])
        .expect("32 bytes can be exported from a finished handshake");
    let hello = Hello {
        versions: VersionRange::SUPPORTED,
        role: credentials.role(),
        relay_key: PresentedKey(*relay.relay_key().expose()),
        app: credentials.app().clone(),
        deployment: credentials.deployment().clone(),
        developer: credentials.developer_key(),
        agent: credentials.agent_key(),
        name,
        signature: credentials.sign_hello(&exporter),
    };

    let mut control = FrameWriter::new(send, limits::FRAME_UNAUTHENTICATED);
    let mut notices = FrameReader::new(recv, limits::FRAME_UNAUTHENTICATED);
    let sent = control.send(&hello).await;
    let closed = |error: io::Error| match connection.close_reason() {
        Some(reason) => lost(reason),
        None => ConnectError::Misbehaved(error.into()),
    };
    // Received also if sending failed: a relay that is full answers before it has read.
    match (notices.receive().await, sent) {
        (Ok(Some(RelayReply::Welcome { version })), Ok(())) => Ok(RelayConnection {
            endpoint,
            connection,
            version,
            inner,
            notices: Mutex::new(notices),
            _control: control,
        }),
        (Ok(Some(RelayReply::Refused(refusal))), _) => Err(ConnectError::Refused(refusal)),
        (Ok(_), Err(SendError::Io(error))) | (Err(ReceiveError::Io(error)), _) => {
            Err(closed(error))
        }
        (Ok(_), Err(SendError::TooLarge(error))) => Err(ConnectError::Misbehaved(error.into())),
        (Ok(None), Ok(())) => Err(closed(io::ErrorKind::UnexpectedEof.into())),
        (Err(misbehaved), _) => Err(ConnectError::Misbehaved(misbehaved)),
    }
}

/// Makes a connection to the first of the host's addresses that answers with the right key.
async fn dial(
    address: &Address,
    pin: Pin,
    streams: u32,
) -> Result<(Endpoint, Connection), ConnectError> {
    let resolve = |source| ConnectError::Resolve {
        address: address.clone(),
        source,
    };
    let addresses = address.resolve().await.map_err(resolve)?;
    let mut attempts = JoinSet::new();
    for (number, socket_address) in (0u32..).zip(addresses.into_iter().take(ADDRESSES)) {
        let address = address.clone();
        attempts.spawn(async move {
            time::sleep(STAGGER * number).await;
            dial_one(socket_address, address, pin, streams).await
        });
    }
    let mut worst = None;
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(connected)) => return Ok(connected),
            // That something else answers says more than that nothing does.
            Ok(Err(error @ ConnectError::WrongPin { .. })) => worst = Some(error),
            Ok(Err(error)) => worst = worst.or(Some(error)),
            Err(ended) => worst = worst.or(Some(ConnectError::Socket(io::Error::other(ended)))),
        }
    }
    Err(worst.unwrap_or_else(|| resolve(io::ErrorKind::NotFound.into())))
}

async fn dial_one(
    socket_address: SocketAddr,
    address: Address,
    pin: Pin,
    streams: u32,
) -> Result<(Endpoint, Connection), ConnectError> {
    let endpoint = endpoint::client(socket_address).map_err(ConnectError::Socket)?;
    let (config, expected) = endpoint::client_config(pin, streams);
    let connecting = endpoint
        .connect_with(config, socket_address, tls::NO_NAME)
        .map_err(|error| ConnectError::Socket(io::Error::other(error)))?;
    match connecting.await {
        Ok(connection) => Ok((endpoint, connection)),
        Err(_) if expected.mismatched() => Err(ConnectError::WrongPin { address }),
        Err(source) => Err(ConnectError::Unreachable { address, source }),
    }
}
