//! One push, from the scan to the report.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use patchwire_protocol::{
    limits,
    manifest::Manifest,
    message::{
        push::{Answer, Base, ClientId, Push, PushId, PushStatus},
        value::{Text, WireDigest},
    },
    path::RelativePath,
    session::sender::Outcome,
};
use patchwire_tree::{Change, Counts, Scan, ScanProgress, SymlinkPolicy};

use crate::{
    blocking,
    connect::{Client, millis},
    conversation::{Conversation, End, Plans},
    error::ClientError,
    memory::{Head, Memory},
    report::{
        AgentReport, ByteCounts, Contributor, FileCounts, PlannedChange, PushReport, ReportStatus,
        ReportedError, Timings,
    },
    request::{Progress, PushRequest},
    session::Session,
    warm::WarmTree,
    watch::Look,
};

/// How often a push begins again because files changed while they were read.
const ATTEMPTS: u32 = 3;

/// How many pairs of names that are the same on other disks are told of.
const COLLISIONS: usize = 5;

/// How often a push whose connection is lost is sent again under its id.
const RETRIES: u32 = 5;

impl Client {
    /// Pushes a directory: scans it, sends what the agent lacks, and waits until the app runs it or
    /// the agent has rolled back.
    ///
    /// A push whose connection is lost is sent again under its id, which is never applied twice.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if nothing came to be applied. What the agent answered is in the report,
    /// also when it refused, failed or rolled back.
    pub async fn push(
        &self,
        request: &PushRequest,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<PushReport, ClientError> {
        let origin = Arc::new(Origin::new(self, request)?);
        let mut report = self.push_from(&origin, request, None, progress).await?;
        if let Err(error) = blocking::run(move || origin.save()).await {
            // The next push asks the agent what it has, and that is all.
            let state = request.state.display();
            report
                .warnings
                .push(format!("can't remember this push in {state}: {error}"));
        }
        Ok(report)
    }

    /// [`Self::push`] of a root that is kept warm: one that was pushed from `tree` before is looked at
    /// only where something happened since. Everything saved before the call is pushed.
    ///
    /// # Errors
    ///
    /// As [`Self::push`].
    pub async fn push_warm(
        &self,
        request: &PushRequest,
        tree: &WarmTree,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<PushReport, ClientError> {
        let origin = Arc::new(Origin::new(self, request)?);
        let pushed = self.push_from(&origin, request, Some(tree), progress).await;
        let tree = tree.clone();
        origin.save_later(move || tree.prepare());
        pushed
    }

    async fn push_from(
        &self,
        origin: &Origin,
        request: &PushRequest,
        tree: Option<&WarmTree>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<PushReport, ClientError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let scanning = origin.scan(request, tree, progress);
            let (scanned, _connecting) = self.while_connecting(scanning).await;
            let pushed = self.push_scanned(origin, request, scanned?, progress);
            let path = match pushed.await? {
                PushEnd::Reported { report, .. } => return Ok(*report),
                PushEnd::Changed(path) => path,
            };
            if let Some(tree) = tree {
                tree.doubt();
            }
            if attempt == ATTEMPTS {
                return Err(ClientError::Unsettled { path });
            }
        }
    }

    /// Pushes what a scan found. What is learnt of the agent is not saved yet.
    pub(crate) async fn push_scanned(
        &self,
        origin: &Origin,
        request: &PushRequest,
        scanned: Scanned,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<PushEnd, ClientError> {
        let Scanned { scan, started } = scanned;
        let mut push = PushInProgress {
            connection: self,
            request,
            progress,
            memory: &origin.memory,
            root: &origin.root,
            target_root: WireDigest(scan.manifest.root()),
            target: scan.manifest,
            traffic: (0, 0),
            is_further: false,
            counts: Counts::default(),
            changes: None,
            largest: Vec::new(),
            agent: String::new(),
            started,
            scanned: Instant::now(),
            sent_at: None,
        };
        let header = push.header(origin.client)?;
        let push_id = header.push_id;
        let mut epoch = None;
        let mut report = match push.retry(header).await? {
            Ended::Answered(answer) => {
                epoch = Some(answer.epoch);
                push.memory.note_answer();
                let report = push.report_answer(&answer);
                push.learn(&answer).await;
                report
            }
            Ended::Planned => PushReport {
                dry_run: true,
                plan: push.changes.take().map(|changes| {
                    let changes = changes.into_iter();
                    changes.map(PlannedChange::from).collect()
                }),
                ..push.report(push_id)
            },
            Ended::Unknown => push.report_unknown(push_id),
            Ended::Changed(path) => return Ok(PushEnd::Changed(path)),
        };
        report.warnings.extend(
            scan.skipped.iter().map(|path| {
                format!("{path} is neither file, directory nor link, and was left out")
            }),
        );
        report.warnings.extend(collisions(&scan.collisions));
        Ok(PushEnd::Reported {
            report: Box::new(report),
            epoch,
        })
    }
}

/// How the push of a scan ended.
#[derive(Debug)]
pub(crate) enum PushEnd {
    /// It came to a report.
    Reported {
        report: Box<PushReport>,
        /// The epoch of the agent that answered.
        epoch: Option<u64>,
    },
    /// A file changed while it was read: what was scanned is not there any more.
    Changed(RelativePath),
}

/// Where pushes come from: a root as one deployment knows it.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Absolute, and without links on the way to it.
    pub(crate) root: PathBuf,
    client: ClientId,
    pub(crate) memory: Arc<Memory>,
}

/// What a scan found, and when it began.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) scan: Scan,
    pub(crate) started: Instant,
}

