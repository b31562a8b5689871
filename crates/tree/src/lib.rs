//! Directory trees: what a developer's holds, and how an agent's becomes the same, as a whole or
//! not at all.
//!
//! The developer's face is [`scan()`] (what a directory holds that is to be pushed: git's rules, a
//! stat cache) and [`plan()`] (what has to be done and sent). The agent's is [`Store`]: staged
//! beside the tree and verified, journaled, committed by renames, and rolled back if the app does
//! not start. After a crash at any point [`Store::open`] finds, or makes, the tree wholly old or
//! wholly new.
//!
//! Every file operation below a root goes through held directory descriptors and follows no link:
//! nothing is read or written outside, whatever a peer sends and whatever races on the disk.
//!
//! Linux only. Nothing here is async, speaks to a network or starts a process; calls block on the
//! disk.
//!
//! # Example
//!
//! ```
//! use patchwire_tree::{ScanOptions, StatCache, Store, plan, scan};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temporary = tempfile::tempdir()?;
//! # let (project, root) = (temporary.path().join("project"), temporary.path().join("root"));
//! # std::fs::create_dir(&project)?;
//! # std::fs::create_dir(&root)?;
//! // The developer's side.
//! std::fs::write(project.join("app.py"), "print('hello')")?;
//! let scanned = scan(&project, &ScanOptions::default(), &mut StatCache::default(), &|_| ())?;
//!
//! // The agent's side: what is there, to plan from.
//! let (mut store, _) = Store::open(&root, &root.join(".patchwire"), 1)?;
//! let available = store.inventory()?.manifest;
//! let plan = plan(&store.managed(), &available, &scanned.manifest).finish(|_| false);
//! assert_eq!(plan.counts.added, 1);
//!
//! // What is sent, and what becomes of it.
//! let content = std::fs::read(project.join("app.py"))?;
//! let push_id = [7; 16];
//! let staged = store.stage(
//!     push_id,
//!     &store.managed(),
//!     &available,
//!     scanned.manifest.root(),
//!     plan.operations,
//!     &mut &content[..],
//! )?;
//! store.commit(staged, b"", &mut |_window| ())?;
//! assert_eq!(std::fs::read(root.join("app.py"))?, content);
//! # Ok(())
//! # }
//! ```

mod commit;
mod confine;
mod content;
mod events;
mod fault;
mod index;
mod inventory;
mod journal;
mod plan;
mod rules;
mod scan;
mod sealed;
mod stage;
mod step;
mod store;
#[cfg(test)]
mod testing;
mod time;

pub use commit::{CommitError, Committed, RolledBack, Window};
pub use confine::PathError;
pub use events::{Events, EventsError, Happened, Watches, listen};
pub use index::StatCache;
pub use inventory::Inventory;
pub use journal::CommitRecord;
pub use plan::{Action, Change, Counts, DELTA_MIN, Draft, Plan, plan};
pub use rules::{PatternError, RepositoryError, RulesError, global_excludes_file, is_git_at_work};
pub use scan::{
    LiveTree, ModePolicy, Scan, ScanError, ScanOptions, ScanProgress, SymlinkPolicy, open_file,
    scan,
};
pub use stage::{StageError, Staged, kept::Kept};
pub use store::{Recovery, Store, StoreError};
