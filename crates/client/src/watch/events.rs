//! Hears of what happens in directories, from the kernel (inotify, see `man 7 inotify`).
//!
//! Each directory that a scan looked into is watched by itself, so that ignored ones cost nothing.
//! Spoken to directly, as two things are needed that a portable layer hides: only events that can
//! mean a change (our own scans open files, and must not be heard), and watches by inode, which stay
//! right whatever is renamed.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Read},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::inotify::{self, ReadFlags, Reader, WatchFlags},
    io::Errno,
};
use tokio::io::unix::AsyncFd;

mod descriptor;

/// What can change a tree: not that something is opened or read.
const CHANGES: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DONT_FOLLOW)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);

/// Events that are read at once: room for a few hundred.
const BUFFER: usize = 16 << 10;

/// Why saves can't be heard of. Says what to do about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum EventsError {
    /// The user has as many watches as are allowed.
    #[error(
        "all inotify watches of this user are taken (fs.inotify.max_user_watches is {limit}, and \
         {directories} directories are to be watched): allow more with `sudo sysctl \
         fs.inotify.max_user_watches=524288`"
    )]
    Watches { limit: String, directories: usize },
    /// The user has as many instances as are allowed.
    #[error(
        "all inotify instances of this user are taken (fs.inotify.max_user_instances is {limit}): \
         allow more with `sudo sysctl fs.inotify.max_user_instances=1024`"
    )]
    Instances { limit: String },
    /// Something else.
    #[error("the system does not tell what happens in “{}”", path.display())]
    Other { path: PathBuf, source: io::Error },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Happened {
    /// Something changed.
    Change,
    /// And among it the directories themselves, the root perhaps.
    Directories,
}

/// Where events come from.
#[derive(Debug)]
pub(super) struct Events {
    inotify: Arc<AsyncFd<OwnedFd>>,
    stale: Arc<AtomicBool>,
}

/// The directories that are watched.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: Arc<AsyncFd<OwnedFd>>,
    /// Whether directories came, went or were renamed: paths say nothing then of what is watched.
    stale: Arc<AtomicBool>,
    root: PathBuf,
    watched: HashMap<PathBuf, i32>,
}

/// Begins to listen below `root`, to nothing yet.
pub(super) fn listen(root: &Path) -> Result<(Events, Watches), EventsError> {
    let inotify = match descriptor::open() {
        Ok(inotify) => Arc::new(inotify),
        // The same error if this process has as many files open as it may.
        Err(error)
            if Errno::from_io_error(&error) == Some(Errno::MFILE)
                && fs::File::open("/dev/null").is_ok() =>
        {
            return Err(EventsError::Instances {
                limit: limit("instances"),
            });
        }
        Err(source) => {
            return Err(EventsError::Other {
                path: root.to_owned(),
                source,
            });
        }
    };
    let stale = Arc::new(AtomicBool::new(false));
    let events = Events {
        inotify: Arc::clone(&inotify),
        stale: Arc::clone(&stale),
    };
    let watches = Watches {
        inotify,
        stale,
        root: root.to_owned(),
        watched: HashMap::new(),
    };
    Ok((events, watches))
}

impl Events {
    /// Waits until something happens. Cancel safe.
    pub(super) async fn next(&self) -> io::Result<Happened> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); BUFFER];
            let mut reader = Reader::new(ready.get_inner(), &mut buffer);
            let mut happened = None;
            let drained = loop {
                match reader.next() {
                    Ok(event) => happened = happened.max(self.read(event.events())),
                    Err(Errno::AGAIN) => break true,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                // What is left is read the next time, so that others get their turn.
                if reader.is_buffer_empty() {
                    break false;
                }
            };
            if drained {
                ready.clear_ready();
            }
            if let Some(happened) = happened {
                return Ok(happened);
            }
        }
    }

    fn read(&self, event: ReadFlags) -> Option<Happened> {
        let own = ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF;
        let lost = ReadFlags::QUEUE_OVERFLOW | ReadFlags::UNMOUNT;
        let moved = ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
        if event.intersects(own | lost)
            || event.contains(ReadFlags::ISDIR) && event.intersects(moved)
        {
            self.stale.store(true, Ordering::Release);
            return Some(Happened::Directories);
        }
        // The last word of a watch that ended, perhaps because it was not wanted any more.
        (!event.contains(ReadFlags::IGNORED)).then_some(Happened::Change)
    }
}

impl Watches {
    /// Watches these directories, and no others. Tells whether there was a new one: what happened in
    /// it before was not heard.
    ///
    /// Costs a system call for each new directory; for each of all after directories were renamed.
    pub(super) fn watch(&mut self, directories: &[PathBuf]) -> Result<bool, EventsError> {
        let stale = self.stale.swap(false, Ordering::AcqRel);
        let mut before = std::mem::take(&mut self.watched);
        let known: HashSet<i32> = match stale {
            true => before.drain().map(|(_, watch)| watch).collect(),
            false => HashSet::new(),
        };
        let mut news = false;
        for directory in directories {
            let watch = match before.remove(directory) {
                Some(watch) => watch,
                None => {
                    let path = match directory.as_os_str().is_empty() {
                        true => self.root.clone(),
                        false => self.root.join(directory),
                    };
                    let Some(watch) = self.add(&path, directories.len())? else {
                        // Gone again, or no directory any more: the next scan tells.
                        news = true;
                        continue;
                    };
                    news |= !known.contains(&watch);
                    watch
                }
            };
            self.watched.insert(directory.clone(), watch);
        }
        let mut gone: HashSet<i32> = before.into_values().chain(known).collect();
        for watch in self.watched.values() {
            gone.remove(watch);
        }
        for watch in gone {
            // That of a directory that doesn't exist any more has ended with it.
            let _ = inotify::remove_watch(self.inotify.get_ref(), watch);
        }
        Ok(news)
    }

