//! What is known of the managed paths from one look to the next.
//!
//! The managed directories are watched: where nothing happened, there is nothing to look at. What
//! nobody hears of, a write through a mapping, by another machine or by a name outside the tree, shows
//! once all is looked at again, with the second push after a minute at the latest. At the paths that a
//! push touches its commit looks in any case. While managed files have several names, all is looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use patchwire_protocol::{
    manifest::{Entry, Manifest, ManifestEntry},
    path::RelativePath,
};

use super::Standing;
use crate::{
    confine::{Dir, Kind},
    events::{EventsError, Watches, listen},
};

/// For how long what is heard is taken for all there is.
const CERTAIN: Duration = Duration::from_secs(60);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Vigil {
    root: PathBuf,
    /// A directory of our own, outside what is managed.
    state: PathBuf,
    hearing: Hearing,
    /// Whether all directories that are managed are there, and watched.
    is_complete: bool,
    /// Whether files have other names, by which they may be written to unheard.
    has_links: bool,
    /// What stood where not what was committed did, when that was looked at last.
    differing: BTreeMap<RelativePath, Option<Entry>>,
    /// When all was looked at last, if whatever happened since was heard, and looked at.
    looked: Option<Instant>,
}

#[derive(Debug)]
enum Hearing {
    NotYet,
    By(Watches),
    /// It can't be.
    Deaf,
}

/// What happened since the last look.
#[derive(Debug)]
pub(super) struct Changed {
    /// The directories in which something did, relative to the root.
    directories: BTreeSet<PathBuf>,
    looked: Instant,
}

impl Vigil {
    pub(crate) const fn new(root: PathBuf, state: PathBuf) -> Self {
        Self {
            root,
            state,
            hearing: Hearing::NotYet,
            is_complete: false,
            has_links: false,
            differing: BTreeMap::new(),
            looked: None,
        }
    }

    /// Takes in that other directories are managed from now on.
    pub(crate) const fn directories_changed(&mut self) {
        self.is_complete = false;
    }

    /// Whether all directories that are managed are there, and watched.
    pub(super) const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// What happened since this was asked last, if that is known. It is not again before
    /// [`Self::saw`] was told what became of it.
    pub(super) fn take_changed(&mut self) -> Option<Changed> {
        let looked = self.looked.take();
        let Hearing::By(watches) = &mut self.hearing else {
            return None;
        };
        let directories = watches.take_changed();
        let (directories, looked) = directories.zip(looked).filter(|_| self.is_complete)?;
        Some(Changed {
            directories,
            looked,
        })
    }

    /// Takes in what stands where `managed` doesn't, among the entries that were looked at: all, if
    /// nothing is said of them.
    pub(super) fn saw(
        &mut self,
        looked_at: Option<(&Changed, &[ManifestEntry])>,
        differing: Vec<Standing>,
        has_links: bool,
        managed: &Manifest,
    ) {
        self.has_links = has_links;
        match looked_at {
            None => {
                self.differing.clear();
                self.looked = Some(Instant::now());
            }
            Some((changed, entries)) => {
                for ManifestEntry { path, .. } in entries {
                    self.differing.remove(path);
                }
                self.looked = Some(changed.looked);
            }
        }
        self.differing.extend(differing);
        self.differing.retain(|path, _| managed.get(path).is_some());
        self.is_complete &= !(has_links || self.lacks_directories(managed));
    }

    /// What stands where not what was committed does, as was seen last.
    pub(super) const fn differing(&self) -> &BTreeMap<RelativePath, Option<Entry>> {
        &self.differing
    }

    /// Watches the managed directories. Gives those that are to be looked into once more before what
    /// happens in them is known; `None` if nothing is.
    pub(super) fn watch(&mut self, managed: &Manifest) -> Option<Vec<PathBuf>> {
        self.looked = self.looked.filter(|looked| looked.elapsed() < CERTAIN);
        // Where some are missing, or files have several names, all is looked at each time until they are back.
        if self.has_links || self.lacks_directories(managed) {
            return None;
        }
        let watched = match &mut self.hearing {
            Hearing::Deaf => return None,
            Hearing::By(watches) if self.is_complete && watches.count().is_some() => Ok(Vec::new()),
            Hearing::By(watches) => watches.watch(&directories(managed)),
            none @ Hearing::NotYet => {
                let (_, mut watches) = listen(&self.root, &self.state);
                let watched = watches.watch(&directories(managed));
                *none = Hearing::By(watches);
                watched
            }
        };
        match watched {
            Ok(new) => {
                self.is_complete = true;
                (!new.is_empty() || self.looked.is_none()).then_some(new)
            }
            Err(error) => {
                self.deafen(&error);
                None
            }
        }
    }

