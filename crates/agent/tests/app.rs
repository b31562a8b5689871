//! Real apps, run as the agent runs them.
//!
//! In the scripts it is the last process of the group that says it is up: TERM passes a child by
//! that its shell forks when it has that signal already.

use std::{ffi::OsString, path::Path, time::Duration};

use patchwire_agent::{
    app::{App, AppConfig, AppError, GRACE, OnExit},
    process::Group,
    ready::{Evidence, NotReady},
};
use patchwire_protocol::app::{Exit, ReadyCheck, Signal};

const LONG: Duration = Duration::from_secs(600);
const NO_ENV: [(OsString, OsString); 0] = [];

fn app(command: &[&str], root: &Path, grace: Duration) -> App {
    let secret = ("PATCHWIRE_LINK_FILE".into(), "/secret".into());
    let stale = ("PATCHWIRE_PUSH_ID".into(), "stale".into());
    App::spawn(AppConfig {
        command: command.iter().map(Into::into).collect(),
        root: root.to_owned(),
        env: std::env::vars_os().chain([secret, stale]).collect(),
        grace,
        guard: None,
        pass_output: false,
    })
}

fn shell(script: &str, grace: Duration) -> App {
    app(&["/bin/sh", "-c", script], Path::new("/"), grace)
}

/// Waits for a line that begins so, written since the process was started; returns the rest.
async fn line(app: &App, beginning: &str) -> String {
    let mut newest = app.output().subscribe();
    loop {
        for line in app.log_tail(usize::MAX) {
            let text = String::from_utf8_lossy(&line.text).into_owned();
            if let Some(rest) = text.strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
        newest.changed().await.expect("the app is there");
    }
}

async fn start(app: &App, on_exit: OnExit) -> Group {
    let pid = app.start(None, NO_ENV, on_exit).await.expect("it starts");
    Group::from_id(pid).expect("it has an id")
}

fn check(text: &str) -> ReadyCheck {
    text.parse().expect("a check")
}

#[tokio::test]
async fn an_app_that_ignores_term_is_killed() {
    let app = shell(
        "trap '' TERM; echo up; exec tail -f /dev/null",
        Duration::from_millis(100),
    );
    let group = start(&app, OnExit::Restart).await;
    line(&app, "up").await;
    assert_eq!(app.state().pid, Some(group.id()));
    app.stop().await.unwrap();
    assert_eq!(app.wait_exit().await, Some(Exit::Signal(9)));
    assert_eq!(group.alive().unwrap(), [0u32; 0]);
    assert!(!app.state().running);
}

#[tokio::test]
async fn an_app_that_ends_in_time_is_not_killed() {
    let script = "trap 'exit 7' TERM; (trap - TERM; echo up; exec tail -f /dev/null) & wait";
    let app = shell(script, LONG);
    start(&app, OnExit::Restart).await;
    line(&app, "up").await;
    app.stop().await.unwrap();
    assert_eq!(app.state().exit, Some(Exit::Code(7)));
}

#[tokio::test]
async fn grandchildren_go_with_the_app() {
    let orphan = "(trap '' TERM; echo up; exec tail -f /dev/null) & trap 'exit 0' TERM; wait";
    let app = shell(orphan, Duration::from_millis(100));
    let group = start(&app, OnExit::Restart).await;
    line(&app, "up").await;
    app.stop().await.unwrap();
    assert_eq!(group.alive().unwrap(), [0u32; 0]);
}

#[tokio::test]
async fn two_generations_never_run_side_by_side() {
    let root = tempfile::tempdir().unwrap();
    // A port in small: who comes while another holds it fails. It is let go by a grandchild, when
    // the first process is dead already.
    let script = "(trap 'rmdir held; exit' TERM; mkdir held || echo taken; \
                  (trap - TERM; echo up; exec tail -f /dev/null) & wait) & wait";
    let app = app(&["/bin/sh", "-c", script], root.path(), GRACE);
    for _ in 0..5 {
        start(&app, OnExit::Hold).await;
        line(&app, "up").await;
    }
    app.stop().await.unwrap();
    let taken = app.output().tail(0, usize::MAX);
    assert!(taken.iter().all(|line| &*line.text == b"up"), "{taken:?}");
}

#[tokio::test]
async fn an_app_that_ends_by_itself_is_started_again() {
    let app = shell("echo again; exit 3", GRACE);
    start(&app, OnExit::Restart).await;
    let mut newest = app.output().subscribe();
    newest.wait_for(|lines| *lines == 3).await.unwrap();
    let state = app.state();
    assert_eq!((state.exit, state.restarts), (Some(Exit::Code(3)), 2));
    app.stop().await.unwrap();
    assert_eq!(app.state().restarts, 2);
}

#[tokio::test]
async fn an_app_is_ready_when_it_answers() {
    let server = r#"
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    answers = [503, 500]
    def do_GET(self):
        self.send_response(self.answers.pop() if self.answers else 200)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print("port", server.server_port, flush=True)
server.serve_forever()
"#;
    let app = app(&["python3", "-c", server], Path::new("/"), GRACE);
    start(&app, OnExit::Hold).await;
    let port = line(&app, "port ").await;
    let http = check(&format!("http://127.0.0.1:{port}/health"));
    assert_eq!(app.verify(&http, LONG).await, Ok(Evidence::Passed));
    assert_eq!(
        app.verify(&check(&format!("tcp:{port}")), LONG).await,
        Ok(Evidence::Passed)
    );
    assert!(app.state().running);
    app.shutdown().await.unwrap();
    assert!(!app.state().running);
    assert!(matches!(
        app.restart(OnExit::Hold).await,
        Err(AppError::ShutDown)
    ));
}

/// An app that listens, and whose port it says. Every request is answered with this status by another
/// process of the group, as servers with workers do; if it is empty, nobody answers.
async fn listening(address: &str, port: &str, status: &str) -> (App, u16) {
    let script = r#"
import os, signal, socket, sys
address, port, status = sys.argv[1:]
status = os.environ.get("STATUS", status)
listener = socket.socket()
# Others may listen there too.
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind((address, int(port)))
listener.listen()
print("port", listener.getsockname()[1], flush=True)
if status and os.fork() == 0:
    while True:
        connection, _ = listener.accept()
        print("asked", flush=True)
        connection.recv(4096)
        connection.sendall(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
        connection.close()
signal.pause()
"#;
    let command = ["python3", "-c", script, address, port, status];
    let app = app(&command, Path::new("/"), GRACE);
    start(&app, OnExit::Hold).await;
    let port = line(&app, "port ").await.parse().expect("a port");
    (app, port)
}

#[tokio::test]
async fn an_app_of_which_nothing_is_known_is_ready_when_it_answers_where_it_listens() {
    for address in ["127.0.0.1", "0.0.0.0"] {
        let (app, port) = listening(address, "0", "404").await;
        let at = format!("{address}:{port}").parse().unwrap();
        let ready = app.verify(&check("auto"), LONG).await;
        assert_eq!(ready, Ok(Evidence::Answered(at)));
    }
}

#[tokio::test]
async fn an_app_that_answers_nothing_is_ready_when_it_stays_alive() {
    // A status that also comes from what speaks no HTTP.
    for status in ["", "400"] {
        let (app, _) = listening("127.0.0.1", "0", status).await;
        let ready = app.verify(&check("auto"), LONG).await;
        assert_eq!(ready, Ok(Evidence::Alive), "{status}");
    }
    let app = shell("exit 3", GRACE);
    start(&app, OnExit::Hold).await;
    let exit = Exit::Code(3);
    let ended = app.verify(&check("auto"), LONG).await;
    assert_eq!(ended, Err(NotReady::Exited { exit }));
}

#[tokio::test]
async fn an_app_that_has_answered_has_to_answer_again() {
    let (app, port) = listening("127.0.0.1", "0", "200").await;
    let first = app.verify(&check("auto"), LONG).await;
    let at = format!("127.0.0.1:{port}").parse().unwrap();
    assert_eq!(first, Ok(Evidence::Answered(at)));

    // It listens on, and its workers are gone.
    let silent = [("STATUS".into(), OsString::new())];
    app.start(None, silent, OnExit::Hold).await.unwrap();
    let timeout = Duration::from_millis(100);
    let last = "it has answered HTTP requests before, and answers none now (if that is meant, the \
                check to use is alive:1s)"
        .to_owned();
    assert_eq!(
        app.verify(&check("auto"), timeout).await,
        Err(NotReady::TimedOut { timeout, last })
    );

    start(&app, OnExit::Hold).await;
    let again = app.verify(&check("auto"), LONG).await;
    assert!(matches!(again, Ok(Evidence::Answered(_))), "{again:?}");
}

#[tokio::test]
async fn an_app_that_begins_to_answer_late_has_to_answer_from_then_on() {
    let late = r#"
import http.server, signal
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("up", flush=True)
signal.sigwait([signal.SIGUSR1])
http.server.HTTPServer(("127.0.0.1", 0), Handler).serve_forever()
"#;
    let app = app(&["python3", "-c", late], Path::new("/"), GRACE);
    start(&app, OnExit::Hold).await;
    line(&app, "up").await;
    let first = app.verify(&check("auto"), LONG).await;
    assert_eq!(first, Ok(Evidence::Alive));
    app.signal(Signal::Usr1).await.unwrap();
    while !app.answers() {
        tokio::task::yield_now().await;
    }

    start(&app, OnExit::Hold).await;
    let silent = app.verify(&check("auto"), Duration::from_millis(100)).await;
    assert!(
        matches!(silent, Err(NotReady::TimedOut { .. })),
        "{silent:?}"
    );
}

#[tokio::test]
async fn what_others_answer_says_nothing_of_the_app() {
    let (other, port) = listening("127.0.0.1", "0", "200").await;
    let silent = shell("exec tail -f /dev/null", GRACE);
    start(&silent, OnExit::Hold).await;
    let (shares, _) = listening("127.0.0.1", &port.to_string(), "").await;
    for app in [silent, shares] {
        let ready = app.verify(&check("auto"), LONG).await;
        assert_eq!(ready, Ok(Evidence::Alive));
    }
    assert_eq!(other.log_tail(usize::MAX).len(), 1, "nobody asked it");
}

#[tokio::test]
async fn an_exit_ends_the_check_at_once_with_what_the_app_said_last() {
    let app = app(
        &["python3", "-c", "raise RuntimeError('boom')"],
        Path::new("/"),
        GRACE,
    );
    for generation in 0..2 {
        start(&app, OnExit::Hold).await;
        // Nobody listens on port 1.
        let not_ready = app.verify(&check("tcp:1"), LONG).await;
        let exit = Exit::Code(1);
        assert_eq!(not_ready, Err(NotReady::Exited { exit }), "{generation}");
        let lines = app.log_tail(100);
        assert!(lines[0].text.starts_with(b"Traceback "), "{lines:?}");
        assert_eq!(&*lines[lines.len() - 1].text, b"RuntimeError: boom");
    }
    assert_eq!(
        app.output().newest() % 2,
        0,
        "the tail is that of the second start alone"
    );
    assert!(app.log_tail(usize::MAX).len() < app.output().tail(0, usize::MAX).len());
    assert_eq!(app.state().restarts, 0);

    // The caller leaves it at that: from here on it is looked after again.
    let mut newest = app.output().subscribe();
    let before = app.output().newest();
    app.settle().await.unwrap();
    newest.wait_for(|newest| *newest > before).await.unwrap();
    app.stop().await.unwrap();
}

#[tokio::test]
async fn a_check_that_fails_leaves_the_app_to_the_caller() {
    let app = shell("echo up; exec tail -f /dev/null", GRACE);
    start(&app, OnExit::Hold).await;
    let never = check("command:false");
    let slow = app.verify(&never, Duration::from_millis(50)).await;
    assert!(matches!(slow, Err(NotReady::TimedOut { .. })), "{slow:?}");
    assert!(app.state().running);

    let (stopped, superseded) = tokio::join!(
        async {
            line(&app, "up").await;
            app.stop().await
        },
        app.verify(&never, LONG)
    );
    stopped.unwrap();
    let exit = Exit::Signal(15);
    assert_eq!(superseded, Err(NotReady::Exited { exit }));
}

#[tokio::test]
async fn an_app_that_cannot_be_started_is_not_ready() {
    let app = app(&["./missing"], Path::new("/"), GRACE);
    let error = app.start(None, NO_ENV, OnExit::Hold).await.unwrap_err();
    let said = error.to_string();
    assert!(
        said.starts_with("cannot start “./missing” in /: is it installed"),
        "{said}"
    );
    let not_ready = app.verify(&check("alive:0s"), LONG).await;
    assert!(
        matches!(not_ready, Err(NotReady::NotStarted { .. })),
        "{not_ready:?}"
    );
    app.stop().await.unwrap();
}

#[tokio::test]
async fn the_app_sees_its_push_and_no_secret() {
    let app = shell("env; echo end; exec tail -f /dev/null", GRACE);
    let pushed = [
        ("GREETING".into(), "hello".into()),
        ("PATCHWIRE_LINK".into(), "from a push".into()),
    ];
    app.start(Some("0190-push"), pushed, OnExit::Hold)
        .await
        .unwrap();
    line(&app, "end").await;
    assert_eq!(line(&app, "GREETING=").await, "hello");
    assert_eq!(line(&app, "PATCHWIRE_PUSH_ID=").await, "0190-push");
    let env = app.log_tail(usize::MAX);
    assert!(
        !env.iter()
            .any(|line| line.text.starts_with(b"PATCHWIRE_LINK"))
    );

    let ran = app
        .run_command("echo $GREETING $PATCHWIRE_PUSH_ID; exit 2", LONG)
        .await
        .unwrap();
    assert_eq!(
        (ran.exit, &*ran.output),
        (Exit::Code(2), b"hello 0190-push\n".as_slice())
    );

    // Started without a push, it sees none, also none of the agent's own.
    start(&app, OnExit::Hold).await;
    line(&app, "end").await;
    let env = app.log_tail(usize::MAX);
    assert!(
        !env.iter()
            .any(|line| line.text.starts_with(b"PATCHWIRE_PUSH_ID"))
    );
    app.stop().await.unwrap();
}

#[tokio::test]
async fn a_running_app_is_signalled_and_paused() {
    // Not HUP, which whoever runs the tests may have had ignored (nohup).
    let script = "trap 'echo reloaded' USR1; echo up; while :; do tail -f /dev/null & wait; done";
    let app = shell(script, GRACE);
    assert!(matches!(
        app.signal(Signal::Usr1).await,
        Err(AppError::NotRunning)
    ));
    app.pause().await.unwrap();

    start(&app, OnExit::Restart).await;
    line(&app, "up").await;
    app.pause().await.unwrap();
    app.signal(Signal::Usr1).await.unwrap();
    assert!(app.log_tail(9).len() == 1, "a paused app does nothing");
    app.resume().await.unwrap();
    line(&app, "reloaded").await;

    app.pause().await.unwrap();
    app.stop().await.unwrap();
    assert_eq!(app.state().exit, Some(Exit::Signal(15)));
}

#[tokio::test]
async fn the_app_is_stopped_when_nobody_holds_it_any_more() {
    let app = shell("echo up; exec tail -f /dev/null", GRACE);
    let group = start(&app, OnExit::Restart).await;
    line(&app, "up").await;
    drop(app);
    group.gone().await;
}
