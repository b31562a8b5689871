//! The shell around the developer's state machine: it plans, reads, sends and listens.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use patchwire_delta::Signature;
use patchwire_protocol::{
    limits,
    manifest::{Entry, Manifest},
    message::{
        inner::DeveloperMessage,
        push::Push,
        value::WireDigest,
    },
    operation::{Operation, Source},
    path::RelativePath,
    session::sender::{Basis, Content, Input, Outcome, Output, Planned, Sender},
};
use patchwire_tree::{Counts, Draft};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    blocking,
    content::{self, ContentError},
    error::ClientError,
    memory::{Memory, Remembered},
    request::Progress,
    session::Session,
};

/// How often the agent hears from us while we read.
const ALIVE: Duration = Duration::from_secs(5);

/// How long the agent has to hear that a push is called off.
const CALL_OFF: Duration = Duration::from_secs(1);

/// What plans are made of.
#[derive(Debug)]
pub(crate) struct Plans {
    pub(crate) root: PathBuf,
    pub(crate) memory: Arc<Memory>,
    pub(crate) target: Arc<Manifest>,
    pub(crate) delete_any: bool,
    pub(crate) dry_run: bool,
}

/// How a conversation ended.
#[derive(Debug)]
pub(crate) enum End {
    /// As the state machine says.
    Outcome(Outcome),
    /// The plan was all that was asked for.
    Planned,
}

/// One attempt of a push over one session.
#[derive(Debug)]
pub(crate) struct Conversation {
    session: Session,
    plans: Plans,
    sender: Sender,
    remembered: Option<Remembered>,
    draft: Option<Drafted>,
    content: Option<mpsc::Receiver<Result<Content, ContentError>>>,
    reading: bool,
    counts: Option<Counts>,
    content_sent: u64,
    sent_at: Option<Instant>,
    /// Until when the agent has to say something, on a stream that may be dead.
    first_word: Option<Instant>,
}

/// A plan that waits for signatures.
#[derive(Debug)]
struct Drafted {
    draft: Draft,
    available: Manifest,
    signatures: HashMap<RelativePath, Signature>,
    asked: Vec<RelativePath>,
}

impl Conversation {
    pub(crate) async fn new(
        mut session: Session,
        header: Push,
        plans: Plans,
    ) -> Result<Self, ClientError> {
        let remembered = plans.memory.recall();
        let mut known = remembered
            .as_ref()
            .map(|r| (r.epoch, WireDigest(r.manifest.root())));
        if plans.dry_run {
            // There is no push that the agent could refuse for its base: the greeting tells.
            let greeting = session.greeted().await?;
            known = known.filter(|(epoch, root)| {
                *epoch == greeting.epoch && Some(*root) == greeting.root
            });
        }
        let first_word = session.patience.map(|patience| Instant::now() + patience);
        let sender = Sender::new(header, known, Instant::now());
        Ok(Self {
            session,
            plans,
            sender,
            remembered,
            draft: None,
            content: None,
            reading: false,
            counts: None,
            content_sent: 0,
            sent_at: None,
            first_word,
        })
    }

    /// The agent's name, if it said anything.
    pub(crate) fn agent(&self) -> Option<&str> {
        Some(self.session.greeting()?.name.as_str())
    }

    /// Tells whether everything was sent, so that it may have been applied.
    pub(crate) const fn is_sent(&self) -> bool {
        self.sender.is_sent()
    }

    /// When everything was sent.
    pub(crate) const fn sent_at(&self) -> Option<Instant> {
        self.sent_at
    }

    /// What the plan amounts to, if there was one.
    pub(crate) const fn counts(&self) -> Option<Counts> {
        self.counts
    }

