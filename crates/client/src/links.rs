//! The developer's links: where they are recorded, and which one a command uses.
//!
//! A link is recorded for one root, and found again only from there: a cloned repository can name an
//! app and a deployment in its `patchwire.toml`, but nobody's link to them. Each is a file of its
//! own, readable by its owner alone, that holds the link and nothing else, so that `@FILE` names it
//! too.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use patchwire_transport::{DeploymentLink, LinkError, LinkSource, LinkSourceError, secret_file};

use crate::config::{ConfigError, Directories, Project, bifrost::name_like};

/// The links of one user.
#[derive(Clone, Debug)]
pub struct LinkStore {
    directory: PathBuf,
}

/// Where a command's link may come from, first to last, besides what is recorded.
#[derive(Clone, Debug, Default)]
pub struct LinkOptions {
    /// `--link`, or `PATCHWIRE_LINK`.
    pub link: Option<LinkSource>,
    /// `PATCHWIRE_LINK_FILE`.
    pub file: Option<PathBuf>,
}

/// Why there is no link to be used, or it can't be recorded. Never holds a link.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// None is given, and none recorded for the root.
    #[error(
        "there is no link for “{}”: record one with `patchwire join @FILE`, make one with \
         `patchwire init --relay @FILE`, or give one with --link",
        root.display()
    )]
    None {
        /// The root.
        root: PathBuf,
    },
    /// The link can't be read where it should be.
    #[error(transparent)]
    Source(#[from] LinkSourceError),
    /// The link acts as an agent only.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The link contradicts the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The recorded link is open to others, who may know it by now.
    #[error(
        "“{}” holds a secret, and its mode {mode:04o} opens it to others: make it 0600, or a new link",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file or directory can't be used.
    #[error("can't record or look up links in “{}”: it has to be yours to write", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl LinkStore {
    /// The links in the user's configuration directory.
    #[must_use]
    pub fn new(directories: &Directories) -> Self {
        Self {
            directory: directories.config.join("links"),
        }
    }

    /// The file of a project's link, whether it is there or not.
    ///
    /// It is the root's, unless the project's file lies elsewhere than in the root or above it: then
    /// it is that file's and the root's together. Otherwise a directory that was cloned from
    /// somewhere could, with a `root = "../shop"` of its own, push by the link of another one.
    #[must_use]
    pub fn path(&self, project: &Project) -> PathBuf {
        let root = &project.root;
        let mut key = root.as_os_str().as_bytes().to_vec();
        let directory = project.file.as_deref().and_then(Path::parent);
        if let Some(directory) = directory.filter(|directory| !root.starts_with(directory)) {
            key.push(0);
            key.extend(directory.as_os_str().as_bytes());
        }
        let digest = blake3::hash(&key).to_hex();
        // The directory's name is for people who look for a link; the digest alone tells roots apart.
        let name = root.file_name().map(|name| name.to_string_lossy());
        let name = name.and_then(|name| name_like(&name));
        let name = name.as_ref().map_or("root", |name| name.as_str());
        self.directory.join(format!("{name}-{}", &digest[..32]))
    }

    /// Records a developer's link for a project, in the place of the one that may be recorded, and says
    /// in which file.
    ///
    /// # Errors
    ///
    /// [`LinksError`] if the link is an agent's, or can't be written.
    pub fn record(&self, project: &Project, link: &DeploymentLink) -> Result<PathBuf, LinksError> {
        check_developer(link)?;
        let path = self.path(project);
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| LinksError::Io { path, source }
        };
        private_directory(&self.directory).map_err(failed(&self.directory))?;
        secret_file::replace(&path, link.expose().as_bytes()).map_err(failed(&path))?;
        Ok(path)
    }

    /// The link that is recorded for a project.
    ///
    /// # Errors
    ///
    /// [`LinksError`] if it can't be read, or others can read it too.
    pub fn recorded(&self, project: &Project) -> Result<Option<DeploymentLink>, LinksError> {
        let path = self.path(project);
        let mode = match fs::metadata(&path) {
            Ok(metadata) => metadata.mode() & 0o7777,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LinksError::Io { path, source }),
        };
        if mode & 0o077 != 0 {
            return Err(LinksError::Open { path, mode });
        }
        let link: DeploymentLink = LinkSource::File(path).read()?;
        Ok(Some(link))
    }

    /// The link that a command about this project uses: one that is given, else the one that is
    /// recorded. It agrees with the project's file, and can act as a developer.
    ///
    /// # Errors
    ///
    /// [`LinksError`] if there is none, or not such a one.
    pub fn resolve(
        &self,
        project: &Project,
        options: &LinkOptions,
    ) -> Result<DeploymentLink, LinksError> {
        let link = match options.given()? {
            Some(link) => link,
            None => self.recorded(project)?.ok_or_else(|| LinksError::None {
                root: project.root.clone(),
            })?,
        };
        check_developer(&link)?;
        project.check_link(&link)?;
        Ok(link)
    }
}

impl LinkOptions {
    /// The link that is given, if one is.
    ///
    /// # Errors
    ///
    /// [`LinkSourceError`] if it can't be read.
    pub fn given(&self) -> Result<Option<DeploymentLink>, LinkSourceError> {
        match (&self.link, &self.file) {
            (Some(source), _) => source.read().map(Some),
            (None, Some(file)) => LinkSource::File(file.clone()).read().map(Some),
            (None, None) => Ok(None),
        }
    }
}

