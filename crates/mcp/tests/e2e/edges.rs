//! What a push does with files that are not like others, or not like themselves a moment ago.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File, OpenOptions, Permissions},
    io::{Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use crate::{
    care::Small,
    world::{Pushed, assert_same_tree, at, noise},
};

#[test]
fn a_file_that_cant_be_read_stops_the_push_and_is_named() {
    let small = Small::start(&["file", "other"]);
    small.push(&[]).expect("done");
    let locked = small.source.join("a file\\");
    fs::write(&locked, "nobody's business\n").unwrap();
    fs::set_permissions(&locked, Permissions::from_mode(0o000)).unwrap();
    let mut push = small.world.patchwire();
    if File::open(&locked).is_ok() {
        // Root may read it: so the push is made without that right.
        let patchwire = push.get_program().to_owned();
        push = small.world.command("setpriv");
        push.args(["--bounding-set", "-dac_override,-dac_read_search"]);
        push.arg(patchwire);
    }
    push.args(["push", "--json", "--link"])
        .arg(at(&small.link.full));
    push.arg("--root").arg(&small.source);
    let refused = Pushed::of(&mut push).expect_error("scan", 1);
    assert!(refused.message().contains(r"“a file\\”"), "{refused:?}");
    assert!(!small.agent.root.join("a file\\").exists());

    fs::remove_file(locked).unwrap();
    small.push(&[]).expect("no-changes");
}

#[test]
fn fifos_and_sockets_are_left_out_and_named() {
    let small = Small::start(&["file"]);
    let [fifo, socket] = ["pipes/fifo", "socket"].map(|name| small.source.join(name));
    fs::create_dir(small.source.join("pipes")).unwrap();
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from(0o644), 0).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let pushed = small.push(&[]).expect("done");
    let warnings = pushed.json["warnings"].as_array().unwrap().iter();
    let warnings: BTreeSet<_> = warnings.map(|warning| warning.as_str().unwrap()).collect();
    let expected = ["pipes/fifo", "socket"]
        .map(|path| format!("{path} is neither file, directory nor link, and was left out"));
    assert!(warnings.into_iter().eq(&expected), "{pushed:#?}");
    drop(listener);
    for gone in [fifo, socket] {
        fs::remove_file(gone).unwrap();
    }
    // Now it is empty, and so part of the tree.
    small.push(&[]).expect("done");
    assert_same_tree(&small.source, &small.agent.root);
}

#[test]
fn names_that_would_speak_to_a_terminal_are_refused_and_shown_harmless() {
    let small = Small::start(&["file"]);
    small.push(&[]).expect("done");
    for (name, shown) in [
        (&b"two\nlines"[..], r"two\x0alines"),
        (b"red\x1b[31m", r"red\x1b[31m"),
        ("c1\u{9b}".as_bytes(), r"c1\xc2\x9b"),
        (b"lone\x9b", r"lone\x9b"),
    ] {
        let directory = small.source.join("pkg");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(OsStr::from_bytes(name)), "").unwrap();
        let refused = small.push(&[]).expect_error("scan", 1);
        let shown = format!("“pkg/{shown}”");
        assert!(refused.message().contains(&shown), "{refused:#?}");
        fs::remove_dir_all(directory).unwrap();
    }
    small.push(&[]).expect("no-changes");
}

#[test]
fn whatever_something_becomes_it_becomes_in_one_push() {
    let small = Small::start(&["stays"]);
    let kinds = ["file", "directory", "link"];
    let make = |name: &str, kind: &str| {
        let at = small.source.join(name);
        match kind {
            "file" => fs::write(at, name).unwrap(),
            "link" => symlink("stays", at).unwrap(),
            _ => {
                fs::create_dir_all(at.join("deep/empty")).unwrap();
                fs::write(at.join("deep/file"), name).unwrap();
            }
        }
    };
    let each = || {
        kinds
            .into_iter()
            .flat_map(|from| kinds.map(|to| (from, to)))
    };
    for (from, to) in each() {
        make(&format!("{from}-{to}"), from);
    }
    small.push(&[]).expect("done");
    assert_same_tree(&small.source, &small.agent.root);
    // What the app left in a directory is in the way of nothing.
    fs::write(small.agent.root.join("directory-file/deep/cache"), "").unwrap();

    for (from, to) in each().filter(|(from, to)| from != to) {
        let name = format!("{from}-{to}");
        let at = small.source.join(&name);
        match from {
            "directory" => fs::remove_dir_all(at).unwrap(),
            _ => fs::remove_file(at).unwrap(),
        }
        make(&name, to);
    }
    let pushed = small.push(&[]).expect("done");
    assert_same_tree(&small.source, &small.agent.root);
    let aside = "directory-file/deep/cache was not part of the tree and in the way: \
                 it was moved aside";
    assert_eq!(pushed.json["warnings"], json!([aside]));
}

