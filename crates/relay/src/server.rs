//! The relay at work: one task per connection, one per stream.

use std::{
    convert::Infallible,
    fs, io,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::pin,
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
    Address, DeploymentId, FrameWriter, IdentityError, ReceiveError, RelayIdentity, RelayLink,
    endpoint, secret_file, stream::receive_header,
};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Duration, Instant, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    auth::authenticate,
    config::{Limits, RelayConfig},
    pipe::{End, Tap, pipe},
    router::{PeerId, RouteKey, Router},
};

/// When peers are to come back to a relay that drained, and over how long they spread.
const RETRY_AFTER_MS: u32 = 250;
const RETRY_JITTER_MS: u32 = 750;

/// How long the last words to a peer may take to reach it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The most notices that wait for one peer. None has more to be told: that it was replaced, once.
const NOTICES: usize = 2;

/// Why a relay does not run.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// See [`IdentityError`].
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The port can't be had.
    #[error("cannot listen on UDP {address}: is another relay running there?")]
    Bind {
        /// Where it should have been.
        address: SocketAddr,
        /// What went wrong.
        source: io::Error,
    },
    /// The link can't be written.
    #[error("cannot write the link to “{}”", path.display())]
    LinkFile {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The file for the link is something else.
    #[error(
        "“{}” is there and holds no relay link: name another file, or remove it",
        path.display()
    )]
    LinkFileTaken {
        /// The file.
        path: PathBuf,
    },
}

/// Runs a relay until `shutdown` completes, and then drains it. Prints its link on standard output,
/// and writes it to the configured file.
///
/// # Errors
///
/// [`RelayError`] if it can't start.
pub async fn run(
    config: RelayConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RelayError> {
    let link_file = config.link_file.clone();
    let relay = Relay::bind(config)?;
    let link = relay.link().expose();
    if let Some(path) = link_file {
        write_link(&path, &link)?;
    }
    if let Err(error) = writeln!(io::stdout(), "{}", *link) {
        warn!(%error, "cannot print the link");
    }
    relay.serve(shutdown).await;
    Ok(())
}

/// A relay whose port is bound.
#[derive(Debug)]
pub struct Relay {
    endpoint: Endpoint,
    link: RelayLink,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Relay {
    /// Loads or makes the relay's keys, and binds its port. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`RelayError`] if keys or port can't be had.
    pub fn bind(config: RelayConfig) -> Result<Self, RelayError> {
        let identity = RelayIdentity::load_or_create(&config.state)?;
        let endpoint = listen(&identity, config.listen)?;
        let address = endpoint.local_addr().map_err(|source| RelayError::Bind {
            address: config.listen.unwrap_or(ANY_V6),
            source,
        })?;
        let advertised = config.advertise.unwrap_or_else(|| advertise(address));
        info!(%address, link = %advertised, "listening");
        Ok(Self {
            endpoint,
            link: RelayLink::new(advertised, identity.pin(), identity.relay_key().clone()),
            address,
            shared: Arc::new(Shared {
                identity,
                limits: config.limits,
                tap: config.tap,
                router: Mutex::new(Router::new(config.limits.connections)),
                handshakes: Arc::new(Semaphore::new(config.limits.handshakes)),
            }),
        })
    }

    /// What lets others use this relay.
    #[must_use]
    pub const fn link(&self) -> &RelayLink {
        &self.link
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes, and then drains: tells everybody, takes nothing new, waits
    /// a bounded time for open streams, and closes.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self {
            endpoint, shared, ..
        } = self;
        let (drain, draining) = watch::channel(false);
        let (busy, mut idle) = mpsc::channel(1);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            select! {
                incoming = endpoint.accept() => {
                    let Some(incoming) = incoming else { break };
                    let room = connections.len() < shared.limits.connections;
                    let handshake = Arc::clone(&shared.handshakes).try_acquire_owned();
                    let (true, Ok(handshake)) = (room, handshake) else {
                        incoming.refuse();
                        continue;
                    };
                    // With half the places taken, an address has to show that it is its own.
                    let crowded = shared.handshakes.available_permits() < shared.limits.handshakes / 2;
                    if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
                        // Fails only where no retry may be sent, which was just asked.
                        let _ = incoming.retry();
                        continue;
                    }
                    let peer = PeerTask {
                        shared: Arc::clone(&shared),
                        draining: draining.clone(),
                        busy: busy.clone(),
                    };
                    connections.spawn(peer.run(incoming, handshake));
                }
                Some(ended) = connections.join_next() => note_panic(ended),
                () = &mut shutdown => break,
            }
        }

        info!("draining");
        endpoint.set_server_config(None);
        shared.router().drain(Refusal::Draining {
            retry_after_ms: RETRY_AFTER_MS,
        });
        drop(busy);
        drain.send_replace(true);
        // `recv` gives `None` when the last of those that keep the relay busy is done.
        let drained = timeout(shared.limits.drain, idle.recv()).await;
        if drained.is_err() {
            warn!("some streams are cut: they did not end in time");
        }
        endpoint.close(close::DRAINING.into(), b"draining");
        if timeout(LAST_WORDS, endpoint.wait_idle()).await.is_err() {
            debug!("some peers did not hear that the connection is closed");
        }
    }
}

