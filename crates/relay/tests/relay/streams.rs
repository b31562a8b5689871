//! What streams carry, and how they end.

use std::sync::{Arc, Mutex, MutexGuard};

use patchwire_protocol::{
    limits,
    message::relay::{Hello, Incoming, Open, OpenReply, Refusal, RelayReply},
};
use patchwire_relay::{Direction, Tap};
use patchwire_transport::{
    FrameWriter, InnerStream, OpenError, RelayConnection, RelayIdentity, RelayKey, RelayLink, Role,
    endpoint, stream::receive_header,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{PATIENCE, RawPeer, TestRelay, agent, developer, greet, mint, open};

const PLAINTEXT: &[u8] = b"the source of an app that is nobody else's business";

#[derive(Debug, Default)]
struct Recording(Mutex<Vec<u8>>);

impl Tap for Recording {
    fn carried(&self, _: Direction, bytes: &[u8]) {
        self.recorded().extend(bytes);
    }
}

impl Recording {
    fn recorded(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("no test panics while it holds it")
    }

    fn relay() -> (TestRelay, Arc<Self>) {
        let recording = Arc::new(Self::default());
        let tap = Arc::clone(&recording);
        (
            TestRelay::start_with(|config| config.tap = Some(tap)),
            recording,
        )
    }

    fn holds(&self, bytes: &[u8]) -> bool {
        let recorded = self.recorded();
        recorded.windows(bytes.len()).any(|window| window == bytes)
    }

    fn len(&self) -> usize {
        self.recorded().len()
    }
}

#[tokio::test]
async fn the_relay_carries_what_it_cannot_read() {
    let (relay, recording) = Recording::relay();
    let link = relay.mint("shop");
    let (developer, agent) = (developer(&link).await, agent(&link.narrow(), "web").await);
    let (mut left, mut right) = open(&developer, &agent).await;
    let (sent, received) = (left.traffic(), right.traffic());

    left.write_all(PLAINTEXT).await.unwrap();
    left.shutdown().await.unwrap();
    let mut arrived = Vec::new();
    right.read_to_end(&mut arrived).await.unwrap();
    assert_eq!(arrived, PLAINTEXT);
    right.shutdown().await.unwrap();
    left.read_to_end(&mut arrived).await.unwrap();

    assert!(!recording.holds(PLAINTEXT));
    // Every byte passed the tap, and the counters are of those same bytes.
    assert_eq!(sent.sent(), received.received());
    assert_eq!(sent.received(), received.sent());
    assert_eq!(sent.sent() + sent.received(), recording.len() as u64);
    assert!(sent.sent() > PLAINTEXT.len() as u64);
}

/// A relay that welcomes nobody before it has all of what a developer can say by itself: one that
/// waited for a word of the relay's would wait for ever.
#[tokio::test]
async fn a_developer_says_all_it_can_before_it_is_welcome() {
    let state = tempfile::tempdir().unwrap();
    let identity = RelayIdentity::load_or_create(state.path()).unwrap();
    let endpoint = endpoint::listen(&identity, ([127, 0, 0, 1], 0).into()).unwrap();
    let address = endpoint.local_addr().unwrap().to_string();
    let key = RelayKey::new(*identity.relay_key().expose());
    let link = mint(
        &RelayLink::new(address.parse().unwrap(), identity.pin(), key),
        "shop",
    );

    let relay = async {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let (control, mut hello) = connection.accept_bi().await.unwrap();
        let limit = limits::FRAME_UNAUTHENTICATED;
        let hello: Hello = receive_header(&mut hello, limit).await.unwrap();
        let (stream, mut asked) = connection.accept_bi().await.unwrap();
        let Open::Newest = receive_header(&mut asked, limit).await.unwrap();
        // What is the agent's to hear begins as a TLS handshake does.
        assert_eq!(asked.read_u8().await.unwrap(), 22);
        let version = hello.versions.newest;
        let mut control = FrameWriter::new(control, limit);
        control
            .send(&RelayReply::Welcome { version })
            .await
            .unwrap();
        let mut stream = FrameWriter::new(stream, limit);
        let refused = OpenReply::Refused(Refusal::NoAgent);
        stream.send(&refused).await.unwrap();
        connection.closed().await;
    };
    let developer = async {
        let developer = RelayConnection::connect_to_open(&link, "ana", PATIENCE)
            .await
            .unwrap();
        assert!(matches!(developer.open().await, Err(OpenError::NoAgent)));
    };
    tokio::join!(relay, developer);
}

/// The control: what the ends do not encrypt, the same recording shows.
#[tokio::test]
async fn without_the_inner_session_the_relay_would_read_everything() {
    let (relay, recording) = Recording::relay();
    let link = relay.mint("shop");
    let mut ends = Vec::new();
    for role in [Role::Agent, Role::Developer] {
        let peer = RawPeer::dial(&relay.link).await;
        let hello = peer.hello(&link, role);
        let mut peer = peer.into_frames();
        peer.writer.send(&hello).await.unwrap();
        let reply: Option<RelayReply> = peer.reader.receive().await.unwrap();
        assert!(matches!(reply, Some(RelayReply::Welcome { .. })));
        ends.push(peer);
    }
    let [agent, developer] = &ends[..] else {
        unreachable!("two were pushed");
    };

    let (send, mut recv) = developer.connection.open_bi().await.unwrap();
    let mut writer = FrameWriter::new(send, limits::FRAME);
    writer.send(&Open::Newest).await.unwrap();
    // Nothing is waited for: what follows the header travels with it.
    let mut send = writer.into_inner();
    send.write_all(PLAINTEXT).await.unwrap();
    send.finish().unwrap();

    let (_send, mut incoming) = agent.connection.accept_bi().await.unwrap();
    let header: Incoming = receive_header(&mut incoming, limits::FRAME).await.unwrap();
    assert_eq!(header.developer.as_str(), "raw");
    assert_eq!(incoming.read_to_end(1000).await.unwrap(), PLAINTEXT);
    let reply: OpenReply = receive_header(&mut recv, limits::FRAME).await.unwrap();
    assert!(matches!(reply, OpenReply::Opened { .. }));
    assert!(recording.holds(PLAINTEXT));
}

#[tokio::test]
async fn fifty_megabytes_each_way_at_once() {
    const LEN: usize = 50_000_000;
    async fn send(mut to: impl AsyncWriteExt + Unpin, seed: usize) {
        let mut at = 0;
        while at < LEN {
            let len = (LEN - at).min(100_000);
            let bytes: Vec<u8> = (at..at + len).map(|at| byte(seed, at)).collect();
            to.write_all(&bytes).await.unwrap();
            at += len;
        }
        to.shutdown().await.unwrap();
    }
    async fn receive(mut from: impl AsyncReadExt + Unpin, seed: usize) {
        let (mut at, mut buffer) = (0, vec![0; 100_000]);
        loop {
            let len = from.read(&mut buffer).await.unwrap();
            if len == 0 {
                break;
            }
            for (offset, found) in buffer[..len].iter().enumerate() {
                assert_eq!(*found, byte(seed, at + offset), "at {}", at + offset);
            }
            at += len;
        }
        assert_eq!(at, LEN);
    }
    // A period that no power of two divides, so that swapped or lost buffers show.
    fn byte(seed: usize, at: usize) -> u8 {
        u8::try_from((at + seed) % 251).unwrap()
    }

    let relay = TestRelay::start();
    let link = relay.mint("shop");
    let (developer, agent) = (developer(&link).await, agent(&link, "web").await);
    let (left, right) = open(&developer, &agent).await;
    let (left_in, left_out) = tokio::io::split(left);
    let (right_in, right_out) = tokio::io::split(right);
    tokio::join!(
        send(left_out, 1),
        receive(right_in, 1),
        send(right_out, 2),
        receive(left_in, 2),
    );
}

#[tokio::test]
async fn one_way_may_end_before_the_other() {
    let relay = TestRelay::start();
    let link = relay.mint("shop");
    let (developer, agent) = (developer(&link).await, agent(&link, "web").await);
    let (mut left, mut right) = open(&developer, &agent).await;
    left.shutdown().await.unwrap();
    assert_eq!(right.read(&mut [0]).await.unwrap(), 0);
    right.write_all(b"the answer").await.unwrap();
    right.shutdown().await.unwrap();
    let mut answer = Vec::new();
    left.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"the answer");
}

