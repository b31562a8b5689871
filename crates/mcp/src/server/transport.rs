//! Standard input and output as the protocol library takes them.

use std::{future::Future, io};

use rmcp::{
    RoleServer,
    model::{ClientJsonRpcMessage, ClientRequest, ServerJsonRpcMessage},
    transport::{Transport, async_rw::AsyncRwTransport},
};
use tokio::io::{Stdin, Stdout};

/// Messages on lines of standard input and output. Lines that are too long (16 MiB) or not JSON
/// are passed over.
pub(super) fn stdio() -> impl Transport<RoleServer, Error = io::Error> {
    Patient {
        inner: AsyncRwTransport::new(tokio::io::stdin(), tokio::io::stdout()),
        began: false,
    }
}

/// A transport that passes over what nobody waits for before a client has begun: the library would
/// end there, on a notification that comes too early as on an answer to nothing.
struct Patient {
    inner: AsyncRwTransport<RoleServer, Stdin, Stdout>,
    began: bool,
}

impl Transport<RoleServer> for Patient {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.inner.send(message)
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            let message = self.inner.receive().await?;
            match &message {
                ClientJsonRpcMessage::Request(request) => {
                    // Neither of them begins anything.
                    self.began |= !matches!(
                        request.request,
                        ClientRequest::PingRequest(_) | ClientRequest::DiscoverRequest(_)
                    );
                }
                _ if !self.began => {
                    tracing::info!("passed over a message before the client's first request");
                    continue;
                }
                _ => {}
            }
            return Some(message);
        }
    }

    fn close(&mut self) -> impl Future<Output = io::Result<()>> + Send {
        self.inner.close()
    }
}
