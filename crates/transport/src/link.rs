//! Links: everything a user handles of identities, in one line of text.
//!
//! ```text
//! patchwire://HOST:PORT#v1.<pin>.<relay key>.<checksum>                               relay
//! patchwire://HOST:PORT/APP/DEPLOYMENT#v1.<pin>.<relay key>.<deployment secret>.<checksum>
//! patchwire://HOST:PORT/APP/DEPLOYMENT#v1a.<pin>.<relay key>.<agent seed>.<developer key>.<checksum>
//! ```
//!
//! The parts are 32 bytes each in base64url without padding (RFC 4648, section 5). The checksum is
//! the first 6 bytes of the SHA-256 of the text before its dot, so that a mistyped link is told from
//! a refused one; the host stands there in lower case and the port always, so that a link holds
//! when it is typed otherwise.
//!
//! A link is a secret: [`RelayLink::expose`] and [`DeploymentLink::expose`] alone write it whole,
//! `Display` and `Debug` end with “#…”.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use patchwire_protocol::{
    message::relay::{PublicKey, Role},
    name::{Name, NameError},
};
use zeroize::Zeroizing;

mod source;

pub use source::{LinkSource, LinkSourceError};

use crate::{
    address::{Address, AddressError},
    credentials::{Credentials, DeploymentId, role_seed},
    identity::{Pin, public_key, sha256},
    secret::{DeploymentSecret, NoRandomness, RelayKey, Seed},
};

const SCHEME: &str = "patchwire://";
const FULL: &str = "v1";
const AGENT: &str = "v1a";
const CHECKSUM_LEN: usize = 6;

/// Why a text is not a link, or a link not of use. Never holds what stands behind the “#”.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It does not start as links do.
    #[error("this is not a link: links start with “patchwire://”")]
    NotALink,
    /// Host or port are none.
    #[error("the link's address is not one")]
    Address(#[from] AddressError),
    /// Nothing stands behind the host.
    #[error("the link has no “#” and nothing behind it: was it cut?")]
    Cut,
    /// It is of a version that is not known here.
    #[error("the link is mistyped, or of a newer version: update this program or check the link")]
    Version,
    /// It is not as it was made.
    #[error("the link is mistyped or cut: its checksum does not fit")]
    Checksum,
    /// App or deployment have no valid name.
    #[error("the link names no valid app and deployment")]
    Name(#[from] NameError),
    /// Its parts are not those of its kind, although the checksum fits.
    #[error("the link is not made as links are: make it anew")]
    Parts,
    /// It is a relay's.
    #[error(
        "this is a relay link, and a deployment link is needed: make one with `patchwire link APP DEPLOYMENT --relay LINK`"
    )]
    NeedsDeployment,
    /// It is a deployment's.
    #[error(
        "this is a link of a deployment, and a relay link is needed: the relay prints it when it starts"
    )]
    NeedsRelay,
    /// It is an agent's, used as a developer.
    #[error(
        "this link is an agent's and can't act as a developer: use the link it was narrowed from"
    )]
    AgentOnly,
    /// See [`NoRandomness`].
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Where a relay is, what it is known by, and what lets one use it.
#[derive(Clone)]
pub struct RelayLink {
    address: Address,
    pin: Pin,
    relay_key: RelayKey,
}

impl RelayLink {
    /// Makes the link of a relay.
    #[must_use]
    pub const fn new(address: Address, pin: Pin, relay_key: RelayKey) -> Self {
        Self {
            address,
            pin,
            relay_key,
        }
    }

    /// Where the relay is.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// What the relay is known by.
    #[must_use]
    pub const fn pin(&self) -> Pin {
        self.pin
    }

    /// What lets one use the relay.
    #[must_use]
    pub const fn relay_key(&self) -> &RelayKey {
        &self.relay_key
    }

    /// The whole link, which is a secret.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let mut body = Body::new(&format!("{SCHEME}{}", self.address), FULL);
        body.part(self.pin.as_bytes());
        body.part(self.relay_key.expose());
        body.finish()
    }
}

