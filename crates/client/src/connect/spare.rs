//! A stream that is kept at hand, greeted, so that the next request pays no round trip for it.

use std::{
    future::poll_fn,
    mem,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use patchwire_transport::{Backoff, RelayConnection, random_u64};
use tokio::{
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{error::ClientError, session::Session};

/// How long a stream is kept that nobody asks for. The agent keeps it for longer.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// How often a stream is opened again that the agent ended: it is replaced, or started anew.
const ATTEMPTS: u32 = 10;

/// The spare stream of a client: one at most.
#[derive(Debug, Default)]
pub(super) struct Spare {
    slot: Arc<Mutex<Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    session: Option<Session>,
    /// Ends the task that looks after it.
    keeper: Option<AbortHandle>,
}

impl Spare {
    /// Takes the stream, if there is one and the agent has not ended it.
    pub(super) fn take(&self) -> Option<Session> {
        let mut session = self.empty()?;
        let mut context = Context::from_waker(Waker::noop());
        ended(&mut session, &mut context)
            .is_pending()
            .then_some(session)
    }

    /// Lets go of the stream, and of one that is being opened.
    pub(super) fn clear(&self) {
        drop(self.empty());
    }

    fn empty(&self) -> Option<Session> {
        let Slot { session, keeper } = mem::take(&mut *lock(&self.slot));
        if let Some(keeper) = keeper {
            keeper.abort();
        }
        session
    }

    /// Opens a stream over this connection, unless there is one or one is being opened. It is
    /// renewed when the agent ends it.
    pub(super) fn fill(&self, relay: &Weak<RelayConnection>) {
        let mut slot = lock(&self.slot);
        if slot.keeper.is_some() {
            return;
        }
        let keeping = keep(Arc::downgrade(&self.slot), relay.clone());
        slot.keeper = Some(tokio::spawn(keeping).abort_handle());
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Opens the stream and looks after it, until it is no longer wanted.
async fn keep(slot: Weak<Mutex<Slot>>, relay: Weak<RelayConnection>) {
    let mut backoff = Backoff::new();
    for _ in 0..ATTEMPTS {
        match open(&relay).await {
            Ok(session) => {
                let Some(kept) = slot.upgrade() else { return };
                lock(&kept).session = Some(session);
                drop(kept);
                backoff.reset();
                let gone = poll_fn(|context| {
                    let Some(slot) = slot.upgrade() else {
                        return Poll::Ready(());
                    };
                    let mut slot = lock(&slot);
                    match &mut slot.session {
                        Some(session) => {
                            ready!(ended(session, context));
                            slot.session = None;
                            Poll::Ready(())
                        }
                        None => Poll::Ready(()),
                    }
                });
                if timeout(IDLE, gone).await.is_err() {
                    break;
                }
            }
            Err(error) => tracing::debug!(%error, "no stream to spare"),
        }
        sleep(backoff.next_delay(random_u64().unwrap_or(0))).await;
    }
    if let Some(slot) = slot.upgrade() {
        *lock(&slot) = Slot::default();
    }
}

async fn open(relay: &Weak<RelayConnection>) -> Result<Session, ClientError> {
    let opening = relay.upgrade().ok_or(ClientError::Lost { source: None })?;
    let stream = opening.open().await.map_err(ClientError::Open)?;
    let mut session = Session::new(stream, relay.clone());
    session.greeted().await?;
    Ok(session)
}

/// An agent that has greeted says nothing until it is spoken to: whatever comes ends the stream.
fn ended(session: &mut Session, context: &mut Context<'_>) -> Poll<()> {
    let next = pin!(session.next());
    next.poll(context).map(drop)
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    // Whatever happened, the slot is whole.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
