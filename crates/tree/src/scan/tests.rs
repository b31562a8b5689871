use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use super::*;
use crate::rules::is_git_at_work;
use crate::testing::{Node, Tree, path, skipped};

mod git;
mod live;

/// Without the excludes of whoever runs the tests.
fn options() -> ScanOptions {
    ScanOptions {
        excludes_file: None,
        ..ScanOptions::default()
    }
}

fn scan_with(root: &Path, options: &ScanOptions) -> Result<Scan, ScanError> {
    scan(root, options, &mut StatCache::default(), &|_| ())
}

fn names(root: &Path, options: &ScanOptions) -> Vec<String> {
    let scan = scan_with(root, options).unwrap();
    let entries = scan.manifest.entries().iter();
    entries.map(|entry| entry.path.to_string()).collect()
}

fn patterns(patterns: &[&str]) -> Vec<String> {
    patterns.iter().map(|&pattern| pattern.to_owned()).collect()
}

#[test]
fn a_directory_outside_any_repository() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::new(&[
        ".hidden = h",
        "a/",
        "a/.gitignore = *.log\n!keep.log",
        "a/keep.log = k",
        "a/link -> ../b",
        "b ! = b",
        "empty/",
        "empty/deeper/",
    ])
    .with("private", Node::File("p".into(), 0o600));
    tree.write(dir.path());
    assert_eq!(
        *scan_with(dir.path(), &options()).unwrap().manifest,
        tree.manifest()
    );
    // What is ignored, reserved or special makes no directory managed.
    let more = Tree::new(&[
        "a/x.log = x",
        ".patchwire/",
        ".patchwire/journal = j",
        ".git/",
        ".git/x = x",
        "a/nested/",
        "a/nested/.git/",
        "a/nested/.git/HEAD = ref",
        "a/nested/code = c",
        "only-logs/",
        "only-logs/.patchwireignore = *",
        "only-logs/y = y",
        "only-fifo/",
    ])
    .with("only-fifo/fifo", Node::Fifo);
    more.write(dir.path());
    let scan = scan_with(dir.path(), &options()).unwrap();
    let nested = Tree::new(&["a/nested/", "a/nested/code = c"]);
    let mut expected = tree;
    expected.0.extend(nested.0);
    assert_eq!(*scan.manifest, expected.manifest());
    assert_eq!(scan.skipped, [path("only-fifo/fifo")]);
    let ignored: BTreeSet<_> = scan.ignored.into_iter().collect();
    let named = ["a/x.log", "only-logs/.patchwireignore", "only-logs/y"].map(path);
    assert_eq!(ignored, named.into());
}

#[test]
fn patterns_of_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    Tree::new(&[
        ".gitignore = dist/\n*.sqlite3\n",
        ".patchwireignore = docs/\n",
        "app = a",
        "data.sqlite3 = d",
        "dist/",
        "dist/app.css = c",
        "dist/app.js = j",
        "dist/deep/",
        "dist/deep/x = x",
        "docs/",
        "docs/index = i",
        "secret = s",
    ])
    .write(dir.path());
    let options = |include: &[&str], ignore: &[&str]| ScanOptions {
        include: patterns(include),
        ignore: patterns(ignore),
        ..options()
    };
    let always = [".gitignore", ".patchwireignore", "app"];
    let with = |more: &[&str]| {
        let mut all: Vec<_> = always.iter().chain(more).map(ToString::to_string).collect();
        all.sort();
        all
    };
    let scanned = |include, ignore| names(dir.path(), &options(include, ignore));
    assert_eq!(scanned(&[], &["secret"]), with(&[]));
    assert_eq!(
        scanned(&["dist/app.css", "docs/index"], &["secret"]),
        with(&["dist", "dist/app.css"])
    );
    assert_eq!(
        scanned(&["dist"], &["secret", "dist/*.js"]),
        with(&["dist", "dist/app.css", "dist/deep", "dist/deep/x"])
    );
    assert_eq!(
        scanned(&["*.sqlite3"], &[]),
        with(&["data.sqlite3", "secret"])
    );
    let bad = scan_with(dir.path(), &options(&["[z-a]"], &[])).unwrap_err();
    assert!(
        matches!(bad, ScanError::Rules(RulesError::Pattern(_))),
        "{bad}"
    );
}

