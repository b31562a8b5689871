//! Agents that take each other's place, and relays that end and come back.

use std::time::Duration;

use patchwire_protocol::message::relay::Refusal;
use patchwire_transport::{Disconnected, Notice, OpenError};

use crate::common::{TestRelay, agent, developer, greet, open};

#[tokio::test]
async fn the_newest_agent_wins_and_the_older_is_told() {
    let relay = TestRelay::start_with(|config| config.limits.replaced = Duration::ZERO);
    let link = relay.mint("shop");
    let ana = developer(&link).await;
    let older = agent(&link, "older").await;
    let newer = agent(&link, "newer").await;
    let Some(Notice::Replaced { name }) = older.notice().await.unwrap() else {
        panic!("the older agent was told something else");
    };
    assert_eq!(name.as_str(), "newer");
    assert_eq!(older.closed().await, Disconnected::Replaced);

    let (mut left, mut right) = open(&ana, &newer).await;
    greet(&mut left, &mut right).await;
    assert_eq!(left.peer_name().as_str(), "newer");
}

#[tokio::test]
async fn a_drain_waits_for_streams_and_for_nothing_else() {
    // Longer than any test runs: only the end of the stream can end the drain.
    let forever = Duration::from_secs(3600);
    let relay = TestRelay::start_with(|config| config.limits.drain = forever);
    let link = relay.mint("shop");
    let (ana, web) = (developer(&link).await, agent(&link, "web").await);
    let idle = agent(&relay.mint("idle"), "idle").await;
    let (mut left, mut right) = open(&ana, &web).await;

    let (serving, _state) = relay.drain();
    for peer in [&ana, &web, &idle] {
        let notice = peer.notice().await.unwrap();
        assert!(matches!(notice, Some(Notice::Drain { .. })), "{notice:?}");
    }
    greet(&mut left, &mut right).await;
    assert!(matches!(
        ana.open().await,
        Err(OpenError::Refused(Refusal::Draining { .. }))
    ));

    drop((left, right));
    serving.await.unwrap();
    for peer in [&ana, &web, &idle] {
        assert_eq!(peer.closed().await, Disconnected::Draining);
    }
}

#[tokio::test]
async fn a_drain_cuts_what_does_not_end() {
    let relay = TestRelay::start_with(|config| config.limits.drain = Duration::ZERO);
    let link = relay.mint("shop");
    let (ana, web) = (developer(&link).await, agent(&link, "web").await);
    let _streams = open(&ana, &web).await;
    let (serving, _state) = relay.drain();
    serving.await.unwrap();
    assert_eq!(ana.closed().await, Disconnected::Draining);
}

#[tokio::test]
async fn a_relay_that_comes_back_is_the_same_relay() {
    let relay = TestRelay::start();
    let (link, address) = (relay.mint("shop"), relay.address);
    let ana = developer(&link).await;
    let (serving, state) = relay.drain();
    serving.await.unwrap();
    assert_eq!(ana.closed().await, Disconnected::Draining);

    let relay = TestRelay::start_again(state, address);
    assert_eq!(*relay.link.expose(), *link.relay().expose());
    let (ana, web) = (developer(&link).await, agent(&link, "web").await);
    let (mut left, mut right) = open(&ana, &web).await;
    greet(&mut left, &mut right).await;
}
