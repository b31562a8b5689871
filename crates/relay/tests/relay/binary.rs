//! The program itself.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use patchwire_transport::{Disconnected, RelayLink};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{agent, developer, greet, mint, open, write_file};

fn relay(state: &Path, listen: &str, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_patchwire-relay"))
        .args(["--listen", listen, "--state"])
        .arg(state)
        .args(more)
        .env_remove("PATCHWIRE_ADVERTISE")
        .env_remove("PATCHWIRE_LINK_FILE")
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// The one line that the relay prints, once it listens.
fn printed(child: &mut Child) -> String {
    let stdout = child.stdout.as_mut().expect("it is piped");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    line
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a pid");
    kill_process(Pid::from_raw(pid).expect("not 0"), signal).expect("it runs");
}

#[tokio::test]
async fn it_prints_its_link_writes_it_and_ends_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.link");
    for end in [Signal::TERM, Signal::INT] {
        let mut child = relay(
            &dir.path().join("state"),
            "127.0.0.1:0",
            &["--link-file", file.to_str().unwrap()],
        );
        let line = printed(&mut child);
        assert_eq!(fs::read_to_string(&file).unwrap(), line);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let link: RelayLink = line.trim_end().parse().unwrap();
        assert_ne!(link.address().port(), 0);
        let ana = developer(&mint(&link, "shop")).await;
        signal(&child, end);
        assert_eq!(ana.closed().await, Disconnected::Draining);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout.is_empty(), "more than the link was printed");
        let log = String::from_utf8(output.stderr).unwrap();
        let secret = data_part(&line);
        assert!(!log.contains(secret), "{log}");
    }
}

/// The relay key, as it stands in the link.
fn data_part(link: &str) -> &str {
    link.split('.').rev().nth(1).expect("a link has parts")
}

#[tokio::test]
async fn peers_notice_that_it_was_killed_and_find_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = relay(dir.path(), "127.0.0.1:0", &[]);
    let line = printed(&mut child);
    let link: RelayLink = line.trim_end().parse().unwrap();
    let shop = mint(&link, "shop");
    let (ana, web) = (developer(&shop).await, agent(&shop, "web").await);
    signal(&child, Signal::KILL);
    child.wait().unwrap();

    // The advertised address is the one listened on.
    let mut child = relay(dir.path(), &link.address().to_string(), &[]);
    assert_eq!(printed(&mut child), line);
    // By a stateless reset, which needs the keys that were kept.
    for peer in [&ana, &web] {
        assert_eq!(
            peer.closed().await,
            Disconnected::Lost(quinn::ConnectionError::Reset)
        );
    }
    let (ana, web) = (developer(&shop).await, agent(&shop, "web").await);
    let (mut left, mut right) = open(&ana, &web).await;
    greet(&mut left, &mut right).await;
    signal(&child, Signal::KILL);
    child.wait().unwrap();
}

#[test]
fn it_overwrites_no_file_but_a_relay_link() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("deployment.link");
    write_file(&file, b"patchwire://relay.example:4433/shop/dev#v1.secret");
    let child = relay(
        &dir.path().join("state"),
        "127.0.0.1:0",
        &["--link-file", file.to_str().unwrap()],
    );
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("deployment.link"), "{log}");
    assert!(fs::read(&file).unwrap().ends_with(b"secret"));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = relay(dir.path(), &address, &[]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains(&address), "{log}");
    assert!(log.contains("another port with --listen"), "{log}");
    assert!(output.stdout.is_empty());
}

#[test]
fn what_is_in_the_way_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    write_file(&file, b"");
    for (state, listen, exit_code, said) in [
        // An address of documents, which no machine has.
        (
            dir.path(),
            "203.0.113.9:4433",
            1,
            "no address of this machine",
        ),
        (
            &*file.join("state"),
            "127.0.0.1:0",
            1,
            "choose another directory with --state",
        ),
        (dir.path(), "4433", 2, "like 0.0.0.0:4433"),
    ] {
        let output = relay(state, listen, &[]).wait_with_output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit_code), "{log}");
        assert!(log.contains(said), "{log}");
    }
}

#[test]
fn wrong_usage_is_exit_2() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = relay(dir.path(), "nowhere", &[]);
    assert_eq!(child.wait().unwrap().code(), Some(2));
    let mut log = String::new();
    child.stderr.unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("--listen"), "{log}");
}
