//! Where `dev` keeps what it needs for a root between its runs.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{ErrorKind, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Error, anyhow};
use patchwire_agent::guard::wait_for_previous;
use patchwire_delta::Digest;
use patchwire_transport::{DeploymentLink, LinkSource, LinkSourceError, RelayLink};

use crate::{failure::Failure, local};

/// The app's copy of the root, for the agent: relative to the place.
pub(super) const COPY: &str = "app";

/// The agent's state, on the same file system as the copy.
pub(super) const AGENT_STATE: &str = "agent";

/// How many hexadecimal digits of a root's digest name its place.
const NAME_LEN: usize = 32;

/// The longest content of the lock file, which is a process id.
const MAX_ID: u64 = 32;

/// How long the app of a `dev` that was killed may take to end.
const PREVIOUS_APP: Duration = Duration::from_secs(30);

/// The directory of one root, for one `dev` at a time.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: PathBuf,
    /// Locked until this process ends.
    _lock: File,
}

impl Place {
    /// Makes the place of a root below the user's state directory, or takes the one that is there.
    pub(super) async fn open(state: &Path, root: &Path, fresh: bool) -> Result<Self, Failure> {
        let failed = |error: Error| Failure::failed("state", error);
        let name = Digest::of(root.as_os_str().as_bytes()).to_string();
        let directory = state.join("dev").join(&name[..NAME_LEN]);
        make(&directory).map_err(failed)?;
        // As the system knows it, like the root.
        let directory = directory
            .canonicalize()
            .map_err(|error| failed(error.into()))?;
        let lock = lock(&directory.join("lock")).map_err(failed)?;
        let lock = lock.map_err(|id| {
            let root = root.display();
            let process = match &*id {
                // It has the lock, and is about to write.
                "" => String::new(),
                id => format!(", process {id},"),
            };
            let error = anyhow!("another `patchwire dev`{process} runs for {root}: end it first");
            Failure::failed("already-running", error)
        })?;
        let place = Self {
            directory,
            _lock: lock,
        };
        place.prepare(root, fresh).await.map_err(failed)?;
        Ok(place)
    }

    /// The app's copy of the root.
    pub(super) fn copy(&self) -> PathBuf {
        self.directory.join(COPY)
    }