impl FromStr for RelayLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let parsed = Parsed::new(text)?;
        if parsed.path.is_some() {
            return Err(LinkError::NeedsRelay);
        }
        match (parsed.version, &parsed.parts[..]) {
            (FULL, [pin, relay_key]) => Ok(Self::new(
                parsed.address,
                Pin::new(**pin),
                RelayKey::new(**relay_key),
            )),
            _ => Err(LinkError::Parts),
        }
    }
}

impl fmt::Display for RelayLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}#…", self.address)
    }
}

impl fmt::Debug for RelayLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayLink({self})")
    }
}

/// A relay, a deployment, and what makes one an end of it.
#[derive(Clone)]
pub struct DeploymentLink {
    relay: RelayLink,
    app: Name,
    deployment: Name,
    keys: Keys,
}

#[derive(Clone)]
enum Keys {
    Full(DeploymentSecret),
    Agent { seed: Seed, developer: PublicKey },
}

impl DeploymentLink {
    /// Makes a new deployment at a relay, with a new secret.
    ///
    /// # Errors
    ///
    /// [`NoRandomness`] if the operating system gives none.
    pub fn mint(relay: &RelayLink, app: Name, deployment: Name) -> Result<Self, NoRandomness> {
        Ok(Self {
            relay: relay.clone(),
            app,
            deployment,
            keys: Keys::Full(DeploymentSecret::random()?),
        })
    }

    /// The same deployment at another relay, or at one that moved.
    #[must_use]
    pub fn at(&self, relay: &RelayLink) -> Self {
        Self {
            relay: relay.clone(),
            ..self.clone()
        }
    }

    /// The same deployment for an agent only; the link of an agent is already that.
    #[must_use]
    pub fn narrow(&self) -> Self {
        let keys = match &self.keys {
            Keys::Full(secret) => {
                let seed = |role| role_seed(secret, role, &self.app, &self.deployment);
                Keys::Agent {
                    seed: seed(Role::Agent),
                    developer: public_key(&seed(Role::Developer)),
                }
            }
            agent @ Keys::Agent { .. } => agent.clone(),
        };
        Self {
            keys,
            ..self.clone()
        }
    }

    /// What proves one to be this end of the deployment.
    ///
    /// # Errors
    ///
    /// [`LinkError::AgentOnly`] if a developer's credentials are asked of an agent's link.
    pub fn credentials(&self, role: Role) -> Result<Credentials, LinkError> {
        let (app, deployment) = (&self.app, &self.deployment);
        match (&self.keys, role) {
            (Keys::Full(secret), Role::Developer) => {
                Ok(Credentials::developer(secret, app, deployment))
            }
            (Keys::Full(secret), Role::Agent) => Ok(Credentials::agent(secret, app, deployment)),
            (Keys::Agent { seed, developer }, Role::Agent) => Ok(Credentials::narrowed_agent(
                seed.clone(),
                *developer,
                app,
                deployment,
            )),
            (Keys::Agent { .. }, Role::Developer) => Err(LinkError::AgentOnly),
        }
    }

    /// The relay's own link.
    #[must_use]
    pub const fn relay(&self) -> &RelayLink {
        &self.relay
    }

    /// The app's name.
    #[must_use]
    pub const fn app(&self) -> &Name {
        &self.app
    }

    /// The deployment's name.
    #[must_use]
    pub const fn deployment(&self) -> &Name {
        &self.deployment
    }

    /// Whether the link can act as an agent only.
    #[must_use]
    pub const fn is_agent_only(&self) -> bool {
        matches!(self.keys, Keys::Agent { .. })
    }

    /// Which deployment this is; the same for a link and what it was narrowed to.
    #[must_use]
    pub fn id(&self) -> DeploymentId {
        match &self.keys {
            Keys::Full(secret) => Credentials::agent(secret, &self.app, &self.deployment).id(),
            Keys::Agent { seed, developer } => {
                DeploymentId::new(&self.app, &self.deployment, *developer, public_key(seed))
            }
        }
    }

    /// The whole link, which is a secret.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let before = self.before();
        let (relay, pin) = (&self.relay.relay_key, &self.relay.pin);
        match &self.keys {
            Keys::Full(secret) => {
                let mut body = Body::new(&before, FULL);
                body.part(pin.as_bytes());
                body.part(relay.expose());
                body.part(secret.expose());
                body.finish()
            }
            Keys::Agent { seed, developer } => {
                let mut body = Body::new(&before, AGENT);
                body.part(pin.as_bytes());
                body.part(relay.expose());
                body.part(seed.expose());
                body.part(&developer.0);
                body.finish()
            }
        }
    }

    fn before(&self) -> String {
        format!(
            "{SCHEME}{}/{}/{}",
            self.relay.address, self.app, self.deployment
        )
    }
}

