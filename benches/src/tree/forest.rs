//! Trees that look like a project's: made of a seed, the same in every run.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    ops::Range,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{child::Interruption, noise::Noise};

/// A directory with generated files.
#[derive(Debug)]
pub(crate) struct Forest {
    pub(crate) root: PathBuf,
    /// The files below it, without the links; in no order.
    files: Vec<PathBuf>,
    /// The bytes in them when they were made.
    pub(crate) content_len: u64,
}

impl Forest {
    /// Makes so many files, in a directory that isn't there yet.
    pub(crate) fn plant(
        root: &Path,
        files: usize,
        seed: u64,
        interruption: &Interruption,
    ) -> anyhow::Result<Self> {
        let mut noise = Noise::new(seed);
        fs::create_dir_all(root)?;
        fs::write(root.join(".gitignore"), IGNORED)?;
        let mut forest = Self {
            root: root.to_owned(),
            files: Vec::with_capacity(files),
            content_len: 0,
        };
        let directories = directories(files.div_ceil(FILES_PER_DIRECTORY), &mut noise);
        for (number, (directory, _)) in directories.iter().enumerate() {
            interruption.check()?;
            let directory = root.join(directory);
            if number > 0 {
                fs::create_dir(&directory)?;
            }
            let mut taken = BTreeSet::new();
            let share =
                files * number / directories.len()..files * (number + 1) / directories.len();
            for _ in share {
                let path = directory.join(file_name(&mut taken, &mut noise));
                let content = text(&mut noise);
                forest.content_len += content.len() as u64;
                write_old(&path, &content, &mut noise)?;
                // The link of a file that stays.
                if noise.within(0..LINK_EVERY) == 0
                    && let Some(name) = path.file_name()
                {
                    let mut link = name.to_owned();
                    link.push(".link");
                    symlink(name, directory.join(link))?;
                }
                forest.files.push(path);
            }
        }
        Ok(forest)
    }

    /// Replaces one line in each of so many files by another that nobody has written before.
    pub(crate) fn edit(&self, files: usize, noise: &mut Noise) -> anyhow::Result<()> {
        let mut edited = BTreeSet::new();
        while edited.len() < files.min(self.files.len()) {
            let path = noise.pick(&self.files);
            if !edited.insert(path) {
                continue;
            }
            let content = fs::read_to_string(path)?;
            let mut lines: Vec<&str> = content.split_inclusive('\n').collect();
            let new = line(noise);
            if lines.is_empty() {
                lines.push(&new);
            } else {
                let middle = lines.len() / 2;
                lines[middle] = &new;
            }
            fs::write(path, lines.concat())?;
        }
        Ok(())
    }

    /// Inserts lines in the middle of one file, and gives how long they are.
    pub(crate) fn insert(&self, lines: usize, noise: &mut Noise) -> anyhow::Result<u64> {
        let path = noise.pick(&self.files);
        let content = fs::read_to_string(path)?;
        let middle = content[..content.len() / 2]
            .rfind('\n')
            .map_or(0, |end| end + 1);
        let (before, behind) = content.split_at(middle);
        let new: String = (0..lines).map(|_| line(noise)).collect();
        fs::write(path, [before, &new, behind].concat())?;
        Ok(new.len() as u64)
    }
}

/// Writes a file that is as old as most in a project are: nothing is in doubt about its time.
fn write_old(path: &Path, content: &str, noise: &mut Noise) -> anyhow::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(content.as_bytes())?;
    if noise.within(0..EXECUTABLE_EVERY) == 0 {
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
    }
    let age = Duration::from_secs(noise.within(0..A_YEAR) as u64);
    file.set_modified(SystemTime::UNIX_EPOCH + WHEN_OLDEST + age)?;
    Ok(())
}

/// Directories, each behind the one that holds it, and how deep they are. The first is the root.
fn directories(len: usize, noise: &mut Noise) -> Vec<(PathBuf, usize)> {
    let mut all = vec![(PathBuf::new(), 0)];
    let mut taken = BTreeSet::new();
    while all.len() < len {
        let (parent, depth) = noise.pick(&all);
        if *depth == DEEPEST {
            continue;
        }
        let name = match noise.within(0..3) {
            0 => format!("{}_{}", noise.pick(&WORDS), noise.pick(&WORDS)),
            _ => (*noise.pick(&WORDS)).to_owned(),
        };
        let (path, depth) = (parent.join(name), depth + 1);
        if taken.insert(path.clone()) {
            all.push((path, depth));
        }
    }
    all
}

