//! Both ends with their shells: trees in memory, a virtual clock, and a link that cuts what it carries
//! into pieces, delays it, and can be cut itself.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use patchwire_delta::Digest;

use crate::session::{
    receiver::{self, Committed, Offer, Receiver, Reloaded, RolledBack, StageFailure, Verdict},
    sender::{self, Basis, Content, Outcome, Planned, Sender},
};
use crate::{
    app::AppState,
    codec,
    frame::{self, FrameDecoder},
    limits,
    listing::{Digests, Listing},
    manifest::{Entry, Manifest, ManifestEntry, Mode, tests::path},
    message::{
        inner::{AgentMessage, DeveloperMessage, SignRequest, SignWhat, SignaturePart},
        push::{AppOptions, Base, ClientId, Failure, FailureCode, OfferId, Push, PushId},
        value::{Text, WireDigest},
    },
    operation::{self, Operation, Source, stream},
    path::RelativePath,
};

/// A tree of files, as both shells of these tests keep it.
pub(super) type Tree = BTreeMap<RelativePath, Vec<u8>>;

pub(super) fn tree(files: &[(&str, &str)]) -> Tree {
    files
        .iter()
        .map(|(at, content)| (path(at), content.as_bytes().to_vec()))
        .collect()
}

pub(super) fn manifest(tree: &Tree) -> Manifest {
    let entry = |(path, content): (&RelativePath, &Vec<u8>)| ManifestEntry {
        path: path.clone(),
        entry: Entry::File {
            mode: Mode::from_bits(0o644),
            len: content.len() as u64,
            digest: Digest::of(content),
        },
    };
    Manifest::from_sorted(tree.iter().map(entry).collect()).unwrap()
}

pub(super) fn root(tree: &Tree) -> WireDigest {
    WireDigest(manifest(tree).root())
}

/// One direction of the link: frames go in, bytes come out in pieces of `piece` after `delay`.
pub(super) struct Wire {
    pub(super) flight: VecDeque<(Instant, Vec<u8>)>,
    pub(super) decoder: FrameDecoder,
    pub(super) piece: usize,
    pub(super) delay: Duration,
    /// How many bytes it carries before it is cut.
    pub(super) left: usize,
}

impl Wire {
    pub(super) fn new(piece: usize, delay: Duration, left: usize) -> Self {
        let decoder = FrameDecoder::new(limits::FRAME);
        Self {
            flight: VecDeque::new(),
            decoder,
            piece,
            delay,
            left,
        }
    }