#[test]
fn permissions_are_pushed_as_the_options_say() {
    let dir = tempfile::tempdir().unwrap();
    Tree::default()
        .with("d", Node::Dir(0o700))
        .with("d/private", Node::File("p".into(), 0o600))
        .with("d/run", Node::File("r".into(), 0o711))
        .with("d/shared", Node::File("s".into(), 0o674))
        .write(dir.path());
    let modes = |modes| {
        let options = ScanOptions { modes, ..options() };
        let scan = scan_with(dir.path(), &options).unwrap();
        let mode = |entry: &ManifestEntry| match entry.entry {
            Entry::File { mode, .. } | Entry::Directory { mode } => mode.bits(),
            Entry::Symlink { .. } => panic!("there is no link"),
        };
        scan.manifest.entries().iter().map(mode).collect::<Vec<_>>()
    };
    assert_eq!(modes(ModePolicy::All), [0o700, 0o600, 0o711, 0o674]);
    assert_eq!(modes(ModePolicy::Executable), [0o755, 0o644, 0o755, 0o644]);
}

#[test]
fn names_that_are_the_same_on_other_disks_are_told_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    Tree::new(&[
        ".gitignore = *.log\n",
        "Read.me = 1",
        "read.ME = 2",
        "a.log = ignored",
        "A.LOG = not",
        "d/",
        "d/caf\u{e9} = composed",
        "d/cafe\u{301} = decomposed",
        "x/",
        "x/only-logs/",
        "x/only-logs/b.log = ignored",
        "x/Only-Logs = file",
    ])
    .write(dir.path());
    let scan = scan_with(dir.path(), &options()).unwrap();
    let pair = |a: &str, b: &str| (path(a), path(b));
    assert_eq!(
        scan.collisions,
        [
            pair("Read.me", "read.ME"),
            pair("d/cafe\u{301}", "d/caf\u{e9}")
        ]
    );
    assert_eq!(scan.manifest.inside(&path("d")).len(), 2);
}

#[test]
fn all_that_cannot_be_read_is_named_up_to_a_handful() {
    let dir = tempfile::tempdir().unwrap();
    // Also for root, who may read everything: ignore files that are too large for anybody.
    for made in ["a", "b/c", "d"] {
        fs::create_dir_all(dir.path().join(made)).unwrap();
        let file = File::create(dir.path().join(made).join(".gitignore")).unwrap();
        file.set_len(17 << 20).unwrap();
    }
    let error = scan_with(dir.path(), &options()).unwrap_err();
    let ScanError::Unreadable { errors } = &error else {
        panic!("{error}");
    };
    let paths: Vec<_> = errors.iter().map(|error| &*error.path).collect();
    assert_eq!(paths, ["a/.gitignore", "b/c/.gitignore", "d/.gitignore"]);
    assert!(
        error
            .to_string()
            .contains("“b/c/.gitignore” (an ignore file of more than")
    );
}

#[test]
fn what_cannot_be_pushed_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let error = |root: &Path| scan_with(root, &options()).unwrap_err().to_string();
    assert!(matches!(
        scan_with(&root.join("no"), &options()),
        Err(ScanError::Root(_))
    ));
    fs::write(root.join("a\x1b[2J"), "").unwrap();
    assert!(matches!(
        scan_with(&root.join("a\x1b[2J"), &options()),
        Err(ScanError::Root(_))
    ));
    assert!(error(root).contains(r"“a\x1b[2J”"), "{}", error(root));
    fs::write(root.join(".gitignore"), "a*\nb*/x\n").unwrap();
    scan_with(root, &options()).expect("an ignored file may have any name");
    fs::create_dir(root.join("b\n")).unwrap();
    fs::write(root.join("b\n/x"), "").unwrap();
    scan_with(root, &options()).expect("a directory of ignored files too");
    fs::write(root.join("b\n/y"), "").unwrap();
    assert!(error(root).contains(r"“b\x0a/y”"), "{}", error(root));
    fs::remove_dir_all(root.join("b\n")).unwrap();

    symlink("../x", root.join("out")).unwrap();
    assert!(
        matches!(scan_with(root, &options()), Err(ScanError::LinkLeavesRoot { path: p, .. }) if p == path("out"))
    );
    let any = ScanOptions {
        symlinks: SymlinkPolicy::Any,
        ..options()
    };
    assert_eq!(names(root, &any), [".gitignore", "out"]);
}

