//! Who an end of a deployment is, and how it proves it.

use std::fmt;

use patchwire_protocol::{
    message::relay::{self, EXPORTER_LEN, Hello, PublicKey, Role, Signature},
    name::Name,
};
use ring::{hkdf, signature};

use crate::{
    identity::{key_pair, public_key, sha256},
    secret::{DeploymentSecret, Seed},
};

/// One end of a deployment: its role's private key, and both roles' public keys.
#[derive(Debug, Clone)]
pub struct Credentials {
    role: Role,
    app: Name,
    deployment: Name,
    seed: Seed,
    developer: PublicKey,
    agent: PublicKey,
}

impl Credentials {
    /// A developer's credentials, from the deployment secret.
    #[must_use]
    pub fn developer(secret: &DeploymentSecret, app: &Name, deployment: &Name) -> Self {
        let seed = role_seed(secret, Role::Developer, app, deployment);
        Self {
            role: Role::Developer,
            app: app.clone(),
            deployment: deployment.clone(),
            developer: public_key(&seed),
            agent: public_key(&role_seed(secret, Role::Agent, app, deployment)),
            seed,
        }
    }

    /// An agent's credentials, from the deployment secret.
    #[must_use]
    pub fn agent(secret: &DeploymentSecret, app: &Name, deployment: &Name) -> Self {
        let developer = public_key(&role_seed(secret, Role::Developer, app, deployment));
        let seed = role_seed(secret, Role::Agent, app, deployment);
        Self::narrowed_agent(seed, developer, app, deployment)
    }

    /// An agent's credentials, from what a narrowed link holds.
    #[must_use]
    pub fn narrowed_agent(seed: Seed, developer: PublicKey, app: &Name, deployment: &Name) -> Self {
        Self {
            role: Role::Agent,
            app: app.clone(),
            deployment: deployment.clone(),
            developer,
            agent: public_key(&seed),
            seed,
        }
    }

    /// The role that these credentials are for.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
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

    /// The developers' public key.
    #[must_use]
    pub const fn developer_key(&self) -> PublicKey {
        self.developer
    }

    /// The agents' public key.
    #[must_use]
    pub const fn agent_key(&self) -> PublicKey {
        self.agent
    }

    /// The public key of this end.
    #[must_use]
    pub const fn own_key(&self) -> PublicKey {
        match self.role {
            Role::Developer => self.developer,
            Role::Agent => self.agent,
        }
    }

    /// The public key that the other end has to prove.
    #[must_use]
    pub const fn peer_key(&self) -> PublicKey {
        match self.role {
            Role::Developer => self.agent,
            Role::Agent => self.developer,
        }
    }

    /// Which deployment this is.
    #[must_use]
    pub fn id(&self) -> DeploymentId {
        DeploymentId::new(&self.app, &self.deployment, self.developer, self.agent)
    }

    /// Signs this end's [`Hello`] for one connection, of which `exporter` is the TLS exporter.
    #[must_use]
    pub fn sign_hello(&self, exporter: &[u8; EXPORTER_LEN]) -> Signature {
        let signed = relay::signed(
            self.role,
            &self.app,
            &self.deployment,
            self.developer,
            self.agent,
            exporter,
        );
        let mut signature = [0; 64];
        signature.copy_from_slice(key_pair(&self.seed).sign(&signed).as_ref());
        Signature(signature)
    }

    pub(crate) const fn seed(&self) -> &Seed {
        &self.seed
    }
}

/// Whether a hello is signed by its role's key, for the connection with this TLS exporter.
#[must_use]
pub fn verify_hello(hello: &Hello, exporter: &[u8; EXPORTER_LEN]) -> bool {
    signature::UnparsedPublicKey::new(&signature::ED25519, hello.own_key().0)
        .verify(&hello.signed(exporter), &hello.signature.0)
        .is_ok()
}

/// Which deployment something belongs to: its names under its two public keys, as a SHA-256.
///
/// The same names under another secret are another deployment. It is no secret; `Display` is hex,
/// fit for a file's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeploymentId([u8; 32]);

