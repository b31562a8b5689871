//! Whether the agent is there, and what it has.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use patchwire_protocol::app::AppState;
use patchwire_transport::{Backoff, random_u64};
use tokio::{sync::watch, time::sleep};

use super::schedule::{Presence, Standing};
use crate::{connect::Client, error::ClientError};

/// A stream that lived for so long shows that the agent can be followed.
const LIVED: Duration = Duration::from_secs(5);

/// What is known of the agent.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) presence: Option<Presence>,
    /// Its app, as it was heard of last.
    pub(super) app: Option<AppState>,
    /// Why there is no way to it, where that is not made better by waiting alone.
    pub(super) refusal: Option<Arc<ClientError>>,
}

/// Follows the agent for ever, and tells `told` what is known of it. Ends only with an error that
/// gets better neither by waiting nor by saving, and only until the watch was `attached` once: after
/// that somebody may put it right, as it was right before.
pub(super) async fn follow(
    client: &Client,
    attached: &AtomicBool,
    told: &watch::Sender<Known>,
) -> ClientError {
    let mut backoff = Backoff::new();
    let mut stream = 0;
    loop {
        stream += 1;
        let begun = Instant::now();
        let mut heard = 0_u64;
        let error = match client.follow().await {
            Ok(mut statuses) => loop {
                match statuses.next().await {
                    Ok(Some(status)) => {
                        attached.store(true, Relaxed);
                        heard += 1;
                        if heard > 1 {
                            backoff.reset();
                        }
                        let standing = Standing {
                            epoch: status.epoch,
                            root: status.root.map(|root| root.0),
                        };
                        told.send_replace(Known {
                            presence: Some(Presence::Attached { stream, standing }),
                            app: status.app,
                            refusal: None,
                        });
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            },
            Err(error) => Some(error),
        };
        let lived = heard > 0 && begun.elapsed() >= LIVED;
        if lived {
            backoff.reset();
        }
        // It is there, and has no place for one more who follows it: it said how it is, and that
        // was all.
        let presence = match (&error, heard) {
            (None, 1) if !lived => Presence::Unfollowed,
            _ => Presence::Lost,
        };
        let refusal = error.and_then(|error| {
            tracing::debug!(%error, "the agent can't be followed");
            error.is_final().then_some(error)
        });
        let refusal = match refusal {
            Some(error) if !attached.load(Relaxed) => return error,
            refusal => refusal.map(Arc::new),
        };
        told.send_modify(|known| {
            known.presence = Some(presence);
            known.refusal = refusal;
        });
        let delay = backoff.next_delay(random_u64().unwrap_or(0));
        sleep(delay).await;
    }
}
