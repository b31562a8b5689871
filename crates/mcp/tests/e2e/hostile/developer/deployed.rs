//! A deployment, and a developer's own connection to it to misuse.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use patchwire_delta::Digest;
use patchwire_protocol::{
    limits,
    manifest::{Manifest, ManifestEntry},
    message::{
        inner::{AgentMessage, DeveloperMessage, Greeting, Rebase},
        push::{Answer, AppOptions, Base, ClientId, FailureCode, Push, PushId, PushStatus},
        value::{Text, WireDigest},
    },
    operation::Operation,
};
use patchwire_transport::{FrameReader, InnerStream, RelayConnection, Role, random_u64};
use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf},
    time::timeout,
};

use super::super::{
    frame,
    words::{directory, file},
};
use crate::world::{Agent, Link, PATIENCE, Relay, World, assert_same_tree, tree};

/// A deployment that was pushed to once, and a developer's own connection to it.
pub(super) struct Deployed {
    pub(super) world: World,
    pub(super) relay: Relay,
    pub(super) link: Link,
    pub(super) agent: Agent,
    pub(super) source: PathBuf,
    /// What stands.
    pub(super) tree: Manifest,
    /// The push that made it stand.
    pub(super) push_id: PushId,
    pub(super) developer: RelayConnection,
}

