//! librsync's own `rdiff` reads what we write, and the reverse.

use std::{
    env, fs,
    io::{self, Write},
    path::PathBuf,
    process::Command,
};

use patchwire_delta::librsync;

use crate::inputs::noise;

struct Files {
    dir: tempfile::TempDir,
    basis: Vec<u8>,
    target: Vec<u8>,
}

impl Files {
    fn new() -> Self {
        let basis = noise(300_001, 1);
        let mut target = basis.clone();
        target[1234] ^= 1;
        target.splice(100_000..100_010, noise(5000, 2));
        target.rotate_left(200_000);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("basis"), &basis).unwrap();
        fs::write(dir.path().join("target"), &target).unwrap();
        Self { dir, basis, target }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs rdiff in the directory; the last of `args` is the file it writes, which is returned.
    fn rdiff(&self, args: &[&str]) -> Vec<u8> {
        let status = Command::new("rdiff")
            .args(args)
            .current_dir(self.dir.path())
            .status()
            .unwrap();
        assert!(status.success(), "rdiff {args:?}");
        fs::read(self.path(args.last().unwrap())).unwrap()
    }
}

/// Whether rdiff is there; where `CI` is set, it has to be.
fn rdiff_is_there() -> bool {
    match Command::new("rdiff").arg("--version").output() {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why = "rdiff is not installed (Debian: apt-get install rdiff)";
            // Not by `eprintln!`: nobody sees what a test that passes prints.
            let _ = writeln!(io::stderr(), "SKIPPED: {why}");
            let is_allowed = env::var_os("CI").is_none();
            assert!(is_allowed, "nothing is skipped under CI: {why}");
            false
        }
        Err(error) => panic!("can't run rdiff: {error}"),
    }
}

#[test]
fn rdiff_reads_what_we_write() {
    if !rdiff_is_there() {
        return;
    }
    let files = Files::new();
    let signature = librsync::signature(&files.basis, 1024).unwrap();
    fs::write(files.path("signature"), &signature).unwrap();
    let theirs = files.rdiff(&["delta", "signature", "target", "delta"]);
    assert!(
        theirs.len() < 20_000,
        "rdiff found the blocks of our signature"
    );
    let patched = librsync::patch(&files.basis, &theirs, files.target.len()).unwrap();
    assert_eq!(patched, files.target);

    let ours = librsync::diff(&signature, &files.target).unwrap();
    assert!(ours.len() < 20_000);
    fs::write(files.path("our-delta"), &ours).unwrap();
    assert_eq!(
        files.rdiff(&["patch", "basis", "our-delta", "output"]),
        files.target
    );
}

#[test]
fn we_read_what_rdiff_writes() {
    if !rdiff_is_there() {
        return;
    }
    let files = Files::new();
    for sum_size in ["8", "16"] {
        let args = [
            "-f", "-H", "md4", "-R", "rollsum", "-b", "512", "-S", sum_size,
        ];
        let signature = files.rdiff(&[&args[..], &["signature", "basis", "signature"]].concat());
        let ours = librsync::diff(&signature, &files.target).unwrap();
        assert!(
            ours.len() < 20_000,
            "we found the blocks of rdiff's signature"
        );
        let name = format!("delta-{sum_size}");
        fs::write(files.path(&name), &ours).unwrap();
        let output = format!("output-{sum_size}");
        assert_eq!(
            files.rdiff(&["patch", "basis", &name, &output]),
            files.target
        );
    }
}

#[test]
fn the_default_signature_of_rdiff_is_named() {
    if !rdiff_is_there() {
        return;
    }
    let files = Files::new();
    let signature = files.rdiff(&["signature", "basis", "signature"]);
    let error = librsync::diff(&signature, &files.target).unwrap_err();
    assert_eq!(
        error,
        librsync::LibrsyncError::UnsupportedHash { magic: 0x7273_0147 }
    );
}
