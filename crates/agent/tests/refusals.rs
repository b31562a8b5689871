//! What the program says when it can't begin.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use patchwire_agent::guard;
use patchwire_transport::{DeploymentLink, Pin, RelayKey, RelayLink};
use rustix::process::{Pid, Signal, kill_process};

/// The agent's program, to run in a directory that has an `app` and a link to a relay that isn't
/// there.
fn agent(directory: &Path, arguments: &str) -> Command {
    let relay = RelayLink::new(
        "127.0.0.1:9".parse().expect("an address"),
        Pin::new([1; 32]),
        RelayKey::new([2; 32]),
    );
    let name = |name: &str| name.parse().expect("a name");
    let link =
        DeploymentLink::mint(&relay, name("shop"), name("dev")).expect("there is randomness");
    fs::write(directory.join("link"), link.expose().as_bytes()).expect("it is ours");
    fs::create_dir_all(directory.join("app")).expect("it is ours");
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchwire-agent"));
    command
        .args(arguments.split(' '))
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::null());
    command
}

#[test]
fn what_is_in_the_way_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for (arguments, exit_code, said) in [
        ("run --root app -- true", 2, "`patchwire link --agent`"),
        ("run --link @none --root app -- true", 2, "“none”"),
        (
            "run --link @link --root none -- true",
            2,
            "make that directory",
        ),
        (
            "run --link @link --root file -- true",
            2,
            "make that directory",
        ),
        (
            "run --link @link --root app --state file/x -- true",
            1,
            "another with --state",
        ),
        (
            "run --link @link --root app --state app/x -- true",
            1,
            "choose one outside",
        ),
    ] {
        let output = agent(dir.path(), arguments).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit_code), "{arguments}: {log}");
        assert!(log.contains(said), "{arguments}: {log}");
    }
}

#[tokio::test]
async fn who_waits_for_another_agent_says_so_and_can_be_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = agent(dir.path(), "run --link @link --root app -- true");
    let state = dir.path().join("app/.patchwire");
    fs::create_dir(&state).unwrap();
    let lock = guard::wait_for_previous(&state, std::time::Duration::ZERO).await;
    let _lock = lock.unwrap();

    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = log.next().unwrap().unwrap();
    assert!(said.contains("waiting for it to end"), "{said}");
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    // It ends for the signal: what it waits for is still there.
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
