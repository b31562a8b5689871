//! One attached peer: from its hello to the end of its last stream.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use patchwire_protocol::{
    codec::Encode,
    limits,
    message::relay::{
        EXPORTER_LABEL, EXPORTER_LEN, Hello, Incoming, Notice, Open, OpenReply, PeerName, Refusal,
        RelayReply, Role, close, reset,
    },
};
use patchwire_transport::{
    DeploymentId, FrameWriter, ReceiveError, RelayIdentity, endpoint, stream::receive_header,
};
use quinn::{Connection, RecvStream, SendStream};
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Duration, Instant, sleep_until, timeout},
};
use tracing::{debug, info};

use crate::{
    auth::authenticate,
    config::Limits,
    pipe::{End, Tap, pipe},
    router::{PeerId, RouteKey, Router},
    server::note_panic,
};

/// When peers are to come back to a relay that drained, and over how long they spread.
pub(crate) const RETRY_AFTER_MS: u32 = 250;
const RETRY_JITTER_MS: u32 = 750;

/// How long the last words to a peer may take to reach it.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// The most notices that wait for one peer. None has more to be told: that it was replaced, once.
const NOTICES: usize = 2;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) identity: RelayIdentity,
    pub(crate) limits: Limits,
    pub(crate) tap: Option<Arc<dyn Tap>>,
    pub(crate) router: Mutex<Router<Handle>>,
    pub(crate) handshakes: Arc<Semaphore>,
}

impl Shared {
    pub(crate) fn router(&self) -> MutexGuard<'_, Router<Handle>> {
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How one peer's task is reached by the others'.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    connection: Connection,
    name: PeerName,
    notices: mpsc::Sender<Notice>,
}

/// Whoever holds one keeps the relay from ending its drain early.
pub(crate) type Busy = mpsc::Sender<Infallible>;

/// What the task of one connection has.
pub(crate) struct PeerTask {
    pub(crate) shared: Arc<Shared>,
    pub(crate) draining: watch::Receiver<bool>,
    pub(crate) busy: Busy,
}

impl PeerTask {
    pub(crate) async fn run(self, incoming: quinn::Incoming, handshake: OwnedSemaphorePermit) {
        let from = incoming.remote_address();
        let hello = self.shared.limits.hello;
        let Ok(connected) = timeout(hello, async { incoming.await }).await else {
            debug!(%from, "no handshake in time");
            return;
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => {
                debug!(%from, %error, "no handshake");
                return;
            }
        };
        let Ok(opened) = timeout(hello, receive_hello(&connection)).await else {
            debug!(%from, "no hello in time");
            connection.close(close::MISBEHAVED.into(), b"no hello");
            return;
        };
        match opened {
            Ok((hello, control)) => {
                drop(handshake);
                Box::pin(self.serve(connection, hello, control)).await;
            }
            Err(error) => {
                debug!(%from, %error, "no valid hello");
                connection.close(close::MISBEHAVED.into(), b"no valid hello");
            }
        }
    }

    async fn serve(self, connection: Connection, hello: Hello, control: Control) {
        let from = connection.remote_address();
        let (role, name) = (hello.role, hello.name.clone());
        let (notices, told) = mpsc::channel(NOTICES);
        let handle = Handle {
            connection: connection.clone(),
            name: name.clone(),
            notices,
        };
        let mut exporter = [0; EXPORTER_LEN];
        let exported = connection.export_keying_material(&mut exporter, EXPORTER_LABEL, &[]);
        let admitted = exported
            .map_err(|_| Refusal::Malformed)
            .and_then(|()| authenticate(&hello, self.shared.identity.relay_key(), &exporter));
        let key = RouteKey {
            id: DeploymentId::new(&hello.app, &hello.deployment, hello.developer, hello.agent),
            app: hello.app,
            deployment: hello.deployment,
        };
        let what = format!("{}/{}", key.app, key.deployment);
        let attached = admitted.and_then(|version| {
            let attached = self.shared.router().attach(role, key, handle)?;
            Ok((version, attached))
        });
        let (version, attached) = match attached {
            Ok(attached) => attached,
            Err(refusal) => {
                info!(%from, %role, %name, deployment = %what, %refusal, "refused");
                refuse(&connection, control, refusal).await;
                return;
            }
        };
        info!(%from, %role, %name, deployment = %what, "attached");
        if let Some(older) = attached.replaced {
            info!(name = %older.name, deployment = %what, "replaced by a newer agent");
            // Full only if it has been told already.
            let _ = older
                .notices
                .try_send(Notice::Replaced { name: name.clone() });
        }
        let member = Member {
            shared: Arc::clone(&self.shared),
            id: attached.id,
            role,
            name: name.clone(),
        };
        endpoint::welcome(&connection);
        let welcome = RelayReply::Welcome { version };
        self.attend(&connection, control, &welcome, told, Arc::new(member))
            .await;
        info!(%from, %role, %name, deployment = %what, "detached");
    }

