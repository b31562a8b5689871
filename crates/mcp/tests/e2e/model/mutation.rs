//! What people and programs do to a tree, chosen at random.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{ErrorKind, Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStringExt,
        fs::{FileExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::random::Random;

/// Few, so that what is made is often made where something stands, of whatever kind.
const NAMES: [&[u8]; 20] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"main.py",
    b"pkg",
    b".hidden",
    b"..x",
    b"with space ",
    b"-rf",
    b"--delete",
    b"not-utf-8-\xff\xe9",
    b"*?[x]",
    b"back\\slash",
    b"#comment",
    "größe".as_bytes(),
    // The same, decomposed: another name.
    "gro\u{308}ße".as_bytes(),
    b"b.ignored",
    // A path below the first that is sorted before what lies in it.
    b"a.b",
    // As long as names may be.
    &[b'n'; 255],
];

/// No path has more components.
const DEEPEST: usize = 6;

/// How long a file is at least that counts as large.
const LARGE: u64 = 100_000;

/// Modes whose owner can read and, of directories, change all.
const FILE_MODES: [u32; 7] = [0o644, 0o600, 0o755, 0o640, 0o777, 0o444, 0o500];
const DIRECTORY_MODES: [u32; 4] = [0o755, 0o700, 0o750, 0o775];

/// Someone who changes a tree.
#[derive(Debug)]
pub(crate) struct Mutator<'a> {
    pub(crate) root: &'a Path,
    /// A directory elsewhere, for links to lead to.
    pub(crate) outside: &'a Path,
    pub(crate) random: &'a mut Random,
    /// More is deleted than made.
    pub(crate) shrinks: bool,
}

