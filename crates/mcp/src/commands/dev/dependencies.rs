//! What the app needs and git ignores: it isn't pushed, but linked into the copy.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::OsStr,
    fs, io, mem,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

use patchwire_protocol::path::RelativePath;

/// Directories of what an app depends on, as package managers call them. Not what is built from the
/// app's own source, and no caches.
const NAMES: [&str; 6] = [
    "node_modules",
    "bower_components",
    "__pypackages__",
    ".venv",
    "vendor",
    ".bundle",
];

/// Ignored all the same where git's rules don't say so: pushed, each of their many files would be.
const NEVER_PUSHED: [&str; 2] = ["node_modules", ".venv"];

/// What makes a directory a virtual environment of Python, whatever it is called.
const VIRTUAL_ENVIRONMENT: &str = "pyvenv.cfg";

/// The file that lists the links that were made, one line each.
const LIST: &str = "links";

/// Patterns of what isn't pushed, for when git's rules don't say so.
pub(super) fn patterns(root: &Path) -> Vec<String> {
    let mut patterns = NEVER_PUSHED.map(str::to_owned).to_vec();
    for name in ["venv", "env"] {
        if root.join(name).join(VIRTUAL_ENVIRONMENT).is_file() {
            patterns.push(format!("/{name}"));
        }
    }
    patterns
}

/// The links from the copy into the root.
#[derive(Debug)]
pub(super) struct Links {
    root: PathBuf,
    copy: PathBuf,
    list: PathBuf,
    made: BTreeSet<RelativePath>,
    /// Those that can't be made yet.
    missing: BTreeSet<RelativePath>,
    /// Those of them that were said to be [`Changes::blocked`].
    told: BTreeSet<RelativePath>,
    /// What is ignored and can't be needed: not looked at again while it is ignored. There may be
    /// tens of thousands.
    files: HashSet<RelativePath>,
}

/// What something that isn't pushed is to the app.
enum Kind {
    Needed,
    /// Nothing, also later: it is a file that nobody looks for.
    File,
    /// Nothing yet.
    Other,
}

/// What became of the links.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) made: Vec<RelativePath>,
    /// The copy has something else there, which was not known before.
    pub(super) blocked: Vec<RelativePath>,
}

impl Links {
    /// The links of an earlier run, of which `directory` holds the list.
    pub(super) fn open(root: &Path, copy: &Path, directory: &Path) -> Self {
        let list = directory.join(LIST);
        // Without it, links of an earlier run stay where nothing takes their place.
        let text = fs::read(&list).unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n');
        Self {
            root: root.to_owned(),
            copy: copy.to_owned(),
            made: lines.flat_map(RelativePath::new).collect(),
            list,
            missing: BTreeSet::new(),
            told: BTreeSet::new(),
            files: HashSet::new(),
        }
    }

    /// Takes away links to what is gone or pushed by now, and makes those that are missing.
    pub(super) fn update(&mut self, ignored: &[RelativePath]) -> io::Result<Changes> {
        let mut wanted = BTreeSet::new();
        let mut known = mem::take(&mut self.files);
        for path in ignored {
            if let Some(path) = known.take(path) {
                self.files.insert(path);
                continue;
            }
            match self.kind(path) {
                Kind::Needed => drop(wanted.insert(path.clone())),
                Kind::File => drop(self.files.insert(path.clone())),
                Kind::Other => {}
            }
        }
        let before = self.made.len();
        let (root, copy) = (&self.root, &self.copy);
        self.made.retain(|path| {
            let (source, link) = (at(root, path), at(copy, path));
            let is_ours = fs::read_link(&link).is_ok_and(|target| target == source);
            let stays = is_ours && wanted.contains(path);
            if is_ours && !stays {
                // One that stays is in nobody's way: what is pushed there replaces it.
                let _ = fs::remove_file(link);
            }
            stays
        });
        let removed = self.made.len() != before;
        self.missing = wanted.difference(&self.made).cloned().collect();
        let changes = self.make_missing()?;
        if removed && changes.made.is_empty() {
            self.write_list()?;
        }
        Ok(changes)
    }

