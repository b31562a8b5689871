//! The relay: lets developers reach agents that can't be reached directly.
//!
//! It checks who may use it, knows which agent serves which deployment, and pipes streams between
//! them. It never sees what they carry: developer and agent run TLS inside. It stores nothing but its
//! own keys.
//!
//! ```no_run
//! # async fn example() -> Result<(), patchwire_relay::RelayError> {
//! use patchwire_relay::{Relay, RelayConfig};
//!
//! let config = RelayConfig::new("/var/lib/patchwire-relay");
//! let relay = Relay::bind(config)?;
//! println!("{}", *relay.link().expose());
//! relay.serve(std::future::pending()).await;
//! # Ok(())
//! # }
//! ```

mod auth;
mod config;
mod entry;
mod peer;
mod pipe;
mod router;
mod server;

pub use config::{Args, ConfigError, Limits, RelayConfig};
pub use entry::main;
pub use pipe::{Direction, Tap};
pub use server::{Relay, RelayError, run};