impl Origin {
    pub(crate) fn new(client: &Client, request: &PushRequest) -> Result<Self, ClientError> {
        let root = canonical(&request.root)?;
        let name = blake3::hash(root.as_os_str().as_encoded_bytes()).to_hex();
        let deployment = request.state.join(client.link().id().to_string());
        Ok(Self {
            client: client_id(&root),
            memory: client.memory(deployment.join(name.as_str())),
            root,
        })
    }

    /// Saves what was learnt of the agent. Blocks.
    pub(crate) fn save(&self) -> io::Result<()> {
        self.memory.save(&self.root)
    }

    /// Saves what was learnt of the agent, and does what else nobody waits for.
    pub(crate) fn save_later(self: Arc<Self>, and: impl FnOnce() + Send + 'static) {
        tokio::task::spawn_blocking(move || {
            if let Err(error) = self.save() {
                // A push by another process asks the agent what it has.
                tracing::debug!(%error, "can't save what was learnt of the agent");
            }
            and();
        });
    }

    pub(crate) async fn scan(
        &self,
        request: &PushRequest,
        tree: Option<&WarmTree>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Scanned, ClientError> {
        let started = Instant::now();
        let (root, options) = (self.root.clone(), request.scan.clone());
        let (tree, memory) = (tree.cloned(), Arc::clone(&self.memory));
        let work = move |report: &(dyn Fn(ScanProgress) + Sync)| match tree {
            Some(tree) => tree.scan(&root, &options, &memory, report),
            None => {
                let mut look = Look::new(&root, &options, &memory);
                let scan = look.once(report);
                // In a large tree that takes a while, and nobody waits for it.
                tokio::task::spawn_blocking(move || drop(look));
                scan
            }
        };
        let scan = scanning(progress, work).await;
        let scan = scan.map_err(|source| ClientError::Scan {
            root: self.root.clone(),
            source,
        })?;
        Ok(Scanned { scan, started })
    }
}

/// How the attempts to get a push to the agent ended.
enum Ended {
    Answered(Box<Answer>),
    Planned,
    Changed(RelativePath),
    Unknown,
}

/// One push with its fixed target.
struct PushInProgress<'a> {
    connection: &'a Client,
    request: &'a PushRequest,
    progress: &'a (dyn Fn(Progress) + Send + Sync),
    memory: &'a Arc<Memory>,
    root: &'a Path,
    target: Arc<Manifest>,
    target_root: WireDigest,
    /// Bytes sent and received over all attempts.
    traffic: (u64, u64),
    /// Whether the last attempt left the agent with more than it had before.
    is_further: bool,
    counts: Counts,
    changes: Option<Vec<Change>>,
    largest: Vec<(RelativePath, u64)>,
    agent: String,
    started: Instant,
    scanned: Instant,
    sent_at: Option<Instant>,
}

