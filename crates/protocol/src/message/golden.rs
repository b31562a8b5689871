//! The bytes of version 1, field by field. If one of these fails, the code is wrong and not the
//! test: what was released is spoken by others.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::time::Duration;

use patchwire_delta::Digest;

use crate::{
    app::{AppState, Exit, ReadyCheck, Reload},
    codec::{self, Decode, Encode},
    manifest::{Entry, LinkTarget, ManifestEntry, Mode},
    message::{
        inner::{AgentMessage, DeveloperMessage, Greeting, Rebase, SignaturePart},
        push::{
            AgentTimings, Answer, AppOptions, Base, ClientId, ConflictWith, Environment, Failure,
            FailureCode, Phase, Push, PushId, PushStatus,
        },
        status::{LastPush, LogLine, LogsRequest, Status},
        value::{Text, WireDigest},
    },
    operation::{Operation, Source},
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
        target: WireDigest(digest(4)),
        operations: 300,
        expires_ms: 0x0102_0304_0506,
        force: true,
        links_may_leave: false,
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
            &[4; 32],                                         // the target's root
            &[251, 0x2c, 0x01],                               // operations: 300
            &[253, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0, 0], // when it expires
            &[1],                                             // force
            &[0],                                             // links may leave the root
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
fn operations() {
    let file = Entry::File {
        mode: Mode::from_bits(0o644),
        len: 5,
        digest: digest(9),
    };
    golden(
        &DeveloperMessage::Operations(vec![
            Operation::Delete { path: path("a") },
            Operation::Put {
                path: path("b"),
                entry: Entry::Directory {
                    mode: Mode::from_bits(0o755),
                },
                source: Source::None,
            },
            Operation::Put {
                path: path("c"),
                entry: file.clone(),
                source: Source::Whole { kept: 0 },
            },
            Operation::Put {
                path: path("d"),
                entry: file.clone(),
                source: Source::Delta { basis: path("x") },
            },
            Operation::Put {
                path: path("e"),
                entry: file,
                source: Source::Copy { from: path("y") },
            },
            Operation::Put {
                path: path("f"),
                entry: Entry::Symlink {
                    target: LinkTarget::new(*b"c").unwrap(),
                },
                source: Source::None,
            },
        ]),
        &[
            &[1],                     // operations
            &[6],                     // how many
            b"\x00\x01a",             // delete: a
            b"\x01\x01b",             // put: b
            &[1, 251, 0xed, 0x01],    // a directory of mode 0755
            &[0],                     // without a source
            b"\x01\x01c",             // put: c
            &[0, 251, 0xa4, 0x01],    // a file of mode 0644
            &[5],                     // its length
            &[9; 32],                 // its digest
            &[1, 0],                  // whole, nothing of it kept
            b"\x01\x01d",             // put: d
            &[0, 251, 0xa4, 0x01, 5], // a file, its mode and length
            &[9; 32],                 // its digest
            b"\x02\x01x",             // a delta against x
            b"\x01\x01e",             // put: e
            &[0, 251, 0xa4, 0x01, 5], // a file, its mode and length
            &[9; 32],                 // its digest
            b"\x03\x01y",             // a copy of y
            b"\x01\x01f",             // put: f
            b"\x02\x01c",             // a link to c
            &[0],                     // without a source
        ],
    );
}

#[test]
fn what_else_a_developer_says() {
    golden(
        &DeveloperMessage::Content(vec![0xaa, 0xbb]),
        &[&[2], b"\x02\xaa\xbb"],
    );
    golden(&DeveloperMessage::ContentEnd, &[&[3]]);
    golden(
        &DeveloperMessage::Sign(vec![path("a")]),
        &[&[4], b"\x01\x01a"],
    );
    golden(&DeveloperMessage::Abort, &[&[5]]);
    golden(&DeveloperMessage::Status, &[&[6]]);
    golden(&DeveloperMessage::Alive, &[&[8]]);
    golden(&DeveloperMessage::Follow, &[&[9]]);
    let logs = LogsRequest {
        lines: 100,
        follow: true,
    };
    golden(&DeveloperMessage::Logs(logs), &[&[7], &[100], &[1]]);
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
            entries: 1,
        }),
        &[&[1], &[7], &[1], &[1]],
    );
    let entry = Entry::Directory {
        mode: Mode::from_bits(0o700),
    };
    golden(
        &AgentMessage::Entries(vec![ManifestEntry {
            path: path("d"),
            entry,
        }]),
        &[&[2], &[1], b"\x01d", &[1, 251, 0xc0, 0x01]],
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
