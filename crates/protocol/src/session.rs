//! One push as two sans-IO state machines, one for each end.
//!
//! Neither opens, sends, hashes or reads a clock. Each takes an input (a message of the other end,
//! the result of work that it asked for, the time) and gives outputs (a message to send, work to
//! do) until it says that it has finished. What they own is the *order* of a push: what may be said
//! when, what follows which result, and how long silence may last.
//!
//! ```text
//! developer                                   agent
//!                                  ◀────────  Greeting (before the machines begin)
//! Push, Operations…, Content…      ────────▶  judge the base
//!                                             stage, verify
//!                                  ◀────────  Progress…
//!                                             commit, reload, wait until ready, or roll back
//!                                  ◀────────  Answer
//!
//! and where the base is not what the agent has:
//!                                  ◀────────  Rebase, Entries…
//! Sign                             ────────▶
//!                                  ◀────────  Signature…
//! Push, Operations…, Content…      ────────▶  and on as above
//! ```

use crate::{
    codec::{self, Encode},
    limits,
};

pub mod answer;
pub mod receiver;
pub mod sender;

/// Cuts what is sent in many messages into what one of them may carry: at most [`limits::BATCH`]
/// items, and no more bytes than fit into a frame.
fn batches<T: Encode>(mut items: &[T]) -> impl Iterator<Item = &[T]> {
    /// What the message's variant and the number of its items take.
    const HEAD: usize = 16;
    std::iter::from_fn(move || {
        let mut bytes = HEAD;
        let fits = |item: &&T| {
            bytes += codec::encode(*item).len();
            bytes <= limits::FRAME
        };
        let count = items.iter().take(limits::BATCH).take_while(fits).count();
        // One item, with its two paths at most, is far below a frame.
        let (batch, rest) = items.split_at_checked(count.max(1))?;
        items = rest;
        Some(batch)
    })
}

#[cfg(test)]
mod tests;
