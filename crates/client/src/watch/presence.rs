//! Whether the agent is there, and what it has.

use std::time::Duration;

use patchwire_transport::{Backoff, random_u64};
use tokio::{sync::watch, time::sleep};

use super::schedule::{Presence, Standing};
use crate::{connect::Client, error::ClientError};

/// Follows the agent for ever, and tells `told` what is known of it. Ends only with an error that
/// gets better neither by waiting nor by saving.
pub(super) async fn follow(client: &Client, told: &watch::Sender<Option<Presence>>) -> ClientError {
    let mut backoff = Backoff::new();
    let mut stream = 0;
    loop {
        stream += 1;
        let error = match client.follow().await {
            Ok(mut statuses) => loop {
                match statuses.next().await {
                    Ok(Some(status)) => {
                        backoff.reset();
                        let standing = Standing {
                            epoch: status.epoch,
                            root: status.root.map(|root| root.0),
                        };
                        told.send_replace(Some(Presence::Attached { stream, standing }));
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            },
            Err(error) => Some(error),
        };
        told.send_replace(Some(Presence::Lost));
        if let Some(error) = error {
            if error.is_final() {
                return error;
            }
            tracing::debug!(%error, "the agent can't be followed");
        }
        let delay: Duration = backoff.next_delay(random_u64().unwrap_or(0));
        sleep(delay).await;
    }
}
