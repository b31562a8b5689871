//! Frames: a length, then that many bytes.
//!
//! ```text
//! +----------------+------------------+
//! | length: u32 BE | body: length × u8 |
//! +----------------+------------------+
//! ```
//!
//! The length is checked against the stream's limit before anything is reserved for the body.

/// The bytes of a frame's length field.
pub const HEADER: usize = 4;

/// Why a stream is not a sequence of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The announced length is over the stream's limit.
    #[error("a frame announces {len} bytes, over the limit of {limit}")]
    TooLong {
        /// The announced length in bytes.
        len: u64,
        /// The limit of this stream in bytes.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, {missing} bytes short")]
    Truncated {
        /// How many bytes were missing at least.
        missing: usize,
    },
}

/// Checks a frame's header, and gives its body's length in bytes.
///
/// # Errors
///
/// [`FrameError::TooLong`] if the length is over `limit`.
pub fn body_len(header: [u8; HEADER], limit: usize) -> Result<usize, FrameError> {
    let announced = u32::from_be_bytes(header);
    usize::try_from(announced)
        .ok()
        .filter(|len| *len <= limit)
        .ok_or(FrameError::TooLong {
            len: announced.into(),
            limit,
        })
}

/// Makes the header of a frame whose body has `len` bytes.
///
/// # Errors
///
/// [`FrameError::TooLong`] if the body is over `limit`.
pub fn header(len: usize, limit: usize) -> Result<[u8; HEADER], FrameError> {
    u32::try_from(len)
        .ok()
        .filter(|_| len <= limit)
        .map(u32::to_be_bytes)
        .ok_or(FrameError::TooLong {
            len: len as u64,
            limit,
        })
}

/// Cuts a byte stream into frames. Holds at most one frame and what came behind it.
#[derive(Debug)]
pub struct FrameDecoder {
    limit: usize,
    buffer: Vec<u8>,
    start: usize,
}

impl FrameDecoder {
    /// Makes a decoder that refuses bodies over `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// Takes bytes as they came from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Gives the next whole frame's body, or `None` until more bytes come.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`]; the stream is of no use after it.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let pending = &self.buffer[self.start..];
        let Some((head, rest)) = pending.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let len = body_len(*head, self.limit)?;
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let body = body.to_vec();
        self.start += HEADER + len;
        Ok(Some(body))
    }

    /// Checks that the stream may end here.
    ///
    /// # Errors
    ///
    /// [`FrameError::Truncated`] if it ended inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        let pending = &self.buffer[self.start..];
        if pending.is_empty() {
            return Ok(());
        }
        let whole = match pending.split_first_chunk::<HEADER>() {
            Some((head, _)) => HEADER + body_len(*head, self.limit)?,
            None => HEADER,
        };
        Err(FrameError::Truncated {
            missing: whole.saturating_sub(pending.len()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        [&header(body.len(), 100).unwrap()[..], body].concat()
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let stream = [frame(b"one"), frame(b""), frame(&[7; 100])].concat();
        for cut in 1..stream.len() {
            let mut decoder = FrameDecoder::new(100);
            let mut frames = Vec::new();
            for part in stream.chunks(cut) {
                decoder.push(part);
                while let Some(body) = decoder.next_frame().unwrap() {
                    frames.push(body);
                }
            }
            assert_eq!(frames, [b"one".to_vec(), Vec::new(), vec![7; 100]]);
            decoder.finish().unwrap();
        }
    }

    #[test]
    fn an_announced_length_over_the_limit_is_refused_at_its_header() {
        let mut decoder = FrameDecoder::new(100);
        decoder.push(&u32::MAX.to_be_bytes());
        assert_eq!(
            decoder.next_frame(),
            Err(FrameError::TooLong {
                len: u32::MAX.into(),
                limit: 100
            })
        );
    }

    #[test]
    fn an_end_inside_a_frame_is_noticed() {
        let mut decoder = FrameDecoder::new(100);
        decoder.push(&frame(b"whole")[..6]);
        assert_eq!(decoder.next_frame(), Ok(None));
        assert_eq!(decoder.finish(), Err(FrameError::Truncated { missing: 3 }));
    }
}
