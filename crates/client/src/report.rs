//! What a command comes to, as programs read it.
//!
//! The JSON of these types is a contract: fields are added, never renamed or taken away. Paths are
//! written as [`RelativePath`] displays them, so that a name that isn't UTF-8 stays readable.

use std::{fmt::Display, time::Duration};

use patchwire_delta::Digest;
use patchwire_protocol::{
    app::{AppState, Exit},
    message::{
        push::{Answer, ConflictWith, Failure, FailureCode, PushId, PushStatus},
        status::{LastPush, LogLine, Status},
    },
    path::RelativePath,
};
use patchwire_tree::{Action, Change};
use schemars::JsonSchema;
use serde::{Serialize, Serializer, ser::SerializeSeq};

/// How a push ended.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct PushReport {
    /// The push's name.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    pub push_id: PushId,
    /// How it ended.
    pub status: ReportStatus,
    /// Why it did not end as wished.
    pub error: Option<ReportedError>,
    /// The root of the tree that the agent has now, where that is known.
    #[serde(serialize_with = "as_optional_text")]
    #[schemars(with = "Option<String>")]
    pub root: Option<Digest>,
    /// How many files the push was about.
    pub files: FileCounts,
    /// How many bytes the push was about.
    pub bytes: ByteCounts,
    /// How long it took.
    pub timings_ms: Timings,
    /// How the agents are.
    pub agents: Vec<AgentReport>,
    /// Managed paths that someone changed on the agent's side.
    #[serde(serialize_with = "as_texts")]
    #[schemars(with = "Vec<String>")]
    pub drift: Vec<RelativePath>,
    /// What else the developer should know.
    pub warnings: Vec<String>,
    /// Whether the push was only planned. Its status is then `no-changes`, as nothing was
    /// changed, and `files` says what it would have been about.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// With a dry run: what would become of which file, sorted by path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Vec<PlannedChange>>,
    /// With a first push: the files or directories at the top of the tree that most had to be sent
    /// of, three at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub largest: Vec<Contributor>,
    /// Who pushed in between, if that is why. `error` says it to programs.
    #[serde(skip)]
    pub conflict: Option<ConflictWith>,
}

/// How a push ended, as its developer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportStatus {
    /// The tree is committed and the app ready on it.
    Done,
    /// The agent had the tree already.
    NoChanges,
    /// Refused, or not ready with nothing to go back to.
    Failed,
    /// Committed, not ready, and the previous tree is back.
    RolledBack,
    /// Another client pushed since.
    Conflict,
    /// Sent and never answered: it may have been applied.
    Unknown,
}

/// What went wrong, for a program and for a person.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct ReportedError {
    /// For a program: words joined by `-`.
    pub code: String,
    /// For a person.
    pub message: String,
}

/// What would become of one file or link.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct PlannedChange {
    /// Where.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    pub path: RelativePath,
    /// What would become of it.
    pub action: PlannedAction,
    /// The length of its content, before where it would be deleted.
    pub bytes: u64,
    /// Where it was, if it would be moved.
    #[serde(serialize_with = "as_optional_text")]
    #[schemars(with = "Option<String>")]
    pub from: Option<RelativePath>,
}

/// What would become of a file or link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlannedAction {
    /// It is new.
    Added,
    /// It has other content, permissions or type.
    Changed,
    /// It is gone.
    Deleted,
    /// It has another name, with the content it had.
    Moved,
}

/// A part of a tree, by what of it had to be sent.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Contributor {
    /// A file or directory at the top of the tree.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    pub path: RelativePath,
    /// How many bytes of content, before they were compressed.
    pub bytes: u64,
}

impl From<Change> for PlannedChange {
    fn from(change: Change) -> Self {
        Self {
            path: change.path,
            action: match change.action {
                Action::Added => PlannedAction::Added,
                Action::Changed => PlannedAction::Changed,
                Action::Deleted => PlannedAction::Deleted,
                Action::Moved => PlannedAction::Moved,
            },
            bytes: change.bytes,
            from: change.from,
        }
    }
}

impl From<&(RelativePath, u64)> for Contributor {
    fn from((path, bytes): &(RelativePath, u64)) -> Self {
        Self {
            path: path.clone(),
            bytes: *bytes,
        }
    }
}