impl PushInProgress<'_> {
    fn header(&self, client: ClientId) -> Result<Push, ClientError> {
        Ok(Push {
            push_id: PushId(uuid::Uuid::now_v7().into_bytes()),
            client,
            author: Text::cut(&self.request.author),
            message: Text::cut(&self.request.message),
            epoch: 0,
            base: Base::Unknown,
            target: self.target_root,
            operations: 0,
            expires_ms: 0,
            force: self.request.force,
            sketch: None,
            links_may_leave: self.request.scan.symlinks == SymlinkPolicy::Any,
            mirror: self
                .request
                .mirror
                .then(|| self.request.patterns())
                .transpose()?,
            app: self.request.app.clone(),
        })
    }

    /// Sends the push, again when the connection is lost, until there is an answer or no more hope.
    async fn retry(&mut self, mut header: Push) -> Result<Ended, ClientError> {
        // Once everything was sent, the agent may have applied it: from there on, what can't be
        // asked any more is not known.
        let mut sent = false;
        let mut tries = 0;
        loop {
            tries += 1;
            (self.progress)(Progress::Connecting);
            let (error, relay) = match self.connection.session_at_hand().await {
                Ok(session) => {
                    let relay = session.relay.clone();
                    header.expires_ms = millis(session.age() + limits::EXPIRY);
                    let error = match self.converse(session, header.clone(), &mut sent).await {
                        Ok(End::Planned) => return Ok(Ended::Planned),
                        Ok(End::Outcome(outcome)) => match outcome {
                            Outcome::Answered(answer) => return Ok(Ended::Answered(answer)),
                            Outcome::Changed(path) => return Ok(Ended::Changed(path)),
                            Outcome::Misbehaved(what) => ClientError::Misbehaved { what },
                            Outcome::Misunderstood(what) => ClientError::Misunderstood { what },
                            Outcome::Silent => {
                                // It took long to know: one more try, and not all of them.
                                tries = tries.max(RETRIES - 1);
                                ClientError::Lost { source: None }
                            }
                        },
                        Err(error) => error,
                    };
                    (error, relay)
                }
                Err(error) if sent => {
                    tracing::warn!(%error, "the agent can't be asked what became of the push");
                    return Ok(Ended::Unknown);
                }
                Err(error) => return Err(error),
            };
            if std::mem::take(&mut self.is_further) {
                // However often it is cut, it comes to an end.
                tries = 0;
            }
            if error.is_passing() && tries < RETRIES {
                tracing::info!(%error, "sending the push again under its id");
                self.connection.disconnect(&relay);
                continue;
            }
            return if sent && error.is_passing() {
                Ok(Ended::Unknown)
            } else {
                Err(error)
            };
        }
    }

    async fn converse(
        &mut self,
        session: Session,
        header: Push,
        sent: &mut bool,
    ) -> Result<End, ClientError> {
        let traffic = session.traffic.clone();
        let plans = Plans {
            root: self.root.to_owned(),
            memory: Arc::clone(self.memory),
            target: Arc::clone(&self.target),
            target_root: self.target_root,
            delete_any: self.request.force || self.request.delete_any,
            mirror: self.request.mirror,
            dry_run: self.request.dry_run,
        };
        let relay = session.relay.clone();
        let mut conversation = Conversation::new(session, header, plans).await?;
        let result = conversation.run(self.progress).await;
        if result.is_ok() {
            self.connection.keep_spare(&relay);
        }
        if let Some(agent) = conversation.agent() {
            agent.clone_into(&mut self.agent);
        }
        if conversation.is_sent() {
            *sent = true;
            self.sent_at = conversation.sent_at().or(self.sent_at);
        }
        self.is_further = conversation.is_further();
        // One that was answered at once, from what the agent kept, planned nothing.
        if let Some(counts) = conversation.counts() {
            self.counts = counts;
            self.changes = conversation.take_changes();
            self.largest = conversation.take_largest();
        }
        self.traffic.0 += traffic.sent();
        self.traffic.1 += traffic.received();
        result
    }

    /// What is known of the push whatever the agent says.
    fn report(&self, push_id: PushId) -> PushReport {
        let now = Instant::now();
        PushReport {
            push_id,
            status: ReportStatus::NoChanges,
            error: None,
            root: None,
            files: FileCounts {
                added: self.counts.added,
                changed: self.counts.changed,
                deleted: self.counts.deleted,
                moved: self.counts.moved,
            },
            bytes: ByteCounts {
                tree: self.target.content_len(),
                sent: self.traffic.0,
                received: self.traffic.1,
            },
            timings_ms: Timings {
                scan: self.scanned - self.started,
                send: self.sent_at.unwrap_or(now) - self.scanned,
                total: now - self.started,
                ..Timings::default()
            },
            agents: Vec::new(),
            drift: Vec::new(),
            warnings: Vec::new(),
            dry_run: false,
            plan: None,
            largest: self.largest.iter().map(Contributor::from).collect(),
            conflict: None,
        }
    }

    fn report_answer(&self, answer: &Answer) -> PushReport {
        let mut report = self.report(answer.push_id);
        report.status = answer.status.into();
        report.error = answer.failure.as_ref().map(ReportedError::from);
        report.root = answer.root.map(|root| root.0);
        report.timings_ms.commit = Duration::from_micros(answer.timings.commit_us);
        report.timings_ms.reload = Duration::from_micros(answer.timings.reload_us);
        report.timings_ms.ready = Duration::from_micros(answer.timings.ready_us);
        report.agents = vec![AgentReport::new(&self.agent, answer)];
        report.drift = answer.drift.clone();
        report.warnings = answer
            .warnings
            .iter()
            .map(|text| text.as_str().to_owned())
            .collect();
        report.conflict = answer.conflict.clone();
        report
    }

    fn report_unknown(&self, push_id: PushId) -> PushReport {
        let message = "the push was sent and its answer never came: `patchwire status`, or the \
                       tool app_status, tells whether it stands, and pushing again is safe";
        PushReport {
            status: ReportStatus::Unknown,
            error: Some(ReportedError {
                code: "unknown".to_owned(),
                message: message.to_owned(),
            }),
            ..self.report(push_id)
        }
    }

    /// Takes in what the agent has now, for the next push.
    async fn learn(&self, answer: &Answer) {
        let memory = Arc::clone(self.memory);
        let target = Arc::clone(&self.target);
        let Some(now) = answer.root else {
            // A refusal says nothing about the tree.
            return;
        };
        let head = Head {
            epoch: answer.epoch,
            root: now,
        };
        let applied = now == self.target_root;
        if answer.status == PushStatus::NoChanges && !applied {
            return;
        }
        let learnt = blocking::run(move || {
            if applied {
                memory.learn(head, &target);
            } else if memory.head() != Some(head)
                && let Err(error) = memory.forget()
            {
                tracing::debug!(%error, "what was remembered of the agent can't be forgotten");
            }
        });
        learnt.await;
    }
}

