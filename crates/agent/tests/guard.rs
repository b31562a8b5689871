//! The guard as a real process: the agent's binary, as the agent starts it.

use std::{path::Path, process::Stdio, time::Duration};

use patchwire_agent::{
    app::{App, AppConfig, OnExit},
    guard::{self, Guard, LockError},
    process::{Group, Launch},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

const LONG: Duration = Duration::from_secs(600);
const GRACE: Duration = Duration::from_millis(100);

async fn start_guard(state: &Path) -> Guard {
    let lock = guard::wait_for_previous(state, LONG)
        .await
        .expect("the lock is free");
    let program = Path::new(env!("CARGO_BIN_EXE_patchwire-agent"));
    Guard::start(program, &["guard"], lock).expect("the guard starts")
}

/// A group of two that is up and ignores TERM. (tail ends when nobody reads its output, so it
/// gets one that stays.)
async fn stubborn() -> (Child, Group) {
    let mut child = Command::new("/bin/sh")
        .args(["-c", "trap '' TERM; tail -f /dev/null >&2 & echo up; wait"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("a shell");
    let group = child.id().and_then(Group::from_id).expect("it has an id");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert_eq!(
        lines.next_line().await.expect("a line").as_deref(),
        Some("up")
    );
    (child, group)
}

#[tokio::test]
async fn the_group_dies_with_the_agent_and_the_next_agent_waits_for_that() {
    let state = tempfile::tempdir().unwrap();
    let guard = start_guard(state.path()).await;
    let (mut child, group) = stubborn().await;
    guard.watch(group, GRACE).unwrap();
    let held = guard::wait_for_previous(state.path(), Duration::ZERO).await;
    assert!(matches!(held, Err(LockError::Held { .. })), "{held:?}");

    drop(guard);
    let lock = guard::wait_for_previous(state.path(), LONG).await.unwrap();
    assert_eq!(group.alive().unwrap(), [0u32; 0]);
    assert_eq!(
        child.wait().await.unwrap().to_string(),
        "signal: 9 (SIGKILL)"
    );
    drop(lock);
}

#[tokio::test]
async fn a_paused_group_is_woken_to_end() {
    let state = tempfile::tempdir().unwrap();
    let guard = start_guard(state.path()).await;
    let path = ("PATH".into(), std::env::var_os("PATH").unwrap());
    let sleeper = Launch::shell("exec tail -f /dev/null", Path::new("/"), &[path]);
    let mut process = sleeper.spawn().unwrap();
    let group = process.group();
    group.signal(rustix::process::Signal::STOP).unwrap();
    group.stopped(LONG).await.unwrap();
    guard.watch(group, LONG).unwrap();
    drop(guard);
    process.gone(&mut |_, _| {}).await;
    assert_eq!(process.exit().unwrap().to_string(), "killed by SIGTERM");
}

#[tokio::test]
async fn a_released_group_is_left_alone() {
    let state = tempfile::tempdir().unwrap();
    let guard = start_guard(state.path()).await;
    let (mut child, group) = stubborn().await;
    guard.watch(group, GRACE).unwrap();
    guard.release().unwrap();
    drop(guard);
    guard::wait_for_previous(state.path(), LONG).await.unwrap();
    assert_eq!(group.alive().unwrap().len(), 2);
    group.signal(rustix::process::Signal::KILL).unwrap();
    child.wait().await.unwrap();
    group.gone().await;
}

#[tokio::test]
async fn an_app_that_was_shut_down_frees_the_lock() {
    let state = tempfile::tempdir().unwrap();
    let app = App::spawn(AppConfig {
        command: ["tail", "-f", "/dev/null"].map(Into::into).into(),
        root: "/".into(),
        env: std::env::vars_os().collect(),
        grace: LONG,
        guard: Some(start_guard(state.path()).await),
        pass_output: true,
    });
    let pid = app.start(None, [], OnExit::Restart).await.unwrap();
    let held = guard::wait_for_previous(state.path(), Duration::ZERO).await;
    assert!(matches!(held, Err(LockError::Held { .. })), "{held:?}");
    app.shutdown().await.unwrap();
    guard::wait_for_previous(state.path(), LONG).await.unwrap();
    assert_eq!(Group::from_id(pid).unwrap().alive().unwrap(), [0u32; 0]);
}
