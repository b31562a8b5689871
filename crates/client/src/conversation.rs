//! The shell around the developer's state machine: it plans, reads, sends and listens.

use std::{
    collections::HashMap,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use patchwire_delta::{DiffOptions, Digest, DigestReader, FirstRound, Signature};
use patchwire_protocol::{
    limits,
    listing::{Kept, Listing},
    manifest::{Entry, Manifest},
    message::{
        inner::{DeveloperMessage, SignRequest, SignWhat},
        push::{OfferId, Push},
        value::WireDigest,
    },
    operation::{Operation, Source},
    path::RelativePath,
    session::sender::{self, Content, Input, Outcome, Output, Planned, Sender},
    sketch::Sketch,
};
use patchwire_transport::random_u64;
use patchwire_tree::{Change, Counts, Draft};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    blocking,
    content::{self, Basis, ContentError, Rounds},
    error::ClientError,
    memory::{Head, Memory},
    request::Progress,
    session::Session,
};

/// How often the agent hears from us while we read.
const ALIVE: Duration = Duration::from_secs(5);

/// How long the agent has to hear that a push is called off.
const CALL_OFF: Duration = Duration::from_secs(1);

/// The shortest file, in bytes, that two rounds are worth: below it a single one costs as little.
const TWO_ROUNDS: u64 = 8 << 10;

/// How many bytes have to be missing after two rounds for a third.
const THREE_ROUNDS: u64 = 64 << 10;

/// How much content may be sent before it is noted that the agent may have kept some of it.
const WORTH_KEEPING: u64 = 1 << 20;

/// How many of the largest parts of a first push are named.
const LARGEST: usize = 3;

/// What plans are made of.
#[derive(Debug)]
pub(crate) struct Plans {
    pub(crate) root: PathBuf,
    pub(crate) memory: Arc<Memory>,
    pub(crate) target: Arc<Manifest>,
    pub(crate) target_root: WireDigest,
    pub(crate) delete_any: bool,
    pub(crate) mirror: bool,
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
    remembered: Option<Head>,
    /// What the agent was told of the target, for it to list only what differs.
    sketch: Option<Sketch>,
    draft: Option<Drafted>,
    content: Option<mpsc::Receiver<Result<Content, ContentError>>>,
    reading: bool,
    counts: Option<Counts>,
    changes: Option<Vec<Change>>,
    largest: Vec<(RelativePath, u64)>,
    content_sent: u64,
    sent_at: Option<Instant>,
    /// Whether the agent has taken some of the content.
    is_further: bool,
    /// Whether it is noted that the agent may have kept something of this.
    noted: bool,
    /// Until when the agent has to say something, on a stream that may be dead.
    first_word: Option<Instant>,
}

/// A plan that waits for signatures.
#[derive(Debug)]
struct Drafted {
    draft: Draft,
    available: Arc<Manifest>,
    /// Contents that the agent has the beginning of, or all.
    kept: HashMap<Digest, Kept>,
    bases: HashMap<RelativePath, Basis>,
    asked: Vec<SignRequest>,
    /// Files that one round was made over or two, and that are signed for the next.
    rounds: HashMap<RelativePath, Round>,
}

/// What a round came to.
#[derive(Debug)]
struct Round {
    found: FirstRound,
    read: content::Unchanged,
    /// What a delta is made from if there is no other round.
    basis: Basis,
    /// Whether it is the first.
    is_first: bool,
}

