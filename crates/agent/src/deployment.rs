//! The deployment on this machine: the tree that stands, the app that runs on it, and the answers
//! that were given. What a push does to them, one step at a time.

use std::{
    io::BufRead,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use patchwire_delta::{Digest, Seed, Signature, SignatureOptions};
use patchwire_protocol::{
    app::Reload,
    codec::{self, Decode, Encode},
    limits,
    manifest::Manifest,
    message::{
        inner::{Greeting, Text, WireDigest},
        push::{
            Answer, AppOptions, Base, ClientId, ConflictWith, Failure, FailureCode, Push, PushId,
            PushStatus,
        },
        status::{LastPush, Status},
    },
    operation::Operation,
    path::RelativePath,
    session::receiver::{Committed, Reloaded, RolledBack, conflict, refusal},
};
use patchwire_transport::random_u64;
use patchwire_tree::{CommitError, StageError, Staged, Store, StoreError, Window};
use tokio::runtime::Handle;

use crate::{
    answers::{Answers, Known, Recorded},
    app::App,
    config::AppFlags,
    ready::NotReady,
    run::chain,
    supervisor::OnExit,
};

/// The state file with the answers to the last pushes.
const ANSWERS: &str = "answers";

/// The state file with the id of the push whose tree stands, for the app to read.
const PUSH_ID: &str = "push_id";

/// How long a reload command may take.
const RELOAD_COMMAND: Duration = Duration::from_secs(60);

/// The deployment. See the [module](self).
#[derive(Debug)]
pub(crate) struct Deployment {
    name: String,
    flags: AppFlags,
    app: App,
    store: Arc<Mutex<Store>>,
    answers: Mutex<Answers>,
    standing: Mutex<Standing>,
    /// Held by the push that is being taken; the tree changes under it alone.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What stands, for everyone who asks while a push holds the store.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) epoch: u64,
    pub(crate) root: Option<Digest>,
    entries: u64,
    verified: bool,
    push: Option<(PushId, Meta)>,
}

/// What is kept with a commit.
#[derive(Clone, Debug, Encode, Decode)]
#[bincode(crate = "patchwire_protocol::codec::bincode")]
struct Meta {
    client: ClientId,
    author: Text,
    message: Text,
    at_ms: u64,
    /// What the push changed, at most [`limits::LISTED`] paths.
    paths: Vec<RelativePath>,
    app: AppOptions,
}

/// What is made of a push by its header.
#[derive(Debug)]
pub(crate) enum Judgement {
    /// Its base is what stands here, or what was offered.
    Accept,
    /// It isn't: say what does.
    Offer,
    /// There is an answer already.
    Answer(Box<Answer>),
}

/// What stands here to build upon.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    pub(crate) epoch: u64,
    pub(crate) managed: bool,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) root: Digest,
}

impl Deployment {
    pub(crate) fn new(
        name: String,
        flags: AppFlags,
        app: App,
        store: Store,
    ) -> Result<Self, StoreError> {
        let answers = store
            .read_state(ANSWERS)?
            .map(|bytes| Answers::decode(&bytes));
        let standing = Standing::of(&store);
        Ok(Self {
            name,
            flags,
            app,
            store: Arc::new(Mutex::new(store)),
            answers: Mutex::new(answers.unwrap_or_default()),
            standing: Mutex::new(standing),
            turn: Arc::default(),
        })
    }

    pub(crate) const fn app(&self) -> &App {
        &self.app
    }

    pub(crate) fn greeting(&self) -> Greeting {
        let standing = self.standing();
        Greeting {
            name: Text::cut(&*self.name),
            epoch: standing.epoch,
            root: standing.root.map(WireDigest),
            clock_ms: now_ms(),
        }
    }

