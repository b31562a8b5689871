//! Runs every target over its committed corpus and over what mutations make of it.

use std::{
    collections::BTreeSet,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use patchwire_fuzz::{TARGETS, Target};

/// The most mutations of one seed: a longer seed is mutated at places spread over it.
const MUTATIONS: usize = 2048;

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn listed(directory: &Path) -> BTreeSet<PathBuf> {
    let entries = || {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    let paths: io::Result<BTreeSet<_>> = entries();
    paths.unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
}

fn run(target: Target, input: &[u8], what: &dyn Fn() -> String) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!(
            "{} of {} bytes: {}",
            what(),
            input.len(),
            input.escape_ascii()
        );
    }
}

/// Every prefix and every flipped bit, or as many of them as are allowed.
fn run_mutations(target: Target, seed: &[u8], name: &str) {
    let step = (seed.len() * 9).div_ceil(MUTATIONS).max(1);
    for len in (0..seed.len()).step_by(step) {
        run(target, &seed[..len], &|| format!("{name}, cut"));
    }
    let mut flipped = seed.to_vec();
    for bit in (0..seed.len() * 8).step_by(step) {
        flipped[bit / 8] ^= 1 << (bit % 8);
        run(target, &flipped, &|| format!("{name}, bit {bit} flipped"));
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
}

fn replay(targets: &[(&str, Target)]) {
    for (name, target) in targets {
        let seeds = listed(&directory("corpus").join(name));
        assert!(!seeds.is_empty(), "{name} has no corpus");
        for path in seeds {
            let shown = path.display().to_string();
            let seed = fs::read(&path).unwrap_or_else(|error| panic!("{shown}: {error}"));
            run(*target, &seed, &|| shown.clone());
            run_mutations(*target, &seed, &shown);
        }
    }
}

#[test]
fn every_corpus_and_its_mutations_keep_the_promises() {
    let (left, right) = TARGETS.split_at(TARGETS.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| replay(left));
        scope.spawn(|| replay(right));
    });
}

#[test]
fn every_target_has_a_binary_and_a_corpus_and_nothing_else_has() {
    let names = |directory: &Path| -> BTreeSet<String> {
        let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        listed(directory).iter().map(stem).collect()
    };
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&directory("fuzz_targets")), targets);
    assert_eq!(names(&directory("corpus")), targets);
    let manifest = fs::read_to_string(directory("Cargo.toml")).unwrap();
    for name in targets {
        let bin = format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"");
        assert!(
            manifest.contains(&bin),
            "{name} has no binary in Cargo.toml"
        );
    }
}
