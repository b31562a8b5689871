//! The deployment on this machine: the tree that stands, the app that runs on it, and the answers
//! that were given. What a push does to them, one step at a time.

mod reload;
mod standing;

use std::{
    io::{self, BufRead},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use patchwire_delta::{BlockSize, Regions, Seed, Signature, SignatureOptions};
use patchwire_protocol::{
    app::Reload,
    codec, limits,
    listing::{self, Digests, Listing},
    message::{
        inner::{Greeting, SignRequest, SignWhat},
        push::{
            AgentTimings, Answer, AppOptions, Base, Failure, OfferId, Patterns, Push, PushId,
            PushStatus,
        },
        status::{LastPush, Status},
        value::{Text, WireDigest},
    },
    operation::stream::{self, StreamError},
    session::receiver::{Committed, Reloaded},
    sketch::Sketch,
};
use patchwire_transport::random_u64;
use patchwire_tree::{Kept, StageError, Staged, Store, StoreError};
use tokio::sync::watch;

pub(crate) use self::standing::{Judgement, Offered};
use self::standing::{Meta, Standing};
use crate::{
    answers::{Answers, Recorded},
    app::{App, AppError, Changes},
    config::AppFlags,
    failure,
    supervisor::OnExit,
};

/// The state file with the answers to the last pushes.
const ANSWERS: &str = "answers";

/// The state file with the id of the push whose tree stands, for the app to read.
const PUSH_ID: &str = "push_id";

/// The most bytes of one list in an answer.
const LISTED: usize = 64 << 10;

/// How hard a listing is compressed. It is names for the most part.
const LISTING_LEVEL: i32 = 6;

/// Why a push is not staged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StagingError {
    /// Its operations are none.
    #[error(transparent)]
    Operations(#[from] StreamError),
    /// They can't be carried out.
    #[error(transparent)]
    Stage(#[from] StageError),
}

/// The deployment. See the [module](self).
#[derive(Debug)]
pub(crate) struct Deployment {
    name: String,
    flags: AppFlags,
    app: App,
    store: Arc<Mutex<Store>>,
    answers: watch::Sender<Answers>,
    standing: watch::Sender<Standing>,
    /// Held by the push that is being taken; the tree changes under it alone.
    turn: Arc<tokio::sync::Mutex<()>>,
    ending: AtomicBool,
    /// How the app was run when it was started and ready last.
    ready_by: Mutex<Option<AppOptions>>,
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
            answers: watch::Sender::new(answers.unwrap_or_default()),
            standing: watch::Sender::new(standing),
            turn: Arc::default(),
            ending: AtomicBool::new(false),
            ready_by: Mutex::default(),
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
        }
    }

    pub(crate) fn status(&self) -> Status {
        let standing = self.standing();
        let last_result = self
            .answers
            .borrow()
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

    /// What tells when [`Self::status`] may have changed.
    pub(crate) fn news(&self) -> News {
        News {
            standing: self.standing.subscribe(),
            answers: self.answers.subscribe(),
            app: self.app.changes(),
        }
    }

    /// The turn, if no other push is being taken.
    pub(crate) fn try_turn(&self) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }

    /// Waits until no other push is being taken.
    pub(crate) async fn turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        if let Some(turn) = self.try_turn() {
            return turn;
        }
        tracing::info!("a push waits for its turn");
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Ends the app for good. A push that waits for it to be ready is left as it is.
    pub(crate) async fn end(&self) -> Result<(), AppError> {
        self.ending.store(true, Ordering::Release);
        self.app.shutdown().await
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Starts the app on what stands. If the push that made that was never seen to be ready (the
    /// agent ended before), that is made up for, with the same end as it would have had.
    pub(crate) async fn boot(&self) {
        let _turn = self.turn().await;
        let standing = self.standing();
        let unverified = standing.push.filter(|_| !standing.verified);
        let Some((push_id, meta)) = unverified else {
            return self.start_app(OnExit::Restart).await;
        };
        tracing::info!(%push_id, "the last push was not seen to be ready before: checking again");
        let reloaded = self.start_and_verify(&meta.app).await;
        if reloaded.outcome.is_ok() {
            self.set_verified(true).await;
        }
        // An answer that says so was kept before the tree went back, which it then did not.
        let answered = self
            .answers
            .borrow()
            .get(push_id)
            .map(|answer| answer.status);
        if matches!(answered, None | Some(PushStatus::RolledBack))
            && let Some(root) = standing.root
        {
            let mut answer = self.interrupted(push_id, &reloaded);
            if reloaded.outcome.is_err() && self.can_roll_back() {
                let rolled_back = self.roll_back().await;
                if rolled_back.restored {
                    answer.status = PushStatus::RolledBack;
                }
                answer.root = rolled_back.root;
                answer.app = rolled_back.app;
                answer.drift = rolled_back.lost;
                let problem = rolled_back.problem.map(|problem| problem.message);
                answer
                    .warnings
                    .extend(rolled_back.warnings.into_iter().chain(problem));
            }
            let target = WireDigest(root);
            self.record(Recorded {
                client: meta.client,
                target,
                answer,
            })
            .await;
        }
        self.settle().await;
    }

    /// Says what becomes of a push by its header. `came_ms` is when it came, since the greeting.
    pub(crate) async fn judge(
        &self,
        push: &Push,
        offered: Option<&Offered>,
        came_ms: u64,
    ) -> Result<Judgement, StoreError> {
        let judgement = {
            let restarts = self.flags.reload(push.app.reload.as_ref()) == Reload::Restart;
            let (answers, app) = (self.answers.borrow(), (self.app.state(), restarts));
            self.standing().judge(push, offered, &answers, app, came_ms)
        };
        match judgement {
            Judgement::Answer(mut answer) if answer.status == PushStatus::NoChanges => {
                let drift = self.with_store(|store| Ok::<_, StoreError>(store.inventory()?.drift));
                let drift = drift.await?;
                if push.force && !drift.is_empty() {
                    // The tree is the same, and what lies on the disk isn't: that is put right.
                    let planned =
                        offered.is_some_and(|offered| push.base == Base::Offered(offered.id));
                    return Ok(match planned {
                        true => Judgement::Accept,
                        false => Judgement::Offer,
                    });
                }
                answer.drift = listed(drift);
                Ok(Judgement::Answer(answer))
            }
            judgement => Ok(judgement),
        }
    }

    /// Fills in what an answer says about what stands here, where it says nothing.
    pub(crate) fn complete(&self, answer: &mut Answer) {
        if answer.root.is_none() {
            let standing = self.standing();
            answer.epoch = standing.epoch;
            answer.root = standing.root.map(WireDigest);
            answer.app = Some(self.app.state());
        }
    }

    /// Looks at what stands here, and for a mirror at what lies beside it. With it comes its listing,
    /// compressed, with as much of each digest as `digests` says, and without what the developer has
    /// the same by its sketch.
    pub(crate) async fn offer(
        &self,
        mirror: Option<Patterns>,
        digests: Digests,
        sketch: Option<Sketch>,
    ) -> Result<(Offered, io::Result<Vec<u8>>), StoreError> {
        self.with_store(move |store| {
            let inventory = match &mirror {
                Some(patterns) => {
                    store.inventory_for_mirror(patterns.ignore(), patterns.include())?
                }
                None => store.inventory()?,
            };
            let offered = Offered {
                epoch: store.epoch(),
                // All of it is a mirror's to change.
                managed: mirror.is_some() || store.committed().is_some(),
                manifest: inventory.manifest,
                id: OfferId(random()),
                digests,
            };
            let kept = store.kept().unwrap_or_else(|error| {
                tracing::warn!(%error, "what was kept can't be offered");
                Vec::new()
            });
            let kept: Vec<_> = kept
                .into_iter()
                .map(|Kept { digest, len, have }| listing::Kept { digest, len, have })
                .collect();
            let (manifest, sketch) = (&offered.manifest, sketch.as_ref());
            let listing = Listing::encode(manifest, &kept, offered.id, digests, sketch);
            Ok((offered, zstd::bulk::compress(&listing, LISTING_LEVEL)))
        })
        .await
    }

    /// Signs a file of what was offered, or regions of it; `None` if it can't be read (any more) or
    /// has no such regions.
    pub(crate) async fn sign(&self, request: SignRequest, seed: u64) -> Option<Vec<u8>> {
        let SignRequest { path, what } = request;
        self.with_store(move |store| {
            let file = store.open_file(&path).ok()?;
            let len = file.metadata().ok()?.len();
            let options = SignatureOptions::new(Seed(seed));
            let signature = match what {
                SignWhat::Whole => Signature::read(file, len, options).ok()?,
                SignWhat::FirstRound => {
                    let block_size = Some(BlockSize::for_two_rounds(len));
                    let options = SignatureOptions {
                        block_size,
                        ..options
                    };
                    Signature::read(file, len, options).ok()?
                }
                SignWhat::Regions(regions) => {
                    let regions = Regions::decode(&regions).ok()?;
                    regions.sign(file, Seed(seed)).ok()?
                }
            };
            Some(signature.encode())
        })
        .await
    }

    /// Builds and verifies the files of a push, from its operations and what these send.
    pub(crate) async fn stage(
        &self,
        push: &Push,
        offered: Option<Offered>,
        mut content: Box<dyn BufRead + Send>,
    ) -> Result<Staged, StagingError> {
        let (push_id, target) = (push.push_id, push.target.0);
        let (count, links_may_leave) = (push.operations, push.links_may_leave);
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
                    let committed = store.managed();
                    (Arc::clone(&committed), committed)
                }
            };
            let operations = stream::read(&mut content, count, &available, links_may_leave)?;
            let staged = store.stage(
                push_id.0,
                &base,
                &available,
                target,
                operations,
                &mut *content,
            );
            Ok(staged?)
        })
        .await
    }

    /// Puts a staged push in place. An app that is restarted for it ends right before the tree
    /// changes; another is paused while it does.
    pub(crate) async fn commit(&self, push: &Push, staged: Staged) -> Result<Committed, Failure> {
        let started = Instant::now();
        let meta = Meta {
            client: push.client,
            author: push.author.clone(),
            message: push.message.clone(),
            at_ms: now_ms(),
            paths: listed(staged.paths().take(limits::LISTED).cloned().collect()),
            app: push.app.clone(),
        };
        let can_roll_back = self.standing().verified;
        let mut window = self.window(&push.app);
        let (result, window) = self
            .with_store(move |store| {
                // Looked at before, as what the push touches is replaced by it.
                let drift = store.drift_beside(&staged)?;
                let meta = codec::encode(&meta);
                let result = store.commit(staged, &meta, &mut |at| window.pass(at));
                Ok::<_, StoreError>((result.map(|committed| (committed, drift)), window))
            })
            .await
            .map_err(|error| failure::of_commit(&error.into()))?;
        self.refresh().await;
        match result {
            Ok((committed, mut drift)) => {
                drift.extend(committed.drift);
                drift.sort_unstable();
                drift.dedup();
                let standing = self.standing();
                let mut warnings = window.warnings;
                warnings.extend(committed.warnings);
                warnings.extend(committed.moved_aside.iter().map(|path| {
                    format!("{path} was not part of the tree and in the way: it was moved aside")
                }));
                Ok(Committed {
                    epoch: standing.epoch,
                    root: WireDigest(standing.root.unwrap_or(push.target.0)),
                    can_roll_back,
                    drift: listed(drift),
                    warnings: listed(warnings.into_iter().map(Text::cut).collect()),
                    commit_us: micros(started.elapsed()),
                })
            }
            Err(error) => {
                if window.stopped {
                    self.start_app(OnExit::Restart).await;
                }
                Err(failure::of_commit(&error))
            }
        }
    }

    /// Keeps an answer, so that its push is never applied twice.
    pub(crate) async fn record(&self, recorded: Recorded) {
        self.answers.send_modify(|answers| answers.add(recorded));
        let bytes = self.answers.borrow().encode();
        if let Err(error) = self
            .with_store(move |store| store.write_state(ANSWERS, &bytes))
            .await
        {
            tracing::error!(%error, "an answer can't be kept on the disk");
        }
    }

    fn standing(&self) -> Standing {
        self.standing.borrow().clone()
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

    /// The answer to a push that the agent's end interrupted after its commit.
    fn interrupted(&self, push_id: PushId, reloaded: &Reloaded) -> Answer {
        let standing = self.standing();
        let verified = reloaded.outcome.is_ok();
        Answer {
            push_id,
            status: if verified {
                PushStatus::Done
            } else {
                PushStatus::Failed
            },
            failure: reloaded.outcome.as_ref().err().cloned(),
            epoch: standing.epoch,
            root: standing.root.map(WireDigest),
            timings: AgentTimings {
                commit_us: 0,
                reload_us: reloaded.reload_us,
                ready_us: reloaded.ready_us,
            },
            app: reloaded.app,
            verified,
            log_tail: reloaded.log_tail.clone(),
            drift: Vec::new(),
            warnings: vec![Text::cut(
                "the agent was started anew while the push was applied",
            )],
            conflict: None,
        }
    }

    /// Notes whether the app was seen to be ready on what stands.
    async fn set_verified(&self, verified: bool) {
        if let Err(error) = self
            .with_store(move |store| store.set_verified(verified))
            .await
        {
            tracing::error!(%error, "can't note whether the app is ready");
        }
        self.standing
            .send_modify(|standing| standing.verified = verified);
    }

    /// Has what happens to the tree heard of, so that the next push need not look for it. Nobody waits
    /// for that.
    pub(crate) fn watch_tree(&self) {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || lock(&store).watch());
    }

    /// Takes over what the store says stands.
    async fn refresh(&self) {
        let standing = self
            .with_store(|store| {
                let standing = Standing::of(store);
                let push_id = standing.push.as_ref().map(|(id, _)| id.to_string());
                let push_id = push_id.unwrap_or_default();
                let known = store.read_state(PUSH_ID).ok().flatten();
                if known.as_deref() != Some(push_id.as_bytes())
                    && let Err(error) = store.write_state(PUSH_ID, push_id.as_bytes())
                {
                    tracing::warn!(%error, "can't write the push's id for the app to read");
                }
                standing
            })
            .await;
        self.standing.send_replace(standing);
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

/// Tells when something that a status says has changed. Changes are not counted: however many there
/// were since the last time is one.
pub(crate) struct News {
    standing: watch::Receiver<Standing>,
    answers: watch::Receiver<Answers>,
    app: Changes,
}

impl News {
    /// Waits for the next change; `None` once there will be no more. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<()> {
        let changed = tokio::select! {
            changed = self.standing.changed() => changed.is_ok(),
            changed = self.answers.changed() => changed.is_ok(),
            changed = self.app.next() => changed.is_some(),
        };
        changed.then_some(())
    }
}

/// As much of a list as an answer has room for: it is one frame.
fn listed<T: codec::Encode>(list: Vec<T>) -> Vec<T> {
    let mut bytes = 0;
    let fits = |item: &T| {
        bytes += codec::encode(item).len();
        bytes <= LISTED
    };
    list.into_iter()
        .take(limits::LISTED)
        .take_while(fits)
        .collect()
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

/// A panic while the store changed leaves what opening it again makes whole: it is the journal that
/// says what was done, and nothing here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A random number for seeds and epochs.
pub(crate) fn random() -> u64 {
    // Without randomness there is no TLS either, so that nobody gets here.
    random_u64().unwrap_or_else(|_| now_ms())
}
