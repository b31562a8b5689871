//! The app as the rest of the agent sees it: a handle to the task that runs it.
//!
//! A push goes: [`App::stop`], rename, [`App::start`] with [`OnExit::Hold`], [`App::verify`]; and
//! if that fails: stop, roll back, start, verify. Where the app isn't restarted it is
//! [`App::pause`], rename, [`App::resume`], [`App::signal`] or [`App::run_command`], verify.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use patchwire_protocol::app::{AppState, Exit, ReadyCheck, Signal};
use rustix::process::Signal as RawSignal;
use tokio::sync::{mpsc, oneshot, watch};

use self::task::{Reply, Request, Status, Target, Task};
pub use crate::supervisor::OnExit;
use crate::{
    guard::Guard,
    output::{Line, OutputRing},
    process::{CommandOutput, Group, Launch, NotPaused, RunError, SpawnError},
    ready::{self, Evidence, NotReady, Surroundings},
};

mod task;

/// How long the app's processes have to end after TERM, unless configured otherwise.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long they may take to be paused.
pub const PAUSE: Duration = Duration::from_millis(250);

/// How many requests may wait for the task.
const REQUESTS: usize = 16;

/// What no app, hook or command inherits begins so: our links and the files that hold them.
const SECRET_PREFIX: &[u8] = b"PATCHWIRE_LINK";

/// Where the app finds the id of the push that it runs.
const PUSH_ID: &str = "PATCHWIRE_PUSH_ID";

/// How the app is run.
#[derive(Debug)]
pub struct AppConfig {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The directory that it and its commands run in.
    pub root: PathBuf,
    /// The agent's own environment, which they inherit but for `PATCHWIRE_LINK*`.
    pub env: Vec<(OsString, OsString)>,
    /// How long its processes have to end after TERM, before they get KILL: [`GRACE`].
    pub grace: Duration,
    /// What ends the app if the agent is killed.
    pub guard: Option<Guard>,
    /// Whether what it writes also goes to the agent's own standard output and error.
    pub pass_output: bool,
}

/// The app. Clones are handles to the same one; when the last is dropped the app is stopped.
#[derive(Debug, Clone)]
pub struct App {
    base: Arc<Launch>,
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
    output: Arc<OutputRing>,
    /// Whether it was ever seen to answer HTTP where it listens.
    answers: Arc<AtomicBool>,
}

/// Tells when an app's state may have changed. Changes are not counted: however many there were
/// since the last time is one.
#[derive(Debug)]
pub struct Changes(watch::Receiver<Status>);

