//! Hears of what happens in directories, from the system (inotify, see `man 7 inotify`).
//!
//! By the library `notify`, so that what the system says need not be read here. Each directory that
//! a scan looked into is watched by itself, so that ignored ones cost nothing. What the library does
//! in its own way, and what is done about that:
//!
//! - It tells that something was opened, which our own scans do all the time: such events are dropped
//!   on its thread. Where they are too many for the system's queue, others may be lost among them:
//!   that is told apart ([`Happened::lost`]), so that scans can't call for scans without a rest.
//! - It knows watches by path, which is wrong once a watched directory was renamed, removed or
//!   replaced. Then all watches are made anew, by another watcher.
//! - Its calls wait for its thread: they are made where a scan is, which may block.
//! - Its thread is behind: what was saved before a push begins may not have been read yet. The queue of
//!   an inotify instance is one, and in order: once a file of our own, in another directory that is
//!   watched, is heard of, all before it has been ([`Watches::take_changed`]).
//! - It doesn't tell that a file system was unmounted below the root. What is saved in its place then
//!   is found with the next save elsewhere.

use std::{
    collections::{BTreeSet, HashSet},
    convert::Infallible,
    fs,
    hash::{BuildHasher, RandomState},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self, TryRecvError},
    },
    time::Duration,
};

use notify::{
    ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use rustix::io::Errno;
use tokio::sync::Notify;

/// How long to wait until a watcher has ended. It has nothing else to do: if it takes longer, its
/// watches count beside those of the next one for a while.
const END: Duration = Duration::from_secs(5);

/// How long to wait until all that was saved is heard of.
const FLUSH: Duration = Duration::from_secs(1);

/// In how many directories something may happen between two looks before all are looked at.
const CHANGED: usize = 1 << 14;

/// The files that a watcher opens.
const FILES: usize = 3;

/// Why saves can't be heard of. Says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The user has as many watches as are allowed.
    #[error(
        "all inotify watches of this user are taken (fs.inotify.max_user_watches is {limit}, and \
         {directories} directories are to be watched): allow more with `sudo sysctl \
         fs.inotify.max_user_watches=524288`"
    )]
    Watches {
        /// How many, in words.
        limit: String,
        /// How many directories were to be watched.
        directories: usize,
    },
    /// The user has as many instances as are allowed.
    #[error(
        "all inotify instances of this user are taken (fs.inotify.max_user_instances is {limit}): \
         allow more with `sudo sysctl fs.inotify.max_user_instances=1024`"
    )]
    Instances {
        /// How many, in words.
        limit: String,
    },
    /// Something else.
    #[error("the system does not tell what happens in “{}”", path.display())]
    Other {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Something changed.
    pub change: bool,
    /// A directory that is watched was renamed, removed or replaced, the root perhaps.
    pub directories: bool,
    /// There was more than could be told. It may have been nothing but our own scan.
    pub lost: bool,
}

/// Where events come from.
#[derive(Debug)]
pub struct Events(Arc<Heard>);

/// The directories that are watched.
#[derive(Debug)]
pub struct Watches {
    heard: Arc<Heard>,
    /// `None` before the first directory is watched.
    ear: Option<Ear>,
    /// What was asked for last, relative to the root.
    directories: Vec<PathBuf>,
}

/// A watcher at work.
#[derive(Debug)]
struct Ear {
    watcher: RecommendedWatcher,
    /// Says nothing, and ends once the watcher's thread has let go of everything.
    ended: mpsc::Receiver<Infallible>,
}

/// What the watcher's thread leaves here for the two others.
#[derive(Debug)]
struct Heard {
    root: PathBuf,
    /// A directory of our own.
    state: PathBuf,
    inside: Mutex<State>,
    news: Notify,
    flushed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What was not taken yet.
    happened: Happened,
    /// The directories, relative to the root, in which something happened since they were taken; `None`
    /// if it may have been in any.
    changed: Option<BTreeSet<PathBuf>>,
    /// The file of our own that is to be heard of.
    awaited: Option<PathBuf>,
    /// Whether the watches are to be made anew.
    stale: bool,
    /// The directories that are watched, as they are told to the watcher.
    watched: HashSet<PathBuf>,
}

