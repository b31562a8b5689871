//! The way to an agent: through the relay, again when it was lost, for as long as one waits.

use std::{
    mem,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use patchwire_protocol::message::{
    inner::{AgentMessage, DeveloperMessage},
    status::{LogLine, LogsRequest, Status},
};
use patchwire_transport::{Backoff, DeploymentLink, OpenError, RelayConnection, random_u64};
use tokio::time::timeout;

use self::{relay::Relay, spare::Spare};
use crate::{error::ClientError, memory::Memory, session::Session};

mod relay;
mod spare;

/// An attempt that is made at all has this long, whatever there is to wait for.
const SHORTEST: Duration = Duration::from_secs(1);

/// Nobody waits for longer than a day.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What a relay that was reached in the last moment has left to get us to the agent.
const OPENING: Duration = Duration::from_secs(1);

/// How long a connection that was made earlier has to get us to the agent. It may be dead without
/// our knowing: the relay was killed, or this machine slept. A new one tells.
const KEPT: Duration = Duration::from_secs(3);

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// How long to wait for relay and agent, also when the connection is lost later. Default 10 s.
    pub wait: Duration,
    /// What the agent's side is told about who this is. Default `developer`.
    pub name: String,
    /// Whether to keep a stream at hand after each request, so that the next push costs a single
    /// round trip. For programs that go on; one that ends after a request needs none. Default: yes.
    pub spare: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(10),
            name: "developer".to_owned(),
            spare: true,
        }
    }
}

/// A developer's connection to the agent of one deployment. It comes back by itself when it is
/// lost between requests.
#[derive(Debug)]
pub struct Client {
    link: DeploymentLink,
    options: ConnectOptions,
    relay: Relay,
    spare: Spare,
    /// What is remembered of the root that was pushed last.
    memory: Mutex<Option<Arc<Memory>>>,
}

impl Client {
    /// Makes a client. The connection is made when it is first needed.
    #[must_use]
    pub fn new(link: DeploymentLink, options: ConnectOptions) -> Self {
        Self {
            link,
            options,
            relay: Relay::default(),
            spare: Spare::default(),
            memory: Mutex::default(),
        }
    }

    /// The link it was made with.
    #[must_use]
    pub const fn link(&self) -> &DeploymentLink {
        &self.link
    }

    /// Asks how the agent and its app are.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the agent can't be asked.
    pub async fn status(&self) -> Result<Status, ClientError> {
        let mut session = self.session().await?;
        session.send(&DeveloperMessage::Status).await?;
        match session.receive().await? {
            AgentMessage::Status(status) => Ok(*status),
            AgentMessage::Misunderstood(what) => Err(ClientError::Misunderstood {
                what: what.as_str().to_owned(),
            }),
            _ => Err(ClientError::Misbehaved {
                what: "no status came".to_owned(),
            }),
        }
    }

    /// Asks how the agent and its app are, now and whenever that changes.
    ///
    /// Relay and agent are waited for as with any other request. The stream itself is opened once:
    /// when it has ended, ask again.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the agent can't be asked.
    pub async fn follow(&self) -> Result<StatusStream, ClientError> {
        let mut session = self.session().await?;
        session.send(&DeveloperMessage::Follow).await?;
        self.keep_spare(&session.relay);
        Ok(StatusStream { session })
    }

    /// Asks for lines of the app's output.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the agent can't be asked.
    pub async fn logs(&self, request: LogsRequest) -> Result<LogStream, ClientError> {
        let mut session = self.session().await?;
        session.send(&DeveloperMessage::Logs(request)).await?;
        Ok(LogStream { session })
    }

    /// Does work that a session is to follow, and connects to the relay meanwhile, if it can. Whoever
    /// asks for the session is told why, if it can't. An attempt that is still under way ends with the
    /// second value, unless a session waits for it by then.
    pub(crate) async fn while_connecting<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> (T, BoxFuture<'_, ()>) {
        let wait = self.options.wait.clamp(SHORTEST, LONGEST);
        let connection = self.relay.connection(&self.link, &self.options.name, wait);
        let mut connecting = connection.map(drop).boxed();
        let mut work = pin!(work);
        let done = tokio::select! {
            done = &mut work => done,
            () = &mut connecting => work.await,
        };
        (done, connecting)
    }

    /// Begins a conversation on the stream that is kept at hand, or on a new one. What is said on
    /// the former may be said to nobody: see [`Session::patience`].
    pub(crate) async fn session_at_hand(&self) -> Result<Session, ClientError> {
        match self.spare.take() {
            Some(mut session) => {
                session.patience = Some(KEPT);
                Ok(session)
            }
            None => self.session().await,
        }
    }

