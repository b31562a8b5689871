//! TLS 1.3 with raw public keys (RFC 7250): no certificates, no names, no authorities.
//!
//! *Outer*: the relay shows its key and peers pin it; they say who they are in their hello. *Inner*:
//! developer (client) and agent (server) each know the other's key beforehand. No session is resumed
//! and nothing is sent early: both could be replayed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring as provider, verify_tls13_signature_with_raw_key},
    server::{
        AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};

use crate::{
    credentials::Credentials,
    identity::{Pin, RelayIdentity, pkcs8, public_key, spki},
    secret::Seed,
};

const OUTER_ALPN: &[u8] = b"patchwire-relay/1";
const INNER_ALPN: &[u8] = b"patchwire/2";

/// Stands where rustls wants a name; it is never sent, and nothing is looked up by it.
pub(crate) const NO_NAME: &str = "patchwire.invalid";

const TLS13_IS_THERE: &str = "the ring provider has TLS 1.3";

/// What a peer runs with the relay. The verifier says afterwards whether it was the pin.
pub(crate) fn outer_client(pin: Pin) -> (ClientConfig, Arc<ExpectedKey>) {
    let expected = ExpectedKey::new(pin);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&expected.provider))
        .with_protocol_versions(&[&TLS13])
        .expect(TLS13_IS_THERE)
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&expected) as Arc<_>)
        .with_no_client_auth();
    restrict_client(&mut config, OUTER_ALPN);
    (config, expected)
}

/// What the relay runs with everybody.
pub(crate) fn outer_server(identity: &RelayIdentity) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect(TLS13_IS_THERE)
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(raw_key(
            identity.seed(),
        ))));
    restrict_server(&mut config, OUTER_ALPN);
    config
}

/// What a developer runs with the agent.
pub(crate) fn inner_client(credentials: &Credentials) -> ClientConfig {
    let expected = ExpectedKey::new(Pin::of(&spki(credentials.peer_key())));
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&expected.provider))
        .with_protocol_versions(&[&TLS13])
        .expect(TLS13_IS_THERE)
        .dangerous()
        .with_custom_certificate_verifier(expected)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(raw_key(
            credentials.seed(),
        ))));
    restrict_client(&mut config, INNER_ALPN);
    config
}

/// What an agent runs with a developer.
pub(crate) fn inner_server(credentials: &Credentials) -> ServerConfig {
    let expected = ExpectedKey::new(Pin::of(&spki(credentials.peer_key())));
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&expected.provider))
        .with_protocol_versions(&[&TLS13])
        .expect(TLS13_IS_THERE)
        .with_client_cert_verifier(expected)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(raw_key(
            credentials.seed(),
        ))));
    restrict_server(&mut config, INNER_ALPN);
    config
}

/// Whether the inner handshake agreed on the inner protocol. A server with protocols of its own lets
/// a client without any pass.
pub(crate) fn is_inner(alpn: Option<&[u8]>) -> bool {
    alpn == Some(INNER_ALPN)
}

fn restrict_client(config: &mut ClientConfig, alpn: &[u8]) {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
}

fn restrict_server(config: &mut ServerConfig, alpn: &[u8]) {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
}

fn raw_key(seed: &Seed) -> Arc<CertifiedKey> {
    let pkcs8 = pkcs8(seed);
    let key = provider::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..]))
        .expect("the key was just encoded");
    let spki = CertificateDer::from(spki(public_key(seed)).to_vec());
    Arc::new(CertifiedKey::new(vec![spki], key))
}

/// Accepts exactly the peer whose public key has this SHA-256.
#[derive(Debug)]
pub(crate) struct ExpectedKey {
    pin: Pin,
    provider: Arc<CryptoProvider>,
    mismatched: AtomicBool,
}

impl ExpectedKey {
    fn new(pin: Pin) -> Arc<Self> {
        Arc::new(Self {
            pin,
            provider: Arc::new(provider::default_provider()),
            mismatched: AtomicBool::new(false),
        })
    }

    /// Whether a peer showed another key.
    pub(crate) fn mismatched(&self) -> bool {
        self.mismatched.load(Ordering::Relaxed)
    }

    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        if Pin::of(shown) == self.pin {
            return Ok(());
        }
        self.mismatched.store(true, Ordering::Relaxed);
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(key.as_ref()),
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }
}

impl ServerCertVerifier for ExpectedKey {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for ExpectedKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::DeploymentSecret;

    async fn handshake(client: ClientConfig, server: ServerConfig) -> io::Result<()> {
        let (left, right) = duplex(64 << 10);
        let connector = TlsConnector::from(Arc::new(client));
        let name = ServerName::try_from(NO_NAME).unwrap();
        let client = async {
            let mut stream = connector.connect(name, left).await?;
            // A client's handshake succeeds before the server has looked at its key.
            stream.read_u8().await.map(drop)
        };
        let server = async {
            let mut stream = TlsAcceptor::from(Arc::new(server)).accept(right).await?;
            assert!(is_inner(stream.get_ref().1.alpn_protocol()));
            stream.write_u8(1).await?;
            stream.shutdown().await
        };
        tokio::try_join!(client, server).map(drop)
    }

    fn both(secret: u8) -> (Credentials, Credentials) {
        let secret = DeploymentSecret::new([secret; 32]);
        let (app, deployment) = ("shop".parse().unwrap(), "dev".parse().unwrap());
        (
            Credentials::developer(&secret, &app, &deployment),
            Credentials::agent(&secret, &app, &deployment),
        )
    }

    #[tokio::test]
    async fn the_ends_of_one_deployment_trust_each_other_only() {
        let (developer, agent) = both(1);
        let (other_developer, other_agent) = both(2);
        handshake(inner_client(&developer), inner_server(&agent))
            .await
            .unwrap();
        for (developer, agent) in [(&other_developer, &agent), (&developer, &other_agent)] {
            handshake(inner_client(developer), inner_server(agent))
                .await
                .unwrap_err();
        }
    }

    #[tokio::test]
    async fn an_agent_wants_the_developers_key_and_no_other() {
        let (developer, agent) = both(1);
        // Knows the agent's public key, holds no private key of a developer.
        let mut impostor = inner_client(&developer);
        let (_, stranger) = both(2);
        impostor.client_auth_cert_resolver = Arc::new(AlwaysResolvesClientRawPublicKeys::new(
            raw_key(stranger.seed()),
        ));
        handshake(impostor, inner_server(&agent)).await.unwrap_err();

        let (nobody, _) = outer_client(Pin::of(&spki(agent.own_key())));
        handshake(nobody, inner_server(&agent)).await.unwrap_err();
    }
}
