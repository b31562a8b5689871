//! Where a relay listens, as people write it.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// `HOST:PORT`; the host a DNS name, an IPv4 address or an IPv6 address in brackets, the port
/// [`Address::DEFAULT_PORT`] if left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    Ip(IpAddr),
    /// In lower case, without a final dot.
    Name(String),
}

/// Why a text is not an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The host is neither a DNS name nor an IP address.
    #[error(
        "“{}” is not a host: a DNS name, an IPv4 address, or an IPv6 address in brackets",
        host.escape_debug()
    )]
    Host {
        /// What stood there, cut if long.
        host: String,
    },
    /// The port is not a port.
    #[error("“{}” is not a port: 1 to 65535", port.escape_debug())]
    Port {
        /// What stood there, cut if long.
        port: String,
    },
}

impl Address {
    /// The port where none is written.
    pub const DEFAULT_PORT: u16 = 4433;

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Asks the system for the socket addresses; asks nobody about an IP address.
    ///
    /// # Errors
    ///
    /// The resolver's error.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, self.port)]),
            Host::Name(name) => Ok(tokio::net::lookup_host((name.as_str(), self.port))
                .await?
                .collect()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: Host::Ip(address.ip()),
            port: address.port(),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (ip, port) = rest.split_once(']').ok_or_else(|| bad_host(text))?;
                let ip: Ipv6Addr = ip.parse().map_err(|_| bad_host(text))?;
                (Host::Ip(ip.into()), port)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                (host(&text[..end])?, &text[end..])
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => self::port(digits)?,
            None if port.is_empty() => Self::DEFAULT_PORT,
            None => return Err(bad_host(text)),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Only what RFC 1123 calls a host name, and `_` as container networks have it.
fn host(text: &str) -> Result<Host, AddressError> {
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    // A name that ends in a number is a mistyped IPv4 address: resolvers disagree about those.
    let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    if name.len() > 253
        || !name.split('.').all(label)
        || name.rsplit('.').next().is_none_or(numeric)
    {
        return Err(bad_host(text));
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}

fn port(digits: &str) -> Result<u16, AddressError> {
    Some(digits)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| AddressError::Port {
            port: digits.chars().take(80).collect(),
        })
}

fn bad_host(text: &str) -> AddressError {
    AddressError::Host {
        host: text.chars().take(80).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_the_same() {
        for (typed, written) in [
            ("relay.example:4433", "relay.example:4433"),
            ("Relay.Example.:1", "relay.example:1"),
            ("my_relay", "my_relay:4433"),
            ("127.0.0.1:65535", "127.0.0.1:65535"),
            ("[::1]:80", "[::1]:80"),
            ("[2001:DB8::1]", "[2001:db8::1]:4433"),
        ] {
            let address: Address = typed.parse().unwrap();
            assert_eq!(address.to_string(), written);
            assert_eq!(written.parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for host in [
            "",
            ":1",
            "a b",
            "::1",
            "[::1",
            "[::1]x",
            "[1.2.3.4]:1",
            "1.2.3.256",
            "a..b",
            "ä",
        ] {
            assert!(
                matches!(
                    host.parse::<Address>(),
                    Err(AddressError::Host { .. } | AddressError::Port { .. })
                ),
                "{host}"
            );
        }
        for port in ["a:", "a:0", "a:65536", "a:+1", "a:1:2"] {
            assert!(
                matches!(port.parse::<Address>(), Err(AddressError::Port { .. })),
                "{port}"
            );
        }
    }
}
