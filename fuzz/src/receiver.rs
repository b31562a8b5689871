//! The agent's end of a push: a developer that says anything at any time, and a shell whose work
//! succeeds or fails at any time.

use std::time::{Duration, Instant};

use patchwire_protocol::{
    limits,
    message::{
        inner::{AgentMessage, DeveloperMessage, SignRequest, SignWhat, SignaturePart},
        push::{Base, OfferId, PushStatus},
        status::LogsRequest,
    },
    session::{
        answer::refusal,
        receiver::{
            Committed, Input, Offer, Output, Receiver, Reloaded, RolledBack, StageFailure, Verdict,
        },
    },
};

use crate::session::{at, failure, push, root, steps};

/// Follows a script. Work is asked for in the right order, one piece at a time; the push is
/// answered once, and ends when it is left alone.
pub fn receiver(data: &[u8]) {
    let mut shell = Shell::new();
    for [what, which] in steps(data) {
        match what % 12 {
            0..8 => shell.hear(message(what % 12, which)),
            8..10 => shell.work(which),
            10 => shell.wait(),
            _ => {
                shell.now += Duration::from_millis(100) * u32::from(which);
                let now = shell.now;
                shell.handle(|receiver| receiver.handle_timeout(now));
            }
        }
    }
    // Left alone, with work that succeeds, it ends.
    for _ in 0..limits::SIGNATURES + 8 {
        if shell.finished {
            break;
        }
        match shell.owed {
            Some(_) => shell.work(0),
            None => shell.wait(),
        }
    }
    assert!(shell.finished && shell.owed.is_none());
    assert_eq!(shell.receiver.poll_timeout(), None);
    assert!(shell.receiver.is_whole());
    shell.hear(DeveloperMessage::Abort);
}

fn message(what: u8, which: u8) -> DeveloperMessage {
    match what {
        0 | 1 => {
            let base = match which % 4 {
                0 => Base::Unknown,
                1 => Base::Committed(root()),
                _ => Base::Offered(OfferId(1)),
            };
            let count = match which / 4 % 8 {
                7 => limits::ENTRIES + 1,
                count => count.into(),
            };
            // Mostly the same push, sometimes another.
            let mut push = push(which / 128, base, count);
            push.links_may_leave = which & 64 != 0;
            DeveloperMessage::Push(Box::new(push))
        }
        2 | 3 => DeveloperMessage::Content(match which {
            255 => vec![0; limits::CONTENT_PART + 1],
            which => vec![which; which.into()],
        }),
        4 => DeveloperMessage::ContentEnd,
        5 => DeveloperMessage::Sign(match which {
            255 => vec![request("a", SignWhat::Whole); limits::SIGNATURES + 1],
            which => {
                let what = match which & 12 {
                    0 => SignWhat::Whole,
                    4 => SignWhat::FirstRound,
                    _ => SignWhat::Regions(vec![which; which.into()]),
                };
                vec![request("d/b", what); usize::from(which % 4)]
            }
        }),
        6 => DeveloperMessage::Abort,
        7 => DeveloperMessage::Alive,
        _ if which & 1 == 0 => DeveloperMessage::Status,
        _ if which & 2 == 0 => DeveloperMessage::Follow,
        _ => DeveloperMessage::Logs(LogsRequest {
            lines: which.into(),
            follow: true,
        }),
    }
}

fn request(path: &str, what: SignWhat) -> SignRequest {
    SignRequest {
        path: at(path),
        what,
    }
}

/// What the machine asked for and has not got yet.
#[derive(Debug)]
enum Work {
    Judge,
    Sign { next: u32, count: u32 },
    Stage,
    Commit,
    Reload,
    RollBack,
}

struct Shell {
    receiver: Receiver,
    now: Instant,
    owed: Option<Work>,
    /// Whether the last staging succeeded, and its content had ended.
    staged: bool,
    content_ended: bool,
    can_roll_back: bool,
    committed: bool,
    recorded: bool,
    answered: bool,
    finished: bool,
}

impl Shell {
    fn new() -> Self {
        // The only clock is this beginning; what follows is added to it.
        let now = Instant::now();
        Self {
            receiver: Receiver::new(now),
            now,
            owed: None,
            staged: false,
            content_ended: false,
            can_roll_back: false,
            committed: false,
            recorded: false,
            answered: false,
            finished: false,
        }
    }

    fn hear(&mut self, message: DeveloperMessage) {
        let now = self.now;
        self.handle(|receiver| receiver.handle_input(Input::Message(message), now));
    }

    fn wait(&mut self) {
        if let Some(timeout) = self.receiver.poll_timeout() {
            assert!(timeout > self.now, "a timeout that is handled moves on");
            self.now = timeout;
            self.handle(|receiver| receiver.handle_timeout(timeout));
        }
    }