    /// Begins a conversation with the agent, and waits for relay and agent if need be.
    async fn session(&self) -> Result<Session, ClientError> {
        let deadline = Instant::now() + self.options.wait.min(LONGEST);
        let mut backoff = Backoff::new();
        let mut kept = self.relay.is_made();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Whole milliseconds are enough to tell.
            let left = Duration::from_millis(millis(left) + 1).max(SHORTEST);
            let begun = Instant::now();
            let connected = self.relay.connection(&self.link, &self.options.name, left);
            let first_by_kept = mem::take(&mut kept);
            let error = match connected.await {
                Err(error) => ClientError::Connect(error),
                Ok(relay) => {
                    let patience = match first_by_kept {
                        true => left.min(KEPT),
                        false => left.saturating_sub(begun.elapsed()) + OPENING,
                    };
                    let opened = timeout(patience, self.open(&relay)).await;
                    // What is wrong may be its connection, unless the relay has spoken on it.
                    let is_in_doubt = match &opened {
                        Ok(Ok(_) | Err(ClientError::NoAgent { .. })) => false,
                        Ok(Err(error)) => error.is_passing(),
                        Err(_) => true,
                    };
                    if is_in_doubt {
                        self.disconnect(&Arc::downgrade(&relay));
                    }
                    match opened {
                        Ok(Ok(session)) => return Ok(session),
                        Ok(Err(error)) => error,
                        Err(_) if first_by_kept => {
                            tracing::debug!("the connection says nothing any more");
                            continue;
                        }
                        Err(_) => ClientError::Unanswered {
                            app: self.link.app().clone(),
                            deployment: self.link.deployment().clone(),
                            wait: left,
                        },
                    }
                }
            };
            let delay = backoff.next_delay(random_u64().unwrap_or(0));
            if !error.is_passing() || Instant::now() + delay >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, ?delay, "trying again");
            tokio::time::sleep(delay).await;
        }
    }

    /// The memory in this directory. That of the last push is at hand, with the tree it knows.
    pub(crate) fn memory(&self, directory: PathBuf) -> Arc<Memory> {
        let mut last = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |memory: &&Arc<Memory>| memory.directory() == directory;
        if let Some(memory) = last.as_ref().filter(same) {
            return Arc::clone(memory);
        }
        Arc::clone(last.insert(Arc::new(Memory::new(directory))))
    }

    /// Closes the connection, so that relay and agent know at once that nobody is here any more. A
    /// push that has been sent as a whole goes on without us.
    pub async fn close(&self) {
        self.spare.clear();
        if let Some(relay) = self.relay.take().and_then(Arc::into_inner) {
            relay.close().await;
        }
    }

    /// Lets go of this connection, so that the next request makes a new one, unless another request
    /// has by now.
    pub(crate) fn disconnect(&self, relay: &Weak<RelayConnection>) {
        self.spare.clear();
        self.relay.forget(relay);
    }

    /// Sees to it that the next request finds a stream at hand.
    pub(crate) fn keep_spare(&self, relay: &Weak<RelayConnection>) {
        if self.options.spare {
            self.spare.fill(relay);
        }
    }

    async fn open(&self, relay: &Arc<RelayConnection>) -> Result<Session, ClientError> {
        let stream = relay.open().await.map_err(|error| match error {
            OpenError::NoAgent => ClientError::NoAgent {
                app: self.link.app().clone(),
                deployment: self.link.deployment().clone(),
            },
            error => ClientError::Open(error),
        })?;
        Ok(Session::new(stream, Arc::downgrade(relay)))
    }
}

/// Lines of the app's output as they come.
#[derive(Debug)]
pub struct LogStream {
    session: Session,
}

impl LogStream {
    /// The next lines; `None` once there are no more.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the connection is lost.
    pub async fn next(&mut self) -> Result<Option<Vec<LogLine>>, ClientError> {
        match self.session.next().await? {
            None => Ok(None),
            Some(AgentMessage::LogLines(lines)) => Ok(Some(lines)),
            Some(AgentMessage::Misunderstood(what)) => Err(ClientError::Misunderstood {
                what: what.as_str().to_owned(),
            }),
            Some(_) => Err(ClientError::Misbehaved {
                what: "no lines came".to_owned(),
            }),
        }
    }
}

/// How the agent and its app are, whenever that has changed.
#[derive(Debug)]
pub struct StatusStream {
    session: Session,
}

impl StatusStream {
    /// The next status, the first of them at once; `None` once the agent says no more, because it
    /// ends or too many follow already. Of several that have come meanwhile it is the newest.
    ///
    /// It waits for as long as nothing changes. A relay or an agent that is gone without a word is
    /// noticed by its silence, within half a minute. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the connection is lost.
    pub async fn next(&mut self) -> Result<Option<Status>, ClientError> {
        let Some(mut newest) = self.receive().await? else {
            return Ok(None);
        };
        loop {
            tokio::select! {
                biased;
                status = self.receive() => match status? {
                    Some(newer) => newest = newer,
                    None => return Ok(Some(newest)),
                },
                () = std::future::ready(()) => return Ok(Some(newest)),
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<Status>, ClientError> {
        match self.session.next().await? {
            None => Ok(None),
            Some(AgentMessage::Status(status)) => Ok(Some(*status)),
            Some(AgentMessage::Misunderstood(what)) => Err(ClientError::Misunderstood {
                what: what.as_str().to_owned(),
            }),
            Some(_) => Err(ClientError::Misbehaved {
                what: "no status came".to_owned(),
            }),
        }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