/// Why the app did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppError {
    /// It could not be started.
    #[error(transparent)]
    Spawn(#[from] Arc<SpawnError>),
    /// Its processes were killed and are not gone.
    #[error("the app's processes were killed and still do not end: they hang in the kernel")]
    Stuck,
    /// Someone else stopped it, or started it anew, first.
    #[error("the app was stopped or started anew by another request")]
    Superseded,
    /// There is nothing to signal.
    #[error("the app is not running")]
    NotRunning,
    /// It may not be signalled.
    #[error("the app cannot be signalled")]
    Signal(#[source] Arc<io::Error>),
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    ShutDown,
}

/// Why the app wasn't paused.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// It could not be told to.
    #[error(transparent)]
    App(#[from] AppError),
    /// It was told to, and not all of it is known to have stopped.
    #[error(transparent)]
    NotPaused(#[from] NotPaused),
}

impl App {
    /// Begins to look after an app. It isn't started yet.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn spawn(config: AppConfig) -> Self {
        let base = Arc::new(Launch {
            command: config.command,
            root: config.root,
            env: inherited(config.env),
        });
        let output = Arc::new(OutputRing::default());
        let (requests, receiver) = mpsc::channel(REQUESTS);
        let status = watch::Sender::new(Status::new(Arc::clone(&base)));
        let app = Self {
            base,
            requests,
            status: status.subscribe(),
            output: Arc::clone(&output),
            answers: Arc::default(),
        };
        let task = Task::new(config.grace, config.guard, output, status);
        tokio::spawn(task.run(receiver, config.pass_output));
        app
    }

    /// Starts the app, with this environment on top of the agent's. If it runs, it is stopped
    /// first. Returns the id of its process as soon as it is there.
    ///
    /// With [`OnExit::Hold`] it is not started again when it ends, until [`Self::verify`] or
    /// [`Self::settle`] says otherwise.
    ///
    /// # Errors
    ///
    /// [`AppError::Spawn`], [`AppError::Stuck`] if the process before does not end,
    /// [`AppError::Superseded`], [`AppError::ShutDown`].
    pub async fn start(
        &self,
        push_id: Option<&str>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        on_exit: OnExit,
    ) -> Result<u32, AppError> {
        let mut launch = Launch::clone(&self.base);
        launch.env.extend(inherited(env));
        // Last, so that the name means what we say.
        let push_id = push_id.map(|id| (PUSH_ID.into(), id.into()));
        launch.env.extend(push_id);
        let launch = Some(Arc::new(launch));
        self.ask(|reply| Request::Start {
            launch,
            on_exit,
            reply,
        })
        .await
    }

    /// Starts the app anew, just as it was started last.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn restart(&self, on_exit: OnExit) -> Result<u32, AppError> {
        let launch = None;
        self.ask(|reply| Request::Start {
            launch,
            on_exit,
            reply,
        })
        .await
    }

    /// Stops the app, and returns when no process of its group is alive.
    ///
    /// # Errors
    ///
    /// [`AppError::Stuck`], [`AppError::ShutDown`].
    pub async fn stop(&self) -> Result<(), AppError> {
        self.ask(Request::Stop).await
    }

    /// From here on the app is started again whenever it ends, also if it has ended by now.
    ///
    /// # Errors
    ///
    /// [`AppError::ShutDown`].
    pub async fn settle(&self) -> Result<(), AppError> {
        self.ask(|reply| Request::Policy(OnExit::Restart, reply))
            .await
    }

    /// Checks until the app is ready, at most for `timeout`. While that lasts, and after it
    /// failed, the app is not started again when it ends; after it passed, it is.
    ///
    /// # Errors
    ///
    /// [`NotReady`], at once when the app ends.
    pub async fn verify(
        &self,
        check: &ReadyCheck,
        timeout: Duration,
    ) -> Result<Evidence, NotReady> {
        let shut_down = |_| NotReady::Superseded;
        self.ask(|reply| Request::Policy(OnExit::Hold, reply))
            .await
            .map_err(shut_down)?;
        let (generation, launch, pid) = {
            let status = self.status.borrow();
            if let Some(failure) = &status.failure {
                let reason = failure.to_string();
                return Err(NotReady::NotStarted { reason });
            }
            (
                status.generation,
                Arc::clone(&status.launch),
                status.state.pid,
            )
        };
        let group = pid.and_then(Group::from_id);
        let surroundings = Surroundings {
            root: &launch.root,
            env: &launch.env,
            group,
            answers: self.answers(),
        };
        let ended = ended(self.status.clone(), generation);
        let evidence = ready::check(check, surroundings, timeout, ended).await?;
        match (evidence, check, group) {
            (Evidence::Answered(_), _, _) => self.answers.store(true, Ordering::Relaxed),
            // Slow to start, it may still turn out to be one that answers.
            (Evidence::Alive, ReadyCheck::Auto, Some(group)) => {
                self.look_on(generation, group, timeout);
            }
            (Evidence::Alive | Evidence::Passed, _, _) => {}
        }
        self.settle().await.map_err(shut_down)?;
        Ok(evidence)
    }

    /// Looks in the background whether the app of this generation begins to answer HTTP, until it
    /// ends, at most for `timeout`.
    fn look_on(&self, generation: u64, group: Group, timeout: Duration) {
        let ended = ended(self.status.clone(), generation);
        let answers = Arc::clone(&self.answers);
        tokio::spawn(async move {
            tokio::select! {
                _ = ended => {}
                () = tokio::time::sleep(timeout) => {}
                _ = ready::answered(group) => answers.store(true, Ordering::Relaxed),
            }
        });
    }

    /// Whether it was ever seen to answer HTTP where it listens: `auto` then waits for nothing less.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.answers.load(Ordering::Relaxed)
    }

    /// Says whether the app that is started next is one that is known to answer HTTP: what was seen
    /// of it holds no longer where it is run in another way.
    pub fn expect_answers(&self, answers: bool) {
        self.answers.store(answers, Ordering::Relaxed);
    }

    /// Sends a signal to the app's first process.
    ///
    /// # Errors
    ///
    /// [`AppError::NotRunning`], [`AppError::Signal`], [`AppError::ShutDown`].
    pub async fn signal(&self, signal: Signal) -> Result<(), AppError> {
        let raw = match signal {
            Signal::Hup => RawSignal::HUP,
            Signal::Int => RawSignal::INT,
            Signal::Quit => RawSignal::QUIT,
            Signal::Usr1 => RawSignal::USR1,
            Signal::Usr2 => RawSignal::USR2,
            Signal::Alrm => RawSignal::ALARM,
            Signal::Term => RawSignal::TERM,
            Signal::Winch => RawSignal::WINCH,
        };
        self.ask_to_signal(raw, Target::FirstProcess)
            .await
            .map(drop)
    }

    /// Stops all processes of the app where they are, until [`Self::resume`]; waits for that at
    /// most [`PAUSE`]. An app that isn't running is paused already.
    ///
    /// # Errors
    ///
    /// [`PauseError`]; what could be stopped stays so all the same.
    pub async fn pause(&self) -> Result<(), PauseError> {
        match self.ask_to_signal(RawSignal::STOP, Target::Group).await {
            Ok(group) => Ok(group.stopped(PAUSE).await?),
            Err(AppError::NotRunning) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a paused app go on.
    ///
    /// # Errors
    ///
    /// [`AppError::Signal`], [`AppError::ShutDown`].
    pub async fn resume(&self) -> Result<(), AppError> {
        match self.ask_to_signal(RawSignal::CONT, Target::Group).await {
            Ok(_) | Err(AppError::NotRunning) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Runs a shell command in the root with the app's environment, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// [`RunError`].
    pub async fn run_command(
        &self,
        command: &str,
        timeout: Duration,
    ) -> Result<CommandOutput, RunError> {
        let launch = Arc::clone(&self.status.borrow().launch);
        Launch::shell(command, &launch.root, &launch.env)
            .run(timeout)
            .await
    }

    /// How the app is doing.
    #[must_use]
    pub fn state(&self) -> AppState {
        self.status.borrow().state
    }

    /// What tells when [`Self::state`] may have changed.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(self.status.clone())
    }

    /// Waits until the app's process isn't running, and returns how it ended, if there was one.
    pub async fn wait_exit(&self) -> Option<Exit> {
        let mut status = self.status.clone();
        let stopped = status.wait_for(|status| !status.state.running).await;
        match stopped {
            Ok(status) => status.state.exit,
            // The task is gone: the last it said holds.
            Err(_) => self.state().exit,
        }
    }

    /// What the app writes.
    #[must_use]
    pub const fn output(&self) -> &Arc<OutputRing> {
        &self.output
    }

    /// The last `count` lines that it wrote since its process was started.
    #[must_use]
    pub fn log_tail(&self, count: usize) -> Vec<Line> {
        self.output.tail(self.status.borrow().mark, count)
    }

    /// Stops the app for good, lets the guard go, and hands the last lines on. Other requests are
    /// refused from here on.
    ///
    /// # Errors
    ///
    /// [`AppError::Stuck`]: the guard keeps at it then.
    pub async fn shutdown(&self) -> Result<(), AppError> {
        match self.ask(Request::Shutdown).await {
            // Someone else did it before.
            Ok(()) | Err(AppError::ShutDown) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask_to_signal(&self, signal: RawSignal, target: Target) -> Result<Group, AppError> {
        self.ask(|reply| Request::Signal {
            signal,
            target,
            reply,
        })
        .await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, AppError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.send(request(reply)).await;
        sent.map_err(|_| AppError::ShutDown)?;
        answer.await.unwrap_or(Err(AppError::ShutDown))
    }
}

impl Changes {
    /// Waits for the next change; `None` once the app was stopped for good. Cancel safe.
    pub async fn next(&mut self) -> Option<()> {
        self.0.changed().await.ok()
    }
}

/// Waits until the app of this generation isn't there any more, and says why.
async fn ended(mut status: watch::Receiver<Status>, generation: u64) -> NotReady {
    let is_over = |status: &Status| !status.state.running || status.generation != generation;
    match status.wait_for(is_over).await {
        Ok(status) if status.generation == generation => match status.state.exit {
            Some(exit) => NotReady::Exited { exit },
            None => NotReady::Superseded,
        },
        Ok(_) | Err(_) => NotReady::Superseded,
    }
}

/// Leaves out what the app must not see, and a push id that isn't its own.
fn inherited(env: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let kept = |(name, _): &(OsString, OsString)| {
        !name.as_bytes().starts_with(SECRET_PREFIX) && name != OsStr::new(PUSH_ID)
    };
    env.into_iter().filter(kept).collect()
}
