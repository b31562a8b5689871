//! What developer and agent say to the relay, and the relay to them.
//!
//! A peer opens one *control stream* after the outer TLS handshake, sends [`Hello`] and gets a
//! [`RelayReply`]. After a welcome, [`Notice`]s may follow on it until either side goes away.
//!
//! ```text
//! developer                 relay                    agent
//!     │ Open, bytes… ───────▶ │ Incoming, bytes… ─────▶ │     one bidirectional stream each way
//!     │ ◀──── Opened, bytes…  │ ◀──────────── bytes…    │
//! ```
//!
//! Every message here is one frame of at most [`FRAME_UNAUTHENTICATED`](crate::limits) bytes; what
//! follows the header frame of a piped stream is the peers' own, and the relay does not look at it.
//! Layouts are given as the codec writes them: `u8` tags, variable-length integers (`int`), texts as
//! `int` length and UTF-8.

use std::{fmt, str::FromStr, time::Duration};

use crate::codec::{self, Decode, Decoder, Encode};
use crate::{
    name::Name,
    version::{Version, VersionRange},
};

/// The label of the outer TLS exporter whose 32 bytes a [`Hello`]'s signature covers (RFC 8446, 7.5).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-patchwire-hello";

/// The length of the outer TLS exporter, in bytes.
pub const EXPORTER_LEN: usize = 32;

/// The codes that close a connection.
pub mod close {
    /// The end has nothing more to say.
    pub const DONE: u32 = 0;
    /// The relay refused the peer; its reply on the control stream says why.
    pub const REFUSED: u32 = 1;
    /// A newer agent took this one's place.
    pub const REPLACED: u32 = 2;
    /// The relay ends, and will be back.
    pub const DRAINING: u32 = 3;
    /// The peer did not keep to the protocol.
    pub const MISBEHAVED: u32 = 4;
}

/// The codes that reset a piped stream, or stop it.
pub mod reset {
    /// The other end of the stream is gone.
    pub const GONE: u32 = 1;
    /// The relay could not make sense of the stream's header.
    pub const MISBEHAVED: u32 = 2;
}

/// Which end of a deployment a peer is.
///
/// On the wire: `u8`, 0 developer, 1 agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum Role {
    /// Sends pushes.
    Developer,
    /// Applies pushes.
    Agent,
}

impl Role {
    /// The role's name, as it goes into key derivation and signatures.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Developer => "developer",
            Self::Agent => "agent",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An Ed25519 public key.
///
/// On the wire: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// The relay key as a peer presents it: a secret, which `Debug` never shows.
///
/// On the wire: 32 bytes.
#[derive(Clone, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct PresentedKey(pub [u8; 32]);

impl fmt::Debug for PresentedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresentedKey(…)")
    }
}

/// An Ed25519 signature.
///
/// On the wire: 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(…)")
    }
}

/// How a peer wants to be called in what others read: 1 to [`PeerName::MAX`] bytes of text without
/// control characters. It identifies nobody.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct PeerName(String);

/// Why a text is not a [`PeerName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a display name has 1 to {max} bytes and no control characters, not {len} bytes of “{}”",
    start.escape_debug(),
    max = PeerName::MAX
)]
pub struct PeerNameError {
    start: String,
    len: usize,
}

impl PeerName {
    /// The longest name, in bytes.
    pub const MAX: usize = 128;

