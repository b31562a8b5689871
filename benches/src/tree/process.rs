//! What a process that still runs has taken so far, as proc(5) says it.

use std::{fs, time::Duration};

use anyhow::Context;
use rustix::{param::clock_ticks_per_second, process::Pid};

/// The time on a processor, over all threads, to a hundredth of a second.
pub(crate) fn cpu_of(process: Pid) -> anyhow::Result<Duration> {
    let stat = read(process, "stat")?;
    // The name may hold anything, so what follows its last bracket counts: the state is the first.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
    let field = |index: usize| fields?.split(' ').nth(index)?.parse::<u64>().ok();
    let ticks = field(11).zip(field(12)).map(|(user, system)| user + system);
    let ticks = ticks.context("/proc/PID/stat is not what it was")?;
    Ok(Duration::from_secs_f64(
        ticks as f64 / clock_ticks_per_second() as f64,
    ))
}

/// The most memory that was resident at once, in bytes.
pub(crate) fn peak_of(process: Pid) -> anyhow::Result<u64> {
    let status = read(process, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("/proc/PID/status has no VmHWM")? << 10)
}

fn read(process: Pid, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{}/{file}", process.as_raw_nonzero());
    fs::read_to_string(&path).with_context(|| format!("can't read {path}"))
}
