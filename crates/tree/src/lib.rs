//! Directory trees: what a developer's holds, and how an agent's becomes that, as a whole or not at
//! all.
mod commit;
mod confine;
mod content;
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
pub use index::StatCache;
pub use inventory::Inventory;
pub use journal::CommitRecord;
pub use plan::{Counts, DELTA_MIN, Draft, Plan, plan};
pub use rules::{PatternError, RepositoryError, RulesError, global_excludes_file};
pub use scan::{Scan, ScanError, ScanOptions, ScanProgress, SymlinkPolicy, open_file, scan};
pub use stage::{StageError, Staged};
pub use store::{Recovery, Store, StoreError};
