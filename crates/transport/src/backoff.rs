//! How long to wait before trying again.

use std::time::Duration;

/// Exponential backoff with jitter: 50 ms, doubling up to 2 s, of which a random half is waited at
/// least. Never gives up, reads no clock, and takes its randomness from the caller.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The first ceiling.
    pub const FIRST: Duration = Duration::from_millis(50);
    /// The highest ceiling.
    pub const LONGEST: Duration = Duration::from_secs(2);

    /// Starts at the shortest wait.
    #[must_use]
    pub const fn new() -> Self {
        Self { failures: 0 }
    }

    /// How long to wait after one more failure: between half the ceiling and all of it, by where
    /// `random` lies in the range of `u64` (see [`random_u64`](crate::random_u64)).
    pub fn next_delay(&mut self, random: u64) -> Duration {
        let ceiling = Self::FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        let half = ceiling / 2;
        let share = u32::try_from(random >> 32).unwrap_or(u32::MAX);
        half + half.mul_f64(f64::from(share) / f64::from(u32::MAX))
    }

    /// Starts again at the shortest wait, after a success.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_their_ceiling_and_start_again() {
        let mut backoff = Backoff::new();
        let longest: Vec<_> = (0..8)
            .map(|_| backoff.next_delay(u64::MAX).as_millis())
            .collect();
        assert_eq!(longest, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        backoff.reset();
        let shortest: Vec<_> = (0..8).map(|_| backoff.next_delay(0).as_millis()).collect();
        assert_eq!(shortest, [25, 50, 100, 200, 400, 800, 1000, 1000]);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.next_delay(u64::MAX), Backoff::LONGEST);
    }
}
