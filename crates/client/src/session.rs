//! A stream to the agent inside its inner session, greeted.

use std::{sync::Weak, time::Instant};

use patchwire_protocol::{
    limits,
    message::inner::{AgentMessage, DeveloperMessage, Greeting},
};
use patchwire_transport::{FrameReader, FrameWriter, InnerStream, RelayConnection, Traffic};
use tokio::{
    io::{ReadHalf, WriteHalf},
    time::timeout,
};

use crate::error::ClientError;

/// One conversation with the agent.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) greeting: Greeting,
    /// When the greeting came, so that the agent's clock can be told later.
    pub(crate) greeted: Instant,
    pub(crate) reader: FrameReader<ReadHalf<InnerStream>>,
    pub(crate) writer: FrameWriter<WriteHalf<InnerStream>>,
    pub(crate) traffic: Traffic,
    /// The connection that it came over.
    pub(crate) relay: Weak<RelayConnection>,
}

impl Session {
    /// Waits for the agent's greeting.
    pub(crate) async fn begin(
        stream: InnerStream,
        relay: Weak<RelayConnection>,
    ) -> Result<Self, ClientError> {
        let traffic = stream.traffic();
        let (read, write) = tokio::io::split(stream);
        let mut reader = FrameReader::new(read, limits::FRAME);
        let writer = FrameWriter::new(write, limits::FRAME);
        match timeout(limits::STALL, reader.receive()).await {
            Ok(Ok(Some(AgentMessage::Greeting(greeting)))) => Ok(Self {
                greeting,
                greeted: Instant::now(),
                reader,
                writer,
                traffic,
                relay,
            }),
            Ok(Ok(Some(_))) => Err(ClientError::Misbehaved {
                what: "it did not greet".to_owned(),
            }),
            Ok(Ok(None)) | Err(_) => Err(ClientError::Lost { source: None }),
            Ok(Err(error)) => Err(error.into()),
        }
    }

    /// The agent's clock now, in milliseconds since 1970, as far as the greeting tells.
    pub(crate) fn agent_clock_ms(&self) -> u64 {
        let since = u64::try_from(self.greeted.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.greeting.clock_ms.saturating_add(since)
    }

    /// Says something, which takes at most [`limits::STALL`].
    pub(crate) async fn send(&mut self, message: &DeveloperMessage) -> Result<(), ClientError> {
        match timeout(limits::STALL, self.writer.send(message)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(ClientError::Lost { source: None }),
        }
    }

    /// The agent's next message; [`ClientError::Lost`] if none comes within [`limits::STALL`].
    pub(crate) async fn receive(&mut self) -> Result<AgentMessage, ClientError> {
        match timeout(limits::STALL, self.reader.receive()).await {
            Ok(received) => received?.ok_or(ClientError::Lost { source: None }),
            Err(_) => Err(ClientError::Lost { source: None }),
        }
    }
}
