//! What a watch comes to, in words, and what else it leads to.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use patchwire_client::{Progress, PushReport, WatchEvent, report::ReportStatus};
use patchwire_protocol::{app::AppState, message::push::Phase, path::RelativePath};
use tokio::task::block_in_place;

use super::{
    dependencies::{Changes, Links},
    screen::Screen,
};
use crate::output::{self, watch::Said};

/// How long an app may take to be ready before it is said what is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks on as the root is watched.
#[derive(Debug)]
pub(super) struct Observer<'a> {
    pub(super) screen: &'a Screen,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    links: Links,
    /// When `dev` began; until the app runs for the first time.
    began: Option<Instant>,
    /// What drifted, as it was said last.
    drift: Vec<RelativePath>,
    restarts: Restarts,
    /// Since when a push waits for the app to be ready; until that was said.
    waiting: Option<Instant>,
}

impl<'a> Observer<'a> {
    pub(super) fn new(screen: &'a Screen, links: Links) -> Self {
        let seen = Seen {
            links,
            began: Some(Instant::now()),
            drift: Vec::new(),
            restarts: Restarts::default(),
            waiting: None,
        };
        Self {
            screen,
            seen: Mutex::new(seen),
        }
    }

    pub(super) fn observe(&self, event: WatchEvent) {
        match event {
            WatchEvent::Pushing { .. } => self.seen().waiting = Some(Instant::now()),
            WatchEvent::Progress(step) => {
                self.tell_waiting(step);
                self.screen.progress(step);
            }
            WatchEvent::Scanned { ignored } => {
                // Before anything is sent: the app that the push starts needs them. They are the disk's
                // work, which holds up no other task.
                let changes = block_in_place(|| self.seen().links.update(&ignored));
                self.tell_links(changes);
            }
            WatchEvent::Pushed { report, since_save } => {
                let changes = block_in_place(|| self.seen().links.make_missing());
                self.tell_links(changes);
                self.screen.end_progress();
                self.tell_push(report, since_save);
            }
            WatchEvent::App(app) => {
                let said = self.seen().restarts.hear(app);
                if let Some(said) = said {
                    self.screen.say(&said);
                }
            }
            WatchEvent::Watching { .. } => {}
            event => self.tell(&event),
        }
    }

    fn tell(&self, event: &WatchEvent) {
        match output::watch::human(event) {
            Said::Nothing => {}
            Said::Notice(text) => self.screen.mention(&text),
            Said::Result(text) | Said::Complaint(text) => self.screen.say(&text),
        }
    }

    fn tell_push(&self, mut report: Box<PushReport>, since_save: Option<Duration>) {
        // The whole way from the save, as it is felt.
        report.timings_ms.total += since_save.unwrap_or_default();
        for agent in &mut report.agents {
            // They stand on the screen.
            agent.log_tail.clear();
        }
        let status = report.status;
        let began = {
            let mut seen = self.seen();
            if seen.drift == report.drift {
                report.drift.clear();
            } else {
                seen.drift.clone_from(&report.drift);
            }
            let runs = matches!(status, ReportStatus::Done | ReportStatus::NoChanges);
            seen.began.take_if(|_| runs)
        };
        match (began, status) {
            // The app of the time before, which nobody has seen to be ready this time.
            (Some(_), ReportStatus::NoChanges) => {
                self.screen.mention(&output::dev::unchanged(&report));
            }
            (Some(began), _) => {
                self.tell(&WatchEvent::Pushed { report, since_save });
                self.screen.mention(&output::dev::up(began.elapsed()));
            }
            (None, _) => self.tell(&WatchEvent::Pushed { report, since_save }),
        }
    }

    /// Says what is waited for, as what is saved meanwhile waits, too.
    fn tell_waiting(&self, step: Progress) {
        if step != Progress::Agent(Phase::Reloading) {
            return;
        }
        let waited = |since: &mut Instant| since.elapsed() >= PATIENCE;
        if self.seen().waiting.take_if(waited).is_some() {
            self.screen.mention(
                "the app is not ready yet: what you save is pushed once it is, or was taken back",
            );
        }
    }

    fn tell_links(&self, changes: io::Result<Changes>) {
        match changes {
            Ok(Changes { made, blocked }) => {
                if !made.is_empty() {
                    self.screen.mention(&format!(
                        "linked into the copy, not pushed: {}",
                        list(&made)
                    ));
                }
                if !blocked.is_empty() {
                    self.screen.say(&format!(
                        "not linked, as the copy has its own: {} (--fresh begins with a new copy)",
                        list(&blocked)
                    ));
                }
            }
            Err(error) => self.screen.say(&format!(
                "what the app depends on can't be linked into the copy: {error}"
            )),
        }
    }

    /// A thread that panicked has left what is still whole.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn list(paths: &[RelativePath]) -> String {
    let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
    paths.join(", ")
}

/// Hears how the app is, and knows when it was started again.
#[derive(Debug, Default)]
struct Restarts {
    pid: Option<u32>,
}

impl Restarts {
    /// What is to be said of the app's new state.
    fn hear(&mut self, app: AppState) -> Option<String> {
        let pid = app.pid.filter(|_| app.running)?;
        let before = self.pid.replace(pid);
        // A push starts it with none.
        if app.restarts == 0 || before == Some(pid) {
            return None;
        }
        let exit = app.exit.map(|exit| format!(": {exit}")).unwrap_or_default();
        Some(format!(
            "the app ended by itself{exit}; it was started again (pid {pid})"
        ))
    }
}

#[cfg(test)]
mod tests {
    use patchwire_protocol::app::Exit;

    use super::*;

    #[test]
    fn an_app_that_is_started_again_is_told_once_each_time() {
        let mut restarts = Restarts::default();
        let mut hear = |pid, restarted, exit| {
            restarts.hear(AppState {
                running: pid > 0,
                pid: (pid > 0).then_some(pid),
                exit,
                restarts: restarted,
            })
        };
        let exit = Some(Exit::Code(3));
        assert_eq!(hear(7, 0, None), None);
        assert_eq!(hear(0, 0, exit), None);
        let said = "the app ended by itself: exit status 3; it was started again (pid 8)";
        assert_eq!(hear(8, 1, exit).as_deref(), Some(said));
        assert_eq!(hear(8, 1, exit), None);
        assert!(hear(9, 2, exit).is_some());
        // By a push.
        assert_eq!(hear(10, 0, None), None);
    }
}
