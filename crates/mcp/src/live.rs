//! A watch that reads its configuration again when the file changes.

use std::{
    convert::Infallible,
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use patchwire_client::{
    Client, ClientError, PushRequest, WatchEvent, WatchOptions,
    config::{self, Project},
};
use patchwire_delta::Digest;
use tokio::{sync::Notify, time::sleep};

use crate::{context::Context, failure::Failure, output};

/// How often to look whether a file that can't be used has changed.
const LOOK: Duration = Duration::from_millis(500);

/// What is to be watched by the configuration, or why that can't be.
pub(crate) type Configured = Result<(PushRequest, WatchOptions), Failure>;

/// What a watch is told, and whom it tells.
pub(crate) struct Live<'a> {
    pub(crate) context: &'a Context,
    pub(crate) client: &'a Client,
    /// What is watched, as it was found first.
    pub(crate) project: &'a Project,
    /// Makes a request of what is configured by now.
    pub(crate) request: &'a (dyn Fn(&Project) -> Configured + Sync),
    pub(crate) observe: &'a (dyn Fn(WatchEvent) + Send + Sync),
    /// Says something beside the events.
    pub(crate) say: &'a (dyn Fn(String) + Sync),
}

impl Live<'_> {
    /// Watches until an error that gets better neither by waiting nor by saving.
    ///
    /// A changed file counts from the next push on. One that can't be used is told, and nothing is
    /// pushed until it has changed again.
    pub(crate) async fn watch(&self) -> Result<Infallible, ClientError> {
        let file = match &self.project.file {
            Some(file) => file.clone(),
            // It may be made.
            None => self.project.root.join(config::FILE_NAME),
        };
        let mut again = false;
        loop {
            let version = Version::of(&file);
            let (request, options) = match self.read() {
                Ok(read) => read,
                Err(failure) => {
                    (self.say)(output::watch::unusable(&failure));
                    while Version::of(&file) == version {
                        sleep(LOOK).await;
                    }
                    again = true;
                    continue;
                }
            };
            if again {
                (self.say)(output::watch::read_again(&file));
            }
            let changed = Notify::new();
            let observe = |event| {
                // Before the scan that the push begins with.
                if matches!(event, WatchEvent::Pushing { .. }) && Version::of(&file) != version {
                    changed.notify_one();
                }
                (self.observe)(event);
            };
            tokio::select! {
                biased;
                () = changed.notified() => again = true,
                ended = Box::pin(self.client.watch(&request, &options, &observe)) => return ended,
            }
        }
    }

    fn read(&self) -> Configured {
        let project = self.context.project()?;
        if project.root != self.project.root {
            return Err(Failure::usage(anyhow::anyhow!(
                "the root is {} now: start this command again for it",
                project.root.display()
            )));
        }
        (self.request)(&project)
    }
}

/// What a file holds, as far as a configuration may: its digest.
#[derive(Debug, PartialEq, Eq)]
struct Version(Option<Digest>);

impl Version {
    fn of(file: &Path) -> Self {
        let read = || {
            let mut bytes = Vec::new();
            File::open(file)?
                .take(config::MAX_LEN + 1)
                .read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(Digest::of(&bytes))
        };
        // What isn't a file is none to the configuration either.
        Self(file.is_file().then(read).and_then(Result::ok))
    }
}