impl FromStr for DeploymentLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let parsed = Parsed::new(text)?;
        let Some(path) = parsed.path else {
            return Err(LinkError::NeedsDeployment);
        };
        let (app, deployment) = path.split_once('/').ok_or(LinkError::Parts)?;
        let (pin, relay_key, keys) = match (parsed.version, &parsed.parts[..]) {
            (FULL, [pin, relay_key, secret]) => {
                (pin, relay_key, Keys::Full(DeploymentSecret::new(**secret)))
            }
            (AGENT, [pin, relay_key, seed, developer]) => {
                let keys = Keys::Agent {
                    seed: Seed::new(**seed),
                    developer: PublicKey(**developer),
                };
                (pin, relay_key, keys)
            }
            _ => return Err(LinkError::Parts),
        };
        Ok(Self {
            relay: RelayLink::new(parsed.address, Pin::new(**pin), RelayKey::new(**relay_key)),
            app: app.parse()?,
            deployment: deployment.parse()?,
            keys,
        })
    }
}

impl fmt::Display for DeploymentLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#…", self.before())
    }
}

impl fmt::Debug for DeploymentLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeploymentLink({self})")
    }
}

/// A link being written.
struct Body(Zeroizing<String>);

impl Body {
    fn new(before: &str, version: &str) -> Self {
        // Room for every part at once: growing would leave copies of secrets behind.
        let mut text = String::with_capacity(before.len() + 256);
        text.push_str(before);
        text.push('#');
        text.push_str(version);
        Self(Zeroizing::new(text))
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.push('.');
        BASE64URL_NOPAD.encode_append(bytes, &mut self.0);
    }

    fn finish(mut self) -> Zeroizing<String> {
        let checksum = checksum(&self.0);
        self.part(&checksum);
        self.0
    }
}

/// A link whose checksum fits.
struct Parsed<'a> {
    address: Address,
    /// What stands between the address and “#”, without its first slash.
    path: Option<&'a str>,
    version: &'static str,
    parts: Vec<Zeroizing<[u8; 32]>>,
}

impl<'a> Parsed<'a> {
    fn new(text: &'a str) -> Result<Self, LinkError> {
        let rest = text.strip_prefix(SCHEME).ok_or(LinkError::NotALink)?;
        let (before, fragment) = rest.split_once('#').ok_or(LinkError::Cut)?;
        let (authority, path) = match before.split_once('/') {
            Some((authority, path)) => (authority, Some(path)),
            None => (before, None),
        };
        let address: Address = authority.parse()?;

        let (body, given) = fragment.rsplit_once('.').ok_or(LinkError::Checksum)?;
        let mut parts = body.split('.');
        let version = match parts.next() {
            Some(FULL) => FULL,
            Some(AGENT) => AGENT,
            _ => return Err(LinkError::Version),
        };
        let slash = if path.is_some() { "/" } else { "" };
        let canonical = Zeroizing::new(format!(
            "{SCHEME}{address}{slash}{}#{body}",
            path.unwrap_or_default()
        ));
        if BASE64URL_NOPAD.encode(&checksum(&canonical)) != given {
            return Err(LinkError::Checksum);
        }

        Ok(Self {
            address,
            path,
            version,
            parts: parts.map(part).collect::<Result<_, _>>()?,
        })
    }
}

fn part(text: &str) -> Result<Zeroizing<[u8; 32]>, LinkError> {
    let decoded = BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| LinkError::Parts)?;
    <[u8; 32]>::try_from(&decoded[..])
        .map(Zeroizing::new)
        .map_err(|_| LinkError::Parts)
}

fn checksum(text: &str) -> [u8; CHECKSUM_LEN] {
    let digest = sha256(text.as_bytes());
    let mut checksum = [0; CHECKSUM_LEN];
    checksum.copy_from_slice(&digest[..CHECKSUM_LEN]);
    checksum
}

#[cfg(test)]
mod tests;