    /// Makes the links that are missing, as far as that is possible.
    pub(super) fn make_missing(&mut self) -> io::Result<Changes> {
        let mut changes = Changes::default();
        for path in &self.missing {
            let (source, link) = (at(&self.root, path), at(&self.copy, path));
            let linked = make_parents(&self.copy, path).and_then(|()| symlink(&source, &link));
            match linked {
                Ok(()) => changes.made.push(path.clone()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    match fs::read_link(&link) {
                        Ok(target) if target == source => changes.made.push(path.clone()),
                        Ok(_) | Err(_) if self.told.insert(path.clone()) => {
                            changes.blocked.push(path.clone());
                        }
                        Ok(_) | Err(_) => {}
                    }
                }
                // The push makes the directory that it is for.
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
                Err(error) => return Err(error),
            }
        }
        for path in &changes.made {
            self.missing.remove(path);
            self.made.insert(path.clone());
        }
        if !changes.made.is_empty() {
            self.write_list()?;
        }
        Ok(changes)
    }

    /// What something is to the app that isn't pushed.
    fn kind(&self, path: &RelativePath) -> Kind {
        let source = at(&self.root, path);
        let name = path.name();
        let is_settings = name == b".env" || name.starts_with(b".env.");
        let is_named = NAMES.iter().any(|known| name == known.as_bytes())
            || path.as_bytes().ends_with(b"vendor/bundle");
        let is_needed = if is_settings {
            source.is_file()
        } else if is_named {
            source.is_dir()
        } else {
            // One system call for most of them: nothing lies in a file.
            match source.join(VIRTUAL_ENVIRONMENT).metadata() {
                Ok(metadata) => metadata.is_file(),
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Kind::File,
                Err(_) => false,
            }
        };
        match is_needed {
            true => Kind::Needed,
            false => Kind::Other,
        }
    }

    fn write_list(&self) -> io::Result<()> {
        let lines = self
            .made
            .iter()
            .map(|path| [path.as_bytes(), b"\n"].concat());
        fs::write(&self.list, lines.collect::<Vec<_>>().concat())
    }
}

fn at(directory: &Path, path: &RelativePath) -> PathBuf {
    directory.join(OsStr::from_bytes(path.as_bytes()))
}

