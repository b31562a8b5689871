//! How an app is reloaded, when it counts as ready, and how it is doing.

use std::{fmt, net::Ipv6Addr, str::FromStr, time::Duration};

use crate::{
    codec::{self, Decode, Decoder, Encode, Encoder},
    limits,
};

/// How the app takes up what a push committed.
///
/// As text, and so on the wire: `restart`, `signal:NAME`, `command:TEXT` or `none`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Reload {
    /// The app ends before the tree changes and is started anew afterwards.
    #[default]
    Restart,
    /// The app's first process gets a signal.
    Signal(Signal),
    /// A shell command is run in the root.
    Command(String),
    /// Nothing is done.
    None,
}

/// A signal that an app may be told to reload by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of signal(7)")]
pub enum Signal {
    Hup,
    Int,
    Quit,
    Usr1,
    Usr2,
    Alrm,
    Term,
    Winch,
}

/// What has to be seen before a push is done.
///
/// As text, and so on the wire: `http://HOST:PORT/PATH`, `tcp:PORT`, `command:TEXT`,
/// `alive:DURATION` or `auto`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReadyCheck {
    /// A GET of this URL is answered with a status of 200 to 299.
    Http(HttpUrl),
    /// This port on the loopback interface accepts a connection.
    Tcp(u16),
    /// A shell command, run in the root, exits with 0.
    Command(String),
    /// The app is still alive after this long, at most [`limits::READY_TIMEOUT`].
    Alive(Duration),
    /// It answers HTTP, with any status but 400, on a port that it listens on; if it was never seen to
    /// since the agent started, it is alive after 1s.
    Auto,
}

/// An `http://` URL, seen from the app's machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpUrl {
    host: String,
    port: u16,
    target: String,
}

/// How an app is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub struct AppState {
    /// Whether its first process is alive.
    pub running: bool,
    /// The id of that process.
    pub pid: Option<u32>,
    /// How its last process ended, if one did.
    pub exit: Option<Exit>,
    /// How often it was started again after it had ended by itself, since it was last started on
    /// purpose.
    pub restarts: u32,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[bincode(crate = "crate::codec::bincode")]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// It was killed by the signal with this number, as Linux counts.
    Signal(i32),
}

/// Why a text is not a [`Reload`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// It starts like none of the forms.
    #[error("“{text}” is not a way to reload: restart, signal:NAME, command:TEXT or none")]
    Unknown {
        /// The text, escaped and cut.
        text: String,
    },
    /// The signal does not exist, or is not one to reload by.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// The command cannot be run.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Why a text is not a [`ReadyCheck`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadyCheckError {
    /// It starts like none of the forms.
    #[error(
        "“{text}” is not a readiness check: http://HOST:PORT/PATH, tcp:PORT, command:TEXT, \
         alive:DURATION or auto"
    )]
    Unknown {
        /// The text, escaped and cut.
        text: String,
    },
    /// The URL is not one to check.
    #[error(
        "“{text}” is not a URL to check: http://HOST:PORT/PATH in visible ASCII, without user, \
         fragment or TLS"
    )]
    Url {
        /// The text, escaped and cut.
        text: String,
    },
    /// The port is not a number from 1 to 65535.
    #[error("“{text}” is not a port: tcp:PORT with PORT from 1 to 65535")]
    Port {
        /// The text after `tcp:`, escaped and cut.
        text: String,
    },
    /// The duration is malformed or too long.
    #[error(
        "“{text}” is not a time to stay alive: alive:DURATION like 500ms, 2s or 1m 30s, at most {}",
        humantime::format_duration(limits::READY_TIMEOUT)
    )]
    Duration {
        /// The text after `alive:`, escaped and cut.
        text: String,
    },
    /// The command cannot be run.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Why a text is not a [`Signal`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("“{text}” is not a signal to reload by: HUP, INT, QUIT, USR1, USR2, ALRM, TERM or WINCH")]
pub struct SignalError {
    text: String,
}

