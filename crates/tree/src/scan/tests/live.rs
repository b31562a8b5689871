//! A live tree that is told what happened finds what a whole scan does.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::testing::{Random, scratch};

const DIRECTORIES: [&str; 8] = ["", "a", "a/b", "a/b/c", "a-b", "d", "ignored", "d/e.log"];
const FILES: [&str; 6] = ["x", "y.log", "Y.LOG", "keep.log", "z", ".patchwireignore"];

/// A new directory at `path`.
fn made(path: &Path) -> &Path {
    fs::create_dir(path).unwrap();
    path
}

/// A tree that is changed, and what would be heard of it.
struct Changing {
    root: PathBuf,
    random: Random,
    heard: BTreeSet<PathBuf>,
    /// Makes every file of rules as long as no other.
    written: usize,
}

impl Changing {
    fn any(&mut self) -> (PathBuf, PathBuf) {
        let directory = PathBuf::from(*self.random.choose(&DIRECTORIES));
        let path = directory.join(self.random.choose(&FILES));
        (directory, path)
    }

    fn hear(&mut self, path: &Path) {
        self.heard
            .insert(path.parent().unwrap_or(Path::new("")).to_owned());
    }

    /// Does one thing, if that can be done just now.
    fn change(&mut self) {
        let (directory, path) = self.any();
        let (_, other) = self.any();
        let (at, to) = (self.root.join(&path), self.root.join(&other));
        self.written += 1;
        let content = format!("{}{}", "#".repeat(self.written), self.random.below(9));
        let done = match self.random.below(12) {
            0..=3 => {
                let rules = at.ends_with(".patchwireignore");
                let content = match rules {
                    true => format!("#{content}\n{}\n", self.random.choose(&["z", "c/", "#"])),
                    false => content,
                };
                fs::write(at, content).is_ok()
            }
            4 => fs::remove_file(at).is_ok(),
            5 => fs::create_dir_all(self.root.join(&directory)).is_ok_and(|()| {
                // Each that was made is heard of in the one before, which may not be known yet.
                for made in directory.ancestors() {
                    self.hear(made);
                }
                true
            }),
            6 if !directory.as_os_str().is_empty() => {
                let gone = fs::remove_dir_all(self.root.join(&directory)).is_ok();
                self.hear(&directory);
                gone
            }
            7 => symlink("x", at).is_ok(),
            8 => {
                let mode = 0o600 | u32::try_from(self.random.below(0o200)).unwrap();
                fs::set_permissions(at, fs::Permissions::from_mode(mode)).is_ok()
            }
            9 => {
                self.hear(&other);
                fs::rename(at, to).is_ok()
            }
            10 => {
                // What is written by one name shows by the other, where nothing is heard.
                self.hear(&other);
                fs::hard_link(at, to).is_ok()
            }
            11 if !directory.as_os_str().is_empty() => {
                let (from, name) = (self.root.join(&directory), self.random.choose(&DIRECTORIES));
                let to = PathBuf::from(name);
                let renamed = !name.is_empty() && fs::rename(from, self.root.join(&to)).is_ok();
                self.hear(&directory);
                self.hear(&to);
                renamed
            }
            _ => false,
        };
        if done {
            self.hear(&path);
        }
    }
}

#[test]
fn what_is_heard_is_as_good_as_a_whole_scan() {
    let mut updated = 0;
    for seed in 0..8 {
        let temporary = scratch();
        let root = temporary.path().join("root");
        Tree::new(&[".gitignore = ignored/\n*.log\n!keep.log\n", "a/", "a/x = x"])
            .write(made(&root));
        let mut changing = Changing {
            root: root.clone(),
            random: Random::new(seed),
            heard: BTreeSet::new(),
            written: 0,
        };
        let mut cache = StatCache::default();
        let mut live = LiveTree::new(&root, &options());
        for round in 0..150 {
            for _ in 0..changing.random.below(4) {
                changing.change();
            }
            let lost = changing.random.below(20) == 0;
            let heard = std::mem::take(&mut changing.heard);
            let before = live.warm.as_ref().map(|warm| warm.started);
            let scan = live.scan(&mut cache, (!lost).then_some(&heard), &|_| ());
            let scan = scan.unwrap();
            if let Some(warm) = &mut live.warm {
                updated += usize::from(before == Some(warm.started));
                // As if all that was found had been there for long.
                warm.started = Time::now().plus_seconds(10);
                warm.rules.put_forward();
            }
            let fresh = scan_with(&root, &options()).unwrap();
            let which = format!("seed {seed}, round {round}, {heard:?}");
            assert_eq!(scan.manifest, fresh.manifest, "{which}");
            assert_eq!(scan.ignored, fresh.ignored, "{which}");
            assert_eq!(scan.directories, fresh.directories, "{which}");
            assert_eq!(scan.collisions, fresh.collisions, "{which}");
        }
    }
    assert!(updated > 400, "{updated} of 1200 rounds");
}

