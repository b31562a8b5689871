//! The walk: directories are listed by all processors, and put together in one order.
//!
//! Every directory is a task of its own. Whoever lists one puts those in it on a stack that all share,
//! so that few directories are held open at a time: those that still have some to be listed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    ops::Range,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use patchwire_protocol::{
    limits,
    manifest::{Entry, LinkTarget, Manifest, ManifestEntry, Mode},
    path::{self, RelativePath},
};

use super::{Scan, ScanError, ScanOptions, ScanProgress, SymlinkPolicy, collisions};
use crate::{
    confine::{Context, Dir, Kind, Stat, no_such_place},
    index::{Lookup, StatCache},
    rules::{self, IGNORE_FILES, Rules, RulesError, Scope, Visit},
};

/// How many threads walk at most: more wait for the system's own locks.
const THREADS: usize = 8;

/// How many ids of directories that are gone don't matter.
const SPARSE: usize = 1024;

/// How many things that can't be pushed are told of.
const ERRORS: usize = 8;

/// How much of what is ignored is listed.
const IGNORED: usize = 1 << 16;

/// What the system gives of a directory at once, in bytes.
const NAMES: usize = 32 << 10;

/// A directory as it was listed.
#[derive(Debug)]
pub(super) struct Node {
    place: Place,
    /// What holds in it.
    scope: Scope,
    /// The status of its ignore files.
    pub(super) ignore_files: [Option<Stat>; 2],
    /// Whether it holds nothing that could ever be pushed, ignored or not.
    is_empty: bool,
    /// What belongs to the tree and is no directory, sorted by path. A file that is to be read has no
    /// entry yet.
    entries: Vec<(RelativePath, Option<Entry>)>,
    /// The directories to look into, sorted by path.
    children: Vec<Child>,
    skipped: Vec<RelativePath>,
    ignored: Vec<RelativePath>,
    collisions: Vec<(RelativePath, RelativePath)>,
    /// Whether one of its files has another name somewhere.
    pub(super) has_hard_links: bool,
}

impl Node {
    /// Tells whether nothing but entries may be others than they were.
    fn is_like(&self, before: &Self) -> bool {
        let path = |(path, _): &(RelativePath, Option<Entry>)| path.clone();
        let paths = self.entries.iter().map(path);
        self.children == before.children
            && paths.eq(before.entries.iter().map(path))
            && self.is_empty == before.is_empty
            && self.skipped == before.skipped
            && self.ignored == before.ignored
            && self.collisions == before.collisions
    }
}

/// Where a directory is, and how it came to be visited.
#[derive(Clone, Debug)]
struct Place {
    /// Empty for the root.
    path: Arc<[u8]>,
    /// `None` for the root and for what can't be pushed.
    relative: Option<RelativePath>,
    visit: Visit,
    /// What holds above it.
    above: Scope,
}

/// A directory in another.
#[derive(Debug, PartialEq, Eq)]
struct Child {
    id: usize,
    path: Arc<[u8]>,
    /// `None` for what can't be pushed.
    relative: Option<RelativePath>,
    mode: Mode,
    /// Its device and inode.
    identity: (u64, u64),
    visit: Visit,
}

/// A directory that is to be listed.
#[derive(Debug)]
pub(super) struct Task {
    id: usize,
    parent: Arc<Dir>,
    place: Place,
}

/// All directories that were listed, by id. The root's is 0, and each has a higher one than the
/// directory it is in. Those that were gone before they could be listed have none.
#[derive(Debug, Default)]
pub(super) struct Nodes(Vec<Option<Node>>);

/// What a walk goes by.
pub(super) struct Walk<'a> {
    rules: &'a Rules,
    options: &'a ScanOptions,
    cache: &'a StatCache,
    progress: &'a (dyn Fn(ScanProgress) + Sync),
    found: AtomicU64,
    path_bytes: AtomicU64,
    next_id: AtomicUsize,
}