/// Why a text cannot be a shell command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is nothing to run.
    #[error("the command is empty")]
    Empty,
    /// It is longer than [`limits::TEXT`].
    #[error("the command has {len} bytes, more than {}", limits::TEXT)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It contains a NUL byte, which no argument can.
    #[error("the command contains a NUL byte at {offset}")]
    Nul {
        /// Where, in bytes.
        offset: usize,
    },
}

impl FromStr for Reload {
    type Err = ReloadError;

    fn from_str(text: &str) -> Result<Self, ReloadError> {
        match text.split_once(':') {
            None if text == "restart" => Ok(Self::Restart),
            None if text == "none" => Ok(Self::None),
            Some(("signal", name)) => Ok(Self::Signal(name.parse()?)),
            Some(("command", command)) => Ok(Self::Command(parse_command(command)?)),
            _ => Err(ReloadError::Unknown { text: shown(text) }),
        }
    }
}

impl fmt::Display for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restart => f.write_str("restart"),
            Self::Signal(signal) => write!(f, "signal:{signal}"),
            Self::Command(command) => write!(f, "command:{command}"),
            Self::None => f.write_str("none"),
        }
    }
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Hup,
        Self::Int,
        Self::Quit,
        Self::Usr1,
        Self::Usr2,
        Self::Alrm,
        Self::Term,
        Self::Winch,
    ];

    /// Its name without `SIG`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hup => "HUP",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Alrm => "ALRM",
            Self::Term => "TERM",
            Self::Winch => "WINCH",
        }
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    /// Parses `HUP` or `SIGHUP`, in upper or lower case.
    fn from_str(text: &str) -> Result<Self, SignalError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        Self::ALL
            .into_iter()
            .find(|signal| signal.name() == name)
            .ok_or_else(|| SignalError { text: shown(text) })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Default for ReadyCheck {
    fn default() -> Self {
        Self::Alive(Duration::from_secs(1))
    }
}

impl FromStr for ReadyCheck {
    type Err = ReadyCheckError;

    fn from_str(text: &str) -> Result<Self, ReadyCheckError> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            Some(("http" | "https", _)) => Ok(Self::Http(text.parse()?)),
            Some(("tcp", port)) => parse_port(port)
                .map(Self::Tcp)
                .ok_or_else(|| ReadyCheckError::Port { text: shown(port) }),
            Some(("command", command)) => Ok(Self::Command(parse_command(command)?)),
            Some(("alive", duration)) => humantime::parse_duration(duration)
                .ok()
                .filter(|duration| *duration <= limits::READY_TIMEOUT)
                .map(Self::Alive)
                .ok_or_else(|| ReadyCheckError::Duration {
                    text: shown(duration),
                }),
            _ => Err(ReadyCheckError::Unknown { text: shown(text) }),
        }
    }
}

impl fmt::Display for ReadyCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => url.fmt(f),
            Self::Tcp(port) => write!(f, "tcp:{port}"),
            Self::Command(command) => write!(f, "command:{command}"),
            Self::Alive(duration) => write!(f, "alive:{}", humantime::format_duration(*duration)),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl HttpUrl {
    /// The host: a name, an IPv4 address, or an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 80 if the text named none.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The path and query, beginning with `/`: visible ASCII, so that it fits a request line.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The host and port as a `Host` header has them.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port {
            80 => host,
            port => format!("{host}:{port}"),
        }
    }
}

impl FromStr for HttpUrl {
    type Err = ReadyCheckError;

    fn from_str(text: &str) -> Result<Self, ReadyCheckError> {
        let parse = || {
            let rest = text.strip_prefix("http://")?;
            let (authority, target) = match rest.find(['/', '?']) {
                Some(at) if rest[at..].starts_with('/') => (&rest[..at], rest[at..].to_owned()),
                Some(at) => (&rest[..at], format!("/{}", &rest[at..])),
                None => (rest, "/".to_owned()),
            };
            let (host, port) = match authority.strip_prefix('[') {
                Some(bracketed) => {
                    let (host, port) = bracketed.split_once(']')?;
                    host.parse::<Ipv6Addr>().ok()?;
                    (host, port)
                }
                None => {
                    let at = authority.find(':').unwrap_or(authority.len());
                    let (host, port) = authority.split_at(at);
                    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
                    (!host.is_empty() && host.bytes().all(plain)).then_some(())?;
                    (host, port)
                }
            };
            let port = match port.strip_prefix(':') {
                Some(port) => parse_port(port)?,
                None if port.is_empty() => 80,
                None => return None,
            };
            let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
            let url = Self {
                host: host.to_owned(),
                port,
                target,
            };
            // As it will be written, which is longer than the text where that had no path.
            let fits = url.to_string().len() <= limits::TEXT;
            (fits && url.target.bytes().all(visible)).then_some(url)
        };
        parse().ok_or_else(|| ReadyCheckError::Url { text: shown(text) })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.target)
    }
}

