//! Which TCP sockets listen, as the kernel tells over netlink (sock_diag(7)).
//!
//! `/proc/net/tcp` tells it too, but has the kernel go through every connection: that took 30 ms on a
//! machine with three thousand of them, and this a fifth of one.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SOCK_DIAG, recv,
        send, socket_with,
    },
};

use super::Listener;

/// The largest piece of an answer that the kernel makes.
const PIECE: usize = 32 << 10;

/// The most sockets that are taken. With more of them nobody is asked anything.
const LISTENERS: usize = 4096;

/// Types and flags of messages, from linux/netlink.h and linux/sock_diag.h.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x301;

/// From linux/in.h and net/tcp_states.h.
const TCP: u8 = 6;
const LISTEN: u32 = 10;

/// What every message begins with: length, type, flags, sequence number, sender.
const HEADER: usize = 16;

/// Lists the sockets of our own network namespace that listen.
pub(super) fn listeners() -> io::Result<Vec<Listener>> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(SOCK_DIAG),
    )?;
    let mut listeners = Vec::new();
    let mut piece = vec![0; PIECE];
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        send(&socket, &request(family), SendFlags::empty())?;
        let mut more = true;
        while more {
            // The kernel answers as it is asked: there is nothing to wait for.
            let (_, len) = match recv(&socket, &mut piece[..], RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => continue,
                received => received?,
            };
            more = read(piece.get(..len).unwrap_or_default(), &mut listeners)?;
            if listeners.len() > LISTENERS {
                return Err(io::Error::other("too many sockets listen here"));
            }
        }
    }
    Ok(listeners)
}

/// Asks for all sockets of a family that listen: a header, then family, protocol, two bytes, states,
/// and an address that is left open.
fn request(family: AddressFamily) -> [u8; 72] {
    let mut request = [0; 72];
    request[..4].copy_from_slice(&72u32.to_ne_bytes());
    request[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    request[16] = family.as_raw().to_le_bytes()[0];
    request[17] = TCP;
    request[20..24].copy_from_slice(&(1u32 << LISTEN).to_ne_bytes());
    request
}

/// Reads the messages of one piece, and says whether more of them follow.
fn read(mut piece: &[u8], listeners: &mut Vec<Listener>) -> io::Result<bool> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    while !piece.is_empty() {
        let len = usize::try_from(u32_at(piece, 0).ok_or_else(malformed)?)
            .ok()
            .filter(|len| (HEADER..=piece.len()).contains(len))
            .ok_or_else(malformed)?;
        let message = &piece[HEADER..len];
        match u16::from_ne_bytes([piece[4], piece[5]]) {
            DONE => return Ok(false),
            ERROR => {
                let errno = u32_at(message, 0).ok_or_else(malformed)?.cast_signed();
                return Err(io::Error::from_raw_os_error(errno.wrapping_neg()));
            }
            BY_FAMILY => listeners.push(listener(message).ok_or_else(malformed)?),
            _ => {}
        }
        // Each begins at a multiple of four.
        piece = piece.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// Reads one socket: family, state, timer, retransmissions; its ports and addresses, interface and
/// cookie; when it expires, two queues, its user, and its inode.
fn listener(message: &[u8]) -> Option<Listener> {
    let family = u16::from(*message.first()?);
    let port = u16::from_be_bytes(*message.get(4..)?.first_chunk()?);
    let address = message.get(8..)?;
    let ip = if family == AddressFamily::INET.as_raw() {
        IpAddr::from(*address.first_chunk::<4>()?)
    } else {
        // An IPv6 socket may be bound to an IPv4 address.
        IpAddr::from(*address.first_chunk::<16>()?).to_canonical()
    };
    Some(Listener {
        address: SocketAddr::new(ip, port),
        inode: u32_at(message, 68)?.into(),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_listens_is_listed_with_its_address() {
        let addresses = ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"];
        // Not every machine has IPv6.
        let bound = addresses.map(|address| TcpListener::bind(address).ok());
        let listed = listeners().unwrap();
        let addresses = bound
            .iter()
            .flatten()
            .map(|bound| bound.local_addr().unwrap());
        assert!(addresses.clone().count() >= 2);
        for address in addresses {
            let is_listed = listed.iter().any(|listed| listed.address == address);
            assert!(is_listed, "{address} is not in {listed:?}");
        }
    }

    #[test]
    fn an_answer_is_read_and_a_malformed_one_is_an_error() {
        let message = |kind: u16, body: &[u8]| {
            let len = u32::try_from(HEADER + body.len()).unwrap();
            let mut message = len.to_ne_bytes().to_vec();
            message.extend(kind.to_ne_bytes());
            message.extend([0; 10]);
            message.extend(body);
            message
        };
        let mut socket = [0; 72];
        socket[..8].copy_from_slice(&[2, 10, 0, 0, 0x1f, 0x90, 0, 0]);
        socket[8..12].copy_from_slice(&[127, 0, 0, 1]);
        socket[68..].copy_from_slice(&4711u32.to_ne_bytes());
        let one = message(BY_FAMILY, &socket);
        let listeners = &mut Vec::new();
        assert!(read(&one, listeners).unwrap());
        let done = message(DONE, &[0; 4]);
        assert!(!read(&[done.clone(), one.clone()].concat(), listeners).unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], 8080));
        let inode = 4711;
        assert_eq!(*listeners, [Listener { address, inode }]);
        // One that is bound to an IPv4 address all the same.
        socket[0] = 10;
        socket[8..24].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 127, 0, 0, 1]);
        assert!(read(&message(BY_FAMILY, &socket), listeners).unwrap());
        assert_eq!(listeners[1], listeners[0]);

        for end in 1..one.len() {
            assert!(read(&one[..end], listeners).is_err(), "cut at {end}");
        }
        for bad in [
            message(BY_FAMILY, &socket[..71]),
            message(ERROR, &[0; 3]),
            vec![0; HEADER],
        ] {
            assert!(read(&bad, listeners).is_err(), "{bad:?}");
        }
        let refused = read(&message(ERROR, &(-2i32).to_ne_bytes()), listeners);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(listeners.len(), 2);
    }
}
