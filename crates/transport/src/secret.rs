//! Secrets: 32 bytes that leave memory when they are dropped and never show in `Debug`.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The operating system gave no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no randomness")]
pub struct NoRandomness;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Zeroizing<[u8; 32]>);

        impl $name {
            /// Takes bytes that are already secret.
            #[must_use]
            pub fn new(bytes: [u8; 32]) -> Self {
                Self(Zeroizing::new(bytes))
            }

            /// Makes a new secret.
            ///
            /// # Errors
            ///
            /// [`NoRandomness`] if the operating system gives none.
            pub fn random() -> Result<Self, NoRandomness> {
                let mut bytes = Zeroizing::new([0; 32]);
                SystemRandom::new()
                    .fill(&mut bytes[..])
                    .map_err(|_| NoRandomness)?;
                Ok(Self(bytes))
            }

            /// The secret itself.
            #[must_use]
            pub fn expose(&self) -> &[u8; 32] {
                &self.0
            }

            /// Whether these are the secret's bytes, in constant time.
            #[must_use]
            pub fn matches(&self, bytes: &[u8; 32]) -> bool {
                self.0.ct_eq(bytes).into()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

secret! {
    /// What lets its holder use a relay.
    RelayKey
}

secret! {
    /// What both ends of a deployment derive their keys from.
    DeploymentSecret
}

secret! {
    /// The private part of an Ed25519 key (RFC 8032).
    Seed
}

/// Gives a random number, as [`Backoff`](crate::Backoff) needs one.
///
/// # Errors
///
/// [`NoRandomness`] if the operating system gives none.
pub fn random_u64() -> Result<u64, NoRandomness> {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| NoRandomness)?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_compare_whole_and_print_nothing() {
        let key = RelayKey::new([7; 32]);
        assert!(key.matches(&[7; 32]));
        for at in [0, 31] {
            let mut other = [7; 32];
            other[at] ^= 1;
            assert!(!key.matches(&other));
        }
        assert_eq!(format!("{key:?}"), "RelayKey(…)");
        assert!(!key.matches(RelayKey::random().unwrap().expose()));
    }
}
