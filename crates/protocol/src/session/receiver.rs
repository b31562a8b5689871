//! The agent's end of one push.

use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

use super::answer::{answer, refusal};
use crate::{
    app::AppState,
    limits,
    message::{
        inner::{AgentMessage, DeveloperMessage, Rebase, SignRequest, SignaturePart},
        push::{Answer, Base, Failure, FailureCode, OfferId, Phase, Push, PushStatus},
        value::{Text, WireDigest},
    },
    path::RelativePath,
};

/// How often an agent that works says so.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What the shell tells the machine.
#[derive(Debug)]
pub enum Input {
    /// The developer said this.
    Message(DeveloperMessage),
    /// The answer to [`Output::Judge`].
    Judged(Verdict),
    /// The next part of a signature, in the order of [`Output::Sign`]'s requests.
    Signed(SignaturePart),
    /// Staging has ended, and [`Output::Content`] is of no more use.
    Staged(Result<(), StageFailure>),
    /// The answer to [`Output::Commit`].
    Committed(Result<Committed, Failure>),
    /// The answer to [`Output::Reload`].
    Reloaded(Reloaded),
    /// The answer to [`Output::RollBack`].
    RolledBack(RolledBack),
}

/// What becomes of a push, by its header and what stands here.
#[derive(Debug)]
pub enum Verdict {
    /// Its base is what stands here.
    Accept,
    /// It isn't; this does.
    Rebase(Offer),
    /// There is an answer already: the push came before, or is refused, or changes nothing.
    Answer(Box<Answer>),
}

/// What stands here, for a push to be planned again.
#[derive(Debug)]
pub struct Offer {
    /// The epoch of the state.
    pub epoch: u64,
    /// See [`Rebase::managed`].
    pub managed: bool,
    /// See [`Rebase::offer`].
    pub id: OfferId,
    /// See [`Rebase::listing`].
    pub listing: Vec<u8>,
}

/// Why a push was not staged.
#[derive(Debug)]
pub enum StageFailure {
    /// What stands here is not what the operations were made for; this is.
    Basis(Offer),
    /// Anything else.
    Failed(Failure),
}

/// A commit.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The epoch of the state.
    pub epoch: u64,
    /// The root that stands now.
    pub root: WireDigest,
    /// Whether there is an earlier healthy tree to go back to.
    pub can_roll_back: bool,
    /// Managed paths that someone changed here.
    pub drift: Vec<RelativePath>,
    /// What else the developer should know.
    pub warnings: Vec<Text>,
    /// How long it took, in microseconds.
    pub commit_us: u64,
}

/// What a reload came to.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// Whether the readiness check saw the new code start, or why the app isn't ready.
    pub outcome: Result<bool, Failure>,
    /// The app, where there is one.
    pub app: Option<AppState>,
    /// The app's last lines since the reload.
    pub log_tail: Vec<Text>,
    /// How long the reload took, in microseconds.
    pub reload_us: u64,
    /// How long it took to be ready, in microseconds.
    pub ready_us: u64,
}

/// What going back came to.
#[derive(Debug)]
pub struct RolledBack {
    /// Whether the previous tree stands again.
    pub restored: bool,
    /// The root that stands now.
    pub root: Option<WireDigest>,
    /// Why the previous tree could not be brought back, or is not healthy either.
    pub problem: Option<Failure>,
    /// Managed paths that could not come back.
    pub lost: Vec<RelativePath>,
    /// What else the developer should know.
    pub warnings: Vec<Text>,
    /// The app, where there is one.
    pub app: Option<AppState>,
}

