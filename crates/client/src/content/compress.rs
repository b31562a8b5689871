//! How hard the content stream is compressed.
//!
//! All of it shares one window while the level stays: a change of level is a new zstd frame. Small
//! streams are compressed well, as their bytes count and their time doesn't. Large ones begin in the
//! middle, and from there on it is the link that says: where pieces wait for it there is time to spare,
//! where it waits for pieces there is none. What a sample shows to be compressed already goes through
//! at the speed of copying.

use std::io::{self, Write};

use zstd::stream::raw::CParameter;

use super::{Link, Pieces};

/// From this length on, in bytes, a file is sampled: below it a frame of its own costs more than it
/// saves.
pub(super) const WORTH_A_SAMPLE: u64 = 256 << 10;

/// The levels, from the one for the fastest link on. A step costs about twice the time.
const LEVELS: [i32; 4] = [1, 3, 6, 9];

/// Where large streams begin: three times smaller for source code, at 0.4 GB/s.
const MIDDLE: usize = 1;

/// Up to so many bytes, none of them is to be spared: it takes 20 ms.
const LITTLE: u64 = 1 << 20;

/// Up to so many, bytes count for more than time: it takes 0.2 s at most.
const MUCH: u64 = 16 << 20;

/// What can't be compressed is copied at more than 2 GB/s.
const COPY: i32 = -100;

/// How many bytes go by before the level is thought over.
const STRETCH: u64 = 8 << 20;

/// A sample that keeps more than this many of 16 parts of its length is compressed already.
const COMPRESSED: usize = 15;

/// The largest window, as a power of two: what the other end allows.
const WINDOW_LOG: u32 = 23;

/// The smallest that zstd has.
const SMALLEST_LOG: u32 = 10;

/// A stream of zstd frames.
pub(super) struct Compressor<'a> {
    frame: Option<zstd::Encoder<'static, Pieces<'a>>>,
    effort: Effort,
    /// The level of the frame.
    level: i32,
    /// How many bytes go through at most, as a power of two.
    size_log: u32,
    /// How many bytes the level is still kept for.
    left: u64,
}

impl<'a> Compressor<'a> {
    /// Begins a stream of at most `most` bytes.
    pub(super) fn new(pieces: Pieces<'a>, most: u64) -> io::Result<Self> {
        let effort = Effort::new(most);
        let level = effort.level();
        let size_log = u64::BITS - most.leading_zeros();
        Ok(Self {
            frame: Some(frame(pieces, level, size_log)?),
            effort,
            level,
            size_log,
            left: STRETCH,
        })
    }

    /// What comes next is a file that begins so.
    pub(super) fn expect_like(&mut self, sample: &[u8]) -> io::Result<()> {
        let compressed = zstd::bulk::compress(sample, 1)?.len();
        self.set_level(match compressed * 16 > sample.len() * COMPRESSED {
            true => COPY,
            false => self.effort.level(),
        })
    }

    /// What comes next is no larger file.
    pub(super) fn expect_small(&mut self) -> io::Result<()> {
        self.set_level(self.effort.level())
    }

    /// Ends the stream.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.end_frame()?.flush()
    }

    fn set_level(&mut self, level: i32) -> io::Result<()> {
        if level != self.level {
            let pieces = self.end_frame()?;
            self.frame = Some(frame(pieces, level, self.size_log)?);
            self.level = level;
        }
        Ok(())
    }

    fn end_frame(&mut self) -> io::Result<Pieces<'a>> {
        self.frame.take().ok_or_else(gone)?.finish()
    }

    /// Thinks the level over, once enough has gone by.
    fn think(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Ok(());
        }
        self.left = STRETCH;
        let frame = self.frame.as_mut().ok_or_else(gone)?;
        let link = std::mem::take(&mut frame.get_mut().link);
        if self.level == COPY {
            return Ok(());
        }
        self.effort.adapt(link);
        self.set_level(self.effort.level())
    }
}

impl Write for Compressor<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.frame.as_mut().ok_or_else(gone)?.write(bytes)?;
        self.left = self.left.saturating_sub(written as u64);
        self.think()?;
        Ok(written)
    }

    /// Does nothing: what is in the window goes on when it is full, or at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// After a frame could not be begun, nothing more goes out.
fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

fn frame(
    pieces: Pieces<'_>,
    level: i32,
    size_log: u32,
) -> io::Result<zstd::Encoder<'static, Pieces<'_>>> {
    let mut encoder = zstd::Encoder::new(pieces, level)?;
    if level > 0 {
        let window_log = size_log.clamp(SMALLEST_LOG, WINDOW_LOG);
        encoder.set_parameter(CParameter::WindowLog(window_log))?;
        if window_log < SMALL_LOG {
            // Tables that fit, as clearing larger ones takes longer than all the rest.
            encoder.set_parameter(CParameter::HashLog(window_log + 1))?;
            encoder.set_parameter(CParameter::ChainLog(window_log + 1))?;
        } else if level == HUNGRY {
            encoder.set_parameter(CParameter::HashLog(HUNGRY_HASH_LOG))?;
        }
        if window_log == WINDOW_LOG {
            encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
        }
    }
    Ok(encoder)
}

/// The level whose table is larger than the window, and how large it may be, as a power of two: a
/// quarter of it makes 120 MB of source code 0.25 % longer, a tenth faster, and saves 18 MB of memory.
const HUNGRY: i32 = 9;
const HUNGRY_HASH_LOG: u32 = 20;

/// Streams below two megabytes get tables of their own size.
const SMALL_LOG: u32 = 21;

/// How hard to try. Pure.
#[derive(Clone, Copy, Debug)]
struct Effort {
    step: usize,
}

impl Effort {
    /// For a stream of at most `most` bytes.
    const fn new(most: u64) -> Self {
        Self {
            step: if most <= LITTLE {
                3
            } else if most <= MUCH {
                2
            } else {
                MIDDLE
            },
        }
    }

    const fn level(self) -> i32 {
        LEVELS[self.step]
    }

    /// Takes into account how the link took the last stretch.
    fn adapt(&mut self, link: Link) {
        if link.full > 2 * link.empty {
            self.step = (self.step + 1).min(LEVELS.len() - 1);
        } else if link.empty > 2 * link.full {
            self.step = self.step.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_says_how_hard_to_try() {
        let mut effort = Effort::new(1 << 30);
        let mut after = |full, empty| {
            effort.adapt(Link { full, empty });
            effort.level()
        };
        assert_eq!(after(10, 0), 6);
        assert_eq!(after(10, 4), 9);
        assert_eq!(after(10, 0), 9);
        assert_eq!(after(3, 3), 9);
        let levels: Vec<_> = (0..5).map(|_| after(0, 10)).collect();
        assert_eq!(levels, [6, 3, 1, 1, 1]);
        assert_eq!(Effort::new(1000).level(), 9);
        assert_eq!(Effort::new(10 << 20).level(), 6);
    }
}
