//! An agent, or whoever took its place, that does not keep to the protocol.

use std::{
    fs,
    path::PathBuf,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use patchwire_delta::{Signature, SignatureOptions};
use patchwire_protocol::{
    codec, limits,
    listing::{Digests, Listing},
    manifest::{Manifest, ManifestEntry},
    message::{
        inner::{AgentMessage, DeveloperMessage, Greeting, Rebase, SignaturePart},
        push::{
            Answer, ConflictWith, Failure, FailureCode, OfferId, Phase, Push, PushId, PushStatus,
        },
        value::{Text, WireDigest},
    },
    operation::{Operation, Source, stream},
    session::answer::refusal,
};
use patchwire_transport::{FrameReader, InnerStream, RelayConnection, Role};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

use super::{
    frame,
    words::{file, zeros},
};
use crate::world::{Link, PATIENCE, Pushed, Relay, World, at, noise};

/// A relay, a developer's tree, and an agent that the test plays.
struct Stage {
    world: World,
    relay: Relay,
    link: Link,
    source: PathBuf,
    /// How many conversations there were.
    conversations: Arc<AtomicU32>,
}

impl Stage {
    fn new() -> Self {
        let world = World::new();
        let relay = Relay::start(&world);
        let link = world.link(&relay, "shop", "dev");
        let source = world.path("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("large"), noise(50_000)).unwrap();
        Self {
            world,
            relay,
            link,
            source,
            conversations: Arc::default(),
        }
    }

    /// Attaches an agent that plays its `part` in every conversation.
    async fn play<F>(&self, part: impl Fn(Conversation) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let link = self.link.read();
        let agent = RelayConnection::connect(&link, Role::Agent, "mallory", PATIENCE);
        let agent = agent.await.unwrap();
        let conversations = Arc::clone(&self.conversations);
        tokio::spawn(async move {
            // Until the next one takes its place.
            while let Ok(incoming) = agent.accept().await {
                // A client that has heard enough breaks off.
                let Ok(stream) = incoming.handshake().await else {
                    continue;
                };
                conversations.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(part(Conversation::new(stream)));
            }
        });
    }

    fn push(&self) -> Pushed {
        let pushed = self
            .world
            .push_with(&self.link, &self.source, &["--wait", "5s"]);
        assert!(!pushed.stderr.contains("panicked"), "{pushed:#?}");
        pushed
    }

    /// The same for a person.
    fn push_for_a_person(&self) -> Output {
        let mut command = self.world.patchwire();
        command
            .args(["push", "--wait", "5s", "--link"])
            .arg(at(&self.link.full));
        command.arg("--root").arg(&self.source).output().unwrap()
    }

    /// Has an agent play this part, and checks that the push ends as one with an agent that makes
    /// no sense, saying so.
    async fn expect_misbehaved<F>(
        &mut self,
        case: &str,
        words: &str,
        part: impl Fn(Conversation) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.play(part).await;
        let before = self.conversations.load(Ordering::Relaxed);
        let pushed = self.push().expect_error("protocol", 1);
        let message = pushed.message();
        assert!(
            message.contains("the agent misbehaves"),
            "{case}: {message}"
        );
        assert!(message.contains(words), "{case}: {message}");
        // Nothing gets better by trying again.
        assert_eq!(
            self.conversations.load(Ordering::Relaxed),
            before + 1,
            "{case}"
        );
        self.relay.process.assert_well();
    }
}

const OFFER: OfferId = OfferId(7);

/// A listing of empty files, whatever their paths.
fn raw_listing(paths: &[&[u8]]) -> Vec<u8> {
    let mut listing = codec::encode(&(0_u8, paths.len() as u64, 0_u64, 0_u8));
    for path in paths {
        listing.extend(codec::encode(&(
            0_u16,
            path.to_vec(),
            (0_u32, 0o644_u16, 0_u64),
        )));
    }
    listing.extend(vec![0; 8 * paths.len()]);
    listing
}

struct Conversation {
    reader: FrameReader<ReadHalf<InnerStream>>,
    writer: WriteHalf<InnerStream>,
}

impl Conversation {
    fn new(stream: InnerStream) -> Self {
        let (read, writer) = tokio::io::split(stream);
        Self {
            reader: FrameReader::new(read, limits::FRAME),
            writer,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> bool {
        self.writer.write_all(bytes).await.is_ok() && self.writer.flush().await.is_ok()
    }

    async fn say(&mut self, message: &AgentMessage) -> bool {
        self.write(&frame(message)).await
    }

    /// Says this until nobody listens any more.
    async fn go_on(&mut self, message: &AgentMessage) {
        while self.say(message).await {}
    }

    async fn hear(&mut self) -> Option<DeveloperMessage> {
        self.reader.receive().await.ok().flatten()
    }

    async fn greet(&mut self) {
        let greeting = Greeting {
            name: Text::cut("mallory\x1b[2J"),
            epoch: 1,
            root: None,
        };
        self.say(&AgentMessage::Greeting(greeting)).await;
    }

    /// Greets, and hears the push.
    async fn begin(&mut self) -> Option<Box<Push>> {
        self.greet().await;
        match self.hear().await {
            Some(DeveloperMessage::Push(push)) => Some(push),
            _ => None,
        }
    }

    /// Says that so many bytes will say what stands here.
    async fn announce(&mut self, listing: u64) -> bool {
        let rebase = Rebase {
            epoch: 1,
            managed: true,
            offer: OFFER,
            listing,
        };
        self.say(&AgentMessage::Rebase(rebase)).await
    }

    /// Says what stands here, in these bytes.
    async fn list(&mut self, listing: &[u8]) -> bool {
        let listing = zstd::encode_all(listing, 1).unwrap();
        self.announce(listing.len() as u64).await && self.say(&AgentMessage::Listing(listing)).await
    }

    /// Says that these entries stand here.
    async fn offer(&mut self, entries: &[ManifestEntry]) -> bool {
        let manifest = Manifest::from_sorted(entries.to_vec()).unwrap();
        self.list(&Listing::encode(
            &manifest,
            &[],
            OFFER,
            Digests::Short,
            None,
        ))
        .await
    }

    /// Until the developer breaks off.
    async fn listen(&mut self) {
        while self.hear().await.is_some() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_offers_what_is_no_tree_is_said_to_misbehave() {
    let mut stage = Stage::new();
    for (case, paths) in [
        ("not sorted", [&b"b"[..], b"a"]),
        ("twice", [b"a", b"a"]),
        ("without its directory", [b"a", b"no/directory"]),
        ("inside a file", [b"a", b"a/b"]),
    ] {
        let part = move |mut with: Conversation| async move {
            with.begin().await;
            with.list(&raw_listing(&paths)).await;
            with.listen().await;
        };
        stage.expect_misbehaved(case, "in a manifest", part).await;
    }
    for path in [
        &b"../escaped"[..],
        b"/escaped",
        b".patchwire/x",
        b"a\x1b[2J",
        b"",
    ] {
        let part = move |mut with: Conversation| async move {
            with.begin().await;
            with.list(&raw_listing(&[path])).await;
            with.listen().await;
        };
        let case = path.escape_ascii().to_string();
        stage
            .expect_misbehaved(&case, "a malformed listing", part)
            .await;
    }
    for (case, listing) in [
        ("nothing", Vec::new()),
        ("no listing", vec![9; 40]),
        ("cut", raw_listing(&[b"a"])[..9].to_vec()),
        ("too long", [raw_listing(&[b"a"]), vec![0]].concat()),
        (
            "more entries than there may be",
            vec![0, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
        ),
        ("the same as another sketch", vec![0, 0, 0, 3, 1, 1, 1]),
    ] {
        let part = move |mut with: Conversation| {
            let listing = listing.clone();
            async move {
                with.begin().await;
                with.list(&listing).await;
                with.listen().await;
            }
        };
        stage.expect_misbehaved(case, "listing", part).await;
    }
    let bomb = zeros(1 << 30);
    let part = move |mut with: Conversation| {
        let bomb = bomb.clone();
        async move {
            with.begin().await;
            with.announce(bomb.len() as u64).await;
            with.say(&AgentMessage::Listing(bomb)).await;
            with.listen().await;
        }
    };
    stage.expect_misbehaved("a bomb", "listing", part).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_waits_for_no_greeting() {
    let stage = Stage::new();
    let part = |mut with: Conversation| async move {
        let Some(DeveloperMessage::Push(push)) = with.hear().await else {
            return;
        };
        with.greet().await;
        with.say(&AgentMessage::Answer(Box::new(done(&push)))).await;
        with.listen().await;
    };
    stage.play(part).await;
    stage.push().expect("done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_never_comes_to_an_end_is_said_to_misbehave() {
    let mut stage = Stage::new();
    let part = |mut with: Conversation| async move {
        with.begin().await;
        with.announce(1000).await;
        with.go_on(&AgentMessage::Listing(vec![0; 300])).await;
    };
    stage
        .expect_misbehaved("too long a listing", "1200 bytes", part)
        .await;
    let part = |mut with: Conversation| async move {
        with.begin().await;
        with.announce(u64::MAX).await;
        with.listen().await;
    };
    stage
        .expect_misbehaved("more than there may be", "announced", part)
        .await;
    let part = |mut with: Conversation| async move {
        with.begin().await;
        with.announce(1000).await;
        with.go_on(&AgentMessage::Listing(Vec::new())).await;
    };
    stage
        .expect_misbehaved("a listing of nothing", "listing", part)
        .await;
    let part = |mut with: Conversation| async move {
        with.begin().await;
        while with.offer(&[]).await {}
    };
    stage
        .expect_misbehaved("another base again and again", "base", part)
        .await;
    for part in [
        SignaturePart {
            index: 0,
            bytes: Vec::new(),
            last: false,
        },
        SignaturePart {
            index: 7,
            bytes: vec![1],
            last: true,
        },
        SignaturePart {
            index: u32::MAX,
            bytes: Vec::new(),
            last: true,
        },
    ] {
        let case = format!("{part:?}");
        let play = move |mut with: Conversation| {
            let part = part.clone();
            async move {
                with.begin().await;
                with.offer(&[file("large", &noise(49_000))]).await;
                let asked = with.hear().await;
                assert!(
                    matches!(asked, Some(DeveloperMessage::Sign(_))),
                    "{asked:?}"
                );
                with.go_on(&AgentMessage::Signature(part)).await;
            }
        };
        stage.expect_misbehaved(&case, "signature", play).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_says_what_was_not_asked_for_is_said_to_misbehave() {
    let mut stage = Stage::new();
    let part = |mut with: Conversation| async move {
        let Some(push) = with.begin().await else {
            return;
        };
        let mut answer = refusal(&push, Failure::new(FailureCode::Io, "not yours"));
        answer.push_id = PushId([9; 16]);
        answer.status = PushStatus::Done;
        with.say(&AgentMessage::Answer(Box::new(answer))).await;
        with.listen().await;
    };
    stage
        .expect_misbehaved("another's answer", "the answer to another push", part)
        .await;

    let part = SignaturePart {
        index: 0,
        bytes: Vec::new(),
        last: true,
    };
    for (case, message) in [
        (
            "a signature was not expected",
            AgentMessage::Signature(part),
        ),
        ("a listing was not expected", AgentMessage::Listing(vec![1])),
        ("a receipt was not expected", AgentMessage::Received(1)),
        ("lines was not expected", AgentMessage::LogLines(Vec::new())),
    ] {
        let part = move |mut with: Conversation| {
            let message = message.clone();
            async move {
                with.begin().await;
                with.say(&message).await;
                with.listen().await;
            }
        };
        stage.expect_misbehaved(case, case, part).await;
    }
    let raw: [(&str, Vec<u8>); 5] = [
        ("framing", u32::MAX.to_be_bytes().to_vec()),
        ("framing", vec![0, 0x10, 0, 1]),
        ("no valid message", vec![0; 4]),
        ("no valid message", frame(&250_u8)),
        // As many bytes as 64 bits hold.
        ("no valid message", frame(&(2_u32, u64::MAX))),
    ];
    for (words, bytes) in raw {
        let case = format!("{bytes:?}");
        let part = move |mut with: Conversation| {
            let bytes = bytes.clone();
            async move {
                with.begin().await;
                with.write(&bytes).await;
                with.listen().await;
            }
        };
        stage.expect_misbehaved(&case, words, part).await;
    }
    // Not even a greeting.
    let part = |mut with: Conversation| async move {
        with.say(&AgentMessage::Progress(Phase::Staging)).await;
        with.listen().await;
    };
    stage.expect_misbehaved("no greeting", "greet", part).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_does_not_understand_or_goes_away_is_told_from_one_that_misbehaves() {
    let mut stage = Stage::new();
    let part = |mut with: Conversation| async move {
        with.begin().await;
        with.say(&AgentMessage::Misunderstood(Text::cut("no idea")))
            .await;
        with.listen().await;
    };
    stage.play(part).await;
    let pushed = stage.push().expect_error("protocol", 1);
    assert!(
        pushed.message().contains("doesn't understand us: no idea"),
        "{pushed:#?}"
    );

    // Gone before everything was there: nothing was applied, and the client knows it.
    let part = |mut with: Conversation| async move {
        with.begin().await;
    };
    stage.play(part).await;
    stage.push().expect_error("connection-lost", 3);

    // Gone after: that it was applied can't be ruled out.
    let part = |mut with: Conversation| async move {
        with.begin().await;
        with.offer(&[]).await;
        while let Some(message) = with.hear().await {
            if message == DeveloperMessage::ContentEnd {
                return;
            }
        }
    };
    stage.play(part).await;
    stage.push().expect("unknown");
    stage.relay.process.assert_well();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signatures_that_are_none_cost_bytes_and_nothing_else() {
    let mut stage = Stage::new();
    let basis = noise(49_000);
    let valid = Signature::of(&basis, SignatureOptions::new(patchwire_delta::Seed(1))).encode();
    let with = |at: usize, bytes: &[u8]| {
        let mut signature = valid.clone();
        signature[at..at + bytes.len()].copy_from_slice(bytes);
        signature
    };
    // The layout is in patchwire_delta::Signature::encode's documentation.
    let cases = [
        ("valid", valid.clone(), true),
        ("a block size of 0", with(4, &[0; 4]), false),
        ("the largest block size", with(4, &[0xff; 4]), false),
        ("the longest basis", with(16, &[0xff; 8]), false),
        ("another version", with(3, &[9]), false),
        (
            "of a file of another length",
            with(16, &[0, 0, 0, 0, 0, 0, 0xbf, 0x67]),
            false,
        ),
        ("cut", valid[..valid.len() - 1].to_vec(), false),
        ("none", Vec::new(), false),
    ];
    for (case, signature, is_used) in cases {
        let delta = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&delta);
        let basis = basis.clone();
        let part = move |mut with: Conversation| {
            let (signature, seen, basis) = (signature.clone(), Arc::clone(&seen), basis.clone());
            async move {
                let Some(push) = with.begin().await else {
                    return;
                };
                let offered = [file("large", &basis)];
                with.offer(&offered).await;
                let asked = with.hear().await;
                assert!(
                    matches!(asked, Some(DeveloperMessage::Sign(_))),
                    "{asked:?}"
                );
                let part = SignaturePart {
                    index: 0,
                    bytes: signature,
                    last: true,
                };
                with.say(&AgentMessage::Signature(part)).await;
                let (mut count, mut content) = (0, Vec::new());
                while let Some(message) = with.hear().await {
                    match message {
                        DeveloperMessage::Push(push) => count = push.operations,
                        DeveloperMessage::Content(bytes) => content.extend(bytes),
                        DeveloperMessage::ContentEnd => break,
                        _ => {}
                    }
                }
                let content = zstd::decode_all(&content[..]).unwrap();
                let offered = Manifest::from_sorted(offered.to_vec()).unwrap();
                let operations = stream::read(&mut &content[..], count, &offered, false).unwrap();
                let is_delta = |operation: &&Operation| {
                    matches!(
                        operation,
                        Operation::Put {
                            source: Source::Delta { .. },
                            ..
                        }
                    )
                };
                let deltas = operations.iter().filter(is_delta).count();
                seen.store(u32::try_from(deltas).unwrap(), Ordering::Relaxed);
                with.say(&AgentMessage::Answer(Box::new(done(&push)))).await;
                with.listen().await;
            }
        };
        stage.play(part).await;
        // Forgotten, so that it asks again.
        let state = stage.world.path("home/.local/state");
        let _ = fs::remove_dir_all(state);
        stage.push().expect("done");
        assert_eq!(delta.load(Ordering::Relaxed), u32::from(is_used), "{case}");
        stage.relay.process.assert_well();
    }
}

/// Takes half a minute: the time that a client gives an agent that does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_takes_nothing_more_is_not_waited_for_without_end() {
    let mut stage = Stage::new();
    // More than all buffers on the way hold.
    fs::write(stage.source.join("large"), noise(96 << 20)).unwrap();
    let conversations = Arc::clone(&stage.conversations);
    let part = move |mut with: Conversation| {
        let is_first = conversations.load(Ordering::Relaxed) == 1;
        async move {
            let Some(push) = with.begin().await else {
                return;
            };
            if is_first {
                with.offer(&[]).await;
                return std::future::pending().await;
            }
            with.say(&AgentMessage::Answer(Box::new(done(&push)))).await;
            with.listen().await;
        }
    };
    stage.play(part).await;
    stage.push().expect("done");
    assert_eq!(stage.conversations.load(Ordering::Relaxed), 2);
    stage.relay.process.assert_well();
}

fn done(push: &Push) -> Answer {
    Answer {
        status: PushStatus::Done,
        failure: None,
        epoch: 1,
        root: Some(WireDigest(push.target.0)),
        ..refusal(push, Failure::new(FailureCode::Invalid, ""))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_says_reaches_no_terminal_as_it_is() {
    const EVIL: &str = "\x1b]0;title\x07\r\u{9b}2J\x1b[31mevil";
    let stage = Stage::new();
    for status in [
        PushStatus::Done,
        PushStatus::NoChanges,
        PushStatus::Failed,
        PushStatus::RolledBack,
        PushStatus::Conflict,
    ] {
        let part = move |mut with: Conversation| async move {
            let Some(push) = with.begin().await else {
                return;
            };
            let text = || Text::cut(EVIL);
            let mut answer = refusal(&push, Failure::new(FailureCode::NotReady, EVIL));
            answer.status = status;
            answer.log_tail = vec![text()];
            answer.warnings = vec![text()];
            answer.conflict = Some(ConflictWith {
                author: text(),
                at_ms: u64::MAX,
                push_id: push.push_id,
                paths: Vec::new(),
            });
            with.say(&AgentMessage::Answer(Box::new(answer))).await;
            with.listen().await;
        };
        stage.play(part).await;
        let said = stage.push_for_a_person();
        let text = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
        let bad = text.chars().find(|char| char.is_control() && *char != '\n');
        assert_eq!(bad, None, "{status:?}: {text:?}");
        assert!(text.contains("evil"), "{status:?}: {text:?}");
    }
    let part = move |mut with: Conversation| async move {
        with.begin().await;
        with.say(&AgentMessage::Misunderstood(Text::cut(EVIL)))
            .await;
        with.listen().await;
    };
    stage.play(part).await;
    let said = stage.push_for_a_person();
    let text = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
    let bad = text.chars().find(|char| char.is_control() && *char != '\n');
    assert_eq!(bad, None, "{text:?}");
    assert!(text.contains("evil"), "{text:?}");
}
