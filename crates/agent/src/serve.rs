//! One stream of a developer: greet, hear what it is for, and do that.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use patchwire_protocol::{
    limits,
    message::{
        inner::{AgentMessage, DeveloperMessage},
        status::{LogLine, LogsRequest, Status},
        value::Text,
    },
};
use patchwire_transport::{FrameReader, FrameWriter, IncomingStream, InnerStream, SendError};
use tokio::{
    io::{ReadHalf, WriteHalf},
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    deployment::Deployment,
    failure,
    output::{Line, Stream},
    push,
};

/// What a developer says.
pub(crate) type Reader = FrameReader<ReadHalf<InnerStream>>;
/// What it is told.
pub(crate) type Writer = FrameWriter<WriteHalf<InnerStream>>;

/// The most lines in one message: with the longest of lines it still fits a frame.
const LINES: usize = limits::FRAME / (limits::LOG_LINE + 64);

/// How long a greeted stream may be kept at hand without a word.
const GREETED: Duration = Duration::from_secs(3600);

/// The same where as many are kept already as there is room for.
const CROWDED: Duration = Duration::from_secs(10);

/// The places for streams that stay for as long as their developer likes.
#[derive(Debug)]
pub(crate) struct Lasting {
    places: Semaphore,
    /// For those that were greeted and have said nothing yet.
    spare: Semaphore,
    /// Whether it was said that all are taken, since one was had last.
    said: AtomicBool,
}

/// Serves one stream to its end. What goes wrong is its own affair.
pub(crate) async fn serve(
    deployment: Arc<Deployment>,
    incoming: IncomingStream,
    lasting: &Lasting,
    replaced: &CancellationToken,
) {
    let stream = match incoming.handshake().await {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a developer's stream was refused"),
    };
    let (mut reader, mut writer) = stream.into_frames(limits::FRAME);
    let greeted = Instant::now();
    let greeting = AgentMessage::Greeting(deployment.greeting());
    if writer.send(&greeting).await.is_err() {
        return;
    }
    let first = {
        let place = lasting.spare.try_acquire();
        let patience = place.as_ref().map_or(CROWDED, |_| GREETED);
        let first = timeout(patience, reader.receive());
        // Whoever keeps it is to find the newer agent with its next stream.
        match replaced.run_until_cancelled(first).await {
            Some(Ok(first)) => first,
            None | Some(Err(_)) => {
                tracing::debug!("a developer's stream is not waited for any longer");
                return drop(timeout(limits::STALL, writer.finish()).await);
            }
        }
    };
    let result = match first {
        Ok(Some(DeveloperMessage::Push(push))) => {
            return Box::pin(push::serve(deployment, reader, writer, push, greeted)).await;
        }
        Ok(Some(DeveloperMessage::Status)) => send_status(&mut writer, &deployment.status()).await,
        Ok(Some(DeveloperMessage::Logs(request))) => {
            logs(&deployment, &mut reader, &mut writer, request, lasting).await
        }
        Ok(Some(DeveloperMessage::Follow)) => {
            follow(&deployment, &mut reader, &mut writer, lasting).await
        }
        Ok(Some(_)) => misunderstood(&mut writer, "a conversation doesn't begin so").await,
        Ok(None) => Ok(()),
        Err(error) if error.is_misbehaviour() => {
            let what = failure::chain(&error);
            tracing::warn!(error = what, "a developer misbehaves");
            misunderstood(&mut writer, &what).await
        }
        Err(error) => return tracing::debug!(%error, "a developer's stream broke"),
    };
    match result {
        Ok(()) => drop(timeout(limits::STALL, writer.finish()).await),
        Err(error) => tracing::debug!(%error, "a developer went away"),
    }
}

impl Lasting {
    pub(crate) const fn new(places: usize, spare: usize) -> Self {
        Self {
            places: Semaphore::const_new(places),
            spare: Semaphore::const_new(spare),
            said: AtomicBool::new(false),
        }
    }

    /// A place for a stream. Without one the stream ends once it has said how things are now: the
    /// developer may ask again, and again, which is said once.
    fn place(&self) -> Option<SemaphorePermit<'_>> {
        let place = self.places.try_acquire().ok();
        let said = self.said.swap(place.is_none(), Relaxed);
        if place.is_none() && !said {
            tracing::warn!("too many developers follow the app at once: others have to ask again");
        }
        place
    }
}

async fn misunderstood(writer: &mut Writer, what: &str) -> Result<(), SendError> {
    writer
        .send(&AgentMessage::Misunderstood(Text::cut(what)))
        .await
}

/// Sends the last lines of the app's output, and those that follow for as long as it is wished.
async fn logs(
    deployment: &Deployment,
    reader: &mut Reader,
    writer: &mut Writer,
    request: LogsRequest,
    lasting: &Lasting,
) -> Result<(), SendError> {
    let output = deployment.app().output();
    let mut newest = output.subscribe();
    let count = usize::try_from(request.lines).unwrap_or(usize::MAX);
    let mut mark = *newest.borrow_and_update();
    let last = output.tail(0, count);
    for lines in last.chunks(LINES) {
        mark = mark.max(lines.last().map_or(0, |line| line.sequence));
        send_lines(writer, lines).await?;
    }
    if !request.follow {
        return Ok(());
    }
    let Some(_place) = lasting.place() else {
        return Ok(());
    };
    loop {
        let lines = output.since(mark, LINES);
        if let Some(last) = lines.last() {
            mark = last.sequence;
            send_lines(writer, &lines).await?;
            continue;
        }
        tokio::select! {
            changed = newest.changed() => if changed.is_err() { return Ok(()) },
            // A developer that follows has nothing to say but that it is enough.
            _ = reader.receive::<DeveloperMessage>() => return Ok(()),
        }
    }
}

/// Sends the status, and again whenever it has changed, for as long as it is wished.
async fn follow(
    deployment: &Deployment,
    reader: &mut Reader,
    writer: &mut Writer,
    lasting: &Lasting,
) -> Result<(), SendError> {
    let mut news = deployment.news();
    let mut status = deployment.status();
    send_status(writer, &status).await?;
    let Some(_place) = lasting.place() else {
        return Ok(());
    };
    loop {
        tokio::select! {
            changed = news.next() => if changed.is_none() { return Ok(()) },
            // A developer that follows has nothing to say but that it is enough.
            _ = reader.receive::<DeveloperMessage>() => return Ok(()),
        }
        let newest = deployment.status();
        if newest != status {
            send_status(writer, &newest).await?;
            status = newest;
        }
    }
}

async fn send_status(writer: &mut Writer, status: &Status) -> Result<(), SendError> {
    send(writer, &AgentMessage::Status(Box::new(status.clone()))).await
}

/// Windows full of messages are on their way to a developer that takes none for as long as this
/// waits: it is gone, and its place is another's.
async fn send(writer: &mut Writer, message: &AgentMessage) -> Result<(), SendError> {
    timeout(limits::STALL, writer.send(message))
        .await
        .unwrap_or_else(|_| Err(SendError::Io(io::ErrorKind::TimedOut.into())))
}

async fn send_lines(writer: &mut Writer, lines: &[Line]) -> Result<(), SendError> {
    let lines = lines.iter().map(|line| LogLine {
        at_ms: line.at_ms,
        stderr: line.stream == Stream::Stderr,
        text: line.text.to_vec(),
    });
    send(writer, &AgentMessage::LogLines(lines.collect())).await
}