impl Conversation {
    pub(crate) async fn new(
        mut session: Session,
        mut header: Push,
        plans: Plans,
    ) -> Result<Self, ClientError> {
        // What is remembered says nothing of what was kept of an attempt that was cut: the agent does.
        let remembered = plans
            .memory
            .head()
            .filter(|_| !plans.mirror && !plans.memory.is_interrupted());
        let mut known = remembered.map(|head| (head.epoch, head.root));
        if plans.dry_run {
            // There is no push that the agent could refuse for its base: the greeting tells.
            let greeting = session.greeted().await?;
            known = known
                .filter(|(epoch, root)| *epoch == greeting.epoch && Some(*root) == greeting.root);
        }
        if known.is_none() {
            let target = Arc::clone(&plans.target);
            let sketch = move |seed| Sketch::of(&target, seed);
            if let Ok(seed) = random_u64() {
                header.sketch = Some(blocking::run(move || sketch(seed)).await);
            }
        }
        let sketch = header.sketch.clone();
        let first_word = session.patience.map(|patience| Instant::now() + patience);
        let sender = Sender::new(header, known, Instant::now());
        Ok(Self {
            session,
            plans,
            sender,
            remembered,
            sketch,
            draft: None,
            content: None,
            reading: false,
            counts: None,
            changes: None,
            largest: Vec::new(),
            content_sent: 0,
            sent_at: None,
            noted: false,
            is_further: false,
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

    /// Whether the agent has taken enough of the content to keep it.
    pub(crate) const fn is_further(&self) -> bool {
        self.is_further
    }

    /// When everything was sent.
    pub(crate) const fn sent_at(&self) -> Option<Instant> {
        self.sent_at
    }

    /// What the plan amounts to, if there was one.
    pub(crate) const fn counts(&self) -> Option<Counts> {
        self.counts
    }

    /// What would become of which file, if that is all that was asked for.
    pub(crate) fn take_changes(&mut self) -> Option<Vec<Change>> {
        self.changes.take()
    }

    /// What a first push has most to send of, the most first.
    pub(crate) fn take_largest(&mut self) -> Vec<(RelativePath, u64)> {
        std::mem::take(&mut self.largest)
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
                        if self.content_sent > WORTH_KEEPING && !self.noted {
                            self.noted = true;
                            self.plans.memory.note_interruption();
                        }
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
            Output::Received(received) => {
                self.is_further = true;
                progress(Progress::Sending { sent: received });
                return Ok(None);
            }
            Output::Read => {
                self.reading = true;
                return Ok(None);
            }
            Output::Finished(outcome) => return Ok(Some(End::Outcome(outcome))),
            Output::Plan(basis) => self.plan(basis).await,
            Output::Diff(signatures) => self.diff(signatures).await,
        };
        match planned {
            Ok(planned) if !self.plans.dry_run => {
                if matches!(planned, Planned::Operations(_)) {
                    progress(Progress::Sending { sent: 0 });
                }
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
        while let Ok(Ok(Some(message))) = timeout(limits::STALL, self.session.next()).await {
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

    async fn plan(&mut self, basis: sender::Basis) -> Result<Planned, ClientError> {
        // What was being read was planned against another base.
        self.content = None;
        self.reading = false;
        let (available, kept, managed, is_offered) = match basis {
            sender::Basis::Offered {
                id,
                listing,
                managed,
            } => {
                let Listing { manifest, kept } = self.listing(id, listing).await?;
                (Arc::new(manifest), kept, managed, true)
            }
            sender::Basis::Remembered => (self.remembered_tree().await?, Vec::new(), true, false),
        };
        let nothing = Manifest::default();
        let base = if managed { &*available } else { &nothing };
        let draft = patchwire_tree::plan(base, &available, &self.plans.target);
        self.counts = Some(draft.counts());
        self.check(base, draft.counts())?;
        if self.plans.dry_run {
            self.changes = Some(draft.changes(base));
            return Ok(Planned::Operations(0));
        }
        if base.is_empty() {
            self.largest = draft.largest();
            self.largest.truncate(LARGEST);
        }

        let kept: HashMap<_, _> = kept.into_iter().map(|kept| (kept.digest, kept)).collect();
        let target = Arc::clone(&self.plans.target);
        let is_kept = |path: &&RelativePath| {
            digest(&target, path).is_some_and(|digest| kept.contains_key(&digest))
        };
        let wants: Vec<_> = draft
            .wants()
            .iter()
            .filter(|path| !is_kept(path))
            .cloned()
            .collect();
        let (memory, wanted) = (Arc::clone(&self.plans.memory), wants.clone());
        let digests: Vec<_> = wanted.iter().map(|path| digest(&available, path)).collect();
        let bases: HashMap<_, _> = blocking::run(move || {
            let recalled = |(path, digest): (_, Option<_>)| {
                let signature = memory.signature(digest?)?;
                Some((path, Basis::Signature(signature)))
            };
            wanted
                .into_iter()
                .zip(digests)
                .filter_map(recalled)
                .collect()
        })
        .await;
        let mut drafted = Drafted {
            draft,
            available,
            kept,
            bases,
            asked: Vec::new(),
            rounds: HashMap::new(),
        };
        // Only of what it has just offered can the agent be asked for signatures.
        if is_offered {
            let requests = wants
                .into_iter()
                .filter(|path| !drafted.bases.contains_key(path))
                .map(|path| SignRequest {
                    what: match len(&drafted.available, &path) {
                        TWO_ROUNDS.. => SignWhat::FirstRound,
                        _ => SignWhat::Whole,
                    },
                    path,
                });
            drafted.asked = askable(requests);
        }
        Ok(self.go_on(drafted))
    }

    /// The tree whose root the agent was told. Most often, nothing has changed since.
    async fn remembered_tree(&self) -> Result<Arc<Manifest>, ClientError> {
        if self.remembered.map(|head| head.root) == Some(self.plans.target_root) {
            return Ok(Arc::clone(&self.plans.target));
        }
        let memory = Arc::clone(&self.plans.memory);
        let recalled = blocking::run(move || {
            let tree = memory.recall();
            if tree.is_none() {
                // Sent again, the push asks the agent what it has.
                let _ = memory.forget();
            }
            tree
        });
        recalled.await.ok_or(ClientError::Lost { source: None })
    }

    /// What the agent offered, in terms of what is here.
    async fn listing(&self, id: OfferId, listing: Vec<u8>) -> Result<Listing, ClientError> {
        let (target, sketch) = (Arc::clone(&self.plans.target), self.sketch.clone());
        let listing = blocking::run(move || {
            let mut bytes = Vec::new();
            zstd::Decoder::new(&listing[..])
                .and_then(|decoder| {
                    // Cut there, it is no listing.
                    let limit = limits::LISTING as u64;
                    decoder.take(limit).read_to_end(&mut bytes)
                })
                .map_err(|error| error.to_string())?;
            Listing::decode(&bytes, id, &target, sketch.as_ref())
                .map_err(|error| crate::error::chain(&error))
        });
        listing
            .await
            .map_err(|what| ClientError::Misbehaved { what })
    }

    async fn diff(&mut self, signatures: Vec<Vec<u8>>) -> Result<Planned, ClientError> {
        let Some(mut drafted) = self.draft.take() else {
            return Err(ClientError::Misbehaved {
                what: "signatures nobody asked for".to_owned(),
            });
        };
        let (root, target) = (self.plans.root.clone(), Arc::clone(&self.plans.target));
        let drafted = blocking::run(move || {
            let asked = std::mem::take(&mut drafted.asked);
            let again = asked
                .into_iter()
                .zip(signatures)
                .filter_map(|(request, bytes)| {
                    // Without a signature the file is sent whole.
                    let signature = Signature::decode(&bytes).ok()?;
                    drafted.take_signature(request, signature, &root, &target)
                });
            drafted.asked = askable(again.collect::<Vec<_>>());
            drafted
        });
        Ok(self.go_on(drafted.await))
    }

    /// Asks for the signatures that are still missing, or fixes the operations.
    fn go_on(&mut self, drafted: Drafted) -> Planned {
        if drafted.asked.is_empty() {
            return self.finish(drafted);
        }
        let asked = drafted.asked.clone();
        self.draft = Some(drafted);
        Planned::Wants(asked)
    }

    /// Fixes the operations, and begins to read what they send.
    fn finish(&mut self, drafted: Drafted) -> Planned {
        let Drafted {
            draft,
            kept,
            mut bases,
            rounds,
            ..
        } = drafted;
        // What was found in one round is of use, too, where the next was not had.
        bases.extend(rounds.into_iter().map(|(path, round)| (path, round.basis)));
        let mut operations = draft.finish(|path| bases.contains_key(path)).operations;
        let mut in_order = Vec::new();
        for operation in &mut operations {
            if let Operation::Put {
                path,
                entry: Entry::File { len, digest, .. },
                source,
            } = operation
            {
                match source {
                    Source::Delta { .. } => in_order.extend(bases.remove(path)),
                    Source::Whole { kept: have } => {
                        let kept = kept.get(digest).filter(|kept| kept.len == *len);
                        *have = kept.map_or(0, |kept| kept.have);
                    }
                    Source::None | Source::Copy { .. } => {}
                }
            }
        }
        let count = operations.len() as u64;
        if count > 0 {
            self.content = Some(content::read(content::Plan {
                root: self.plans.root.clone(),
                operations,
                bases: in_order,
            }));
        }
        Planned::Operations(count)
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

/// Makes the first round over a file, if it still is what the target says.
fn first_round(
    signature: &Signature,
    root: &Path,
    path: &RelativePath,
    target: &Manifest,
) -> Option<(FirstRound, content::Unchanged)> {
    let file = patchwire_tree::open_file(root, path).ok()?;
    let read = file.metadata().ok()?.into();
    let mut file = DigestReader::new(file);
    let options = DiffOptions {
        digest: digest(target, path),
        ..DiffOptions::default()
    };
    let first = FirstRound::read(signature, &mut file, options).ok()?;
    (Some(file.digest()) == options.digest).then_some((first, read))
}

/// Makes the second round over a file, if that still is the one of the first, and says what is missing
/// after it, if a third is worth it.
fn refine(
    found: &FirstRound,
    second: &Signature,
    read: content::Unchanged,
    root: &Path,
    path: &RelativePath,
) -> Option<FirstRound> {
    let file = patchwire_tree::open_file(root, path).ok()?;
    let refined = found.refine(second, &file).ok()?;
    let is_unchanged = content::Unchanged::from(file.metadata().ok()?) == read;
    // Where most is new, smaller blocks find little.
    let finds = (found.missing() - refined.missing()) * 8 >= found.missing();
    (is_unchanged && finds && refined.missing() >= THREE_ROUNDS).then_some(refined)
}

impl Drafted {
    /// Takes a signature that was asked for. Gives what is to be asked for next of the same file.
    fn take_signature(
        &mut self,
        request: SignRequest,
        signature: Signature,
        root: &Path,
        target: &Manifest,
    ) -> Option<SignRequest> {
        let SignRequest { path, what } = request;
        match what {
            SignWhat::Regions(_) => {
                let Round {
                    found,
                    read,
                    is_first,
                    ..
                } = self.rounds.remove(&path)?;
                let refined = match is_first && found.missing() >= THREE_ROUNDS {
                    true => refine(&found, &signature, read, root, &path),
                    false => None,
                };
                let rounds = Rounds {
                    first: found,
                    second: signature,
                    read,
                };
                let basis = Basis::Rounds(Box::new(rounds));
                let Some(found) = refined else {
                    self.bases.insert(path, basis);
                    return None;
                };
                let round = Round {
                    found,
                    read,
                    basis,
                    is_first: false,
                };
                return self.ask_again(path, round);
            }
            // One that is not of the file that was offered would only make a useless delta.
            SignWhat::Whole | SignWhat::FirstRound
                if signature.basis_len() != len(&self.available, &path) =>
            {
                return None;
            }
            SignWhat::Whole => {}
            SignWhat::FirstRound => {
                if let Some((found, read)) = first_round(&signature, root, &path, target) {
                    let round = Round {
                        found,
                        read,
                        basis: Basis::Signature(signature),
                        is_first: true,
                    };
                    return self.ask_again(path, round);
                }
            }
        }
        self.bases.insert(path, Basis::Signature(signature));
        None
    }

    /// Asks for the signature of what is still missing, if that costs less than it can save.
    fn ask_again(&mut self, path: RelativePath, round: Round) -> Option<SignRequest> {
        let regions = round.found.regions();
        if regions.is_empty() || round.found.missing() <= 2 * regions.signature_len() {
            self.bases.insert(path, round.basis);
            return None;
        }
        let what = SignWhat::Regions(regions.encode());
        self.rounds.insert(path.clone(), round);
        Some(SignRequest { path, what })
    }
}

/// As many requests as fit into a message.
fn askable(requests: impl IntoIterator<Item = SignRequest>) -> Vec<SignRequest> {
    let mut bytes = 0;
    let fits = |request: &SignRequest| {
        let regions = match &request.what {
            SignWhat::Regions(regions) => regions.len(),
            SignWhat::Whole | SignWhat::FirstRound => 0,
        };
        bytes += request.path.as_bytes().len() + regions + 16;
        bytes <= limits::FRAME / 2
    };
    requests
        .into_iter()
        .take(limits::SIGNATURES)
        .take_while(fits)
        .collect()
}

fn len(available: &Manifest, path: &RelativePath) -> u64 {
    available.get(path).map_or(0, Entry::content_len)
}

fn digest(available: &Manifest, path: &RelativePath) -> Option<Digest> {
    match available.get(path) {
        Some(Entry::File { digest, .. }) => Some(*digest),
        _ => None,
    }
}
