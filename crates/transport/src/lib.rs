//! How Patchwire's ends find, trust and reach each other.
//!
//! A [link] names a relay and a deployment and holds what is needed to use them. From it come
//! [`Credentials`], and with them a [`RelayConnection`]: QUIC to the relay, whose key is pinned.
//! Through it developer and agent get [`InnerStream`]s, on which TLS runs again from end to end, so
//! that the relay sees names, sizes and times but no content.
//!
//! It is not a general QUIC library, and knows nothing of pushes: [`FrameReader`] and
//! [`FrameWriter`] carry whatever messages they are given.
//!
//! ```
//! use patchwire_transport::{DeploymentLink, Pin, RelayKey, RelayLink, Role};
//!
//! let relay = RelayLink::new("relay.example:4433".parse()?, Pin::of(b"a key"), RelayKey::random()?);
//! let link = DeploymentLink::mint(&relay, "shop".parse()?, "dev-ana".parse()?)?;
//!
//! let typed = link.expose();
//! let parsed: DeploymentLink = typed.parse()?;
//! assert_eq!(parsed.id(), link.id());
//! assert_eq!(link.to_string(), "patchwire://relay.example:4433/shop/dev-ana#…");
//!
//! let for_the_container = link.narrow();
//! assert!(for_the_container.credentials(Role::Agent).is_ok());
//! assert!(for_the_container.credentials(Role::Developer).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod backoff;
mod connection;
mod credentials;
pub mod endpoint;
mod identity;
mod inner;
pub mod link;
mod secret;
pub mod secret_file;
pub mod stream;
mod tls;

pub use address::{Address, AddressError};
pub use backoff::Backoff;
pub use connection::{ConnectError, Disconnected, OpenError, RelayConnection, dial};
pub use credentials::{Credentials, DeploymentId, verify_hello};
pub use identity::{IdentityError, Pin, RelayIdentity};
pub use inner::{HandshakeError, IncomingStream, InnerStream, Traffic};
pub use link::{DeploymentLink, LinkError, LinkSource, LinkSourceError, RelayLink};
pub use patchwire_protocol::message::relay::{Notice, PeerName, PublicKey, Refusal, Role};
pub use secret::{DeploymentSecret, NoRandomness, RelayKey, Seed, random_u64};
pub use stream::{FrameReader, FrameWriter, ReceiveError, SendError};
