//! Content that a few bytes describe, so that a fuzzer reaches blocks with anchors.

/// Instructions that make a basis, and of that a target.
///
/// Each is a byte that says what to do and three that say where and how much: first any number that
/// append to the basis, then any number that edit the target, which begins as the basis is. Whatever
/// the bytes, they are instructions, and what they make is at most 32 KiB.
pub struct Instructions<'d> {
    data: &'d [u8],
}

const MOST: usize = 32 << 10;

impl<'d> Instructions<'d> {
    /// Takes bytes for instructions.
    #[must_use]
    pub fn new(data: &'d [u8]) -> Self {
        Self { data }
    }

    /// Follows the instructions.
    #[must_use]
    pub fn basis_and_target(mut self) -> (Vec<u8>, Vec<u8>) {
        let mut basis = Vec::new();
        while let Some((Kind::Append(content), _, len)) = self.peek() {
            self.skip();
            let content = self.content(content, len);
            basis.extend(content);
            basis.truncate(MOST);
        }
        let mut target = basis.clone();
        while let Some((kind, at, len)) = self.peek() {
            self.skip();
            let at = target.len() * usize::from(at) / 256;
            let end = target.len().min(at + len);
            match kind {
                Kind::Append(content) => target.extend(self.content(content, len)),
                Kind::Insert(content) => {
                    target.splice(at..at, self.content(content, len));
                }
                Kind::Delete => {
                    target.drain(at..end);
                }
                Kind::Move => {
                    let cut: Vec<u8> = target.drain(at..end).collect();
                    let to = (at + 3 * len) % (target.len() + 1);
                    target.splice(to..to, cut);
                }
                Kind::Repeat => {
                    let again = target[at..end].to_vec();
                    target.splice(end..end, again);
                }
                Kind::Change => {
                    if let Some(byte) = target.get_mut(at) {
                        *byte ^= 1;
                    }
                }
                Kind::Truncate => target.truncate(end),
            }
            target.truncate(MOST);
        }
        (basis, target)
    }

    fn peek(&self) -> Option<(Kind, u8, usize)> {
        let [kind, at, high, low, ..] = *self.data else {
            return None;
        };
        // A quarter of all lengths are below 256.
        let len = match usize::from(u16::from_be_bytes([high, low])) {
            long @ 0x4000.. => long / 4,
            short => short % 256,
        };
        Some((Kind::of(kind), at, len))
    }

    fn skip(&mut self) {
        self.data = self.data.get(4..).unwrap_or_default();
    }

    fn content(&mut self, content: Content, len: usize) -> Vec<u8> {
        match content {
            Content::Given => {
                let (given, rest) = self.data.split_at(len.min(self.data.len()));
                self.data = rest;
                given.to_vec()
            }
            Content::Noise(seed) => noise(seed).take(len).collect(),
            Content::Periodic(seed) => {
                let period: Vec<u8> = noise(seed).take(1 + 37 * usize::from(seed)).collect();
                period.into_iter().cycle().take(len).collect()
            }
            Content::Bits(seed) => noise(seed).map(|byte| byte & 1).take(len).collect(),
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Append(Content),
    Insert(Content),
    Delete,
    Move,
    Repeat,
    Change,
    Truncate,
}

#[derive(Clone, Copy)]
enum Content {
    /// What follows the instruction.
    Given,
    Noise(u8),
    /// With a seed of 0, one byte again and again.
    Periodic(u8),
    Bits(u8),
}

impl Kind {
    fn of(byte: u8) -> Self {
        let content = match (byte >> 3) % 4 {
            0 => Content::Given,
            1 => Content::Noise(byte >> 5),
            2 => Content::Periodic(byte >> 5),
            _ => Content::Bits(byte >> 5),
        };
        match byte % 8 {
            0 | 1 => Self::Append(content),
            2 => Self::Insert(content),
            3 => Self::Delete,
            4 => Self::Move,
            5 => Self::Repeat,
            6 => Self::Change,
            _ => Self::Truncate,
        }
    }
}

/// Knuth's linear congruential generator.
fn noise(seed: u8) -> impl Iterator<Item = u8> {
    let mut state = u64::from(seed);
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[1]
    })
}
