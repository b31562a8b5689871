//! Where inputs and outputs lie while a run lasts.

use std::{
    env, fs,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use bytesize::ByteSize;
use rustix::fs::{statfs, statvfs};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::{engines::Engine, operation::Operation};

/// The directory of a run, which goes with this value.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: TempDir,
}

/// What a run needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// In files.
    pub(crate) files: u64,
    /// In the memory of the in-process engines.
    pub(crate) memory: u64,
}

impl Scratch {
    /// Makes the directory: in `dir`, or where there is none, in memory if there is enough of it, else
    /// among the temporary files.
    pub(crate) fn create(dir: Option<&Path>, need: Need) -> anyhow::Result<Self> {
        let memory = available_memory()?;
        ensure!(
            need.memory <= memory,
            "the in-process engines need {} of memory and {} is available: choose a smaller --size",
            ByteSize(need.memory),
            ByteSize(memory),
        );
        let room = |dir: &Path| {
            let room = free_space(dir)?;
            anyhow::Ok(if is_in_memory(dir)? {
                room.min(memory - need.memory)
            } else {
                room
            })
        };
        let in_memory = Path::new(SHARED_MEMORY);
        let dir = match dir {
            Some(dir) => dir.to_owned(),
            None if is_in_memory(in_memory).unwrap_or(false) && room(in_memory)? >= need.files => {
                in_memory.to_owned()
            }
            None => env::temp_dir(),
        };
        let free = room(&dir)?;
        ensure!(
            need.files <= free,
            "the files of a run need {} and {} has room for {}: choose a smaller --size, or another \
             directory by --dir",
            ByteSize(need.files),
            dir.display(),
            ByteSize(free),
        );
        let dir = tempfile::Builder::new()
            .prefix("patchwire-bench-")
            .tempdir_in(&dir)
            .with_context(|| format!("can't make a directory in {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Makes the files of a workload their directory.
    pub(crate) fn files(&self, workload: &str) -> io::Result<Files> {
        let dir = self.dir.path().join(workload);
        fs::create_dir(&dir)?;
        Ok(Files { dir })
    }
}

/// The files of one workload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Files {
    dir: PathBuf,
}

impl Files {
    pub(crate) fn basis(&self) -> PathBuf {
        self.dir.join("basis")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.dir.join("target")
    }

    /// What an operation of an engine has made.
    pub(crate) fn output(&self, engine: Engine, operation: Operation) -> PathBuf {
        let name = format!("{}.{}", engine.name(), operation.name());
        self.dir.join(name)
    }

    /// What a program has printed.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Removes them all.
    pub(crate) fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(self.dir)
    }
}

/// Whether a file holds these bytes. Memory: a buffer.
pub(crate) fn holds(path: &Path, mut bytes: &[u8]) -> io::Result<bool> {
    let mut file = BufReader::with_capacity(256 << 10, fs::File::open(path)?);
    loop {
        let read = file.fill_buf()?;
        if read.is_empty() {
            return Ok(bytes.is_empty());
        }
        let len = read.len();
        match bytes.split_at_checked(len) {
            Some((same, rest)) if same == read => bytes = rest,
            _ => return Ok(false),
        }
        file.consume(len);
    }
}

/// Removes a file if it is there.
pub(crate) fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where files lie in memory on Linux: no disk disturbs the measurements there.
const SHARED_MEMORY: &str = "/dev/shm";

/// The magic number of tmpfs, from statfs(2).
const TMPFS: u64 = 0x0102_1994;

fn is_in_memory(dir: &Path) -> anyhow::Result<bool> {
    let of = statfs(dir).with_context(|| format!("can't examine {}", dir.display()))?;
    Ok(u64::try_from(of.f_type) == Ok(TMPFS))
}

fn free_space(dir: &Path) -> anyhow::Result<u64> {
    let of = statvfs(dir).with_context(|| format!("can't examine {}", dir.display()))?;
    Ok(of.f_bavail.saturating_mul(of.f_frsize))
}

fn available_memory() -> anyhow::Result<u64> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let line = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let kib = kib.context("/proc/meminfo has no MemAvailable")?;
    Ok(kib << 10)
}