/// Begins to listen below `root`, to nothing yet. `state` is a directory of our own, outside what is
/// watched.
#[must_use]
pub fn listen(root: &Path, state: &Path) -> (Events, Watches) {
    let heard = Arc::new(Heard {
        root: root.to_owned(),
        state: state.to_owned(),
        inside: Mutex::default(),
        news: Notify::new(),
        flushed: Condvar::new(),
    });
    let watches = Watches {
        heard: Arc::clone(&heard),
        ear: None,
        directories: Vec::new(),
    };
    (Events(heard), watches)
}

impl Events {
    /// Waits until something happens. Cancel safe.
    pub async fn next(&self) -> Happened {
        loop {
            let happened = std::mem::take(&mut self.0.lock().happened);
            if happened != Happened::default() {
                return happened;
            }
            self.0.news.notified().await;
        }
    }

    /// Has all watches made anew: another directory stands at the root.
    pub fn start_over(&self) {
        self.0.lock().stale = true;
    }
}

impl Watches {
    /// Watches these directories, each after those that it is in, and no others. Gives those that are
    /// new: what happened in them before was not heard. Blocks.
    ///
    /// Costs a message to the watcher's thread for each new directory; for each of all where one
    /// that was watched isn't there any more.
    ///
    /// # Errors
    ///
    /// [`EventsError`], with which nothing can be watched.
    pub fn watch(&mut self, directories: &[PathBuf]) -> Result<Vec<PathBuf>, EventsError> {
        if self.ear.is_some() && self.directories == directories && !self.heard.lock().stale {
            return Ok(Vec::new());
        }
        self.directories.clear();
        let paths: Vec<PathBuf> = directories.iter().map(|path| self.path(path)).collect();
        let wanted: HashSet<&PathBuf> = paths.iter().collect();
        let anew = {
            let state = self.heard.lock();
            state.stale || state.watched.iter().any(|path| !wanted.contains(path))
        };
        if anew && let Some(ear) = self.ear.take() {
            ear.end();
        }
        let ear = match &mut self.ear {
            Some(ear) => ear,
            none => {
                // Nobody hears anything now, and so nothing can be stale or in the way.
                let mut state = self.heard.lock();
                state.stale = false;
                state.watched.clear();
                drop(state);
                let ear = none.insert(Ear::open(&self.heard)?);
                // Where that can't be, all is looked at each time.
                ear.add(&self.heard.state, paths.len())?;
                ear
            }
        };
        let mut new = Vec::new();
        // Each after those that it is in: what is renamed meanwhile is heard of.
        for (path, directory) in paths.iter().zip(directories) {
            // Before it is watched, as it may be renamed from then on. The lock is not held
            // meanwhile: the watcher's thread takes it too.
            if self.heard.lock().watched.insert(path.clone()) {
                new.push(directory.clone());
                if !ear.add(path, paths.len())? {
                    // Gone again: the next scan tells.
                    self.heard.lock().watched.remove(path);
                }
            }
        }
        self.directories = directories.to_vec();
        Ok(new)
    }

    /// Tells whether it is these directories that are watched.
    #[must_use]
    pub fn are_of(&self, directories: &[PathBuf]) -> bool {
        self.directories == directories
    }

    /// Takes the directories, relative to the root, in which something happened since they were taken
    /// last, all that was saved before this call included. `None` if it may have been in any: nothing
    /// was watched, or not all was heard. Blocks, for a second at most.
    pub fn take_changed(&mut self) -> Option<BTreeSet<PathBuf>> {
        let is_flushed = self.ear.is_some() && self.flush();
        let mut state = self.heard.lock();
        let changed = state.changed.replace(BTreeSet::new());
        changed.filter(|_| is_flushed && !state.stale)
    }

    /// Waits until all that happened before is heard of. Tells whether it is.
    fn flush(&self) -> bool {
        // Another process may use the same directory.
        let random = RandomState::new().hash_one(());
        let cookie = self.heard.state.join(format!("heard-{random:016x}"));
        self.heard.lock().awaited = Some(cookie.clone());
        let made = fs::File::create_new(&cookie).and_then(|_| fs::remove_file(&cookie));
        if made.is_err() {
            return false;
        }
        let waited =
            self.heard
                .flushed
                .wait_timeout_while(self.heard.lock(), FLUSH, |state: &mut State| {
                    state.awaited.is_some()
                });
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// How many directories are watched, if they are the right ones.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        let state = self.heard.lock();
        (!state.stale && !state.watched.is_empty()).then_some(state.watched.len() as u64)
    }

