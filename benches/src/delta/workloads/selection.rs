//! Which places of its content the format of patchwire takes for anchors: what is made against its
//! search must have them, or must not.

/// How many positions before an anchor are not selected.
pub(super) const ISOLATION: usize = 16;

/// How many bytes an anchor's key is computed of.
pub(super) const KEY_LEN: usize = 64;

/// A gram that is selected at every block size: its product is the least there is.
pub(super) const SELECTED: [u8; GRAM] = 0x8000_0000_u32.to_le_bytes();

/// How many bytes decide whether a position is selected.
pub(super) const GRAM: usize = 4;

/// Selects positions as patchwire does in blocks of one size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection {
    threshold: i32,
}

impl Selection {
    /// Below the least block size that has anchors, it selects as there.
    pub(super) fn of(block_len: usize) -> Self {
        let spacing = u32::try_from(block_len.clamp(512, 64 << 10) / 8).unwrap_or(u32::MAX);
        Self {
            threshold: i32::MIN.wrapping_add_unsigned(u32::MAX / spacing),
        }
    }

    /// The positions that are selected, of those whose grams are within `bytes`.
    pub(super) fn positions(self, bytes: &[u8]) -> impl Iterator<Item = usize> {
        const MULTIPLIER: i32 = 0x9E37_79B1_u32.cast_signed();

        let grams = bytes
            .windows(GRAM)
            .map(|gram| i32::from_le_bytes(std::array::from_fn(|at| gram[at])));
        grams
            .enumerate()
            .filter(move |(_, gram)| gram.wrapping_mul(MULTIPLIER) < self.threshold)
            .map(|(position, _)| position)
    }

    /// Whether any position is selected.
    pub(super) fn any(self, bytes: &[u8]) -> bool {
        self.positions(bytes).next().is_some()
    }
}
