//! Inputs that the tests share.
//!
//! What proptest makes up are recipes and not bytes, so that a failure prints what matters.

use std::{
    cell::Cell,
    io::{self, Read},
};

use patchwire_delta::{BlockSize, Seed, Signature, SignatureOptions};
use proptest::{collection::vec, prelude::*};

pub(crate) const SEED: Seed = Seed(0x5EED);

/// Without anchors and with them, powers of two and not, and such that not every place in a block
/// fits where a signature says it.
pub(crate) const BLOCK_SIZES: [u32; 7] = [64, 100, 512, 700, 2048, 65_536, 131_072];

pub(crate) fn options(block_size: u32) -> SignatureOptions {
    SignatureOptions {
        block_size: Some(BlockSize::try_from(block_size).unwrap()),
        ..SignatureOptions::new(SEED)
    }
}

pub(crate) fn signature(basis: &[u8], block_size: u32) -> Signature {
    Signature::of(basis, options(block_size))
}

/// A reader that gives a few bytes at a time, and is interrupted in between.
pub(crate) struct Dribble<'a> {
    bytes: &'a [u8],
    piece: usize,
    interrupt: bool,
}

pub(crate) const fn dribble(bytes: &[u8], piece: usize) -> Dribble<'_> {
    Dribble {
        bytes,
        piece,
        interrupt: false,
    }
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = buffer.len().min(self.piece);
        self.bytes.read(&mut buffer[..len])
    }
}

/// Bytes without any repetition worth matching.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    random(seed)
        .map(|word| word.to_be_bytes()[2])
        .take(len)
        .collect()
}

/// Bytes of two values: no two stretches are alike, but there are hardly any anchors.
pub(crate) fn bits(len: usize, seed: u64) -> Vec<u8> {
    noise(len, seed).iter().map(|byte| byte & 1).collect()
}

fn random(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state ^ (state >> 29)
    })
}

/// A basis and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) block_size: u32,
    basis: Vec<Content>,
    edits: Vec<Edit>,
}

/// Any content, any edits, and any block size of [`BLOCK_SIZES`]. Some of the content is there several
/// times.
pub(crate) fn case() -> impl Strategy<Value = Case> {
    let block_size = prop::sample::select(&BLOCK_SIZES);
    cases(block_size, vec(content(kind(), 0u64..4), 0..4))
}

/// As [`case`], but large blocks without periodic content: there one key can promise so many blocks
/// in vain that the search gives up, as it should.
pub(crate) fn searchable_case() -> impl Strategy<Value = Case> {
    let small = prop::sample::select(&BLOCK_SIZES[..5]);
    let large = prop::sample::select(&BLOCK_SIZES[5..]);
    prop_oneof![
        5 => cases(small, vec(content(kind(), 0u64..4), 0..4)),
        2 => cases(large, vec(content(kind_without_period(), 0u64..4), 0..4)),
    ]
}

/// Content that is not there twice at places other than whole blocks apart.
pub(crate) fn plain_case() -> impl Strategy<Value = Case> {
    let kind = prop_oneof![
        4 => kind_without_period(),
        1 => prop::sample::select(&[1, 2, 4]).prop_map(|part| Kind::Periodic(Period::Part(part))),
    ];
    let cases = cases(
        prop::sample::select(&BLOCK_SIZES),
        vec(content(kind, Just(0)), 0..4),
    );
    cases.prop_map(Case::with_other_seeds)
}

/// A basis of noise that has nothing twice.
pub(crate) fn noise_case() -> impl Strategy<Value = Case> {
    let cases = cases(
        prop::sample::select(&BLOCK_SIZES),
        vec(content(Just(Kind::Noise), Just(0)), 0..4),
    );
    cases.prop_map(Case::with_other_seeds)
}

fn cases(
    block_size: impl Strategy<Value = u32>,
    basis: impl Strategy<Value = Vec<Content>>,
) -> impl Strategy<Value = Case> {
    let case = (block_size, basis, vec(edit(), 0..6));
    case.prop_map(|(block_size, basis, edits)| Case {
        block_size,
        basis,
        edits,
    })
}

impl Case {
    fn with_other_seeds(mut self) -> Self {
        for (seed, content) in (1..).zip(&mut self.basis) {
            content.seed = seed;
        }
        self
    }

    pub(crate) fn signature(&self) -> Signature {
        signature(&self.basis(), self.block_size)
    }

