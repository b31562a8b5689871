//! Carries a stream's bytes from one connection to the other, without looking at them.

use std::{fmt, pin::pin};

use bytes::Bytes;
use patchwire_protocol::message::relay::reset;
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::select;

/// The most buffers moved at once; as many as quinn hands over for free.
const CHUNKS: usize = 32;

/// Which way bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From developer to agent.
    ToAgent,
    /// From agent to developer.
    ToDeveloper,
}

/// Is shown every byte that the relay carries in piped streams, as the relay sees it.
///
/// It is called between reading and writing, so it has to be quick.
pub trait Tap: fmt::Debug + Send + Sync {
    /// These bytes are on their way; several streams' are mixed.
    fn carried(&self, direction: Direction, bytes: &[u8]);
}

/// The relay's end of one connection's stream.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

/// Pipes until both ways have ended, and gives the bytes that went to the agent and to the developer.
///
/// An end goes on as an end, a reset as a reset, a stop as a stop; a connection that is lost resets
/// and stops the other's stream.
pub(crate) async fn pipe(developer: End, agent: End, tap: Option<&dyn Tap>) -> (u64, u64) {
    tokio::join!(
        one_way(developer.recv, agent.send, Direction::ToAgent, tap),
        one_way(agent.recv, developer.send, Direction::ToDeveloper, tap),
    )
}

async fn one_way(
    mut from: RecvStream,
    mut to: SendStream,
    direction: Direction,
    tap: Option<&dyn Tap>,
) -> u64 {
    let mut carried = 0;
    let mut stopped = pin!(to.stopped());
    let mut chunks: [Bytes; CHUNKS] = Default::default();
    // Errors of `reset`, `stop` and `finish` say that the stream is already over, which is the aim.
    loop {
        let read = select! {
            read = from.read_chunks(&mut chunks) => read,
            stopped = &mut stopped => {
                let code = stopped.ok().flatten();
                let _ = from.stop(code.unwrap_or(reset::GONE.into()));
                return carried;
            }
        };
        let chunks = match read {
            Ok(Some(len)) => &mut chunks[..len],
            Ok(None) => {
                let _ = to.finish();
                return carried;
            }
            Err(error) => {
                let _ = to.reset(reset_code(&error));
                return carried;
            }
        };
        for chunk in &*chunks {
            carried += chunk.len() as u64;
            if let Some(tap) = tap {
                tap.carried(direction, chunk);
            }
        }
        if let Err(error) = to.write_all_chunks(chunks).await {
            let _ = from.stop(stop_code(&error));
            return carried;
        }
    }
}

fn reset_code(error: &ReadError) -> VarInt {
    match error {
        ReadError::Reset(code) => *code,
        ReadError::ConnectionLost(_)
        | ReadError::ClosedStream
        | ReadError::IllegalOrderedRead
        | ReadError::ZeroRttRejected => reset::GONE.into(),
    }
}

fn stop_code(error: &WriteError) -> VarInt {
    match error {
        WriteError::Stopped(code) => *code,
        WriteError::ConnectionLost(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            reset::GONE.into()
        }
    }
}
