//! Both ends of a push against each other, under one virtual clock and over a link that cuts what
//! it carries into pieces, delays it, and can be cut itself.

mod pair;

use std::time::{Duration, Instant};

use proptest::prelude::*;

use self::pair::{Pair, Tree, root, tree};
use super::{
    answer::conflict,
    receiver::{self, Committed, Offer, Receiver, Reloaded, Verdict},
    sender::{self, Outcome, Planned},
};
use crate::{
    limits,
    manifest::tests::path,
    message::{
        inner::{AgentMessage, DeveloperMessage, Rebase, SignRequest, SignWhat, SignaturePart},
        push::{
            AppOptions, Base, ClientId, ConflictWith, Failure, FailureCode, OfferId, Push, PushId,
            PushStatus,
        },
        value::Text,
    },
    operation::Operation,
};

fn old() -> Tree {
    tree(&[("a", "one"), ("b", "two"), ("c", "three")])
}

fn new() -> Tree {
    tree(&[("a", "one"), ("b", "2"), ("d", "four")])
}

fn status(outcome: Option<&Outcome>) -> PushStatus {
    match outcome {
        Some(Outcome::Answered(answer)) => answer.status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_remembered_base_costs_one_round_trip() {
    let mut pair = Pair::new(&old(), &old(), &new(), 3, usize::MAX);
    assert_eq!(status(pair.run()), PushStatus::Done);
    assert_eq!(pair.agent.tree, new());
    assert_eq!(pair.agent.recorded, 1);
    assert_eq!(pair.heard_before_all_was_sent, 0);
    assert_eq!(pair.round_trips(), 1);
}

#[test]
fn another_base_is_offered_and_planned_against() {
    for remembered in [tree(&[]), tree(&[("z", "elsewhere")])] {
        let mut pair = Pair::new(&remembered, &old(), &new(), 1000, usize::MAX);
        assert_eq!(status(pair.run()), PushStatus::Done);
        assert_eq!(pair.agent.tree, new());
        // Asked or refused, signed, answered.
        assert_eq!(pair.round_trips(), 3);
    }
    let mut pair = Pair::new(&tree(&[]), &tree(&[]), &new(), 1000, usize::MAX);
    assert_eq!(status(pair.run()), PushStatus::Done);
    assert_eq!(pair.round_trips(), 2);
}

#[test]
fn a_base_that_moves_while_the_content_is_sent_interrupts_it() {
    let mut pair = Pair::new(&old(), &old(), &new(), 1000, usize::MAX);
    pair.agent.drift = Some((path("a"), b"drifted".to_vec()));
    assert_eq!(status(pair.run()), PushStatus::Done);
    assert_eq!(pair.agent.tree, new());

    let mut pair = Pair::new(&old(), &old(), &new(), 1000, usize::MAX);
    pair.agent.verdict = Some(Verdict::Rebase(pair.agent.offer()));
    assert_eq!(status(pair.run()), PushStatus::Done);
    assert_eq!(pair.agent.tree, new());
}

#[test]
fn a_base_that_never_settles_is_given_up() {
    let mut pair = Pair::new(&tree(&[]), &old(), &new(), 1000, usize::MAX);
    // What it offers is never what it judges by.
    pair.agent.epoch = 8;
    pair.agent.managed = true;
    let outcome = loop {
        if pair.agent.finished {
            break pair.run();
        }
        pair.agent.epoch += 1;
        while let Some(output) = pair.sender.poll_output() {
            pair.developer
                .perform(output, &mut pair.sender, &mut pair.up, pair.now);
        }
        pair.now += Duration::from_millis(50);
        for message in pair.up.read::<DeveloperMessage>(pair.now) {
            pair.receiver
                .handle_input(receiver::Input::Message(message), pair.now);
            while let Some(output) = pair.receiver.poll_output() {
                pair.agent
                    .perform(output, &mut pair.receiver, &mut pair.down, pair.now);
            }
        }
        pair.now += Duration::from_millis(50);
        for message in pair.down.read::<AgentMessage>(pair.now) {
            pair.sender
                .handle_input(sender::Input::Message(message), pair.now);
        }
    };
    match outcome {
        Some(Outcome::Answered(answer)) => {
            assert_eq!(
                answer.failure.as_ref().unwrap().code,
                FailureCode::Unsettled
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pair.agent.tree, old());
}

#[test]
fn an_agent_that_never_settles_is_left() {
    let mut pair = Pair::new(&tree(&[]), &old(), &new(), 1000, usize::MAX);
    let rebase = Rebase {
        epoch: 7,
        managed: true,
        offer: OfferId(1),
        listing: 0,
    };
    for round in 0..=limits::REBASES {
        while let Some(output) = pair.sender.poll_output() {
            let ended = matches!(output, sender::Output::Finished(_));
            assert!(!ended, "{output:?} in round {round}");
            if matches!(output, sender::Output::Plan(_)) {
                let planned = sender::Input::Planned(Planned::Operations(0));
                pair.sender.handle_input(planned, pair.now);
            }
        }
        let message = sender::Input::Message(AgentMessage::Rebase(rebase));
        pair.sender.handle_input(message, pair.now);
    }
    assert!(matches!(
        pair.sender.poll_output(),
        Some(sender::Output::Finished(Outcome::Misbehaved(_)))
    ));
}

#[test]
fn what_brings_a_push_no_further_ends_it() {
    let mut pair = Pair::new(&tree(&[]), &old(), &new(), 1000, usize::MAX);
    let rebase = Rebase {
        epoch: 7,
        managed: true,
        offer: OfferId(1),
        listing: 1,
    };
    for message in [
        AgentMessage::Rebase(rebase),
        AgentMessage::Listing(Vec::new()),
    ] {
        let message = sender::Input::Message(message);
        pair.sender.handle_input(message, pair.now);
    }
    let is_end = |output: &sender::Output| {
        matches!(
            output,
            sender::Output::Finished(Outcome::Misbehaved(what)) if what.contains("listing")
        )
    };
    assert!(std::iter::from_fn(|| pair.sender.poll_output()).any(|output| is_end(&output)));

    let mut receiver = Receiver::new(pair.now);
    let header = Push {
        operations: 1,
        base: Base::Committed(root(&old())),
        ..header()
    };
    for input in [
        receiver::Input::Message(DeveloperMessage::Push(Box::new(header))),
        receiver::Input::Judged(Verdict::Accept),
        receiver::Input::Message(DeveloperMessage::Content(Vec::new())),
    ] {
        receiver.handle_input(input, pair.now);
    }
    let is_end = |output: &receiver::Output| {
        matches!(
            output,
            receiver::Output::Send(AgentMessage::Misunderstood(_))
        )
    };
    assert!(std::iter::from_fn(|| receiver.poll_output()).any(|output| is_end(&output)));
}

#[test]
fn no_more_is_on_its_way_than_may_be_lost() {
    let mut pair = Pair::new(&old(), &old(), &new(), 1000, usize::MAX);
    let planned = sender::Input::Planned(Planned::Operations(1));
    pair.sender.handle_input(planned, pair.now);
    let mut send_all = |received: u64| {
        if received > 0 {
            let received = sender::Input::Message(AgentMessage::Received(received));
            pair.sender.handle_input(received, pair.now);
        }
        let mut sent = 0;
        while let Some(output) = pair.sender.poll_output() {
            match output {
                sender::Output::Send(DeveloperMessage::Content(bytes)) => sent += bytes.len(),
                sender::Output::Read => {
                    let piece = sender::Content::Piece(vec![7; limits::CONTENT_PART]);
                    let piece = sender::Input::Content(piece);
                    pair.sender.handle_input(piece, pair.now);
                }
                _ => {}
            }
        }
        sent as u64
    };
    assert_eq!(send_all(0), limits::UNACKNOWLEDGED);
    assert_eq!(send_all(limits::ACKNOWLEDGE), limits::ACKNOWLEDGE);
    assert_eq!(send_all(3 * limits::ACKNOWLEDGE), 2 * limits::ACKNOWLEDGE);

    // Receipts of what was never sent, and none of what was.
    let bogus = sender::Input::Message(AgentMessage::Received(limits::ENTRIES << 20));
    pair.sender.handle_input(bogus, pair.now);
    assert!(matches!(
        pair.sender.poll_output(),
        Some(sender::Output::Finished(Outcome::Misbehaved(_)))
    ));
}

#[test]
fn what_has_come_is_said_once_it_was_taken() {
    let mut pair = Pair::new(&old(), &old(), &new(), 1000, usize::MAX);
    let header = Push {
        operations: 1,
        base: Base::Committed(root(&old())),
        ..header()
    };
    let mut said = Vec::new();
    let content = DeveloperMessage::Content(vec![7; limits::CONTENT_PART]);
    let contents = std::iter::repeat_n(content, 17).map(receiver::Input::Message);
    let begin = [
        receiver::Input::Message(DeveloperMessage::Push(Box::new(header))),
        receiver::Input::Judged(Verdict::Accept),
    ];
    let mut taken = 0;
    for input in begin.into_iter().chain(contents) {
        pair.receiver.handle_input(input, pair.now);
        while let Some(output) = pair.receiver.poll_output() {
            match output {
                receiver::Output::Content(bytes) => taken += bytes.len() as u64,
                receiver::Output::Send(AgentMessage::Received(received)) => {
                    assert_eq!(received, taken);
                    said.push(received);
                }
                _ => {}
            }
        }
    }
    assert_eq!(said, [limits::ACKNOWLEDGE, 2 * limits::ACKNOWLEDGE]);
}

#[test]
fn signatures_are_asked_for_thrice_and_no_more() {
    let mut pair = Pair::new(&tree(&[]), &old(), &new(), 1000, usize::MAX);
    let request = || {
        DeveloperMessage::Sign(vec![SignRequest {
            path: path("a"),
            what: SignWhat::Regions(vec![1]),
        }])
    };
    let part = |last| SignaturePart {
        index: 0,
        bytes: vec![1],
        last,
    };
    let offer = pair.agent.offer();
    for input in [
        receiver::Input::Message(DeveloperMessage::Push(Box::new(header()))),
        receiver::Input::Judged(Verdict::Rebase(offer)),
        receiver::Input::Message(request()),
        receiver::Input::Signed(part(true)),
        receiver::Input::Message(request()),
        receiver::Input::Signed(part(false)),
        receiver::Input::Signed(part(true)),
        receiver::Input::Message(request()),
        receiver::Input::Signed(part(true)),
    ] {
        pair.receiver.handle_input(input, pair.now);
    }
    let outputs = std::iter::from_fn(|| pair.receiver.poll_output());
    let signed = outputs.filter(|output| matches!(output, receiver::Output::Sign(_)));
    assert_eq!(signed.count(), 3);
    let fourth = receiver::Input::Message(request());
    pair.receiver.handle_input(fourth, pair.now);
    let mut outputs = std::iter::from_fn(|| pair.receiver.poll_output());
    assert!(outputs.any(|output| matches!(
        output,
        receiver::Output::Send(AgentMessage::Misunderstood(_))
    )));
}

#[test]
fn what_lies_on_the_disk_is_built_upon_and_not_deleted() {
    let mut pair = Pair::new(&tree(&[]), &tree(&[]), &new(), 1000, usize::MAX);
    pair.agent.managed = false;
    pair.agent.tree = old();
    assert_eq!(status(pair.run()), PushStatus::Done);
    assert!(
        !pair
            .developer
            .operations
            .iter()
            .any(|op| matches!(op, Operation::Delete { .. })),
        "{:?}",
        pair.developer.operations
    );
}

#[test]
fn an_app_that_is_not_ready_brings_the_previous_tree_back() {
    let mut pair = Pair::new(&old(), &old(), &new(), 1000, usize::MAX);
    pair.agent.healthy = false;
    match pair.run() {
        Some(Outcome::Answered(answer)) => {
            assert_eq!(answer.status, PushStatus::RolledBack);
            assert_eq!(answer.root, Some(root(&old())));
            assert_eq!(
                answer.failure.as_ref().unwrap().code,
                FailureCode::AppExited
            );
            assert_eq!(answer.log_tail, [Text::cut("ZeroDivisionError")]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pair.agent.tree, old());

    // With nothing to go back to, the new one stays.
    let mut pair = Pair::new(&tree(&[]), &tree(&[]), &new(), 1000, usize::MAX);
    pair.agent.healthy = false;
    assert_eq!(status(pair.run()), PushStatus::Failed);
    assert_eq!(pair.agent.tree, new());
}

#[test]
fn a_file_that_changes_while_it_is_read_ends_the_push_with_nothing_applied() {
    let mut pair = Pair::new(&old(), &old(), &new(), 1000, usize::MAX);
    pair.developer.changed = Some(path("b"));
    assert_eq!(pair.run(), Some(&Outcome::Changed(path("b"))));
    assert_eq!(pair.agent.tree, old());
    assert!(pair.agent.finished);
}

fn header() -> Push {
    Push {
        push_id: PushId([1; 16]),
        client: ClientId([2; 16]),
        author: Text::default(),
        message: Text::default(),
        epoch: 7,
        base: Base::Unknown,
        target: root(&new()),
        operations: 0,
        expires_ms: 0,
        force: false,
        sketch: None,
        links_may_leave: false,
        mirror: None,
        app: AppOptions::default(),
    }
}

#[test]
fn a_conflict_is_answered_before_anything_is_staged() {
    let mut pair = Pair::new(&old(), &old(), &new(), 1000, usize::MAX);
    let with = ConflictWith {
        author: Text::cut("bob@desk"),
        at_ms: 1,
        push_id: PushId([9; 16]),
        paths: vec![path("a")],
    };
    let conflict = conflict(&header(), with);
    pair.agent.verdict = Some(Verdict::Answer(Box::new(conflict)));
    assert_eq!(status(pair.run()), PushStatus::Conflict);
    assert_eq!(pair.agent.tree, old());
}

#[test]
fn a_link_cut_anywhere_leaves_the_old_tree_or_the_new_one_and_both_ends_end() {
    for (remembered, piece) in [(old(), 7), (tree(&[]), 7)] {
        let mut whole = Pair::new(&remembered, &old(), &new(), piece, usize::MAX);
        whole.run();
        let length = usize::MAX - whole.up.left;
        for cut in 0..length {
            let mut pair = Pair::new(&remembered, &old(), &new(), piece, cut);
            let outcome = pair.run().expect("the developer's end ends");
            match outcome {
                Outcome::Silent => {}
                Outcome::Answered(answer) => {
                    assert_eq!(answer.failure.as_ref().unwrap().code, FailureCode::Stalled);
                }
                Outcome::Misunderstood(_) if cut == 0 || !remembered.is_empty() => {}
                other => panic!("{other:?} at {cut}"),
            }
            assert_eq!(pair.agent.tree, old());
            assert!(pair.agent.finished);
        }
    }
}

fn any_message() -> impl Strategy<Value = DeveloperMessage> {
    let push = (any::<bool>(), 0..3u64, any::<bool>()).prop_map(|(known, operations, same)| {
        let base = if known {
            Base::Committed(root(&old()))
        } else {
            Base::Unknown
        };
        DeveloperMessage::Push(Box::new(Push {
            push_id: PushId([u8::from(same); 16]),
            client: ClientId([2; 16]),
            author: Text::default(),
            message: Text::default(),
            epoch: 7,
            base,
            target: root(&new()),
            operations,
            expires_ms: 0,
            force: false,
            sketch: None,
            links_may_leave: false,
            mirror: None,
            app: AppOptions::default(),
        }))
    });
    let request = SignRequest {
        path: path("a"),
        what: SignWhat::Whole,
    };
    prop_oneof![
        push,
        Just(DeveloperMessage::Content(b"four".to_vec())),
        Just(DeveloperMessage::Content(vec![0; limits::CONTENT_PART + 1])),
        Just(DeveloperMessage::ContentEnd),
        Just(DeveloperMessage::Sign(vec![request])),
        Just(DeveloperMessage::Sign(Vec::new())),
        Just(DeveloperMessage::Abort),
        Just(DeveloperMessage::Status),
        Just(DeveloperMessage::Alive),
        Just(DeveloperMessage::Follow),
    ]
}

proptest! {
    /// Whatever is said in whatever order: work is asked for in the right order and ends once.
    #[test]
    fn no_order_of_messages_confuses_the_agent(
        messages in prop::collection::vec(any_message(), 0..12),
        fails in any::<bool>(),
    ) {
        #[expect(clippy::disallowed_methods, reason = "a beginning for the virtual clock")]
        let mut now = Instant::now();
        let mut receiver = Receiver::new(now);
        let (mut staging, mut staged, mut committed, mut finished) = (false, false, 0, 0);
        for message in messages {
            receiver.handle_input(receiver::Input::Message(message), now);
            while let Some(output) = receiver.poll_output() {
                use receiver::{Input, Output};
                prop_assert_eq!(finished, 0);
                let input = match output {
                    Output::Judge(push) => Input::Judged(match push.base {
                        Base::Unknown => Verdict::Rebase(Offer {
                            epoch: 7,
                            managed: true,
                            id: OfferId(1),
                            listing: Vec::new(),
                        }),
                        Base::Committed(_) | Base::Offered(_) => Verdict::Accept,
                    }),
                    Output::Sign(paths) => {
                        prop_assert_eq!(paths.len(), 1);
                        Input::Signed(SignaturePart { index: 0, bytes: vec![], last: true })
                    }
                    Output::Stage(..) => {
                        staging = true;
                        continue;
                    }
                    Output::Content(_) => {
                        prop_assert!(staging);
                        continue;
                    }
                    Output::ContentEnd => {
                        prop_assert!(staging);
                        staged = true;
                        Input::Staged(Ok(()))
                    }
                    Output::Commit => {
                        prop_assert!(staged);
                        committed += 1;
                        Input::Committed(match fails {
                            true => Err(Failure::new(FailureCode::Io, "disk full")),
                            false => Ok(Committed {
                                epoch: 7,
                                root: root(&new()),
                                can_roll_back: false,
                                drift: Vec::new(),
                                warnings: Vec::new(),
                                commit_us: 0,
                            }),
                        })
                    }
                    Output::Reload => Input::Reloaded(Reloaded {
                        outcome: Ok(false),
                        app: None,
                        log_tail: Vec::new(),
                        reload_us: 0,
                        ready_us: 0,
                    }),
                    Output::RollBack => unreachable!("there is nothing to go back to"),
                    Output::Finished => {
                        finished += 1;
                        continue;
                    }
                    Output::Send(_) | Output::Record(_) | Output::Discard => continue,
                };
                receiver.handle_input(input, now);
            }
        }
        prop_assert!(committed <= 1);
        // Left alone, it ends.
        for _ in 0..100 {
            let Some(timeout) = receiver.poll_timeout() else { break };
            now = timeout;
            receiver.handle_timeout(now);
        }
        prop_assert!(receiver.poll_timeout().is_none());
    }
}
