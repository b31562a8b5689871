//! The developer's side of Patchwire, to embed: reach an agent through its relay, push a directory,
//! ask how the app is.
//!
//! A [`Client`] holds a connection that comes back by itself. [`Client::push`] scans a directory,
//! sends what the agent lacks (as deltas where that is less), and waits until the app runs the new
//! code or the agent has rolled back; its [`PushReport`] says which. What it remembers between
//! pushes lies in a directory of the caller's choice and is never needed, only faster.
//!
//! It is not a file synchroniser for its own sake: trees go one way, and the agent's changes to
//! pushed files are reported as drift.
//!
//! ```no_run
//! use patchwire_client::{Client, ConnectOptions, PushRequest, report::ReportStatus};
//!
//! # async fn push() -> Result<(), Box<dyn std::error::Error>> {
//! let link = std::fs::read_to_string("deployment-link")?.trim().parse()?;
//! let client = Client::new(link, ConnectOptions::default());
//! let request = PushRequest::new("my-app", "/var/lib/my-tool/patchwire");
//! let report = client.push(&request, &|progress| eprintln!("{progress:?}")).await?;
//! match report.status {
//!     ReportStatus::Done | ReportStatus::NoChanges => println!("running {}", report.push_id),
//!     _ => eprintln!("{:?}: {:?}", report.error, report.agents),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `examples/push.rs` in this crate is the same as a program.

mod blocking;
pub mod config;
mod connect;
mod content;
mod conversation;
mod error;
mod keep;
pub mod links;
mod memory;
mod push;
pub mod report;
mod request;
mod session;
mod warm;
mod watch;

pub use connect::{Client, ConnectOptions, LogStream, StatusStream};
pub use content::ContentError;
pub use error::{ClientError, ErrorKind, chain};
pub use keep::Kept;
pub use report::PushReport;
pub use request::{Progress, PushRequest};
pub use warm::WarmTree;
pub use watch::{PushCause, WatchEvent, WatchOptions};
