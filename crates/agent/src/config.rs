//! What an agent is told to do, validated.

use std::{ffi::OsString, fmt, io, path::PathBuf, time::Duration};

use patchwire_protocol::app::{ReadyCheck, Reload};
use patchwire_transport::{DeploymentLink, LinkSource, LinkSourceError};

use crate::cli::RunArgs;

/// How long an app may take to be ready, unless something says otherwise.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// What an agent is told to do. See [`RunArgs`] for the defaults.
#[derive(Debug)]
pub struct Config {
    /// Which deployment it serves, and through which relay.
    pub link: DeploymentLink,
    /// The directory that pushes change.
    pub root: PathBuf,
    /// Where the agent's own state is.
    pub state: PathBuf,
    /// How the agent is called.
    pub name: String,
    /// The app's program and its arguments.
    pub command: Vec<OsString>,
    /// The environment that the app inherits. `PATCHWIRE_LINK*` is left out of it.
    pub environment: Environment,
    /// What the agent's own flags say about the app; goes before what a push brings.
    pub app: AppFlags,
    /// How this program starts itself as the guard of its app.
    pub guard: GuardCommand,
}

/// Environment variables. `Debug` shows how many, as their values may be secrets.
pub struct Environment(pub Vec<(OsString, OsString)>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} variables", self.0.len())
    }
}

/// What the agent's own flags say about the app.
#[derive(Clone, Debug, Default)]
pub struct AppFlags {
    /// How it takes up new code.
    pub reload: Option<Reload>,
    /// When it is ready.
    pub ready: Option<ReadyCheck>,
    /// How long that may take.
    pub ready_timeout: Option<Duration>,
}

/// How this program starts itself as the guard of its app.
#[derive(Clone, Debug)]
pub struct GuardCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<&'static str>,
}

/// Why an agent can't be told so.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No link.
    #[error(
        "no link: give --link @FILE, or set PATCHWIRE_LINK_FILE; `patchwire link --agent` prints one \
         at the developer's machine"
    )]
    NoLink,
    /// The link is none.
    #[error("the link can't be used")]
    Link(#[from] LinkSourceError),
    /// The root isn't there, or no directory.
    #[error(
        "“{}” can't be the root: make that directory, or name another with --root",
        root.display()
    )]
    Root {
        /// The directory.
        root: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Config {
    /// Validates arguments. The link's file, or standard input, is read.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if there is no link, or it is none, or there is no root.
    pub fn new(
        args: RunArgs,
        environment: Vec<(OsString, OsString)>,
        guard: GuardCommand,
    ) -> Result<Self, ConfigError> {
        let source = args
            .link
            .filter(|link| !link.is_empty())
            .or(args.link_file.map(LinkSource::File))
            .ok_or(ConfigError::NoLink)?;
        let directory = |path: PathBuf| match path.metadata()?.is_dir() {
            true => Ok(path),
            false => Err(io::ErrorKind::NotADirectory.into()),
        };
        let root = args
            .root
            .canonicalize()
            .and_then(directory)
            .map_err(|source| ConfigError::Root {
                root: args.root.clone(),
                source,
            })?;
        Ok(Self {
            link: source.read()?,
            state: args.state.unwrap_or_else(|| root.join(".patchwire")),
            root,
            name: args.name.unwrap_or_else(host_name),
            command: args.command,
            environment: Environment(environment),
            app: AppFlags {
                reload: args.reload,
                ready: args.ready,
                ready_timeout: args.ready_timeout,
            },
            guard,
        })
    }
}

impl AppFlags {
    /// How the app takes up new code, after what the developer's configuration says.
    pub(crate) fn reload(&self, pushed: Option<&Reload>) -> Reload {
        self.reload.as_ref().or(pushed).cloned().unwrap_or_default()
    }

    /// When the app is ready, after what the developer's configuration says.
    pub(crate) fn ready(&self, pushed: Option<&ReadyCheck>) -> ReadyCheck {
        self.ready.as_ref().or(pushed).cloned().unwrap_or_default()
    }

    /// How long that may take, after what the developer's configuration says.
    pub(crate) fn ready_timeout(&self, pushed_ms: Option<u64>) -> Duration {
        self.ready_timeout
            .or(pushed_ms.map(Duration::from_millis))
            .unwrap_or(READY_TIMEOUT)
            .min(patchwire_protocol::limits::READY_TIMEOUT)
    }
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
