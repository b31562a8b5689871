//! The answers that the agent's end makes of what came of a push.

use std::time::{Duration, UNIX_EPOCH};

use super::receiver::{Committed, Reloaded};
use crate::message::push::{
    AgentTimings, Answer, ConflictWith, Failure, FailureCode, Push, PushStatus,
};

/// How many paths a sentence names.
const NAMED: usize = 5;

/// The last millisecond that RFC 3339 can write, in 9999.
const LAST_MS: u64 = 253_402_300_799_999;

/// Makes the answer to a push of which nothing was applied. `epoch` and `root` are the shell's to
/// fill in where it knows them.
#[must_use]
pub fn refusal(push: &Push, failure: Failure) -> Answer {
    Answer {
        push_id: push.push_id,
        status: PushStatus::Failed,
        failure: Some(failure),
        epoch: push.epoch,
        root: None,
        timings: AgentTimings::default(),
        app: None,
        verified: false,
        log_tail: Vec::new(),
        drift: Vec::new(),
        warnings: Vec::new(),
        conflict: None,
    }
}

/// Makes the answer to a push that another client's stands in the way of.
#[must_use]
pub fn conflict(push: &Push, with: ConflictWith) -> Answer {
    let at = UNIX_EPOCH + Duration::from_millis(with.at_ms.min(LAST_MS));
    let paths: Vec<_> = with
        .paths
        .iter()
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    let more = if with.paths.len() > NAMED {
        ", …"
    } else {
        ""
    };
    let message = format!(
        "{} pushed in between, at {}, changing {}{more}",
        with.author.as_str(),
        humantime::format_rfc3339_seconds(at),
        paths.join(", "),
    );
    Answer {
        status: PushStatus::Conflict,
        conflict: Some(with),
        ..refusal(push, Failure::new(FailureCode::Conflict, message))
    }
}

pub(super) fn answer(
    push: &Push,
    committed: Committed,
    reloaded: Reloaded,
    status: PushStatus,
    failure: Option<Failure>,
) -> Answer {
    Answer {
        push_id: push.push_id,
        status,
        failure,
        epoch: committed.epoch,
        root: Some(committed.root),
        timings: AgentTimings {
            commit_us: committed.commit_us,
            reload_us: reloaded.reload_us,
            ready_us: reloaded.ready_us,
        },
        app: reloaded.app,
        verified: reloaded.outcome.unwrap_or(false),
        log_tail: reloaded.log_tail,
        drift: committed.drift,
        warnings: committed.warnings,
        conflict: None,
    }
}
