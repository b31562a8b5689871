//! Finding the relay: its addresses, one beside the other.

use std::{io, net::SocketAddr, time::Duration};

use quinn::{Connection, Endpoint};
use tokio::{task::JoinSet, time};

use super::ConnectError;
use crate::{address::Address, endpoint, identity::Pin, link::RelayLink, tls};

/// How long one address has before the next is tried beside it (RFC 8305, section 8).
const STAGGER: Duration = Duration::from_millis(250);

/// How long the other addresses still have once one of them has answered with another key.
const OTHERS: Duration = Duration::from_millis(500);

/// The most addresses of a host that are tried.
const ADDRESSES: usize = 8;

/// Makes a connection to the first of the host's addresses that answers with the link's key, on which
/// nothing was said yet and the relay may open this many streams.
///
/// [`RelayConnection::connect`](super::RelayConnection::connect) does this and attaches. By itself it is of use to tests of a relay.
///
/// # Errors
///
/// [`ConnectError`], as far as it is about reaching the relay.
pub async fn dial(relay: &RelayLink, streams: u32) -> Result<(Endpoint, Connection), ConnectError> {
    let (address, pin) = (relay.address(), relay.pin());
    let resolve = |source| ConnectError::Resolve {
        address: address.clone(),
        source,
    };
    let addresses = address.resolve().await.map_err(resolve)?;
    let mut attempts = JoinSet::new();
    for (number, socket_address) in (0u32..).zip(addresses.into_iter().take(ADDRESSES)) {
        let address = address.clone();
        attempts.spawn(async move {
            time::sleep(STAGGER * number).await;
            dial_one(socket_address, address, pin, streams).await
        });
    }
    let mut worst = None;
    loop {
        // That something else answers says more than that nothing does, which may take long to know.
        let attempt = match &worst {
            Some(ConnectError::WrongPin { .. }) => {
                let others = time::timeout(OTHERS, attempts.join_next()).await;
                others.unwrap_or(None)
            }
            _ => attempts.join_next().await,
        };
        let Some(attempt) = attempt else { break };
        match attempt {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error @ ConnectError::WrongPin { .. })) => worst = Some(error),
            Ok(Err(error)) => worst = worst.or(Some(error)),
            Err(ended) => worst = worst.or(Some(ConnectError::Socket(io::Error::other(ended)))),
        }
    }
    Err(worst.unwrap_or_else(|| resolve(io::ErrorKind::NotFound.into())))
}

async fn dial_one(
    socket_address: SocketAddr,
    address: Address,
    pin: Pin,
    streams: u32,
) -> Result<(Endpoint, Connection), ConnectError> {
    let endpoint = endpoint::client(socket_address).map_err(ConnectError::Socket)?;
    let (config, expected) = endpoint::client_config(pin, streams);
    let connecting = endpoint
        .connect_with(config, socket_address, tls::NO_NAME)
        .map_err(|error| ConnectError::Socket(io::Error::other(error)))?;
    match connecting.await {
        Ok(connection) => Ok((endpoint, connection)),
        Err(_) if expected.mismatched() => Err(ConnectError::WrongPin { address }),
        Err(source) => Err(ConnectError::Unreachable { address, source }),
    }
}