    /// The link of the deployment, which is the same in every run: so is what is remembered of it.
    pub(super) fn link(&self, relay: &RelayLink) -> Result<DeploymentLink, Error> {
        let source = LinkSource::File(self.directory.join(local::DEVELOPER_LINK));
        match source.read::<DeploymentLink>() {
            Ok(link) => return Ok(link.at(relay)),
            Err(LinkSourceError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            // Damaged, or of another version: nobody else needs what it held.
            Err(LinkSourceError::FileLink { .. }) => {}
            // It may be whole: with another one, nothing would be known of the copy.
            Err(error) => return Err(error.into()),
        }
        Ok(DeploymentLink::mint(relay, "app".parse()?, "dev".parse()?)?)
    }

    /// What keeps all of our state out of a root that it lies in.
    pub(super) fn pattern(&self, root: &Path) -> Result<Option<String>, Failure> {
        let state = self.directory.ancestors().nth(2).unwrap_or(&self.directory);
        let pattern = ignoring(root, state).transpose();
        pattern.map_err(Failure::usage)
    }

    async fn prepare(&self, root: &Path, fresh: bool) -> Result<(), Error> {
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.directory.join("root"))
            .and_then(|mut file| file.write_all(&[root.as_os_str().as_bytes(), b"\n"].concat()));
        written.context("can't write to the state directory")?;
        // What the agent knows of a copy that isn't there any more is of no use either.
        if fresh || !self.copy().is_dir() {
            let state = self.directory.join(AGENT_STATE);
            // Held until both are gone: of a `dev` that was killed, agent and app may still be there.
            let _previous = match state.is_dir() {
                true => Some(wait_for_previous(&state, PREVIOUS_APP).await?),
                false => None,
            };
            for name in [COPY, AGENT_STATE] {
                let path = self.directory.join(name);
                match fs::remove_dir_all(&path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(error)
                            .with_context(|| format!("can't remove {}", path.display()));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        }
        make(&self.copy())
    }
}

/// Makes a directory that is the user's alone.
fn make(directory: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .and_then(|()| fs::set_permissions(directory, Permissions::from_mode(0o700)))
        .with_context(|| format!("can't make {}", directory.display()))
}

/// Takes the lock; an error within is the id of the process that holds it.
fn lock(path: &Path) -> Result<Result<File, String>, Error> {
    let lock = || {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                write!(file, "{}", std::process::id())?;
                Ok(Ok(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut id = String::new();
                file.take(MAX_ID).read_to_string(&mut id)?;
                Ok(Err(id))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    };
    lock().with_context(|| format!("can't lock {}", path.display()))
}

/// A pattern that ignores what lies at `path` below `root`; `None` where it lies elsewhere.
fn ignoring(root: &Path, path: &Path) -> Option<Result<String, Error>> {
    let below = path.strip_prefix(root).ok()?;
    let text = below.to_str().with_context(|| {
        format!(
            "{} can't be left out of the root: its name isn't UTF-8",
            path.display()
        )
    });
    Some(text.map(|text| {
        let mut pattern = "/".to_owned();
        for char in text.chars() {
            if "\\*?[]!# ".contains(char) {
                pattern.push('\\');
            }
            pattern.push(char);
        }
        pattern
    }))
}

#[cfg(test)]
mod tests {
    use std::{future::ready, pin::pin};

    use patchwire_transport::{Pin, RelayKey};

    use super::*;

    #[test]
    fn a_place_below_its_own_root_is_left_out_of_it() {
        let ignoring = |root, path| ignoring(Path::new(root), Path::new(path));
        assert!(ignoring("/home/ana/shop", "/home/ana/.local/state").is_none());
        let pattern = ignoring("/home/ana", "/home/ana/.local/st[a]te/x y").unwrap();
        assert_eq!(pattern.unwrap(), "/.local/st\\[a\\]te/x\\ y");
        let bad = std::ffi::OsStr::from_bytes(b"/r/\xff");
        let refused = super::ignoring(Path::new("/r"), Path::new(bad)).unwrap();
        assert!(refused.is_err());
    }

    async fn open(state: &tempfile::TempDir, root: &str, fresh: bool) -> Result<Place, Failure> {
        Place::open(state.path(), Path::new(root), fresh).await
    }

    #[tokio::test]
    async fn a_place_is_its_roots_and_one_processs_at_a_time() {
        let state = tempfile::tempdir().unwrap();
        let place = open(&state, "/r", false).await.unwrap();
        let other = open(&state, "/other", false).await.unwrap();
        assert_ne!(place.directory, other.directory);
        assert_eq!(fs::read(place.directory.join("root")).unwrap(), b"/r\n");
        let mode = fs::metadata(&place.directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);

        let refused = open(&state, "/r", false).await.unwrap_err().message();
        let id = std::process::id();
        let named = format!("`patchwire dev`, process {id}, runs for /r: end it first");
        assert!(refused.contains(&named), "{refused}");
        // Before it has written its id.
        fs::write(place.directory.join("lock"), "").unwrap();
        let refused = open(&state, "/r", false).await.unwrap_err().message();
        assert!(refused.contains("`patchwire dev` runs for /r"), "{refused}");
        drop(place);
        open(&state, "/r", false).await.unwrap();
    }

    #[tokio::test]
    async fn a_link_is_kept_unless_there_is_none_that_can_be_used() {
        let state = tempfile::tempdir().unwrap();
        let place = open(&state, "/r", false).await.unwrap();
        let address = "127.0.0.1:4433".parse().unwrap();
        let relay = RelayLink::new(address, Pin::new([1; 32]), RelayKey::new([2; 32]));
        let link = || place.link(&relay).map(|link| link.expose().to_string());
        let file = place.directory.join(local::DEVELOPER_LINK);
        let minted = link().unwrap();
        assert_ne!(link().unwrap(), minted);
        fs::write(&file, &minted).unwrap();
        assert_eq!(link().unwrap(), minted);
        fs::write(&file, "patchwire://h/a/b#v9").unwrap();
        assert_ne!(link().unwrap(), minted);
        // It can't be read.
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(link().is_err());
    }

    #[tokio::test]
    async fn what_is_removed_is_nobodys_any_more() {
        let state = tempfile::tempdir().unwrap();
        let place = open(&state, "/r", false).await.unwrap();
        let [agent, copy] = [AGENT_STATE, COPY].map(|name| place.directory.join(name));
        fs::create_dir(&agent).unwrap();
        fs::write(copy.join("file"), "").unwrap();
        let app = wait_for_previous(&agent, Duration::ZERO).await.unwrap();
        drop(place);
        let mut fresh = pin!(open(&state, "/r", true));
        tokio::select! {
            biased;
            _ = &mut fresh => panic!("it didn't wait"),
            () = ready(()) => {}
        }
        assert!(copy.join("file").exists() && agent.exists());
        drop(app);
        fresh.await.unwrap();
        assert!(!copy.join("file").exists() && !agent.exists());
    }

    #[tokio::test]
    async fn a_fresh_place_and_one_without_a_copy_begin_from_nothing() {
        let state = tempfile::tempdir().unwrap();
        let open = async |fresh| open(&state, "/r", fresh).await.unwrap();
        let write = |place: &Place| {
            fs::create_dir_all(place.directory.join(AGENT_STATE)).unwrap();
            fs::write(place.copy().join("file"), "").unwrap();
        };
        let is_known = |place: &Place| place.directory.join(AGENT_STATE).exists();
        write(&open(false).await);
        let kept = open(false).await;
        assert!(kept.copy().join("file").exists() && is_known(&kept));
        fs::remove_dir_all(kept.copy()).unwrap();
        drop(kept);
        let lost = open(false).await;
        assert!(lost.copy().is_dir() && !is_known(&lost));
        write(&lost);
        drop(lost);
        let fresh = open(true).await;
        assert!(!fresh.copy().join("file").exists() && !is_known(&fresh));
    }
}
