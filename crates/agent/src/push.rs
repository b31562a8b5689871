//! One push over one stream: the shell around the protocol's state machine for the agent's end.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read},
    sync::Arc,
    time::{Duration, Instant},
};

use patchwire_protocol::{
    limits,
    listing::Digests,
    message::{
        inner::{AgentMessage, DeveloperMessage, SignRequest, SignaturePart},
        push::{Answer, Base, Failure, FailureCode, Phase, Push},
        value::Text,
    },
    operation::{OperationError, stream::StreamError},
    session::{
        answer::refusal,
        receiver::{Input, Offer, Output, Receiver, StageFailure, Verdict},
    },
};
use patchwire_transport::ReceiveError;
use patchwire_tree::{StageError, Staged, StoreError};
use tokio::{
    sync::{OwnedMutexGuard, mpsc},
    task::JoinHandle,
    time::sleep,
};

use crate::{
    answers::Recorded,
    deployment::{Deployment, Judgement, Offered, StagingError, random},
    failure,
    serve::{Reader, Writer},
};

/// How many pieces of content wait for the disk.
const AHEAD: usize = 4;

/// How often a developer hears from us while the disk is slow.
const ALIVE: Duration = Duration::from_secs(5);

/// How many bytes of signatures are sent together.
const TOGETHER: usize = 16 << 10;

/// The largest window that a content stream may ask memory for, as a power of two: 8 MiB.
const WINDOW_LOG: u32 = 23;

/// Takes a push whose first message has come, to its end.
///
/// Once all of it is here, it goes on without the developer: what became of it can be asked for
/// under its id.
pub(crate) async fn serve(
    deployment: Arc<Deployment>,
    reader: Reader,
    writer: Writer,
    push: Box<Push>,
    greeted: Instant,
) {
    let push_id = push.push_id;
    let mut taking = Taking {
        deployment,
        receiver: Receiver::new(Instant::now()),
        reader,
        writer: Some(writer),
        turn: None,
        offered: None,
        header: push.clone(),
        came_ms: u64::try_from(greeted.elapsed().as_millis()).unwrap_or(u64::MAX),
        staging: None,
        content: None,
        later: VecDeque::new(),
        staged: None,
    };
    taking.handle(Input::Message(DeveloperMessage::Push(push)));
    taking.run().await;
    tracing::debug!(%push_id, "the push has ended");
}

struct Taking {
    deployment: Arc<Deployment>,
    receiver: Receiver,
    reader: Reader,
    /// `None` once the developer is gone.
    writer: Option<Writer>,
    /// Held from the first judgement to the end.
    turn: Option<OwnedMutexGuard<()>>,
    offered: Option<Offered>,
    /// The push as it was judged last.
    header: Box<Push>,
    /// When it came, since the greeting: what it waits for its turn, or is planned again, does not make it expire.
    came_ms: u64,
    staging: Option<JoinHandle<Result<Staged, StagingError>>>,
    content: Option<mpsc::Sender<Piece>>,
    /// What came up while something else was waited for, such as the end when the developer left.
    later: VecDeque<Output>,
    staged: Option<Staged>,
}

impl Taking {
    async fn run(&mut self) {
        loop {
            while let Some(output) = self.next_output() {
                if output == Output::Finished {
                    return self.finish().await;
                }
                self.perform(output).await;
            }
            let timeout = self.receiver.poll_timeout();
            tokio::select! {
                // What has come is heard before it is found to be late.
                biased;
                message = self.reader.receive(), if self.writer.is_some() => match message {
                    Ok(Some(message)) => self.handle(Input::Message(message)),
                    Ok(None) => self.developer_is_gone(),
                    Err(error) => self.developer_broke_off(&error).await,
                },
                staged = joined(&mut self.staging) => {
                    self.staging = None;
                    self.content = None;
                    self.staged(staged).await;
                }
                () = sleep_until(timeout) => self.receiver.handle_timeout(Instant::now()),
            }
        }
    }