fn file_name(taken: &mut BTreeSet<String>, noise: &mut Noise) -> String {
    loop {
        let [one, other] = [(); 2].map(|()| *noise.pick(&WORDS));
        let ending = noise.pick(&ENDINGS);
        let name = match noise.within(0..4) {
            0 => format!("{one}{ending}"),
            1 => format!("{one}-{other}{ending}"),
            2 => format!("test_{one}_{other}{ending}"),
            _ => format!("{one}_{other}{ending}"),
        };
        if taken.insert(name.clone()) {
            return name;
        }
    }
}

fn text(noise: &mut Noise) -> String {
    let len = match noise.within(0..100) {
        0..25 => SHORT,
        25..80 => USUAL,
        80..97 => LONG,
        _ => LONGEST,
    };
    let len = noise.within(len);
    let mut text = String::with_capacity(len + 100);
    while text.len() < len {
        text.push_str(&line(noise));
    }
    text
}

/// A line as of a program: mostly words that are everywhere, and now and then a number.
pub(crate) fn line(noise: &mut Noise) -> String {
    let mut line = " ".repeat(4 * noise.within(0..4));
    for _ in 0..noise.within(2..9) {
        line.push_str(noise.pick::<&str>(&WORDS));
        line.push_str(noise.pick::<&str>(&SIGNS));
    }
    if noise.within(0..4) == 0 {
        line.push_str(&noise.within(0..100_000).to_string());
    }
    line.push('\n');
    line
}

/// As of repositories with many files: five thousand directories for a hundred thousand.
const FILES_PER_DIRECTORY: usize = 20;
const DEEPEST: usize = 7;
const LINK_EVERY: usize = 500;
const EXECUTABLE_EVERY: usize = 50;

const SHORT: Range<usize> = 100..1000;
const USUAL: Range<usize> = 1000..4000;
const LONG: Range<usize> = 4000..16_000;
const LONGEST: Range<usize> = 16_000..64_000;

/// What a project's build leaves, of which there is nothing here: each name is looked at all the same.
const IGNORED: &str = "*.pyc\n__pycache__/\n/target/\nnode_modules/\n.env*\n!.env.example\n";

/// The middle of 2025.
const WHEN_OLDEST: Duration = Duration::from_secs(1_750_000_000);
const A_YEAR: usize = 365 * 24 * 3600;

const ENDINGS: [&str; 9] = [
    ".py", ".py", ".ts", ".ts", ".rs", ".json", ".md", ".html", ".css",
];

const SIGNS: [&str; 12] = [
    " ", " ", " ", ".", "(", ")", ", ", " = ", ": ", "_", "[\"", "\"] ",
];

const WORDS: [&str; 96] = [
    "account", "address", "admin", "api", "app", "archive", "asset", "auth", "async", "await",
    "base", "billing", "block", "branch", "buffer", "build", "cache", "cart", "catalog", "channel",
    "check", "class", "client", "commit", "common", "config", "connect", "content", "context",
    "core", "count", "customer", "data", "date", "default", "device", "digest", "document",
    "domain", "element", "email", "entry", "error", "event", "export", "feature", "field", "file",
    "filter", "form", "format", "handler", "header", "image", "import", "index", "input",
    "invoice", "item", "layout", "length", "list", "locale", "login", "main", "manager", "message",
    "method", "model", "module", "name", "node", "number", "object", "option", "order", "page",
    "parser", "path", "payment", "plugin", "product", "profile", "query", "report", "request",
    "response", "return", "schema", "self", "server", "session", "status", "string", "user",
    "value",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::compare;

    #[test]
    fn a_seed_makes_the_same_tree_and_edits_change_so_many_files() {
        let dir = tempfile::tempdir().unwrap();
        let interruption = Interruption::listen().unwrap();
        let [one, other] = ["one", "other"].map(|name| {
            let root = dir.path().join(name);
            Forest::plant(&root, 150, 7, &interruption).unwrap()
        });
        assert_eq!(compare(&one.root, &other.root).unwrap(), None);
        assert_eq!(one.files.len(), 150);

        let mut noise = Noise::new(1);
        one.edit(20, &mut noise).unwrap();
        let changed = one.files.iter().zip(&other.files);
        let changed =
            changed.filter(|(one, other)| fs::read(one).unwrap() != fs::read(other).unwrap());
        assert_eq!(changed.count(), 20);

        let before: u64 = one
            .files
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .sum();
        let inserted = one.insert(10, &mut noise).unwrap();
        let after: u64 = one
            .files
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .sum();
        assert_eq!(after, before + inserted);
    }
}
