//! The bytes of version 2, field by field. If one of these fails, the code is wrong and not the
//! test: what was released is spoken by others.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::time::Duration;

use patchwire_delta::Digest;

use crate::{
    app::{AppState, Exit, ReadyCheck, Reload},
    codec::{self, Decode, Encode},
    message::{
        inner::{
            AgentMessage, DeveloperMessage, Greeting, Rebase, SignRequest, SignWhat, SignaturePart,
        },
        push::{
            AgentTimings, Answer, AppOptions, Base, ClientId, ConflictWith, Environment, Failure,
            FailureCode, OfferId, Patterns, Phase, Push, PushId, PushStatus,
        },
        status::{LastPush, LogLine, LogsRequest, Status},
        value::{Text, WireDigest},
    },
    path::RelativePath,
};

#[track_caller]
fn golden<T: Encode + Decode<()> + PartialEq + std::fmt::Debug>(value: &T, fields: &[&[u8]]) {
    let bytes = fields.concat();
    assert_eq!(codec::encode(value), bytes);
    assert_eq!(codec::decode::<T>(&bytes).unwrap(), *value);
    for end in 0..bytes.len() {
        assert!(codec::decode::<T>(&bytes[..end]).is_err(), "cut at {end}");
    }
}

fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

fn path(path: &str) -> RelativePath {
    path.try_into().unwrap()
}

#[test]
fn a_push() {
    let push = Push {
        push_id: PushId([1; 16]),
        client: ClientId([2; 16]),
        author: Text::cut("ana"),
        message: Text::cut("hi"),
        epoch: 7,
        base: Base::Committed(WireDigest(digest(3))),
        sketch: Some(codec::decode(b"\x05\x03\x0a\x0b\x0c").unwrap()),
        target: WireDigest(digest(4)),
        operations: 300,
        expires_ms: 0x0102_0304_0506,
        force: true,
        links_may_leave: false,
        mirror: Some(Patterns::new(vec!["*.db".to_owned()], Vec::new()).unwrap()),
        app: AppOptions {
            reload: Some(Reload::Restart),
            ready: Some(ReadyCheck::Alive(Duration::from_secs(2))),
            ready_timeout_ms: None,
            environment: Environment::new(vec![("A".to_owned(), "b".to_owned())]).unwrap(),
        },
    };
    golden(
        &DeveloperMessage::Push(Box::new(push)),
        &[
            &[0],                                             // a push
            &[1; 16],                                         // its id
            &[2; 16],                                         // its client
            b"\x03ana",                                       // its author
            b"\x02hi",                                        // its message
            &[7],                                             // the epoch
            &[1],                                             // the base: committed
            &[3; 32],                                         // its root
            &[1, 5],                                          // a sketch, its seed
            b"\x03\x0a\x0b\x0c",                              // the sum of its group
            &[4; 32],                                         // the target's root
            &[251, 0x2c, 0x01],                               // operations: 300
            &[253, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0, 0], // when it expires
            &[1],                                             // force
            &[0],                                             // links may leave the root
            &[1],                                             // a mirror
            b"\x01\x04*.db",                                  // that leaves these
            &[0],                                             // and no others for all that
            b"\x01\x07restart",                               // how to reload
            b"\x01\x08alive:2s",                              // when it is ready
            &[0],                                             // how long that may take
            b"\x01\x01A\x01b",                                // the environment
        ],
    );
}

#[test]
fn ready_checks() {
    golden(&ReadyCheck::Tcp(80), &[b"\x06tcp:80"]);
    golden(&ReadyCheck::Auto, &[b"\x04auto"]);
}

#[test]
fn what_else_a_developer_says() {
    golden(
        &DeveloperMessage::Content(vec![0xaa, 0xbb]),
        &[&[1], b"\x02\xaa\xbb"],
    );
    golden(&DeveloperMessage::ContentEnd, &[&[2]]);
    let request = |what| SignRequest {
        path: path("a"),
        what,
    };
    golden(
        &DeveloperMessage::Sign(vec![
            request(SignWhat::Whole),
            request(SignWhat::FirstRound),
            request(SignWhat::Regions(vec![7, 8])),
        ]),
        &[
            &[3],                     // signatures
            &[3],                     // how many
            b"\x01a\x00",             // of all of a, for one round
            b"\x01a\x01",             // for the first of two
            b"\x01a\x02\x02\x07\x08", // of these regions
        ],
    );
    golden(&DeveloperMessage::Abort, &[&[4]]);
    golden(&DeveloperMessage::Status, &[&[5]]);
    golden(&DeveloperMessage::Alive, &[&[7]]);
    golden(&DeveloperMessage::Follow, &[&[8]]);
    let logs = LogsRequest {
        lines: 100,
        follow: true,
    };
    golden(&DeveloperMessage::Logs(logs), &[&[6], &[100], &[1]]);
}

