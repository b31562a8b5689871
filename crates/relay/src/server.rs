//! The relay from its start to the end of its drain.

use std::{
    fs, io,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex},
};

use patchwire_protocol::message::relay::{Refusal, close};
use patchwire_transport::{
    Address, IdentityError, RelayIdentity, RelayLink, endpoint, secret_file,
};
use quinn::Endpoint;
use tokio::{
    select,
    sync::{Semaphore, mpsc, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};
use tracing::{debug, info, warn};

use crate::{
    config::RelayConfig,
    peer::{LAST_WORDS, PeerTask, RETRY_AFTER_MS, Shared},
    router::Router,
};

/// Why a relay does not run.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// See [`IdentityError`].
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The port can't be had.
    #[error("cannot listen on UDP {address}{}", hint(source))]
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

/// What to do about a port that can't be had.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ", where a program listens already, perhaps another relay: end it, or choose another \
             port with --listen"
        }
        io::ErrorKind::AddrNotAvailable => {
            ", which is no address of this machine: listen on [::]:PORT, and say with --advertise \
             where others reach it"
        }
        io::ErrorKind::PermissionDenied => {
            ", which this user may not: choose a port from 1024 with --listen"
        }
        _ => ": choose another address with --listen",
    }
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

/// A task has no result: what it can't do, it says in the log.
pub(crate) fn note_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        warn!(%error, "a task of the relay failed");
    }
}
