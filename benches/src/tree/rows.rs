//! The questions, each with what must hold.

mod cuts;
mod edits;
mod first_push;
mod large_file;
mod lost_base;
mod memory;
mod releases;
mod traffic;
mod unchanged;
mod warm;

use std::{fs, path::PathBuf};

use clap::ValueEnum;
use indicatif::ProgressBar;

use super::{
    forest::Forest,
    peers::{Rsync, commit},
    report::Measured,
    sample::Series,
    site::Site,
};

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// A command of its own, where nothing has changed, in the large tree and in a project's
    Unchanged,
    /// A command of its own, after 20 edits in the small tree
    Edits,
    /// A server that runs already, after one edit in the large tree
    Warm,
    /// The first push of the small tree
    FirstPush,
    /// The bytes of a server that runs already, after 1 and after 20 edits in the small tree
    Traffic,
    /// The bytes where a large file and a directory are renamed
    Renames,
    /// The bytes where a large file gets one byte at its front
    Insert,
    /// The bytes of ten new lines, where the agent has lost its state
    LostBase,
    /// The bytes of a real project's next release
    Releases,
    /// The bytes of a first push that is cut again and again
    Cuts,
    /// The most memory of developer and agent, on the large tree
    Memory,
}

impl Row {
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(crate) fn measure(self, field: &mut Field<'_>) -> anyhow::Result<Vec<Measured>> {
        Ok(match self {
            Self::Unchanged => unchanged::measure(field)?,
            Self::Edits => vec![edits::measure(field)?],
            Self::Warm => vec![warm::measure(field)?],
            Self::FirstPush => vec![first_push::measure(field)?],
            Self::Traffic => traffic::measure(field)?,
            Self::Renames => vec![large_file::measure_renames(field)?],
            Self::Insert => large_file::measure_insert(field)?,
            Self::LostBase => vec![lost_base::measure(field)?],
            Self::Releases => releases::measure(field)?,
            Self::Cuts => vec![cuts::measure(field)?],
            Self::Memory => memory::measure(field)?,
        })
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// The files of the large tree; the small one has a tenth.
    pub(crate) files: usize,
    /// How many rounds count.
    pub(crate) rounds: usize,
    /// The bytes of the large file.
    pub(crate) large_file: u64,
    /// The bytes of the push that is cut.
    pub(crate) cut_content: u64,
    /// How often it is cut.
    pub(crate) cuts: usize,
    /// How many projects have their next release pushed.
    pub(crate) releases: usize,
}

impl Sizes {
    pub(crate) fn small(self) -> usize {
        (self.files / 10).max(1)
    }
}

/// Where and how rows are measured.
#[derive(Debug)]
pub(crate) struct Field<'a> {
    pub(crate) site: &'a Site,
    pub(crate) sizes: Sizes,
    pub(crate) progress: &'a ProgressBar,
    /// Made once, as it takes long, and edited by several rows.
    large: Option<Forest>,
}

impl<'a> Field<'a> {
    pub(crate) const fn new(site: &'a Site, sizes: Sizes, progress: &'a ProgressBar) -> Self {
        Self {
            site,
            sizes,
            progress,
            large: None,
        }
    }

    /// The large tree, as the row before has left it.
    fn take_large(&mut self) -> anyhow::Result<Forest> {
        match self.large.take() {
            Some(large) => Ok(large),
            None => self.plant("large", self.sizes.files),
        }
    }

    /// A tree in a repository in which all is committed.
    fn plant(&self, name: &str, files: usize) -> anyhow::Result<Forest> {
        self.show(&format!("making {files} files"));
        let root = self.site.dir.join("sources").join(name);
        // A row that failed may have left some of it.
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let forest = Forest::plant(&root, files, files as u64, &self.site.interruption)?;
        commit(self.site, &root)?;
        Ok(forest)
    }

    /// Where rsync pushes to.
    fn target(&self, name: &str) -> PathBuf {
        self.site.dir.join("targets").join(name)
    }

    fn rsync(&self) -> anyhow::Result<Rsync<'a>> {
        fs::create_dir_all(self.target(""))?;
        Rsync::new(self.site)
    }

    fn show(&self, what: &str) {
        self.progress.set_message(what.to_owned());
        self.progress.tick();
    }

    /// Which round it is: the first warms caches and processes, and does not count.
    fn rounds(&self) -> impl Iterator<Item = usize> + use<> {
        0..=self.sizes.rounds
    }
}

/// Ours, in all tables.
const PATCHWIRE: &str = "patchwire";

fn ours() -> Series {
    Series::new(PATCHWIRE)
}