impl DeploymentId {
    /// The id of these names under these keys.
    #[must_use]
    pub fn new(app: &Name, deployment: &Name, developer: PublicKey, agent: PublicKey) -> Self {
        let mut bytes = b"patchwire/1 deployment".to_vec();
        relay::extend_with_names(&mut bytes, app, deployment);
        bytes.extend(developer.0);
        bytes.extend(agent.0);
        Self(sha256(&bytes))
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeploymentId({self})")
    }
}

/// The seed of a role's key: HKDF-SHA-256 (RFC 5869) of the deployment secret, without a salt, with
/// `"patchwire/1" | "developer" or "agent" | u8 length, app | u8 length, deployment` as its info.
pub(crate) fn role_seed(
    secret: &DeploymentSecret,
    role: Role,
    app: &Name,
    deployment: &Name,
) -> Seed {
    let mut info = b"patchwire/1".to_vec();
    info.extend(role.as_str().bytes());
    relay::extend_with_names(&mut info, app, deployment);
    let mut seed = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(secret.expose())
        .expand(&[&info], hkdf::HKDF_SHA256)
        .and_then(|key| key.fill(&mut seed))
        .expect("32 bytes are one block of HKDF-SHA-256");
    Seed::new(seed)
}

#[cfg(test)]
mod tests {
    use patchwire_protocol::{
        message::relay::{PeerName, PresentedKey},
        version::VersionRange,
    };

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn both(secret: u8, app: &str, deployment: &str) -> (Credentials, Credentials) {
        let secret = DeploymentSecret::new([secret; 32]);
        let (app, deployment) = (name(app), name(deployment));
        (
            Credentials::developer(&secret, &app, &deployment),
            Credentials::agent(&secret, &app, &deployment),
        )
    }

    fn hello(credentials: &Credentials, exporter: &[u8; 32]) -> Hello {
        Hello {
            versions: VersionRange::SUPPORTED,
            role: credentials.role(),
            relay_key: PresentedKey([0; 32]),
            app: credentials.app().clone(),
            deployment: credentials.deployment().clone(),
            developer: credentials.developer_key(),
            agent: credentials.agent_key(),
            name: PeerName::nearest("here"),
            signature: credentials.sign_hello(exporter),
        }
    }

    #[test]
    fn derived_keys_never_change() {
        // Computed once with Python's hmac and hashlib: links that were given out have to stay good.
        let seed = role_seed(
            &DeploymentSecret::new([1; 32]),
            Role::Agent,
            &name("shop"),
            &name("dev-ana"),
        );
        assert_eq!(
            data_encoding::HEXLOWER.encode(seed.expose()),
            "ea79cf04db2b3f14fadbe3bf87e412ae74d96e494d37b1456b0232132c2b2376"
        );
    }

    #[test]
    fn both_ends_agree_and_nobody_else_does() {
        let (developer, agent) = both(1, "shop", "dev");
        assert_eq!(developer.id(), agent.id());
        assert_eq!(developer.peer_key(), agent.own_key());
        assert_eq!(agent.peer_key(), developer.own_key());
        assert_ne!(agent.own_key(), developer.own_key());
        for (secret, app, deployment) in
            [(2, "shop", "dev"), (1, "sho", "pdev"), (1, "dev", "shop")]
        {
            assert_ne!(both(secret, app, deployment).0.id(), developer.id());
            assert_ne!(
                both(secret, app, deployment).0.own_key(),
                developer.own_key()
            );
        }
    }

    #[test]
    fn a_hello_holds_on_its_own_connection_only() {
        let (developer, agent) = both(1, "shop", "dev");
        for credentials in [&developer, &agent] {
            let hello = hello(credentials, &[9; 32]);
            assert!(verify_hello(&hello, &[9; 32]));
            assert!(!verify_hello(&hello, &[8; 32]));
        }
        let mut other_role = hello(&developer, &[9; 32]);
        other_role.role = Role::Agent;
        assert!(!verify_hello(&other_role, &[9; 32]));
        let mut other_app = hello(&developer, &[9; 32]);
        other_app.app = name("shops");
        assert!(!verify_hello(&other_app, &[9; 32]));
    }
}
