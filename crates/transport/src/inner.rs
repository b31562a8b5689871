//! The stream between developer and agent: TLS from end to end over a stream that the relay pipes.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use patchwire_protocol::{
    limits,
    message::relay::{Incoming, PeerName},
};
use quinn::{RecvStream, SendStream};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::{
    connection::OpenError,
    stream::{FrameReader, FrameWriter, ReceiveError, receive_header},
    tls,
};

/// How long the other end may take for its part of the handshake.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a stream got no inner session.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The relay's header did not come or is none.
    #[error("the relay did not announce the stream as it should")]
    Header(#[source] ReceiveError),
    /// The other end is not who it should be, or went away.
    #[error("the handshake with the other end failed")]
    Tls(#[source] io::Error),
    /// The other end does not speak the inner protocol.
    #[error("the other end does not speak the inner protocol: update the older of the two")]
    Protocol,
    /// The other end was too slow.
    #[error("the other end did not answer within {timeout:?}")]
    TimedOut {
        /// How long it had.
        timeout: Duration,
    },
}

/// An authenticated, encrypted byte stream to the other end of the deployment.
///
/// End it with [`shutdown`](tokio::io::AsyncWriteExt::shutdown): an end without it reads as an error
/// at the other end, so that what was cut is not taken for whole.
#[derive(Debug)]
pub struct InnerStream {
    tls: TlsStream<Piped>,
    peer: PeerName,
    traffic: Traffic,
}

/// The receiving half behind the relay's reply, and how the agent wants to be called.
pub(crate) type Opened = Result<(RecvStream, PeerName), OpenError>;

/// What the relay replies before it pipes.
pub(crate) type Reply = Pin<Box<dyn Future<Output = Opened> + Send + Sync>>;

impl InnerStream {
    /// Authenticates both ends of a stream that the relay was asked for and on which its reply is
    /// still to come: what this end says first goes with the request.
    pub(crate) async fn connect(
        config: Arc<ClientConfig>,
        send: SendStream,
        reply: Reply,
    ) -> Result<Self, OpenError> {
        let traffic = Traffic::default();
        let piped = Piped::new(send, Receiving::Replied(reply), traffic.clone());
        let name = ServerName::try_from(tls::NO_NAME).expect("it is a DNS name");
        let connecting = TlsConnector::from(config).connect(name, piped);
        match connecting.into_fallible().await {
            Ok(mut connected) => match connected.get_mut().0.receiving.take_peer() {
                Some(peer) => Ok(Self::new(connected.into(), peer, traffic)?),
                None => Err(HandshakeError::Protocol.into()),
            },
            // The relay may have refused before all was written to it: what it says is what counts.
            Err((error, piped)) => match piped.receiving {
                Receiving::Refused(refused) => Err(refused),
                Receiving::Replied(reply) => match reply.await {
                    Ok(_) => Err(HandshakeError::Tls(error).into()),
                    Err(refused) => Err(refused),
                },
                Receiving::Open { .. } => Err(HandshakeError::Tls(error).into()),
            },
        }
    }

    fn new(
        tls: TlsStream<Piped>,
        peer: PeerName,
        traffic: Traffic,
    ) -> Result<Self, HandshakeError> {
        if !tls::is_inner(tls.get_ref().1.alpn_protocol()) {
            return Err(HandshakeError::Protocol);
        }
        Ok(Self { tls, peer, traffic })
    }

    /// How the other end wants to be called, as the relay says; it identifies nobody.
    #[must_use]
    pub const fn peer_name(&self) -> &PeerName {
        &self.peer
    }

    /// Counts this stream's bytes, also after it was split.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }

    /// Splits the stream into messages in and messages out, of at most `limit` bytes.
    #[must_use]
    pub fn into_frames(
        self,
        limit: usize,
    ) -> (FrameReader<ReadHalf<Self>>, FrameWriter<WriteHalf<Self>>) {
        let (read, write) = tokio::io::split(self);
        (
            FrameReader::new(read, limit),
            FrameWriter::new(write, limit),
        )
    }
}

impl AsyncRead for InnerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for InnerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}

