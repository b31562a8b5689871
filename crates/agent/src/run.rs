//! The agent from start to end: the app runs, and developers' streams are served for as long as
//! there is a way to the relay.

use std::{
    fs::DirBuilder, io, os::unix::fs::DirBuilderExt, path::PathBuf, pin::pin, sync::Arc,
    time::Duration,
};

use patchwire_transport::{
    Backoff, ConnectError, DeploymentLink, Disconnected, Notice, RelayConnection, Role,
};
use patchwire_tree::{Recovery, Store, StoreError};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, AppConfig, GRACE},
    config::Config,
    deployment::{Deployment, random},
    failure::chain,
    guard::{Guard, LockError, wait_for_previous},
    serve::{self, Lasting},
};

/// How long to wait for the app of an agent that was killed to be gone.
const PREVIOUS_APP: Duration = Duration::from_secs(30);

/// How long to try for a connection to the relay before trying anew.
const CONNECT: Duration = Duration::from_secs(10);

/// How many streams of developers are served at once.
const STREAMS: usize = 64;

/// How many of them may be there for as long as a developer likes, so that pushes find room.
const LASTING: usize = 32;

/// How many more of them may be kept at hand for what their developers ask next.
const SPARE: usize = 16;

/// How long a push that is being applied may take to end when the agent is told to.
const LAST_PUSH: Duration = Duration::from_secs(3);

/// How long the connection to the relay may take to be closed.
const CLOSE: Duration = Duration::from_secs(2);

/// Why an agent can't run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The tree and its state can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state directory can't be made.
    #[error(
        "can't make the state directory “{}”: choose another with --state, on the root's file system",
        path.display()
    )]
    State {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The app of an agent before doesn't end.
    #[error(transparent)]
    PreviousApp(#[from] LockError),
    /// The guard can't be started.
    #[error("can't start the guard of the app")]
    Guard(#[source] io::Error),
}

/// Runs an agent until `shutdown` resolves; then the app is ended. A push that is being applied has
/// three seconds to end before; one that takes longer is made up for by the next start.
///
/// # Errors
///
/// [`RunError`] if it can't begin. A relay that can't be reached is none: it is tried for ever, and
/// the app runs meanwhile.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let Config {
        link,
        root,
        state,
        name,
        command,
        environment,
        app: flags,
        guard,
    } = config;
    // The app of an agent that was killed first: nothing is to change beneath it.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&state)
        .map_err(|source| RunError::State {
            path: state.clone(),
            source,
        })?;
    let mut shutdown = pin!(shutdown);
    let lock = tokio::select! {
        lock = wait_for_previous(&state, PREVIOUS_APP) => lock?,
        () = &mut shutdown => return Ok(()),
    };
    let (store, recovery) = {
        let (root, state) = (root.clone(), state.clone());
        let opened = tokio::task::spawn_blocking(move || Store::open(&root, &state, random()));
        opened
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?
    };
    match &recovery {
        Recovery::Clean => {}
        Recovery::Finished => tracing::info!("finished a commit that was interrupted"),
        Recovery::TakenBack { lost } => {
            tracing::info!(?lost, "took back a commit that was interrupted");
        }
    }
    let arguments = guard.arguments;
    let guard = Guard::start(&guard.program, &arguments, lock).map_err(RunError::Guard)?;
    let app = App::spawn(AppConfig {
        command,
        root,
        env: environment.0,
        grace: GRACE,
        guard: Some(guard),
        pass_output: true,
    });
    let deployment = Arc::new(Deployment::new(name.clone(), flags, app, store)?);
    let ending = CancellationToken::new();
    let attending = tokio::spawn({
        let (deployment, ending) = (Arc::clone(&deployment), ending.clone());
        async move { attend(&deployment, &link, &name, &ending).await }
    });
    // Streams are served meanwhile: a push waits for its turn, which the start takes first.
    tokio::select! {
        () = async {
            deployment.boot().await;
            std::future::pending::<()>().await;
        } => {}
        () = &mut shutdown => tracing::info!("ending"),
    }
    // What is being applied is of one piece, and most often ends soon. No other push begins then.
    let _turn = timeout(LAST_PUSH, deployment.turn()).await;
    ending.cancel();
    let ended = deployment.end().await;
    // Its connection is closed by then, or the relay waits for another one to come.
    drop(timeout(CLOSE, attending).await);
    if let Err(error) = ended {
        tracing::warn!(%error, "the app did not end");
    }
    Ok(())
}

