//! What is asked of a push, and how far it is.

use std::path::PathBuf;

use patchwire_protocol::message::push::{AppOptions, Patterns, PatternsError, Phase};
use patchwire_tree::ScanOptions;

/// What to push.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// The directory.
    pub root: PathBuf,
    /// What of it.
    pub scan: ScanOptions,
    /// What the developer says of it. Default: nothing.
    pub message: String,
    /// Who pushes, for others to read. Default `developer`.
    pub author: String,
    /// Whether only to plan, and to say what the push would be about.
    pub dry_run: bool,
    /// Whether to replace what another developer pushed, and to delete as much as it takes.
    pub force: bool,
    /// Whether to delete what was never pushed, too, where it is not ignored.
    pub mirror: bool,
    /// Whether to delete as much as it takes, and no more of what `force` means. For an agent whose
    /// tree is of no other use.
    pub delete_any: bool,
    /// How the app is run, where the agent's own flags don't say.
    pub app: AppOptions,
    /// A directory of ours for what is remembered between pushes, shared by all deployments.
    pub state: PathBuf,
}

impl PushRequest {
    /// Asks to push `root` as it is, and to remember in `state`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            scan: ScanOptions::default(),
            message: String::new(),
            author: "developer".to_owned(),
            dry_run: false,
            force: false,
            mirror: false,
            delete_any: false,
            app: AppOptions::default(),
            state: state.into(),
        }
    }
}

impl PushRequest {
    /// What the configuration says of files, for the agent's side of a mirror.
    pub(crate) fn patterns(&self) -> Result<Patterns, PatternsError> {
        Patterns::new(self.scan.ignore.clone(), self.scan.include.clone())
    }
}

/// How far a push is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The directory is being scanned.
    Scanning {
        /// Entries found so far.
        entries: u64,
        /// Files read so far, and files to read once that is known.
        files: (u64, u64),
    },
    /// Relay and agent are being reached.
    Connecting,
    /// Content is being sent.
    Sending {
        /// Compressed bytes sent so far.
        sent: u64,
    },
    /// The agent works.
    Agent(Phase),
}
