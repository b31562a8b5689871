//! A stream to the agent inside its inner session.

use std::{
    sync::Weak,
    time::{Duration, Instant},
};

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

/// One conversation with the agent, which greets. Nobody has to wait for that: both ends are
/// authenticated before.
#[derive(Debug)]
pub(crate) struct Session {
    reader: FrameReader<ReadHalf<InnerStream>>,
    writer: FrameWriter<WriteHalf<InnerStream>>,
    greeting: Option<Greeting>,
    /// When both ends were authenticated, which is before the agent greets.
    begun: Instant,
    pub(crate) traffic: Traffic,
    /// The connection that it came over.
    pub(crate) relay: Weak<RelayConnection>,
    /// How long the agent has for its first word, where it may be gone without our knowing.
    pub(crate) patience: Option<Duration>,
}

impl Session {
    pub(crate) fn new(stream: InnerStream, relay: Weak<RelayConnection>) -> Self {
        let traffic = stream.traffic();
        let (reader, writer) = stream.into_frames(limits::FRAME);
        Self {
            reader,
            writer,
            greeting: None,
            begun: Instant::now(),
            traffic,
            relay,
            patience: None,
        }
    }

    /// What the agent greeted with, if it has.
    pub(crate) const fn greeting(&self) -> Option<&Greeting> {
        self.greeting.as_ref()
    }

    /// Waits until the agent has greeted.
    pub(crate) async fn greeted(&mut self) -> Result<&Greeting, ClientError> {
        if self.greeting.is_none() {
            let greeted = timeout(limits::STALL, self.reader.receive()).await;
            self.greet(greeted.map_err(|_| lost())??.ok_or_else(lost)?)?;
        }
        self.greeting.as_ref().ok_or_else(lost)
    }

    /// How long this has lasted, for the agent no longer than for us.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Says something, which takes at most [`limits::STALL`].
    pub(crate) async fn send(&mut self, message: &DeveloperMessage) -> Result<(), ClientError> {
        match timeout(limits::STALL, self.writer.send(message)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(lost()),
        }
    }

    /// The agent's next message, its greeting aside; `None` once it says no more. Waits for as long
    /// as it takes. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<AgentMessage>, ClientError> {
        loop {
            let message = self.reader.receive().await?;
            match message {
                Some(message) if self.greeting.is_none() => self.greet(message)?,
                message => return Ok(message),
            }
        }
    }

    /// The agent's next message; [`ClientError::Lost`] if none comes within [`limits::STALL`].
    pub(crate) async fn receive(&mut self) -> Result<AgentMessage, ClientError> {
        match timeout(limits::STALL, self.next()).await {
            Ok(received) => received?.ok_or_else(lost),
            Err(_) => Err(lost()),
        }
    }

    fn greet(&mut self, message: AgentMessage) -> Result<(), ClientError> {
        match message {
            AgentMessage::Greeting(greeting) => {
                self.greeting = Some(greeting);
                Ok(())
            }
            _ => Err(ClientError::Misbehaved {
                what: "it did not greet".to_owned(),
            }),
        }
    }
}

const fn lost() -> ClientError {
    ClientError::Lost { source: None }
}