const fn check_developer(link: &DeploymentLink) -> Result<(), LinkError> {
    match link.is_agent_only() {
        true => Err(LinkError::AgentOnly),
        false => Ok(()),
    }
}

/// Makes a directory for its owner alone, or makes it such.
fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if fs::metadata(path)?.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use patchwire_transport::{Pin, RelayKey, RelayLink};
    use tempfile::TempDir;

    use super::*;
    use crate::config::Settings;

    fn link(deployment: &str) -> DeploymentLink {
        let relay = RelayLink::new(
            "h:1".parse().unwrap(),
            Pin::new([1; 32]),
            RelayKey::new([2; 32]),
        );
        DeploymentLink::mint(&relay, "shop".parse().unwrap(), deployment.parse().unwrap()).unwrap()
    }

    fn store() -> (TempDir, LinkStore) {
        let home = tempfile::tempdir().unwrap();
        let store = LinkStore::new(&Directories {
            config: home.path().join("config/patchwire"),
            state: home.path().join("state/patchwire"),
        });
        (home, store)
    }

    fn project(root: &str) -> Project {
        Project {
            root: root.into(),
            file: None,
            settings: Settings::default(),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_link_is_found_from_its_own_root_alone() {
        let (_home, store) = store();
        let recorded = link("dev");
        store.record(&project("/a/shop"), &recorded).unwrap();
        let found = store.recorded(&project("/a/shop")).unwrap().unwrap();
        assert_eq!(*found.expose(), *recorded.expose());
        for other in ["/b/shop", "/a", "/a/shop/x", "/"] {
            assert!(store.recorded(&project(other)).unwrap().is_none());
        }
        assert!(matches!(
            store.resolve(&project("/b/shop"), &LinkOptions::default()),
            Err(LinksError::None { root }) if root == Path::new("/b/shop")
        ));
    }

    #[test]
    fn a_file_elsewhere_cannot_aim_at_a_root_by_its_link() {
        let (_home, store) = store();
        store.record(&project("/home/shop"), &link("dev")).unwrap();
        let from = |file: &str| Project {
            file: Some(file.into()),
            ..project("/home/shop")
        };
        for own in ["/home/shop/patchwire.toml", "/home/patchwire.toml"] {
            assert!(store.recorded(&from(own)).unwrap().is_some());
        }
        for foreign in ["/home/evil/patchwire.toml", "/home/shop/sub/patchwire.toml"] {
            assert!(store.recorded(&from(foreign)).unwrap().is_none());
            store.record(&from(foreign), &link("its-own")).unwrap();
            let own = store.recorded(&from(foreign)).unwrap().unwrap();
            assert_eq!(own.deployment().as_str(), "its-own");
        }
    }

    #[test]
    fn links_are_their_owners_alone() {
        let (home, store) = store();
        let path = store.record(&project("/a"), &link("dev")).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&home.path().join("config/patchwire/links")), 0o700);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            store.recorded(&project("/a")),
            Err(LinksError::Open { mode: 0o640, .. })
        ));
    }

    #[test]
    fn a_directory_that_is_open_is_closed() {
        let (home, store) = store();
        let links = home.path().join("config/patchwire/links");
        fs::create_dir_all(&links).unwrap();
        fs::set_permissions(&links, fs::Permissions::from_mode(0o755)).unwrap();
        store.record(&project("/a"), &link("dev")).unwrap();
        assert_eq!(mode(&links), 0o700);
    }

    #[test]
    fn what_is_given_wins_over_what_is_recorded() {
        let (home, store) = store();
        store.record(&project("/a"), &link("recorded")).unwrap();
        let file = home.path().join("link");
        fs::write(&file, link("in-a-file").expose().as_bytes()).unwrap();
        let given = LinkSource::Text(link("given").expose());

        let resolve = |options: &LinkOptions| {
            let link = store.resolve(&project("/a"), options).unwrap();
            link.deployment().to_string()
        };
        let mut options = LinkOptions {
            link: Some(given),
            file: Some(file),
        };
        assert_eq!(resolve(&options), "given");
        options.link = None;
        assert_eq!(resolve(&options), "in-a-file");
        options.file = None;
        assert_eq!(resolve(&options), "recorded");
    }

    #[test]
    fn an_agents_link_is_neither_recorded_nor_used() {
        let (_home, store) = store();
        let narrow = link("dev").narrow();
        assert!(matches!(
            store.record(&project("/a"), &narrow),
            Err(LinksError::Link(LinkError::AgentOnly))
        ));
        let options = LinkOptions {
            link: Some(LinkSource::Text(narrow.expose())),
            file: None,
        };
        assert!(matches!(
            store.resolve(&project("/a"), &options),
            Err(LinksError::Link(LinkError::AgentOnly))
        ));
    }

    #[test]
    fn a_link_that_contradicts_the_file_is_not_used() {
        let (_home, store) = store();
        store.record(&project("/a"), &link("dev")).unwrap();
        let mut project = project("/a");
        project.file = Some("/a/patchwire.toml".into());
        project.settings.deployment = Some("prod".parse().unwrap());
        assert!(matches!(
            store.resolve(&project, &LinkOptions::default()),
            Err(LinksError::Config(ConfigError::OtherLink { .. }))
        ));
    }
}
