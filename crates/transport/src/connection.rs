//! A peer's connection to its relay.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use futures_util::future::{Either, select};
use patchwire_protocol::{
    limits,
    message::relay::{
        EXPORTER_LABEL, EXPORTER_LEN, Hello, Notice, Open, OpenReply, PeerName, PresentedKey,
        Refusal, RelayReply, Role, close,
    },
    version::{Version, VersionRange},
};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use rustls::{ClientConfig, ServerConfig};
use tokio::{sync::Mutex, time};
use tracing::debug;

mod dial;
mod error;

pub use dial::dial;
pub use error::{ConnectError, Disconnected, OpenError};

use crate::{
    credentials::Credentials,
    endpoint,
    inner::{HANDSHAKE_TIMEOUT, HandshakeError, IncomingStream, InnerStream},
    link::DeploymentLink,
    stream::{FrameReader, FrameWriter, ReceiveError, SendError, receive_header},
    tls,
};

/// How long the last packet has to leave when a connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to the relay on which it has welcomed this end.
///
/// Lives while it or a stream of it lives, and does not reconnect by itself: see
/// [`Backoff`](crate::Backoff).
#[derive(Debug)]
pub struct RelayConnection {
    connection: Connection,
    version: Version,
    inner: Inner,
    first: First,
    notices: Mutex<FrameReader<RecvStream>>,
    /// Held open: its end would say that this end has nothing more to say.
    _control: FrameWriter<SendStream>,
}

#[derive(Debug)]
enum Inner {
    Developer(Arc<ClientConfig>),
    Agent(Arc<ServerConfig>),
}

/// A stream that is being opened.
type Opening = Pin<Box<dyn Future<Output = Result<InnerStream, OpenError>> + Send>>;

/// The stream that was asked for together with the connection, until it is somebody's.
#[derive(Default)]
struct First(StdMutex<Option<Opening>>);