    async fn perform(&mut self, output: Output) {
        match output {
            Output::Send(AgentMessage::Answer(mut answer)) => {
                self.deployment.complete(&mut answer);
                self.send(&AgentMessage::Answer(answer)).await;
            }
            Output::Send(message) => self.send(&message).await,
            Output::Judge(push) => self.judge(push).await,
            Output::Sign(requests) => self.sign(requests).await,
            Output::Stage(push) => self.stage(&push),
            Output::Content(bytes) => self.pass_on(Piece::Bytes(bytes)).await,
            Output::ContentEnd => self.pass_on(Piece::End).await,
            Output::Discard => {
                self.content = None;
                self.staged = None;
                if let Some(staging) = self.staging.take() {
                    // It ends at once, as its content does; the next push needs what it holds.
                    drop(staging.await);
                }
            }
            Output::Commit => {
                let (deployment, header) = (Arc::clone(&self.deployment), self.header.clone());
                let committed = match self.staged.take() {
                    Some(staged) => {
                        self.busy(async { deployment.commit(&header, staged).await })
                            .await
                    }
                    None => Err(Failure::new(FailureCode::Io, "nothing is staged")),
                };
                self.handle(Input::Committed(committed));
            }
            Output::Reload => {
                let (deployment, header) = (Arc::clone(&self.deployment), self.header.clone());
                let reloaded = self.busy(async { deployment.reload(&header).await }).await;
                self.handle(Input::Reloaded(reloaded));
            }
            Output::RollBack => {
                let deployment = Arc::clone(&self.deployment);
                let rolled_back = self.busy(async { deployment.roll_back().await }).await;
                self.handle(Input::RolledBack(rolled_back));
            }
            Output::Record(answer) => self.record(answer).await,
            // Taken care of where outputs are polled.
            Output::Finished => {}
        }
    }

    async fn judge(&mut self, push: Box<Push>) {
        self.header = push;
        if self.turn.is_none() {
            self.turn = self.deployment.try_turn();
        }
        if self.turn.is_none() {
            // At once, so that the developer knows that it was heard.
            self.send(&AgentMessage::Progress(Phase::Queued)).await;
            let deployment = Arc::clone(&self.deployment);
            self.turn = Some(self.busy(async { deployment.turn().await }).await);
        }
        let (deployment, header) = (Arc::clone(&self.deployment), self.header.clone());
        let (offered, came_ms) = (self.offered.clone(), self.came_ms);
        let judging = async { deployment.judge(&header, offered.as_ref(), came_ms).await };
        let verdict = match self.busy(judging).await {
            Ok(Judgement::Accept) => Ok(Verdict::Accept),
            Ok(Judgement::Answer(answer)) => Ok(Verdict::Answer(answer)),
            Ok(Judgement::Offer) => self.offer(Digests::Short).await.map(Verdict::Rebase),
            Err(error) => Err(unseen(&error)),
        };
        let refused = |failure| Verdict::Answer(Box::new(refusal(&header, failure)));
        self.handle(Input::Judged(verdict.unwrap_or_else(refused)));
    }

    async fn offer(&mut self, digests: Digests) -> Result<Offer, Failure> {
        let deployment = Arc::clone(&self.deployment);
        let mirror = self.header.mirror.clone();
        // Who plans again has to know all of it.
        let sketch = self.header.sketch.clone();
        let sketch = sketch.filter(|_| digests == Digests::Short);
        let offering = async { deployment.offer(mirror, digests, sketch).await };
        match self.busy(offering).await {
            Ok((offered, listing)) => {
                let offer = Offer {
                    epoch: offered.epoch,
                    managed: offered.managed,
                    id: offered.id,
                    listing: listing.map_err(|error| {
                        let what = format!("can't compress: {error}");
                        Failure::new(FailureCode::Io, what)
                    })?,
                };
                self.offered = Some(offered);
                Ok(offer)
            }
            Err(error) => Err(unseen(&error)),
        }
    }