/// Does work that scans, on a thread of its own, and tells how far it is.
pub(crate) async fn scanning<T: Send + 'static>(
    progress: &(dyn Fn(Progress) + Send + Sync),
    work: impl FnOnce(&(dyn Fn(ScanProgress) + Sync)) -> T + Send + 'static,
) -> T {
    let (reports, mut reported) = tokio::sync::watch::channel(None);
    let mut scanning = tokio::task::spawn_blocking(move || {
        work(&|progress| {
            reports.send_replace(Some(progress));
        })
    });
    let result = loop {
        tokio::select! {
            result = &mut scanning => break result,
            Ok(()) = reported.changed() => {
                if let Some(now) = *reported.borrow_and_update() {
                    progress(Progress::Scanning {
                        entries: now.entries,
                        files: (now.files_read, now.files_to_read),
                    });
                }
            }
        }
    };
    result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// What is said of names that are the same on other disks.
fn collisions(collisions: &[(RelativePath, RelativePath)]) -> impl Iterator<Item = String> {
    let named = collisions.iter().take(COLLISIONS).map(|(a, b)| {
        format!("{a} and {b} are one and the same on disks that don't tell such names apart")
    });
    let more = collisions.len().saturating_sub(COLLISIONS);
    let more = (more > 0).then(|| format!("{more} more pairs of names are like that"));
    named.chain(more)
}

/// The same for the same person's same directory, also when our state is lost; another for another
/// checkout, so that two of them don't undo each other's pushes unnoticed.
fn client_id(root: &Path) -> ClientId {
    let mut hasher = blake3::Hasher::new_derive_key("patchwire 2026 client id");
    hasher.update(rustix::system::uname().nodename().to_bytes());
    hasher.update(&[0]);
    hasher.update(&rustix::process::getuid().as_raw().to_le_bytes());
    hasher.update(root.as_os_str().as_encoded_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    ClientId(id)
}

fn canonical(root: &Path) -> Result<PathBuf, ClientError> {
    root.canonicalize().map_err(|source| ClientError::Root {
        root: root.to_owned(),
        source,
    })
}
