//! One stream of a developer: greet, hear what it is for, and do that.

use std::{sync::Arc, time::Duration};

use patchwire_protocol::{
    limits,
    message::{
        inner::{AgentMessage, DeveloperMessage, Text},
        status::{LogLine, LogsRequest},
    },
};
use patchwire_transport::{FrameReader, FrameWriter, IncomingStream, InnerStream, SendError};
use tokio::{
    io::{ReadHalf, WriteHalf},
    time::timeout,
};

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

/// How long a greeted stream may be kept at hand without a word: there are not many.
const GREETED: Duration = Duration::from_secs(300);

/// Serves one stream to its end. What goes wrong is its own affair.
pub(crate) async fn serve(deployment: Arc<Deployment>, incoming: IncomingStream) {
    let stream = match incoming.handshake().await {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a developer's stream was refused"),
    };
    let (mut reader, mut writer) = stream.into_frames(limits::FRAME);
    let greeting = AgentMessage::Greeting(deployment.greeting());
    if writer.send(&greeting).await.is_err() {
        return;
    }
    let Ok(first) = timeout(GREETED, reader.receive()).await else {
        return tracing::debug!("a developer's stream said nothing for too long");
    };
    let result = match first {
        Ok(Some(DeveloperMessage::Push(push))) => {
            return Box::pin(push::serve(deployment, reader, writer, push)).await;
        }
        Ok(Some(DeveloperMessage::Status)) => {
            let status = AgentMessage::Status(Box::new(deployment.status()));
            writer.send(&status).await
        }
        Ok(Some(DeveloperMessage::Logs(request))) => {
            logs(&deployment, &mut reader, &mut writer, request).await
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

async fn send_lines(writer: &mut Writer, lines: &[Line]) -> Result<(), SendError> {
    let lines = lines.iter().map(|line| LogLine {
        at_ms: line.at_ms,
        stderr: line.stream == Stream::Stderr,
        text: line.text.to_vec(),
    });
    writer.send(&AgentMessage::LogLines(lines.collect())).await
}
