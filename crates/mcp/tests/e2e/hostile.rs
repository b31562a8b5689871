//! Whatever a developer, an agent or a stranger sends, nothing is written where it should not be,
//! nothing ends that should go on, and the next push works.

mod agent;
mod developer;
mod stranger;
mod words;

use patchwire_protocol::{codec, frame, limits};

/// A message as it stands on the stream.
fn frame(message: &impl codec::Encode) -> Vec<u8> {
    let body = codec::encode(message);
    let header = frame::header(body.len(), limits::FRAME).unwrap();
    [&header[..], &body].concat()
}