#[test]
fn a_change_of_the_rules_is_found_wherever_it_is() {
    if Command::new("git").arg("--version").output().is_err() {
        return skipped("git is missing");
    }
    let temporary = scratch();
    let top = temporary.path().join("repository");
    Tree::new(&[
        "sub/",
        "sub/a/",
        "sub/a/x.log = x",
        "sub/a/y = y",
        "sub/z.tmp = z",
    ])
    .write(made(&top));
    git(&top, &["init", "-q"]);
    let excludes = temporary.path().join("excludes");
    let options = ScanOptions {
        excludes_file: Some(excludes.clone()),
        ..options()
    };
    let root = top.join("sub");
    let mut live = LiveTree::new(&root, &options);
    let mut cache = StatCache::default();
    let mut names = |updated: bool| -> Vec<String> {
        let before = live.warm.as_ref().map(|warm| warm.started);
        let scan = live.scan(&mut cache, Some(&BTreeSet::new()), &|_| ());
        let warm = live.warm.as_mut().unwrap();
        assert_eq!(before == Some(warm.started), updated);
        warm.started = Time::now().plus_seconds(10);
        warm.rules.put_forward();
        let entries = scan.unwrap().manifest.entries().to_vec();
        entries.iter().map(|entry| entry.path.to_string()).collect()
    };
    let all = ["a", "a/x.log", "a/y", "z.tmp"];
    assert_eq!(names(false), all);
    assert_eq!(names(true), all);
    fs::write(top.join(".gitignore"), "*.log\n").unwrap();
    assert_eq!(names(false), ["a", "a/y", "z.tmp"]);
    fs::write(&excludes, "*.tmp\n").unwrap();
    assert_eq!(names(false), ["a", "a/y"]);
    fs::write(top.join(".git/info/exclude"), "y\n").unwrap();
    assert_eq!(names(false), Vec::<String>::new());
    git(&top, &["add", "-f", "sub/a/x.log"]);
    assert_eq!(names(false), ["a", "a/x.log"]);
    git(&top, &["update-index", "--force-write-index"]);
    assert_eq!(names(true), ["a", "a/x.log"], "the index names the same");
    fs::rename(top.join(".git"), top.join("git")).unwrap();
    fs::remove_file(&excludes).unwrap();
    assert_eq!(names(false), all);
    // Another directory in its place.
    fs::rename(&root, top.join("before")).unwrap();
    Tree::new(&["new = n"]).write(made(&root));
    assert_eq!(names(false), ["new"]);
    assert_eq!(names(true), ["new"]);
}

#[test]
fn a_file_with_another_name_is_always_looked_at() {
    let temporary = scratch();
    let root = temporary.path().join("root");
    Tree::new(&["a/", "a/x = before", "b = b"]).write(made(&root));
    fs::hard_link(root.join("a/x"), temporary.path().join("outside")).unwrap();
    assert_eq!(fs::metadata(root.join("a/x")).unwrap().nlink(), 2);
    let mut live = LiveTree::new(&root, &options());
    let mut cache = StatCache::default();
    live.scan(&mut cache, None, &|_| ()).unwrap();
    let started = live.warm.as_ref().unwrap().started;
    fs::write(temporary.path().join("outside"), "after").unwrap();
    let scan = live.scan(&mut cache, Some(&BTreeSet::new()), &|_| ());
    assert_eq!(live.warm.as_ref().unwrap().started, started);
    assert_eq!(
        scan.unwrap().manifest,
        scan_with(&root, &options()).unwrap().manifest
    );
}

#[test]
fn a_file_that_gets_another_name_is_looked_at_from_then_on() {
    let temporary = scratch();
    let root = temporary.path().join("root");
    Tree::new(&["a/", "a/x = before", "b/", "b/y = b"]).write(made(&root));
    let mut live = LiveTree::new(&root, &options());
    let mut cache = StatCache::default();
    live.scan(&mut cache, None, &|_| ()).unwrap();
    for (linked, place) in [("b/z", "b"), ("c/z", "")] {
        fs::create_dir_all(root.join(linked).parent().unwrap()).unwrap();
        fs::hard_link(root.join("a/x"), root.join(linked)).unwrap();
        for changed in [BTreeSet::from([place.into()]), BTreeSet::new()] {
            fs::write(root.join(linked), format!("by {linked}, {changed:?}")).unwrap();
            let scan = live.scan(&mut cache, Some(&changed), &|_| ());
            assert_eq!(
                scan.unwrap().manifest,
                scan_with(&root, &options()).unwrap().manifest
            );
        }
        fs::remove_file(root.join(linked)).unwrap();
        live.scan(&mut cache, None, &|_| ()).unwrap();
    }
}