    fn deafen(&mut self, error: &EventsError) {
        tracing::info!(%error, "each push looks at all managed files");
        // Others may need the watches.
        self.hearing = Hearing::Deaf;
        self.is_complete = false;
    }

    /// Tells whether something else or nothing stands where directories are managed.
    fn lacks_directories(&self, managed: &Manifest) -> bool {
        let is_directory = |path| managed.get(path).is_some_and(Entry::is_directory);
        self.differing.keys().any(is_directory)
    }
}

impl Changed {
    /// With these directories too.
    pub(super) fn and(mut self, directories: Vec<PathBuf>) -> Self {
        self.directories.extend(directories);
        self
    }

    /// Tells whether a file in these directories has another name somewhere.
    pub(super) fn has_links(&self, root: &Dir) -> bool {
        let look = |directory: &PathBuf| {
            let bytes = directory.as_os_str().as_bytes();
            let dir = match bytes {
                [] => root.try_clone()?,
                _ => {
                    let path = RelativePath::new(bytes).map_err(io::Error::other)?;
                    root.walk_to_parent(&path)?.open_dir(path.name())?
                }
            };
            for name in dir.list()? {
                let stat = dir.find(&name)?;
                if stat.is_some_and(|stat| stat.kind == Kind::File && stat.has_other_names) {
                    return Ok(true);
                }
            }
            Ok::<_, io::Error>(false)
        };
        // What can't be looked into isn't known.
        self.directories.iter().any(|at| look(at).unwrap_or(true))
    }

    /// The entries of `managed` that stand in these directories.
    pub(super) fn entries(&self, managed: &Manifest) -> Vec<ManifestEntry> {
        let mut found = Vec::new();
        for directory in &self.directories {
            add_children(managed, directory, &mut found);
        }
        // As they are looked up fastest.
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        found
    }
}

/// The root and all directories of a tree, relative to the root, each after those that it is in.
fn directories(managed: &Manifest) -> Vec<PathBuf> {
    let inner = managed
        .entries()
        .iter()
        .filter(|entry| entry.entry.is_directory())
        .map(|entry| PathBuf::from(OsStr::from_bytes(entry.path.as_bytes())));
    std::iter::once(PathBuf::new()).chain(inner).collect()
}