/// How many entries of the tree a push touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct FileCounts {
    /// New ones.
    pub added: u64,
    /// Those with other content, permissions or type.
    pub changed: u64,
    /// Those that are gone.
    pub deleted: u64,
    /// Those that have another name, with the content they had.
    pub moved: u64,
}

/// How many bytes a push was about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct ByteCounts {
    /// In all files of the tree.
    pub tree: u64,
    /// Written to the transport's stream.
    pub sent: u64,
    /// Read from the transport's stream.
    pub received: u64,
}

/// How long a push took, written as milliseconds with a fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Timings {
    /// Until the tree was known.
    #[serde(serialize_with = "as_milliseconds")]
    #[schemars(with = "f64")]
    pub scan: Duration,
    /// Until the agent had everything.
    #[serde(serialize_with = "as_milliseconds")]
    #[schemars(with = "f64")]
    pub send: Duration,
    /// Until the tree was exchanged, as the agent measured it.
    #[serde(serialize_with = "as_milliseconds")]
    #[schemars(with = "f64")]
    pub commit: Duration,
    /// Until the app had its new process, signal or command, as the agent measured it.
    #[serde(serialize_with = "as_milliseconds")]
    #[schemars(with = "f64")]
    pub reload: Duration,
    /// Until the app was ready, as the agent measured it.
    #[serde(serialize_with = "as_milliseconds")]
    #[schemars(with = "f64")]
    pub ready: Duration,
    /// From start to report.
    #[serde(serialize_with = "as_milliseconds")]
    #[schemars(with = "f64")]
    pub total: Duration,
}

/// How one agent took a push.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct AgentReport {
    /// Its name.
    pub name: String,
    /// How the push ended there.
    pub status: ReportStatus,
    /// Whether the readiness check saw the new code start.
    pub verified: bool,
    /// The app, where the agent runs one.
    #[serde(serialize_with = "as_app")]
    #[schemars(with = "Option<AppReport>")]
    pub app: Option<AppState>,
    /// The app's last lines since this push started it.
    pub log_tail: Vec<String>,
}

impl PushReport {
    /// The exit status of a command that ends with this report.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        self.status.exit_code()
    }

    /// Tells whether the app did not come up with the tree, so that to send it to the same agent
    /// again would be in vain.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        let code = self.error.as_ref().map(|error| &*error.code);
        match self.status {
            ReportStatus::RolledBack => true,
            ReportStatus::Failed => REJECTIONS.iter().any(|of| code == Some(of.as_str())),
            ReportStatus::Done
            | ReportStatus::NoChanges
            | ReportStatus::Conflict
            | ReportStatus::Unknown => false,
        }
    }
}

/// Failures that are the app's.
const REJECTIONS: [FailureCode; 3] = [
    FailureCode::AppExited,
    FailureCode::NotReady,
    FailureCode::ReloadFailed,
];

impl ReportStatus {
    /// The status as JSON shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NoChanges => "no-changes",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
            Self::Conflict => "conflict",
            Self::Unknown => "unknown",
        }
    }

    /// The exit status of a command that ends like this.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Done | Self::NoChanges => 0,
            Self::Failed | Self::RolledBack | Self::Conflict => 1,
            Self::Unknown => 3,
        }
    }
}

impl From<PushStatus> for ReportStatus {
    fn from(status: PushStatus) -> Self {
        match status {
            PushStatus::Done => Self::Done,
            PushStatus::NoChanges => Self::NoChanges,
            PushStatus::Failed => Self::Failed,
            PushStatus::RolledBack => Self::RolledBack,
            PushStatus::Conflict => Self::Conflict,
        }
    }
}

impl From<&Failure> for ReportedError {
    fn from(failure: &Failure) -> Self {
        Self {
            code: failure.code.as_str().to_owned(),
            message: failure.message.as_str().to_owned(),
        }
    }
}

impl AgentReport {
    /// Takes an agent's part out of its answer.
    #[must_use]
    pub fn new(name: impl Into<String>, answer: &Answer) -> Self {
        let lines = answer.log_tail.iter();
        Self {
            name: name.into(),
            status: answer.status.into(),
            verified: answer.verified,
            app: answer.app,
            log_tail: lines.map(|line| line.as_str().to_owned()).collect(),
        }
    }
}

