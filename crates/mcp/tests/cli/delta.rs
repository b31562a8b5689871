//! `patchwire delta` on files and pipes.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    process::Command,
};

use crate::{common::skipped, user::User};

/// A user with a basis `old`, and a target `new` that is much like it.
fn with_files() -> (User, Vec<u8>, Vec<u8>) {
    let numbers = (0..60_000_u32).map(|n| n.wrapping_mul(0x9e37_79b9).rotate_left(n % 32));
    let basis: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
    let mut target = basis.clone();
    target.splice(100_000..100_003, *b"an insertion");
    let user = User::new();
    user.write("old", &basis);
    user.write("new", &target);
    (user, basis, target)
}

#[test]
fn a_patched_basis_is_the_target() {
    for format in ["patchwire", "librsync"] {
        let (user, _, target) = with_files();
        for line in [
            "signature old sig",
            "diff sig new delta",
            "patch old delta out",
        ] {
            let ran = user
                .run(&format!("delta {line} --format {format}"))
                .expect(0);
            assert_eq!((ran.text(), ran.stderr), (String::new(), String::new()));
        }
        assert_eq!(user.read("out"), target);
        assert!(user.read("delta").len() < target.len() / 20, "{format}");
        assert_eq!(user.names(), ["delta", "new", "old", "out", "sig"]);
    }
}

#[test]
fn every_file_may_be_a_standard_stream() {
    for format in ["patchwire", "librsync"] {
        let (user, basis, target) = with_files();
        let run = |line: &str, stdin: &[u8]| {
            let line = format!("delta --format {format} {line}");
            user.run_with(&line, stdin).expect(0).stdout
        };
        let signature = run("signature - -", &basis);
        let delta = run("diff - new -", &signature);
        assert!(delta.len() < target.len() / 5, "{format}");
        assert_eq!(run("patch old - -", &delta), target);

        user.write("sig", &signature);
        let delta = run("diff sig - -", &target);
        user.write("delta", &delta);
        assert_eq!(run("patch - delta -", &basis), target);
    }
}

#[test]
fn standard_input_is_one_file_at_most() {
    let user = User::new();
    for line in ["diff - - out", "patch - - out"] {
        user.run(&format!("delta {line}")).expect(2);
    }
    assert!(user.names().is_empty());
}

#[test]
fn what_rdiff_writes_is_understood_and_the_reverse() {
    let (user, _, target) = with_files();
    let rdiff = |arguments: &str| {
        let mut command = Command::new("rdiff");
        let status = command
            .args(arguments.split(' '))
            .current_dir(&user.project)
            .status();
        status.map(|status| assert!(status.success(), "rdiff {arguments}"))
    };
    if let Err(error) = rdiff("--hash=md4 --rollsum=rollsum signature old rdiff.sig") {
        return skipped(&format!("rdiff can't be run: {error}"));
    }
    let delta = |line: &str| {
        user.run(&format!("delta {line} --format librsync"))
            .expect(0)
    };
    delta("diff rdiff.sig new our.delta");
    rdiff("patch old our.delta out.1").unwrap();
    delta("signature old our.sig");
    rdiff("delta our.sig new rdiff.delta").unwrap();
    delta("patch old rdiff.delta out.2");
    assert_eq!(user.read("out.1"), target);
    assert_eq!(user.read("out.2"), target);
}

#[test]
fn a_patch_that_fails_leaves_everything_as_it_was() {
    let (user, mut wrong, _) = with_files();
    user.run("delta signature old sig").expect(0);
    user.run("delta diff sig new delta").expect(0);
    let delta = user.read("delta");
    user.write("cut", &delta[..delta.len() - 1]);
    user.write("long", [&delta[..], b"x"].concat());
    wrong[7] ^= 1;
    user.write("wrong", wrong);
    user.write("out", "as it was");
    let before = user.names();
    for files in [
        "old cut",
        "old long",
        "wrong delta",
        "old old",
        "old missing",
        "missing delta",
    ] {
        let failed = user.run(&format!("delta patch {files} out")).expect(1);
        assert!(
            failed.stderr.starts_with("patchwire: "),
            "{}",
            failed.stderr
        );
        assert_eq!(user.read("out"), b"as it was", "{files}");
        let piped = user.run(&format!("delta patch {files} -")).expect(1);
        assert!(piped.stdout.is_empty(), "{files}");
    }
    assert_eq!(user.names(), before);
}

#[test]
fn a_file_can_be_patched_in_its_place_and_keeps_its_mode() {
    let (user, _, target) = with_files();
    let old = user.project.join("old");
    fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
    user.run("delta signature old sig").expect(0);
    user.run("delta diff sig new delta").expect(0);
    user.run("delta patch old delta old").expect(0);
    assert_eq!(user.read("old"), target);
    assert_eq!(fs::metadata(&old).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn a_link_is_written_through_and_what_is_no_file_is_written_to() {
    let (user, ..) = with_files();
    symlink("real", user.project.join("link")).unwrap();
    user.write("real", "");
    user.run("delta signature old link").expect(0);
    assert!(user.project.join("link").is_symlink());
    assert!(!user.read("real").is_empty());

    let status = Command::new("mkfifo")
        .arg("fifo")
        .current_dir(&user.project)
        .status();
    assert!(status.unwrap().success());
    let fifo = user.project.join("fifo");
    let reader = std::thread::spawn(move || fs::read(fifo).unwrap());
    user.run("delta signature old fifo").expect(0);
    assert!(!reader.join().unwrap().is_empty());
}

#[test]
fn an_output_that_can_not_be_made_is_named() {
    let (user, ..) = with_files();
    let failed = user.run("delta signature old missing/sig").expect(1);
    assert!(failed.stderr.contains("missing/sig"), "{}", failed.stderr);
}

#[test]
fn an_interrupted_command_leaves_nothing_behind() {
    let (user, ..) = with_files();
    let before = user.names();
    let mut command = user.command("delta signature - sig");
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // Its output is there once it waits for the rest of its input; then it is interrupted.
    while user.names() == before {
        std::thread::yield_now();
    }
    let id = rustix::process::Pid::from_child(&child);
    loop {
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        if let Some(status) = child.try_wait().unwrap() {
            assert!(!status.success());
            break;
        }
        std::thread::yield_now();
    }
    drop(child.stdin.take());
    assert_eq!(user.names(), before);
}