    pub(crate) fn block_len(&self) -> usize {
        usize::try_from(self.block_size).unwrap()
    }

    pub(crate) fn basis(&self) -> Vec<u8> {
        let contents = self.basis.iter();
        contents
            .flat_map(|content| content.bytes(self.block_len()))
            .collect()
    }

    pub(crate) fn target(&self) -> Vec<u8> {
        let mut target = self.basis();
        self.edit(&mut target, &|content| content.bytes(self.block_len()));
        target
    }

    /// How many places of the target have neighbours that were none before, in the parts of the basis
    /// or in what was inserted.
    pub(crate) fn seams(&self) -> usize {
        let parts = Cell::new(0);
        let origins = |content: &Content| -> Vec<Origin> {
            let part = parts.replace(parts.get() + 1);
            let len = content.len.bytes(self.block_len());
            (0..len).map(|at| Some((part, at))).collect()
        };
        let mut target: Vec<_> = self.basis.iter().flat_map(origins).collect();
        self.edit(&mut target, &origins);
        let pairs = target.windows(2);
        let is_seam = |pair: &&[Origin]| match pair {
            [Some((part, at)), Some(next)] => *next != (*part, at + 1),
            _ => true,
        };
        pairs.filter(is_seam).count()
    }

    fn edit<T: Changed>(&self, target: &mut Vec<T>, new: &impl Fn(&Content) -> Vec<T>) {
        for edit in &self.edits {
            edit.apply(target, self.block_len(), new);
            target.truncate(TARGET_MAX);
        }
    }
}

/// Which part a byte of the target comes from, and from where in it.
type Origin = Option<(usize, usize)>;

/// No target is longer.
const TARGET_MAX: usize = 2 << 20;

/// What edits can be made to: bytes, and where they come from.
trait Changed: Copy {
    fn changed(self, bits: u8) -> Self;
}

impl Changed for u8 {
    fn changed(self, bits: u8) -> Self {
        self ^ bits
    }
}

impl Changed for Origin {
    fn changed(self, _: u8) -> Self {
        None
    }
}

/// A length in bytes, which depends on the block size.
#[derive(Debug, Clone, Copy)]
enum Length {
    /// So many blocks, and so many bytes more or less.
    Blocks(usize, isize),
    Bytes(usize),
    /// So many 65536ths of the most that is reasonable.
    Share(u16),
}

fn length() -> impl Strategy<Value = Length> {
    prop_oneof![
        (0usize..=3, -1isize..=1).prop_map(|(blocks, more)| Length::Blocks(blocks, more)),
        (0usize..=40, -1isize..=1).prop_map(|(blocks, more)| Length::Blocks(blocks, more)),
        (0usize..200).prop_map(Length::Bytes),
        any::<u16>().prop_map(Length::Share),
    ]
}

impl Length {
    fn bytes(self, block_len: usize) -> usize {
        // Many of small blocks, few of large ones.
        let most = (8 << 10)
            .max(32 * block_len)
            .min(64 << 10)
            .max(4 * block_len);
        let len = match self {
            Self::Blocks(blocks, more) => (blocks * block_len).saturating_add_signed(more),
            Self::Bytes(len) => len,
            Self::Share(share) => (most * usize::from(share)) >> 16,
        };
        len.min(most + 1)
    }
}

#[derive(Debug, Clone)]
struct Content {
    kind: Kind,
    len: Length,
    seed: u64,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Noise,
    /// Words that come again and again, in lines.
    Text,
    Bits,
    Zeros,
    Periodic(Period),
}

#[derive(Debug, Clone, Copy)]
enum Period {
    Bytes(usize),
    /// This part of a block.
    Part(usize),
    /// A block and so many bytes more or less.
    Block(isize),
}

fn kind() -> impl Strategy<Value = Kind> {
    let period = prop_oneof![
        (1usize..150).prop_map(Period::Bytes),
        (1usize..5).prop_map(Period::Part),
        (-1isize..=1).prop_map(Period::Block),
    ];
    prop_oneof![
        8 => kind_without_period(),
        3 => period.prop_map(Kind::Periodic),
    ]
}

fn kind_without_period() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Noise),
        2 => Just(Kind::Text),
        1 => Just(Kind::Bits),
        1 => Just(Kind::Zeros),
    ]
}

fn content(
    kind: impl Strategy<Value = Kind>,
    seed: impl Strategy<Value = u64>,
) -> impl Strategy<Value = Content> {
    (kind, length(), seed).prop_map(|(kind, len, seed)| Content { kind, len, seed })
}

