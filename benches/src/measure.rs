//! What an operation costs, and the middle of many measurements.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What one run of an operation cost.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// The time on a processor, over all threads, in the program and in the kernel for it.
    pub(crate) cpu: Duration,
    /// The time that passed.
    pub(crate) wall: Duration,
    /// The most memory that was resident at once, where that was measured.
    pub(crate) peak_bytes: Option<u64>,
}

/// Runs something in this process, and says how long it took.
///
/// All threads of the process count: nothing else may run in it.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let started = Instant::now();
    let cpu_before = cpu_time();
    let made = work();
    let cpu = cpu_time().saturating_sub(cpu_before);
    let wall = started.elapsed();
    let cost = Cost {
        cpu,
        wall,
        peak_bytes: None,
    };
    (made, cost)
}

/// The time this process has spent on a processor.
pub(crate) fn cpu_time() -> Duration {
    // A clock that runs forward from zero fits.
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// The memory of this process that is resident, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resident {
    pub(crate) now: u64,
    /// The most since [`Resident::reset_peak`].
    pub(crate) peak: u64,
}

impl Resident {
    pub(crate) fn read() -> anyhow::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            kib.map(|kib| kib << 10)
                .with_context(|| format!("/proc/self/status has no {name}"))
        };
        Ok(Self {
            now: field("VmRSS:")?,
            peak: field("VmHWM:")?,
        })
    }

    /// Lets the peak begin at what is resident now (proc(5), `clear_refs`).
    pub(crate) fn reset_peak() -> io::Result<()> {
        fs::write("/proc/self/clear_refs", "5")
    }
}

/// The middle one, the later of two.
pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The middle one of some numbers, and the outermost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` where there are no numbers. Between two in the middle is the median.
    pub(crate) fn of(mut numbers: Vec<f64>) -> Option<Self> {
        numbers.sort_unstable_by(f64::total_cmp);
        let last = numbers.len().checked_sub(1)?;
        Some(Self {
            median: f64::midpoint(numbers[last / 2], numbers[numbers.len() / 2]),
            min: numbers[0],
            max: numbers[last],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_between_two() {
        assert!(Spread::of(Vec::new()).is_none());
        for (numbers, expected) in [
            (vec![4.0], [4.0, 4.0, 4.0]),
            (vec![4.0, 1.0], [1.0, 2.5, 4.0]),
            (vec![9.0, 1.0, 2.0], [1.0, 2.0, 9.0]),
            (vec![9.0, 1.0, 2.0, 4.0], [1.0, 3.0, 9.0]),
        ] {
            let Spread { median, min, max } = Spread::of(numbers).unwrap();
            assert_eq!([min, median, max], expected);
        }
    }

    #[test]
    fn work_takes_time_and_memory() {
        let before = Resident::read().unwrap();
        let (sum, cost) = timed(|| (0..1_000_000u64).map(std::hint::black_box).sum::<u64>());
        assert!(sum > 0);
        assert!(cost.cpu > Duration::ZERO && cost.wall > Duration::ZERO);
        assert!(before.now > 0 && before.peak > 0);
    }
}