#[tokio::test]
async fn an_end_that_goes_away_ends_the_others_stream_as_an_error() {
    async fn cut(stream: &mut InnerStream) {
        stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    }
    let relay = TestRelay::start();
    let link = relay.mint("shop");

    let (ana, web) = (developer(&link).await, agent(&link, "web").await);
    let (mut left, mut right) = open(&ana, &web).await;
    greet(&mut left, &mut right).await;
    web.close().await;
    cut(&mut left).await;

    let web = agent(&link, "web").await;
    let (mut left, mut right) = open(&ana, &web).await;
    greet(&mut left, &mut right).await;
    ana.close().await;
    cut(&mut right).await;
    cut(&mut left).await;

    // Dropping a stream without ending it is no end either; others on the connection go on.
    let ana = developer(&link).await;
    let (dropped, mut right) = open(&ana, &web).await;
    drop(dropped);
    cut(&mut right).await;
    let (mut left, mut right) = open(&ana, &web).await;
    greet(&mut left, &mut right).await;
}

#[tokio::test]
async fn a_stream_that_says_nothing_holds_up_no_other() {
    let relay = TestRelay::start();
    let link = relay.mint("shop");
    let (ana, web) = (developer(&link).await, agent(&link, "web").await);

    // A developer who opens a stream and never begins the handshake.
    let peer = RawPeer::dial(&relay.link).await;
    let hello = peer.hello(&link, Role::Developer);
    let mut silent = peer.into_frames();
    silent.writer.send(&hello).await.unwrap();
    let _: Option<RelayReply> = silent.reader.receive().await.unwrap();
    let (send, _recv) = silent.connection.open_bi().await.unwrap();
    let mut writer = FrameWriter::new(send, limits::FRAME);
    writer.send(&Open::Newest).await.unwrap();
    let stuck = tokio::spawn(web.accept().await.unwrap().handshake());

    let (mut left, mut right) = open(&ana, &web).await;
    greet(&mut left, &mut right).await;
    silent.connection.close(0u32.into(), b"");
    stuck.await.unwrap().unwrap_err();
}