/// Keeps a connection to the relay, for ever.
async fn attend(
    deployment: &Arc<Deployment>,
    link: &DeploymentLink,
    name: &str,
    ending: &CancellationToken,
) {
    let mut backoff = Backoff::new();
    let mut said = String::new();
    let streams = Arc::new(Semaphore::new(STREAMS));
    let lasting = Arc::new(Lasting::new(LASTING, SPARE));
    loop {
        let connecting = RelayConnection::connect(link, Role::Agent, name, CONNECT);
        match ending.run_until_cancelled(connecting).await {
            None => return,
            Some(Ok(connection)) => {
                backoff.reset();
                said.clear();
                tracing::info!(relay = %connection.remote_address(), "attached to the relay");
                let attached = attached(deployment, &connection, &streams, &lasting);
                let ended = ending.run_until_cancelled(attached).await;
                let Some(ended) = ended else {
                    return connection.close().await;
                };
                match ended {
                    Ended::Replaced => return replaced(),
                    Ended::Lost(reason) => tracing::warn!(%reason, "lost the relay"),
                    Ended::Draining(delay) => {
                        tracing::info!(?delay, "the relay ends, and is to be back soon");
                        if ending.run_until_cancelled(sleep(delay)).await.is_none() {
                            return;
                        }
                    }
                }
            }
            Some(Err(error)) => tell(&error, &mut said),
        }
        let delay = sleep(backoff.next_delay(random()));
        if ending.run_until_cancelled(delay).await.is_none() {
            return;
        }
    }
}

enum Ended {
    Lost(Disconnected),
    Draining(Duration),
    Replaced,
}

/// Serves streams until the connection ends.
async fn attached(
    deployment: &Arc<Deployment>,
    connection: &RelayConnection,
    streams: &Arc<Semaphore>,
    lasting: &Arc<Lasting>,
) -> Ended {
    let mut draining = None;
    let replaced = CancellationToken::new();
    let reason = loop {
        tokio::select! {
            incoming = connection.accept() => match incoming {
                Ok(incoming) => match Arc::clone(streams).try_acquire_owned() {
                    Ok(permit) => {
                        let (deployment, lasting) = (Arc::clone(deployment), Arc::clone(lasting));
                        let replaced = replaced.clone();
                        // On its own: a push that is here as a whole needs neither this connection
                        // nor, when the agent is told to end, this loop.
                        tokio::spawn(async move {
                            Box::pin(serve::serve(deployment, incoming, &lasting, &replaced)).await;
                            drop(permit);
                        });
                    }
                    // The relay bounds them too, so this is a relay that doesn't.
                    Err(_) => tracing::warn!("too many streams at once: one was refused"),
                },
                Err(reason) => break reason,
            },
            Ok(Some(notice)) = connection.notice() => match notice {
                Notice::Drain { .. } => draining = notice.retry_delay(random()),
                Notice::Replaced { name } => {
                    tracing::warn!(by = name.as_str(), "a newer agent takes over");
                    replaced.cancel();
                }
            },
        }
    };
    match (reason, draining) {
        (Disconnected::Replaced, _) => Ended::Replaced,
        (_, Some(delay)) => Ended::Draining(delay),
        (reason, None) => Ended::Lost(reason),
    }
}

/// Two agents that both came back would take each other's place for ever.
fn replaced() {
    tracing::error!(
        "another agent with this link has taken over: the app here goes on, without pushes; start \
         this agent again to take over from the other"
    );
}

/// Says why there is no way to the relay, once for each reason.
fn tell(error: &ConnectError, said: &mut String) {
    let text = chain(error);
    if text != *said {
        tracing::error!("{text}; trying on");
        *said = text;
    }
}
