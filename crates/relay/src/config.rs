//! What a relay is told, and by the command line.

use std::{
    env,
    io::{self, IsTerminal},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::{ArgAction, Parser};
use etcetera::{BaseStrategy, HomeDirError, base_strategy::Xdg};
use patchwire_transport::Address;
use tracing_subscriber::EnvFilter;

use crate::pipe::Tap;

/// The relay of Patchwire: developers and agents connect to it, and it pipes encrypted streams
/// between them. Prints its relay link on standard output, and logs to standard error.
#[derive(Debug, Parser)]
#[command(name = "patchwire-relay", version, after_help = EXAMPLES)]
pub struct Args {
    /// The address and UDP port to listen on; port 0 takes a free one [default: [::]:4433]
    #[arg(long, value_name = "ADDR:PORT", env = "PATCHWIRE_LISTEN", value_parser = listen_address)]
    listen: Option<SocketAddr>,

    /// What the link says that others reach the relay at [default: the listen address]
    #[arg(long, value_name = "HOST:PORT", env = "PATCHWIRE_ADVERTISE")]
    advertise: Option<Address>,

    /// Where the relay keeps its keys [default: patchwire/relay in the user's state directory]
    #[arg(long, value_name = "DIR", env = "PATCHWIRE_STATE")]
    state: Option<PathBuf>,

    /// Also write the link to this file (mode 0600) once the port is bound
    #[arg(long, value_name = "FILE", env = "PATCHWIRE_LINK_FILE")]
    link_file: Option<PathBuf>,

    /// Log more; twice for everything. RUST_LOG goes before it
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

const EXAMPLES: &str = "\
Examples:
  patchwire-relay --advertise relay.example:4433
      a relay for others, on the default port (UDP 4433 has to be open)
  patchwire-relay --listen 127.0.0.1:0 --link-file relay.link
      a relay for this machine, on a free port; then
      patchwire link my-app dev --relay @relay.link";

/// Why the arguments make no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no home directory to keep the state under.
    #[error("cannot find the user's state directory: say where to keep the keys with --state DIR")]
    NoHome(#[source] HomeDirError),
}

impl Args {
    /// Resolves the defaults that depend on the user.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if there is no state directory to be found.
    pub fn into_config(self) -> Result<RelayConfig, ConfigError> {
        let state = match self.state {
            Some(state) => state,
            None => {
                let user = Xdg::new().map_err(ConfigError::NoHome)?;
                let state = user
                    .state_dir()
                    .unwrap_or_else(|| user.home_dir().join(".local/state"));
                state.join("patchwire/relay")
            }
        };
        Ok(RelayConfig {
            listen: self.listen,
            advertise: self.advertise,
            link_file: self.link_file,
            ..RelayConfig::new(state)
        })
    }

    /// Sends the process's log to standard error.
    pub fn start_logging(&self) {
        let level = match self.verbose {
            0 => "info",
            1 => "debug",
            _ => "trace",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        let colour = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(colour)
            .init();
    }
}

/// Parses an address to listen on: names are for `--advertise`.
fn listen_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(
        |_| "an IP address and a port are needed, like 0.0.0.0:4433, [::]:4433 or 127.0.0.1:0",
    )
}

/// How a relay runs.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// Where to listen; `None` is `[::]:4433`, or `0.0.0.0:4433` where there is no IPv6. Port 0 takes
    /// a free one.
    pub listen: Option<SocketAddr>,
    /// What the link says; `None` is the address listened on, and 127.0.0.1 if that is unspecified.
    pub advertise: Option<Address>,
    /// The directory of the relay's keys; made if it is not there.
    pub state: PathBuf,
    /// A file to write the link to; `None` by default.
    pub link_file: Option<PathBuf>,
    /// The most that the relay takes on.
    pub limits: Limits,
    /// Is shown what piped streams carry; `None` by default. For tests, and to find out what a relay
    /// can see.
    pub tap: Option<Arc<dyn Tap>>,
}

impl RelayConfig {
    /// The defaults, with keys in this directory.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            listen: None,
            advertise: None,
            state: state.into(),
            link_file: None,
            limits: Limits::default(),
            tap: None,
        }
    }
}

/// The most that a relay takes on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections; 10 000 by default. An idle one costs about 32 KB.
    pub connections: usize,
    /// Connections that have not said who they are; 512 by default.
    pub handshakes: usize,
    /// How long a peer may take to say who it is, or what a stream is for; 5 s by default.
    pub hello: Duration,
    /// How long a draining relay waits for open streams; 5 s by default.
    pub drain: Duration,
    /// How long an agent keeps its streams after a newer one took its place; 5 s by default.
    pub replaced: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            handshakes: 512,
            hello: Duration::from_secs(5),
            drain: Duration::from_secs(5),
            replaced: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_become_the_configuration() {
        let args = Args::try_parse_from([
            "patchwire-relay",
            "--listen=127.0.0.1:0",
            "--advertise=relay.example",
            "--state=/keys",
            "--link-file=/link",
        ]);
        let config = args.unwrap().into_config().unwrap();
        assert_eq!(config.listen, Some(([127, 0, 0, 1], 0).into()));
        assert_eq!(config.advertise.unwrap().to_string(), "relay.example:4433");
        assert_eq!(config.state, PathBuf::from("/keys"));
        assert_eq!(config.link_file, Some("/link".into()));
    }
}