    /// Serves a welcome peer until its connection has ended.
    async fn attend(
        self,
        connection: &Connection,
        mut control: Control,
        welcome: &RelayReply,
        mut told: mpsc::Receiver<Notice>,
        member: Arc<Member>,
    ) {
        let Self {
            shared,
            mut draining,
            busy,
        } = self;
        // Dropped when the peer knows that the relay drains: idle connections hold up nothing.
        let mut busy = Some(busy);
        let mut replaced_until = None;
        let mut streams = JoinSet::new();
        if !control.tell(connection, welcome).await {
            return;
        }
        loop {
            select! {
                stream = connection.accept_bi() => {
                    let Ok((send, recv)) = stream else { break };
                    match member.role {
                        Role::Developer => {}
                        Role::Agent => {
                            connection.close(close::MISBEHAVED.into(), b"agents open no streams");
                            break;
                        }
                    }
                    let stream = End { send, recv };
                    streams.spawn(serve_stream(Arc::clone(&member), stream, busy.clone()));
                }
                Some(ended) = streams.join_next() => note_panic(ended),
                Some(notice) = told.recv() => {
                    if !control.tell(connection, &notice).await {
                        break;
                    }
                    match notice {
                        Notice::Replaced { .. } => {
                            replaced_until = Some(Instant::now() + shared.limits.replaced);
                        }
                        Notice::Drain { .. } => {}
                    }
                }
                () = until(replaced_until) => {
                    connection.close(close::REPLACED.into(), b"replaced by a newer agent");
                    break;
                }
                Ok(()) = draining.changed(), if busy.is_some() => {
                    let notice = Notice::Drain {
                        retry_after_ms: RETRY_AFTER_MS,
                        jitter_ms: RETRY_JITTER_MS,
                    };
                    if !control.tell(connection, &notice).await {
                        break;
                    }
                    control.last_words().await;
                    busy = None;
                }
            }
        }
        // The connection is lost, but what it sent may still be on its way to the agent.
        while let Some(ended) = streams.join_next().await {
            note_panic(ended);
        }
    }
}

/// A peer's place in the router, which it leaves however its task ends.
#[derive(Debug)]
struct Member {
    shared: Arc<Shared>,
    id: PeerId,
    role: Role,
    name: PeerName,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.router().detach(self.id);
    }
}

/// The stream on which a peer said who it is.
struct Control {
    writer: FrameWriter<SendStream>,
    /// Held open: dropping it would tell the peer to stop.
    _recv: RecvStream,
}

impl Control {
    /// Sends one message; a peer that does not take it in time is cut off.
    async fn tell(&mut self, connection: &Connection, message: &impl Encode) -> bool {
        match timeout(LAST_WORDS, self.writer.send(message)).await {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                connection.close(close::MISBEHAVED.into(), b"the control stream is full");
                false
            }
        }
    }

    /// Ends the stream and waits a bounded time until the peer has all of it.
    async fn last_words(&mut self) {
        if self.writer.finish().await.is_ok() {
            let _ = timeout(LAST_WORDS, self.writer.get_ref().stopped()).await;
        }
    }
}

async fn receive_hello(connection: &Connection) -> Result<(Hello, Control), ReceiveError> {
    let (send, mut recv) = connection.accept_bi().await.map_err(io::Error::from)?;
    let hello = receive_header(&mut recv, limits::FRAME_UNAUTHENTICATED).await;
    let control = Control {
        writer: FrameWriter::new(send, limits::FRAME_UNAUTHENTICATED),
        _recv: recv,
    };
    match hello {
        Ok(hello) => Ok((hello, control)),
        Err(error) => {
            if error.is_misbehaviour() {
                refuse(connection, control, Refusal::Malformed).await;
            }
            Err(error)
        }
    }
}

async fn refuse(connection: &Connection, mut control: Control, refusal: Refusal) {
    if control
        .tell(connection, &RelayReply::Refused(refusal))
        .await
    {
        control.last_words().await;
    }
    connection.close(close::REFUSED.into(), b"refused");
}

/// Connects a developer's stream to an agent, and pipes.
async fn serve_stream(member: Arc<Member>, developer: End, busy: Option<Busy>) {
    let shared = &member.shared;
    let End { mut send, mut recv } = developer;
    let header = receive_header(&mut recv, limits::FRAME_UNAUTHENTICATED);
    let Ok(Ok(Open::Newest)) = timeout(shared.limits.hello, header).await else {
        // Errors say that the stream is already over.
        let _ = send.reset(reset::MISBEHAVED.into());
        let _ = recv.stop(reset::MISBEHAVED.into());
        return;
    };
    let routed = shared.router().route(member.id);
    let opened = match routed {
        Ok(agent) => open(&member, agent).await,
        Err(refusal) => Err(refusal),
    };
    let mut writer = FrameWriter::new(send, limits::FRAME_UNAUTHENTICATED);
    match opened {
        Ok((agent, name)) => {
            // If the developer is gone, piping finds out.
            let _ = writer.send(&OpenReply::Opened { agent: name }).await;
            let developer = End {
                send: writer.into_inner(),
                recv,
            };
            let (to_agent, to_developer) = pipe(developer, agent, shared.tap.as_deref()).await;
            debug!(to_agent, to_developer, "stream ended");
        }
        Err(refusal) => {
            debug!(%refusal, "stream refused");
            if writer.send(&OpenReply::Refused(refusal)).await.is_ok() {
                let _ = writer.finish().await;
            }
        }
    }
    drop(busy);
}

/// Opens the agent's end of a stream.
async fn open(member: &Member, agent: Handle) -> Result<(End, PeerName), Refusal> {
    let opened = timeout(member.shared.limits.hello, agent.connection.open_bi()).await;
    let (send, recv) = opened
        .map_err(|_| Refusal::Limit)?
        .map_err(|_| Refusal::NoAgent)?;
    let mut writer = FrameWriter::new(send, limits::FRAME_UNAUTHENTICATED);
    writer
        .send(&Incoming {
            developer: member.name.clone(),
        })
        .await
        .map_err(|_| Refusal::NoAgent)?;
    let send = writer.into_inner();
    Ok((End { send, recv }, agent.name))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
