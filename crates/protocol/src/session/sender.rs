//! The developer's end of one push.

use std::{collections::VecDeque, mem, time::Instant};

use crate::{
    limits,
    message::{
        inner::{AgentMessage, DeveloperMessage, Rebase, SignRequest, SignaturePart},
        push::{Answer, Base, OfferId, Phase, Push},
        value::WireDigest,
    },
    path::RelativePath,
};

/// What the shell tells the machine.
#[derive(Debug)]
pub enum Input {
    /// The agent said this.
    Message(AgentMessage),
    /// The answer to [`Output::Plan`] and [`Output::Diff`].
    Planned(Planned),
    /// The answer to [`Output::Read`].
    Content(Content),
}

/// What planning came to.
#[derive(Debug)]
pub enum Planned {
    /// There are so many operations; their content stream can be read.
    Operations(u64),
    /// These files of what was offered have to be signed first; at most [`limits::SIGNATURES`], and
    /// at most [`limits::SIGN_ROUNDS`] times for one offer.
    Wants(Vec<SignRequest>),
}

/// What reading the content came to.
#[derive(Debug)]
pub enum Content {
    /// The next piece of the content stream, at most [`limits::CONTENT_PART`] bytes.
    Piece(Vec<u8>),
    /// There is nothing to send yet, and it goes on.
    Alive,
    /// It has ended.
    End,
    /// A file is no longer what the target's manifest says.
    Changed(RelativePath),
}

/// What a push is planned against.
#[derive(Debug, PartialEq)]
pub enum Basis {
    /// The tree that this client remembers as the agent's.
    Remembered,
    /// What the agent says that it has.
    Offered {
        /// The offer's number.
        id: OfferId,
        /// What is there to build upon: see [`Rebase::listing`].
        listing: Vec<u8>,
        /// Whether it is managed, so that what the target lacks is deleted.
        managed: bool,
    },
}

/// What the machine wants of the shell.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Say this to the agent.
    Send(DeveloperMessage),
    /// Plan the push against this, with [`Input::Planned`].
    Plan(Basis),
    /// Go on planning with these encoded signatures, in the order of [`Planned::Wants`]; one that
    /// is empty could not be had. With [`Input::Planned`].
    Diff(Vec<Vec<u8>>),
    /// Read the next piece of the content, with [`Input::Content`]. The first one of an attempt
    /// begins the stream anew.
    Read,
    /// The agent has come so far.
    Progress(Phase),
    /// The agent has taken so many bytes of the content stream.
    Received(u64),
    /// It is over.
    Finished(Outcome),
}

/// How a push ended, at the developer.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// The agent answered.
    Answered(Box<Answer>),
    /// A file changed while it was read, and nothing was applied: scan and push again.
    Changed(RelativePath),
    /// The agent says that we make no sense.
    Misunderstood(String),
    /// The agent makes no sense.
    Misbehaved(String),
    /// Nothing came from the agent for [`limits::STALL`].
    Silent,
}

/// What a push is, whatever its base: see [`Push`]'s fields.
pub type Header = Push;

#[derive(Debug)]
enum State {
    /// The shell plans against `base`.
    Planning { base: Base },
    /// The agent is asked what it has.
    Asking,
    /// The agent says what it has.
    Offered { rebase: Rebase, listing: Vec<u8> },
    /// Signatures come.
    Signing {
        base: Base,
        signatures: Vec<Vec<u8>>,
        done: usize,
        bytes: u64,
    },
    /// The content is read and sent.
    Sending {
        /// How many bytes of it were sent.
        sent: u64,
        /// How many of them the agent has taken.
        received: u64,
        /// Whether the agent has to take more before more is read.
        held: bool,
    },
    /// Everything is sent.
    Waiting,
    /// It is over.
    Finished,
}

/// The developer's end of one push. See the [module](self) and [`crate::session`].
#[derive(Debug)]
pub struct Sender {
    state: State,
    header: Push,
    outputs: VecDeque<Output>,
    timeout: Option<Instant>,
    sent: bool,
    rebases: u32,
}

