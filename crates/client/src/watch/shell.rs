//! The shell around the schedule: it hears events, scans, pushes and tells.

use std::{
    future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use patchwire_protocol::app::AppState;
use patchwire_transport::random_u64;
use patchwire_tree::{Events, Happened, ScanProgress, Watches, listen};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep_until},
};

use super::{
    WatchEvent, WatchOptions,
    hearing::{Hearing, News, Preparation, Watched},
    look::{Identity, Look, Outcome, Seen, identity},
    presence::Known,
    schedule::{Ended, Input, Output, Presence, Schedule, Standing, Tell, Verdict},
};
use crate::{
    connect::Client,
    error::{ClientError, chain},
    push::{Origin, PushEnd, Scanned, scanning},
    report::{PushReport, ReportStatus},
    request::{Progress, PushRequest},
};

/// How often to look whether the root is still the directory that is watched.
const ROOT_CHECK: Duration = Duration::from_secs(1);

type Observer<'a> = &'a (dyn Fn(WatchEvent) + Send + Sync);
type Work<'a> = Pin<Box<dyn Future<Output = Done> + Send + 'a>>;

/// What work came to.
enum Done {
    Looked(Box<(Look, Seen)>),
    Pushed(Result<PushEnd, ClientError>),
}

pub(super) struct Shell<'a> {
    client: &'a Client,
    request: &'a PushRequest,
    observer: Observer<'a>,
    /// Whether there was an agent once.
    attached: &'a AtomicBool,
    origin: Arc<Origin>,
    schedule: Schedule,
    events: Events,
    hearing: Hearing,
    /// The root's, while it is there.
    identity: Option<Identity>,
    /// While no look is under way.
    look: Option<Look>,
    /// Watches for the next look, if it has none.
    fresh: Option<Watches>,
    found: Option<Scanned>,
    report: Option<Box<PushReport>>,
    error: Option<Arc<ClientError>>,
    /// Why we are refused, as it was told, since the agent was there last.
    refused: Option<String>,
    /// As it was told last.
    app: Option<AppState>,
}

impl<'a> Shell<'a> {
    pub(super) fn new(
        client: &'a Client,
        request: &'a PushRequest,
        options: &WatchOptions,
        attached: &'a AtomicBool,
        observer: Observer<'a>,
    ) -> Result<Self, ClientError> {
        let origin = Arc::new(Origin::new(client, request)?);
        let root = &origin.root;
        let identity = identity(root).map_err(|source| ClientError::Root {
            root: root.clone(),
            source,
        })?;
        let look = Look::new(root, &request.scan, &origin.memory);
        let (events, watches) = listen(root, origin.memory.directory());
        let now = Instant::now();
        Ok(Self {
            client,
            request,
            observer,
            attached,
            schedule: Schedule::new(*options, now),
            events,
            hearing: Hearing::new(now),
            identity: Some(identity),
            look: Some(look),
            fresh: Some(watches),
            found: None,
            report: None,
            error: None,
            refused: None,
            app: None,
            origin,
        })
    }

    /// Watches until an error that gets better neither by waiting nor by saving.
    pub(super) async fn run(&mut self, known: &mut watch::Receiver<Known>) -> ClientError {
        let mut work: Option<Work<'a>> = None;
        let mut root_check = interval(ROOT_CHECK);
        root_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(output) = self.schedule.poll_output() {
                if let Some(begun) = self.perform(output) {
                    work = Some(begun);
                }
            }
            let due = self.schedule.poll_timeout();
            let poll = self.hearing.poll_timeout();
            tokio::select! {
                happened = self.events.next() => self.happened(happened),
                done = working(&mut work) => {
                    work = None;
                    if let Some(error) = self.done(done) {
                        return error;
                    }
                }
                Ok(()) = known.changed() => {
                    let known = known.borrow_and_update().clone();
                    self.know(known);
                }
                () = at(due) => self.schedule.handle_timeout(Instant::now()),
                () = at(poll) => self.poll(),
                _ = root_check.tick() => self.check_root(),
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.schedule.handle_input(input, Instant::now());
    }

    /// Takes in what is known of the agent.
    fn know(&mut self, known: Known) {
        let Known {
            presence,
            app,
            refusal,
        } = known;
        if let Some(presence) = presence {
            if matches!(presence, Presence::Attached { .. }) {
                self.refused = None;
            }
            self.input(Input::Agent(presence));
        }
        if let Some(app) = app.filter(|_| app != self.app) {
            self.app = Some(app);
            self.tell(WatchEvent::App(app));
        }
        if let Some(error) = refusal {
            let said = chain(&*error);
            if self.refused.as_ref() != Some(&said) {
                self.refused = Some(said);
                let again = true;
                self.tell(WatchEvent::Failed { error, again });
            }
        }
    }

    fn tell(&self, event: WatchEvent) {
        (self.observer)(event);
    }

    fn perform(&mut self, output: Output) -> Option<Work<'a>> {
        match output {
            Output::Scan { heed_git, silent } => Some(self.begin_look(heed_git, silent)),
            Output::Push => Some(self.begin_push()),
            Output::Tell(tell) => {
                self.perform_tell(tell);
                None
            }
        }
    }

