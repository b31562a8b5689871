//! What is pushed of a repository is what git lists, whatever its ignore files say.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use super::*;
use crate::testing::Random;

const DIRECTORIES: [&str; 9] = [
    "",
    "a",
    "a/b",
    "a/b/a",
    "build",
    "build/sub",
    "foo",
    "foo/a",
    "sub.d",
];
const FILES: [&str; 10] = [
    "a", "b", "x.log", "keep.log", "x.txt", "#x", "!x", "sp ace ", "ä", "-",
];
const PATTERNS: [&str; 36] = [
    "*.log",
    "!keep.log",
    "/a",
    "a/",
    "a",
    "!a",
    "!a/",
    "/a/b",
    "a/b",
    "**/b",
    "**/a/",
    "a/**",
    "a/**/a",
    "foo/*",
    "!foo/a",
    "foo/**",
    "!foo/**",
    "build/",
    "/build",
    "!build/sub",
    "*",
    "!*/",
    "!*.txt",
    "[ab]",
    "[!ab]",
    "x.t?t",
    "\\#x",
    "\\!x",
    "#x",
    "!x",
    "sp ace\\ ",
    "sp*",
    "sub.d/",
    "*.d",
    "/*",
    "\u{e4}",
];

/// What git lists below `root` and is there, links and files alone.
fn listed(root: &Path, excludes: &Path) -> BTreeSet<String> {
    let excludes = format!("core.excludesFile={}", excludes.display());
    let arguments = [
        "-c",
        &excludes,
        "ls-files",
        "-co",
        "--exclude-standard",
        "-z",
    ];
    let text = String::from_utf8(git(root, &arguments)).unwrap();
    let names = text.split_terminator('\0');
    let there = |name: &&str| {
        root.join(name)
            .symlink_metadata()
            .is_ok_and(|m| !m.is_dir())
    };
    names.filter(there).map(str::to_owned).collect()
}

fn scanned(root: &Path, excludes: &Path) -> BTreeSet<String> {
    let options = ScanOptions {
        excludes_file: Some(excludes.to_owned()),
        ..options()
    };
    let scan = scan_with(root, &options).unwrap();
    let entries = scan.manifest.entries().iter();
    let files = entries.filter(|entry| !entry.entry.is_directory());
    files
        .map(|entry| str::from_utf8(entry.path.as_bytes()).unwrap().to_owned())
        .collect()
}

#[test]
fn random_ignore_files_mean_what_git_says() {
    if Command::new("git").arg("--version").output().is_err() {
        return skipped("git is missing");
    }
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        let excludes = dir.path().join("excludes");
        fs::create_dir(&top).unwrap();
        git(&top, &["init", "-q"]);
        let mut rules = Vec::new();
        let mut write_rules = |at: PathBuf, random: &mut Random| {
            let lines: Vec<&str> = (0..=random.below(4))
                .map(|_| *random.choose(&PATTERNS))
                .collect();
            let text = lines.join("\n") + "\n";
            fs::write(&at, &text).unwrap();
            rules.push((at, text));
        };
        let mut tracked = vec!["add", "-f", "--"];
        let mut files = Vec::new();
        for directory in DIRECTORIES {
            fs::create_dir_all(top.join(directory)).unwrap();
        }
        for directory in DIRECTORIES {
            for file in FILES {
                let path = Path::new(directory).join(file);
                if random.below(3) > 0 && fs::write(top.join(&path), "").is_ok() {
                    files.push(path);
                }
            }
            if random.below(3) == 0 {
                write_rules(top.join(directory).join(".gitignore"), &mut random);
            }
        }
        if random.below(2) == 0 {
            write_rules(top.join(".git/info/exclude"), &mut random);
        }
        if random.below(2) == 0 {
            write_rules(excludes.clone(), &mut random);
        }
        let chosen: Vec<&PathBuf> = files.iter().filter(|_| random.below(12) == 0).collect();
        tracked.extend(chosen.iter().filter_map(|path| path.to_str()));
        if tracked.len() > 3 {
            git(&top, &tracked);
        }
        for root in ["", "a", "foo"] {
            let root = top.join(root);
            // One that is ignored is pushed all the same.
            let excludes_file = format!("core.excludesFile={}", excludes.display());
            let mut is_ignored = Command::new("git");
            is_ignored
                .args([
                    "-c",
                    &excludes_file,
                    "check-ignore",
                    "--no-index",
                    "-q",
                    ".",
                ])
                .current_dir(&root);
            if is_ignored.status().unwrap().success() {
                continue;
            }
            assert_eq!(
                scanned(&root, &excludes),
                listed(&root, &excludes),
                "seed {seed} in {}: tracked {tracked:?}, {rules:#?}",
                root.display()
            );
        }
    }
}