    /// Converses until the push has ended one way or another.
    pub(crate) async fn run(
        &mut self,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<End, ClientError> {
        loop {
            while let Some(output) = self.sender.poll_output() {
                if let Some(end) = self.perform(output, progress).await? {
                    return Ok(end);
                }
            }
            if self.sender.is_sent() && self.sent_at.is_none() {
                self.sent_at = Some(Instant::now());
            }
            let deadline = self
                .sender
                .poll_timeout()
                .map(tokio::time::Instant::from_std);
            let content = async {
                match &mut self.content {
                    Some(content) if self.reading => content.recv().await,
                    _ => std::future::pending().await,
                }
            };
            let first_word = self.first_word.map(tokio::time::Instant::from_std);
            let silent = async {
                match first_word {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let timeout = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                message = self.session.next() => {
                    self.first_word = None;
                    let message = message?.ok_or(ClientError::Lost { source: None })?;
                    self.sender.handle_input(Input::Message(message), Instant::now());
                }
                piece = content => {
                    self.reading = false;
                    // The thread says how it ended unless it panicked.
                    let piece = piece.ok_or(ClientError::Lost { source: None })??;
                    if let Content::Piece(bytes) = &piece {
                        self.content_sent += bytes.len() as u64;
                        progress(Progress::Sending { sent: self.content_sent });
                    }
                    self.sender.handle_input(Input::Content(piece), Instant::now());
                }
                () = sleep(ALIVE), if self.reading => {
                    // A large file with little to send: that is not silence.
                    self.reading = false;
                    self.sender.handle_input(Input::Content(Content::Alive), Instant::now());
                }
                () = silent => {
                    tracing::debug!("the stream that was kept says nothing any more");
                    return Err(ClientError::Lost { source: None });
                }
                () = timeout => self.sender.handle_timeout(Instant::now()),
            }
        }
    }

    async fn perform(
        &mut self,
        output: Output,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Option<End>, ClientError> {
        let planned = match output {
            Output::Send(message) => {
                return match self.session.send(&message).await {
                    Ok(()) => Ok(None),
                    Err(error @ ClientError::Lost { source: Some(_) }) => self
                        .last_words(error)
                        .await
                        .map(|outcome| Some(End::Outcome(outcome))),
                    // An agent that takes nothing has nothing to say either.
                    Err(error) => Err(error),
                };
            }
            Output::Progress(phase) => {
                progress(Progress::Agent(phase));
                return Ok(None);
            }
            Output::Read => {
                self.reading = true;
                return Ok(None);
            }
            Output::Finished(outcome) => return Ok(Some(End::Outcome(outcome))),
            Output::Plan(basis) => self.plan(basis).await,
            Output::Diff(signatures) => self.diff(signatures),
        };
        match planned {
            Ok(planned) if !self.plans.dry_run => {
                self.sender
                    .handle_input(Input::Planned(planned), Instant::now());
                Ok(None)
            }
            ended => {
                self.call_off().await;
                ended.map(|_| Some(End::Planned))
            }
        }
    }

    /// Tells the agent that nothing more will come, and waits until it has heard so: the next push
    /// waits for this one, and this process may end before its last words have left.
    async fn call_off(&mut self) {
        let heard = async {
            self.session.send(&DeveloperMessage::Abort).await?;
            while self.session.next().await?.is_some() {}
            Ok::<_, ClientError>(())
        };
        // If it doesn't hear it, it notices by the silence.
        let _ = timeout(CALL_OFF, heard).await;
    }

    /// An agent that refuses a push says so and ends the stream, while we may still be sending:
    /// what it said is worth more than that we could not go on.
    async fn last_words(&mut self, error: ClientError) -> Result<Outcome, ClientError> {
        while let Ok(Ok(Some(message))) =
            timeout(limits::STALL, self.session.next()).await
        {
            self.sender
                .handle_input(Input::Message(message), Instant::now());
            while let Some(output) = self.sender.poll_output() {
                if let Output::Finished(outcome) = output {
                    return Ok(outcome);
                }
            }
        }
        Err(error)
    }

    async fn plan(&mut self, basis: Basis) -> Result<Planned, ClientError> {
        // What was being read was planned against another base.
        self.content = None;
        self.reading = false;
        let (available, managed, offered) = match basis {
            Basis::Offered { manifest, managed } => (manifest, managed, true),
            Basis::Remembered => match self.remembered.take() {
                Some(remembered) => (remembered.manifest, true, false),
                None => return Err(ClientError::Lost { source: None }),
            },
        };
        let nothing = Manifest::default();
        let base = if managed { &available } else { &nothing };
        let draft = patchwire_tree::plan(base, &available, &self.plans.target);
        self.counts = Some(draft.counts());
        self.check(base, draft.counts())?;
        if self.plans.dry_run {
            return Ok(Planned::Operations(Vec::new()));
        }

        let wants = draft.wants().to_vec();
        let (memory, wanted) = (Arc::clone(&self.plans.memory), wants.clone());
        let digests: Vec<_> = wanted.iter().map(|path| digest(&available, path)).collect();
        let signatures: HashMap<_, _> = blocking::run(move || {
            let recalled =
                |(path, digest): (_, Option<_>)| Some((path, memory.signature(digest?)?));
            wanted
                .into_iter()
                .zip(digests)
                .filter_map(recalled)
                .collect()
        })
        .await;
        let mut bytes = 0;
        let fits = |path: &RelativePath| {
            bytes += path.as_bytes().len() + 8;
            bytes <= limits::FRAME / 2
        };
        let asked: Vec<_> = wants
            .into_iter()
            .filter(|path| !signatures.contains_key(path))
            .take(limits::SIGNATURES)
            .take_while(fits)
            .collect();
        let drafted = Drafted {
            draft,
            available,
            signatures,
            asked: asked.clone(),
        };
        // Only of what it has just offered can the agent be asked for signatures.
        if offered && !asked.is_empty() {
            self.draft = Some(drafted);
            return Ok(Planned::Wants(asked));
        }
        Ok(self.finish(drafted))
    }

    fn diff(&mut self, signatures: Vec<Vec<u8>>) -> Result<Planned, ClientError> {
        let Some(mut drafted) = self.draft.take() else {
            return Err(ClientError::Misbehaved {
                what: "signatures nobody asked for".to_owned(),
            });
        };
        let asked = std::mem::take(&mut drafted.asked);
        for (path, bytes) in asked.into_iter().zip(signatures) {
            // One that is not of the file that was offered would only make a useless delta.
            let offered = match drafted.available.get(&path) {
                Some(Entry::File { len, .. }) => Some(*len),
                _ => None,
            };
            if let Ok(signature) = Signature::decode(&bytes)
                && Some(signature.basis_len()) == offered
            {
                drafted.signatures.insert(path, signature);
            }
        }
        Ok(self.finish(drafted))
    }

    /// Fixes the operations, and begins to read what they send.
    fn finish(&mut self, drafted: Drafted) -> Planned {
        let Drafted {
            draft,
            mut signatures,
            ..
        } = drafted;
        let plan = draft.finish(|path| signatures.contains_key(path));
        let deltas = plan
            .operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Put {
                    path,
                    source: Source::Delta { .. },
                    ..
                } => signatures.remove(path),
                Operation::Put { .. } | Operation::Delete { .. } => None,
            });
        let signatures = deltas.collect();
        self.content = Some(content::read(content::Plan {
            root: self.plans.root.clone(),
            operations: plan.operations.clone(),
            signatures,
        }));
        Planned::Operations(plan.operations)
    }

    /// The brakes: what a wrong directory looks like.
    fn check(&self, base: &Manifest, counts: Counts) -> Result<(), ClientError> {
        if self.plans.delete_any || base.is_empty() {
            return Ok(());
        }
        let root = self.plans.root.clone();
        if self.plans.target.is_empty() {
            return Err(ClientError::Empty { root });
        }
        if counts.deletes_more_than_half(base) {
            let files = base
                .entries()
                .iter()
                .filter(|entry| !entry.entry.is_directory());
            let (deleted, managed) = (counts.deleted, files.count() as u64);
            return Err(ClientError::DeletesTooMuch {
                deleted,
                managed,
                root,
            });
        }
        Ok(())
    }
}

fn digest(available: &Manifest, path: &RelativePath) -> Option<patchwire_delta::Digest> {
    match available.get(path) {
        Some(Entry::File { digest, .. }) => Some(*digest),
        _ => None,
    }
}