/// What the machine wants of the shell.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Say this to the developer.
    Send(AgentMessage),
    /// Say what becomes of this push, with [`Input::Judged`], before reading another message.
    Judge(Box<Push>),
    /// Sign these files of what was offered, with [`Input::Signed`] for each.
    Sign(Vec<SignRequest>),
    /// Begin to stage this push; its content stream follows as [`Output::Content`]. Ends with
    /// [`Input::Staged`].
    Stage(Box<Push>),
    /// The next piece of the content stream.
    Content(Vec<u8>),
    /// The content stream is whole.
    ContentEnd,
    /// Throw away what is staged.
    Discard,
    /// Put the staged tree in place (a restarted app ends first), with [`Input::Committed`].
    Commit,
    /// Reload the app and wait until it is ready, with [`Input::Reloaded`].
    Reload,
    /// Bring the previous tree back and the app on it, with [`Input::RolledBack`].
    RollBack,
    /// Keep this answer, in the place of one to the same push, so that the push sent again is
    /// answered and not applied.
    Record(Box<Answer>),
    /// Nothing more will come of this push; end the stream once what was sent is written.
    Finished,
}

#[derive(Debug)]
enum State {
    /// A push is expected.
    Idle,
    /// The shell compares the push's base.
    Judging(Box<Push>),
    /// Files are being built. `open` until the content stream has ended.
    Staging {
        push: Box<Push>,
        open: bool,
        /// How many bytes of it have come, and how many the developer was told of.
        received: (u64, u64),
    },
    /// What stands here was offered. What comes of the former attempt is dropped until the push
    /// begins again or signatures are asked for, which was done so often.
    Offered { push: Box<Push>, signed: u32 },
    /// Signatures are being made.
    Signing {
        push: Box<Push>,
        signed: u32,
        left: usize,
    },
    /// The tree is being exchanged.
    Committing { push: Box<Push> },
    /// The app is being reloaded on the new tree.
    Reloading {
        push: Box<Push>,
        committed: Committed,
    },
    /// The previous tree is coming back.
    RollingBack {
        push: Box<Push>,
        committed: Committed,
        reloaded: Reloaded,
        why: Failure,
    },
    /// It is over.
    Finished,
}

/// The agent's end of one push. See the [module](self) and [`crate::session`].
#[derive(Debug)]
pub struct Receiver {
    state: State,
    outputs: VecDeque<Output>,
    timeout: Option<Instant>,
    rebases: u32,
    alive: u32,
}

