//! What of a directory belongs to the tree: git's ignore rules, git's index, and our own patterns.

use std::{
    borrow::Cow,
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};
use patchwire_protocol::path::{RESERVED, escape};

use crate::{
    confine::{Context, Dir, Kind, PathError, Stat, no_such_place},
    index::is_settled,
    time::Time,
};

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
    /// The ignore files of the directories above the root.
    above: Scope,
    repository: Option<Repository>,
    sources: Vec<Source>,
}

/// Something outside the root that says what the rules are, as it was before it was read.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    status: Option<Stat>,
    looked: Time,
}

/// The ignore files that hold in a directory: its own and those of the directories above it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope(Option<Arc<Layer>>);

/// The ignore files of one directory.
#[derive(Debug)]
struct Layer {
    /// The length of the directory's path from the repository's top, with a slash at the end.
    base: usize,
    git: Gitignore,
    own: Gitignore,
    above: Scope,
}

impl Scope {
    /// The innermost first.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::successors(self.0.as_deref(), |layer| layer.above.0.as_deref())
    }
}

/// The names of the files that hold the rules of a directory.
pub(crate) const IGNORE_FILES: [&[u8]; 2] = [GIT_IGNORE, OWN_IGNORE];

const GIT_IGNORE: &[u8] = b".gitignore";
const OWN_IGNORE: &[u8] = b".patchwireignore";

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
        let mut rules = Self::outside_repository(include, ignore)?;
        let mut sources: Vec<PathBuf> = excludes_file.map(Path::to_owned).into_iter().collect();
        sources.extend(repository.iter().flat_map(Repository::sources));
        let real = fs::canonicalize(root).unwrap_or_default();
        let top = repository.as_ref().map(|repository| &*repository.top);
        for above in real.ancestors() {
            sources.push(above.join(".git"));
            if above != real && top.is_some() {
                let names = IGNORE_FILES.map(|name| above.join(OsStr::from_bytes(name)));
                sources.extend(names);
            }
            if Some(above) == top {
                break;
            }
        }
        rules.sources = sources.into_iter().map(Source::new).collect();
        if let Some(repository) = &repository {
            rules.prefix = repository.prefix.clone();
            rules.tracked = repository.tracked()?;
            rules.push_outermost(&repository.exclude_file())?;
            rules.enter_ancestors(repository)?;
        }
        if let Some(file) = excludes_file {
            rules.push_outermost(file)?;
        }
        rules.repository = repository;
        Ok(rules)
    }

    /// The rules of a root of which nothing is known but what lies in it.
    pub(crate) fn outside_repository(
        include: &[String],
        ignore: &[String],
    ) -> Result<Self, PatternError> {
        Ok(Self {
            prefix: Vec::new(),
            tracked: Tracked::default(),
            include: compile(include.iter().map(String::as_str))?,
            include_below: include
                .iter()
                .map(|pattern| literal_prefix(pattern))
                .collect(),
            ignore: compile(ignore.iter().map(String::as_str))?,
            outermost: Vec::new(),
            above: Scope::default(),
            repository: None,
            sources: Vec::new(),
        })
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
            let name = at.as_os_str().as_bytes();
            let dir = Dir::open_root(&at).context("open", name)?;
            self.above = Layer::read(&dir, name, base, &self.above)?;
            base += component.len();
            at.push(OsStr::from_bytes(component));
        }
        Ok(())
    }

    /// Tells whether what lies outside the root and says what the rules are is what it was, for sure.
    /// Git's index, which git writes all the time, may name the same files as before.
    pub(crate) fn are_current(&mut self) -> bool {
        for source in &mut self.sources {
            if source.is_current() {
                continue;
            }
            let index = self.repository.as_ref();
            let Some(repository) = index.filter(|of| of.index_file() == source.path) else {
                return false;
            };
            let now = Source::new(source.path.clone());
            if !repository
                .tracked()
                .is_ok_and(|now| now.is_same(&self.tracked))
            {
                return false;
            }
            *source = now;
        }
        true
    }

    /// As if all had been read long after it was written.
    #[cfg(test)]
    pub(crate) fn put_forward(&mut self) {
        for source in &mut self.sources {
            source.looked = Time::now().plus_seconds(10);
        }
    }

    /// What holds above the root.
    pub(crate) const fn above(&self) -> &Scope {
        &self.above
    }

    /// Reads the ignore files of the directory `path` (empty for the root), which has one at least.
    pub(crate) fn enter(&self, above: &Scope, path: &[u8], dir: &Dir) -> Result<Scope, PathError> {
        let slash = usize::from(!path.is_empty());
        Layer::read(dir, path, self.prefix.len() + path.len() + slash, above)
    }

    /// Judges an entry of a directory in which `scope` holds: how to visit it, or `None` if it doesn't
    /// belong to the tree. For what isn't a directory, any way to visit means that it belongs.
    pub(crate) fn judge(
        &self,
        scope: &Scope,
        path: &[u8],
        is_dir: bool,
        within: Visit,
    ) -> Option<Visit> {
        let full: Cow<'_, [u8]> = match &self.prefix[..] {
            b"" => path.into(),
            prefix => [prefix, path].concat().into(),
        };
        let own = |layer: &Layer| verdict(&layer.own, &full[layer.base..], is_dir);
        if verdict(&self.ignore, path, is_dir) == Some(true)
            || scope.layers().find_map(own) == Some(true)
        {
            return None;
        }
        if within == Visit::Included || verdict(&self.include, path, is_dir) == Some(true) {
            return Some(Visit::Included);
        }
        if within == Visit::Normal && !self.is_git_ignored(scope, &full, is_dir) {
            return Some(Visit::Normal);
        }
        if self.tracked.contains(&full) {
            return Some(Visit::Normal);
        }
        let selected = is_dir && (self.tracked.has_inside(&full) || self.may_include_inside(path));
        selected.then_some(Visit::Selected)
    }

    /// What the innermost file with an opinion says.
    fn is_git_ignored(&self, scope: &Scope, full: &[u8], is_dir: bool) -> bool {
        let inner = |layer: &Layer| verdict(&layer.git, &full[layer.base..], is_dir);
        let outer = |rules: &Gitignore| verdict(rules, full, is_dir);
        let layered = scope.layers().find_map(inner);
        layered
            .or_else(|| self.outermost.iter().find_map(outer))
            .unwrap_or(false)
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

impl Source {
    fn new(path: PathBuf) -> Self {
        let looked = Time::now();
        Self {
            status: status(&path),
            path,
            looked,
        }
    }

    fn is_current(&self) -> bool {
        let is_settled = |status: Stat| is_settled(&status, self.looked);
        self.status.is_none_or(is_settled) && status(&self.path) == self.status
    }
}

/// The status of something that rules are in; of a directory only which one it is, as git changes what
/// is in its own all the time.
fn status(path: &Path) -> Option<Stat> {
    let stat = Stat::of_path(path).ok()?;
    Some(match stat.kind {
        Kind::Directory => Stat {
            mode: 0,
            len: 0,
            modified: Time::default(),
            changed: Time::default(),
            has_other_names: false,
            ..stat
        },
        Kind::File | Kind::Symlink | Kind::Special => stat,
    })
}

impl Layer {
    fn read(dir: &Dir, at: &[u8], base: usize, above: &Scope) -> Result<Scope, PathError> {
        let read = |name: &[u8]| {
            let text = dir.open_file(name).and_then(read_text);
            let path = Path::new(OsStr::from_bytes(at)).join(OsStr::from_bytes(name));
            let text = absent_is_none(text).context("read", path.as_os_str().as_bytes())?;
            Ok::<_, PathError>(match text {
                Some(text) => compile_file(&text),
                None => Gitignore::empty(),
            })
        };
        let (git, own) = (read(GIT_IGNORE)?, read(OWN_IGNORE)?);
        if git.is_empty() && own.is_empty() {
            return Ok(above.clone());
        }
        Ok(Scope(Some(Arc::new(Self {
            base,
            git,
            own,
            above: above.clone(),
        }))))
    }
}

/// Tells whether a name never belongs to a tree, whatever the rules say.
pub(crate) fn is_never_pushed(dir: &[u8], name: &[u8]) -> bool {
    name == b".git" || (dir.is_empty() && name == RESERVED)
}

fn verdict(rules: &Gitignore, path: &[u8], is_dir: bool) -> Option<bool> {
    if rules.is_empty() {
        return None;
    }
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
