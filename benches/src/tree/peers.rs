//! What patchwire is measured against: rsync through a pipe, `git status`, and a walk of our own.

use std::{
    ffi::OsString,
    fs,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat},
    io::Errno,
};

use super::{sample::Sample, site::Site};
use crate::{measure::timed, programs::isolate};

/// The names of the peers in tables.
pub(crate) const RSYNC: &str = "rsync";
pub(crate) const RSYNC_Z: &str = "rsync -z";
pub(crate) const GIT_STATUS: &str = "git-status";
pub(crate) const WALK: &str = "walk";

/// What stands in for ssh: it runs the command that rsync has for the other machine on this one, and is
/// that command from then on.
const REMOTE_SHELL: &str = "#!/bin/sh\nshift\neval \"exec $*\"\n";

/// The version of a peer.
pub(crate) fn version(program: &str) -> anyhow::Result<String> {
    let missing = || format!("{program} is needed; on Debian: apt install rsync git");
    let said = Command::new(program)
        .arg("--version")
        .output()
        .with_context(missing)?;
    ensure!(said.status.success(), missing());
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let line = said.lines().next().unwrap_or_default();
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// `rsync -a --delete` to another machine, as far as rsync knows.
#[derive(Debug)]
pub(crate) struct Rsync<'a> {
    site: &'a Site,
    shell: PathBuf,
}

impl<'a> Rsync<'a> {
    pub(crate) fn new(site: &'a Site) -> anyhow::Result<Self> {
        let shell = site.dir.join("remote-shell");
        if !shell.exists() {
            fs::write(&shell, REMOTE_SHELL)?;
            fs::set_permissions(&shell, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { site, shell })
    }

    /// Makes the target what the source is.
    pub(crate) fn push(
        &self,
        source: &Path,
        target: &Path,
        more: &[&str],
    ) -> anyhow::Result<Sample> {
        let mut command = Command::new("rsync");
        isolate(&mut command, &self.site.dir);
        command.args(["-a", "--delete", "--exclude=/.git", "--stats"]);
        // It takes words apart as a shell does.
        let mut shell = OsString::from("--rsh='");
        shell.push(&self.shell);
        shell.push("'");
        command.arg("--no-human-readable").arg(shell);
        command.args(more).env("LC_ALL", "C");
        let mut to = OsString::from("host:");
        to.push(target);
        command.arg(source.join("")).arg(to);
        let output = self.site.dir.join("rsync.out");
        let cost = self.site.run(command, &output)?;
        let said = String::from_utf8_lossy(&fs::read(&output)?).into_owned();
        let bytes = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            let bytes = line.and_then(|line| line.trim().replace(',', "").parse().ok());
            bytes.with_context(|| format!("rsync says no “{name}”: {said}"))
        };
        Ok(Sample {
            sent: Some(bytes("Total bytes sent:")?),
            received: Some(bytes("Total bytes received:")?),
            ..cost.into()
        })
    }
}

/// Gives a directory the content of another. A file that holds the same before stays as it is, its time
/// included.
pub(crate) fn replace(
    site: &Site,
    root: &Path,
    content: &Path,
    more: &[&str],
) -> anyhow::Result<()> {
    let mut command = Command::new("rsync");
    isolate(&mut command, &site.dir);
    command.args(["-rlpc", "--delete", "--exclude=/.git"]);
    command.args(more);
    command.arg(content.join("")).arg(root.join(""));
    site.run(command, &site.dir.join("rsync.out"))?;
    Ok(())
}

/// Makes a directory a repository in which all is committed.
pub(crate) fn commit(site: &Site, root: &Path) -> anyhow::Result<()> {
    git(site, root, &["init", "--quiet"])?;
    // All is large, and so goes into one pack, as in a clone.
    let fast = [
        "-c",
        "core.bigFileThreshold=1",
        "-c",
        "core.compression=0",
        "-c",
        "core.fsync=none",
    ];
    git(site, root, &[&fast[..], &["add", "--all"]].concat())?;
    let author = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"];
    let quiet = ["-c", "gc.auto=0", "commit", "--quiet", "--message=All"];
    git(site, root, &[&fast[..], &author, &quiet].concat())?;
    Ok(())
}

/// `git status`.
pub(crate) fn git_status(site: &Site, root: &Path) -> anyhow::Result<Sample> {
    git(site, root, &["status"])
}

pub(crate) fn git(site: &Site, root: &Path, arguments: &[&str]) -> anyhow::Result<Sample> {
    let mut command = Command::new("git");
    isolate(&mut command, &site.dir);
    command.arg("-C").arg(root).args(arguments);
    Ok(site.run(command, &site.dir.join("git.out"))?.into())
}

/// Reads all directories, and looks at each entry, by one thread.
pub(crate) fn walk(root: &Path) -> anyhow::Result<Sample> {
    let (walked, cost) = timed(|| count(root));
    walked?;
    Ok(cost.into())
}

/// How many files and links there are, by a walk; without git's.
pub(crate) fn count(root: &Path) -> anyhow::Result<usize> {
    let counted = openat(CWD, root, DIRECTORY, Mode::empty()).and_then(look);
    counted.with_context(|| format!("can't walk {}", root.display()))
}

fn look(directory: OwnedFd) -> Result<usize, Errno> {
    let mut files = 0;
    let mut directory = Dir::new(directory)?;
    while let Some(entry) = directory.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b".." | b".git") {
            continue;
        }
        let stat = statat(directory.fd()?, name, AtFlags::SYMLINK_NOFOLLOW)?;
        files += if FileType::from_raw_mode(stat.st_mode).is_dir() {
            look(openat(directory.fd()?, name, DIRECTORY, Mode::empty())?)?
        } else {
            1
        };
    }
    Ok(files)
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