#[test]
fn hard_links_become_files_of_their_own() {
    let small = Small::start(&["one"]);
    let [one, other] = ["one", "other"].map(|name| small.source.join(name));
    fs::hard_link(&one, other).unwrap();
    small.push(&[]).expect("done");
    assert_same_tree(&small.source, &small.agent.root);
    for name in ["one", "other"] {
        let there = fs::metadata(small.agent.root.join(name)).unwrap();
        assert_eq!(there.nlink(), 1, "{name}");
    }
    // Here they are one, and change together.
    fs::write(&one, "both changed\n").unwrap();
    let pushed = small.push(&[]).expect("done");
    assert_eq!(pushed.files(), [0, 2, 0, 0]);
    assert_same_tree(&small.source, &small.agent.root);
}

#[test]
fn a_sparse_file_costs_its_data_to_send() {
    const LEN: u64 = 1 << 30;
    let small = Small::start(&["file"]);
    let disk = File::create(small.source.join("disk.img")).unwrap();
    disk.set_len(LEN).unwrap();
    for (at, byte) in [(0, b"a"), (LEN / 2, b"b"), (LEN - 1, b"c")] {
        disk.write_all_at(byte, at).unwrap();
    }
    let first = small.push(&["--wait", "60s"]).expect("done");
    assert_eq!(first.json["bytes"]["tree"], LEN + 15);
    assert!(first.sent() < 256 << 10, "{first:#?}");
    let there = File::open(small.agent.root.join("disk.img")).unwrap();
    assert_eq!(there.metadata().unwrap().len(), LEN);
    for (at, expected) in [(0, b'a'), (1, 0), (LEN / 2, b'b'), (LEN - 1, b'c')] {
        let mut byte = [1];
        there.read_exact_at(&mut byte, at).unwrap();
        assert_eq!(byte, [expected], "at {at}");
    }
}

#[test]
fn a_directory_of_a_thousand_files_under_another_name_costs_its_names() {
    const MOST: u64 = 64 << 10;
    let small = Small::start(&["file"]);
    let directory = small.source.join("before/deeper");
    fs::create_dir_all(&directory).unwrap();
    for (number, content) in noise(1000 << 10).chunks(1 << 10).enumerate() {
        fs::write(directory.join(format!("file-{number}")), content).unwrap();
    }
    let first = small.push(&[]).expect("done");
    assert!(first.sent() > 1000 << 10, "{first:#?}");
    fs::rename(small.source.join("before"), small.source.join("after")).unwrap();
    let moved = small.push(&[]).expect("done");
    assert_eq!(moved.files(), [0, 0, 0, 1000]);
    assert!(moved.sent() < MOST, "{moved:#?}");
    assert_same_tree(&small.source, &small.agent.root);
}

/// What one write appends.
const RECORD: usize = 100;

#[test]
fn a_file_that_is_appended_to_all_the_time_never_arrives_torn() {
    let append = |file: &mut File, number: u64| {
        let record = format!("{number:>width$}\n", width = RECORD - 1);
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(record.as_bytes()).unwrap();
    };
    while_it_is_written_to(append, |content, last| {
        assert_eq!(content.len() % RECORD, 0);
        assert!(last.starts_with(content));
    });
}

#[test]
fn a_file_that_is_overwritten_all_the_time_never_arrives_torn() {
    let overwrite = |file: &mut File, number: u64| {
        let content = [number.to_le_bytes()[0]; 64 << 10];
        file.write_all_at(&content, 0).unwrap();
    };
    while_it_is_written_to(overwrite, |content, _| {
        assert!(content.iter().all(|byte| *byte == content[0]));
    });
}

/// Pushes while a file is written to, until several versions of it have arrived, and has each looked
/// at, beside the last that the writer had by then.
///
/// The writer pauses for longer after each push in vain: so it comes to be as fast as a push can just
/// take.
fn while_it_is_written_to(write: impl Fn(&mut File, u64) + Sync, look: impl Fn(&[u8], &[u8])) {
    const VERSIONS: usize = 4;
    const FIRST_PAUSE_US: u64 = 50;
    let small = Small::start(&["busy", "quiet"]);
    let (here, there) = (small.source.join("busy"), small.agent.root.join("busy"));
    let mut busy = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(&here)
        .unwrap();
    let (pause_us, stop) = (AtomicU64::new(FIRST_PAUSE_US), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                write(&mut busy, number);
                let pause = Duration::from_micros(pause_us.load(Ordering::Relaxed));
                thread::park_timeout(pause);
            }
        });
        let pushes = StopsAtEnd(&stop);
        let mut arrived = 0;
        while arrived < VERSIONS {
            let pushed = small.push(&[]);
            if let Some(code) = pushed.json["error"]["code"].as_str() {
                assert!(matches!(code, "scan" | "unsettled"), "{pushed:#?}");
                let said = "“busy” keeps changing";
                assert!(pushed.message().contains(said), "{pushed:#?}");
                pause_us.fetch_add(pause_us.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
                continue;
            }
            assert!(pushed.status.success(), "{pushed:#?}");
            look(&fs::read(&there).unwrap(), &fs::read(&here).unwrap());
            arrived += 1;
        }
        drop(pushes);
    });
    let last = small.push(&[]);
    assert!(last.status.success(), "{last:#?}");
    assert_same_tree(&small.source, &small.agent.root);
}

/// Ends a writer with the test, also with one that fails.
struct StopsAtEnd<'a>(&'a AtomicBool);

impl Drop for StopsAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