impl Content {
    fn bytes(&self, block_len: usize) -> Vec<u8> {
        let len = self.len.bytes(block_len);
        match self.kind {
            Kind::Noise => noise(len, self.seed),
            Kind::Text => text(len, self.seed),
            Kind::Bits => bits(len, self.seed),
            Kind::Zeros => vec![0; len],
            Kind::Periodic(period) => {
                let period = match period {
                    Period::Bytes(period) => period,
                    Period::Part(part) => block_len / part,
                    Period::Block(more) => block_len.saturating_add_signed(more),
                };
                let period = noise(period, self.seed);
                period.into_iter().cycle().take(len).collect()
            }
        }
    }
}

/// Lines of a few hundred words that all begin alike.
pub(crate) fn text(len: usize, seed: u64) -> Vec<u8> {
    let words = random(seed).map(|word| match word >> 24 & 0x1FF {
        number @ 0..16 => format!("\n    return value_{number}("),
        number => format!("name{} ", number * number % 997),
    });
    let bytes: Vec<u8> = words.take(len / 5 + 1).collect::<String>().into_bytes();
    bytes.into_iter().cycle().take(len).collect()
}

/// A place in something, whatever its length: so many 2³²ths.
#[derive(Debug, Clone, Copy)]
struct Place(u32);

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![8 => any::<u32>(), 1 => Just(0), 1 => Just(u32::MAX)].prop_map(Place)
}

impl Place {
    /// From 0 to `len`, both included.
    fn of(self, len: usize) -> usize {
        ((len + 1) * usize::try_from(self.0).unwrap()) >> 32
    }
}

#[derive(Debug, Clone)]
enum Edit {
    Insert(Place, Content),
    Delete(Place, Length),
    Change(Place, u8),
    /// Cuts a range and inserts it elsewhere.
    Move {
        from: Place,
        len: Length,
        to: Place,
    },
    /// Has a range several times, one after the other.
    Repeat {
        from: Place,
        len: Length,
        times: usize,
    },
    Truncate(Place),
    /// Has nothing of the basis any more.
    Replace(Content),
    Empty,
}

fn edit() -> impl Strategy<Value = Edit> {
    // None of these seeds is one of a basis.
    let content = || content(kind(), 100u64..1000);
    prop_oneof![
        4 => (place(), content())
            .prop_map(|(at, content)| Edit::Insert(at, content)),
        4 => (place(), length()).prop_map(|(at, len)| Edit::Delete(at, len)),
        3 => (place(), 1u8..).prop_map(|(at, bits)| Edit::Change(at, bits)),
        4 => (place(), length(), place())
            .prop_map(|(from, len, to)| Edit::Move { from, len, to }),
        3 => (place(), length(), 2usize..5)
            .prop_map(|(from, len, times)| Edit::Repeat { from, len, times }),
        1 => place().prop_map(Edit::Truncate),
        1 => content().prop_map(Edit::Replace),
        1 => Just(Edit::Empty),
    ]
}

impl Edit {
    fn apply<T: Changed>(
        &self,
        bytes: &mut Vec<T>,
        block_len: usize,
        new: impl Fn(&Content) -> Vec<T>,
    ) {
        let total = bytes.len();
        let range = |from: &Place, len: &Length| {
            let from = from.of(total);
            from..total.min(from + len.bytes(block_len))
        };
        match self {
            Self::Insert(at, content) => {
                let at = at.of(total);
                bytes.splice(at..at, new(content));
            }
            Self::Delete(at, len) => {
                let range = range(at, len);
                bytes.drain(range);
            }
            Self::Change(at, bits) => {
                let at = at.of(total);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = byte.changed(*bits);
                }
            }
            Self::Move { from, len, to } => {
                let range = range(from, len);
                let cut: Vec<T> = bytes.drain(range).collect();
                let to = to.of(bytes.len());
                bytes.splice(to..to, cut);
            }
            Self::Repeat { from, len, times } => {
                let range = range(from, len);
                let again = bytes[range.clone()].repeat(times - 1);
                bytes.splice(range.end..range.end, again);
            }
            Self::Truncate(at) => {
                let at = at.of(total);
                bytes.truncate(at);
            }
            Self::Replace(content) => *bytes = new(content),
            Self::Empty => bytes.clear(),
        }
    }
}