#[derive(Debug)]
struct Shared {
    identity: RelayIdentity,
    limits: Limits,
    tap: Option<Arc<dyn Tap>>,
    router: Mutex<Router<Handle>>,
    handshakes: Arc<Semaphore>,
}

impl Shared {
    fn router(&self) -> MutexGuard<'_, Router<Handle>> {
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How one peer's task is reached by the others'.
#[derive(Debug, Clone)]
struct Handle {
    connection: Connection,
    name: PeerName,
    notices: mpsc::Sender<Notice>,
}

/// Whoever holds one keeps the relay from ending its drain early.
type Busy = mpsc::Sender<Infallible>;

/// What the task of one connection has.
struct PeerTask {
    shared: Arc<Shared>,
    draining: watch::Receiver<bool>,
    busy: Busy,
}

impl PeerTask {
    async fn run(self, incoming: quinn::Incoming, handshake: OwnedSemaphorePermit) {
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

const ANY_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), Address::DEFAULT_PORT);
const ANY_V4: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), Address::DEFAULT_PORT);

fn listen(identity: &RelayIdentity, address: Option<SocketAddr>) -> Result<Endpoint, RelayError> {
    let bind = |address| {
        endpoint::listen(identity, address).map_err(|source| RelayError::Bind { address, source })
    };
    match address {
        Some(address) => bind(address),
        None => match endpoint::listen(identity, ANY_V6) {
            Ok(endpoint) => Ok(endpoint),
            Err(source) if source.kind() == io::ErrorKind::AddrInUse => Err(RelayError::Bind {
                address: ANY_V6,
                source,
            }),
            Err(error) => {
                info!(%error, "no IPv6 here: listening on IPv4 only");
                bind(ANY_V4)
            }
        },
    }
}

fn advertise(address: SocketAddr) -> Address {
    if !address.ip().is_unspecified() {
        return address.into();
    }
    warn!(
        "the link names 127.0.0.1, fit for this machine only: say --advertise HOST:PORT for others"
    );
    SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())).into()
}

/// Writes the link in the place of an earlier one, and of nothing else: the file's name can come from
/// the environment, where the same name means a developer's deployment link.
fn write_link(path: &Path, link: &str) -> Result<(), RelayError> {
    let at = |source| RelayError::LinkFile {
        path: path.to_owned(),
        source,
    };
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() || text.trim().parse::<RelayLink>().is_ok() => {}
        Ok(_) => {
            return Err(RelayError::LinkFileTaken {
                path: path.to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(error)),
    }
    secret_file::replace(path, format!("{link}\n").as_bytes()).map_err(at)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        warn!(%error, "a task of the relay failed");
    }
}
