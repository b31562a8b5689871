//! Whether a peer may attach.

use patchwire_protocol::{
    message::relay::{EXPORTER_LEN, Hello, Refusal},
    version::{Version, VersionRange},
};
use patchwire_transport::{RelayKey, verify_hello};

/// Checks a hello that came on the connection with this TLS exporter.
///
/// A peer without the relay key learns nothing but the versions spoken here.
pub(crate) fn authenticate(
    hello: &Hello,
    relay_key: &RelayKey,
    exporter: &[u8; EXPORTER_LEN],
) -> Result<Version, Refusal> {
    let supported = VersionRange::SUPPORTED;
    let version = hello
        .versions
        .agree(supported)
        .ok_or(Refusal::Version { supported })?;
    if !relay_key.matches(&hello.relay_key.0) {
        return Err(Refusal::RelayKey);
    }
    if !verify_hello(hello, exporter) {
        return Err(Refusal::Signature);
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use patchwire_protocol::{
        message::relay::{PeerName, PresentedKey},
        version,
    };
    use patchwire_transport::{Credentials, DeploymentSecret};

    use super::*;

    const EXPORTER: [u8; 32] = [5; 32];

    fn hello() -> Hello {
        let credentials = Credentials::developer(
            &DeploymentSecret::new([1; 32]),
            &"shop".parse().unwrap(),
            &"dev".parse().unwrap(),
        );
        Hello {
            versions: VersionRange::SUPPORTED,
            role: credentials.role(),
            relay_key: PresentedKey([7; 32]),
            app: credentials.app().clone(),
            deployment: credentials.deployment().clone(),
            developer: credentials.developer_key(),
            agent: credentials.agent_key(),
            name: PeerName::nearest("here"),
            signature: credentials.sign_hello(&EXPORTER),
        }
    }

    fn check(change: impl Fn(&mut Hello)) -> Result<Version, Refusal> {
        let mut hello = hello();
        change(&mut hello);
        authenticate(&hello, &RelayKey::new([7; 32]), &EXPORTER)
    }

    #[test]
    fn each_refusal_has_its_reason() {
        assert_eq!(check(|_| ()), Ok(version::CURRENT));
        let newer = VersionRange {
            oldest: Version(9),
            newest: Version(9),
        };
        assert!(matches!(
            check(|hello| hello.versions = newer),
            Err(Refusal::Version { .. })
        ));
        assert_eq!(
            check(|hello| hello.relay_key.0[31] ^= 1),
            Err(Refusal::RelayKey)
        );
        assert_eq!(
            check(|hello| hello.deployment = "prod".parse().unwrap()),
            Err(Refusal::Signature)
        );
        // The relay key is checked first: without it nothing else is told.
        let both = |hello: &mut Hello| {
            hello.relay_key.0[0] ^= 1;
            hello.signature.0[0] ^= 1;
        };
        assert_eq!(check(both), Err(Refusal::RelayKey));
    }
}