    pub(crate) fn status(&self) -> Status {
        let standing = self.standing();
        let last_result = lock(&self.answers)
            .newest()
            .map(|answer| (answer.push_id, answer.status));
        Status {
            name: Text::cut(&*self.name),
            version: Text::cut(env!("CARGO_PKG_VERSION")),
            epoch: standing.epoch,
            root: standing.root.map(WireDigest),
            entries: standing.entries,
            app: Some(self.app.state()),
            verified: standing.verified,
            last_push: standing.push.map(|(push_id, meta)| LastPush {
                push_id,
                author: meta.author,
                message: meta.message,
                at_ms: meta.at_ms,
                last_result,
            }),
        }
    }

    /// Waits until no other push is being taken.
    pub(crate) async fn turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Starts the app on what stands. If the push that made that was never seen to be ready (the
    /// agent ended before), that is made up for, with the same end as it would have had.
    pub(crate) async fn boot(&self) {
        let _turn = self.turn().await;
        let standing = self.standing();
        self.start_app(OnExit::Hold).await;
        let Some((push_id, meta)) = standing.push else {
            return self.settle().await;
        };
        if standing.verified {
            return self.settle().await;
        }
        tracing::info!(%push_id, "the last push was not seen to be ready before: checking again");
        let reloaded = self
            .verify(&meta.app, true, Instant::now(), Duration::ZERO)
            .await;
        if reloaded.outcome.is_ok() {
            self.set_verified().await;
        }
        if !lock(&self.answers).contains(push_id) {
            let (target, client) = (
                WireDigest(standing.root.unwrap_or(Digest::of(&[]))),
                meta.client,
            );
            let mut answer = self.interrupted(push_id, target, &reloaded);
            if reloaded.outcome.is_err() && self.can_roll_back() {
                let rolled_back = self.roll_back().await;
                answer.status = PushStatus::RolledBack;
                answer.root = rolled_back.root;
                answer.app = rolled_back.app;
            }
            self.record(Recorded {
                client,
                target,
                answer,
            })
            .await;
        }
        self.settle().await;
    }

    /// Says what becomes of a push. `offered` is what was offered to it before.
    pub(crate) fn judge(&self, push: &Push, offered: Option<&Offered>) -> Judgement {
        let standing = self.standing();
        let answer = |answer: Answer| Judgement::Answer(Box::new(self.complete(answer, &standing)));
        let refuse = |code, message: &str| answer(refusal(push, Failure::new(code, message)));
        match lock(&self.answers).find(push) {
            Known::No => {}
            Known::Answered(known) => return Judgement::Answer(Box::new(known.clone())),
            Known::Taken => {
                return refuse(
                    FailureCode::PushIdTaken,
                    "the push id is that of another push",
                );
            }
        }
        if now_ms() > push.expires_ms {
            return refuse(
                FailureCode::Expired,
                "the push came after it had expired: push again",
            );
        }
        let stands = standing.root == Some(push.target.0);
        let meta = standing
            .push
            .as_ref()
            .map(|(push_id, meta)| (*push_id, meta));
        if stands && standing.verified && meta.is_some_and(|(_, meta)| meta.app == push.app) {
            let mut unchanged = self.complete(refusal(push, failure_of_nothing()), &standing);
            unchanged.status = PushStatus::NoChanges;
            unchanged.failure = None;
            unchanged.verified = true;
            return Judgement::Answer(Box::new(unchanged));
        }
        let same_epoch = push.epoch == standing.epoch;
        let fits = match push.base {
            Base::Unknown => false,
            Base::Committed(root) => same_epoch && standing.root == Some(root.0),
            Base::Offered(root) => {
                same_epoch && offered.is_some_and(|offered| offered.root == root.0)
            }
        };
        if fits {
            return Judgement::Accept;
        }
        match meta {
            Some((push_id, meta)) if meta.client != push.client && !push.force && !stands => {
                let with = ConflictWith {
                    author: meta.author.clone(),
                    at_ms: meta.at_ms,
                    push_id,
                    paths: meta.paths.clone(),
                };
                answer(conflict(push, with))
            }
            _ => Judgement::Offer,
        }
    }

    /// Looks at what stands here.
    pub(crate) async fn offer(&self) -> Result<Offered, StoreError> {
        self.with_store(|store| {
            let inventory = store.inventory()?;
            Ok(Offered {
                epoch: store.epoch(),
                managed: store.committed().is_some(),
                root: inventory.manifest.root(),
                manifest: Arc::new(inventory.manifest),
            })
        })
        .await
    }

    /// Signs a file of what was offered; `None` if it can't be read (any more).
    pub(crate) async fn sign(&self, path: RelativePath, seed: u64) -> Option<Vec<u8>> {
        self.with_store(move |store| {
            let file = store.open_file(&path).ok()?;
            let len = file.metadata().ok()?.len();
            let signature = Signature::read(file, len, SignatureOptions::new(Seed(seed))).ok()?;
            Some(signature.encode())
        })
        .await
    }

    /// Builds and verifies the files of a push.
    pub(crate) async fn stage(
        &self,
        push: &Push,
        offered: Option<Offered>,
        operations: Vec<Operation>,
        mut content: Box<dyn BufRead + Send>,
    ) -> Result<Staged, StageError> {
        let (push_id, target) = (push.push_id, push.target.0);
        let is_offered = matches!(push.base, Base::Offered(_));
        self.with_store(move |store| {
            let (base, available) = match offered.filter(|_| is_offered) {
                Some(Offered {
                    managed: true,
                    manifest,
                    ..
                }) => (Arc::clone(&manifest), manifest),
                Some(Offered {
                    managed: false,
                    manifest,
                    ..
                }) => (Arc::default(), manifest),
                None => {
                    let committed = Arc::new(store.managed());
                    (Arc::clone(&committed), committed)
                }
            };
            store.stage(
                push_id.0,
                &base,
                &available,
                target,
                &operations,
                &mut *content,
            )
        })
        .await
    }

    /// Puts a staged push in place. An app that is restarted for it ends right before the tree
    /// changes; another is paused while it does.
    pub(crate) async fn commit(&self, push: &Push, staged: Staged) -> Result<Committed, Failure> {
        let started = Instant::now();
        let reload = self.flags.reload(push.app.reload.as_ref());
        let meta = Meta {
            client: push.client,
            author: push.author.clone(),
            message: push.message.clone(),
            at_ms: now_ms(),
            paths: staged.paths().take(limits::LISTED).cloned().collect(),
            app: push.app.clone(),
        };
        let can_roll_back = self.standing().verified;
        let app = self.app.clone();
        let (result, stopped, mut warnings) = self
            .with_store(move |store| {
                let mut window = AppWindow::new(app, &reload);
                let result = store.commit(staged, &codec::encode(&meta), &mut |at| window.pass(at));
                (result, window.stopped, window.warnings)
            })
            .await;
        self.refresh().await;
        match result {
            Ok(committed) => {
                let standing = self.standing();
                warnings.extend(committed.warnings);
                warnings.extend(committed.moved_aside.iter().map(|path| {
                    format!("{path} was not part of the tree and in the way: it was moved aside")
                }));
                Ok(Committed {
                    epoch: standing.epoch,
                    root: WireDigest(standing.root.unwrap_or(push.target.0)),
                    can_roll_back,
                    drift: listed(committed.drift),
                    warnings: listed(warnings.into_iter().map(Text::cut).collect()),
                    commit_us: micros(started.elapsed()),
                })
            }
            Err(error) => {
                if stopped {
                    self.start_app(OnExit::Restart).await;
                }
                Err(commit_failure(&error))
            }
        }
    }

    /// Has the app take up what was committed, and waits until it is ready.
    pub(crate) async fn reload(&self, push: &Push) -> Reloaded {
        let started = Instant::now();
        let result = match self.flags.reload(push.app.reload.as_ref()) {
            Reload::Restart => Ok(self.start_app(OnExit::Hold).await),
            // A signal or a command is of no use to an app that isn't there.
            Reload::Signal(_) | Reload::Command(_) if !self.app.state().running => {
                Ok(self.start_app(OnExit::Hold).await)
            }
            Reload::Signal(signal) => self
                .app
                .signal(signal)
                .await
                .map(|()| Started::No)
                .map_err(|error| format!("can't signal the app: {error}")),
            Reload::Command(command) => self.reload_command(&command).await,
            Reload::None => {
                let reload_us = micros(started.elapsed());
                return Reloaded {
                    outcome: Ok(false),
                    reload_us,
                    ..self.reloaded()
                };
            }
        };
        let reload_time = started.elapsed();
        match result {
            Ok(begun) => {
                let begun = begun == Started::Yes;
                let reloaded = self
                    .verify(&push.app, begun, Instant::now(), reload_time)
                    .await;
                if reloaded.outcome.is_ok() {
                    self.set_verified().await;
                }
                reloaded
            }
            Err(message) => Reloaded {
                outcome: Err(Failure::new(FailureCode::ReloadFailed, message)),
                reload_us: micros(reload_time),
                ..self.reloaded()
            },
        }
    }

    /// Brings the tree back that stood before, and the app on it.
    pub(crate) async fn roll_back(&self) -> RolledBack {
        let before = self.standing();
        let pushed = before
            .push
            .as_ref()
            .and_then(|(_, meta)| meta.app.reload.as_ref());
        let reload = self.flags.reload(pushed);
        let app = self.app.clone();
        let (result, stopped) = self
            .with_store(move |store| {
                let mut window = AppWindow::new(app, &reload);
                let result = store.roll_back(&mut |at| window.pass(at));
                (result, window.stopped)
            })
            .await;
        self.refresh().await;
        let mut problem = result.err().map(|error| commit_failure(&error));
        let standing = self.standing();
        let options = standing
            .push
            .as_ref()
            .map(|(_, meta)| meta.app.clone())
            .unwrap_or_default();
        if problem.is_none() {
            // Whatever the app was told before, it has seen the other tree.
            let back = match self.flags.reload(options.reload.as_ref()) {
                Reload::Signal(signal) if self.app.state().running => self
                    .app
                    .signal(signal)
                    .await
                    .map(|()| Started::No)
                    .map_err(|e| e.to_string()),
                Reload::Command(command) if self.app.state().running => {
                    self.reload_command(&command).await
                }
                Reload::None if self.app.state().running => Ok(Started::No),
                Reload::Restart | Reload::Signal(_) | Reload::Command(_) | Reload::None => {
                    Ok(self.start_app(OnExit::Hold).await)
                }
            };
            problem = match back {
                Ok(begun) => {
                    let begun = begun == Started::Yes;
                    let reloaded = self
                        .verify(&options, begun, Instant::now(), Duration::ZERO)
                        .await;
                    reloaded.outcome.err()
                }
                Err(message) => Some(Failure::new(FailureCode::ReloadFailed, message)),
            };
        } else if stopped {
            self.start_app(OnExit::Restart).await;
        }
        // Ready or not: from here on it is kept alive.
        self.settle().await;
        RolledBack {
            root: self.standing().root.map(WireDigest),
            problem,
            app: Some(self.app.state()),
        }
    }

    /// Keeps an answer, so that its push is never applied twice.
    pub(crate) async fn record(&self, recorded: Recorded) {
        let bytes = {
            let mut answers = lock(&self.answers);
            answers.add(recorded);
            answers.encode()
        };
        if let Err(error) = self
            .with_store(move |store| store.write_state(ANSWERS, &bytes))
            .await
        {
            tracing::error!(%error, "an answer can't be kept on the disk");
        }
    }

    /// Fills in what an answer says about what stands here.
    pub(crate) fn complete(&self, mut answer: Answer, standing: &Standing) -> Answer {
        answer.epoch = standing.epoch;
        answer.root = standing.root.map(WireDigest);
        answer.app = Some(self.app.state());
        answer
    }

    pub(crate) fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    /// From here on the app is started again whenever it ends.
    pub(crate) async fn settle(&self) {
        if let Err(error) = self.app.settle().await {
            tracing::debug!(%error, "the app can't be looked after");
        }
    }

    fn can_roll_back(&self) -> bool {
        lock(&self.store)
            .previous()
            .is_some_and(|record| record.verified)
    }

    async fn start_app(&self, on_exit: OnExit) -> Started {
        let standing = self.standing();
        let push_id = standing.push.as_ref().map(|(id, _)| id.to_string());
        let environment: Vec<_> = standing
            .push
            .iter()
            .flat_map(|(_, meta)| meta.app.environment.iter())
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        if let Err(error) = self
            .app
            .start(push_id.as_deref(), environment, on_exit)
            .await
        {
            // Whoever waits for it to be ready is told the same.
            tracing::error!(%error, "the app can't be started");
        }
        Started::Yes
    }

    async fn reload_command(&self, command: &str) -> Result<Started, String> {
        match self.app.run_command(command, RELOAD_COMMAND).await {
            Ok(done) if done.exit == patchwire_protocol::app::Exit::Code(0) => Ok(Started::No),
            Ok(done) => Err(format!(
                "the reload command ended with {}: {}",
                done.exit,
                String::from_utf8_lossy(&done.output)
            )),
            Err(error) => Err(format!("the reload command failed: {error}")),
        }
    }

    /// Waits until the app is ready. `begun` tells whether it was started for it, so that what is
    /// ready can only be the new code.
    async fn verify(
        &self,
        options: &AppOptions,
        begun: bool,
        since: Instant,
        reload: Duration,
    ) -> Reloaded {
        let check = self.flags.ready(options.ready.as_ref());
        let timeout = self.flags.ready_timeout(options.ready_timeout_ms);
        let outcome = match self.app.verify(&check, timeout).await {
            Ok(()) => Ok(begun),
            Err(not_ready) => {
                let code = match not_ready {
                    NotReady::NotStarted { .. } | NotReady::Exited { .. } => FailureCode::AppExited,
                    NotReady::Superseded | NotReady::TimedOut { .. } => FailureCode::NotReady,
                };
                Err(Failure::new(code, not_ready.to_string()))
            }
        };
        Reloaded {
            outcome,
            reload_us: micros(reload),
            ready_us: micros(since.elapsed()),
            ..self.reloaded()
        }
    }

    /// How the app is, for a result.
    fn reloaded(&self) -> Reloaded {
        let lines = self.app.log_tail(limits::LOG_TAIL_LINES);
        let text = |bytes: &[u8]| Text::cut(String::from_utf8_lossy(bytes));
        Reloaded {
            outcome: Ok(false),
            app: Some(self.app.state()),
            log_tail: lines.iter().map(|line| text(&line.text)).collect(),
            reload_us: 0,
            ready_us: 0,
        }
    }

    /// The answer to a push that the agent's end interrupted after its commit.
    fn interrupted(&self, push_id: PushId, target: WireDigest, reloaded: &Reloaded) -> Answer {
        let standing = self.standing();
        Answer {
            push_id,
            status: if reloaded.outcome.is_ok() {
                PushStatus::Done
            } else {
                PushStatus::Failed
            },
            failure: reloaded.outcome.as_ref().err().cloned(),
            epoch: standing.epoch,
            root: Some(target),
            timings: patchwire_protocol::message::push::AgentTimings {
                commit_us: 0,
                reload_us: reloaded.reload_us,
                ready_us: reloaded.ready_us,
            },
            app: reloaded.app,
            verified: reloaded.outcome.is_ok(),
            log_tail: reloaded.log_tail.clone(),
            drift: Vec::new(),
            warnings: vec![Text::cut(
                "the agent was started anew while the push was applied",
            )],
            conflict: None,
        }
    }

    async fn set_verified(&self) {
        if let Err(error) = self.with_store(Store::set_verified).await {
            tracing::error!(%error, "can't note that the app is ready");
        }
        self.refresh().await;
    }

    /// Takes over what the store says stands.
    async fn refresh(&self) {
        let standing = self
            .with_store(|store| {
                let standing = Standing::of(store);
                let push_id = standing.push.as_ref().map(|(id, _)| id.to_string());
                let written = store.write_state(PUSH_ID, push_id.unwrap_or_default().as_bytes());
                if let Err(error) = written {
                    tracing::warn!(%error, "can't write the push's id for the app to read");
                }
                standing
            })
            .await;
        *lock(&self.standing) = standing;
    }

    /// Works with the store on a thread where that may block.
    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> T + Send + 'static,
    ) -> T {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(&mut lock(&store)));
        done.await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

impl Standing {
    fn of(store: &Store) -> Self {
        let record = store.committed();
        let push = record.and_then(|record| {
            // Ours to write and to read: of another version, only who pushed is not known.
            let meta = codec::decode_state(&record.meta).ok()?;
            Some((PushId(record.push_id), meta))
        });
        Self {
            epoch: store.epoch(),
            root: record.map(|record| record.manifest.root()),
            entries: record.map_or(0, |record| record.manifest.len() as u64),
            verified: record.is_some_and(|record| record.verified),
            push,
        }
    }
}

/// Whether the app was started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    Yes,
    No,
}

