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

/// How long the last packets have to leave when a connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

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
    let (endpoint, connection) = dial(relay, streams).await?;

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
