//! Pushes by themselves: now, and whenever something was saved.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use patchwire_protocol::{app::AppState, path::RelativePath};
use tokio::sync::watch;

use crate::{
    connect::Client,
    error::{ClientError, ErrorKind},
    report::PushReport,
    request::{Progress, PushRequest},
};

mod hearing;
mod look;
mod presence;
mod schedule;
mod shell;

pub(crate) use look::Look;
use presence::Known;
use shell::Shell;

/// When saved files are pushed. Each time is a day at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// A push begins once nothing was saved for this long. Default 30 ms.
    pub quiet: Duration,
    /// A save waits at most this long while others go on, or because a scan just before it found
    /// nothing to push (what is written without end is not to cost a processor). Default 2 s.
    pub max: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(30),
            max: Duration::from_secs(2),
        }
    }
}

/// Why a push begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushCause {
    /// The watch begins.
    Start,
    /// Something was saved.
    Saved,
    /// Another agent came, or the one that was there has lost its tree.
    AgentChanged,
}

/// What a watch comes to, as it happens.
///
/// A push is [`WatchEvent::Pushing`], any number of [`WatchEvent::Progress`], and one of
/// [`WatchEvent::Pushed`], [`WatchEvent::Unchanged`], [`WatchEvent::Rejected`] and
/// [`WatchEvent::Failed`]. A failure that says `again` is not the end: the push goes on being tried,
/// in silence, until it comes to one of the others. Such a failure also comes between two pushes,
/// where an agent that was there is replaced by one that refuses us.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// From here on saves are heard of.
    Watching {
        /// The directory.
        root: PathBuf,
        /// How many directories in it are watched, itself included.
        directories: u64,
    },
    /// Saves can't be heard of: the directory is scanned every so often instead.
    Polling {
        /// Why, and what to do about it.
        cause: String,
        /// How long it is between two scans.
        interval: Duration,
    },
    /// A push begins, with a scan.
    Pushing {
        /// Why.
        cause: PushCause,
    },
    /// The directory was scanned, and nothing of it is sent yet: also where there turns out to be
    /// nothing to push.
    Scanned {
        /// What the rules leave out, as [`patchwire_tree::Scan::ignored`] lists it.
        ignored: Vec<RelativePath>,
    },
    /// How far it is.
    Progress(Progress),
    /// It ended with a report, which may be that of a failure.
    Pushed {
        /// How it ended.
        report: Box<PushReport>,
        /// From the first save that it carries to its begin; `None` if nothing was saved.
        since_save: Option<Duration>,
    },
    /// There was nothing to push: what was saved is what was there before, or is not pushed.
    Unchanged,
    /// What was saved is the version that was rolled back or refused before; it isn't sent again
    /// until it changes, or there is another agent. Told once for a version.
    Rejected,
    /// A push could not be made.
    Failed {
        /// Why.
        error: Arc<ClientError>,
        /// Whether it is tried again by itself (the agent can't be reached, say). Otherwise it waits for
        /// the next save.
        again: bool,
    },
    /// The way to the agent was lost. What is saved from here on is pushed once it is back.
    AgentLost,
    /// The way to the agent is there again.
    AgentBack,
    /// The app is in another state than before: started, ended by itself, started again.
    App(AppState),
    /// The root isn't there any more. Nothing is pushed, and so nothing is deleted.
    RootGone {
        /// Where it was.
        root: PathBuf,
    },
    /// The root is there again.
    RootBack {
        /// Where.
        root: PathBuf,
    },
}

impl Client {
    /// Pushes `request.root` now and whenever something in it was saved, until the future is
    /// dropped. Goes on through failures, lost connections and a root that is gone for a while.
    ///
    /// `observer` is called between other work of the watch, and must not block.
    ///
    /// # Errors
    ///
    /// [`ClientError`] only for what gets better neither by waiting nor by saving: wrong
    /// credentials, another version, a link that can't be used, a root that isn't there at the very
    /// start. Once there was an agent, none of that ends the watch: it is told as
    /// [`WatchEvent::Failed`], and may be put right.
    pub async fn watch(
        &self,
        request: &PushRequest,
        options: &WatchOptions,
        observer: &(dyn Fn(WatchEvent) + Send + Sync),
    ) -> Result<Infallible, ClientError> {
        let attached = AtomicBool::new(false);
        let (told, mut known) = watch::channel(Known::default());
        let mut shell = Shell::new(self, request, options, &attached, observer)?;
        tokio::select! {
            error = presence::follow(self, &attached, &told) => Err(error),
            error = Box::pin(shell.run(&mut known)) => Err(error),
        }
    }
}

impl ClientError {
    /// Tells whether neither waiting nor saving makes it better.
    fn is_final(&self) -> bool {
        matches!(self.kind(), ErrorKind::Credentials | ErrorKind::Usage) || self.code() == "version"
    }
}