/// Finds what stands right in a directory, with a search for each directory that is passed over.
fn add_children(managed: &Manifest, directory: &Path, found: &mut Vec<ManifestEntry>) {
    let mut prefix = directory.as_os_str().as_bytes().to_vec();
    if !prefix.is_empty() {
        prefix.push(b'/');
    }
    let behind = |rest: &[ManifestEntry], bytes: &[u8]| {
        rest.partition_point(|entry| entry.path.as_bytes() < bytes)
    };
    let mut rest = managed.entries();
    rest = &rest[behind(rest, &prefix)..];
    while let Some((first, others)) = rest.split_first()
        && let Some(inside) = first.path.as_bytes().strip_prefix(&prefix[..])
    {
        let Some(slash) = inside.iter().position(|byte| *byte == b'/') else {
            found.push(first.clone());
            rest = others;
            continue;
        };
        let mut end = [&prefix, &inside[..slash]].concat();
        // What is sorted right behind all that begins with the name and a slash.
        end.push(b'/' + 1);
        rest = &rest[behind(rest, &end)..];
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        store::Store,
        testing::{Tree, open, push, scratch},
    };

    /// What a look at everything finds.
    fn all_that_differs(store: &mut Store) -> BTreeMap<RelativePath, Option<Entry>> {
        let anew = Vigil::new(store.vigil.root.clone(), store.vigil.state.clone());
        let vigil = std::mem::replace(&mut store.vigil, anew);
        store.inventory().unwrap();
        std::mem::replace(&mut store.vigil, vigil).differing
    }

    #[test]
    fn what_is_heard_leads_to_what_a_look_at_everything_finds() {
        let dir = scratch();
        let root = dir.path();
        let mut store = open(root);
        let trees = [
            [
                "top = 1",
                "a/",
                "a/b/",
                "a/b/deep = 2",
                "c/",
                "c/x = 3",
                "c/link -> x",
            ],
            [
                "top = 4",
                "a/",
                "a/b/",
                "a/b/deep = 5",
                "c/",
                "c/x = 3",
                "c/link -> y",
            ],
            [
                "top = 4",
                "a/",
                "a/b/",
                "a/b/deep = 6",
                "d/",
                "d/x = 7",
                "d/y = 8",
            ],
        ];
        let mut heard = 0;
        for round in 0..120_usize {
            if round % 5 == 0 {
                push(&mut store, 1, &Tree::new(&trees[round / 5 % trees.len()])).unwrap();
            }
            if round % 7 != 1 {
                store.watch();
            }
            let path = |name: &str| root.join(name);
            // What isn't there can't be changed, which is as good.
            let _ = match round % 11 {
                0 => fs::write(path("a/b/deep"), round.to_string()),
                1 => fs::remove_file(path("top")),
                2 => fs::write(path("top"), "1"),
                3 => fs::rename(path("a/b"), path("a/away")),
                4 => fs::rename(path("a/away"), path("a/b")),
                5 => fs::remove_dir_all(path("c")),
                6 => fs::write(path("c"), "a file"),
                7 => fs::remove_file(path("c")),
                8 => fs::create_dir_all(path("c")).and_then(|()| fs::write(path("c/x"), "3")),
                9 => fs::write(path("a/unmanaged"), ""),
                _ => Ok(()),
            };
            let looked = store.vigil.looked;
            let drift = store.inventory().unwrap().drift;
            heard += usize::from(looked.is_some() && store.vigil.looked == looked);
            let there = all_that_differs(&mut store);
            assert_eq!(*store.vigil.differing(), there, "round {round}");
            assert_eq!(
                drift,
                there.into_keys().collect::<Vec<_>>(),
                "round {round}"
            );
        }
        assert!(heard > 20, "{heard}");
    }

    #[test]
    fn what_is_written_by_another_name_is_found_at_once() {
        let dir = scratch();
        let path = |name: &str| dir.path().join(name);
        let mut store = open(dir.path());
        push(&mut store, 1, &Tree::new(&["a/", "a/x = 1", "b/"])).unwrap();
        store.watch();
        // Nobody pushed it, and in `a` nothing happens.
        fs::hard_link(path("a/x"), path("b/link")).unwrap();
        fs::write(path("b/link"), "2").unwrap();
        for _ in 0..2 {
            assert_eq!(store.inventory().unwrap().drift.len(), 1);
            store.watch();
        }
        fs::remove_file(path("b/link")).unwrap();
        fs::write(path("a/x"), "1").unwrap();
        for _ in 0..2 {
            assert_eq!(store.inventory().unwrap().drift, []);
            store.watch();
        }
        assert!(store.vigil.is_complete && store.vigil.looked.is_some());
    }

    #[test]
    fn what_nobody_hears_of_is_found_in_the_end() {
        let dir = scratch();
        let mut store = open(dir.path());
        push(&mut store, 1, &Tree::new(&["a/", "a/b = 1"])).unwrap();
        store.watch();
        let looked = store.vigil.looked.unwrap();
        fs::write(dir.path().join("a/b"), "written through a mapping").unwrap();
        assert!(store.vigil.take_changed().is_some());
        store.vigil.looked = Some(looked);
        assert_eq!(store.inventory().unwrap().drift, []);
        store.watch();
        assert_eq!(store.inventory().unwrap().drift, []);
        let Some(long_ago) = looked.checked_sub(CERTAIN) else {
            return;
        };
        store.vigil.looked = Some(long_ago);
        store.watch();
        assert_eq!(store.inventory().unwrap().drift.len(), 1);
    }

    #[test]
    fn children_are_found_among_names_that_begin_alike() {
        let lines = [
            "a/",
            "a/x/",
            "a/x/1 = 1",
            "a/y = 2",
            "a-b = 3",
            "a.c/",
            "a.c/z = 4",
            "a0 = 5",
        ];
        let managed = Tree::new(&lines).manifest();
        let children = |directory: &str| {
            let mut found = Vec::new();
            add_children(&managed, Path::new(directory), &mut found);
            let names = found.iter().map(|entry| format!("{}", entry.path));
            names.collect::<Vec<_>>()
        };
        assert_eq!(children(""), ["a", "a-b", "a.c", "a0"]);
        assert_eq!(children("a"), ["a/x", "a/y"]);
        assert_eq!(children("a/x"), ["a/x/1"]);
        assert_eq!(children("a.c"), ["a.c/z"]);
        for none in ["b", "a0", "a/y", "a/"] {
            assert_eq!(children(none), [""; 0], "{none}");
        }
    }
}