    fn begin_look(&mut self, heed_git: bool, silent: bool) -> Work<'a> {
        // It could be another directory since the last check.
        self.check_root();
        let observer = self.observer;
        let mut look = self.look.take().expect("one look is under way at a time");
        if let Some(watches) = self.fresh.take() {
            look.watches = Some(watches);
        }
        Box::pin(async move {
            let told = |step| {
                if !silent {
                    observer(WatchEvent::Progress(step));
                }
            };
            let work = move |progress: &(dyn Fn(ScanProgress) + Sync)| {
                let seen = look.look(heed_git, progress);
                Done::Looked(Box::new((look, seen)))
            };
            scanning(&told, work).await
        })
    }

    fn begin_push(&mut self) -> Work<'a> {
        let (client, request, observer) = (self.client, self.request, self.observer);
        let origin = Arc::clone(&self.origin);
        let found = self.found.take().expect("a push follows a scan");
        Box::pin(async move {
            let told = |step: Progress| observer(WatchEvent::Progress(step));
            let pushed = client.push_scanned(&origin, request, found, &told);
            let pushed = Box::pin(pushed).await;
            origin.save_later(|| ());
            Done::Pushed(pushed)
        })
    }

    fn perform_tell(&mut self, tell: Tell) {
        let root = || self.origin.root.clone();
        let event = match tell {
            Tell::Pushing(cause) => WatchEvent::Pushing { cause },
            Tell::Report { since_save } => match self.report.take() {
                Some(report) => WatchEvent::Pushed { report, since_save },
                None => return,
            },
            Tell::Unchanged => WatchEvent::Unchanged,
            Tell::Rejected => WatchEvent::Rejected,
            Tell::Failed { again } => match self.error.clone() {
                Some(error) => WatchEvent::Failed { error, again },
                None => return,
            },
            Tell::AgentLost => WatchEvent::AgentLost,
            Tell::AgentBack => WatchEvent::AgentBack,
            Tell::RootGone => WatchEvent::RootGone { root: root() },
            Tell::RootBack => WatchEvent::RootBack { root: root() },
        };
        self.tell(event);
    }

    /// Takes in what work came to. An error ends the watch.
    fn done(&mut self, done: Done) -> Option<ClientError> {
        match done {
            Done::Looked(looked) => {
                let (look, seen) = *looked;
                self.looked(look, seen);
                None
            }
            Done::Pushed(Ok(PushEnd::Reported { report, epoch })) => {
                self.attached.store(true, Relaxed);
                let ended = answered(&report, epoch);
                self.report = Some(report);
                self.input(Input::Ended(ended));
                None
            }
            Done::Pushed(Ok(PushEnd::Changed(path))) => {
                if let Some(look) = &mut self.look {
                    look.doubt();
                }
                self.error = Some(Arc::new(ClientError::Unsettled { path }));
                // Those of a root that is gone are, too.
                self.check_root();
                let random = random();
                self.input(Input::Ended(Ended::Changed { random }));
                None
            }
            Done::Pushed(Err(error)) if error.is_final() && !self.attached.load(Relaxed) => {
                Some(error)
            }
            Done::Pushed(Err(error)) => {
                // A root that is gone explains what can't be read, and is told first.
                self.check_root();
                let ended = match &error {
                    error if error.is_passing() || error.is_final() => {
                        Ended::Unreachable { random: random() }
                    }
                    ClientError::Empty { .. } | ClientError::DeletesTooMuch { .. } => {
                        Ended::Refused
                    }
                    _ => Ended::Failed,
                };
                self.error = Some(Arc::new(error));
                self.input(Input::Ended(ended));
                None
            }
        }
    }

    fn looked(&mut self, look: Look, seen: Seen) {
        self.heard(&look, &seen);
        self.look = Some(look);
        // Of a root that was exchanged meanwhile nobody knows what was seen.
        let there = self.identity;
        self.check_root();
        if there != self.identity {
            return self.input(Input::PutOff { git_at_work: false });
        }
        match seen.outcome {
            Outcome::Busy => self.input(Input::PutOff { git_at_work: true }),
            Outcome::Found {
                mut scan,
                started,
                git_at_work,
            } => {
                let ignored = std::mem::take(&mut scan.ignored);
                self.tell(WatchEvent::Scanned { ignored });
                let target = scan.manifest.root();
                self.found = Some(Scanned { scan, started });
                self.input(Input::Found {
                    target,
                    git_at_work,
                    took: seen.took,
                });
            }
            Outcome::Failed(source) => {
                let root = self.origin.root.clone();
                let error = ClientError::Scan { root, source };
                let news = self
                    .error
                    .as_ref()
                    .is_none_or(|last| chain(&**last) != chain(&error));
                self.error = Some(Arc::new(error));
                let again = self.hearing.interval();
                self.input(Input::ScanFailed { news, again });
            }
        }
    }

    /// Looks whether the root is still the directory that is watched, and tells what became of it.
    fn check_root(&mut self) {
        let now = identity(&self.origin.root).ok();
        if now == self.identity {
            return;
        }
        if self.identity.take().is_some() {
            self.input(Input::RootGone);
        }
        if now.is_some() {
            self.identity = now;
            let preparation = self.hearing.root_exchanged(Instant::now());
            self.prepare(preparation);
            self.input(Input::RootBack);
        }
    }

    /// Prepares the next look.
    fn prepare(&mut self, preparation: Preparation) {
        match preparation {
            Preparation::None => {}
            Preparation::StartOver => self.events.start_over(),
            Preparation::Listen => {
                let (events, watches) = listen(&self.origin.root, self.origin.memory.directory());
                self.events = events;
                self.fresh = Some(watches);
            }
        }
    }

    /// Takes in what a look says of how saves are heard of.
    fn heard(&mut self, look: &Look, seen: &Seen) {
        let directories = look.watches.as_ref().and_then(Watches::count);
        let watched = match (&seen.deaf, directories) {
            (Some(_), _) => Watched::Deaf,
            (None, Some(directories)) => Watched::Directories(directories),
            (None, None) => Watched::Unknown,
        };
        let news = self.hearing.looked(watched, seen.spent, Instant::now());
        match (news, &seen.deaf) {
            (Some(News::Watching { directories }), _) => {
                let root = self.origin.root.clone();
                self.tell(WatchEvent::Watching { root, directories });
            }
            (Some(News::Polling { interval }), Some(error)) => {
                let cause = chain(error);
                self.tell(WatchEvent::Polling { cause, interval });
            }
            (Some(News::Polling { .. }), None) | (None, _) => {}
        }
    }

    fn happened(&mut self, happened: Happened) {
        if happened.directories || happened.lost {
            self.check_root();
        }
        if happened.change {
            self.input(Input::Saved);
        } else {
            let again = self.hearing.interval();
            self.input(Input::Lost { again });
        }
    }

    /// Looks for what was saved, where that can't be heard.
    fn poll(&mut self) {
        let preparation = self.hearing.handle_timeout(Instant::now());
        self.prepare(preparation);
        self.input(Input::Poll);
    }
}

async fn working(work: &mut Option<Work<'_>>) -> Done {
    match work {
        Some(work) => work.await,
        None => future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => future::pending().await,
    }
}

fn random() -> u64 {
    random_u64().unwrap_or(0)
}

/// What a report says of the tree that was pushed.
fn answered(report: &PushReport, epoch: Option<u64>) -> Ended {
    let code = report.error.as_ref().map(|error| &*error.code);
    let verdict = match report.status {
        _ if report.is_rejection() => Some(Verdict::Bad),
        ReportStatus::Unknown => return Ended::Unanswered { random: random() },
        // It says nothing of the tree: the way was too slow.
        ReportStatus::Failed if matches!(code, Some("expired" | "stalled")) => {
            return Ended::Unanswered { random: random() };
        }
        ReportStatus::Done | ReportStatus::NoChanges => Some(Verdict::Stands),
        ReportStatus::Failed | ReportStatus::RolledBack => None,
        ReportStatus::Conflict => Some(Verdict::Refused),
    };
    let standing = epoch.map(|epoch| Standing {
        epoch,
        root: report.root,
    });
    Ended::Answered { verdict, standing }
}
