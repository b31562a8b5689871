//! What of a directory belongs to the tree: git's ignore rules, git's index, and our own patterns.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};
use patchwire_protocol::path::{RESERVED, escape};

use crate::confine::{Context, Dir, PathError, no_such_place};

mod repository;

use repository::{Repository, Tracked};
pub use repository::{RepositoryError, is_git_at_work};

/// The largest ignore file that is read, in bytes.
const MAX_IGNORE_FILE: u64 = 16 << 20;

/// A pattern that isn't one.
#[derive(Debug, thiserror::Error)]
#[error("“{}” is not a pattern", escape(pattern.as_bytes()))]
pub struct PatternError {
    pattern: String,
    #[source]
    source: ignore::Error,
}

/// Why the rules for a root can't be known.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A configured pattern isn't one.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The repository around the root can't be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// An ignore file can't be read.
    #[error(transparent)]
    File(#[from] PathError),
}

/// The rules of one root.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The root's path within its repository, with a slash at the end; empty at its top.
    prefix: Vec<u8>,
    tracked: Tracked,
    include: Gitignore,
    /// For each pattern to include the directory above which it can't match.
    include_below: Vec<Vec<u8>>,
    ignore: Gitignore,
    /// `info/exclude` and git's global excludes, strongest first.
    outermost: Vec<Gitignore>,
    /// The ignore files of the directories being visited, and of those above the root.
    layers: Vec<Layer>,
}

/// The ignore files of one directory.
#[derive(Debug)]
struct Layer {
    /// The length of the directory's path from the repository's top, with a slash at the end.
    base: usize,
    git: Gitignore,
    own: Gitignore,
}

/// How a directory, and so what it holds, came to be visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Nothing ignores it: what it holds belongs to the tree unless it is ignored.
    Normal,
    /// Asked for by a pattern: all that it holds belongs to the tree.
    Included,
    /// It is ignored: only what git tracks and what is asked for belongs to the tree.
    Selected,
}

impl Rules {
    pub(crate) fn new(
        root: &Path,
        include: &[String],
        ignore: &[String],
        excludes_file: Option<&Path>,
    ) -> Result<Self, RulesError> {
        let repository = Repository::discover(root)?;
        let mut rules = Self {
            prefix: Vec::new(),
            tracked: Tracked::default(),
            include: compile(include.iter().map(String::as_str))?,
            include_below: include
                .iter()
                .map(|pattern| literal_prefix(pattern))
                .collect(),
            ignore: compile(ignore.iter().map(String::as_str))?,
            outermost: Vec::new(),
            layers: Vec::new(),
        };
        if let Some(repository) = &repository {
            rules.prefix = repository.prefix.clone();
            rules.tracked = repository.tracked()?;
            rules.push_outermost(&repository.exclude_file())?;
            rules.enter_ancestors(repository)?;
        }
        if let Some(file) = excludes_file {
            rules.push_outermost(file)?;
        }
        Ok(rules)
    }

    fn push_outermost(&mut self, file: &Path) -> Result<(), PathError> {
        let name = file.as_os_str().as_bytes();
        let text = fs::File::open(file).and_then(read_text);
        if let Some(text) = absent_is_none(text).context("read", name)? {
            self.outermost.push(compile_file(&text));
        }
        Ok(())
    }

    /// Reads the ignore files from the repository's top down to above the root.
    fn enter_ancestors(&mut self, repository: &Repository) -> Result<(), PathError> {
        let mut at = repository.top.clone();
        let mut base = 0;
        for component in self.prefix.clone().split_inclusive(|byte| *byte == b'/') {
            let dir = Dir::open_root(&at).context("open", at.as_os_str().as_bytes())?;
            self.push_layer(&dir, at.as_os_str().as_bytes(), base)?;
            base += component.len();
            at.push(OsStr::from_bytes(component));
        }
        Ok(())
    }

    /// Reads the ignore files of the directory `path` (empty for the root) before its entries are
    /// judged. Every call is followed by a [`Self::leave`].
    pub(crate) fn enter(&mut self, path: &[u8], dir: &Dir) -> Result<(), PathError> {
        let slash = usize::from(!path.is_empty());
        self.push_layer(dir, path, self.prefix.len() + path.len() + slash)
    }

    pub(crate) fn leave(&mut self) {
        self.layers.pop();
    }

