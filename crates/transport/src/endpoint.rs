//! QUIC endpoints and their settings.
//!
//! The numbers were measured: a large first window and a short first guess of the round trip make
//! the first push and a reconnection fast; quinn keeps state for every stream that it allows, so few
//! are allowed before a peer has said who it is.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
    congestion::CubicConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    identity::{Pin, RelayIdentity},
    tls::{self, ExpectedKey},
};

/// The streams that a peer may have open at the relay once it is welcome, and the relay at an agent.
pub const STREAMS: u32 = 64;

/// How long a connection may be silent before it counts as lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

const KEEP_ALIVE: Duration = Duration::from_secs(5);
const INITIAL_RTT: Duration = Duration::from_millis(100);
const INITIAL_WINDOW: u64 = 256 << 10;
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
const SEND_WINDOW: u64 = 16 << 20;
const UDP_BUFFER: usize = 4 << 20;

/// What a peer has before the relay knows it.
const STREAMS_UNAUTHENTICATED: u32 = 8;
const WINDOW_UNAUTHENTICATED: u32 = 64 << 10;

/// The handshakes that wait to be looked at, and the bytes that wait with one.
const INCOMING: usize = 1024;
const INCOMING_BYTES: u64 = 64 << 10;

const SUITE_IS_THERE: &str = "the ring provider has AES-128-GCM, which QUIC begins with";

/// Makes the relay's endpoint, bound to `address`.
///
/// # Errors
///
/// The I/O error if the socket can't be had.
pub fn listen(identity: &RelayIdentity, address: SocketAddr) -> io::Result<Endpoint> {
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, identity.reset_key().expose());
    let connection_id_key = identity.connection_id_key();
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_id_key)));

    let crypto =
        QuicServerConfig::try_from(tls::outer_server(identity)).map_err(io::Error::other)?;
    let mut transport = transport();
    transport
        .max_concurrent_bidi_streams(STREAMS_UNAUTHENTICATED.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(WINDOW_UNAUTHENTICATED.into())
        .send_window(WINDOW_UNAUTHENTICATED.into());
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(Arc::new(transport))
        .max_incoming(INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES * INCOMING as u64 / 8);

    Endpoint::new(config, Some(server), bind(address)?, Arc::new(TokioRuntime))
}

/// Gives a connection that the relay has welcomed the room of a known peer.
pub fn welcome(connection: &Connection) {
    connection.set_max_concurrent_bi_streams(STREAMS.into());
    connection.set_receive_window(CONNECTION_WINDOW.into());
    connection.set_send_window(SEND_WINDOW);
}

/// Makes a peer's endpoint that can reach addresses of the same family as `remote`.
pub(crate) fn client(remote: SocketAddr) -> io::Result<Endpoint> {
    let any = if remote.is_ipv6() {
        SocketAddr::from(([0u16; 8], 0))
    } else {
        SocketAddr::from(([0u8; 4], 0))
    };
    Endpoint::new(
        EndpointConfig::default(),
        None,
        bind(any)?,
        Arc::new(TokioRuntime),
    )
}

/// How a peer connects to the relay with this pin, which may open this many streams in return.
pub(crate) fn client_config(pin: Pin, streams: u32) -> (ClientConfig, Arc<ExpectedKey>) {
    let (tls, expected) = tls::outer_client(pin);
    let crypto = QuicClientConfig::try_from(tls).expect(SUITE_IS_THERE);
    let mut transport = transport();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(streams.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW);
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    (config, expected)
}

fn transport() -> TransportConfig {
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW);
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("15 s fit 2^62 ms");
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(cubic))
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(idle))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    transport
}

fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel gives what its own limit allows: less is slower, and no reason to fail.
    socket.set_recv_buffer_size(UDP_BUFFER)?;
    socket.set_send_buffer_size(UDP_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
