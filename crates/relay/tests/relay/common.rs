//! A relay in this process, and ends that attach to it.

use std::{net::SocketAddr, path::Path, time::Duration};

use patchwire_protocol::{
    limits,
    message::relay::{EXPORTER_LABEL, Hello, PeerName, PresentedKey},
    version::VersionRange,
};
use patchwire_relay::{Relay, RelayConfig};
use patchwire_transport::{
    DeploymentLink, FrameReader, FrameWriter, InnerStream, RelayConnection, RelayLink, Role, dial,
};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    task::JoinHandle,
};

/// Only so that a broken relay fails a test instead of holding it up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct TestRelay {
    pub(crate) link: RelayLink,
    pub(crate) address: SocketAddr,
    pub(crate) state: TempDir,
    shutdown: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl TestRelay {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| ())
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let state = tempfile::tempdir().expect("a temporary directory");
        let mut config = RelayConfig::new(state.path());
        config.listen = Some(([127, 0, 0, 1], 0).into());
        change(&mut config);
        Self::start_in(state, config)
    }

    /// The same relay again, after its end.
    pub(crate) fn start_again(state: TempDir, address: SocketAddr) -> Self {
        let mut config = RelayConfig::new(state.path());
        config.listen = Some(address);
        Self::start_in(state, config)
    }

    fn start_in(state: TempDir, config: RelayConfig) -> Self {
        let relay = Relay::bind(config).expect("a free port");
        let (shutdown, ended) = oneshot::channel();
        Self {
            link: relay.link().clone(),
            address: relay.local_address(),
            state,
            shutdown,
            serving: tokio::spawn(relay.serve(async {
                ended.await.ok();
            })),
        }
    }

    /// Tells the relay to drain; gives what waits for its end.
    pub(crate) fn drain(self) -> (JoinHandle<()>, TempDir) {
        self.shutdown.send(()).expect("the relay runs");
        (self.serving, self.state)
    }

    pub(crate) fn mint(&self, app: &str) -> DeploymentLink {
        mint(&self.link, app)
    }
}

pub(crate) fn mint(relay: &RelayLink, app: &str) -> DeploymentLink {
    let app = app.parse().expect("a name");
    DeploymentLink::mint(relay, app, "dev".parse().expect("a name")).expect("randomness")
}

pub(crate) async fn developer(link: &DeploymentLink) -> RelayConnection {
    RelayConnection::connect(link, Role::Developer, "ana", PATIENCE)
        .await
        .expect("the relay welcomes a developer")
}

pub(crate) async fn agent(link: &DeploymentLink, name: &str) -> RelayConnection {
    RelayConnection::connect(link, Role::Agent, name, PATIENCE)
        .await
        .expect("the relay welcomes an agent")
}

/// Both ends of one new stream.
pub(crate) async fn open(
    developer: &RelayConnection,
    agent: &RelayConnection,
) -> (InnerStream, InnerStream) {
    let accept = async {
        let incoming = agent.accept().await.expect("the agent is attached");
        incoming.handshake().await.expect("the developer is one")
    };
    let (opened, accepted) = tokio::join!(developer.open(), accept);
    (opened.expect("an agent is attached"), accepted)
}

/// Sends a few bytes each way.
pub(crate) async fn greet(left: &mut InnerStream, right: &mut InnerStream) {
    say_hello(left, right).await;
    say_hello(right, left).await;
}

async fn say_hello(from: &mut InnerStream, to: &mut InnerStream) {
    from.write_all(b"hello").await.expect("the stream is open");
    from.flush().await.expect("the stream is open");
    let mut bytes = [0; 5];
    to.read_exact(&mut bytes).await.expect("the stream is open");
    assert_eq!(&bytes, b"hello");
}

/// A connection on which the test says itself what it wants.
pub(crate) struct RawPeer {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    /// Drives the connection.
    _endpoint: Endpoint,
}

impl RawPeer {
    pub(crate) async fn dial(relay: &RelayLink) -> Self {
        let (endpoint, connection) = dial(relay, 8).await.expect("the relay answers");
        let (send, recv) = connection.open_bi().await.expect("a stream is allowed");
        Self {
            connection,
            send,
            recv,
            _endpoint: endpoint,
        }
    }

    pub(crate) fn hello(&self, link: &DeploymentLink, role: Role) -> Hello {
        let credentials = link.credentials(role).expect("the link is a full one");
        let mut exporter = [0; 32];
        self.connection
            .export_keying_material(&mut exporter, EXPORTER_LABEL, &[])
            .expect("32 bytes can be exported");
        Hello {
            versions: VersionRange::SUPPORTED,
            role,
            relay_key: PresentedKey(*link.relay().relay_key().expose()),
            app: credentials.app().clone(),
            deployment: credentials.deployment().clone(),
            developer: credentials.developer_key(),
            agent: credentials.agent_key(),
            name: PeerName::nearest("raw"),
            signature: credentials.sign_hello(&exporter),
        }
    }

    pub(crate) fn into_frames(self) -> RawFrames {
        RawFrames {
            writer: FrameWriter::new(self.send, limits::FRAME),
            reader: FrameReader::new(self.recv, limits::FRAME),
            connection: self.connection,
            _endpoint: self._endpoint,
        }
    }
}

pub(crate) struct RawFrames {
    pub(crate) connection: Connection,
    pub(crate) writer: FrameWriter<SendStream>,
    pub(crate) reader: FrameReader<RecvStream>,
    _endpoint: Endpoint,
}

pub(crate) fn write_file(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("the file can be written");
}
