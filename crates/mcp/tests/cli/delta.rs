//! `patchwire delta` on files and pipes.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    process::{Command, Stdio},
};

use crate::{common::skipped, terminal::Terminal, user::User};

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
fn the_block_size_is_as_it_is_asked_for() {
    let (user, basis, target) = with_files();
    for (block_size, block_len) in [(64, 10), (100, 10), (2048, 12)] {
        user.run(&format!(
            "delta signature old sig --block-size {block_size}"
        ))
        .expect(0);
        let blocks = basis.len().div_ceil(block_size);
        assert_eq!(user.read("sig").len(), 24 + blocks * block_len);
        user.run("delta diff sig new delta").expect(0);
        user.run("delta patch old delta out").expect(0);
        assert_eq!(user.read("out"), target);
    }
    let line = "delta signature old sig --block-size 100 --format librsync";
    user.run(line).expect(0);
    assert_eq!(user.read("sig")[4..8], 100_u32.to_be_bytes());
    assert_eq!(user.read("sig").len(), 12 + basis.len().div_ceil(100) * 20);

    user.write("sig", "as it was");
    for (options, allowed) in [
        ("--block-size 63", "64..=1048576"),
        ("--block-size 1048577", "64..=1048576"),
        ("--block-size 0 --format librsync", "1..=1048576"),
        ("--block-size 1048577 --format librsync", "1..=1048576"),
    ] {
        let line = format!("delta signature old sig {options}");
        let refused = user.run(&line).expect(2).stderr;
        assert!(refused.contains("--block-size: "), "{refused}");
        assert!(refused.contains(allowed), "{refused}");
    }
    assert_eq!(user.read("sig"), b"as it was");
}

#[test]
fn threads_make_the_same_target() {
    let (user, ..) = with_files();
    // Several parts for the threads, with a change in each.
    let numbers = (0..3_000_000_u32).map(|n| n.wrapping_mul(0x9e37_79b9).rotate_left(n % 32));
    let basis: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
    let mut target = basis.clone();
    for at in [9_000_000, 100_000] {
        target.splice(at..at, *b"an insertion");
    }
    user.write("old", &basis);
    user.write("new", &target);
    user.run("delta signature old sig --threads 3").expect(0);
    user.run("delta signature old sig.1").expect(0);
    assert_eq!(user.read("sig").len(), user.read("sig.1").len());
    user.run("delta diff sig new delta --threads 2").expect(0);
    assert!(user.read("delta").len() < target.len() / 100);
    user.run("delta patch old delta out").expect(0);
    assert!(user.read("out") == target);

    // A target that isn't a file is not held in memory, whatever the number of threads.
    let delta = user.run_with("delta diff sig - - --threads 2", &target);
    user.write("delta", delta.expect(0).stdout);
    user.run("delta patch old delta out").expect(0);
    assert!(user.read("out") == target);

    for threads in ["0", "65", "many"] {
        let line = format!("delta diff sig new delta --threads {threads}");
        user.run(&line).expect(2);
    }
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
    if let Err(error) = rdiff("-H md4 -R rollsum signature old rdiff.sig") {
        return skipped(&format!("rdiff can't be run: {error}"));
    }
    let delta = |line: &str| user.run(&format!("delta {line} --format librsync"));
    delta("diff rdiff.sig new our.delta").expect(0);
    rdiff("patch old our.delta out.1").unwrap();
    delta("signature old our.sig").expect(0);
    rdiff("delta our.sig new rdiff.delta").unwrap();
    delta("patch old rdiff.delta out.2").expect(0);
    assert_eq!(user.read("out.1"), target);
    assert_eq!(user.read("out.2"), target);

    // The same block size as rdiff gives the same signature.
    rdiff("-H md4 -R rollsum -b 777 signature old rdiff.777").unwrap();
    delta("signature old our.777 --block-size 777").expect(0);
    assert_eq!(user.read("our.777"), user.read("rdiff.777"));

    // What rdiff makes unless it is told otherwise is refused with the way to do it.
    rdiff("signature old usual.sig").unwrap();
    let refused = delta("diff usual.sig new out").expect(1).stderr;
    assert!(refused.contains("“usual.sig”"), "{refused}");
    let advice = "`rdiff -H md4 -R rollsum signature`";
    assert!(refused.contains(advice), "{refused}");
    rdiff("delta usual.sig new usual.delta").unwrap();
    delta("patch old usual.delta out.3").expect(0);
    assert_eq!(user.read("out.3"), target);
}