impl fmt::Display for Exit {
    /// Says `exit status 1` or `killed by SIGKILL`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = match *self {
            Self::Code(code) => return write!(f, "exit status {code}"),
            Self::Signal(number) => number,
        };
        // Those that end a process, from signal(7) for x86 and ARM.
        let name = match number {
            1 => "HUP",
            2 => "INT",
            3 => "QUIT",
            4 => "ILL",
            5 => "TRAP",
            6 => "ABRT",
            7 => "BUS",
            8 => "FPE",
            9 => "KILL",
            10 => "USR1",
            11 => "SEGV",
            12 => "USR2",
            13 => "PIPE",
            14 => "ALRM",
            15 => "TERM",
            24 => "XCPU",
            25 => "XFSZ",
            31 => "SYS",
            _ => return write!(f, "killed by signal {number}"),
        };
        write!(f, "killed by SIG{name}")
    }
}

/// Encodes a type as its text, and decodes it by parsing, so that no invalid value gets past.
macro_rules! coded_as_text {
    ($($type:ty),*) => {$(
        impl Encode for $type {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), codec::error::Encode> {
                self.to_string().encode(encoder)
            }
        }

        impl<Context> Decode<Context> for $type {
            fn decode<D: Decoder<Context = Context>>(
                decoder: &mut D,
            ) -> Result<Self, codec::error::Decode> {
                // The longest is a command of `limits::TEXT` behind its prefix.
                codec::decode_text(decoder, limits::TEXT + 64)?
                    .parse()
                    .map_err(codec::invalid)
            }
        }
    )*};
}
coded_as_text!(Reload, ReadyCheck);

fn parse_command(command: &str) -> Result<String, CommandError> {
    if command.trim().is_empty() {
        Err(CommandError::Empty)
    } else if command.len() > limits::TEXT {
        Err(CommandError::TooLong { len: command.len() })
    } else if let Some(offset) = command.find('\0') {
        Err(CommandError::Nul { offset })
    } else {
        Ok(command.to_owned())
    }
}

/// Parses a port as digits alone: `u16` would also take `+80`.
fn parse_port(port: &str) -> Option<u16> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|port| digits && *port != 0)
}

/// What an error shows of a text that may come from a peer.
fn shown(text: &str) -> String {
    text.chars()
        .take(80)
        .collect::<String>()
        .escape_debug()
        .to_string()
}

