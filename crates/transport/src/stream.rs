//! Typed, bounded frames over any byte stream.

use std::io;

use patchwire_protocol::{
    codec::{self, Decode, DecodeError, Encode},
    frame::{self, FrameDecoder, FrameError},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What is read from a stream at once.
const READ: usize = 16 << 10;

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The stream failed.
    #[error("the stream failed")]
    Io(#[from] io::Error),
    /// The peer sent something that is no frame.
    #[error("the peer did not keep to the framing")]
    Frame(#[from] FrameError),
    /// The peer sent something that is no message.
    #[error("the peer sent no valid message")]
    Decode(#[from] DecodeError),
}

impl ReceiveError {
    /// Whether the peer did not keep to the protocol, rather than the stream to its purpose.
    #[must_use]
    pub const fn is_misbehaviour(&self) -> bool {
        match self {
            Self::Io(_) => false,
            Self::Frame(_) | Self::Decode(_) => true,
        }
    }
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The stream failed.
    #[error("the stream failed")]
    Io(#[from] io::Error),
    /// The message is larger than the stream takes.
    #[error("the message is too large to be sent")]
    TooLarge(#[from] FrameError),
}

/// Reads messages from a stream. Holds one frame and 16 KiB at most.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    decoder: FrameDecoder,
    buffer: Box<[u8]>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames of at most `limit` bytes.
    #[must_use]
    pub fn new(stream: R, limit: usize) -> Self {
        Self {
            stream,
            decoder: FrameDecoder::new(limit),
            buffer: vec![0; READ].into(),
        }
    }

    /// Receives the next message; `None` if the stream ended where a message could have begun.
    ///
    /// Cancel safe: a message of which a part came stays for the next call.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]; the stream is of no use after it.
    pub async fn receive<T: Decode<()>>(&mut self) -> Result<Option<T>, ReceiveError> {
        loop {
            if let Some(body) = self.decoder.next_frame()? {
                return Ok(Some(codec::decode(&body)?));
            }
            match self.stream.read(&mut self.buffer).await? {
                0 => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
                len => self.decoder.push(&self.buffer[..len]),
            }
        }
    }
}

/// Writes messages to a stream.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    limit: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames of at most `limit` bytes.
    #[must_use]
    pub const fn new(stream: W, limit: usize) -> Self {
        Self { stream, limit }
    }

    /// Sends a message: it is on its way, or in the transport's bounded buffer, on return.
    ///
    /// Not cancel safe: a frame may be left half written, after which nothing else can be sent.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was written if the message was too large.
    pub async fn send<T: Encode>(&mut self, message: &T) -> Result<(), SendError> {
        self.send_together(std::slice::from_ref(message)).await
    }

    /// Sends messages in their order, as [`send`](Self::send) does one. Small ones cost less so, as the
    /// stream below has them in one piece.
    ///
    /// # Errors
    ///
    /// [`SendError`]; nothing was written if one of the messages was too large.
    pub async fn send_together<T: Encode>(&mut self, messages: &[T]) -> Result<(), SendError> {
        let frames = messages
            .iter()
            .map(|message| encode_frame(message, self.limit));
        let frames: Vec<_> = frames.collect::<Result<_, _>>()?;
        self.stream.write_all(&frames.concat()).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Ends the stream, so that the peer receives what was sent and then `None`.
    ///
    /// # Errors
    ///
    /// The stream's error.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// The stream itself, to ask about it.
    pub const fn get_ref(&self) -> &W {
        &self.stream
    }

    /// The stream, after which nothing is written as a frame.
    pub fn into_inner(self) -> W {
        self.stream
    }
}

/// Receives the message in a stream's first frame and not one byte more, so that what follows can be
/// piped. An end before it is an error, too.
///
/// Not cancel safe.
///
/// # Errors
///
/// [`ReceiveError`]; the stream is of no use after it.
pub async fn receive_header<T: Decode<()>>(
    stream: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> Result<T, ReceiveError> {
    let mut header = [0; frame::HEADER];
    stream.read_exact(&mut header).await?;
    let mut body = vec![0; frame::body_len(header, limit)?];
    stream.read_exact(&mut body).await?;
    Ok(codec::decode(&body)?)
}

/// A message as a frame.
fn encode_frame<T: Encode>(message: &T, limit: usize) -> Result<Vec<u8>, FrameError> {
    let body = codec::encode(message);
    let header = frame::header(body.len(), limit)?;
    Ok([&header[..], &body].concat())
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn messages_come_out_as_they_went_in_and_then_the_end() {
        let (left, right) = duplex(7);
        let mut writer = FrameWriter::new(left, 100);
        let mut reader = FrameReader::new(right, 100);
        let send = async {
            for number in [1u64, 2, u64::MAX] {
                writer.send(&number).await.unwrap();
            }
            writer.finish().await.unwrap();
        };
        let receive = async {
            let mut numbers = Vec::new();
            while let Some(number) = reader.receive::<u64>().await.unwrap() {
                numbers.push(number);
            }
            numbers
        };
        let ((), numbers) = tokio::join!(send, receive);
        assert_eq!(numbers, [1, 2, u64::MAX]);
    }

    #[tokio::test]
    async fn a_cancelled_receive_loses_nothing() {
        let (mut left, right) = duplex(100);
        let mut reader = FrameReader::new(right, 100);
        let frame = encode_frame(&String::from("whole"), 100).unwrap();
        for byte in &frame[..frame.len() - 1] {
            left.write_all(&[*byte]).await.unwrap();
            // Polled once and dropped, as `select!` does.
            let once = std::future::poll_fn(|context| {
                let receive = std::pin::pin!(reader.receive::<String>());
                Poll::Ready(receive.poll(context).is_pending())
            });
            assert!(once.await);
        }
        left.write_all(&frame[frame.len() - 1..]).await.unwrap();
        let received: Option<String> = reader.receive().await.unwrap();
        assert_eq!(received.as_deref(), Some("whole"));
    }

    #[tokio::test]
    async fn misbehaviour_is_told_from_failure() {
        async fn receive(bytes: &[u8]) -> ReceiveError {
            FrameReader::new(bytes, 10)
                .receive::<u64>()
                .await
                .unwrap_err()
        }
        assert!(matches!(
            receive(&[0, 0, 0, 11]).await,
            ReceiveError::Frame(FrameError::TooLong { len: 11, limit: 10 })
        ));
        assert!(matches!(
            receive(&[0, 0, 0, 2, 7]).await,
            ReceiveError::Frame(FrameError::Truncated { missing: 1 })
        ));
        let trailing = receive(&[0, 0, 0, 2, 7, 7]).await;
        assert!(matches!(trailing, ReceiveError::Decode(_)));
        assert!(trailing.is_misbehaviour());
        assert!(!ReceiveError::from(io::Error::other("cut")).is_misbehaviour());
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_not_begun() {
        let mut writer = FrameWriter::new(Vec::new(), 10);
        assert!(matches!(
            writer.send(&"x".repeat(11)).await,
            Err(SendError::TooLarge(_))
        ));
        assert!(writer.into_inner().is_empty());
    }

    #[tokio::test]
    async fn a_header_takes_nothing_of_what_follows() {
        let mut bytes = encode_frame(&7u64, 10).unwrap();
        bytes.extend(b"rest");
        let mut stream = &bytes[..];
        assert_eq!(receive_header::<u64>(&mut stream, 10).await.unwrap(), 7);
        assert_eq!(stream, b"rest");
        assert!(receive_header::<u64>(&mut &bytes[..3], 10).await.is_err());
        assert!(
            receive_header::<u64>(&mut &[255; 8][..], 10)
                .await
                .unwrap_err()
                .is_misbehaviour()
        );
    }
}