/// Keeps the app from seeing half a push, from a thread that may block.
struct AppWindow {
    app: App,
    restarts: bool,
    stopped: bool,
    warnings: Vec<String>,
}

impl AppWindow {
    fn new(app: App, reload: &Reload) -> Self {
        let restarts = *reload == Reload::Restart;
        Self {
            app,
            restarts,
            stopped: false,
            warnings: Vec::new(),
        }
    }

    fn pass(&mut self, at: Window) {
        let warning = Handle::current().block_on(async {
            match (self.restarts, at) {
                (true, Window::Opens) => {
                    self.stopped = true;
                    self.app.stop().await.err().map(|error| error.to_string())
                }
                (true, Window::Closes) => None,
                (false, Window::Opens) => self.app.pause().await.err().map(|error| {
                    format!("{error}: it may have seen the old and the new version at once")
                }),
                (false, Window::Closes) => {
                    self.app.resume().await.err().map(|error| error.to_string())
                }
            }
        });
        self.warnings.extend(warning);
    }
}

/// The failure that says why a push could not be staged.
pub(crate) fn stage_failure(error: &StageError) -> Failure {
    let code = match error {
        StageError::Local(_) | StageError::Store(_) => FailureCode::Io,
        StageError::Basis { .. } => FailureCode::Unsettled,
        StageError::Operations(_)
        | StageError::Target { .. }
        | StageError::Stream { .. }
        | StageError::Content { .. }
        | StageError::Trailing => FailureCode::Invalid,
    };
    Failure::new(code, chain(error))
}

fn commit_failure(error: &CommitError) -> Failure {
    let code = match error {
        CommitError::Stale | CommitError::Basis { .. } => FailureCode::Unsettled,
        CommitError::Undone(_)
        | CommitError::HalfMade { .. }
        | CommitError::NothingToRollBack
        | CommitError::Store(_) => FailureCode::Io,
    };
    Failure::new(code, chain(error))
}

fn listed<T>(mut list: Vec<T>) -> Vec<T> {
    list.truncate(limits::LISTED);
    list
}

fn failure_of_nothing() -> Failure {
    Failure::new(FailureCode::Invalid, "")
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Nothing is done while a lock is held that could leave its value half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A random number for seeds and epochs.
pub(crate) fn random() -> u64 {
    // Without randomness there is no TLS either, so that nobody gets here.
    random_u64().unwrap_or_else(|_| now_ms())
}