codec::impl_borrow_decode!(Reload);
codec::impl_borrow_decode!(ReadyCheck);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reloads_are_the_text_they_are_written_as() {
        for text in [
            "restart",
            "signal:HUP",
            "command:kill -HUP $(cat a.pid)",
            "none",
        ] {
            let reload: Reload = text.parse().unwrap();
            assert_eq!(reload.to_string(), text);
            assert_eq!(codec::encode(&reload), codec::encode(&text.to_owned()));
            assert_eq!(
                codec::decode::<Reload>(&codec::encode(&reload)).unwrap(),
                reload
            );
        }
        for (text, signal) in [
            ("signal:sigusr1", Signal::Usr1),
            ("signal:Term", Signal::Term),
        ] {
            assert_eq!(text.parse(), Ok(Reload::Signal(signal)));
        }
        let long = format!("command:{}", "x".repeat(limits::TEXT + 1));
        for bad in [
            "",
            "Restart",
            "restart:",
            "signal",
            "signal:",
            "signal:KILL",
            "signal:1",
            "command:",
            "command: ",
            "command:a\0b",
            "none ",
            &long,
        ] {
            assert!(bad.parse::<Reload>().is_err(), "{bad:?}");
            let bytes = codec::encode(&bad.to_owned());
            assert!(codec::decode::<Reload>(&bytes).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ready_checks_are_the_text_they_are_written_as() {
        for text in [
            "http://127.0.0.1:8000/health?deep=1",
            "http://localhost/",
            "http://[::1]:8080/",
            "tcp:5432",
            "command:test -e up",
            "alive:1s",
            "alive:1m 30s",
            "auto",
        ] {
            let check: ReadyCheck = text.parse().unwrap();
            assert_eq!(check.to_string(), text);
            assert_eq!(codec::encode(&check), codec::encode(&text.to_owned()));
            assert_eq!(
                codec::decode::<ReadyCheck>(&codec::encode(&check)).unwrap(),
                check
            );
        }
        for bad in [
            "",
            "http:",
            "http://",
            "http:///x",
            "https://localhost/",
            "http://a b/",
            "http://user@host/",
            "http://host:0/",
            "http://host:+80/",
            "http://host:65536/",
            "http://host/a b",
            "http://host/a\r\nX: y",
            "http://host/#part",
            "http://[::1/",
            "http://[::1]x/",
            "http://[localhost]/",
            "tcp:",
            "tcp:0",
            "tcp:+1",
            "tcp:70000",
            "tcp:localhost:1",
            "command:",
            "alive:",
            "alive:1",
            "alive:2h",
            "alive:-1s",
            "auto:",
            "Auto",
            "http",
        ] {
            assert!(bad.parse::<ReadyCheck>().is_err(), "{bad:?}");
            let bytes = codec::encode(&bad.to_owned());
            assert!(codec::decode::<ReadyCheck>(&bytes).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let url: HttpUrl = "http://[::1]?x".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.target()), ("::1", 80, "/?x"));
        assert_eq!(url.authority(), "[::1]");
    }

    #[test]
    fn a_url_of_the_longest_length_is_read_as_it_was_written() {
        let host = "h".repeat(limits::TEXT - "http:///".len());
        for (text, is_url) in [
            (format!("http://{host}"), true),
            (format!("http://{host}/"), true),
            (format!("http://{host}h"), false),
            (format!("http://{}?x", &host[1..]), false),
        ] {
            match text.parse::<ReadyCheck>() {
                Ok(check) => {
                    let again = codec::decode::<ReadyCheck>(&codec::encode(&check));
                    assert_eq!(again.unwrap(), check);
                    assert!(is_url, "{} bytes", text.len());
                }
                Err(_) => assert!(!is_url, "{} bytes", text.len()),
            }
        }
    }

    #[test]
    fn errors_say_what_is_accepted() {
        let error = "signal:KILL".parse::<Reload>().unwrap_err().to_string();
        assert!(error.contains("“KILL”") && error.contains("HUP"), "{error}");
        let error = "alive:2h".parse::<ReadyCheck>().unwrap_err().to_string();
        assert!(error.ends_with("at most 10m"), "{error}");
        let error = "\u{1b}[2J".parse::<ReadyCheck>().unwrap_err().to_string();
        assert!(
            error.contains("tcp:PORT") && !error.contains('\u{1b}'),
            "{error}"
        );
    }

    #[test]
    fn exits_are_named() {
        assert_eq!(Exit::Code(1).to_string(), "exit status 1");
        assert_eq!(Exit::Signal(9).to_string(), "killed by SIGKILL");
        assert_eq!(Exit::Signal(40).to_string(), "killed by signal 40");
    }

    #[test]
    fn the_encoding_of_an_app_state_stays() {
        let state = AppState {
            running: false,
            pid: Some(7),
            exit: Some(Exit::Signal(9)),
            restarts: 2,
        };
        // running, Some, pid, Some, Exit::Signal, 9 zigzag, restarts
        let bytes = [0, 1, 7, 1, 1, 18, 2];
        assert_eq!(codec::encode(&state), bytes);
        assert_eq!(codec::decode::<AppState>(&bytes).unwrap(), state);
    }
}