/// A repository in which only the index says what is pushed: all is ignored.
fn all_ignored(top: &Path) {
    fs::create_dir(top).unwrap();
    git(top, &["init", "-q"]);
    Tree::new(&[
        ".gitignore = *",
        "a = tracked",
        "d/",
        "d/b = tracked",
        "d/c = ignored",
        "e/",
        "e/f/",
        "e/f/g = tracked",
        "h = ignored",
    ])
    .write(top);
    git(top, &["add", "-f", "a", "d/b", "e/f/g"]);
    git(top, &["commit", "-qm", "one"]);
}

#[test]
fn an_index_in_every_form_says_what_is_tracked() {
    if Command::new("git").arg("--version").output().is_err() {
        return skipped("git is missing");
    }
    let dir = tempfile::tempdir().unwrap();
    let excludes = dir.path().join("none");
    let expected: BTreeSet<String> = ["a", "d/b", "e/f/g"].map(str::to_owned).into();
    for (form, commands) in [
        (
            "version 2",
            vec![vec!["update-index", "--index-version", "2"]],
        ),
        (
            "version 3",
            vec![
                vec!["update-index", "--index-version", "3"],
                vec!["update-index", "--skip-worktree", "a"],
            ],
        ),
        (
            "version 4",
            vec![vec!["update-index", "--index-version", "4"]],
        ),
        (
            "with an untracked cache",
            vec![vec!["update-index", "--untracked-cache"]],
        ),
        (
            "an entry to be added",
            vec![vec!["rm", "-q", "--cached", "a"], vec!["add", "-fN", "a"]],
        ),
        (
            "many threads",
            vec![vec![
                "-c",
                "index.threads=4",
                "update-index",
                "--force-write-index",
            ]],
        ),
        (
            "without a checksum",
            vec![vec![
                "-c",
                "index.skipHash=true",
                "update-index",
                "--force-write-index",
            ]],
        ),
    ] {
        let top = dir.path().join(form);
        all_ignored(&top);
        for command in commands {
            git(&top, &command);
        }
        assert_eq!(scanned(&top, &excludes), expected, "{form}");
        assert_eq!(listed(&top, &excludes), expected, "{form}");
    }
}

#[test]
fn of_a_split_index_both_parts_count() {
    if Command::new("git").arg("--version").output().is_err() {
        return skipped("git is missing");
    }
    let dir = tempfile::tempdir().unwrap();
    let (top, excludes) = (dir.path().join("top"), dir.path().join("none"));
    all_ignored(&top);
    git(&top, &["update-index", "--split-index"]);
    git(&top, &["add", "-f", "h"]);
    git(&top, &["rm", "-q", "--cached", "a"]);
    assert_eq!(scanned(&top, &excludes), listed(&top, &excludes));
}

#[test]
fn of_a_sparse_index_what_is_there_counts() {
    if Command::new("git").arg("--version").output().is_err() {
        return skipped("git is missing");
    }
    let dir = tempfile::tempdir().unwrap();
    let (top, excludes) = (dir.path().join("top"), dir.path().join("none"));
    all_ignored(&top);
    git(
        &top,
        &["sparse-checkout", "set", "--cone", "--sparse-index", "d"],
    );
    assert_eq!(scanned(&top, &excludes), listed(&top, &excludes));
    // There again by hand. What is tracked of it only git's objects say: the ignore files hold.
    fs::write(top.join(".gitignore"), "c\n").unwrap();
    Tree::new(&["e/", "e/c = ignored", "e/f/", "e/f/g = there"]).write(&top);
    assert_eq!(scanned(&top, &excludes), listed(&top, &excludes));
}

#[test]
fn names_of_any_bytes_are_pushed_as_git_lists_them() {
    if Command::new("git").arg("--version").output().is_err() {
        return skipped("git is missing");
    }
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    fs::create_dir(&top).unwrap();
    git(&top, &["init", "-q"]);
    fs::write(top.join(".gitignore"), "ignored*\n").unwrap();
    for byte in (0x20..=0x7e_u8)
        .chain(0xa0..=0xff)
        .filter(|byte| *byte != b'/')
    {
        for name in [vec![b'x', byte, b'y'], [b"ignored", &[byte][..]].concat()] {
            fs::write(top.join(OsStr::from_bytes(&name)), "").unwrap();
        }
    }
    let listed = git(&top, &["ls-files", "-co", "--exclude-standard", "-z"]);
    let listed = listed
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let scan = scan_with(&top, &options()).unwrap();
    let scanned = scan.manifest.entries().iter();
    assert_eq!(
        scanned
            .map(|entry| entry.path.as_bytes())
            .collect::<BTreeSet<_>>(),
        listed.collect()
    );
}