#[test]
fn what_an_agent_says_of_its_tree() {
    golden(
        &AgentMessage::Greeting(Greeting {
            name: Text::cut("box"),
            epoch: 7,
            root: Some(WireDigest(digest(3))),
        }),
        &[&[0], b"\x03box", &[7], &[1], &[3; 32]],
    );
    golden(
        &AgentMessage::Rebase(Rebase {
            epoch: 7,
            managed: true,
            offer: OfferId(300),
            listing: 9,
        }),
        &[
            &[1],               // another base
            &[7],               // the epoch
            &[1],               // managed
            &[251, 0x2c, 0x01], // the offer
            &[9],               // how long its listing is
        ],
    );
    golden(
        &AgentMessage::Listing(vec![0xaa, 0xbb]),
        &[&[2], b"\x02\xaa\xbb"],
    );
    golden(
        &AgentMessage::Received(1 << 20),
        &[&[9], &[252, 0, 0, 0x10, 0]],
    );
    golden(
        &AgentMessage::Signature(SignaturePart {
            index: 2,
            bytes: vec![9],
            last: true,
        }),
        &[&[3], &[2], &[1, 9], &[1]],
    );
    for (phase, byte) in [
        (Phase::Queued, 0),
        (Phase::Staging, 1),
        (Phase::Committing, 2),
        (Phase::Reloading, 3),
        (Phase::RollingBack, 4),
    ] {
        golden(&AgentMessage::Progress(phase), &[&[4], &[byte]]);
    }
    golden(
        &AgentMessage::Misunderstood(Text::cut("what")),
        &[&[8], b"\x04what"],
    );
}

#[test]
fn an_answer() {
    let answer = Answer {
        push_id: PushId([1; 16]),
        status: PushStatus::RolledBack,
        failure: Some(Failure::new(FailureCode::AppExited, "exit")),
        epoch: 7,
        root: Some(WireDigest(digest(3))),
        timings: AgentTimings {
            commit_us: 1,
            reload_us: 2,
            ready_us: 3,
        },
        app: Some(AppState {
            running: true,
            pid: Some(42),
            exit: Some(Exit::Code(1)),
            restarts: 4,
        }),
        verified: false,
        log_tail: vec![Text::cut("x")],
        drift: vec![path("a")],
        warnings: vec![],
        conflict: Some(ConflictWith {
            author: Text::cut("bob"),
            at_ms: 5,
            push_id: PushId([6; 16]),
            paths: vec![path("b")],
        }),
    };
    golden(
        &AgentMessage::Answer(Box::new(answer)),
        &[
            &[5],         // an answer
            &[1; 16],     // to this push
            &[3],         // rolled back
            &[1, 9],      // because the app exited
            b"\x04exit",  // in words
            &[7],         // the epoch
            &[1],         // a root
            &[3; 32],     // namely
            &[1, 2, 3],   // microseconds to commit, reload, be ready
            &[1],         // an app
            &[1],         // that runs
            &[1, 42],     // with this id
            &[1, 0, 2],   // after one that exited with 1 (zigzag)
            &[4],         // and was started again so often
            &[0],         // not verified
            b"\x01\x01x", // its last lines
            b"\x01\x01a", // what drifted
            &[0],         // no warnings
            &[1],         // a conflict
            b"\x03bob",   // with whom
            &[5],         // when
            &[6; 16],     // which push
            b"\x01\x01b", // what it changed
        ],
    );
    let codes = [
        FailureCode::Invalid,
        FailureCode::Expired,
        FailureCode::Stalled,
        FailureCode::Aborted,
        FailureCode::Io,
        FailureCode::Unsettled,
        FailureCode::Conflict,
        FailureCode::PushIdTaken,
        FailureCode::LinkLeavesRoot,
        FailureCode::AppExited,
        FailureCode::NotReady,
        FailureCode::ReloadFailed,
    ];
    for (byte, code) in (0..).zip(codes) {
        golden(&code, &[&[byte]]);
    }
    let statuses = [
        PushStatus::Done,
        PushStatus::NoChanges,
        PushStatus::Failed,
        PushStatus::RolledBack,
        PushStatus::Conflict,
    ];
    for (byte, status) in (0..).zip(statuses) {
        golden(&status, &[&[byte]]);
    }
}

#[test]
fn a_status_and_lines() {
    let status = Status {
        name: Text::cut("box"),
        version: Text::cut("1"),
        epoch: 7,
        root: None,
        entries: 2,
        app: None,
        verified: true,
        last_push: Some(LastPush {
            push_id: PushId([1; 16]),
            author: Text::cut("ana"),
            message: Text::cut(""),
            at_ms: 5,
            last_result: Some((PushId([2; 16]), PushStatus::Done)),
        }),
    };
    golden(
        &AgentMessage::Status(Box::new(status)),
        &[
            &[6],       // a status
            b"\x03box", // the agent's name
            b"\x011",   // its version
            &[7],       // its epoch
            &[0],       // no root
            &[2],       // entries
            &[0],       // no app
            &[1],       // verified
            &[1],       // a push
            &[1; 16],   // its id
            b"\x03ana", // its author
            b"\x00",    // its message
            &[5],       // when
            &[1],       // a last result
            &[2; 16],   // of this push
            &[0],       // done
        ],
    );
    let line = LogLine {
        at_ms: 5,
        stderr: true,
        text: b"x".to_vec(),
    };
    golden(
        &AgentMessage::LogLines(vec![line]),
        &[&[7], &[1], &[5], &[1], b"\x01x"],
    );
}
