//! Whatever is sent to the relay's port, it goes on for the others.

use std::time::Duration;

use patchwire_protocol::message::relay::{Refusal, RelayReply, Role, close};
use patchwire_transport::{FrameReader, ReceiveError};
use quinn::{Connection, ConnectionError, VarInt};
use tokio::net::UdpSocket;

use crate::common::{RawPeer, TestRelay, agent, developer, greet, open};

/// How the relay ends a connection with a peer that makes no sense.
async fn thrown_out(connection: &Connection) -> VarInt {
    match connection.closed().await {
        ConnectionError::ApplicationClosed(frame) => frame.error_code,
        other => panic!("not closed by the relay: {other}"),
    }
}

#[tokio::test]
async fn garbage_at_the_port_disturbs_nobody() {
    let relay = TestRelay::start();
    let link = relay.mint("shop");
    let (ana, web) = (developer(&link).await, agent(&link, "web").await);
    let (mut left, mut right) = open(&ana, &web).await;

    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..2000u32 {
        let mut datagram = Vec::new();
        while datagram.len() < 1200 {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            datagram.extend(noise.to_le_bytes());
        }
        if round % 2 == 0 {
            // As the first packet of a QUIC connection begins: long header, version 1.
            datagram[..5].copy_from_slice(&[0xc0, 0, 0, 0, 1]);
        }
        datagram.truncate(1 + round as usize % 1200);
        socket.send_to(&datagram, relay.address).await.unwrap();
        if round % 100 == 0 {
            greet(&mut left, &mut right).await;
        }
    }
    greet(&mut left, &mut right).await;
    let (mut left, mut right) = open(&ana, &web).await;
    greet(&mut left, &mut right).await;
}

#[tokio::test]
async fn a_frame_that_announces_too_much_is_refused_at_its_header() {
    let relay = TestRelay::start();
    let mut peer = RawPeer::dial(&relay.link).await;
    peer.send.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let mut replies = FrameReader::new(&mut peer.recv, 100);
    let reply: Option<RelayReply> = replies.receive().await.unwrap();
    assert_eq!(reply, Some(RelayReply::Refused(Refusal::Malformed)));
    drop(replies);
    assert_eq!(thrown_out(&peer.connection).await, close::REFUSED.into());
}

#[tokio::test]
async fn a_hello_that_is_none_is_refused() {
    let relay = TestRelay::start();
    let mut peer = RawPeer::dial(&relay.link).await;
    peer.send.write_all(&[0, 0, 0, 3, 1, 1, 7]).await.unwrap();
    let mut replies = FrameReader::new(&mut peer.recv, 100);
    let reply: Option<RelayReply> = replies.receive().await.unwrap();
    assert_eq!(reply, Some(RelayReply::Refused(Refusal::Malformed)));
}

#[tokio::test]
async fn a_hello_that_is_cut_ends_the_connection() {
    let relay = TestRelay::start();
    let mut peer = RawPeer::dial(&relay.link).await;
    peer.send.write_all(&[0, 0, 1, 0, 1, 1]).await.unwrap();
    peer.send.finish().unwrap();
    assert_eq!(thrown_out(&peer.connection).await, close::MISBEHAVED.into());
}

#[tokio::test]
async fn who_says_nothing_does_not_stay() {
    let relay = TestRelay::start_with(|config| config.limits.hello = Duration::from_secs(2));
    let mut peer = RawPeer::dial(&relay.link).await;
    peer.send.write_all(&[0, 0]).await.unwrap();
    assert_eq!(thrown_out(&peer.connection).await, close::MISBEHAVED.into());
}

#[tokio::test]
async fn agents_open_no_streams() {
    let relay = TestRelay::start();
    let peer = RawPeer::dial(&relay.link).await;
    let hello = peer.hello(&relay.mint("shop"), Role::Agent);
    let mut peer = peer.into_frames();
    peer.writer.send(&hello).await.unwrap();
    let reply: Option<RelayReply> = peer.reader.receive().await.unwrap();
    assert!(matches!(reply, Some(RelayReply::Welcome { .. })));
    let (mut send, _recv) = peer.connection.open_bi().await.unwrap();
    send.write_all(&[0]).await.unwrap();
    assert_eq!(thrown_out(&peer.connection).await, close::MISBEHAVED.into());
}

#[tokio::test]
async fn a_stream_that_asks_for_nothing_is_reset_alone() {
    let relay = TestRelay::start();
    let link = relay.mint("shop");
    let (ana, web) = (developer(&link).await, agent(&link, "web").await);
    let peer = RawPeer::dial(&relay.link).await;
    let hello = peer.hello(&link, Role::Developer);
    let mut peer = peer.into_frames();
    peer.writer.send(&hello).await.unwrap();
    let _: Option<RelayReply> = peer.reader.receive().await.unwrap();

    let (mut send, recv) = peer.connection.open_bi().await.unwrap();
    send.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let mut replies = FrameReader::new(recv, 100);
    let error = replies.receive::<RelayReply>().await.unwrap_err();
    assert!(matches!(error, ReceiveError::Io(_)), "{error}");
    assert!(peer.connection.close_reason().is_none());

    let (mut left, mut right) = open(&ana, &web).await;
    greet(&mut left, &mut right).await;
}

#[tokio::test]
async fn a_full_relay_refuses_the_next() {
    let relay = TestRelay::start_with(|config| config.limits.connections = 1);
    let link = relay.mint("shop");
    let _ana = developer(&link).await;
    let refused = patchwire_transport::dial(&relay.link, 0).await;
    assert!(refused.is_err());
}