/// A stream that came to an agent, not yet authenticated.
#[derive(Debug)]
pub struct IncomingStream {
    send: SendStream,
    recv: RecvStream,
    config: Arc<ServerConfig>,
}

impl IncomingStream {
    pub(crate) const fn new(send: SendStream, recv: RecvStream, config: Arc<ServerConfig>) -> Self {
        Self { send, recv, config }
    }

    /// Authenticates the developer, within ten seconds. To be run in a task of its own, so that a
    /// slow stream holds up no other.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]; the stream is gone after it, and the connection is not.
    pub async fn handshake(self) -> Result<InnerStream, HandshakeError> {
        let timed_out = |_| HandshakeError::TimedOut {
            timeout: HANDSHAKE_TIMEOUT,
        };
        timeout(HANDSHAKE_TIMEOUT, self.accept())
            .await
            .map_err(timed_out)?
    }

    async fn accept(mut self) -> Result<InnerStream, HandshakeError> {
        let Incoming { developer } = receive_header(&mut self.recv, limits::FRAME_UNAUTHENTICATED)
            .await
            .map_err(HandshakeError::Header)?;
        let traffic = Traffic::default();
        let receiving = Receiving::Open {
            recv: self.recv,
            peer: None,
        };
        let piped = Piped::new(self.send, receiving, traffic.clone());
        let accepted = TlsAcceptor::from(self.config)
            .accept(piped)
            .await
            .map_err(HandshakeError::Tls)?;
        InnerStream::new(accepted.into(), developer, traffic)
    }
}

/// The bytes that a stream has carried below TLS.
#[derive(Debug, Clone, Default)]
pub struct Traffic(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// The bytes written to the transport's stream.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// The bytes read from the transport's stream.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }
}

/// Both halves of a QUIC stream as one, counted.
#[derive(Debug)]
struct Piped {
    send: SendStream,
    receiving: Receiving,
    traffic: Traffic,
}

/// The receiving half of a stream.
enum Receiving {
    /// The relay's reply comes first.
    Replied(Reply),
    /// The relay refused the stream.
    Refused(OpenError),
    /// What comes is the other end's.
    Open {
        recv: RecvStream,
        /// Whose it is, until that was asked for.
        peer: Option<PeerName>,
    },
}

impl Receiving {
    const fn take_peer(&mut self) -> Option<PeerName> {
        match self {
            Self::Open { peer, .. } => peer.take(),
            Self::Replied(_) | Self::Refused(_) => None,
        }
    }

    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&mut RecvStream>> {
        if let Self::Replied(reply) = self {
            *self = match ready!(reply.as_mut().poll(context)) {
                Ok((recv, peer)) => Self::Open {
                    recv,
                    peer: Some(peer),
                },
                Err(refused) => Self::Refused(refused),
            };
        }
        Poll::Ready(match self {
            Self::Open { recv, .. } => Ok(recv),
            Self::Replied(_) | Self::Refused(_) => Err(io::ErrorKind::ConnectionRefused.into()),
        })
    }
}

impl fmt::Debug for Receiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replied(_) => f.write_str("Replied"),
            Self::Refused(error) => f.debug_tuple("Refused").field(error).finish(),
            Self::Open { recv, .. } => f.debug_tuple("Open").field(recv).finish(),
        }
    }
}

impl Piped {
    const fn new(send: SendStream, receiving: Receiving, traffic: Traffic) -> Self {
        Self {
            send,
            receiving,
            traffic,
        }
    }
}

impl AsyncRead for Piped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let recv = ready!(self.receiving.poll_open(context))?;
        ready!(AsyncRead::poll_read(Pin::new(recv), context, buffer))?;
        let len = buffer.filled().len() - before;
        let received = &self.traffic.0.received;
        received.fetch_add(len as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Piped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let len = ready!(AsyncWrite::poll_write(
            Pin::new(&mut self.send),
            context,
            bytes
        ))?;
        let sent = &self.traffic.0.sent;
        sent.fetch_add(len as u64, Ordering::Relaxed);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), context)
    }
}