    async fn sign(&mut self, requests: Vec<SignRequest>) {
        let seed = random();
        // What is small goes together, as each message sent by itself costs a record.
        let mut waiting = 0;
        for (index, request) in (0..).zip(requests) {
            let known = self
                .offered
                .as_ref()
                .is_some_and(|o| o.manifest.get(&request.path).is_some());
            let deployment = Arc::clone(&self.deployment);
            let signature = match known {
                true => {
                    self.busy(async { deployment.sign(request, seed).await })
                        .await
                }
                false => None,
            };
            let bytes = signature.unwrap_or_default();
            let mut parts = bytes.chunks(limits::CONTENT_PART).peekable();
            if parts.peek().is_none() {
                let part = SignaturePart {
                    index,
                    bytes: Vec::new(),
                    last: true,
                };
                self.handle(Input::Signed(part));
            }
            while let Some(part) = parts.next() {
                let (bytes, last) = (part.to_vec(), parts.peek().is_none());
                waiting += bytes.len();
                self.handle(Input::Signed(SignaturePart { index, bytes, last }));
                if waiting >= TOGETHER {
                    waiting = 0;
                    self.send_all().await;
                }
            }
        }
        self.send_all().await;
    }

    fn stage(&mut self, push: &Push) {
        let content = match push.operations > 0 {
            true => self.open_content(),
            false => Ok(Box::new(io::empty()) as _),
        };
        match content {
            Ok(content) => {
                let deployment = Arc::clone(&self.deployment);
                let (push, offered) = (push.clone(), self.offered.clone());
                self.staging = Some(tokio::spawn(async move {
                    deployment.stage(&push, offered, content).await
                }));
            }
            Err(error) => {
                let failure = Failure::new(FailureCode::Io, format!("can't decompress: {error}"));
                self.handle(Input::Staged(Err(StageFailure::Failed(failure))));
            }
        }
    }

    /// What comes in from now on, decompressed.
    fn open_content(&mut self) -> io::Result<Box<dyn BufRead + Send>> {
        let (sender, pieces) = mpsc::channel(AHEAD);
        let mut decoder = zstd::Decoder::new(Pieces {
            pieces,
            piece: io::Cursor::default(),
            ended: false,
        })?;
        decoder.window_log_max(WINDOW_LOG)?;
        self.content = Some(sender);
        Ok(Box::new(BufReader::new(decoder)))
    }

    /// Gives the staging thread a piece of content, and says that it is at work while that waits for
    /// the disk. That it no longer takes any says nothing: how it ended comes by itself.
    async fn pass_on(&mut self, piece: Piece) {
        let Some(content) = self.content.clone() else {
            return;
        };
        let mut passing = Box::pin(content.send(piece));
        loop {
            tokio::select! {
                _ = &mut passing => return,
                () = sleep(ALIVE) => self.send(&AgentMessage::Progress(Phase::Staging)).await,
            }
        }
    }

    async fn staged(&mut self, staged: Result<Staged, StagingError>) {
        let result = match staged {
            Ok(staged) => {
                self.staged = Some(staged);
                Ok(())
            }
            Err(error) => match self.plan_again(&error) {
                Some(digests) => {
                    tracing::info!(%error, "the push has to be planned again");
                    match self.offer(digests).await {
                        Ok(offer) => Err(StageFailure::Basis(offer)),
                        Err(failure) => Err(StageFailure::Failed(failure)),
                    }
                }
                None => Err(StageFailure::Failed(failure::of_staging(&error))),
            },
        };
        self.handle(Input::Staged(result));
    }