    fn push_layer(&mut self, dir: &Dir, at: &[u8], base: usize) -> Result<(), PathError> {
        let read = |name: &'static str| {
            let text = dir.open_file(name.as_bytes()).and_then(read_text);
            let path = Path::new(OsStr::from_bytes(at)).join(name);
            let text = absent_is_none(text).context("read", path.as_os_str().as_bytes())?;
            Ok::<_, PathError>(match text {
                Some(text) => compile_file(&text),
                None => Gitignore::empty(),
            })
        };
        let layer = Layer {
            base,
            git: read(".gitignore")?,
            own: read(".patchwireignore")?,
        };
        self.layers.push(layer);
        Ok(())
    }

    /// Judges an entry of the directory entered last: how to visit it, or `None` if it doesn't
    /// belong to the tree. For what isn't a directory, any way to visit means that it belongs.
    pub(crate) fn judge(&self, path: &[u8], is_dir: bool, within: Visit) -> Option<Visit> {
        let full = [&self.prefix[..], path].concat();
        let as_path = |bytes| Path::new(OsStr::from_bytes(bytes));
        if self.ignore.matched(as_path(path), is_dir).is_ignore()
            || self.layered(&full, is_dir, |layer| &layer.own) == Some(true)
        {
            return None;
        }
        if within == Visit::Included || self.include.matched(as_path(path), is_dir).is_ignore() {
            return Some(Visit::Included);
        }
        if within == Visit::Normal && !self.is_git_ignored(&full, is_dir) {
            return Some(Visit::Normal);
        }
        if self.tracked.contains(path) {
            return Some(Visit::Normal);
        }
        let selected = is_dir && (self.tracked.has_inside(path) || self.may_include_inside(path));
        selected.then_some(Visit::Selected)
    }

    fn is_git_ignored(&self, full: &[u8], is_dir: bool) -> bool {
        let layered = self.layered(full, is_dir, |layer| &layer.git);
        let outer = || {
            self.outermost
                .iter()
                .find_map(|rules| verdict(rules, full, is_dir))
        };
        layered.or_else(outer).unwrap_or(false)
    }

    /// What the innermost directory with an opinion says: ignored, or not.
    fn layered(&self, full: &[u8], is_dir: bool, file: fn(&Layer) -> &Gitignore) -> Option<bool> {
        let layers = self.layers.iter().rev();
        layers
            .filter(|layer| !file(layer).is_empty())
            .find_map(|layer| verdict(file(layer), &full[layer.base..], is_dir))
    }

    fn may_include_inside(&self, dir: &[u8]) -> bool {
        let inside = |path: &[u8], dir: &[u8]| {
            dir.is_empty()
                || path == dir
                || path.strip_prefix(dir).is_some_and(|rest| rest[0] == b'/')
        };
        self.include_below
            .iter()
            .any(|below| inside(below, dir) || inside(dir, below))
    }
}

/// Tells whether a name never belongs to a tree, whatever the rules say.
pub(crate) fn is_never_pushed(dir: &[u8], name: &[u8]) -> bool {
    name == b".git" || (dir.is_empty() && name == RESERVED)
}

fn verdict(rules: &Gitignore, path: &[u8], is_dir: bool) -> Option<bool> {
    match rules.matched(Path::new(OsStr::from_bytes(path)), is_dir) {
        Match::None => None,
        Match::Ignore(_) => Some(true),
        Match::Whitelist(_) => Some(false),
    }
}

fn compile<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<Gitignore, PatternError> {
    let mut builder = GitignoreBuilder::new("");
    let mut last = "";
    for pattern in patterns {
        last = pattern;
        builder
            .add_line(None, pattern)
            .map_err(|source| PatternError {
                pattern: pattern.to_owned(),
                source,
            })?;
    }
    builder.build().map_err(|source| PatternError {
        pattern: last.to_owned(),
        source,
    })
}

/// As git does, leaves out lines that are no patterns.
fn compile_file(text: &str) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    for line in text.trim_start_matches('\u{feff}').lines() {
        if let Err(error) = builder.add_line(None, line) {
            tracing::warn!("“{}” is not a pattern: {error}", escape(line.as_bytes()));
        }
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

/// The components of a pattern before the first with a wildcard; empty if it may match anywhere.
fn literal_prefix(pattern: &str) -> Vec<u8> {
    let pattern = pattern.trim_end_matches('/');
    if !pattern.contains('/') {
        return Vec::new();
    }
    let is_literal = |part: &&str| !part.contains(['*', '?', '[', '\\', '!']);
    let parts: Vec<&str> = pattern
        .trim_start_matches('/')
        .split('/')
        .take_while(is_literal)
        .collect();
    parts.join("/").into_bytes()
}

fn read_text(file: fs::File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(MAX_IGNORE_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_IGNORE_FILE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("an ignore file of more than {MAX_IGNORE_FILE} bytes"),
        ));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A file that isn't there has no rules, and neither has a link or a directory, as with git.
fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if no_such_place(&error) || error.kind() == io::ErrorKind::InvalidInput => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Where git keeps the user's own excludes: what `core.excludesFile` of the global configuration
/// says, or `$XDG_CONFIG_HOME/git/ignore`.
#[must_use]
pub fn global_excludes_file() -> Option<PathBuf> {
    ignore::gitignore::gitconfig_excludes_path()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_prefixes_bound_where_a_pattern_can_match() {
        for (pattern, prefix) in [
            ("dist/app.css", "dist/app.css"),
            ("/dist/", "dist"),
            ("/dist/x/", "dist/x"),
            ("dist/*.css", "dist"),
            ("a/b/**/c", "a/b"),
            ("**/c", ""),
            ("*.css", ""),
        ] {
            assert_eq!(literal_prefix(pattern), prefix.as_bytes(), "{pattern}");
        }
    }

    #[test]
    fn a_bad_configured_pattern_is_an_error_that_names_it() {
        let error = compile(["ok", "[z-a]"].into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "“[z-a]” is not a pattern");
    }
}