#[test]
fn an_unreadable_file_is_an_error_and_never_a_deletion() {
    // Also for root, who may read everything: a file that can't be read at any permission.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".gitignore"), "x".repeat(17 << 20)).unwrap();
    let error = scan_with(dir.path(), &options()).unwrap_err();
    assert!(error.to_string().contains(".gitignore"), "{error}");
    // And for others.
    fs::write(dir.path().join(".gitignore"), "").unwrap();
    let trees = [
        Tree::default().with("it", Node::File("x".into(), 0)),
        Tree::default().with("it", Node::Dir(0)),
    ];
    for tree in trees {
        let dir = tempfile::tempdir().unwrap();
        tree.write(dir.path());
        let can_read = File::open(dir.path().join("it")).is_ok();
        let result = scan_with(dir.path(), &options());
        assert_eq!(result.is_ok(), can_read, "{result:?}");
    }
}

#[test]
fn only_files_that_changed_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    Tree::new(&["a = 1", "d/", "d/b = 2"]).write(root);
    let mut cache = StatCache::default();
    let mut read = || {
        let scan = scan(root, &options(), &mut cache, &|_| ()).unwrap();
        (scan.files_read, scan.manifest)
    };
    // Just written: too new for their digests to be kept.
    assert_eq!(read().0, 2);
    assert_eq!(read().0, 2);
    // Nobody can set a ctime back, so the cache is asked with the clock put forward instead.
    let dir = Dir::open_root(root).unwrap();
    let later = Time::now().plus_seconds(10);
    let manifest = read().1;
    let mut cache = StatCache::default();
    for name in ["a", "d/b"] {
        let path = path(name);
        let stat = dir
            .walk_to_parent(&path)
            .unwrap()
            .stat(path.name())
            .unwrap();
        let Some(Entry::File { digest, .. }) = manifest.get(&path) else {
            panic!("{name} is a file");
        };
        cache.record(&path, &stat, *digest, later);
    }
    let again = |cache: &mut StatCache| scan(root, &options(), cache, &|_| ()).unwrap();
    assert_eq!(again(&mut cache).files_read, 0);
    assert_eq!(again(&mut cache).manifest, manifest);
    fs::write(root.join("a"), "3").unwrap();
    let changed = again(&mut cache);
    assert_eq!(changed.files_read, 1);
    assert_ne!(changed.manifest, manifest);
    fs::remove_file(root.join("d/b")).unwrap();
    again(&mut cache);
    assert_eq!(cache.len(), 0, "what is gone is forgotten");
}

fn git(root: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("git")
        .current_dir(root)
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
    output.stdout
}

/// What git lists below `root` and is there, and with it every directory above.
fn listed_by_git(root: &Path) -> BTreeSet<String> {
    let listed = git(root, &["ls-files", "-co", "--exclude-standard", "-z"]);
    let text = String::from_utf8(listed).unwrap();
    let names = text
        .split_terminator('\0')
        .map(|name| name.trim_end_matches('/'));
    let there = names.filter(|name| root.join(name).symlink_metadata().is_ok());
    let mut all = BTreeSet::new();
    for name in there {
        for (at, _) in name.match_indices('/') {
            all.insert(name[..at].to_owned());
        }
        all.insert(name.to_owned());
    }
    all
}