impl First {
    fn take(&self) -> Option<Opening> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("First")
    }
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
        Self::attached(link, role, name, timeout, Asks::Nothing).await
    }

    /// Connects as a developer, and asks for a stream together with that, which saves two round
    /// trips. The first [`Self::open`] gets it, and is to follow at once.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`]. What becomes of the stream is what `open` says.
    pub async fn connect_to_open(
        link: &DeploymentLink,
        name: &str,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        Self::attached(link, Role::Developer, name, timeout, Asks::Stream).await
    }

    async fn attached(
        link: &DeploymentLink,
        role: Role,
        name: &str,
        timeout: Duration,
        asks: Asks,
    ) -> Result<Self, ConnectError> {
        let credentials = link.credentials(role)?;
        let attached = Box::pin(attach(link, &credentials, PeerName::nearest(name), asks));
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

    /// Opens a stream to the newest agent of the deployment and authenticates it, within ten seconds.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; only with [`OpenError::Lost`] is the connection of no more use.
    pub async fn open(&self) -> Result<InnerStream, OpenError> {
        let Inner::Developer(config) = &self.inner else {
            return Err(OpenError::NotDeveloper);
        };
        let opening = match self.first.take() {
            Some(first) => first,
            None => Box::pin(open(self.connection.clone(), Arc::clone(config))),
        };
        time::timeout(HANDSHAKE_TIMEOUT, opening)
            .await
            .unwrap_or_else(|_| {
                let timeout = HANDSHAKE_TIMEOUT;
                Err(HandshakeError::TimedOut { timeout }.into())
            })
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

    /// Ends the connection and every stream on it, and sees to it that the relay is told so.
    ///
    /// The packet that says it is sent once: QUIC would stay for three probe timeouts, about 0.1 s, to
    /// say it again, and nobody is to wait for that. If it is lost, the relay notices by its idle
    /// timeout.
    pub async fn close(self) {
        let sent = || self.connection.stats().udp_tx.datagrams;
        let before = sent();
        self.connection.close(close::DONE.into(), &[]);
        let farewell = async {
            while sent() == before {
                tokio::task::yield_now().await;
            }
            // What was counted may have been on its way before.
            tokio::task::yield_now().await;
        };
        let _ = time::timeout(CLOSE_TIMEOUT, farewell).await;
    }
}

/// What a connection is to bring with it.
#[derive(Clone, Copy)]
enum Asks {
    Nothing,
    Stream,
}

async fn attach(
    link: &DeploymentLink,
    credentials: &Credentials,
    name: PeerName,
    asks: Asks,
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
    let (_, connection) = dial(relay, streams).await?;

    let introduced = Box::pin(introduce(&connection, link, credentials, name));
    let (welcomed, first) = match (&inner, asks) {
        (Inner::Developer(config), Asks::Stream) => {
            // Polled second: the relay takes the connection's first stream for the hello.
            let opening: Opening = Box::pin(open(connection.clone(), Arc::clone(config)));
            match select(introduced, opening).await {
                Either::Left((welcomed, opening)) => (welcomed, Some(opening)),
                Either::Right((opened, introduced)) => {
                    let opened: Opening = Box::pin(std::future::ready(opened));
                    (introduced.await, Some(opened))
                }
            }
        }
        (Inner::Developer(_) | Inner::Agent(_), _) => (introduced.await, None),
    };
    let Welcomed {
        version,
        notices,
        control,
    } = welcomed?;
    Ok(RelayConnection {
        connection,
        version,
        inner,
        first: First(StdMutex::new(first)),
        notices: Mutex::new(notices),
        _control: control,
    })
}

/// What the relay's welcome leaves.
struct Welcomed {
    version: Version,
    notices: FrameReader<RecvStream>,
    control: FrameWriter<SendStream>,
}

/// Says who this end is, and waits for the relay's welcome.
async fn introduce(
    connection: &Connection,
    link: &DeploymentLink,
    credentials: &Credentials,
    name: PeerName,
) -> Result<Welcomed, ConnectError> {
    let lost = |error: ConnectionError| ConnectError::Lost(error.into());
    let (send, recv) = connection.open_bi().await.map_err(lost)?;
    let mut exporter = [0; EXPORTER_LEN];
    connection
        .export_keying_material(&mut exporter, EXPORTER_LABEL, &[])
        .expect("32 bytes can be exported from a finished handshake");
    let hello = Hello {
        versions: VersionRange::SUPPORTED,
        role: credentials.role(),
        relay_key: PresentedKey(*link.relay().relay_key().expose()),
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
        (Ok(Some(RelayReply::Welcome { version })), Ok(())) => Ok(Welcomed {
            version,
            notices,
            control,
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

/// Opens a stream to the agent. What is said to it goes with the request to the relay, whose reply
/// then comes together with what the agent says.
async fn open(connection: Connection, config: Arc<ClientConfig>) -> Result<InnerStream, OpenError> {
    let lost = |error: ConnectionError| OpenError::Lost(error.into());
    let (send, mut recv) = connection.open_bi().await.map_err(lost)?;
    let mut send = FrameWriter::new(send, limits::FRAME_UNAUTHENTICATED);
    match send.send(&Open::Newest).await {
        Ok(()) => {}
        // The relay may have answered before it read: the answer is what counts.
        Err(error) => debug!(%error, "the relay did not read the stream's header"),
    }
    let reply = async move {
        let reply = receive_header(&mut recv, limits::FRAME_UNAUTHENTICATED)
            .await
            .map_err(|error| match error {
                ReceiveError::Io(error) => OpenError::Cut(error),
                misbehaved => OpenError::Misbehaved(misbehaved),
            })?;
        match reply {
            OpenReply::Opened { agent } => Ok((recv, agent)),
            OpenReply::Refused(Refusal::NoAgent) => Err(OpenError::NoAgent),
            OpenReply::Refused(Refusal::DeploymentSecret) => Err(OpenError::WrongSecret),
            OpenReply::Refused(refusal) => Err(OpenError::Refused(refusal)),
        }
    };
    let opened = InnerStream::connect(config, send.into_inner(), Box::pin(reply)).await;
    opened.map_err(|error| match (error, connection.close_reason()) {
        // The stream ended with its connection, which says why.
        (OpenError::Cut(_) | OpenError::Handshake(_), Some(reason)) => lost(reason),
        (error, _) => error,
    })
}
