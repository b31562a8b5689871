//! Every refusal says which it was.

use patchwire_protocol::message::relay::{Refusal, RelayReply};
use patchwire_transport::{
    ConnectError, DeploymentLink, LinkError, OpenError, Pin, RelayConnection, RelayKey, RelayLink,
    Role,
};

use crate::common::{PATIENCE, RawPeer, TestRelay, agent, developer, greet, mint, open};

async fn refused(link: &DeploymentLink) -> ConnectError {
    RelayConnection::connect(link, Role::Developer, "ana", PATIENCE)
        .await
        .expect_err("the relay refuses")
}

#[tokio::test]
async fn a_relay_with_another_key_is_told_nothing() {
    let relay = TestRelay::start();
    let link = RelayLink::new(
        relay.link.address().clone(),
        Pin::of(b"another relay"),
        relay.link.relay_key().clone(),
    );
    let error = refused(&mint(&link, "shop")).await;
    assert!(matches!(error, ConnectError::WrongPin { .. }), "{error}");
    assert!(error.is_refused());
}

#[tokio::test]
async fn a_wrong_relay_key_is_refused_as_such() {
    let relay = TestRelay::start();
    let link = RelayLink::new(
        relay.link.address().clone(),
        relay.link.pin(),
        RelayKey::random().unwrap(),
    );
    let error = refused(&mint(&link, "shop")).await;
    assert!(
        matches!(error, ConnectError::Refused(Refusal::RelayKey)),
        "{error}"
    );
    assert!(error.is_refused());
}

#[tokio::test]
async fn a_mistyped_link_never_leaves_the_machine() {
    let relay = TestRelay::start();
    let link = relay.mint("shop").expose().replace("/shop/", "/shoq/");
    assert_eq!(
        link.parse::<DeploymentLink>().unwrap_err(),
        LinkError::Checksum
    );
}

#[tokio::test]
async fn nothing_listens_is_unreachable() {
    // The port was bound a moment ago, so that nobody else answers there.
    let relay = TestRelay::start();
    let link = relay.mint("shop");
    let (serving, _state) = relay.drain();
    serving.await.unwrap();
    let error = RelayConnection::connect(&link, Role::Developer, "ana", PATIENCE / 60)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::TimedOut { .. } | ConnectError::Unreachable { .. }
        ),
        "{error}"
    );
    assert!(!error.is_refused());
}

#[tokio::test]
async fn no_agent_is_told_from_an_agent_with_another_secret() {
    let relay = TestRelay::start();
    let (mine, other) = (relay.mint("shop"), relay.mint("shop"));
    let developer = developer(&mine).await;
    assert!(matches!(developer.open().await, Err(OpenError::NoAgent)));

    let _stranger = agent(&other, "stranger").await;
    assert!(matches!(
        developer.open().await,
        Err(OpenError::WrongSecret)
    ));

    // The name is not taken: an agent with the right secret is found on the same connection.
    let own = agent(&mine.narrow(), "own").await;
    let (mut left, mut right) = open(&developer, &own).await;
    greet(&mut left, &mut right).await;
    assert_eq!(left.peer_name().as_str(), "own");
    assert_eq!(right.peer_name().as_str(), "ana");
}

#[tokio::test]
async fn a_signature_for_another_connection_is_refused() {
    let relay = TestRelay::start();
    let link = relay.mint("shop");
    let recorded = RawPeer::dial(&relay.link).await.hello(&link, Role::Agent);
    let mut replayed = RawPeer::dial(&relay.link).await.into_frames();
    replayed.writer.send(&recorded).await.unwrap();
    let reply: Option<RelayReply> = replayed.reader.receive().await.unwrap();
    assert_eq!(reply, Some(RelayReply::Refused(Refusal::Signature)));
}