    /// Makes the name that is nearest to any text: control characters are left out, what is too
    /// long is cut, and nothing becomes “unnamed”.
    #[must_use]
    pub fn nearest(text: &str) -> Self {
        let mut name = String::new();
        for char in text.chars().filter(|char| !char.is_control()) {
            if name.len() + char.len_utf8() > Self::MAX {
                break;
            }
            name.push(char);
        }
        if name.is_empty() {
            name.push_str("unnamed");
        }
        Self(name)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerName {
    type Err = PeerNameError;

    fn from_str(name: &str) -> Result<Self, PeerNameError> {
        if (1..=Self::MAX).contains(&name.len()) && !name.chars().any(char::is_control) {
            return Ok(Self(name.to_owned()));
        }
        Err(PeerNameError {
            start: name.chars().take(Self::MAX).collect(),
            len: name.len(),
        })
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<Context> Decode<Context> for PeerName {
    fn decode<D: Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, codec::error::Decode> {
        codec::decode_text(decoder, Self::MAX)?
            .parse()
            .map_err(codec::invalid)
    }
}

codec::impl_borrow_decode!(PeerName);

/// Peer → relay, first frame of the control stream: who the peer is, and that it may use the relay.
///
/// ```text
/// versions: oldest int, newest int | role: u8 | relay_key: 32 | app: text | deployment: text
/// | developer: 32 | agent: 32 | name: text | signature: 64
/// ```
#[derive(Clone, Debug, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Hello {
    /// The versions the peer speaks.
    pub versions: VersionRange,
    /// Which end the peer is.
    pub role: Role,
    /// What lets it use this relay.
    pub relay_key: PresentedKey,
    /// The app's name.
    pub app: Name,
    /// The deployment's name.
    pub deployment: Name,
    /// The public key of the deployment's developers.
    pub developer: PublicKey,
    /// The public key of the deployment's agents.
    pub agent: PublicKey,
    /// How the peer wants to be called.
    pub name: PeerName,
    /// By the key of the peer's role over [`Hello::signed`].
    pub signature: Signature,
}

impl Hello {
    /// The key that the peer says it holds.
    #[must_use]
    pub const fn own_key(&self) -> PublicKey {
        match self.role {
            Role::Developer => self.developer,
            Role::Agent => self.agent,
        }
    }

    /// The bytes that this hello's signature has to cover on a connection with this TLS exporter.
    #[must_use]
    pub fn signed(&self, exporter: &[u8; EXPORTER_LEN]) -> Vec<u8> {
        signed(
            self.role,
            &self.app,
            &self.deployment,
            self.developer,
            self.agent,
            exporter,
        )
    }
}

/// The bytes that a peer signs to show that it holds its role's key, on this connection only.
///
/// ```text
/// "patchwire/1 relay hello" | "developer" or "agent" | u8 length, app | u8 length, deployment
/// | developer: 32 | agent: 32 | exporter: 32
/// ```
#[must_use]
pub fn signed(
    role: Role,
    app: &Name,
    deployment: &Name,
    developer: PublicKey,
    agent: PublicKey,
    exporter: &[u8; EXPORTER_LEN],
) -> Vec<u8> {
    let mut bytes = b"patchwire/1 relay hello".to_vec();
    bytes.extend(role.as_str().bytes());
    extend_with_names(&mut bytes, app, deployment);
    bytes.extend(developer.0);
    bytes.extend(agent.0);
    bytes.extend(exporter);
    bytes
}

/// Appends app and deployment, each behind its length in one byte.
pub fn extend_with_names(bytes: &mut Vec<u8>, app: &Name, deployment: &Name) {
    const { assert!(Name::MAX <= u8::MAX as usize) };
    for name in [app.as_str(), deployment.as_str()] {
        #[expect(clippy::cast_possible_truncation, reason = "names fit, as asserted")]
        bytes.push(name.len() as u8);
        bytes.extend(name.bytes());
    }
}

/// Relay → peer, answer to [`Hello`].
///
/// On the wire: `u8` 0 and the version, or `u8` 1 and the [`Refusal`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum RelayReply {
    /// The peer is attached, and both speak this version.
    Welcome {
        /// The newest version both speak.
        version: Version,
    },
    /// The peer is not attached; the relay closes the connection.
    Refused(Refusal),
}

/// Why the relay refuses a peer or a stream, in words a person can act on.
///
/// On the wire: `u8` tag in the order given, then the variant's fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum Refusal {
    /// No version is spoken by both.
    #[error(
        "the relay speaks protocol versions {} to {} and this program does not: update the older of the two",
        supported.oldest.0,
        supported.newest.0
    )]
    Version {
        /// What the relay speaks.
        supported: VersionRange,
    },
    /// The relay key is not this relay's.
    #[error(
        "the relay does not accept this link's relay key: take a new link from what the relay prints when it starts"
    )]
    RelayKey,
    /// The signature is not by the key of the role.
    #[error("the relay could not verify this end's signature: make the deployment's link anew")]
    Signature,
    /// An agent is attached for this app and deployment, with keys of another deployment secret.
    #[error(
        "the deployment's name is known under another deployment secret: use the same link on both sides"
    )]
    DeploymentSecret,
    /// No agent is attached for the deployment.
    #[error(
        "no agent is attached for this deployment: start patchwire-agent with the deployment's link"
    )]
    NoAgent,
    /// The relay is about to end.
    #[error("the relay is draining: come back in {retry_after_ms} ms")]
    Draining {
        /// When to come back, in milliseconds.
        retry_after_ms: u32,
    },
    /// A table of the relay, or the agent's streams, are full.
    #[error("the relay has no room: try again later or raise its limits")]
    Limit,
    /// The peer did not keep to the protocol.
    #[error("the relay could not read what this program sent: update the older of the two")]
    Malformed,
}