/// What a thread uses again and again.
struct Scratch {
    buffer: Vec<u8>,
    /// All names of a directory, one after the other.
    bytes: Vec<u8>,
    names: Vec<(Range<usize>, Option<Kind>)>,
    path: Vec<u8>,
}

impl<'a> Walk<'a> {
    /// A walk that gives ids from `next_id` on; the root's is 0.
    pub(super) fn new(
        rules: &'a Rules,
        options: &'a ScanOptions,
        cache: &'a StatCache,
        progress: &'a (dyn Fn(ScanProgress) + Sync),
        next_id: usize,
    ) -> Self {
        Self {
            rules,
            options,
            cache,
            progress,
            found: AtomicU64::new(0),
            path_bytes: AtomicU64::new(0),
            next_id: AtomicUsize::new(next_id),
        }
    }

    /// Lists the root, and tells what else is to be listed.
    pub(super) fn root(&self, dir: &Arc<Dir>) -> Result<(Node, Vec<Task>), ScanError> {
        let place = Place {
            path: [].into(),
            relative: None,
            visit: Visit::Normal,
            above: self.rules.above().clone(),
        };
        self.list(dir, place, &[], &mut Scratch::new())
    }

    /// Lists a directory again, and tells which of those in it are new. The others keep their ids.
    pub(super) fn again(
        &self,
        dir: &Arc<Dir>,
        node: &Node,
        nodes: &Nodes,
    ) -> Result<(Node, Vec<Task>), ScanError> {
        let children = node.children.iter();
        let known: Vec<&Child> = children
            .filter(|child| nodes.get(child.id).is_some())
            .collect();
        self.list(dir, node.place.clone(), &known, &mut Scratch::new())
    }