impl Mutator<'_> {
    pub(crate) fn mutate(&mut self) {
        if self.shrinks && self.random.percent(50) {
            return self.delete();
        }
        match self.random.below(32) {
            0..4 => {
                let at = self.place();
                self.write_anew(&at);
            }
            4..6 => self.edit(),
            6 | 7 => self.append(),
            8 | 9 => self.truncate(),
            10..13 => self.flip(),
            13..16 => self.rename(),
            16 => self.exchange(),
            17 => self.copy(),
            18 | 19 => self.change_kind(),
            20 | 21 => self.chmod(),
            22 | 23 => {
                let at = self.place();
                self.link(&at);
            }
            24 | 25 => self.delete(),
            26 => {
                let at = self.place();
                clear(&at);
                fs::create_dir(at).unwrap();
            }
            27 | 28 => self.insert(),
            29 => self.hard_link(),
            30 => self.save_safely(),
            31 => {
                let at = self.place();
                self.special(&at);
            }
            _ => unreachable!("below 32"),
        }
    }

    /// What stands in a directory, but for the agent's state, in an order that is always the same.
    fn names(&self, directory: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        let is_state = |name: &OsString| directory == self.root && name == ".patchwire";
        let mut names: Vec<_> = names.filter(|name| !is_state(name)).collect();
        names.sort_unstable();
        names
    }

    /// Any path below the root, if there is one.
    fn any(&mut self) -> Option<PathBuf> {
        let mut at = self.root.to_owned();
        loop {
            let names = self.names(&at);
            if names.is_empty() {
                return (at != self.root).then_some(at);
            }
            at.push(self.random.one_of(&names));
            if !is_directory(&at) || self.random.percent(25) {
                return Some(at);
            }
        }
    }

    fn any_file(&mut self) -> Option<PathBuf> {
        let tries = (0..10).filter_map(|_| self.any());
        let mut files = tries.collect::<Vec<_>>().into_iter();
        files.find(|path| path.symlink_metadata().unwrap().is_file())
    }

    /// A path in a directory that is there, where something may stand.
    fn place(&mut self) -> PathBuf {
        let mut at = self.root.to_owned();
        loop {
            let directories: Vec<_> = self
                .names(&at)
                .into_iter()
                .map(|name| at.join(name))
                .filter(|path| is_directory(path))
                .collect();
            if directories.is_empty() || self.depth(&at) + 1 >= DEEPEST || self.random.percent(35) {
                let place = at.join(self.name());
                match self.spares(&place) {
                    true => continue,
                    false => return place,
                }
            }
            at = self.random.one_of(&directories).clone();
        }
    }

    /// Whether to leave alone what would take much with it: most often.
    fn spares(&mut self, path: &Path) -> bool {
        let holds = |mut entries: fs::ReadDir| entries.next().is_some();
        !path.is_symlink() && fs::read_dir(path).is_ok_and(holds) && self.random.percent(90)
    }

    fn name(&mut self) -> OsString {
        OsString::from_vec(self.random.one_of(&NAMES).to_vec())
    }

    fn depth(&self, path: &Path) -> usize {
        path.strip_prefix(self.root).unwrap().components().count()
    }

    fn content(&mut self) -> Vec<u8> {
        match self.random.below(20) {
            0 => Vec::new(),
            // The same as elsewhere.
            1..5 => vec![b'x'; 10 * self.random.below(8)],
            5..15 => {
                let lines = self.random.below(20);
                let mut line = || format!("line {}\n", self.random.next() % 1000);
                (0..lines).map(|_| line()).collect::<String>().into_bytes()
            }
            15..19 => {
                let len = self.random.below(20_000);
                self.random.bytes(len)
            }
            _ => {
                let len = usize::try_from(LARGE).unwrap() + self.random.below(200_000);
                self.random.bytes(len)
            }
        }
    }

    fn write_anew(&mut self, at: &Path) {
        clear(at);
        fs::write(at, self.content()).unwrap();
    }

    fn edit(&mut self) {
        if let Some(file) = self.any_file() {
            let content = match self.random.percent(20) {
                // Nothing new.
                true => fs::read(&file).unwrap(),
                false => self.content(),
            };
            let mut opened = writable(&file);
            opened.set_len(0).unwrap();
            opened.write_all(&content).unwrap();
        }
    }

    fn append(&mut self) {
        if let Some(file) = self.any_file() {
            let mut opened = writable(&file);
            opened.seek(SeekFrom::End(0)).unwrap();
            let len = 1 + self.random.below(100);
            opened.write_all(&self.random.bytes(len)).unwrap();
        }
    }

    fn truncate(&mut self) {
        if let Some(file) = self.any_file() {
            let len = file.metadata().unwrap().len();
            let len = self.random.next() % (len + 1);
            writable(&file).set_len(len).unwrap();
        }
    }

    /// Changes a byte and not the length; sometimes the time of the last change is put back, too.
    fn flip(&mut self) {
        let Some(file) = self.any_file() else { return };
        let metadata = file.metadata().unwrap();
        if metadata.len() == 0 {
            return;
        }
        let at = self.random.next() % metadata.len();
        let mut byte = [0];
        let opened = writable(&file);
        opened.read_exact_at(&mut byte, at).unwrap();
        opened.write_all_at(&[!byte[0]], at).unwrap();
        if self.random.percent(50) {
            opened.set_modified(metadata.modified().unwrap()).unwrap();
        }
    }

    /// Puts bytes into a large file.
    fn insert(&mut self) {
        let large = |path: &PathBuf| path.metadata().unwrap().len() >= LARGE;
        let Some(file) = (0..5).find_map(|_| self.any_file().filter(large)) else {
            let at = self.place();
            clear(&at);
            let content = self.random.bytes(LARGE.try_into().unwrap());
            return fs::write(at, content).unwrap();
        };
        let mut content = fs::read(&file).unwrap();
        let (at, len) = (
            self.random.below(content.len()),
            1 + self.random.below(3000),
        );
        let inserted = self.random.bytes(len);
        content.splice(at..at, inserted);
        writable(&file).write_all(&content).unwrap();
    }

    /// Writes beside a file and renames over it, as editors do.
    fn save_safely(&mut self) {
        if let Some(file) = self.any_file() {
            let temporary = file.with_file_name("temporary");
            fs::write(&temporary, self.content()).unwrap();
            fs::rename(temporary, file).unwrap();
        }
    }

    /// Moves a file or a directory to where another may stand.
    fn rename(&mut self) {
        let Some(from) = self.any() else { return };
        let to = self.place();
        if self.fits(&from, &to) {
            clear(&to);
            fs::rename(from, to).unwrap();
        }
    }

    fn exchange(&mut self) {
        let (Some(one), Some(other)) = (self.any(), self.any()) else {
            return;
        };
        if self.fits(&one, &other) && self.fits(&other, &one) {
            let aside = self.root.join("aside");
            for (from, to) in [(&one, &aside), (&other, &one), (&aside, &other)] {
                fs::rename(from, to).unwrap();
            }
        }
    }

    fn copy(&mut self) {
        let Some(from) = self.any() else { return };
        let to = self.place();
        if self.fits(&from, &to) {
            clear(&to);
            copy_all(&from, &to);
        }
    }

    fn hard_link(&mut self) {
        let Some(from) = self.any_file() else { return };
        let to = self.place();
        if self.fits(&from, &to) {
            clear(&to);
            fs::hard_link(from, to).unwrap();
        }
    }

    /// Tells whether `from` can be brought to `to`, whatever stands there: neither lies in the other,
    /// and nothing gets too deep.
    fn fits(&self, from: &Path, to: &Path) -> bool {
        fn height(path: &Path) -> usize {
            if !is_directory(path) {
                return 1;
            }
            let entries = fs::read_dir(path).unwrap();
            let inner = entries.map(|entry| height(&entry.unwrap().path()));
            1 + inner.max().unwrap_or(0)
        }
        let apart = !from.starts_with(to) && !to.starts_with(from);
        apart && self.depth(to) - 1 + height(from) <= DEEPEST
    }

    fn change_kind(&mut self) {
        let Some(at) = self.any() else { return };
        if self.spares(&at) {
            return self.mutate();
        }
        let was_directory = is_directory(&at);
        clear(&at);
        match self.random.below(3) {
            0 => self.link(&at),
            1 if !was_directory && self.depth(&at) < DEEPEST => {
                fs::create_dir(&at).unwrap();
                for _ in 0..self.random.below(4) {
                    let name = self.name();
                    self.write_anew(&at.join(name));
                }
            }
            _ => self.write_anew(&at),
        }
    }

    fn chmod(&mut self) {
        let Some(at) = self.any() else { return };
        let kind = at.symlink_metadata().unwrap().file_type();
        let mode = match (kind.is_file(), kind.is_dir()) {
            (true, _) => *self.random.one_of(&FILE_MODES),
            (_, true) => *self.random.one_of(&DIRECTORY_MODES),
            _ => return,
        };
        fs::set_permissions(at, Permissions::from_mode(mode)).unwrap();
    }

    /// Makes a link to something or nothing, in the tree or outside of it.
    fn link(&mut self, at: &Path) {
        clear(at);
        let name = PathBuf::from(self.name());
        let target = match self.random.below(8) {
            0 => self.outside.to_owned(),
            1 => self.outside.join("file"),
            2 => Path::new("..").join(name),
            3 => Path::new("pkg").join(name),
            4 => PathBuf::from("."),
            _ => name,
        };
        symlink(target, at).unwrap();
    }

    fn special(&mut self, at: &Path) {
        clear(at);
        mknodat(CWD, at, FileType::Fifo, Mode::from(0o644), 0).unwrap();
    }

    fn delete(&mut self) {
        match self.any() {
            Some(at) if self.spares(&at) => self.mutate(),
            Some(at) => clear(&at),
            None => {}
        }
    }
}

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().unwrap().is_dir()
}

/// Removes whatever stands at a path.
fn clear(path: &Path) {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
    }
}

/// Opens a file to change it in place, as its owner can whatever its mode.
fn writable(path: &Path) -> File {
    let open = || OpenOptions::new().read(true).write(true).open(path);
    open().unwrap_or_else(|_| {
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        open().unwrap()
    })
}

fn copy_all(from: &Path, to: &Path) {
    let kind = from.symlink_metadata().unwrap().file_type();
    if kind.is_dir() {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy_all(&from.join(&name), &to.join(&name));
        }
    } else if kind.is_symlink() {
        symlink(fs::read_link(from).unwrap(), to).unwrap();
    } else if kind.is_file() {
        fs::copy(from, to).unwrap();
    }
}
