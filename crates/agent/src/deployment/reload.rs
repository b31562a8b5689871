//! The app's part in a push: kept from seeing half of it, told of the new code, waited for.

use std::{
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use patchwire_protocol::{
    app::{Exit, ReadyCheck, Reload},
    limits,
    message::{
        push::{AppOptions, Failure, FailureCode, Push},
        value::{Text, WireDigest},
    },
    session::receiver::{Reloaded, RolledBack},
};
use patchwire_tree::Window;
use tokio::runtime::Handle;

use super::{Deployment, listed, micros};
use crate::{
    app::App,
    failure,
    process::RunError,
    ready::{self, Evidence, NotReady},
    supervisor::OnExit,
};

/// How long a reload command may take.
const COMMAND: Duration = Duration::from_secs(60);

/// The most bytes of the app's last lines in an answer.
const LOG_TAIL: usize = 64 << 10;

/// The most bytes of a command's output in a message.
const LAST_WORDS: usize = 2 << 10;

impl Deployment {
    /// Has the app take up what was committed, and waits until it is ready.
    pub(crate) async fn reload(&self, push: &Push) -> Reloaded {
        let reloaded = self.take_up_and_verify(&push.app).await;
        if reloaded.outcome.is_ok() {
            self.set_verified(true).await;
        }
        reloaded
    }

    /// Brings the tree back that stood before, and the app on it.
    pub(crate) async fn roll_back(&self) -> RolledBack {
        let mut window = self.window(&self.options());
        let (result, window) = self
            .with_store(move |store| {
                let result = store.roll_back(&mut |at| window.pass(at));
                (result, window)
            })
            .await;
        self.refresh().await;
        let mut rolled_back = RolledBack {
            restored: result.is_ok(),
            root: None,
            problem: None,
            lost: Vec::new(),
            warnings: window.warnings.iter().map(Text::cut).collect(),
            app: None,
        };
        match result {
            Ok(done) => {
                rolled_back.lost = listed(done.lost);
                rolled_back
                    .warnings
                    .extend(done.warnings.iter().map(Text::cut));
                let reloaded = self.take_up_and_verify(&self.options()).await;
                // It was ready once; if it no longer is, a push of it has to be more than nothing.
                if reloaded.outcome.is_err() {
                    self.set_verified(false).await;
                }
                rolled_back.problem = reloaded.outcome.err();
            }
            Err(error) => {
                if window.stopped {
                    self.start_app(OnExit::Restart).await;
                }
                rolled_back.problem = Some(failure::of_commit(&error));
            }
        }
        // Ready or not: from here on it is kept alive.
        self.settle().await;
        RolledBack {
            root: self.standing().root.map(WireDigest),
            app: Some(self.app.state()),
            ..rolled_back
        }
    }

    /// Starts the app on what stands, and waits until it is ready: what is ready then can only be that.
    pub(crate) async fn start_and_verify(&self, options: &AppOptions) -> Reloaded {
        // Run in another way, it may be one that doesn't answer. If it doesn't get ready so, what is
        // known of it as it was before holds for rolling back.
        let answers = self.app.answers();
        let is_as_before = self.ready_by().as_ref() == Some(options);
        self.app.expect_answers(answers && is_as_before);
        let begun = Instant::now();
        let check = self.flags.ready(options.ready.as_ref());
        // Of an app that ended by itself something may be left, which would answer the check. Whoever
        // starts it is told of what doesn't end.
        drop(self.app.stop().await);
        let unanswered = ready::unanswered(&check).await;
        self.start_app(OnExit::Hold).await;
        let (reload, since) = (begun.elapsed(), Instant::now());
        let ready = match unanswered {
            Ok(()) => {
                let timeout = self.flags.ready_timeout(options.ready_timeout_ms);
                self.app.verify(&check, timeout).await
            }
            Err(not_ready) => Err(not_ready),
        };
        match &ready {
            Ok(_) => *self.ready_by() = Some(options.clone()),
            Err(_) => self.app.expect_answers(answers),
        }
        Reloaded {
            outcome: self.outcome(ready).await.map(|()| true),
            reload_us: micros(reload),
            ready_us: micros(since.elapsed()),
            ..self.reloaded()
        }
    }

    /// Starts the app on what stands, if there is anything: an app whose files are yet to be pushed
    /// could only fail.
    pub(crate) async fn start_app(&self, on_exit: OnExit) {
        let standing = self.standing();
        if standing.root.is_none() && self.with_store(|store| store.is_bare()).await {
            return tracing::info!("nothing to run yet: waiting for the first push");
        }
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
    }

    /// What keeps the app from seeing half of a change, if it is run by these options.
    pub(crate) fn window(&self, options: &AppOptions) -> AppWindow {
        AppWindow {
            app: self.app.clone(),
            restarts: self.flags.reload(options.reload.as_ref()) == Reload::Restart,
            stopped: false,
            warnings: Vec::new(),
        }
    }

    async fn take_up_and_verify(&self, options: &AppOptions) -> Reloaded {
        let reload = self.flags.reload(options.reload.as_ref());
        // A signal or a command is of no use to an app that isn't there.
        if reload == Reload::Restart || !self.app.state().running {
            return self.start_and_verify(options).await;
        }
        let begun = Instant::now();
        let told = self.tell(&reload).await;
        let (reload_us, since) = (micros(begun.elapsed()), Instant::now());
        let outcome = match told {
            Ok(()) if reload == Reload::None => Ok(()),
            Ok(()) => {
                let check = match self.flags.ready(options.ready.as_ref()) {
                    // An answer of an app that went on running says nothing of the new code.
                    ReadyCheck::Auto => ReadyCheck::default(),
                    check => check,
                };
                let timeout = self.flags.ready_timeout(options.ready_timeout_ms);
                self.outcome(self.app.verify(&check, timeout).await).await
            }
            Err(message) => Err(Failure::new(FailureCode::ReloadFailed, message)),
        };
        Reloaded {
            outcome: outcome.map(|()| false),
            reload_us,
            ready_us: micros(since.elapsed()),
            ..self.reloaded()
        }
    }

    /// Tells an app that runs on of the new code.
    async fn tell(&self, reload: &Reload) -> Result<(), String> {
        match reload {
            Reload::Restart | Reload::None => Ok(()),
            Reload::Signal(signal) => {
                let sent = self.app.signal(*signal).await;
                sent.map_err(|error| format!("can't signal the app: {error}"))
            }
            Reload::Command(command) => match self.app.run_command(command, COMMAND).await {
                Ok(done) if done.exit == Exit::Code(0) => Ok(()),
                Ok(done) => Err(format!(
                    "the reload command ended with {}: {}",
                    done.exit,
                    last_words(&done.output)
                )),
                Err(RunError::TimedOut { timeout, output }) => Err(format!(
                    "the reload command did not end within {}: {}",
                    humantime::format_duration(timeout),
                    last_words(&output)
                )),
                Err(error) => Err(format!("the reload command failed: {error}")),
            },
        }
    }

    fn ready_by(&self) -> MutexGuard<'_, Option<AppOptions>> {
        // Whatever happened, what it holds is whole.
        self.ready_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn outcome(&self, ready: Result<Evidence, NotReady>) -> Result<(), Failure> {
        match ready {
            Ok(evidence) => {
                tracing::debug!(?evidence, "the app is ready");
                Ok(())
            }
            // That it isn't ready is our own doing. The next start of the agent finds this push
            // unverified and makes up for it.
            Err(_) if self.is_ending() => std::future::pending().await,
            Err(not_ready) => {
                let code = match not_ready {
                    NotReady::NotStarted { .. } | NotReady::Exited { .. } => FailureCode::AppExited,
                    NotReady::NotTheApp { .. }
                    | NotReady::Superseded
                    | NotReady::TimedOut { .. } => FailureCode::NotReady,
                };
                Err(Failure::new(code, not_ready.to_string()))
            }
        }
    }

    /// How the app is, for a result to begin with.
    fn reloaded(&self) -> Reloaded {
        let lines = self.app.log_tail(limits::LOG_TAIL_LINES);
        // The last lines that fit: an answer is one frame.
        let mut bytes = 0;
        let fitting = lines.iter().rev().take_while(|line| {
            bytes += line.text.len();
            bytes <= LOG_TAIL
        });
        let mut log_tail: Vec<_> = fitting
            .map(|line| Text::cut(String::from_utf8_lossy(&line.text)))
            .collect();
        log_tail.reverse();
        Reloaded {
            outcome: Ok(false),
            app: Some(self.app.state()),
            log_tail,
            reload_us: 0,
            ready_us: 0,
        }
    }

    /// How the app is run, by what was pushed with the tree that stands.
    fn options(&self) -> AppOptions {
        self.standing()
            .push
            .map(|(_, meta)| meta.app)
            .unwrap_or_default()
    }
}

/// The end of what a command wrote: where it says why it failed.
fn last_words(output: &[u8]) -> String {
    let start = output.len().saturating_sub(LAST_WORDS);
    String::from_utf8_lossy(&output[start..]).into_owned()
}

/// Keeps the app from seeing half a push, from a thread that may block: one that restarts is stopped
/// before the tree changes, another is paused while it does.
pub(crate) struct AppWindow {
    app: App,
    restarts: bool,
    /// Whether the app was stopped, and has to be started whatever comes.
    pub(crate) stopped: bool,
    pub(crate) warnings: Vec<String>,
}

impl AppWindow {
    pub(crate) fn pass(&mut self, at: Window) {
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
