//! What a watch comes to, in words, and what else it leads to.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use patchwire_client::{PushReport, WatchEvent, report::ReportStatus};
use patchwire_protocol::{app::AppState, path::RelativePath};

use super::{
    dependencies::{Changes, Links},
    screen::Screen,
};
use crate::{failure::Failure, output};

/// Looks on as the root is watched.
#[derive(Debug)]
pub(super) struct Observer<'a> {
    pub(super) screen: &'a Screen,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    links: Links,
    /// When `dev` began; until the app was ready once.
    began: Option<Instant>,
    /// What drifted, as it was said last.
    drift: Vec<RelativePath>,
}

impl<'a> Observer<'a> {
    pub(super) fn new(screen: &'a Screen, links: Links) -> Self {
        let seen = Seen {
            links,
            began: Some(Instant::now()),
            drift: Vec::new(),
        };
        Self {
            screen,
            seen: Mutex::new(seen),
        }
    }

    pub(super) fn observe(&self, event: WatchEvent) {
        let screen = self.screen;
        match event {
            WatchEvent::Scanned { ignored } => {
                let changes = self.seen().links.update(&ignored);
                self.tell_links(changes);
            }
            WatchEvent::Progress(step) => screen.progress(step),
            WatchEvent::Pushed {
                mut report,
                since_save,
            } => {
                let changes = self.seen().links.make_missing();
                self.tell_links(changes);
                // The whole way from the save, as it is felt.
                report.timings_ms.total += since_save.unwrap_or_default();
                self.tell_push(*report);
            }
            WatchEvent::Rejected => screen.mention(
                "not pushed: this version did not run before; change something, and it is tried",
            ),
            WatchEvent::Failed { error, again } => {
                let failure = Failure::failed("push", anyhow::Error::new(error));
                let then = match again {
                    true => "; trying on",
                    false => "; save something, and it is tried again",
                };
                screen.say(&format!(
                    "{}{then}",
                    output::dev::push_failed(&failure.message())
                ));
            }
            WatchEvent::Polling { cause, .. } => screen.say(&cause),
            WatchEvent::AgentLost => screen.say("the agent is lost; waiting for it"),
            WatchEvent::AgentBack => screen.say("the agent is back"),
            WatchEvent::RootGone { root } => screen.say(&format!(
                "{} is gone: the app runs on, and nothing is pushed until it is back",
                root.display()
            )),
            WatchEvent::RootBack { root } => screen.say(&format!("{} is back", root.display())),
            WatchEvent::Watching { .. } | WatchEvent::Pushing { .. } | WatchEvent::Unchanged => {}
        }
    }

    fn tell_push(&self, mut report: PushReport) {
        let (began, is_news) = {
            let mut seen = self.seen();
            let ready = matches!(report.status, ReportStatus::Done | ReportStatus::NoChanges);
            let is_news = seen.drift != report.drift;
            seen.drift.clone_from(&report.drift);
            (seen.began.take_if(|_| ready), is_news)
        };
        if !is_news {
            report.drift.clear();
        }
        let said = output::dev::pushed(report, began.map(|began| began.elapsed()));
        self.screen.say(&said);
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
pub(super) struct Restarts {
    pid: Option<u32>,
}

impl Restarts {
    /// What is to be said of the app's new state.
    pub(super) fn hear(&mut self, app: AppState) -> Option<String> {
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