/// Relay → peer, on the control stream, at any time after the welcome.
///
/// On the wire: `u8` 0 and the name, or `u8` 1 and two `int`s.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum Notice {
    /// A newer agent attached for the deployment: new streams go there. Running ones may end.
    Replaced {
        /// The newer agent's display name.
        name: PeerName,
    },
    /// The relay ends soon; streams that are open may end within its grace period.
    Drain {
        /// When to come back, in milliseconds.
        retry_after_ms: u32,
        /// A random time up to this is to be added, so that not all come back at once.
        jitter_ms: u32,
    },
}

impl Notice {
    /// How long to stay away after a drain: what the relay asks for and a random part of its jitter,
    /// by where `random` lies in the range of `u64`; a minute at most. `None` for other notices.
    #[must_use]
    pub fn retry_delay(&self, random: u64) -> Option<Duration> {
        const LONGEST: Duration = Duration::from_secs(60);
        match self {
            Self::Replaced { .. } => None,
            Self::Drain {
                retry_after_ms,
                jitter_ms,
            } => {
                // The product of 32 and 32 bits fits.
                let jitter = (u64::from(*jitter_ms) * (random >> 32)) >> 32;
                let delay = u64::from(*retry_after_ms) + jitter;
                Some(Duration::from_millis(delay).min(LONGEST))
            }
        }
    }
}

/// Developer → relay, first frame of every other stream: asks for a stream to an agent.
///
/// On the wire: `u8` 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum Open {
    /// To the newest agent of the developer's deployment.
    Newest,
}

/// Relay → developer, first frame of a stream, before the agent's bytes.
///
/// On the wire: `u8` 0 and the agent's name, or `u8` 1 and the [`Refusal`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum OpenReply {
    /// What follows is piped.
    Opened {
        /// The agent's display name.
        agent: PeerName,
    },
    /// Nothing follows.
    Refused(Refusal),
}