/// How an agent and its app are.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct StatusReport {
    /// The agent's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The root of what is committed.
    #[serde(serialize_with = "as_optional_text")]
    #[schemars(with = "Option<String>")]
    pub root: Option<Digest>,
    /// How many entries that has.
    pub entries: u64,
    /// Whether the app was seen ready on it.
    pub verified: bool,
    /// The app, where the agent runs one.
    #[serde(serialize_with = "as_app")]
    #[schemars(with = "Option<AppReport>")]
    pub app: Option<AppState>,
    /// The push whose tree stands.
    pub last_push: Option<LastPushReport>,
}

/// The push whose tree stands.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize)]
pub struct LastPushReport {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    pub push_id: PushId,
    /// Who pushed.
    pub author: String,
    /// What they said of it.
    pub message: String,
    /// When it was committed, in milliseconds since 1970 by the agent's clock.
    pub at_ms: u64,
    /// How the newest push ended, which need not be this one: what fails is rolled back.
    pub last_result: Option<LastResult>,
}

/// How the newest push ended.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema, Serialize)]
pub struct LastResult {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    pub push_id: PushId,
    /// How it ended.
    pub status: ReportStatus,
}

impl From<Status> for StatusReport {
    fn from(status: Status) -> Self {
        Self {
            name: status.name.as_str().to_owned(),
            version: status.version.as_str().to_owned(),
            root: status.root.map(|root| root.0),
            entries: status.entries,
            verified: status.verified,
            app: status.app,
            last_push: status.last_push.map(LastPushReport::from),
        }
    }
}

impl From<LastPush> for LastPushReport {
    fn from(push: LastPush) -> Self {
        let last_result = |(push_id, status): (PushId, PushStatus)| LastResult {
            push_id,
            status: status.into(),
        };
        Self {
            push_id: push.push_id,
            author: push.author.as_str().to_owned(),
            message: push.message.as_str().to_owned(),
            at_ms: push.at_ms,
            last_result: push.last_result.map(last_result),
        }
    }
}

/// A line of the app's output.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct LogLineReport {
    /// When it came, in milliseconds since 1970 by the agent's clock.
    pub at_ms: u64,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// The line; what isn't UTF-8 in it is replaced.
    pub text: String,
}

impl From<&LogLine> for LogLineReport {
    fn from(line: &LogLine) -> Self {
        Self {
            at_ms: line.at_ms,
            stream: if line.stderr { "stderr" } else { "stdout" },
            text: String::from_utf8_lossy(&line.text).into_owned(),
        }
    }
}

fn as_text<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

