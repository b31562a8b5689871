//! Standard input and output as the protocol library takes them, with what it lacks.

use std::{
    future::{self, Future},
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rmcp::{
    RoleServer,
    model::{ClientJsonRpcMessage, ClientRequest, ServerJsonRpcMessage},
    transport::{Transport, async_rw::AsyncRwTransport},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::unix::pipe,
    sync::watch,
};

/// How many messages may wait to be written before no more are read: a client that doesn't read its
/// answers gets to ask no more.
const UNSENT: usize = 64;

/// Messages on lines of standard input and output. Lines that are too long (16 MiB) or not JSON
/// are passed over.
///
/// The second of the two hears when standard input has ended: what is sent unasked after that is
/// never taken from the library's queue.
pub(super) fn stdio() -> (
    impl Transport<RoleServer, Error = io::Error>,
    watch::Receiver<bool>,
) {
    Lines::new(tokio::io::stdin(), tokio::io::stdout())
}

/// Waits until nobody can read standard output any more; for ever where that is not heard of, as of
/// a file.
pub(super) async fn unread() {
    if closed(io::stdout().as_fd()).await.is_err() {
        future::pending::<()>().await;
    }
}

/// Waits until the other end of a pipe or a socket is gone. Its mode stays as it is: others who have
/// it may not expect another.
async fn closed(fd: BorrowedFd<'_>) -> io::Result<()> {
    let sender = pipe::Sender::from_owned_fd_unchecked(fd.try_clone_to_owned()?)?;
    while !sender.ready(Interest::WRITABLE).await?.is_write_closed() {
        // That there is room is old news from here on.
        let _: io::Result<()> = sender.try_io(|| Err(io::ErrorKind::WouldBlock.into()));
    }
    Ok(())
}

struct Lines<R: AsyncRead, W: AsyncWrite> {
    inner: AsyncRwTransport<RoleServer, R, W>,
    /// Whether the client has. Before, the library would end on a notification that comes too early
    /// as on an answer to nothing: both are passed over.
    began: bool,
    hung_up: watch::Sender<bool>,
    unsent: watch::Sender<usize>,
}

impl<R, W> Lines<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    fn new(read: R, write: W) -> (Self, watch::Receiver<bool>) {
        let (hung_up, hears) = watch::channel(false);
        let lines = Self {
            inner: AsyncRwTransport::new(read, write),
            began: false,
            hung_up,
            unsent: watch::Sender::new(0),
        };
        (lines, hears)
    }
}

impl<R, W> Transport<RoleServer> for Lines<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = io::Error;

    fn send(
        &mut self,
        message: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.unsent.send_modify(|unsent| *unsent += 1);
        let unsent = Unsent(self.unsent.clone());
        let sending = self.inner.send(message);
        async move {
            let _until_sent = unsent;
            sending.await
        }
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        loop {
            let mut unsent = self.unsent.subscribe();
            // Its sender is ours.
            let _ = unsent.wait_for(|unsent| *unsent < UNSENT).await;
            let Some(message) = self.inner.receive().await else {
                self.hung_up.send_replace(true);
                return None;
            };
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

/// A message that is not written yet.
struct Unsent(watch::Sender<usize>);

impl Drop for Unsent {
    fn drop(&mut self) {
        self.0.send_modify(|unsent| *unsent -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
        os::{fd::OwnedFd, unix::net::UnixStream},
    };

    use rmcp::model::{RequestId, ServerResult};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, duplex, split};

    use super::*;

    const PING: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n";
    const LIST: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/list\"}\n";
    const CANCEL: &[u8] = b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\
                            \"params\":{\"requestId\":1}}\n";

    #[tokio::test]
    async fn a_client_that_does_not_read_is_not_read_from() {
        let (ours, theirs) = duplex(16);
        let (read, write) = split(ours);
        let (mut lines, _) = Lines::new(read, write);
        let (theirs_read, mut theirs_write) = split(theirs);
        tokio::spawn(async move { theirs_write.write_all(PING).await });

        let answers = (0..UNSENT).map(|id| {
            let id = RequestId::Number(i64::try_from(id).unwrap());
            let answer = ServerJsonRpcMessage::response(ServerResult::empty(()), id);
            tokio::spawn(lines.send(answer))
        });
        let answers: Vec<_> = answers.collect();
        tokio::select! {
            biased;
            message = lines.receive() => panic!("{message:?} was read"),
            () = future::ready(()) => {}
        }
        let mut read = BufReader::new(theirs_read).lines();
        for _ in &answers {
            read.next_line().await.unwrap().unwrap();
        }
        assert!(lines.receive().await.is_some());
    }

    #[tokio::test]
    async fn what_comes_too_early_is_passed_over_and_the_end_is_heard_of() {
        let mut sent = [CANCEL, PING, CANCEL, LIST, CANCEL].concat();
        sent.extend_from_slice(b"garbage\n");
        let (mut lines, hears) = Lines::new(&*sent, tokio::io::sink());
        let mut received = Vec::new();
        while let Some(message) = lines.receive().await {
            assert!(!*hears.borrow());
            received.push(matches!(message, ClientJsonRpcMessage::Request(_)));
        }
        assert_eq!(received, [true, true, false]);
        assert!(*hears.borrow());
    }

    #[tokio::test]
    async fn the_end_of_who_reads_is_heard_of() {
        let (read, write) = io::pipe().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        for (ours, theirs) in [
            (OwnedFd::from(write), OwnedFd::from(read)),
            (ours.into(), theirs.into()),
        ] {
            let end = closed(ours.as_fd());
            tokio::pin!(end);
            // What is written and read is no end.
            for _ in 0..3 {
                File::from(ours.try_clone().unwrap())
                    .write_all(b"answer")
                    .unwrap();
                let mut answer = [0; 6];
                File::from(theirs.try_clone().unwrap())
                    .read_exact(&mut answer)
                    .unwrap();
                tokio::select! {
                    biased;
                    ended = &mut end => panic!("{ended:?}"),
                    () = tokio::task::yield_now() => {}
                }
            }
            drop(theirs);
            end.await.unwrap();
        }
        let file = tempfile::tempfile().unwrap();
        assert!(closed(file.as_fd()).await.is_err());
    }
}
