//! Which TCP sockets listen, as the kernel tells over netlink (sock_diag(7)).
//!
//! `/proc/net/tcp` tells it too, but has the kernel go through every connection: that took 30 ms on a
//! machine with three thousand of them, and this a fifth of one.

use std::{io, net::SocketAddr};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};

use super::Listener;

/// The largest piece of an answer that the kernel makes.
const PIECE: usize = 32 << 10;

/// The most sockets that are taken. With more of them nobody is asked anything.
const LISTENERS: usize = 4096;

/// Lists the sockets of our own network namespace that listen.
pub(super) fn listeners() -> io::Result<Vec<Listener>> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    // The kernel answers as it is asked: there is nothing to wait for.
    socket.set_non_blocking(true)?;
    let mut listeners = Vec::new();
    let mut piece = Vec::with_capacity(PIECE);
    for any in [
        (AF_INET, SocketId::new_v4()),
        (AF_INET6, SocketId::new_v6()),
    ] {
        socket.send(&request(any), 0)?;
        let mut more = true;
        while more {
            piece.clear();
            socket.recv(&mut piece, 0)?;
            more = read(&piece, &mut listeners)?;
            if listeners.len() > LISTENERS {
                return Err(io::Error::other("too many sockets listen here"));
            }
        }
    }
    Ok(listeners)
}

/// Asks for all sockets of a family that listen.
fn request((family, socket_id): (u8, SocketId)) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN,
        socket_id,
    });
    let mut message = NetlinkMessage::new(header, request.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Reads the messages of one piece, and says whether more of them follow.
fn read(mut piece: &[u8], listeners: &mut Vec<Listener>) -> io::Result<bool> {
    while !piece.is_empty() {
        let message = NetlinkMessage::deserialize(piece)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(false),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => {
                let id = &socket.header.socket_id;
                listeners.push(Listener {
                    // An IPv6 socket may be bound to an IPv4 address.
                    address: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
                    inode: socket.header.inode.into(),
                });
            }
            _ => {}
        }
        // Each begins at a multiple of four.
        let len = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        let next = len.checked_next_multiple_of(4).unwrap_or(usize::MAX);
        piece = piece.get(next..).unwrap_or_default();
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_listens_is_listed_with_its_address() {
        let addresses = [
            "127.0.0.1:0",
            "0.0.0.0:0",
            "[::1]:0",
            "[::]:0",
            "[::ffff:127.0.0.1]:0",
        ];
        // Not every machine has IPv6.
        let bound = addresses.map(|address| TcpListener::bind(address).ok());
        let listed = listeners().unwrap();
        let addresses = bound.iter().flatten().map(|bound| {
            let address = bound.local_addr().unwrap();
            SocketAddr::new(address.ip().to_canonical(), address.port())
        });
        assert!(addresses.clone().count() >= 2);
        for address in addresses {
            let is_listed = listed.iter().any(|listed| listed.address == address);
            assert!(is_listed, "{address} is not in {listed:?}");
        }
    }

    #[test]
    fn a_refusal_and_garbage_are_errors() {
        // Length, type “error”, flags, sequence number, sender; then what it is.
        let mut refusal = [0; 20];
        refusal[..4].copy_from_slice(&20u32.to_ne_bytes());
        refusal[4..6].copy_from_slice(&2u16.to_ne_bytes());
        refusal[16..].copy_from_slice(&(-2i32).to_ne_bytes());
        let listeners = &mut Vec::new();
        let refused = read(&refusal, listeners);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotFound);
        for end in 1..refusal.len() {
            assert!(read(&refusal[..end], listeners).is_err(), "cut at {end}");
        }
        assert!(read(&[0; 16], listeners).is_err());
        assert!(read(&[255; 16], listeners).is_err());
    }
}