impl Receiver {
    /// Begins, with nothing heard yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Idle,
            outputs: VecDeque::new(),
            timeout: Some(now + limits::STALL),
            rebases: 0,
            alive: 0,
        }
    }

    /// Takes an input.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        let was_offered = matches!(self.state, State::Offered { .. });
        let state = mem::replace(&mut self.state, State::Finished);
        self.state = match (state, input) {
            (state, Input::Message(message)) => self.handle_message(state, message),
            (State::Judging(push), Input::Judged(verdict)) => self.judged(push, verdict),
            (State::Signing { push, signed, left }, Input::Signed(part)) => {
                let left = left - usize::from(part.last);
                self.send(AgentMessage::Signature(part));
                match left {
                    0 => State::Offered { push, signed },
                    left => State::Signing { push, signed, left },
                }
            }
            (State::Staging { push, open, .. }, Input::Staged(result)) => {
                self.staged(push, open, result)
            }
            (State::Committing { push }, Input::Committed(result)) => match result {
                Ok(committed) => {
                    self.send(AgentMessage::Progress(Phase::Reloading));
                    self.outputs.push_back(Output::Reload);
                    State::Reloading { push, committed }
                }
                Err(failure) => self.refuse(&push, failure),
            },
            (State::Reloading { push, committed }, Input::Reloaded(reloaded)) => {
                self.reloaded(push, committed, reloaded)
            }
            (
                State::RollingBack {
                    push,
                    committed,
                    reloaded,
                    why,
                },
                Input::RolledBack(rolled_back),
            ) => self.rolled_back(&push, committed, reloaded, &why, rolled_back),
            // Work that was asked for before the push ended otherwise.
            (state, _) => state,
        };
        self.timeout = match self.state {
            State::Finished => None,
            // What comes of the former attempt is no sign of the next one.
            State::Offered { .. } if was_offered => self.timeout,
            State::Offered { .. } => Some(now + limits::PLANNING),
            State::Idle | State::Staging { open: true, .. } => Some(now + limits::STALL),
            State::Judging(_)
            | State::Staging { open: false, .. }
            | State::Signing { .. }
            | State::Committing { .. }
            | State::Reloading { .. }
            | State::RollingBack { .. } => Some(now + HEARTBEAT),
        };
    }

    /// Takes the time, once it is [`poll_timeout`](Self::poll_timeout)'s.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.timeout.is_none_or(|timeout| now < timeout) {
            return;
        }
        let phase = match &self.state {
            State::Finished => return,
            State::Idle => {
                self.misunderstood("no push came".to_owned());
                self.state = State::Finished;
                self.timeout = None;
                return;
            }
            State::Staging {
                push, open: true, ..
            }
            | State::Offered { push, .. } => {
                let push = push.clone();
                let what = "nothing came for too long".to_owned();
                self.state = self.refuse(&push, Failure::new(FailureCode::Stalled, what));
                self.timeout = None;
                return;
            }
            State::Judging(_) => Phase::Queued,
            State::Staging { open: false, .. } | State::Signing { .. } => Phase::Staging,
            State::Committing { .. } => Phase::Committing,
            State::Reloading { .. } => Phase::Reloading,
            State::RollingBack { .. } => Phase::RollingBack,
        };
        self.send(AgentMessage::Progress(phase));
        self.timeout = Some(now + HEARTBEAT);
    }

    /// The next thing the shell has to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// Tells whether all of the push is here, so that it is carried to its end although nobody may
    /// be listening any more.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        match self.state {
            State::Staging { open: false, .. }
            | State::Committing { .. }
            | State::Reloading { .. }
            | State::RollingBack { .. }
            | State::Finished => true,
            State::Idle
            | State::Judging(_)
            | State::Staging { open: true, .. }
            | State::Offered { .. }
            | State::Signing { .. } => false,
        }
    }

    fn handle_message(&mut self, state: State, message: DeveloperMessage) -> State {
        match (state, message) {
            (State::Finished, _) => State::Finished,
            (State::Idle, DeveloperMessage::Push(push)) => self.begin(push),
            (State::Offered { push: former, .. }, DeveloperMessage::Push(push)) => {
                let same = push.push_id == former.push_id
                    && push.client == former.client
                    && push.target == former.target;
                if same {
                    self.begin(push)
                } else {
                    self.misunderstood("a push began again as another".to_owned())
                }
            }
            (State::Offered { push, signed }, DeveloperMessage::Sign(requests))
                if signed < limits::SIGN_ROUNDS =>
            {
                if requests.is_empty() || requests.len() > limits::SIGNATURES {
                    let count = requests.len();
                    return self.misunderstood(format!("signatures of {count} files asked for"));
                }
                let left = requests.len();
                self.outputs.push_back(Output::Sign(requests));
                State::Signing {
                    push,
                    signed: signed + 1,
                    left,
                }
            }
            // What was on its way when the base was refused.
            (
                state @ State::Offered { .. },
                DeveloperMessage::Content(_)
                | DeveloperMessage::ContentEnd
                | DeveloperMessage::Alive,
            ) => state,
            (
                State::Staging {
                    push,
                    open: true,
                    received,
                },
                DeveloperMessage::Content(bytes),
            ) => self.take_content(push, received, bytes),
            (state @ State::Staging { open: true, .. }, DeveloperMessage::Alive) => {
                self.alive += 1;
                match self.alive > limits::ALIVE {
                    true => self.misunderstood("the content never goes on".to_owned()),
                    false => state,
                }
            }
            (
                State::Staging {
                    push,
                    open: true,
                    received,
                },
                DeveloperMessage::ContentEnd,
            ) => {
                self.outputs.push_back(Output::ContentEnd);
                State::Staging {
                    push,
                    open: false,
                    received,
                }
            }
            (
                State::Offered { push, .. }
                | State::Judging(push)
                | State::Signing { push, .. }
                | State::Staging { push, .. },
                DeveloperMessage::Abort,
            ) => self.refuse(
                &push,
                Failure::new(FailureCode::Aborted, "the push was called off"),
            ),
            // Too late: it is being applied.
            (
                state @ (State::Committing { .. }
                | State::Reloading { .. }
                | State::RollingBack { .. }),
                DeveloperMessage::Abort,
            ) => state,
            (
                state @ (State::Committing { .. }
                | State::Reloading { .. }
                | State::RollingBack { .. }),
                _,
            ) => {
                // A developer that talks on can't stop what is being applied, nor is it listened to.
                state
            }
            (_, message) => self.misunderstood(format!("{} was not expected", kind(&message))),
        }
    }

    fn begin(&mut self, push: Box<Push>) -> State {
        if push.operations > limits::ENTRIES {
            let failure = Failure::new(
                FailureCode::Invalid,
                format!(
                    "{} operations, the most is {}",
                    push.operations,
                    limits::ENTRIES
                ),
            );
            return self.refuse(&push, failure);
        }
        if push.base == Base::Unknown && push.operations > 0 {
            let failure = Failure::new(FailureCode::Invalid, "operations without a base");
            return self.refuse(&push, failure);
        }
        self.outputs.push_back(Output::Judge(push.clone()));
        State::Judging(push)
    }

    fn judged(&mut self, push: Box<Push>, verdict: Verdict) -> State {
        match verdict {
            Verdict::Accept => {
                let open = push.operations > 0;
                // At once, so that the developer knows that it was heard.
                self.send(AgentMessage::Progress(Phase::Staging));
                self.outputs.push_back(Output::Stage(push.clone()));
                if !open {
                    self.outputs.push_back(Output::ContentEnd);
                }
                State::Staging {
                    push,
                    open,
                    received: (0, 0),
                }
            }
            Verdict::Rebase(offer) => self.offer(push, offer),
            Verdict::Answer(answer) => {
                self.send(AgentMessage::Answer(answer));
                self.outputs.push_back(Output::Finished);
                State::Finished
            }
        }
    }

    fn offer(&mut self, push: Box<Push>, offer: Offer) -> State {
        self.rebases += 1;
        if self.rebases > limits::REBASES {
            let failure = Failure::new(
                FailureCode::Unsettled,
                format!(
                    "what stands here changed {} times during the push",
                    self.rebases
                ),
            );
            return self.refuse(&push, failure);
        }
        let Offer {
            epoch,
            managed,
            id,
            listing,
        } = offer;
        let rebase = Rebase {
            epoch,
            managed,
            offer: id,
            listing: listing.len() as u64,
        };
        self.send(AgentMessage::Rebase(rebase));
        for part in listing.chunks(limits::CONTENT_PART) {
            self.send(AgentMessage::Listing(part.to_vec()));
        }
        State::Offered { push, signed: 0 }
    }

    fn take_content(&mut self, push: Box<Push>, (come, told): (u64, u64), bytes: Vec<u8>) -> State {
        if bytes.is_empty() || bytes.len() > limits::CONTENT_PART {
            return self.misunderstood(format!("{} bytes of content", bytes.len()));
        }
        let come = come + bytes.len() as u64;
        self.outputs.push_back(Output::Content(bytes));
        let told = match come - told >= limits::ACKNOWLEDGE {
            true => {
                // Behind the content: said once that was taken.
                self.send(AgentMessage::Received(come));
                come
            }
            false => told,
        };
        State::Staging {
            push,
            open: true,
            received: (come, told),
        }
    }

    fn staged(&mut self, push: Box<Push>, open: bool, result: Result<(), StageFailure>) -> State {
        match result {
            Ok(()) if open => {
                // Everything was there before the stream said that it ends: more would be too much.
                self.outputs.push_back(Output::Discard);
                self.misunderstood("the content stream goes on after its end".to_owned())
            }
            Ok(()) => {
                self.send(AgentMessage::Progress(Phase::Committing));
                self.outputs.push_back(Output::Commit);
                State::Committing { push }
            }
            Err(StageFailure::Basis(offer)) => self.offer(push, offer),
            Err(StageFailure::Failed(failure)) => self.refuse(&push, failure),
        }
    }

    fn reloaded(&mut self, push: Box<Push>, committed: Committed, reloaded: Reloaded) -> State {
        match &reloaded.outcome {
            Err(why) if committed.can_roll_back => {
                let why = why.clone();
                self.send(AgentMessage::Progress(Phase::RollingBack));
                // Kept before, so that an agent that ends while it goes back knows that it did.
                let mut expected = answer(
                    &push,
                    committed.clone(),
                    reloaded.clone(),
                    PushStatus::RolledBack,
                    Some(why.clone()),
                );
                expected.root = None;
                self.outputs.push_back(Output::Record(Box::new(expected)));
                self.outputs.push_back(Output::RollBack);
                State::RollingBack {
                    push,
                    committed,
                    reloaded,
                    why,
                }
            }
            outcome => {
                let status = if outcome.is_ok() {
                    PushStatus::Done
                } else {
                    PushStatus::Failed
                };
                let failure = outcome.as_ref().err().cloned();
                let answer = answer(&push, committed, reloaded, status, failure);
                self.finish(answer)
            }
        }
    }

    fn rolled_back(
        &mut self,
        push: &Push,
        committed: Committed,
        reloaded: Reloaded,
        why: &Failure,
        rolled_back: RolledBack,
    ) -> State {
        let is_back = rolled_back.restored;
        let status = match is_back {
            true => PushStatus::RolledBack,
            false => PushStatus::Failed,
        };
        let mut answer = answer(push, committed, reloaded, status, Some(why.clone()));
        answer.root = rolled_back.root;
        answer.app = rolled_back.app;
        if let Some(problem) = rolled_back.problem {
            let what = match is_back {
                true => "the previous version is back and not healthy",
                false => "the previous version could not be brought back",
            };
            let problem = problem.message.as_str();
            answer
                .warnings
                .push(Text::cut(format!("{what}: {problem}")));
        }
        self.finish(answer)
    }

    fn finish(&mut self, answer: Answer) -> State {
        self.outputs
            .push_back(Output::Record(Box::new(answer.clone())));
        self.send(AgentMessage::Answer(Box::new(answer)));
        self.outputs.push_back(Output::Finished);
        State::Finished
    }

    /// Ends a push of which nothing was applied.
    fn refuse(&mut self, push: &Push, failure: Failure) -> State {
        self.outputs.push_back(Output::Discard);
        self.send(AgentMessage::Answer(Box::new(refusal(push, failure))));
        self.outputs.push_back(Output::Finished);
        State::Finished
    }

    fn misunderstood(&mut self, what: String) -> State {
        self.outputs.push_back(Output::Discard);
        self.send(AgentMessage::Misunderstood(Text::cut(what)));
        self.outputs.push_back(Output::Finished);
        State::Finished
    }

    fn send(&mut self, message: AgentMessage) {
        self.outputs.push_back(Output::Send(message));
    }
}

const fn kind(message: &DeveloperMessage) -> &'static str {
    match message {
        DeveloperMessage::Push(_) => "a push",
        DeveloperMessage::Content(_) => "content",
        DeveloperMessage::ContentEnd => "the end of content",
        DeveloperMessage::Sign(_) => "a request for signatures",
        DeveloperMessage::Abort => "the end of a push",
        DeveloperMessage::Status => "a request for the status",
        DeveloperMessage::Logs(_) => "a request for lines",
        DeveloperMessage::Alive => "a sign of life",
        DeveloperMessage::Follow => "a request for every status",
    }
}
