//! The developer's end of a push: an agent that says anything at any time, and a shell that plans
//! and reads.

use std::time::{Duration, Instant};

use patchwire_protocol::{
    limits,
    message::{
        inner::{
            AgentMessage, DeveloperMessage, Greeting, Rebase, SignRequest, SignWhat, SignaturePart,
        },
        push::{Base, OfferId, Phase},
        value::{Text, WireDigest},
    },
    session::{
        answer::refusal,
        sender::{Basis, Content, Input, Outcome, Output, Planned, Sender},
    },
};

use crate::session::{at, failure, push, root, steps};

/// The id of the push that is sent.
const OWN: u8 = 1;

/// Follows a script, whose first byte says what is remembered. What is sent makes a push, and it
/// ends once: at the latest when it is left alone.
pub fn sender(data: &[u8]) {
    let Some((first, script)) = data.split_first() else {
        return;
    };
    let mut shell = Shell::new(*first);
    for [what, which] in steps(script) {
        match what % 12 {
            0..7 => shell.hear(message(what % 12, which)),
            7..10 => shell.work(which),
            10 => shell.wait(),
            _ => {
                shell.now += Duration::from_millis(200) * u32::from(which);
                let now = shell.now;
                shell.handle(|sender| sender.handle_timeout(now));
            }
        }
    }
    // Left alone, with content that ends, it ends.
    for _ in 0..8 {
        match shell.owed {
            _ if shell.finished => break,
            Some(_) => shell.work(2),
            None => shell.wait(),
        }
    }
    assert!(shell.finished);
    shell.hear(AgentMessage::Progress(Phase::Staging));
    shell.work(0);
}

fn message(what: u8, which: u8) -> AgentMessage {
    match what {
        0 => AgentMessage::Rebase(Rebase {
            epoch: which.into(),
            managed: which & 1 == 1,
            offer: OfferId(which.into()),
            listing: match which {
                255 => limits::LISTING as u64 + 1,
                254 => limits::LISTING as u64,
                which => (which & 6).into(),
            },
        }),
        // What was announced, too much or too little.
        1 => AgentMessage::Listing(vec![which; usize::from(which % 8)]),
        2 => AgentMessage::Signature(SignaturePart {
            index: (which >> 4).into(),
            bytes: vec![which; which.into()],
            last: which & 1 == 0,
        }),
        3 => AgentMessage::Progress(Phase::Staging),
        4 => {
            let id = if which < 128 { OWN } else { OWN + 1 };
            AgentMessage::Answer(Box::new(refusal(&push(id, Base::Unknown, 0), failure())))
        }
        5 => AgentMessage::Misunderstood(Text::cut("what?")),
        _ if which & 3 == 2 => AgentMessage::Received(u64::from(which) * 64),
        _ if which & 1 == 0 => AgentMessage::Greeting(greeting(None)),
        _ => AgentMessage::LogLines(Vec::new()),
    }
}

fn greeting(root: Option<WireDigest>) -> Greeting {
    Greeting {
        name: Text::cut("box"),
        epoch: 7,
        root,
    }
}

/// What the machine asked for and has not got yet.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Plan,
    Diff,
    Read,
}

struct Shell {
    sender: Sender,
    now: Instant,
    owed: Option<Work>,
    wanted: usize,
    /// How often the agent offered another base.
    offers: u32,
    /// Whether what was sent last is a push with content that has not ended.
    open: bool,
    sent: bool,
    finished: bool,
}

impl Shell {
    fn new(first: u8) -> Self {
        // The only clock is this beginning; what follows is added to it.
        let now = Instant::now();
        let remembered = (first & 1 == 1).then(|| (7 + u64::from(first & 2), root()));
        let header = push(OWN, Base::Unknown, 0);
        let mut shell = Self {
            sender: Sender::new(header, remembered, now),
            now,
            owed: None,
            wanted: 0,
            offers: 0,
            open: false,
            sent: false,
            finished: false,
        };
        shell.handle(|_| {});
        shell
    }

    fn hear(&mut self, message: AgentMessage) {
        let now = self.now;
        self.handle(|sender| sender.handle_input(Input::Message(message), now));
    }

    fn wait(&mut self) {
        if let Some(timeout) = self.sender.poll_timeout() {
            assert!(timeout > self.now, "a timeout that is handled moves on");
            self.now = timeout;
            self.handle(|sender| sender.handle_timeout(timeout));
        }
    }

    /// Ends the work that is owed, as `which` says.
    fn work(&mut self, which: u8) {
        let Some(work) = self.owed.take() else {
            return;
        };
        let input = match work {
            Work::Plan if which % 4 == 1 => {
                self.wanted = 1 + usize::from(which >> 4);
                let request = SignRequest {
                    path: at("a"),
                    what: SignWhat::Whole,
                };
                Input::Planned(Planned::Wants(vec![request; self.wanted]))
            }
            Work::Plan | Work::Diff => Input::Planned(Planned::Operations(u64::from(which >> 2))),
            Work::Read => Input::Content(match which % 4 {
                1 if which & 64 != 0 => Content::Alive,
                0 | 1 => Content::Piece(vec![which; which.into()]),
                2 => Content::End,
                _ => Content::Changed(at("a")),
            }),
        };
        let now = self.now;
        self.handle(|sender| sender.handle_input(input, now));
    }

    fn handle(&mut self, act: impl FnOnce(&mut Sender)) {
        act(&mut self.sender);
        while let Some(output) = self.sender.poll_output() {
            assert!(!self.finished, "{output:?} after the end");
            self.perform(output);
        }
        assert!(self.sender.is_sent() || !self.sent, "what is sent stays so");
        self.sent = self.sender.is_sent();
        let planning = matches!(self.owed, Some(Work::Plan | Work::Diff));
        let waits = self.sender.poll_timeout().is_some();
        assert!(
            waits != self.finished || planning && !waits,
            "only our own work takes for ever"
        );
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send(message) => self.send(&message),
            Output::Plan(basis) => {
                if let Basis::Offered { listing, .. } = basis {
                    assert!(listing.len() <= limits::LISTING);
                    self.offers += 1;
                    assert!(self.offers <= limits::REBASES, "an end is in sight");
                }
                // The agent may have said while we read that its base is another.
                self.owed = Some(Work::Plan);
            }
            Output::Diff(signatures) => {
                assert_eq!(signatures.len(), self.wanted);
                self.owed = Some(Work::Diff);
            }
            Output::Read => {
                assert!(self.open);
                self.owed = Some(Work::Read);
            }
            Output::Progress(_) | Output::Received(_) => {}
            Output::Finished(outcome) => {
                if let Outcome::Answered(answer) = outcome {
                    assert_eq!(answer.push_id, push(OWN, Base::Unknown, 0).push_id);
                }
                (self.owed, self.finished) = (None, true);
            }
        }
    }

    fn send(&mut self, message: &DeveloperMessage) {
        match message {
            DeveloperMessage::Push(push) => self.open = push.operations > 0,
            DeveloperMessage::Content(_) | DeveloperMessage::Alive => assert!(self.open),
            DeveloperMessage::ContentEnd => {
                assert!(self.open);
                self.open = false;
            }
            DeveloperMessage::Sign(requests) => assert_eq!(requests.len(), self.wanted),
            DeveloperMessage::Abort => {}
            DeveloperMessage::Status | DeveloperMessage::Logs(_) | DeveloperMessage::Follow => {
                panic!("{message:?} is no part of a push")
            }
        }
    }
}