    /// How many directories are watched.
    pub(super) fn len(&self) -> u64 {
        self.watched.len() as u64
    }

    fn add(&self, path: &Path, directories: usize) -> Result<Option<i32>, EventsError> {
        match inotify::add_watch(self.inotify.get_ref(), path, CHANGES) {
            Ok(watch) => Ok(Some(watch)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(Errno::NOSPC) => Err(EventsError::Watches {
                limit: limit("watches"),
                directories,
            }),
            Err(error) => Err(EventsError::Other {
                path: path.to_owned(),
                source: error.into(),
            }),
        }
    }
}

/// The system's limit, and that of the user namespace if it is lower.
fn limit(of: &str) -> String {
    let read = |path: &str| {
        let mut text = String::new();
        fs::File::open(path)
            .and_then(|file| file.take(64).read_to_string(&mut text))
            .ok()?;
        text.trim().parse::<u64>().ok()
    };
    let system = read(&format!("/proc/sys/fs/inotify/max_user_{of}"));
    let namespace = read(&format!("/proc/sys/user/max_inotify_{of}"));
    match (system, namespace) {
        (Some(system), Some(namespace)) if namespace < system => format!(
            "{system}, but user.max_inotify_{of} is {namespace} in this container's user namespace"
        ),
        (Some(system), _) => system.to_string(),
        (None, _) => "not known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directories(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    /// Reads all that was heard so far.
    async fn heard(events: &Events, root: &Path) -> Vec<Happened> {
        // Events come in order: once this one is there, so are all before it.
        fs::write(root.join("last"), "").unwrap();
        fs::remove_file(root.join("last")).unwrap();
        let mut heard = vec![events.next().await.unwrap()];
        while let Some(event) = now_heard(events).await {
            heard.push(event);
        }
        heard
    }

    /// What can be had without waiting.
    async fn now_heard(events: &Events) -> Option<Happened> {
        tokio::select! {
            biased;
            event = events.next() => Some(event.unwrap()),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn changes_are_heard_and_reading_is_not() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "1").unwrap();
        let (events, mut watches) = listen(root.path()).unwrap();
        assert!(watches.watch(&directories(&[""])).unwrap());
        assert!(!watches.watch(&directories(&[""])).unwrap());
        fs::read(root.path().join("file")).unwrap();
        fs::read_dir(root.path()).unwrap().count();
        assert_eq!(now_heard(&events).await, None);
        fs::write(root.path().join("file"), "2").unwrap();
        assert_eq!(events.next().await.unwrap(), Happened::Change);
    }

    #[tokio::test]
    async fn directories_are_watched_whatever_they_are_renamed_to() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("a/inner")).unwrap();
        let (events, mut watches) = listen(root.path()).unwrap();
        watches.watch(&directories(&["", "a", "a/inner"])).unwrap();
        // Another directory takes the name.
        fs::rename(path("a"), path("b")).unwrap();
        fs::create_dir(path("a")).unwrap();
        let renamed = heard(&events, root.path()).await;
        assert!(renamed.contains(&Happened::Directories), "{renamed:?}");
        let now = directories(&["", "a", "b", "b/inner"]);
        assert!(watches.watch(&now).unwrap(), "the new one is new");
        assert!(!watches.watch(&now).unwrap());
        assert_eq!(watches.len(), 4);
        for inside in ["a/x", "b/x", "b/inner/x"] {
            assert_eq!(now_heard(&events).await, None, "{inside}");
            fs::write(path(inside), "").unwrap();
            assert_eq!(heard(&events, root.path()).await[0], Happened::Change);
        }
        // What isn't wanted any more is silent, its last word included.
        assert!(!watches.watch(&directories(&["", "a", "b"])).unwrap());
        fs::write(path("b/inner/y"), "").unwrap();
        assert_eq!(now_heard(&events).await, None);
        assert_eq!(watches.len(), 3);
    }

    #[tokio::test]
    async fn a_directory_that_is_gone_before_it_is_watched_asks_for_another_look() {
        let root = tempfile::tempdir().unwrap();
        let (_events, mut watches) = listen(root.path()).unwrap();
        watches.watch(&directories(&[""])).unwrap();
        assert!(watches.watch(&directories(&["", "gone"])).unwrap());
        assert_eq!(watches.len(), 1);
    }

    #[test]
    fn a_limit_says_what_it_is_and_what_to_do() {
        let error = EventsError::Watches {
            limit: "3".to_owned(),
            directories: 12,
        };
        let text = error.to_string();
        assert!(text.contains("sudo sysctl fs.inotify.max_user_watches=524288"));
        assert!(limit("watches").starts_with(|first: char| first.is_ascii_digit()));
    }
}