    /// Whether another plan can do better, and what it has to know.
    fn plan_again(&self, error: &StagingError) -> Option<Digests> {
        let is_short = matches!(self.header.base, Base::Offered(_))
            && self.offered.as_ref().map(|offered| offered.digests) == Some(Digests::Short);
        match error {
            StagingError::Stage(StageError::Basis { .. } | StageError::NotKept { .. }) => {
                Some(Digests::Short)
            }
            // Two contents with one short digest, or two groups with one sum.
            StagingError::Operations(StreamError::NoBasis { .. })
            | StagingError::Stage(
                StageError::Target { .. }
                | StageError::Operations(
                    OperationError::NoBasis { .. }
                    | OperationError::NotThere { .. }
                    | OperationError::Result(_),
                ),
            ) if is_short => Some(Digests::Whole),
            StagingError::Operations(_) | StagingError::Stage(_) => None,
        }
    }

    async fn record(&self, answer: Box<Answer>) {
        let Push { client, target, .. } = *self.header;
        self.deployment
            .record(Recorded {
                client,
                target,
                answer: *answer,
            })
            .await;
    }

    /// Does work that takes long, and says meanwhile that it goes on.
    async fn busy<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = Box::pin(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = sleep_until(self.receiver.poll_timeout()) => {
                    self.receiver.handle_timeout(Instant::now());
                    self.send_all().await;
                }
            }
        }
    }

    fn next_output(&mut self) -> Option<Output> {
        self.later
            .pop_front()
            .or_else(|| self.receiver.poll_output())
    }

    /// Sends what is to be sent, and leaves the rest for its turn.
    async fn send_all(&mut self) {
        let mut messages = Vec::new();
        while let Some(output) = self.receiver.poll_output() {
            match output {
                Output::Send(message) => messages.push(message),
                other => self.later.push_back(other),
            }
        }
        self.send_together(&messages).await;
    }

    async fn send(&mut self, message: &AgentMessage) {
        self.send_together(std::slice::from_ref(message)).await;
    }

    async fn send_together(&mut self, messages: &[AgentMessage]) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let sent = tokio::time::timeout(limits::STALL, writer.send_together(messages)).await;
        if !matches!(sent, Ok(Ok(()))) {
            self.developer_is_gone();
        }
    }

    fn handle(&mut self, input: Input) {
        self.receiver.handle_input(input, Instant::now());
    }

    /// A push that is here as a whole goes on; another is called off.
    fn developer_is_gone(&mut self) {
        if self.writer.take().is_some() && !self.receiver.is_whole() {
            tracing::info!(push_id = %self.header.push_id, "the developer left before the push was here");
            self.handle(Input::Message(DeveloperMessage::Abort));
        }
    }

    /// A developer that says what is no message is told so, as nothing it says can be read any more.
    async fn developer_broke_off(&mut self, error: &ReceiveError) {
        if error.is_misbehaviour() {
            let what = failure::chain(error);
            tracing::warn!(error = what, "a developer misbehaves");
            self.send(&AgentMessage::Misunderstood(Text::cut(what)))
                .await;
        } else {
            tracing::debug!(%error, "the developer's stream broke");
        }
        self.developer_is_gone();
    }

    async fn finish(&mut self) {
        if let Some(turn) = self.turn.take() {
            // Whatever became of it: from here on the app is kept alive.
            self.deployment.settle().await;
            drop(turn);
        }
        if let Some(mut writer) = self.writer.take() {
            drop(tokio::time::timeout(limits::STALL, writer.finish()).await);
        }
        self.deployment.watch_tree();
    }
}

fn unseen(error: &StoreError) -> Failure {
    Failure::new(
        FailureCode::Io,
        format!("can't look at what is here: {}", failure::chain(error)),
    )
}

async fn joined(
    staging: &mut Option<JoinHandle<Result<Staged, StagingError>>>,
) -> Result<Staged, StagingError> {
    match staging {
        Some(staging) => staging
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// What comes over the channel to the staging thread. Its end without [`Piece::End`] is an error.
enum Piece {
    Bytes(Vec<u8>),
    End,
}

/// The pieces as a stream, for a thread that may block.
struct Pieces {
    pieces: mpsc::Receiver<Piece>,
    piece: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() || self.ended {
                return Ok(read);
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.piece = io::Cursor::new(bytes),
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::other("the push was called off")),
            }
        }
    }
}