    /// Lists directories and all that are in them.
    pub(super) fn all(&self, tasks: Vec<Task>) -> Result<Vec<(usize, Node)>, ScanError> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let crew = Crew {
            state: Mutex::new(State {
                tasks,
                at_work: 0,
                is_stopped: false,
                errors: Vec::new(),
            }),
            news: Condvar::new(),
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let mut nodes = thread::scope(|scope| {
            let others: Vec<_> = (1..threads.min(THREADS))
                .map(|_| scope.spawn(|| self.work(&crew)))
                .collect();
            let mut nodes = self.work(&crew);
            for other in others {
                match other.join() {
                    Ok(more) => nodes.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            nodes
        });
        let errors = std::mem::take(&mut crew.lock().errors);
        if let Some(error) = ScanError::of_all(errors) {
            return Err(error);
        }
        nodes.sort_unstable_by_key(|(id, _)| *id);
        Ok(nodes)
    }

    fn work(&self, crew: &Crew) -> Vec<(usize, Node)> {
        let mut scratch = Scratch::new();
        let mut nodes = Vec::new();
        while let Some((task, turn)) = crew.next() {
            match self.visit(&task, &mut scratch) {
                Ok(Some((node, tasks))) => {
                    nodes.push((task.id, node));
                    turn.done(tasks);
                }
                Ok(None) => turn.done(Vec::new()),
                Err(error) => turn.failed(&task.place.path, error),
            }
        }
        nodes
    }

    /// `None` if the directory isn't there any more.
    fn visit(
        &self,
        task: &Task,
        scratch: &mut Scratch,
    ) -> Result<Option<(Node, Vec<Task>)>, ScanError> {
        let path = &task.place.path;
        let dir = match task.parent.open_dir(name(path)) {
            Err(error) if no_such_place(&error) => return Ok(None),
            result => Arc::new(result.context("open", path)?),
        };
        self.list(&dir, task.place.clone(), &[], scratch).map(Some)
    }

    fn list(
        &self,
        dir: &Arc<Dir>,
        place: Place,
        known: &[&Child],
        scratch: &mut Scratch,
    ) -> Result<(Node, Vec<Task>), ScanError> {
        let Scratch {
            buffer,
            bytes,
            names,
            path,
        } = scratch;
        bytes.clear();
        names.clear();
        let mut has_rules = false;
        let at = &place.path;
        let listed = dir.each_name(buffer, |name, kind| {
            if !rules::is_never_pushed(at, name) {
                has_rules |= IGNORE_FILES.contains(&name);
                let start = bytes.len();
                bytes.extend_from_slice(name);
                names.push((start..bytes.len(), kind));
            }
        });
        listed.context("list", at)?;
        names.sort_unstable_by(|(a, _), (b, _)| bytes[a.clone()].cmp(&bytes[b.clone()]));

        let mut node = Node {
            scope: place.above.clone(),
            ignore_files: [None; 2],
            is_empty: names.is_empty(),
            entries: Vec::with_capacity(names.len()),
            children: Vec::new(),
            skipped: Vec::new(),
            ignored: Vec::new(),
            collisions: Vec::new(),
            has_hard_links: false,
            place,
        };
        let at = &node.place.path;
        if has_rules {
            for (name, stat) in IGNORE_FILES.iter().zip(&mut node.ignore_files) {
                *stat = dir.find(name).context("read the status of", at)?;
            }
            let entered = self.rules.enter(&node.scope, at, dir);
            node.scope = entered.map_err(RulesError::File)?;
        }
        path.clear();
        path.extend_from_slice(at);
        if !at.is_empty() {
            path.push(b'/');
        }
        let base = path.len();
        let mut lookup = Lookup::new(self.cache);
        let mut tasks = Vec::new();
        for (range, kind) in names.iter() {
            let name = &bytes[range.clone()];
            path.truncate(base);
            path.extend_from_slice(name);
            if let Some(task) = self.entry(dir, name, *kind, path, &mut lookup, known, &mut node)? {
                tasks.push(task);
            }
        }
        let files = node.entries.iter().map(|(path, _)| path);
        let children = node.children.iter();
        let directories = children.filter_map(|child| child.relative.as_ref());
        node.collisions = collisions::within(files.chain(directories));
        self.count(&node)?;
        Ok((node, tasks))
    }

    /// Takes in an entry of a directory. Tells what is to be listed, if it is a directory that isn't
    /// known.
    #[expect(clippy::too_many_arguments, reason = "the parts of one loop's body")]
    fn entry(
        &self,
        dir: &Arc<Dir>,
        name: &[u8],
        kind: Option<Kind>,
        path: &[u8],
        lookup: &mut Lookup<'_>,
        known: &[&Child],
        node: &mut Node,
    ) -> Result<Option<Task>, ScanError> {
        let relative = |node: &Node| match &node.place.relative {
            Some(parent) => parent.join(name),
            None => RelativePath::new(path),
        };
        // What vanished after it was listed isn't there.
        let look = || dir.find(name).context("read the status of", path);
        let mut stat = None;
        let kind = match kind {
            Some(kind) => kind,
            None => match look()? {
                Some(found) => stat.insert(found).kind,
                None => return Ok(None),
            },
        };
        let is_dir = kind == Kind::Directory;
        let within = node.place.visit;
        let Some(visit) = self.rules.judge(&node.scope, path, is_dir, within) else {
            if node.ignored.len() < IGNORED {
                node.ignored.extend(relative(node));
            }
            return Ok(None);
        };
        if kind == Kind::Symlink {
            let target = match dir.read_link(name) {
                Err(error) if no_such_place(&error) => return Ok(None),
                result => result.context("read the link", path)?,
            };
            let path = relative(node)?;
            let target = self.link(&path, target)?;
            node.entries.push((path, Some(Entry::Symlink { target })));
            return Ok(None);
        }
        let Some(stat) = stat.map_or_else(look, |stat| Ok(Some(stat)))? else {
            return Ok(None);
        };
        match stat.kind {
            Kind::File => {
                node.has_hard_links |= stat.has_other_names;
                let entry = lookup
                    .digest(path, &stat)
                    .map(|digest| self.options.modes.file(&stat, digest));
                node.entries.push((relative(node)?, entry));
            }
            Kind::Special => node.skipped.push(relative(node)?),
            Kind::Directory if is_dir => {
                return self.child(dir, path, relative(node), &stat, visit, known, node);
            }
            // It was exchanged since it was listed: whoever looks next finds it.
            Kind::Directory | Kind::Symlink => {}
        }
        Ok(None)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one loop's body")]
    fn child(
        &self,
        dir: &Arc<Dir>,
        path: &[u8],
        relative: Result<RelativePath, path::PathError>,
        stat: &Stat,
        visit: Visit,
        known: &[&Child],
        node: &mut Node,
    ) -> Result<Option<Task>, ScanError> {
        // Another bad name matters only if something with it belongs to the tree; this one bounds how
        // deep a walk gets.
        if let Err(error @ path::PathError::TooLong { .. }) = relative {
            return Err(error.into());
        }
        let identity = (stat.device, stat.inode);
        let same = known
            .binary_search_by(|child| child.path[..].cmp(path))
            .ok()
            .map(|at| known[at])
            .filter(|child| child.identity == identity && child.visit == visit);
        let path: Arc<[u8]> = path.into();
        let relative = relative.ok();
        let (id, task) = match same {
            Some(child) => (child.id, None),
            None => {
                let id = self.next_id.fetch_add(1, Ordering::Relaxed);
                let place = Place {
                    path: Arc::clone(&path),
                    relative: relative.clone(),
                    visit,
                    above: node.scope.clone(),
                };
                let parent = Arc::clone(dir);
                (id, Some(Task { id, parent, place }))
            }
        };
        node.children.push(Child {
            id,
            path,
            relative,
            mode: self.options.modes.directory(stat),
            identity,
            visit,
        });
        Ok(task)
    }

    fn link(&self, path: &RelativePath, target: Vec<u8>) -> Result<LinkTarget, ScanError> {
        let target = LinkTarget::new(target).map_err(|source| ScanError::LinkTarget {
            path: path.clone(),
            source,
        })?;
        match self.options.symlinks {
            SymlinkPolicy::Inside if target.leaves_root(path) => Err(ScanError::LinkLeavesRoot {
                path: path.clone(),
                target,
            }),
            SymlinkPolicy::Inside | SymlinkPolicy::Any => Ok(target),
        }
    }

    fn count(&self, node: &Node) -> Result<(), ScanError> {
        let more = (node.entries.len() + node.children.len()) as u64;
        let len = |path: &[u8]| path.len() as u64;
        let entries = node.entries.iter().map(|(path, _)| len(path.as_bytes()));
        let children = node.children.iter().map(|child| len(&child.path));
        let bytes: u64 = entries.chain(children).sum();
        let bytes = bytes + self.path_bytes.fetch_add(bytes, Ordering::Relaxed);
        let before = self.found.fetch_add(more, Ordering::Relaxed);
        let entries = before + more;
        if entries > limits::ENTRIES || bytes > limits::PATH_BYTES {
            return Err(ScanError::TooMany { entries });
        }
        if before / 1024 != entries / 1024 {
            (self.progress)(ScanProgress {
                entries,
                ..ScanProgress::default()
            });
        }
        Ok(())
    }
}

impl Nodes {
    /// Adds what a walk found.
    pub(super) fn add(&mut self, walk: &Walk<'_>, nodes: impl IntoIterator<Item = (usize, Node)>) {
        // Also those that were gone have their ids.
        let len = walk.next_id.load(Ordering::Relaxed);
        self.0.resize_with(len, || None);
        for (id, node) in nodes {
            self.0[id] = Some(node);
        }
    }

    /// Puts a directory that was listed again in the place of what it was, which it gives, and forgets
    /// what isn't in it any more.
    pub(super) fn replace(&mut self, id: usize, node: Node) -> Option<Node> {
        let kept: BTreeSet<usize> = node.children.iter().map(|child| child.id).collect();
        let before = self.0.get_mut(id)?.replace(node)?;
        let ids = |node: Node| node.children.into_iter().map(|child| child.id);
        let gone = before.children.iter().map(|child| child.id);
        let mut gone: Vec<usize> = gone.filter(|id| !kept.contains(id)).collect();
        while let Some(id) = gone.pop() {
            gone.extend(
                self.0
                    .get_mut(id)
                    .and_then(Option::take)
                    .into_iter()
                    .flat_map(ids),
            );
        }
        Some(before)
    }

    /// What other entries stand at the paths of the directories that were replaced, if that is all that
    /// became of them.
    pub(super) fn edits(
        &self,
        replaced: &[(usize, Node)],
    ) -> Option<BTreeMap<RelativePath, Option<Entry>>> {
        let mut edits = BTreeMap::new();
        for (id, before) in replaced {
            let now = self.get(*id).filter(|now| now.is_like(before))?;
            for ((path, entry), (_, before)) in now.entries.iter().zip(&before.entries) {
                if entry != before {
                    edits.insert(path.clone(), entry.clone());
                }
            }
        }
        Some(edits)
    }

    /// The next id that nobody has.
    pub(super) fn next_id(&self) -> usize {
        self.0.len()
    }

    /// The ids of all directories that are there.
    pub(super) fn ids(&self) -> impl Iterator<Item = usize> {
        let there = |(id, node): (usize, &Option<Node>)| node.as_ref().map(|_| id);
        self.0.iter().enumerate().filter_map(there)
    }

    /// How many entries there are, of which some directories may not belong to the tree.
    pub(super) fn entries(&self) -> u64 {
        let all = self.0.iter().flatten();
        all.map(|node| (node.entries.len() + node.children.len()) as u64)
            .sum()
    }

    /// Tells whether all directories are on one device.
    pub(super) fn are_on_device(&self, device: u64) -> bool {
        let mut all = self.0.iter().flatten();
        all.all(|node| node.children.iter().all(|child| child.identity.0 == device))
    }

    /// The directories that hold a file with another name somewhere: what happens to it there isn't
    /// told here. Each after those that it is in.
    pub(super) fn with_hard_links(&self) -> BTreeSet<PathBuf> {
        let all = self.0.iter().flatten();
        let linked = all.filter(|node| node.has_hard_links);
        linked
            .map(|node| OsStr::from_bytes(&node.place.path).into())
            .collect()
    }

    /// Finds and opens the directory at `path`, or if that isn't known, the innermost around it that
    /// is. `None` if another directory stands there by now.
    pub(super) fn find(&self, root: &Arc<Dir>, path: &Path) -> Option<(usize, Arc<Dir>)> {
        let (mut id, mut dir) = (0, Arc::clone(root));
        for component in path.as_os_str().as_bytes().split(|byte| *byte == b'/') {
            let children = &self.get(id)?.children;
            let at = children.binary_search_by(|child| name(&child.path).cmp(component));
            let Some(child) = at.ok().map(|at| &children[at]) else {
                break;
            };
            if self.get(child.id).is_none() {
                break;
            }
            dir = Arc::new(dir.open_dir(component).ok()?);
            let stat = dir.own_stat().ok()?;
            if (stat.device, stat.inode) != child.identity {
                return None;
            }
            id = child.id;
        }
        Some((id, dir))
    }

    /// Tells whether most ids are those of directories that are gone.
    pub(super) fn is_sparse(&self) -> bool {
        let gone = self.0.iter().filter(|node| node.is_none()).count();
        gone > SPARSE && gone > self.0.len() / 2
    }

    pub(super) fn get(&self, id: usize) -> Option<&Node> {
        self.0.get(id)?.as_ref()
    }

    /// The files that are to be read, of the directories with these ids: where to put their entries,
    /// and their paths.
    pub(super) fn unread(&self, ids: &[usize]) -> Vec<(usize, usize)> {
        let mut unread = Vec::new();
        for &id in ids {
            let entries = self.get(id).map_or(&[][..], |node| &node.entries);
            let missing = |(at, (_, entry)): (usize, &(RelativePath, Option<Entry>))| {
                entry.is_none().then_some((id, at))
            };
            unread.extend(entries.iter().enumerate().filter_map(missing));
        }
        unread
    }

    pub(super) fn path(&self, (id, at): (usize, usize)) -> Option<&RelativePath> {
        self.get(id)?.entries.get(at).map(|(path, _)| path)
    }

    pub(super) fn set(&mut self, (id, at): (usize, usize), entry: Entry) {
        let node = self.0.get_mut(id).and_then(Option::as_mut);
        if let Some((_, place)) = node.and_then(|node| node.entries.get_mut(at)) {
            *place = Some(entry);
        }
    }

    /// Puts everything together.
    pub(super) fn assemble(&self, files_read: u64) -> Result<Scan, ScanError> {
        // What a directory holds has higher ids than it.
        let mut belongs = vec![false; self.0.len()];
        for (id, node) in self.0.iter().enumerate().rev() {
            let holds = |node: &Node| {
                !node.entries.is_empty()
                    || node.children.iter().any(|child| belongs[child.id])
                    || (node.is_empty && node.place.visit != Visit::Selected)
            };
            belongs[id] = node.as_ref().is_some_and(holds);
        }
        let mut assembly = Assembly {
            nodes: self,
            belongs,
            entries: Vec::new(),
            skipped: Vec::new(),
            ignored: Vec::new(),
            directories: Vec::new(),
            collisions: Vec::new(),
        };
        let all = self.0.iter().flatten();
        let entries = all.map(|node| node.entries.len() + node.children.len());
        assembly.entries.reserve(entries.sum());
        assembly.node(0)?;
        let len = |entry: &ManifestEntry| entry.path.as_bytes().len() as u64;
        if assembly.entries.iter().map(len).sum::<u64>() > limits::PATH_BYTES {
            let entries = assembly.entries.len() as u64;
            return Err(ScanError::TooMany { entries });
        }
        let manifest = Manifest::from_sorted(assembly.entries)?;
        let collisions = assembly.collisions.into_iter();
        let both = |(a, b): &(RelativePath, RelativePath)| {
            manifest.get(a).is_some() && manifest.get(b).is_some()
        };
        Ok(Scan {
            collisions: collisions.filter(both).collect(),
            manifest: Arc::new(manifest),
            skipped: assembly.skipped,
            ignored: assembly.ignored,
            files_read,
            directories: assembly.directories.into(),
        })
    }
}

struct Assembly<'a> {
    nodes: &'a Nodes,
    belongs: Vec<bool>,
    entries: Vec<ManifestEntry>,
    skipped: Vec<RelativePath>,
    ignored: Vec<RelativePath>,
    directories: Vec<PathBuf>,
    collisions: Vec<(RelativePath, RelativePath)>,
}

/// What comes next in the order of paths.
enum Next<'a> {
    Entry(&'a (RelativePath, Option<Entry>)),
    Directory(&'a Child),
    /// What that directory holds.
    Inside(&'a Child),
}

impl Next<'_> {
    /// The path, whose parts count, and whether a slash follows.
    fn key(&self) -> (&[u8], bool) {
        match self {
            Self::Entry((path, _)) => (path.as_bytes(), false),
            Self::Directory(child) => (&child.path, false),
            Self::Inside(child) => (&child.path, true),
        }
    }
}

impl<'a> Assembly<'a> {
    /// Adds what a directory holds. Recursion is bounded by [`limits::DEPTH`].
    fn node(&mut self, id: usize) -> Result<(), ScanError> {
        let Some(node) = self.nodes.get(id) else {
            return Ok(());
        };
        let path = &node.place.path;
        self.directories.push(OsStr::from_bytes(path).into());
        self.skipped.extend_from_slice(&node.skipped);
        let room = IGNORED - self.ignored.len().min(IGNORED);
        let ignored = &node.ignored[..node.ignored.len().min(room)];
        self.ignored.extend_from_slice(ignored);
        self.collisions.extend_from_slice(&node.collisions);
        if node.children.is_empty() {
            node.entries.iter().for_each(|entry| self.entry(entry));
            return Ok(());
        }
        let mut order: Vec<Next<'a>> = node.entries.iter().map(Next::Entry).collect();
        for child in &node.children {
            order.extend([Next::Directory(child), Next::Inside(child)]);
        }
        let start = if path.is_empty() { 0 } else { path.len() + 1 };
        order.sort_unstable_by(|a, b| compare(a.key(), b.key(), start));
        for next in order {
            match next {
                Next::Entry(entry) => self.entry(entry),
                Next::Directory(child) if self.belongs[child.id] => {
                    let path = match &child.relative {
                        Some(path) => path.clone(),
                        None => RelativePath::new(&child.path)?,
                    };
                    let entry = Entry::Directory { mode: child.mode };
                    self.entries.push(ManifestEntry { path, entry });
                }
                Next::Directory(_) => {}
                Next::Inside(child) => self.node(child.id)?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, (path, entry): &(RelativePath, Option<Entry>)) {
        // All that was to be read has been.
        self.entries.extend(entry.iter().map(|entry| ManifestEntry {
            path: path.clone(),
            entry: entry.clone(),
        }));
    }
}

/// Compares paths that are the same up to `start`, with slashes behind them or not.
fn compare(a: (&[u8], bool), b: (&[u8], bool), start: usize) -> std::cmp::Ordering {
    let len = a.0.len().min(b.0.len());
    let next = |(path, slash): (&[u8], bool)| path.get(len).copied().or(slash.then_some(b'/'));
    let same = a.0[start..len].cmp(&b.0[start..len]);
    same.then_with(|| next(a).cmp(&next(b)))
}

fn name(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[slash.map_or(0, |slash| slash + 1)..]
}

impl Scratch {
    fn new() -> Self {
        Self {
            buffer: Vec::with_capacity(NAMES),
            bytes: Vec::new(),
            names: Vec::new(),
            path: Vec::new(),
        }
    }
}

/// The threads of a walk, and what they share.
struct Crew {
    state: Mutex<State>,
    news: Condvar,
}

struct State {
    tasks: Vec<Task>,
    /// How many tasks are being worked on, each of which may bring more.
    at_work: usize,
    /// Whether enough has gone wrong.
    is_stopped: bool,
    /// What went wrong, with the directory in which it did.
    errors: Vec<(Arc<[u8]>, ScanError)>,
}

/// A task being worked on; dropped, it is done.
struct Turn<'a>(&'a Crew);

impl Crew {
    /// The next task; `None` once there is none any more.
    fn next(&self) -> Option<(Task, Turn<'_>)> {
        let mut state = self.lock();
        loop {
            if state.is_stopped {
                return None;
            }
            if let Some(task) = state.tasks.pop() {
                state.at_work += 1;
                return Some((task, Turn(self)));
            }
            if state.at_work == 0 {
                return None;
            }
            state = self
                .news
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    fn done(self, tasks: Vec<Task>) {
        if !tasks.is_empty() {
            self.0.lock().tasks.extend(tasks);
            self.0.news.notify_all();
        }
    }

    /// Goes on for a handful of errors, so that they are told together.
    fn failed(self, at: &Arc<[u8]>, error: ScanError) {
        let mut state = self.0.lock();
        state.is_stopped |= matches!(error, ScanError::TooMany { .. });
        state.errors.push((Arc::clone(at), error));
        state.is_stopped |= state.errors.len() >= ERRORS;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.at_work -= 1;
        // The others go on, or end with this one.
        if state.at_work == 0 || state.is_stopped {
            self.0.news.notify_all();
        }
    }
}
