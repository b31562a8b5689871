//! What a command works with: its options, the environment and the user's directories, resolved.

use std::{env, ffi::OsString, path::PathBuf};

use patchwire_client::{
    Client, ConnectOptions, PushRequest,
    config::{ConfigError, Directories, Project},
    links::{LinkOptions, LinkStore},
};
use patchwire_transport::DeploymentLink;

use crate::{cli::Options, failure::Failure};

/// What a command works with: below `main`, this reads the environment.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) options: Options,
    link_file: Option<PathBuf>,
}

impl Context {
    pub(crate) fn new(options: Options) -> Self {
        let link_file = env::var_os("PATCHWIRE_LINK_FILE").filter(|file| !file.is_empty());
        Self {
            options,
            link_file: link_file.map(PathBuf::from),
        }
    }

    /// The project that the command is about.
    pub(crate) fn project(&self) -> Result<Project, Failure> {
        let directory = self.directory()?;
        Ok(Project::find(&directory, self.options.root.as_deref())?)
    }

    /// The working directory.
    pub(crate) fn directory(&self) -> Result<PathBuf, Failure> {
        env::current_dir().map_err(|source| {
            let path = ".".into();
            ConfigError::Root { path, source }.into()
        })
    }

    /// The user's own directories.
    pub(crate) fn directories(&self) -> Result<Directories, Failure> {
        Ok(Directories::of_user()?)
    }

    /// The links recorded for the user's roots.
    pub(crate) fn links(&self) -> Result<LinkStore, Failure> {
        Ok(LinkStore::new(&self.directories()?))
    }

    /// Where a link may come from besides.
    pub(crate) fn link_options(&self) -> LinkOptions {
        LinkOptions {
            link: self.options.link.clone().filter(|link| !link.is_empty()),
            file: self.link_file.clone(),
        }
    }

    /// The link for a project, as a developer.
    pub(crate) fn link(&self, project: &Project) -> Result<DeploymentLink, Failure> {
        Ok(self.links()?.resolve(project, &self.link_options())?)
    }

    /// A push of a project as it is configured, with nothing said of it.
    pub(crate) fn request(&self, project: &Project) -> Result<PushRequest, Failure> {
        Ok(PushRequest {
            scan: project.scan_options(),
            author: author(),
            app: project.app_options(variable)?,
            ..PushRequest::new(&project.root, self.directories()?.state)
        })
    }

    /// A client of a project's deployment for one request. It connects when it is used.
    pub(crate) fn client(&self, project: &Project) -> Result<Client, Failure> {
        let options = ConnectOptions {
            spare: false,
            ..self.connect_options()
        };
        Ok(Client::new(self.link(project)?, options))
    }

    /// A client of a link's deployment for many requests. It connects when it is first used.
    pub(crate) fn client_of(&self, link: DeploymentLink) -> Client {
        Client::new(link, self.connect_options())
    }

    fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            wait: self.options.wait,
            name: author(),
            ..ConnectOptions::default()
        }
    }
}

/// A variable of the developer's environment, if it is set and text.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// Whether a variable of the developer's environment is set, be it to nothing.
pub(crate) fn is_set(name: &str) -> bool {
    env::var_os(name).is_some()
}

/// The names of our own variables that are set: options, and links.
pub(crate) fn own_variables() -> impl Iterator<Item = OsString> {
    let names = env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.as_encoded_bytes().starts_with(b"PATCHWIRE_"))
}

/// Where programs are looked for.
pub(crate) fn search_path() -> Option<OsString> {
    env::var_os("PATH")
}

/// The user's name, as the environment says it.
pub(crate) fn user() -> Option<String> {
    ["USER", "LOGNAME"]
        .into_iter()
        .filter_map(variable)
        .find(|name| !name.is_empty())
}

/// Who pushes, for others to read: `ana@laptop`.
pub(crate) fn author() -> String {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    match user() {
        Some(user) => format!("{user}@{host}"),
        None => host,
    }
}
