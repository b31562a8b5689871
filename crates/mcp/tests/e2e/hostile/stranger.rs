//! Someone without any credentials, on the relay's port.

use std::{
    fs,
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::world::{Agent, Relay, World, assert_same_tree, noise};

#[test]
fn garbage_on_the_relays_port_disturbs_no_push() {
    let world = World::new();
    let mut relay = Relay::start(&world);
    let link = world.link(&relay, "shop", "dev");
    let mut agent = Agent::idle(&world, &link, &world.path("target"));
    let source = world.path("source");
    fs::create_dir(&source).unwrap();

    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", relay.port)).unwrap();
    let (noise, ended) = (noise(1 << 20), AtomicBool::new(false));
    let sent = thread::scope(|scope| {
        let garbage = scope.spawn(|| {
            let mut sent = 0_usize;
            while !ended.load(Ordering::Relaxed) {
                let datagram = datagram(&noise, sent);
                // That the other side has no room is no reason to stop.
                let _ = socket.send(&datagram);
                sent += 1;
                thread::yield_now();
            }
            sent
        });
        for size in [1_000, 3_000_000, 5_000] {
            fs::write(source.join("file"), &noise[..size.min(noise.len())]).unwrap();
            world.push(&link, &source).expect("done");
        }
        ended.store(true, Ordering::Relaxed);
        garbage.join().unwrap()
    });
    assert!(sent > 100, "{sent}");
    assert_same_tree(&source, &agent.root);
    relay.process.assert_well();
    agent.process.assert_well();
}

/// Noise, and what begins like QUIC and goes on as noise.
fn datagram(noise: &[u8], number: usize) -> Vec<u8> {
    let at = (number * 1009) % (noise.len() - 1500);
    let len = (number * 37) % 1473;
    let body = &noise[at..at + len];
    // RFC 9000, section 17.2: a long header, the version, and the lengths of the connection ids.
    let initial = [0xc3, 0, 0, 0, 1, 8];
    match number % 5 {
        0 => body.to_vec(),
        // An Initial cut anywhere, and one as long as it has to be.
        1 => [&initial[..], &body[..len.min(60)]].concat(),
        2 => [&initial[..], &noise[at..at + 1194]].concat(),
        // A version that nobody knows.
        3 => [
            &[0xc3, 0xba, 0xba, 0xba, 0xba, 8][..],
            &noise[at..at + 1194],
        ]
        .concat(),
        // A short header, as of a connection that is gone.
        _ => [&[0x43][..], body].concat(),
    }
}