/// Makes the directories above a path, following no link below `copy`.
fn make_parents(copy: &Path, path: &RelativePath) -> io::Result<()> {
    let parents = Path::new(OsStr::from_bytes(path.as_bytes())).parent();
    let mut directory = copy.to_owned();
    for name in parents.into_iter().flatten() {
        directory.push(name);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !directory.symlink_metadata()?.is_dir() {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
            }
            result => result?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelativePath {
        RelativePath::try_from(text).unwrap()
    }

    fn paths(texts: &[&str]) -> Vec<RelativePath> {
        texts.iter().map(|text| path(text)).collect()
    }

    struct Case {
        dir: tempfile::TempDir,
    }

    impl Case {
        /// A root with these directories (with a slash at the end) and files, and an empty copy.
        fn new(entries: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("copy")).unwrap();
            for entry in entries {
                let path = dir.path().join("root").join(entry);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                match entry.ends_with('/') {
                    true => fs::create_dir_all(path).unwrap(),
                    false => fs::write(path, *entry).unwrap(),
                }
            }
            Self { dir }
        }

        fn links(&self) -> Links {
            let dir = self.dir.path();
            Links::open(&dir.join("root"), &dir.join("copy"), dir)
        }

        fn copy(&self, name: &str) -> PathBuf {
            self.dir.path().join("copy").join(name)
        }
    }

    #[test]
    fn what_an_app_needs_is_linked_and_nothing_else() {
        let case = Case::new(&[
            "node_modules/left-pad/index.js",
            "web/node_modules/",
            "my-env/pyvenv.cfg",
            "env/config.py",
            "vendor/bundle/",
            ".env",
            ".env.local",
            ".environment",
            "dist/app.js",
            "__pycache__/",
        ]);
        let needed = [
            ".env",
            ".env.local",
            "my-env",
            "node_modules",
            "vendor/bundle",
            "web/node_modules",
        ];
        let others = [
            "dist",
            "env",
            ".environment",
            "__pycache__",
            "gone/node_modules",
        ];
        let mut links = case.links();
        let ignored = paths(&[&needed[..], &others].concat());
        let changes = links.update(&ignored).unwrap();
        assert_eq!(changes.made, paths(&needed));
        let read = |name| fs::read_to_string(case.copy(name)).unwrap();
        assert_eq!(
            read("node_modules/left-pad/index.js"),
            "node_modules/left-pad/index.js"
        );
        assert_eq!(read(".env"), ".env");
        assert!(!case.copy("dist").exists());
        // Nothing changed, and that is noticed, also by the next run.
        assert_eq!(links.update(&ignored).unwrap(), Changes::default());
        assert_eq!(case.links().update(&ignored).unwrap(), Changes::default());
    }

    #[test]
    fn what_was_ignored_before_may_become_needed() {
        let case = Case::new(&["my-env/", "other-env", "app.log"]);
        let root = case.dir.path().join("root");
        let ignored = paths(&["app.log", "my-env", "other-env"]);
        let mut links = case.links();
        assert_eq!(links.update(&ignored).unwrap(), Changes::default());
        assert_eq!(links.files.len(), 2);
        // As `python3 -m venv` does it: the directory, and later what makes it one.
        fs::write(root.join("my-env/pyvenv.cfg"), "").unwrap();
        let changes = links.update(&ignored).unwrap();
        assert_eq!(changes.made, paths(&["my-env"]));
        // In the place of a file that was gone for a while.
        links.update(&paths(&["app.log", "my-env"])).unwrap();
        fs::remove_file(root.join("other-env")).unwrap();
        fs::create_dir(root.join("other-env")).unwrap();
        fs::write(root.join("other-env/pyvenv.cfg"), "").unwrap();
        let changes = links.update(&ignored).unwrap();
        assert_eq!(changes.made, paths(&["other-env"]));
        assert_eq!(links.files, HashSet::from([path("app.log")]));
    }

    #[test]
    fn a_link_goes_with_what_it_is_for() {
        let case = Case::new(&["node_modules/", ".venv/"]);
        case.links()
            .update(&paths(&["node_modules", ".venv"]))
            .unwrap();
        // Deleted, and not ignored any more; and the app has put something else in its place.
        let mut links = case.links();
        links.update(&paths(&[".venv"])).unwrap();
        assert!(case.copy("node_modules").symlink_metadata().is_err());
        fs::remove_file(case.copy(".venv")).unwrap();
        fs::create_dir(case.copy(".venv")).unwrap();
        let changes = links.update(&paths(&[".venv"])).unwrap();
        assert_eq!(changes.blocked, paths(&[".venv"]));
        links.update(&[]).unwrap();
        assert!(case.copy(".venv").is_dir());
    }

    #[test]
    fn no_link_is_made_through_another_and_files_are_waited_for() {
        let case = Case::new(&["web/node_modules/", "outside/"]);
        let wanted = paths(&["web/node_modules"]);
        let mut links = case.links();
        symlink(case.dir.path().join("root/outside"), case.copy("web")).unwrap();
        assert_eq!(links.update(&wanted).unwrap(), Changes::default());
        assert!(!case.dir.path().join("root/outside/node_modules").exists());
        // The push makes the directory.
        fs::remove_file(case.copy("web")).unwrap();
        fs::create_dir(case.copy("web")).unwrap();
        assert_eq!(links.make_missing().unwrap().made, wanted);
        assert!(case.copy("web/node_modules").is_dir());
    }

    #[test]
    fn virtual_environments_at_the_top_are_never_pushed() {
        let case = Case::new(&["venv/pyvenv.cfg", "env/config.py"]);
        let patterns = patterns(&case.dir.path().join("root"));
        assert_eq!(patterns, ["node_modules", ".venv", "/venv"]);
    }
}
