//! `patchwire demo`: what it shows, and that it leaves nothing behind.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::user::User;

/// Tells whether the demo's app can be run; without it there is nothing to test, except in CI.
fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "python3 is missing");
        eprintln!("SKIPPED: python3 can't be run");
    }
    found
}

/// The processes that work inside the user's temporary directory, as far as they can be seen.
fn processes(user: &User) -> Vec<String> {
    let temporary = user.temporary();
    let temporary = temporary.canonicalize().expect("it was made with the user");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let inside = processes.filter(|process| {
        let directory = fs::read_link(process.path().join("cwd"));
        directory.is_ok_and(|directory| directory.starts_with(&temporary))
    });
    inside
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}

#[track_caller]
fn assert_nothing_is_left(user: &User) {
    // The guard of an app sees it end after the agent has.
    while !processes(user).is_empty() {
        thread::yield_now();
    }
    let left: Vec<_> = fs::read_dir(user.temporary())
        .into_iter()
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The address of the app in what a demo said.
fn app_address(said: &str) -> &str {
    let (_, after) = said.split_once("http://").expect("it names the app's page");
    after.split('/').next().unwrap_or_default()
}

#[test]
fn a_demo_pushes_edits_and_rolls_back_and_leaves_nothing() {
    if !has_python() {
        return;
    }
    let user = User::new();
    let said = user.run("demo").expect(0).text();
    let mut rest = said.as_str();
    for expected in [
        "pushed 2 files",
        "serves: Hello from Patchwire (push ",
        "pushed 1 file (1 changed)",
        "serves: Hello again, a moment later (push ",
        "rolled back: ",
        "RuntimeError: this version can't start",
        "the previous tree is back",
        "still serves: Hello again, a moment later (push ",
        "have ended",
    ] {
        let (_, after) = rest.split_once(expected).expect(&said);
        rest = after;
    }
    assert!(TcpStream::connect(app_address(&said)).is_err());
    assert_nothing_is_left(&user);
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    if !has_python() {
        return;
    }
    let user = User::new();
    // At its beginning, while the app runs, and while an edit is pushed.
    for step in ["Starting", "1.", "http", "2."] {
        let mut demo = user.command("demo").stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(demo.stdout.take().unwrap());
        let mut line = String::new();
        while !line.trim_start().starts_with(step) {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0);
        }
        kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
        said.read_to_string(&mut line).unwrap();
        assert_eq!(demo.wait().unwrap().code(), Some(130), "{line}");
        assert_nothing_is_left(&user);
    }
}

#[test]
fn a_demo_that_is_kept_can_be_pushed_to() {
    if !has_python() {
        return;
    }
    let user = User::new();
    let said = user.run("demo --keep").expect(0).text();
    let line = |start: &str| {
        let found = said
            .lines()
            .find(|line| line.trim_start().starts_with(start));
        found.expect(&said).trim()
    };
    let kept = Kept {
        processes: line("kill ").split(' ').skip(1).map(pid).collect(),
    };
    assert_eq!(kept.processes.len(), 2);

    let push = line(env!("CARGO_BIN_EXE_patchwire"));
    let push = push.strip_prefix(env!("CARGO_BIN_EXE_patchwire")).unwrap();
    user.run(push).expect(0);
    let app = line("Edit ").strip_prefix("Edit ").unwrap();
    let app = app.strip_suffix(" and push it:").unwrap();
    let source = fs::read_to_string(app).unwrap();
    fs::write(app, source.replace("Hello again", "Edited")).unwrap();
    let report = user.run(&format!("{push} --json")).expect(0).json();
    assert_eq!(report["status"], "done");

    let mut page = TcpStream::connect(app_address(&said)).unwrap();
    page.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut served = String::new();
    page.read_to_string(&mut served).unwrap();
    assert!(served.contains("Edited, a moment later"), "{served}");
    assert!(
        served.contains(report["push_id"].as_str().unwrap()),
        "{served}"
    );

    drop(kept);
    fs::remove_dir_all(line("rm -r ").strip_prefix("rm -r ").unwrap()).unwrap();
    assert_nothing_is_left(&user);
}

#[test]
fn a_demo_without_python_says_so() {
    let refused = User::new().run_under("demo", &[("PATH", "")]).expect(2);
    assert!(refused.stderr.contains("python3"), "{}", refused.stderr);
    assert!(refused.stdout.is_empty());
}

/// Processes that go on running, until this is dropped.
struct Kept {
    processes: Vec<Pid>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        for process in &self.processes {
            // One that has ended already is just as good.
            let _ = kill_process(*process, Signal::TERM);
        }
        // They are nobody's children here, so that there is nothing to wait on.
        while self
            .processes
            .iter()
            .any(|process| test_kill_process(*process).is_ok() && !is_zombie(*process))
        {
            thread::yield_now();
        }
    }
}

/// Tells whether a process has ended and is not waited for, as where nobody adopts orphans.
fn is_zombie(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.is_ok_and(|stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|after| after.starts_with('Z'))
    })
}

fn pid(text: &str) -> Pid {
    let id = text.parse().expect("it names process ids");
    Pid::from_raw(id).expect("no process has the id 0")
}