fn as_optional_text<S: Serializer>(value: &Option<impl Display>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

fn as_texts<S: Serializer>(values: &[impl Display], to: S) -> Result<S::Ok, S::Error> {
    let mut seq = to.serialize_seq(Some(values.len()))?;
    for value in values {
        seq.serialize_element(&format_args!("{value}"))?;
    }
    seq.end()
}

fn as_milliseconds<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    // To the microsecond: the digits after that are the floating point's.
    to.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

/// How an app is.
#[derive(JsonSchema, Serialize)]
struct AppReport {
    /// Whether it runs.
    running: bool,
    /// Its process, while it runs.
    pid: Option<u32>,
    /// How it last ended: 128 and the signal's number where that was a signal.
    exit_code: Option<i32>,
    /// How often it ended by itself and was started again.
    restarts: u32,
}

fn as_app<S: Serializer>(app: &Option<AppState>, to: S) -> Result<S::Ok, S::Error> {
    app.map(|app| AppReport {
        running: app.running,
        pid: app.pid,
        exit_code: app.exit.map(|exit| match exit {
            Exit::Code(code) => code,
            // As shells say it.
            Exit::Signal(number) => 128 + number,
        }),
        restarts: app.restarts,
    })
    .serialize(to)
}

#[cfg(test)]
mod tests {
    use patchwire_protocol::message::push::FailureCode;
    use serde_json::{json, to_value};

    use super::*;

    fn report() -> PushReport {
        PushReport {
            push_id: PushId([0x11; 16]),
            status: ReportStatus::RolledBack,
            error: Some(ReportedError::from(&Failure::new(
                FailureCode::AppExited,
                "the app ended before it was ready: exit status 1",
            ))),
            root: Some(Digest::from_bytes([0xab; 32])),
            files: FileCounts {
                added: 1,
                changed: 2,
                deleted: 3,
                moved: 4,
            },
            bytes: ByteCounts {
                tree: 5,
                sent: 6,
                received: 7,
            },
            timings_ms: Timings {
                scan: Duration::from_micros(1_500),
                total: Duration::from_nanos(84_123_456),
                ..Timings::default()
            },
            agents: vec![AgentReport {
                name: "web-1".to_owned(),
                status: ReportStatus::RolledBack,
                verified: false,
                app: Some(AppState {
                    running: true,
                    pid: Some(42),
                    exit: Some(Exit::Signal(9)),
                    restarts: 1,
                }),
                log_tail: vec!["Traceback".to_owned()],
            }],
            drift: vec![RelativePath::new(*b"latin-\xe9").unwrap()],
            warnings: vec!["w".to_owned()],
            dry_run: false,
            plan: None,
            largest: Vec::new(),
            conflict: None,
        }
    }

    #[test]
    fn the_json_is_the_contracts() {
        assert_eq!(
            to_value(report()).unwrap(),
            json!({
                "push_id": "11111111-1111-1111-1111-111111111111",
                "status": "rolled-back",
                "error": {
                    "code": "app-exited",
                    "message": "the app ended before it was ready: exit status 1",
                },
                "root": "ab".repeat(32),
                "files": {"added": 1, "changed": 2, "deleted": 3, "moved": 4},
                "bytes": {"tree": 5, "sent": 6, "received": 7},
                "timings_ms": {
                    "scan": 1.5, "send": 0.0, "commit": 0.0, "reload": 0.0, "ready": 0.0,
                    "total": 84.123,
                },
                "agents": [{
                    "name": "web-1",
                    "status": "rolled-back",
                    "verified": false,
                    "app": {"running": true, "pid": 42, "exit_code": 137, "restarts": 1},
                    "log_tail": ["Traceback"],
                }],
                "drift": [r"latin-\xe9"],
                "warnings": ["w"],
            })
        );
    }

    #[test]
    fn only_what_the_app_failed_on_is_rejected() {
        let mut report = report();
        assert!(report.is_rejection());
        report.status = ReportStatus::Failed;
        assert!(report.is_rejection());
        for (code, rejected) in [("not-ready", true), ("io", false), ("aborted", false)] {
            report.error.as_mut().unwrap().code = code.to_owned();
            assert_eq!(report.is_rejection(), rejected, "{code}");
        }
    }

    #[test]
    fn what_is_not_known_is_null() {
        let mut unknown = report();
        unknown.root = None;
        unknown.error = None;
        unknown.agents[0].app = None;
        let json = to_value(unknown).unwrap();
        for pointer in ["/root", "/error", "/agents/0/app"] {
            assert_eq!(json.pointer(pointer), Some(&json!(null)), "{pointer}");
        }
    }

    #[test]
    fn a_dry_run_says_so() {
        let mut dry = report();
        dry.dry_run = true;
        assert_eq!(to_value(dry).unwrap()["dry_run"], json!(true));
    }

    #[test]
    fn statuses_are_written_and_end_as_the_contract_says() {
        for (status, text, exit_code) in [
            (ReportStatus::Done, "done", 0),
            (ReportStatus::NoChanges, "no-changes", 0),
            (ReportStatus::Failed, "failed", 1),
            (ReportStatus::RolledBack, "rolled-back", 1),
            (ReportStatus::Conflict, "conflict", 1),
            (ReportStatus::Unknown, "unknown", 3),
        ] {
            assert_eq!(to_value(status).unwrap(), json!(text));
            assert_eq!(status.as_str(), text);
            assert_eq!(status.exit_code(), exit_code);
        }
    }

    #[test]
    fn a_log_line_is_text_whatever_its_bytes() {
        let line = LogLine {
            at_ms: 1,
            stderr: true,
            text: b"caf\xe9".to_vec(),
        };
        assert_eq!(
            to_value(LogLineReport::from(&line)).unwrap(),
            json!({"at_ms": 1, "stream": "stderr", "text": "caf\u{fffd}"})
        );
    }
}