    /// Ends the work that is owed, as `which` says; 0 is success.
    fn work(&mut self, which: u8) {
        let Some(work) = self.owed.take() else {
            return;
        };
        let input = match work {
            Work::Judge => Input::Judged(match which % 4 {
                0 | 1 => Verdict::Accept,
                2 => Verdict::Rebase(offer(which)),
                _ => {
                    let push = push(0, Base::Unknown, 0);
                    Verdict::Answer(Box::new(refusal(&push, failure())))
                }
            }),
            Work::Sign { next, count } => {
                let last = which & 1 == 0;
                let next_after = next + u32::from(last);
                if next_after < count {
                    self.owed = Some(Work::Sign {
                        next: next_after,
                        count,
                    });
                }
                Input::Signed(SignaturePart {
                    index: next,
                    bytes: vec![which; which.into()],
                    last,
                })
            }
            Work::Stage => Input::Staged(match which % 4 {
                0 | 1 => {
                    self.staged = self.content_ended;
                    Ok(())
                }
                2 => Err(StageFailure::Basis(offer(which))),
                _ => Err(StageFailure::Failed(failure())),
            }),
            Work::Commit if which % 4 == 3 => Input::Committed(Err(failure())),
            Work::Commit => {
                self.committed = true;
                self.can_roll_back = which & 1 == 0;
                Input::Committed(Ok(Committed {
                    epoch: 7,
                    root: root(),
                    can_roll_back: self.can_roll_back,
                    drift: vec![at("a")],
                    warnings: Vec::new(),
                    commit_us: 1,
                }))
            }
            Work::Reload => Input::Reloaded(Reloaded {
                outcome: match which % 2 {
                    0 => Ok(true),
                    _ => Err(failure()),
                },
                app: None,
                log_tail: Vec::new(),
                reload_us: 1,
                ready_us: 1,
            }),
            Work::RollBack => Input::RolledBack(RolledBack {
                restored: which.is_multiple_of(2),
                root: Some(root()),
                lost: Vec::new(),
                warnings: Vec::new(),
                problem: (which % 2 == 1).then(failure),
                app: None,
            }),
        };
        let now = self.now;
        self.handle(|receiver| receiver.handle_input(input, now));
    }

    fn handle(&mut self, act: impl FnOnce(&mut Receiver)) {
        act(&mut self.receiver);
        while let Some(output) = self.receiver.poll_output() {
            assert!(!self.finished, "{output:?} after the end");
            self.perform(output);
        }
        assert_eq!(self.receiver.poll_timeout().is_none(), self.finished);
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send(message) => self.send(&message),
            Output::Judge(_) => self.owe(Work::Judge),
            Output::Sign(requests) => {
                assert!((1..=limits::SIGNATURES).contains(&requests.len()));
                let count = u32::try_from(requests.len()).expect("the limit is far below");
                self.owe(Work::Sign { next: 0, count });
            }
            Output::Stage(_) => {
                (self.staged, self.content_ended) = (false, false);
                self.owe(Work::Stage);
            }
            Output::Content(bytes) => {
                assert!(bytes.len() <= limits::CONTENT_PART);
                assert!(matches!(self.owed, Some(Work::Stage)) && !self.content_ended);
            }
            Output::ContentEnd => {
                assert!(matches!(self.owed, Some(Work::Stage)) && !self.content_ended);
                self.content_ended = true;
            }
            Output::Discard => {
                assert!(!self.committed, "what is committed is not thrown away");
                (self.owed, self.staged) = (None, false);
            }
            Output::Commit => {
                assert!(self.staged && !self.committed);
                self.owe(Work::Commit);
                assert!(self.receiver.is_whole());
            }
            Output::Reload => {
                assert!(self.committed);
                self.owe(Work::Reload);
            }
            Output::RollBack => {
                assert!(self.can_roll_back);
                self.owe(Work::RollBack);
            }
            Output::Record(answer) => {
                assert!(self.committed && !self.recorded && !self.answered);
                match answer.root {
                    // Before the tree goes back: the last word comes after it.
                    None => assert_eq!(answer.status, PushStatus::RolledBack),
                    stands => {
                        assert_eq!(stands, Some(root()));
                        self.recorded = true;
                    }
                }
            }
            Output::Finished => {
                assert!(self.answered, "a push ends with a word to the developer");
                assert_eq!(self.committed, self.recorded);
                self.finished = true;
            }
        }
    }

    fn send(&mut self, message: &AgentMessage) {
        assert!(!self.answered, "{message:?} after the answer");
        match message {
            AgentMessage::Answer(_) | AgentMessage::Misunderstood(_) => self.answered = true,
            AgentMessage::Rebase(_)
            | AgentMessage::Listing(_)
            | AgentMessage::Received(_)
            | AgentMessage::Signature(_)
            | AgentMessage::Progress(_) => {}
            AgentMessage::Greeting(_) | AgentMessage::Status(_) | AgentMessage::LogLines(_) => {
                panic!("{message:?} is no part of a push")
            }
        }
    }

    fn owe(&mut self, work: Work) {
        assert!(self.owed.is_none(), "{work:?} while {:?}", self.owed);
        self.owed = Some(work);
    }
}

fn offer(which: u8) -> Offer {
    Offer {
        epoch: which.into(),
        managed: which & 16 != 0,
        id: OfferId(which.into()),
        listing: vec![which; usize::from(which & 32)],
    }
}