impl Sender {
    /// Begins a push.
    ///
    /// `remembered` are the epoch and root that this client believes the agent to have, which the
    /// agent says if it hasn't: nobody waits for its greeting. The header's `base`, `epoch` and
    /// `operations` are filled in here.
    #[must_use]
    pub fn new(header: Header, remembered: Option<(u64, WireDigest)>, now: Instant) -> Self {
        let mut sender = Self {
            state: State::Asking,
            header,
            outputs: VecDeque::new(),
            timeout: Some(now + limits::STALL),
            sent: false,
            rebases: 0,
        };
        match remembered {
            Some((epoch, root)) => {
                sender.header.epoch = epoch;
                sender.outputs.push_back(Output::Plan(Basis::Remembered));
                sender.state = State::Planning {
                    base: Base::Committed(root),
                };
            }
            None => sender.send_header(Base::Unknown, 0),
        }
        sender
    }

    /// Takes an input.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        let state = mem::replace(&mut self.state, State::Finished);
        self.state = match (state, input) {
            (State::Finished, _) => State::Finished,
            (state, Input::Message(message)) => self.handle_message(state, message),
            (State::Planning { base }, Input::Planned(planned)) => self.planned(base, planned),
            (
                State::Sending {
                    sent,
                    received,
                    held: false,
                },
                Input::Content(content),
            ) => self.content(sent, received, content),
            // Work that was asked for before the agent said that its base is another.
            (state, Input::Planned(_) | Input::Content(_)) => state,
        };
        self.timeout = match self.state {
            State::Finished => None,
            State::Planning { .. } => None,
            State::Asking
            | State::Offered { .. }
            | State::Signing { .. }
            | State::Sending { .. }
            | State::Waiting => Some(now + limits::STALL),
        };
    }

    /// Takes the time, once it is [`poll_timeout`](Self::poll_timeout)'s.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.timeout.is_some_and(|timeout| now >= timeout) {
            self.timeout = None;
            self.state = self.finish(Outcome::Silent);
        }
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

    /// Tells whether everything was sent at least once, so that the agent may have applied it: its
    /// answer is then unknown when the connection is lost.
    #[must_use]
    pub const fn is_sent(&self) -> bool {
        self.sent
    }

    fn handle_message(&mut self, state: State, message: AgentMessage) -> State {
        match (state, message) {
            (_, AgentMessage::Answer(answer)) if answer.push_id == self.header.push_id => {
                self.finish(Outcome::Answered(answer))
            }
            (_, AgentMessage::Misunderstood(what)) => {
                self.finish(Outcome::Misunderstood(what.as_str().to_owned()))
            }
            (state, AgentMessage::Progress(phase)) => {
                self.outputs.push_back(Output::Progress(phase));
                state
            }
            (
                State::Sending {
                    sent,
                    received: before,
                    held,
                },
                AgentMessage::Received(received),
            ) if before < received && received <= sent => {
                self.outputs.push_back(Output::Received(received));
                if held {
                    self.read_on(sent, received)
                } else {
                    State::Sending {
                        sent,
                        received,
                        held,
                    }
                }
            }
            // What was on its way when all was sent, or of a former attempt.
            (
                state @ (State::Waiting | State::Planning { .. } | State::Signing { .. }),
                AgentMessage::Received(received),
            ) => {
                if matches!(state, State::Waiting) {
                    self.outputs.push_back(Output::Received(received));
                }
                state
            }
            (
                State::Asking | State::Planning { .. } | State::Sending { .. } | State::Waiting,
                AgentMessage::Rebase(rebase),
            ) => {
                self.rebases += 1;
                if self.rebases > limits::REBASES {
                    return self
                        .misbehaved(format!("another base for the {}th time", self.rebases));
                }
                self.offered(rebase, Vec::new(), &[])
            }
            (State::Offered { rebase, listing }, AgentMessage::Listing(more))
                if !more.is_empty() =>
            {
                self.offered(rebase, listing, &more)
            }
            (
                State::Signing {
                    base,
                    signatures,
                    done,
                    bytes,
                },
                AgentMessage::Signature(part),
            ) => self.signature(base, signatures, done, bytes, part),
            (_, message) => self.misbehaved(format!("{} was not expected", kind(&message))),
        }
    }

    fn offered(&mut self, rebase: Rebase, mut listing: Vec<u8>, more: &[u8]) -> State {
        listing.extend_from_slice(more);
        let len = listing.len() as u64;
        if len > rebase.listing || rebase.listing > limits::LISTING as u64 {
            return self.misbehaved(format!(
                "{len} bytes of a listing where {} were announced",
                rebase.listing
            ));
        }
        if len < rebase.listing {
            return State::Offered { rebase, listing };
        }
        self.header.epoch = rebase.epoch;
        self.header.sketch = None;
        self.outputs.push_back(Output::Plan(Basis::Offered {
            id: rebase.offer,
            listing,
            managed: rebase.managed,
        }));
        State::Planning {
            base: Base::Offered(rebase.offer),
        }
    }

    fn planned(&mut self, base: Base, planned: Planned) -> State {
        match planned {
            Planned::Wants(requests) => {
                let signatures = vec![Vec::new(); requests.len()];
                self.send(DeveloperMessage::Sign(requests));
                State::Signing {
                    base,
                    signatures,
                    done: 0,
                    bytes: 0,
                }
            }
            Planned::Operations(operations) => {
                self.send_header(base, operations);
                if operations > 0 {
                    self.read_on(0, 0)
                } else {
                    self.sent = true;
                    State::Waiting
                }
            }
        }
    }

    /// Reads the next piece, unless too much of what was sent has not been taken yet.
    fn read_on(&mut self, sent: u64, received: u64) -> State {
        let held = sent - received >= limits::UNACKNOWLEDGED;
        if !held {
            self.outputs.push_back(Output::Read);
        }
        State::Sending {
            sent,
            received,
            held,
        }
    }

    fn signature(
        &mut self,
        base: Base,
        mut signatures: Vec<Vec<u8>>,
        done: usize,
        bytes: u64,
        part: SignaturePart,
    ) -> State {
        let bytes = bytes + part.bytes.len() as u64;
        let is_empty = part.bytes.is_empty() && !part.last;
        if part.index as usize != done || bytes > limits::SIGNATURE || is_empty {
            return self.misbehaved(format!(
                "part of signature {} after {done} whole ones, {bytes} bytes in all",
                part.index
            ));
        }
        signatures[done].extend(part.bytes);
        let done = done + usize::from(part.last);
        if done < signatures.len() {
            return State::Signing {
                base,
                signatures,
                done,
                bytes,
            };
        }
        self.outputs.push_back(Output::Diff(signatures));
        State::Planning { base }
    }

    fn content(&mut self, sent: u64, received: u64, content: Content) -> State {
        match content {
            Content::Piece(bytes) => {
                let sent = sent + bytes.len() as u64;
                self.send(DeveloperMessage::Content(bytes));
                self.read_on(sent, received)
            }
            Content::Alive => {
                self.send(DeveloperMessage::Alive);
                self.read_on(sent, received)
            }
            Content::End => {
                self.send(DeveloperMessage::ContentEnd);
                self.sent = true;
                State::Waiting
            }
            Content::Changed(path) => {
                self.send(DeveloperMessage::Abort);
                self.finish(Outcome::Changed(path))
            }
        }
    }

    fn send_header(&mut self, base: Base, operations: u64) {
        self.header.base = base;
        self.header.operations = operations;
        self.send(DeveloperMessage::Push(Box::new(self.header.clone())));
    }

    fn send(&mut self, message: DeveloperMessage) {
        self.outputs.push_back(Output::Send(message));
    }

    fn misbehaved(&mut self, what: String) -> State {
        self.finish(Outcome::Misbehaved(what))
    }

    fn finish(&mut self, outcome: Outcome) -> State {
        self.outputs.push_back(Output::Finished(outcome));
        State::Finished
    }
}

const fn kind(message: &AgentMessage) -> &'static str {
    match message {
        AgentMessage::Greeting(_) => "a greeting",
        AgentMessage::Rebase(_) => "another base",
        AgentMessage::Listing(_) => "a listing",
        AgentMessage::Signature(_) => "a signature",
        AgentMessage::Progress(_) => "progress",
        AgentMessage::Answer(_) => "the answer to another push",
        AgentMessage::Status(_) => "a status",
        AgentMessage::LogLines(_) => "lines",
        AgentMessage::Misunderstood(_) => "a complaint",
        AgentMessage::Received(_) => "a receipt",
    }
}