/// Relay → agent, first frame of a stream, before the developer's bytes.
///
/// On the wire: the name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct Incoming {
    /// The developer's display name.
    pub developer: PeerName,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    fn hello() -> Hello {
        Hello {
            versions: VersionRange {
                oldest: Version(1),
                newest: Version(2),
            },
            role: Role::Agent,
            relay_key: PresentedKey([0x11; 32]),
            app: "shop".parse().unwrap(),
            deployment: "dev-ana".parse().unwrap(),
            developer: PublicKey([0x22; 32]),
            agent: PublicKey([0x33; 32]),
            name: "web-1".parse().unwrap(),
            signature: Signature([0x44; 64]),
        }
    }

    #[test]
    fn hello_bytes_of_version_1() {
        let golden = [
            &[1, 2][..], // versions
            &[1],        // role: agent
            &[0x11; 32], // relay key
            &[4],        // app: length
            b"shop",     //
            &[7],        // deployment: length
            b"dev-ana",  //
            &[0x22; 32], // developer
            &[0x33; 32], // agent
            &[5],        // name: length
            b"web-1",    //
            &[0x44; 64], // signature
        ]
        .concat();
        assert_eq!(codec::encode(&hello()), golden);
        let decoded: Hello = codec::decode(&golden).unwrap();
        assert_eq!(codec::encode(&decoded), golden);
        for len in 0..golden.len() {
            assert!(codec::decode::<Hello>(&golden[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn signed_bytes_of_version_1() {
        let golden = [
            &b"patchwire/1 relay hello"[..],
            b"agent",
            b"\x04shop\x07dev-ana",
            &[0x22; 32],
            &[0x33; 32],
            &[0x55; 32],
        ]
        .concat();
        assert_eq!(hello().signed(&[0x55; 32]), golden);
    }

    #[test]
    fn other_bytes_of_version_1() {
        fn golden<T: Encode + Decode<()> + PartialEq + fmt::Debug>(value: &T, bytes: &[u8]) {
            assert_eq!(codec::encode(value), bytes, "{value:?}");
            assert_eq!(&codec::decode::<T>(bytes).unwrap(), value);
        }
        let name = || PeerName::nearest("a");
        golden(
            &RelayReply::Welcome {
                version: Version(1),
            },
            &[0, 1],
        );
        let supported = VersionRange {
            oldest: Version(1),
            newest: Version(1),
        };
        golden(
            &RelayReply::Refused(Refusal::Version { supported }),
            &[1, 0, 1, 1],
        );
        golden(&Refusal::RelayKey, &[1]);
        golden(&Refusal::Signature, &[2]);
        golden(&Refusal::DeploymentSecret, &[3]);
        golden(&Refusal::NoAgent, &[4]);
        golden(&Refusal::Draining { retry_after_ms: 7 }, &[5, 7]);
        golden(&Refusal::Limit, &[6]);
        golden(&Refusal::Malformed, &[7]);
        golden(&Notice::Replaced { name: name() }, &[0, 1, b'a']);
        let drain = Notice::Drain {
            retry_after_ms: 250,
            jitter_ms: 1000,
        };
        golden(&drain, &[1, 250, 251, 232, 3]); // 251: an u16 follows
        golden(&Open::Newest, &[0]);
        golden(&OpenReply::Opened { agent: name() }, &[0, 1, b'a']);
        golden(&OpenReply::Refused(Refusal::NoAgent), &[1, 4]);
        golden(&Incoming { developer: name() }, &[1, b'a']);
    }

    #[test]
    fn a_relay_says_when_to_come_back_and_not_for_ever() {
        let drain = |retry_after_ms, jitter_ms| Notice::Drain {
            retry_after_ms,
            jitter_ms,
        };
        let millis = |ms| Some(Duration::from_millis(ms));
        assert_eq!(drain(250, 1000).retry_delay(0), millis(250));
        assert_eq!(drain(250, 1000).retry_delay(1 << 63), millis(750));
        assert_eq!(drain(250, 1000).retry_delay(u64::MAX), millis(1249));
        assert_eq!(
            drain(u32::MAX, u32::MAX).retry_delay(u64::MAX),
            millis(60_000)
        );
        let name = PeerName::nearest("newer");
        assert_eq!(Notice::Replaced { name }.retry_delay(0), None);
    }

    #[test]
    fn unknown_tags_are_errors() {
        assert!(codec::decode::<Notice>(&[2]).is_err());
        assert!(codec::decode::<Refusal>(&[8]).is_err());
        assert!(codec::decode::<Open>(&[1]).is_err());
    }

    #[test]
    fn the_largest_hello_fits_the_frame_before_authentication() {
        let mut hello = hello();
        hello.app = "a".repeat(Name::MAX).parse().unwrap();
        hello.deployment = hello.app.clone();
        hello.name = PeerName::nearest(&"n".repeat(1000));
        hello.versions.newest = Version(u16::MAX);
        assert!(codec::encode(&hello).len() <= limits::FRAME_UNAUTHENTICATED);
    }

    #[test]
    fn display_names_are_bounded_and_printable() {
        for bad in ["", "a\nb", "\u{9b}31m", &"x".repeat(129)] {
            assert!(bad.parse::<PeerName>().is_err(), "{bad:?}");
            assert!(codec::decode::<PeerName>(&codec::encode(&bad.to_owned())).is_err());
        }
        assert_eq!(PeerName::nearest("a\nb\u{9b}").as_str(), "ab");
        assert_eq!(PeerName::nearest("\n").as_str(), "unnamed");
        assert_eq!(PeerName::nearest(&"ä".repeat(100)).as_str().len(), 128);
        assert!(codec::decode::<PeerName>(&codec::encode(&u64::MAX)).is_err());
    }

    #[test]
    fn debug_shows_no_relay_key() {
        let debug = format!("{:?}", hello());
        assert!(debug.contains("PresentedKey(…)"), "{debug}");
        assert!(!debug.contains("17"), "{debug}"); // 0x11
    }
}