impl Deployed {
    pub(super) async fn new() -> Self {
        let world = World::new();
        let relay = Relay::start(&world);
        let link = world.link(&relay, "shop", "dev");
        let source = world.path("source");
        fs::create_dir_all(source.join("d")).unwrap();
        for (path, content) in [("d/x", "x\n"), ("keep", "keep\n")] {
            fs::write(source.join(path), content).unwrap();
            let mode = fs::Permissions::from_mode(0o644);
            fs::set_permissions(source.join(path), mode).unwrap();
        }
        fs::set_permissions(source.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
        let tree = vec![directory("d"), file("d/x", b"x\n"), file("keep", b"keep\n")];
        // One level deeper than the rest, so that what leaves the root is seen.
        let agent = Agent::idle(&world, &link, &world.path("around/target"));
        let pushed = world.push(&link, &source).expect("done");
        let full = link.read();
        let developer = RelayConnection::connect(&full, Role::Developer, "eve", PATIENCE);
        let deployed = Self {
            tree: Manifest::from_unsorted(tree).unwrap(),
            push_id: pushed.push_id().parse().unwrap(),
            developer: developer.await.unwrap(),
            world,
            relay,
            link,
            agent,
            source,
        };
        let (_, greeting) = deployed.open().await;
        assert_eq!(greeting.root, Some(WireDigest(deployed.tree.root())));
        deployed
    }

    /// Opens a stream, and hears the greeting.
    pub(super) async fn open(&self) -> (Stream, Greeting) {
        let stream = self.developer.open().await.unwrap();
        let (read, writer) = tokio::io::split(stream);
        let mut stream = Stream {
            reader: FrameReader::new(read, limits::FRAME),
            writer,
        };
        match stream.hear().await {
            Some(AgentMessage::Greeting(greeting)) => (stream, greeting),
            other => panic!("{other:?}"),
        }
    }

    /// The first message of a push from what stands to `target`.
    pub(super) async fn header(&self, target: &Manifest, operations: &[Operation]) -> Push {
        let (_, greeting) = self.open().await;
        Push {
            push_id: PushId(u128::from(random_u64().unwrap()).to_be_bytes()),
            client: ClientId([0xee; 16]),
            author: Text::cut("eve"),
            message: Text::default(),
            epoch: greeting.epoch,
            base: Base::Committed(greeting.root.unwrap()),
            target: WireDigest(target.root()),
            operations: operations.len() as u64,
            expires_ms: 120_000,
            force: false,
            sketch: None,
            links_may_leave: false,
            mirror: None,
            app: AppOptions::default(),
        }
    }

    /// What stands with these entries put into it.
    pub(super) fn with(&self, entries: &[ManifestEntry]) -> Manifest {
        let all = self.tree.entries().iter().chain(entries).cloned();
        Manifest::from_unsorted(all.collect()).unwrap()
    }

    /// Says this, and hears how it ends.
    pub(super) async fn say(&self, frames: &[Vec<u8>]) -> Ended {
        let (mut stream, _) = self.open().await;
        for frame in frames {
            // An agent that has heard enough says so and listens no more.
            if stream.write(frame).await.is_err() {
                break;
            }
        }
        stream.end().await
    }

    /// Waits until no push is being taken, and gives the root that stands.
    pub(super) async fn settled(&self) -> Digest {
        let mut push = self.header(&Manifest::default(), &[]).await;
        push.base = Base::Unknown;
        push.force = true;
        let (mut stream, _) = self.open().await;
        stream
            .write(&frame(&DeveloperMessage::Push(Box::new(push))))
            .await
            .unwrap();
        loop {
            match stream.hear().await {
                Some(AgentMessage::Rebase(_)) => break,
                Some(AgentMessage::Progress(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        stream
            .write(&frame(&DeveloperMessage::Abort))
            .await
            .unwrap();
        stream.end().await;
        let (_, greeting) = self.open().await;
        greeting.root.unwrap().0
    }

    /// Checks that nothing changed, inside the root and around it, and that everybody is well.
    #[track_caller]
    pub(super) fn assert_untouched(&mut self, after: &str) {
        assert_eq!(tree(&self.agent.root), tree(&self.source), "after {after}");
        self.assert_nothing_outside(after);
        self.agent.process.assert_well();
        self.relay.process.assert_well();
    }

    #[track_caller]
    pub(super) fn assert_nothing_outside(&self, after: &str) {
        let around = fs::read_dir(self.world.path("around")).unwrap();
        assert_eq!(around.count(), 1, "after {after}");
        assert!(!self.world.path("escaped").exists(), "after {after}");
        assert!(!Path::new("/patchwire-escaped").exists(), "after {after}");
    }

    /// Checks that a developer who means well gets through.
    pub(super) fn assert_pushes_work(&mut self) {
        fs::write(self.source.join("keep"), "and on it goes\n").unwrap();
        let pushed = self.world.push(&self.link, &self.source);
        pushed.expect("done");
        assert_same_tree(&self.source, &self.agent.root);
        self.assert_untouched("all of it");
    }
}

pub(super) struct Stream {
    pub(super) reader: FrameReader<ReadHalf<InnerStream>>,
    pub(super) writer: WriteHalf<InnerStream>,
}

/// How the agent ended a conversation.
#[derive(Debug)]
pub(super) enum Ended {
    Answered(Box<Answer>),
    Misunderstood(String),
    /// Without a word.
    Silently,
}

impl Stream {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.writer.write_all(bytes).await?;
        self.writer.flush().await
    }

    /// The agent's next message, if it says anything more.
    pub(super) async fn hear(&mut self) -> Option<AgentMessage> {
        let heard = timeout(PATIENCE, self.reader.receive()).await;
        heard
            .expect("the agent says something or ends")
            .ok()
            .flatten()
    }

    /// Waits for what the agent says that it has.
    pub(super) async fn offered(&mut self) -> (Rebase, Vec<u8>) {
        let mut offered: Option<(Rebase, Vec<u8>)> = None;
        loop {
            match (self.hear().await, &mut offered) {
                (Some(AgentMessage::Progress(_)), _) => {}
                (Some(AgentMessage::Rebase(rebase)), _) => offered = Some((rebase, Vec::new())),
                (Some(AgentMessage::Listing(bytes)), Some((rebase, listing))) => {
                    listing.extend(bytes);
                    if listing.len() as u64 == rebase.listing {
                        return (*rebase, zstd::decode_all(&listing[..]).unwrap());
                    }
                }
                (other, _) => panic!("{other:?}"),
            }
        }
    }

    pub(super) async fn end(mut self) -> Ended {
        while let Some(message) = self.hear().await {
            match message {
                AgentMessage::Answer(answer) => return Ended::Answered(answer),
                AgentMessage::Misunderstood(what) => {
                    return Ended::Misunderstood(what.as_str().to_owned());
                }
                AgentMessage::Progress(_)
                | AgentMessage::Rebase(_)
                | AgentMessage::Listing(_)
                | AgentMessage::Received(_) => {}
                other => panic!("{other:?}"),
            }
        }
        Ended::Silently
    }
}

impl Ended {
    /// Checks that it was refused so, in words fit for a terminal.
    #[track_caller]
    pub(super) fn expect(self, case: &str, expected: &Refused) {
        let words = match (&self, expected) {
            (Self::Misunderstood(what), Refused::Misunderstood(part)) => {
                assert!(what.contains(part), "{case}: {what}");
                what.clone()
            }
            (Self::Answered(answer), Refused::Answered(status, code)) => {
                let failure = answer.failure.as_ref().unwrap();
                assert_eq!(
                    (answer.status, failure.code),
                    (*status, *code),
                    "{case}: {answer:?}"
                );
                failure.message.as_str().to_owned()
            }
            _ => panic!("{case}: {self:?} instead of {expected:?}"),
        };
        assert!(words.len() > 10, "{case}: {words}");
        assert!(!words.contains(char::is_control), "{case}: {words:?}");
    }
}

#[derive(Debug)]
pub(super) enum Refused {
    /// With these words among others.
    Misunderstood(&'static str),
    Answered(PushStatus, FailureCode),
}

pub(super) const INVALID: Refused = Refused::Answered(PushStatus::Failed, FailureCode::Invalid);
