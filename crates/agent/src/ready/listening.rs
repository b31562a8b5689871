//! Where the app listens, and whether it answers there: what is known of an app of which nothing
//! was said.
//!
//! Linux tells which sockets listen and which process has which socket open. Elsewhere, and where the
//! agent may not look, nothing is found, and the app is only waited for.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use hyper::StatusCode;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep},
};

use super::{PAUSE_FIRST, PAUSE_MAX, get};
use crate::process::Group;

#[cfg(target_os = "linux")]
mod diag;

/// The most of the app's processes that are looked at, and of the descriptors of each.
const PROCESSES: usize = 64;
/// See [`PROCESSES`].
const DESCRIPTORS: usize = 1024;

/// The most addresses that are asked.
const ADDRESSES: usize = 8;

/// A TCP socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listener {
    address: SocketAddr,
    inode: u64,
}

/// Waits until a process of the group has answered an HTTP request at an address where the group
/// listens and nobody else does, and gives that address.
///
/// Any status will do but 400, as the answer of what speaks no HTTP but knows it when it sees it: the
/// inspector of Node, a port for TLS.
pub(crate) async fn answered(group: Group) -> SocketAddr {
    let begun = Instant::now();
    let mut before = Vec::new();
    let mut asked = Vec::new();
    let mut asking = JoinSet::new();
    loop {
        // Nothing tells when an app begins to listen: it is seen a part of its own time later.
        let pause = (begun.elapsed() / 32).clamp(PAUSE_FIRST, PAUSE_MAX);
        tokio::select! {
            Some(Ok(address)) = asking.join_next() => {
                if addresses(group).await.contains(&address) {
                    return address;
                }
                // Someone else listens there by now: it is asked again once it is the group's alone.
                asked.retain(|asked| *asked != address);
                before.clear();
            }
            () = sleep(pause) => {
                let listeners = in_thread(listeners).await;
                if listeners == before {
                    continue;
                }
                before = listeners;
                for address in addresses(group).await {
                    if asked.len() < ADDRESSES && !asked.contains(&address) {
                        asked.push(address);
                        asking.spawn(ask(address));
                    }
                }
            }
        }
    }
}

/// Asks until there is an answer.
async fn ask(address: SocketAddr) -> SocketAddr {
    let host = format!("localhost:{}", address.port());
    let mut pause = PAUSE_FIRST;
    loop {
        match get(&reached_at(address)[..], &host, "/").await {
            Ok(StatusCode::BAD_REQUEST) => tracing::debug!(%address, "no HTTP is spoken here"),
            Ok(_) => return address,
            Err(error) => tracing::debug!(%address, %error, "no answer"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Where a socket that is bound so is reached from this machine.
fn reached_at(address: SocketAddr) -> Vec<SocketAddr> {
    let ips: &[IpAddr] = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
        // Most such sockets take both, and not every container has an IPv6 loopback.
        IpAddr::V6(ip) if ip.is_unspecified() => &[
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V4(Ipv4Addr::LOCALHOST),
        ],
        ip => &[ip],
    };
    let at = |ip: &IpAddr| SocketAddr::new(*ip, address.port());
    ips.iter().map(at).collect()
}

/// The addresses at which the group listens. A port that someone else listens on too is none of
/// them, as an answer could be the other's.
async fn addresses(group: Group) -> Vec<SocketAddr> {
    in_thread(move || {
        let listeners = listeners();
        let sockets = sockets(group);
        let is_ours = |listener: &Listener| sockets.contains(&listener.inode);
        let others: Vec<_> = listeners
            .iter()
            .filter(|listener| !is_ours(listener))
            .map(|listener| listener.address.port())
            .collect();
        listeners
            .iter()
            .filter(|listener| is_ours(listener) && !others.contains(&listener.address.port()))
            .map(|listener| listener.address)
            .collect()
    })
    .await
}

/// What listens in our own network namespace: an app in another one isn't reached from here.
fn listeners() -> Vec<Listener> {
    #[cfg(target_os = "linux")]
    let listeners = diag::listeners();
    #[cfg(not(target_os = "linux"))]
    let listeners = Err(std::io::Error::from(std::io::ErrorKind::Unsupported));
    listeners.unwrap_or_else(|error| {
        tracing::debug!(%error, "what listens here can't be told");
        Vec::new()
    })
}

/// The inodes of the sockets that processes of the group have open.
fn sockets(group: Group) -> Vec<u64> {
    let members = group.alive().unwrap_or_default();
    let descriptors = members.iter().take(PROCESSES).flat_map(|member| {
        let open = fs::read_dir(format!("/proc/{member}/fd"));
        open.into_iter().flatten().take(DESCRIPTORS)
    });
    let sockets = descriptors.filter_map(|descriptor| {
        let target = fs::read_link(descriptor.ok()?.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?;
        inode.strip_suffix(']')?.parse().ok()
    });
    sockets.collect()
}

/// Asks the kernel where that holds up nothing else.
async fn in_thread<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(look)
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_another_process_listens_on_is_not_the_groups() {
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ours.local_addr().unwrap();
        assert!(listeners().iter().any(|found| found.address == address));
        let launch = crate::process::Launch {
            command: ["sleep", "1000"].map(Into::into).into(),
            root: "/".into(),
            env: vec![("PATH".into(), std::env::var_os("PATH").unwrap())],
        };
        let other = launch.spawn().unwrap();
        assert_eq!(addresses(other.group()).await, []);
    }

    #[test]
    fn a_socket_bound_to_every_address_is_reached_on_loopback() {
        let reached = |bound: &str| {
            let at = reached_at(bound.parse().unwrap()).into_iter();
            at.map(|address| address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(reached("0.0.0.0:80"), ["127.0.0.1:80"]);
        assert_eq!(reached("[::]:80"), ["[::1]:80", "127.0.0.1:80"]);
        assert_eq!(reached("10.0.0.1:80"), ["10.0.0.1:80"]);
    }
}