#[test]
fn what_can_not_be_used_is_said_with_what_to_do() {
    let (user, basis, _) = with_files();
    let run = |line: &str| user.run(&format!("delta {line}"));
    run("signature old sig").expect(0);
    run("diff sig new delta").expect(0);
    run("signature old r.sig --format librsync").expect(0);
    run("diff r.sig new r.delta --format librsync").expect(0);
    let delta = user.read("delta");
    user.write("cut", &delta[..delta.len() - 1]);
    user.write("long", [&delta[..], b"x"].concat());
    let mut changed = delta.clone();
    // Of the digest.
    changed[delta.len() - 5] ^= 1;
    user.write("changed", changed);
    let mut version = delta.clone();
    version[3] = 1;
    user.write("version", version);
    user.write("other", [&basis[1..], b"x"].concat());
    user.write("shorter", &basis[..basis.len() / 2]);
    user.write("r.cut", &user.read("r.delta")[..20]);

    for (line, said) in [
        ("patch other delta", "not for “other” as it is now: make a"),
        ("patch shorter delta", "make a new signature of that, and"),
        (
            "patch old changed",
            "fetch it again, or make a new signature",
        ),
        ("patch old cut", "“cut” is damaged or not whole (the input"),
        ("patch old long", "goes on after its end: fetch it again"),
        (
            "patch old version",
            "another version of patchwire (version 1",
        ),
        ("patch old sig", "“sig” is a signature and not a delta"),
        ("patch old new", "“new” is not a delta"),
        ("patch old r.delta", "is of rdiff: give --format librsync"),
        ("diff r.sig new", "is of rdiff: give --format librsync"),
        ("diff delta new", "“delta” is a delta and not a signature"),
        ("diff cut new", "“cut” is a delta and not a signature"),
        (
            "diff sig new --format librsync",
            "is of patchwire's own format: leave --format librsync away",
        ),
        (
            "patch old delta --format librsync",
            "is of patchwire's own format: leave --format librsync away",
        ),
        (
            "diff r.delta new --format librsync",
            "“r.delta” is a delta and not a signature",
        ),
        (
            "patch old r.sig --format librsync",
            "“r.sig” is a signature and not a delta",
        ),
        (
            "patch shorter r.delta --format librsync",
            "not for “shorter” as it is now: make a",
        ),
        (
            "patch old r.cut --format librsync",
            "“r.cut” is damaged or not whole (the input",
        ),
        (
            "patch old new --format librsync",
            "“new” is not of rdiff (the input",
        ),
    ] {
        let failed = run(&format!("{line} out")).expect(1).stderr;
        assert!(failed.contains(said), "{line}: {failed}");
    }
}

#[test]
fn a_terminal_shows_how_far_each_is() {
    let (user, _, target) = with_files();
    let shown = |line: &str| {
        let mut command = user.command(line);
        command.env("TERM", "xterm");
        Terminal::new(&command).end(0)
    };
    for (line, expected) in [
        ("signature old sig", " of 234.38 KiB"),
        ("diff sig new delta", " of 234.38 KiB"),
        ("diff sig new delta --threads 2", "searching"),
        ("patch old delta out", " KiB"),
        ("signature old sig --format librsync", "hashing"),
        ("diff sig new delta --format librsync", "searching"),
        ("patch old delta out --format librsync", "patching"),
    ] {
        let line = format!("delta {line}");
        let text = shown(&line);
        assert!(text.contains(expected), "{line}: {text:?}");
        assert_eq!(shown(&format!("{line} --quiet")), "", "{line}");
    }
    assert_eq!(user.read("out"), target);
}

#[test]
fn a_reader_that_goes_away_is_told_of() {
    let (user, ..) = with_files();
    user.run("delta signature old sig").expect(0);
    user.run("delta diff sig new delta").expect(0);
    let mut child = user
        .command("delta patch old delta -")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("is not whole"), "{said}");
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
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
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