#[test]
fn a_repository_gives_what_git_lists() {
    if Command::new("git").arg("--version").output().is_err() {
        return skipped("git is missing");
    }
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    git(top, &["init", "-q", "repo"]);
    let repo = top.join("repo");
    Tree::new(&[
        ".gitignore = *.log\n/build/\ncache/*\n!cache/keep\nfoo/**/bar\n\\#odd\ntrailing \nsub/only-here\n",
        "#odd = ignored",
        "a.log = ignored",
        "build/",
        "build/forced = tracked though ignored",
        "build/other = ignored",
        "build/deep/",
        "build/deep/forced = tracked",
        "cache/",
        "cache/keep = k",
        "cache/drop = d",
        "foo/",
        "foo/x/",
        "foo/x/bar = ignored",
        "foo/x/baz = b",
        "forced.log = tracked",
        "excluded = by info/exclude",
        "gone = tracked and removed",
        "link -> foo",
        "linked-dir -> cache",
        "space name = s",
        "sub/",
        "sub/.gitignore = !*.log\nnot-me\n/anchored\n",
        "sub/b.log = not ignored here",
        "sub/not-me = ignored",
        "sub/anchored = ignored",
        "sub/only-here = ignored from above",
        "sub/deep/",
        "sub/deep/anchored = a",
        "sub/deep/not-me = ignored",
        "sub/deep/plain = p",
        "untracked = u",
    ])
    .write(&repo);
    fs::write(repo.join(".git/info/exclude"), "excluded\n").unwrap();
    git(
        &repo,
        &[
            "add",
            "-f",
            "build/forced",
            "build/deep/forced",
            "forced.log",
            "gone",
            "sub/b.log",
            "link",
        ],
    );
    git(&repo, &["commit", "-qm", "one"]);
    fs::remove_file(repo.join("gone")).unwrap();
    let scanned = |root: &Path| names(root, &options()).into_iter().collect::<BTreeSet<_>>();
    let expected = listed_by_git(&repo);
    assert!(expected.contains("build/deep/forced") && !expected.contains("gone"));
    assert_eq!(scanned(&repo), expected);
    assert_eq!(scanned(&repo.join("sub")), listed_by_git(&repo.join("sub")));
    assert!(!scanned(&repo.join("sub")).contains("only-here"));

    // A linked work tree, whose `.git` is a file.
    git(&repo, &["worktree", "add", "-q", "../linked"]);
    let linked = top.join("linked");
    fs::write(linked.join("excluded"), "").unwrap();
    fs::write(linked.join("build/other"), "").unwrap();
    assert_eq!(scanned(&linked), listed_by_git(&linked));
    assert!(scanned(&linked).contains("build/forced"));

    // Newer index formats.
    for version in ["2", "3", "4"] {
        git(&repo, &["update-index", "--index-version", version]);
        assert_eq!(scanned(&repo), expected, "index version {version}");
    }

    // A submodule is a plain directory.
    git(top, &["init", "-q", "inner"]);
    fs::write(top.join("inner/code"), "c").unwrap();
    git(&top.join("inner"), &["add", "code"]);
    git(&top.join("inner"), &["commit", "-qm", "one"]);
    git(
        &repo,
        &["submodule", "--quiet", "add", "../inner", "module"],
    );
    let mut with_module = listed_by_git(&repo);
    with_module.insert("module/code".to_owned());
    assert_eq!(scanned(&repo), with_module);
}

#[test]
fn the_directories_that_were_looked_into_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for made in [
        "src/deep",
        "empty",
        "target/debug",
        "kept/cache",
        ".git/objects",
    ] {
        fs::create_dir_all(root.join(made)).unwrap();
    }
    fs::write(root.join(".gitignore"), "target\nkept\n").unwrap();
    let options = ScanOptions {
        include: patterns(&["kept/wanted"]),
        ..options()
    };
    let scan = scan_with(root, &options).unwrap();
    assert_eq!(scan.directories[0], Path::new(""));
    let told: BTreeSet<_> = scan
        .directories
        .iter()
        .filter_map(|path| path.to_str())
        .collect();
    // An ignored one in which something is asked for is looked into, and one inside it is not.
    assert_eq!(
        told,
        BTreeSet::from(["", "src", "src/deep", "empty", "kept"])
    );
}

#[test]
fn git_is_at_work_while_it_holds_the_lock_of_its_index() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("main");
    fs::create_dir_all(main.join("below")).unwrap();
    assert!(!is_git_at_work(&main));
    git(&main, &["init", "-q"]);
    git(&main, &["commit", "-q", "--allow-empty", "-m", "first"]);
    git(&main, &["worktree", "add", "-q", "../linked"]);
    let linked = dir.path().join("linked");
    for (root, lock) in [
        (&main.join("below"), main.join(".git/index.lock")),
        (&linked, main.join(".git/worktrees/linked/index.lock")),
    ] {
        assert!(!is_git_at_work(root));
        fs::write(&lock, "").unwrap();
        assert!(is_git_at_work(root));
        fs::remove_file(&lock).unwrap();
    }
}

#[test]
fn an_index_that_cannot_be_read_stops_the_scan() {
    let dir = tempfile::tempdir().unwrap();
    Tree::new(&[
        ".git/",
        ".git/HEAD = ref: refs/heads/main",
        ".git/index = not one",
        "a = a",
    ])
    .write(dir.path());
    let error = scan_with(dir.path(), &options()).unwrap_err();
    assert!(
        matches!(error, ScanError::Rules(RulesError::Repository(_))),
        "{error}"
    );
}

#[test]
fn files_are_opened_without_following_links() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    Tree::new(&["d/", "d/a = 1", "link -> d", "file -> d/a"]).write(root);
    assert!(open_file(root, &path("d/a")).is_ok());
    for name in ["link/a", "file", "d", "no"] {
        let error = open_file(root, &path(name)).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot open “{name}”"));
    }
}
