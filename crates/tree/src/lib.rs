//! Directory trees: what a developer's holds, and how an agent's becomes that, as a whole or not at
//! all.
mod confine;
mod content;
mod index;
mod plan;
mod rules;
mod scan;
mod sealed;
mod time;

pub use confine::PathError;
pub use index::StatCache;
pub use plan::{Counts, DELTA_MIN, Draft, Plan, plan};
pub use rules::{PatternError, RepositoryError, RulesError, global_excludes_file};
pub use scan::{Scan, ScanError, ScanOptions, ScanProgress, SymlinkPolicy, open_file, scan};