    pub(super) fn write<T: codec::Encode>(&mut self, message: &T, now: Instant) {
        let body = codec::encode(message);
        let header = frame::header(body.len(), limits::FRAME).unwrap();
        for piece in [&header[..], &body].concat().chunks(self.piece) {
            self.flight.push_back((now + self.delay, piece.to_vec()));
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.flight.front().map(|(due, _)| *due)
    }

    pub(super) fn read<T: codec::Decode<()>>(&mut self, now: Instant) -> Vec<T> {
        while self.due().is_some_and(|due| due <= now) {
            let (_, mut piece) = self.flight.pop_front().unwrap();
            piece.truncate(self.left);
            self.left -= piece.len();
            self.decoder.push(&piece);
        }
        let next = || {
            self.decoder
                .next_frame()
                .unwrap()
                .map(|body| codec::decode(&body).unwrap())
        };
        std::iter::from_fn(next).collect()
    }
}

pub(super) struct Pair {
    pub(super) began: Instant,
    pub(super) now: Instant,
    pub(super) up: Wire,
    pub(super) down: Wire,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    pub(super) developer: Developer,
    pub(super) agent: Agent,
    pub(super) heard_before_all_was_sent: usize,
}

pub(super) struct Developer {
    pub(super) target: Tree,
    pub(super) remembered: Tree,
    pub(super) operations: Vec<Operation>,
    pub(super) basis: Option<(Manifest, bool)>,
    pub(super) pieces: VecDeque<Vec<u8>>,
    pub(super) outcome: Option<Outcome>,
    /// When it came to that.
    pub(super) ended: Option<Instant>,
    /// A file that turns out to have changed when the content is read.
    pub(super) changed: Option<RelativePath>,
    /// Whether the first piece takes its time.
    pub(super) slow: bool,
}

pub(super) struct Agent {
    pub(super) epoch: u64,
    pub(super) tree: Tree,
    pub(super) managed: bool,
    pub(super) verdict: Option<Verdict>,
    pub(super) drift: Option<(RelativePath, Vec<u8>)>,
    pub(super) push: Option<Push>,
    /// How many offers were made: the number of the last.
    pub(super) offers: u64,
    pub(super) content: Vec<u8>,
    pub(super) staged: Option<Tree>,
    pub(super) previous: Option<Tree>,
    pub(super) healthy: bool,
    pub(super) recorded: usize,
    pub(super) commits: usize,
    pub(super) finished: bool,
}

impl Pair {
    pub(super) fn new(
        remembered: &Tree,
        actual: &Tree,
        target: &Tree,
        piece: usize,
        cut: usize,
    ) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "a beginning for the virtual clock"
        )]
        let now = Instant::now();
        let delay = Duration::from_millis(50);
        let remembers = (!remembered.is_empty()).then(|| (7, root(remembered)));
        let header = Push {
            push_id: PushId([1; 16]),
            client: ClientId([2; 16]),
            author: Text::cut("ana@laptop"),
            message: Text::default(),
            epoch: 0,
            base: Base::Unknown,
            target: root(target),
            operations: 0,
            expires_ms: 0,
            force: false,
            sketch: None,
            links_may_leave: false,
            mirror: None,
            app: AppOptions::default(),
        };
        Self {
            began: now,
            now,
            up: Wire::new(piece, delay, cut),
            down: Wire::new(piece, delay, usize::MAX),
            sender: Sender::new(header, remembers, now),
            receiver: Receiver::new(now),
            developer: Developer {
                target: target.clone(),
                remembered: remembered.clone(),
                operations: Vec::new(),
                basis: None,
                pieces: VecDeque::new(),
                outcome: None,
                ended: None,
                changed: None,
                slow: true,
            },
            agent: Agent {
                epoch: 7,
                tree: actual.clone(),
                managed: true,
                verdict: None,
                drift: None,
                push: None,
                offers: 0,
                content: Vec::new(),
                staged: None,
                previous: None,
                healthy: true,
                recorded: 0,
                commits: 0,
                finished: false,
            },
            heard_before_all_was_sent: 0,
        }
    }

    /// How many times the link's delay both ways the push has taken.
    pub(super) fn round_trips(&self) -> u128 {
        let ended = self.developer.ended.expect("it has ended");
        (ended - self.began).as_millis() / (2 * self.up.delay).as_millis()
    }

    /// Runs until nothing moves any more, and gives the developer's outcome.
    pub(super) fn run(&mut self) -> Option<&Outcome> {
        loop {
            while let Some(output) = self.sender.poll_output() {
                self.developer
                    .perform(output, &mut self.sender, &mut self.up, self.now);
            }
            while let Some(output) = self.receiver.poll_output() {
                self.agent
                    .perform(output, &mut self.receiver, &mut self.down, self.now);
            }
            let next = [
                self.up.due(),
                self.down.due(),
                self.sender.poll_timeout(),
                self.receiver.poll_timeout(),
            ];
            let Some(next) = next.into_iter().flatten().min() else {
                return self.developer.outcome.as_ref();
            };
            self.now = self.now.max(next);
            for message in self.up.read::<DeveloperMessage>(self.now) {
                self.receiver
                    .handle_input(receiver::Input::Message(message), self.now);
                while let Some(output) = self.receiver.poll_output() {
                    self.agent
                        .perform(output, &mut self.receiver, &mut self.down, self.now);
                }
            }
            for message in self.down.read::<AgentMessage>(self.now) {
                if !self.sender.is_sent() {
                    self.heard_before_all_was_sent += 1;
                }
                self.sender
                    .handle_input(sender::Input::Message(message), self.now);
            }
            self.sender.handle_timeout(self.now);
            self.receiver.handle_timeout(self.now);
        }
    }
}