    fn path(&self, directory: &Path) -> PathBuf {
        // Joined with nothing, the root would end with a slash.
        match directory.as_os_str().is_empty() {
            true => self.heard.root.clone(),
            false => self.heard.root.join(directory),
        }
    }
}

impl Ear {
    fn open(heard: &Arc<Heard>) -> Result<Self, EventsError> {
        let other = |source| EventsError::Other {
            path: heard.root.clone(),
            source,
        };
        let (end, ended) = mpsc::channel();
        let taking_in = Arc::clone(heard);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Kept for as long as the thread lives.
            let _ = &end;
            taking_in.take_in(event.as_ref());
        });
        let watcher = match watcher.map_err(cause) {
            Ok(watcher) => watcher,
            // The same error if this process has as many files open as it may.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) && can_open(FILES) => {
                return Err(EventsError::Instances {
                    limit: limit("instances"),
                });
            }
            Err(error) => return Err(other(error)),
        };
        if ended.try_recv() == Err(TryRecvError::Disconnected) {
            // The thread could not be started. The watcher doesn't say so, but panics when it is
            // used, or dropped.
            std::mem::forget(watcher);
            return Err(other(io::Error::other("no thread can be started")));
        }
        Ok(Self { watcher, ended })
    }

    /// Watches a directory. Tells whether it was there.
    fn add(&mut self, path: &Path, directories: usize) -> Result<bool, EventsError> {
        let Err(error) = self.watcher.watch(path, RecursiveMode::NonRecursive) else {
            return Ok(true);
        };
        if matches!(error.kind, ErrorKind::MaxFilesWatch) {
            return Err(EventsError::Watches {
                limit: limit("watches"),
                directories,
            });
        }
        let source = cause(error);
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(false),
            _ => Err(EventsError::Other {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Ends it, and waits until its watches don't count any more.
    fn end(self) {
        drop(self.watcher);
        let _ = self.ended.recv_timeout(END);
    }
}

impl Heard {
    /// On the watcher's thread.
    fn take_in(&self, event: Result<&Event, &notify::Error>) {
        let mut state = self.lock();
        let ours = |path: &&PathBuf| path.parent() == Some(&self.state) || **path == self.state;
        if let Some(ours) = event.ok().and_then(|event| event.paths.iter().find(ours)) {
            if state.awaited.take_if(|awaited| awaited == ours).is_some() {
                self.flushed.notify_all();
            }
            return;
        }
        let happened = state.read(event);
        if happened == Happened::default() {
            return;
        }
        state.stale |= happened.directories || happened.lost;
        state.happened.change |= happened.change;
        state.happened.directories |= happened.directories;
        state.happened.lost |= happened.lost;
        match event {
            Ok(event) if happened.change => {
                for path in &event.paths {
                    state.touch(&self.root, path);
                }
            }
            _ => state.changed = None,
        }
        drop(state);
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes in that something happened at a path.
    fn touch(&mut self, root: &Path, path: &Path) {
        let Some(changed) = &mut self.changed else {
            return;
        };
        let directory = path
            .parent()
            .and_then(|above| above.strip_prefix(root).ok());
        // Of the root itself it is told by its own path.
        let directory = directory.unwrap_or(Path::new(""));
        if !changed.contains(directory) {
            changed.insert(directory.to_owned());
        }
        if changed.len() > CHANGED {
            self.changed = None;
        }
    }

    /// Reads what an event means.
    fn read(&self, event: Result<&Event, &notify::Error>) -> Happened {
        let Some(event) = event.ok().filter(|event| !event.need_rescan()) else {
            return Happened {
                lost: true,
                ..Happened::default()
            };
        };
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            EventKind::Access(_) => return Happened::default(),
            _ => {}
        }
        let at_paths = matches!(
            event.kind,
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_)
        );
        Happened {
            change: true,
            directories: at_paths && event.paths.iter().any(|path| self.watched.contains(path)),
            lost: false,
        }
    }
}

/// What the system said.
fn cause(error: notify::Error) -> io::Error {
    match error.kind {
        ErrorKind::Io(error) => error,
        ErrorKind::PathNotFound => io::ErrorKind::NotFound.into(),
        _ => io::Error::other(error),
    }
}

/// Tells whether this process may open so many more files.
fn can_open(files: usize) -> bool {
    let opened: io::Result<Vec<_>> = (0..files).map(|_| fs::File::open("/dev/null")).collect();
    opened.is_ok()
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
    use std::os::unix::fs::symlink;

    use notify::event::{CreateKind, DataChange, Flag, RemoveKind, RenameMode};

    use super::*;

    const NOTHING: Happened = Happened {
        change: false,
        directories: false,
        lost: false,
    };
    const CHANGE: Happened = Happened {
        change: true,
        ..NOTHING
    };
    const DIRECTORIES: Happened = Happened {
        directories: true,
        ..CHANGE
    };
    const LOST: Happened = Happened {
        lost: true,
        ..NOTHING
    };

    /// Listens below `root`, and takes what is in `state` for our own.
    fn listening(root: &tempfile::TempDir) -> (Events, Watches, tempfile::TempDir) {
        let state = tempfile::tempdir().unwrap();
        let (events, watches) = listen(root.path(), state.path());
        (events, watches, state)
    }

    fn directories(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    /// Waits until it is heard that watched directories changed.
    async fn directories_changed(events: &Events) {
        while !events.next().await.directories {}
    }

    /// Watches these by a new watcher, and forgets what the one before heard.
    fn watch_anew(events: &Events, watches: &mut Watches, names: &[&str]) {
        events.start_over();
        assert!(!watches.watch(&directories(names)).unwrap().is_empty());
        events.0.lock().happened = NOTHING;
    }

    #[test]
    fn what_an_event_means() {
        use {
            AccessKind::{Close, Open},
            EventKind::{Access, Create, Modify, Other, Remove},
        };
        let mut state = State::default();
        state.watched.insert("/root/in".into());
        let read = |kind, path: &str| state.read(Ok(&Event::new(kind).add_path(path.into())));
        let renamed = |mode| Modify(ModifyKind::Name(mode));
        assert_eq!(read(Access(Open(AccessMode::Any)), "/root/in"), NOTHING);
        assert_eq!(read(Access(Close(AccessMode::Read)), "/root/a"), NOTHING);
        assert_eq!(read(Access(Close(AccessMode::Write)), "/root/a"), CHANGE);
        let data = Modify(ModifyKind::Data(DataChange::Any));
        assert_eq!(read(data, "/root/a"), CHANGE);
        assert_eq!(read(Create(CreateKind::Folder), "/root/in"), CHANGE);
        for kind in [
            renamed(RenameMode::From),
            renamed(RenameMode::To),
            Remove(RemoveKind::Folder),
            Remove(RemoveKind::Other),
        ] {
            assert_eq!(read(kind, "/root/in"), DIRECTORIES, "{kind:?}");
            assert_eq!(read(kind, "/root/ignored"), CHANGE, "{kind:?}");
        }
        let overflow = Event::new(Other).set_flag(Flag::Rescan);
        assert_eq!(state.read(Ok(&overflow)), LOST);
        assert_eq!(state.read(Err(&notify::Error::generic("broken"))), LOST);
    }

    #[tokio::test]
    async fn where_events_were_lost_all_is_watched_anew() {
        let root = tempfile::tempdir().unwrap();
        let (events, mut watches, _state) = listening(&root);
        watches.watch(&directories(&[""])).unwrap();
        assert_eq!(watches.count(), Some(1));
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        events.0.take_in(Ok(&overflow));
        assert_eq!(events.next().await, LOST);
        assert_eq!(watches.count(), None);
        assert!(!watches.watch(&directories(&[""])).unwrap().is_empty());
        assert_eq!(watches.count(), Some(1));
    }

    #[tokio::test]
    async fn changes_are_heard_and_reading_is_not() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "1").unwrap();
        fs::create_dir(root.path().join("sub")).unwrap();
        let (events, mut watches, _state) = listening(&root);
        assert!(!watches.watch(&directories(&[""])).unwrap().is_empty());
        assert!(watches.watch(&directories(&[""])).unwrap().is_empty());
        fs::read(root.path().join("file")).unwrap();
        fs::read_dir(root.path()).unwrap().count();
        // Once the watcher answers, it has read what was there.
        assert!(
            !watches
                .watch(&directories(&["", "sub"]))
                .unwrap()
                .is_empty()
        );
        assert_eq!(events.0.lock().happened, NOTHING);
        fs::write(root.path().join("file"), "2").unwrap();
        assert_eq!(events.next().await, CHANGE);
    }

    #[tokio::test]
    async fn directories_are_watched_whatever_they_are_renamed_to() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("a/inner")).unwrap();
        let (events, mut watches, _state) = listening(&root);
        watches.watch(&directories(&["", "a", "a/inner"])).unwrap();
        // Another directory takes the name.
        fs::rename(path("a"), path("b")).unwrap();
        fs::create_dir(path("a")).unwrap();
        directories_changed(&events).await;
        let now = ["", "a", "b", "b/inner"];
        assert!(!watches.watch(&directories(&now)).unwrap().is_empty());
        assert!(watches.watch(&directories(&now)).unwrap().is_empty());
        assert_eq!(watches.count(), Some(4));
        for inside in ["a/x", "b/x", "b/inner/x"] {
            watch_anew(&events, &mut watches, &now);
            fs::write(path(inside), "").unwrap();
            assert_eq!(events.next().await, CHANGE, "{inside}");
        }
        // Removed, and there again before anybody looked.
        fs::remove_dir_all(path("a")).unwrap();
        fs::create_dir(path("a")).unwrap();
        directories_changed(&events).await;
        watch_anew(&events, &mut watches, &now);
        fs::write(path("a/x"), "").unwrap();
        assert_eq!(events.next().await, CHANGE);
    }

    #[tokio::test]
    async fn what_is_not_wanted_any_more_is_silent_and_takes_nothing_with_it() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("a")).unwrap();
        fs::create_dir(path("ignored")).unwrap();
        // As if it had been a directory when it was found: two paths for one watch.
        symlink("a", path("link")).unwrap();
        let (events, mut watches, _state) = listening(&root);
        let all = directories(&["", "a", "ignored", "link"]);
        assert!(!watches.watch(&all).unwrap().is_empty());
        watches.watch(&directories(&["", "a"])).unwrap();
        assert_eq!(watches.count(), Some(2));
        fs::write(path("ignored/x"), "").unwrap();
        assert!(
            !watches
                .watch(&directories(&["", "a", "link"]))
                .unwrap()
                .is_empty()
        );
        assert_eq!(events.0.lock().happened, NOTHING);
        watches.watch(&directories(&["", "a"])).unwrap();
        fs::write(path("a/x"), "").unwrap();
        assert_eq!(events.next().await, CHANGE);
    }

    #[test]
    fn a_directory_that_is_gone_before_it_is_watched_asks_for_another_look() {
        let root = tempfile::tempdir().unwrap();
        let (_events, mut watches, _state) = listening(&root);
        watches.watch(&directories(&[""])).unwrap();
        assert!(
            !watches
                .watch(&directories(&["", "gone"]))
                .unwrap()
                .is_empty()
        );
        assert_eq!(watches.count(), Some(1));
    }

    #[test]
    fn what_was_saved_before_is_known() {
        let root = tempfile::tempdir().unwrap();
        for made in ["a", "b/c"] {
            fs::create_dir_all(root.path().join(made)).unwrap();
        }
        let (_events, mut watches, _state) = listening(&root);
        assert_eq!(watches.take_changed(), None, "nothing is watched");
        let all = directories(&["", "a", "b", "b/c"]);
        assert_eq!(watches.watch(&all).unwrap(), all);
        let changed = |names: &[&str]| Some(directories(names).into_iter().collect());
        assert_eq!(watches.take_changed(), changed(&[]));
        for round in 0..200 {
            fs::write(root.path().join("a/x"), round.to_string()).unwrap();
            assert_eq!(watches.take_changed(), changed(&["a"]));
        }
        fs::write(root.path().join("b/c/y"), "").unwrap();
        fs::create_dir(root.path().join("d")).unwrap();
        assert_eq!(watches.take_changed(), changed(&["", "b/c"]));
        // Renamed, it is known by another name.
        fs::rename(root.path().join("a"), root.path().join("e")).unwrap();
        assert_eq!(watches.take_changed(), None);
        let now = directories(&["", "b", "b/c", "d", "e"]);
        assert_eq!(watches.watch(&now).unwrap(), now);
        assert_eq!(watches.take_changed(), changed(&[]));
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        watches.heard.take_in(Ok(&overflow));
        assert_eq!(watches.take_changed(), None);
    }

    #[test]
    fn without_a_directory_of_our_own_nothing_is_sure() {
        let root = tempfile::tempdir().unwrap();
        let (_events, mut watches, state) = listening(&root);
        assert_eq!(watches.take_changed(), None);
        watches.watch(&directories(&[""])).unwrap();
        assert!(watches.take_changed().is_some());
        state.close().unwrap();
        assert_eq!(watches.take_changed(), None);
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
