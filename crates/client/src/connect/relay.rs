//! The connection to the relay, which all requests of a client share, and so does each attempt to
//! make it.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, WeakShared},
};
use patchwire_transport::{ConnectError, DeploymentLink, RelayConnection};
use tokio::time::timeout;

/// What an attempt comes to, for everyone who waits for it.
type Connected = Result<Arc<RelayConnection>, Arc<ConnectError>>;
type Attempt = BoxFuture<'static, Connected>;

/// The connection to the relay.
#[derive(Default)]
pub(super) struct Relay {
    slot: Arc<Mutex<Slot>>,
}

#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    /// Driven by those who wait for it, and given up with the last of them.
    Connecting(WeakShared<Attempt>),
    Made(Arc<RelayConnection>),
}

impl Relay {
    /// Whether there is a connection, which may be dead without our knowing.
    pub(super) fn is_made(&self) -> bool {
        matches!(&*lock(&self.slot), Slot::Made(_))
    }

    /// The connection, made if there is none: by the attempt that is under way, or by one of our
    /// own. Whoever waits gets what that attempt comes to, and waits at most for `patience`.
    pub(super) async fn connection(
        &self,
        link: &DeploymentLink,
        name: &str,
        patience: Duration,
    ) -> Connected {
        let attempt = {
            let mut slot = lock(&self.slot);
            let under_way = match &*slot {
                Slot::Made(connection) => return Ok(Arc::clone(connection)),
                Slot::Connecting(attempt) => attempt.upgrade(),
                Slot::Empty => None,
            };
            under_way.unwrap_or_else(|| {
                let slot_of_attempt = Arc::clone(&self.slot);
                let attempt = attempt(slot_of_attempt, link.clone(), name.to_owned(), patience);
                let attempt = attempt.shared();
                *slot = attempt.downgrade().map_or(Slot::Empty, Slot::Connecting);
                attempt
            })
        };
        timeout(patience, attempt).await.unwrap_or_else(|_| {
            Err(Arc::new(ConnectError::TimedOut {
                address: link.relay().address().clone(),
                timeout: patience,
            }))
        })
    }

    /// Lets go of a connection, so that the next request makes a new one. Another one that has
    /// taken its place stays.
    pub(super) fn forget(&self, connection: &Weak<RelayConnection>) {
        let mut slot = lock(&self.slot);
        if matches!(&*slot, Slot::Made(made) if Weak::as_ptr(connection) == Arc::as_ptr(made)) {
            let forgotten = mem::take(&mut *slot);
            drop(slot);
            drop(forgotten);
        }
    }

    /// Takes the connection out.
    pub(super) fn take(&self) -> Option<Arc<RelayConnection>> {
        match mem::take(&mut *lock(&self.slot)) {
            Slot::Made(connection) => Some(connection),
            Slot::Connecting(_) | Slot::Empty => None,
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*lock(&self.slot) {
            Slot::Empty => "empty",
            Slot::Connecting(_) => "connecting",
            Slot::Made(_) => "made",
        };
        f.debug_tuple("Relay").field(&state).finish()
    }
}

/// Connects, and leaves the connection for the requests that follow. It takes no longer than whoever
/// began it waits, or requests that come one after the other would hold on to one that is lost.
fn attempt(
    slot: Arc<Mutex<Slot>>,
    link: DeploymentLink,
    name: String,
    patience: Duration,
) -> Attempt {
    async move {
        let connected = RelayConnection::connect_to_open(&link, &name, patience);
        let connected = connected.await.map(Arc::new).map_err(Arc::new);
        let mut slot = lock(&slot);
        // Closed meanwhile, it is for those alone who wait for it.
        if matches!(&*slot, Slot::Connecting(_)) {
            *slot = connected.clone().map_or(Slot::Empty, Slot::Made);
        }
        connected
    }
    .boxed()
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    // Whatever happened, the slot is whole.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use patchwire_transport::{Pin, RelayKey, RelayLink};
    use tokio::join;

    use super::*;

    fn link(address: &str) -> DeploymentLink {
        let (pin, key) = (Pin::new([1; 32]), RelayKey::new([2; 32]));
        let relay = RelayLink::new(address.parse().unwrap(), pin, key);
        DeploymentLink::mint(&relay, "shop".parse().unwrap(), "dev".parse().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn all_who_wait_for_a_silent_relay_are_told_of_it_in_their_own_time() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let link = link(&silent.local_addr().unwrap().to_string());
        let relay = Relay::default();
        let of = async |millis| {
            let patience = Duration::from_millis(millis);
            let error = relay.connection(&link, "me", patience).await.unwrap_err();
            let is_own =
                matches!(&*error, ConnectError::TimedOut { timeout, .. } if *timeout == patience);
            assert!(is_own, "{error}");
        };
        join!(of(200), of(20), of(100));
        assert!(matches!(&*lock(&relay.slot), Slot::Empty));

        // One that nobody waits for any more is in nobody's way.
        drop(timeout(Duration::ZERO, of(60_000)).await);
        of(20).await;
    }

    #[tokio::test]
    async fn an_attempt_that_fails_is_shared_and_leaves_nothing() {
        let (link, relay) = (link("nowhere.invalid:1"), Relay::default());
        let of = || relay.connection(&link, "me", Duration::from_secs(60));
        let (one, other) = join!(of(), of());
        assert!(Arc::ptr_eq(&one.unwrap_err(), &other.unwrap_err()));
        assert!(matches!(&*lock(&relay.slot), Slot::Empty));
    }
}