impl Developer {
    pub(super) fn perform(
        &mut self,
        output: sender::Output,
        to: &mut Sender,
        up: &mut Wire,
        now: Instant,
    ) {
        let input = match output {
            sender::Output::Send(message) => return up.write(&message, now),
            sender::Output::Progress(_) | sender::Output::Received(_) => return,
            sender::Output::Finished(outcome) => {
                assert_eq!(self.outcome.replace(outcome), None);
                self.ended = Some(now);
                return;
            }
            sender::Output::Plan(Basis::Remembered) => {
                self.basis = Some((manifest(&self.remembered), true));
                self.plan()
            }
            sender::Output::Plan(Basis::Offered {
                id,
                listing,
                managed,
            }) => {
                let offered = Listing::decode(&listing, id, &manifest(&self.target), None).unwrap();
                let request = |entry: &ManifestEntry| SignRequest {
                    path: entry.path.clone(),
                    what: SignWhat::Whole,
                };
                let wants: Vec<_> = offered.manifest.entries().iter().map(request).collect();
                self.basis = Some((offered.manifest, managed));
                match wants.is_empty() {
                    true => self.plan(),
                    false => sender::Input::Planned(Planned::Wants(wants)),
                }
            }
            sender::Output::Diff(signatures) => {
                let offered = &self.basis.as_ref().unwrap().0;
                for (entry, signature) in offered.entries().iter().zip(signatures) {
                    assert_eq!(signature, entry.path.as_bytes().repeat(2));
                }
                self.plan()
            }
            sender::Output::Read => sender::Input::Content(match self.changed.take() {
                Some(path) => Content::Changed(path),
                None if std::mem::take(&mut self.slow) => Content::Alive,
                None => self.pieces.pop_front().map_or(Content::End, Content::Piece),
            }),
        };
        to.handle_input(input, now);
    }

    pub(super) fn plan(&mut self) -> sender::Input {
        let (available, managed) = self.basis.clone().unwrap();
        let base = if managed {
            available
        } else {
            Manifest::default()
        };
        let target = manifest(&self.target);
        let deleted = base
            .entries()
            .iter()
            .filter(|entry| target.get(&entry.path).is_none());
        let put = target
            .entries()
            .iter()
            .filter(|e| base.get(&e.path) != Some(&e.entry));
        let content = put.clone().map(|e| self.target[&e.path].clone());
        let delete = deleted.map(|e| Operation::Delete {
            path: e.path.clone(),
        });
        self.operations = delete
            .chain(put.map(|ManifestEntry { path, entry }| Operation::Put {
                path: path.clone(),
                entry: entry.clone(),
                source: Source::Whole { kept: 0 },
            }))
            .collect();
        self.operations.sort_by(|a, b| a.path().cmp(b.path()));
        self.pieces = [stream::write(&self.operations)]
            .into_iter()
            .chain(content)
            .collect();
        sender::Input::Planned(Planned::Operations(self.operations.len() as u64))
    }
}

impl Agent {
    pub(super) fn offer(&mut self) -> Offer {
        self.offers += 1;
        let id = OfferId(self.offers);
        Offer {
            epoch: self.epoch,
            managed: self.managed,
            id,
            listing: Listing::encode(&manifest(&self.tree), &[], id, Digests::Short, None),
        }
    }

