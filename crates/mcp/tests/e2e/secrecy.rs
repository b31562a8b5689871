//! The relay sees names, sizes and times, and never what is pushed.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use patchwire_protocol::{
    limits,
    message::relay::{
        EXPORTER_LABEL, EXPORTER_LEN, Hello, Incoming, Open, OpenReply, PeerName, PresentedKey,
        RelayReply,
    },
    version::VersionRange,
};
use patchwire_relay::{Direction, Relay, RelayConfig, Tap};
use patchwire_transport::{
    DeploymentLink, FrameReader, FrameWriter, RelayLink, Role, dial, stream::receive_header,
};
use tokio::runtime::Runtime;

use crate::world::{Agent, Link, World, assert_same_tree, noise};

/// Everything that a relay carried.
#[derive(Debug, Default)]
struct Recording(Mutex<Vec<u8>>);

impl Tap for Recording {
    fn carried(&self, _: Direction, bytes: &[u8]) {
        self.0.lock().unwrap().extend(bytes);
    }
}

impl Recording {
    fn holds(&self, bytes: &[u8]) -> bool {
        let recorded = self.0.lock().unwrap();
        recorded.windows(bytes.len()).any(|window| window == bytes)
    }

    fn len(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }
}

/// A relay in this process, that shows all that it carries.
struct TappedRelay {
    runtime: Runtime,
    recording: Arc<Recording>,
    link: RelayLink,
}

impl TappedRelay {
    fn start(world: &World) -> Self {
        let runtime = Runtime::new().unwrap();
        let recording = Arc::new(Recording::default());
        let mut config = RelayConfig::new(world.path("relay"));
        config.listen = Some(([127, 0, 0, 1], 0).into());
        config.tap = Some(Arc::<Recording>::clone(&recording));
        let relay = runtime.block_on(async { Relay::bind(config) }).unwrap();
        let link = relay.link().clone();
        runtime.spawn(relay.serve(std::future::pending()));
        Self {
            runtime,
            recording,
            link,
        }
    }

    fn mint(&self) -> DeploymentLink {
        DeploymentLink::mint(&self.link, "shop".parse().unwrap(), "dev".parse().unwrap()).unwrap()
    }
}

const MARKER: &[u8] = b"the source of an app that is nobody else's business";

/// A file that compresses, and holds the marker.
fn text() -> Vec<u8> {
    let lines = (0..2000_u32).map(|line| format!("line {line} is {}\n", line.pow(2) % 977));
    [MARKER.to_vec(), lines.collect::<String>().into_bytes()].concat()
}

#[test]
fn what_is_pushed_never_passes_the_relay_in_the_clear() {
    let world = World::new();
    let relay = TappedRelay::start(&world);
    let link = Link::write(&world, "shop", &relay.mint());
    let agent = Agent::idle(&world, &link, &world.path("target"));
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    // What doesn't compress stands in the content stream as it is.
    let noise = noise(300_000);
    fs::write(source.join("noise-of-the-app"), &noise).unwrap();
    let first = world.push(&link, &source).expect("done");
    // Alone in its push, the file's compressed form is the content stream.
    let text = text();
    let compressed = zstd::encode_all(&text[..], 3).unwrap();
    assert!(compressed.len() < text.len() / 2);
    fs::write(source.join("text-of-the-app.txt"), &text).unwrap();
    let second = world.push(&link, &source).expect("done");
    // And one as a delta.
    let edited = [&noise[..150_000], MARKER, &noise[150_000..]].concat();
    fs::write(source.join("noise-of-the-app"), &edited).unwrap();
    let third = world.push(&link, &source).expect("done");
    assert_same_tree(&source, &agent.root);

    let sent = first.sent() + second.sent() + third.sent();
    let pushed = (noise.len() + compressed.len()) as u64;
    let recorded = relay.recording.len();
    assert!(
        pushed <= sent && sent <= recorded,
        "{pushed}, {sent}, {recorded}"
    );
    let middle = |bytes: &[u8]| bytes[bytes.len() / 2..][..24].to_vec();
    for secret in [
        MARKER.to_vec(),
        noise[..24].to_vec(),
        middle(&noise),
        noise[noise.len() - 24..].to_vec(),
        text[text.len() - 24..].to_vec(),
        middle(&compressed),
        b"noise-of-the-app".to_vec(),
        b"text-of-the-app".to_vec(),
        first.push_id().as_bytes().to_vec(),
    ] {
        assert!(
            !relay.recording.holds(&secret),
            "{secret:?} passed the relay"
        );
    }

    // The control: the same, sent through the same relay without the inner session, is seen.
    let control = [&text[..], &noise, &compressed].concat();
    relay
        .runtime
        .block_on(send_in_the_clear(&relay.mint(), &control));
    for secret in [MARKER.to_vec(), middle(&noise), middle(&compressed)] {
        assert!(relay.recording.holds(&secret));
    }
}

/// Sends bytes from a developer to an agent that agree to do without TLS between them.
async fn send_in_the_clear(link: &DeploymentLink, bytes: &[u8]) {
    let mut connections = Vec::new();
    for role in [Role::Agent, Role::Developer] {
        let (endpoint, connection) = dial(link.relay(), 8).await.unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        let mut exporter = [0; EXPORTER_LEN];
        connection
            .export_keying_material(&mut exporter, EXPORTER_LABEL, &[])
            .unwrap();
        let credentials = link.credentials(role).unwrap();
        let hello = Hello {
            versions: VersionRange::SUPPORTED,
            role,
            relay_key: PresentedKey(*link.relay().relay_key().expose()),
            app: credentials.app().clone(),
            deployment: credentials.deployment().clone(),
            developer: credentials.developer_key(),
            agent: credentials.agent_key(),
            name: PeerName::nearest("clear"),
            signature: credentials.sign_hello(&exporter),
        };
        let mut writer = FrameWriter::new(send, limits::FRAME_UNAUTHENTICATED);
        let mut reader = FrameReader::new(recv, limits::FRAME_UNAUTHENTICATED);
        writer.send(&hello).await.unwrap();
        let reply: Option<RelayReply> = reader.receive().await.unwrap();
        assert!(
            matches!(reply, Some(RelayReply::Welcome { .. })),
            "{reply:?}"
        );
        connections.push((connection, endpoint, writer, reader));
    }
    let [(agent, ..), (developer, ..)] = &connections[..] else {
        unreachable!("there are two roles");
    };

    let (send, mut recv) = developer.open_bi().await.unwrap();
    let mut writer = FrameWriter::new(send, limits::FRAME_UNAUTHENTICATED);
    writer.send(&Open::Newest).await.unwrap();
    let mut send = writer.into_inner();
    let send = async {
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
    };
    let receive = async {
        let (_send, mut recv) = agent.accept_bi().await.unwrap();
        let header = receive_header(&mut recv, limits::FRAME_UNAUTHENTICATED).await;
        let Incoming { developer } = header.unwrap();
        assert_eq!(developer.as_str(), "clear");
        recv.read_to_end(bytes.len()).await.unwrap()
    };
    let ((), received) = tokio::join!(send, receive);
    assert!(received == bytes);
    let reply: OpenReply = receive_header(&mut recv, limits::FRAME_UNAUTHENTICATED)
        .await
        .unwrap();
    assert!(matches!(reply, OpenReply::Opened { .. }));
}
