//! One push as two sans-IO state machines, one for each end.
//!
//! Neither opens, sends, hashes or reads a clock. Each takes an input (a message of the other end,
//! the result of work that it asked for, the time) and gives outputs (a message to send, work to
//! do) until it says that it has finished. What they own is the *order* of a push: what may be said
//! when, what follows which result, and how long silence may last.
//!
//! ```text
//! developer                                   agent
//!                                  ◀────────  Greeting (waited for by nobody)
//! Push, Content…                   ────────▶  judge the base
//!                                             stage, verify
//!                                  ◀────────  Progress, Received…
//!                                             commit, reload, wait until ready, or roll back
//!                                  ◀────────  Answer
//!
//! and where the base is not what the agent has:
//!                                  ◀────────  Rebase, Listing…
//! Sign                             ────────▶  once, or twice for large files
//!                                  ◀────────  Signature…
//! Push, Content…                   ────────▶  and on as above
//! ```

pub mod answer;
pub mod receiver;
pub mod sender;

#[cfg(test)]
mod tests;