    pub(super) fn perform(
        &mut self,
        output: receiver::Output,
        to: &mut Receiver,
        down: &mut Wire,
        now: Instant,
    ) {
        use receiver::{Input, Output};
        assert!(!self.finished, "{output:?} after the end");
        let input = match output {
            Output::Send(message) => return down.write(&message, now),
            Output::Judge(push) => {
                let fits = push.epoch == self.epoch
                    && match push.base {
                        Base::Unknown => false,
                        Base::Committed(base) => base == root(&self.tree),
                        Base::Offered(id) => id.0 == self.offers,
                    };
                Input::Judged(match self.verdict.take() {
                    Some(verdict) => verdict,
                    None if fits => Verdict::Accept,
                    None => Verdict::Rebase(self.offer()),
                })
            }
            Output::Sign(requests) => {
                for (index, SignRequest { path, .. }) in requests.iter().enumerate() {
                    for last in [false, true] {
                        let bytes = path.as_bytes().to_vec();
                        let index = index.try_into().unwrap();
                        to.handle_input(Input::Signed(SignaturePart { index, bytes, last }), now);
                    }
                }
                return;
            }
            Output::Stage(push) => {
                self.push = Some(*push);
                self.content.clear();
                return;
            }
            Output::Content(bytes) => return self.content.extend(bytes),
            Output::ContentEnd => Input::Staged(self.stage()),
            Output::Discard => {
                self.staged = None;
                return;
            }
            Output::Commit => {
                self.commits += 1;
                let staged = self
                    .staged
                    .take()
                    .expect("nothing is committed that isn't staged");
                self.previous = Some(std::mem::replace(&mut self.tree, staged));
                Input::Committed(Ok(Committed {
                    epoch: self.epoch,
                    root: root(&self.tree),
                    can_roll_back: self.previous.as_ref().is_some_and(|tree| !tree.is_empty()),
                    drift: Vec::new(),
                    warnings: Vec::new(),
                    commit_us: 1,
                }))
            }
            Output::Reload => Input::Reloaded(Reloaded {
                outcome: match self.healthy {
                    true => Ok(true),
                    false => Err(Failure::new(FailureCode::AppExited, "exit status 1")),
                },
                app: None,
                log_tail: vec![Text::cut("ZeroDivisionError")],
                reload_us: 2,
                ready_us: 3,
            }),
            Output::RollBack => {
                self.tree = self.previous.take().unwrap();
                Input::RolledBack(RolledBack {
                    restored: true,
                    root: Some(root(&self.tree)),
                    problem: None,
                    lost: Vec::new(),
                    warnings: Vec::new(),
                    app: Some(AppState::default()),
                })
            }
            Output::Record(_) => {
                self.recorded += 1;
                return;
            }
            Output::Finished => {
                self.finished = true;
                return;
            }
        };
        to.handle_input(input, now);
    }

    pub(super) fn stage(&mut self) -> Result<(), StageFailure> {
        if let Some((path, content)) = self.drift.take() {
            self.tree.insert(path, content);
            return Err(StageFailure::Basis(self.offer()));
        }
        let push = self.push.as_ref().unwrap();
        let available = manifest(&self.tree);
        let mut content = &self.content[..];
        let operations = &stream::read(&mut content, push.operations, &available, false).unwrap();
        let base = if self.managed {
            available.clone()
        } else {
            Manifest::default()
        };
        let target = operation::apply(&base, &available, operations).unwrap();
        let mut staged = if self.managed {
            self.tree.clone()
        } else {
            Tree::new()
        };
        for operation in operations {
            match operation {
                Operation::Delete { path } => drop(staged.remove(path)),
                Operation::Put { path, entry, .. } => {
                    let (bytes, rest) = content.split_at(entry.content_len().try_into().unwrap());
                    content = rest;
                    staged.insert(path.clone(), bytes.to_vec());
                }
            }
        }
        assert_eq!(WireDigest(target.root()), push.target);
        assert_eq!(root(&staged), push.target);
        self.staged = Some(staged);
        Ok(())
    }
}
