//! What makes a relay the relay it was before: its keys, kept in its state directory.

use std::{
    fmt, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use patchwire_protocol::message::relay::PublicKey;
use ring::{
    digest,
    signature::{Ed25519KeyPair, KeyPair},
};
use zeroize::Zeroizing;

use crate::{
    secret::{NoRandomness, RelayKey, Seed},
    secret_file,
};

/// The SHA-256 of a relay's public key, by which its peers know it.
///
/// The key is hashed as its 44-byte `SubjectPublicKeyInfo` (RFC 8410).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of an encoded public key.
    #[must_use]
    pub fn of(spki: &[u8]) -> Self {
        Self(sha256(spki))
    }

    /// Takes a pin that stood in a link.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The pin's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// A relay's secrets, the same at every start from one state directory.
#[derive(Debug, Clone)]
pub struct RelayIdentity {
    seed: Seed,
    relay_key: RelayKey,
    reset_key: Seed,
    connection_id_key: Seed,
}

/// Why a relay has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The state directory or a file in it cannot be read or written.
    #[error(
        "cannot use “{}” of the relay's state: make it writable, or choose another directory with --state",
        path.display()
    )]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A file is not what a relay wrote.
    #[error(
        "“{}” has {len} bytes and not the 32 of a key: restore it, or remove it and give out new links",
        path.display()
    )]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// How long it is.
        len: usize,
    },
    /// See [`NoRandomness`].
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl RelayIdentity {
    /// Loads a relay's keys from its state directory; makes the directory (mode 0700) and what is
    /// missing in it (mode 0600).
    ///
    /// Each key has a file of its own, so that removing `relay.key` alone revokes every link and
    /// keeps the pin. The keys for stateless resets and connection ids are kept because without
    /// them peers notice a killed relay only after their idle timeout.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if the files can't be used or are something else.
    pub fn load_or_create(state: &Path) -> Result<Self, IdentityError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state)
            .map_err(at(state))?;
        Ok(Self {
            seed: load_or_create(&state.join("identity.key"))?,
            relay_key: RelayKey::new(*load_or_create(&state.join("relay.key"))?.expose()),
            reset_key: load_or_create(&state.join("reset.key"))?,
            connection_id_key: load_or_create(&state.join("connection-id.key"))?,
        })
    }

    /// What its peers have to present.
    #[must_use]
    pub const fn relay_key(&self) -> &RelayKey {
        &self.relay_key
    }

    /// What its peers know it by.
    #[must_use]
    pub fn pin(&self) -> Pin {
        Pin::of(&spki(public_key(&self.seed)))
    }

    pub(crate) const fn seed(&self) -> &Seed {
        &self.seed
    }

    /// Authenticates stateless resets (RFC 9000, 10.3).
    pub(crate) const fn reset_key(&self) -> &Seed {
        &self.reset_key
    }

    /// Tells this relay's connection ids from arbitrary bytes.
    pub(crate) fn connection_id_key(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *self.connection_id_key.expose();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// The public part of an Ed25519 key.
pub(crate) fn public_key(seed: &Seed) -> PublicKey {
    let pair = key_pair(seed);
    let mut key = [0; 32];
    key.copy_from_slice(pair.public_key().as_ref());
    PublicKey(key)
}

pub(crate) fn key_pair(seed: &Seed) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed.expose()).expect("any 32 bytes are a seed")
}

/// An Ed25519 public key as a `SubjectPublicKeyInfo` (RFC 8410, section 4).
pub(crate) fn spki(key: PublicKey) -> [u8; 44] {
    const PREFIX: [u8; 12] = [
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    let mut spki = [0; 44];
    spki[..12].copy_from_slice(&PREFIX);
    spki[12..].copy_from_slice(&key.0);
    spki
}

/// An Ed25519 private key as PKCS #8, version 1 (RFC 8410, section 7).
pub(crate) fn pkcs8(seed: &Seed) -> Zeroizing<[u8; 48]> {
    const PREFIX: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let mut pkcs8 = Zeroizing::new([0; 48]);
    pkcs8[..16].copy_from_slice(&PREFIX);
    pkcs8[16..].copy_from_slice(seed.expose());
    pkcs8
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    digest
}

fn load_or_create(path: &Path) -> Result<Seed, IdentityError> {
    if let Some(key) = load(path)? {
        return Ok(key);
    }
    let key = Seed::random()?;
    match secret_file::create(path, key.expose()) {
        Ok(()) => Ok(key),
        // Another relay started at the same time: its key is there whole, and is the one.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            load(path)?.ok_or_else(|| at(path)(error))
        }
        Err(error) => Err(at(path)(error)),
    }
}

fn load(path: &Path) -> Result<Option<Seed>, IdentityError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path)(error)),
    };
    let key = <[u8; 32]>::try_from(&bytes[..]).map_err(|_| IdentityError::NotAKey {
        path: path.to_owned(),
        len: bytes.len(),
    })?;
    Ok(Some(Seed::new(key)))
}

fn at(path: &Path) -> impl Fn(io::Error) -> IdentityError {
    |source| IdentityError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_state_directory_keeps_the_relay_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("deep/state");
        let first = RelayIdentity::load_or_create(&state).unwrap();
        let again = RelayIdentity::load_or_create(&state).unwrap();
        assert_eq!(first.pin(), again.pin());
        assert!(first.relay_key().matches(again.relay_key().expose()));
        assert_eq!(first.connection_id_key(), again.connection_id_key());
        assert!(first.reset_key().matches(again.reset_key().expose()));
        assert!(!first.reset_key().matches(first.relay_key().expose()));

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        for file in [
            "identity.key",
            "relay.key",
            "reset.key",
            "connection-id.key",
        ] {
            assert_eq!(mode(&state.join(file)), 0o600, "{file}");
        }

        fs::remove_file(state.join("relay.key")).unwrap();
        let revoked = RelayIdentity::load_or_create(&state).unwrap();
        assert_eq!(first.pin(), revoked.pin());
        assert!(!first.relay_key().matches(revoked.relay_key().expose()));
    }

    #[test]
    fn a_cut_key_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        fs::write(&path, b"short").unwrap();
        assert!(matches!(
            RelayIdentity::load_or_create(dir.path()),
            Err(IdentityError::NotAKey { len: 5, .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }

    #[test]
    fn public_keys_are_those_of_rfc_8032() {
        // Section 7.1, test 1.
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let seed = Seed::new(seed.try_into().unwrap());
        assert_eq!(public_key(&seed).0, public[..]);
    }
}
