//! Whether the app is ready: the configured check, tried until it passes or the time is up.

use std::{
    ffi::OsString,
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use http_body_util::Empty;
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use patchwire_protocol::app::{Exit, HttpUrl, ReadyCheck};
use tokio::{net::TcpStream, time::Instant};

use crate::process::{Group, Launch, RunError};

pub(crate) use listening::answered;

mod listening;

/// The pause between the first two attempts, doubled each time: nothing tells us when a foreign
/// process begins to listen.
const PAUSE_FIRST: Duration = Duration::from_millis(10);

/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// How long an app that answers nothing has to stay alive.
const ALIVE: Duration = Duration::from_secs(1);

/// How long one attempt may take before the next one is made.
const ATTEMPT: Duration = Duration::from_secs(5);

/// How long processes of an earlier app that left its group may go on answering.
const LEFT: Duration = Duration::from_secs(2);

/// How long an answer may take that shows that someone else passes a check.
const UNANSWERED: Duration = Duration::from_secs(1);

/// The longest piece of a command's output that a reason quotes, in bytes.
const QUOTED: usize = 300;

/// What is checked, and where checks that are commands run.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The directory they start in.
    pub root: &'a Path,
    /// Their whole environment.
    pub env: &'a [(OsString, OsString)],
    /// The app's processes.
    pub group: Option<Group>,
    /// Whether the app is known to answer HTTP, so that `auto` waits for that and nothing less.
    pub answers: bool,
}

/// What the app was seen to be ready by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// What was to be checked passed.
    Passed,
    /// It answered an HTTP request where it listens.
    Answered(SocketAddr),
    /// It had been alive for long enough.
    Alive,
}

/// Why the app isn't ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It could not be started.
    #[error("the app could not be started: {reason}")]
    NotStarted {
        /// Why.
        reason: String,
    },
    /// It ended.
    #[error("the app ended before it was ready: {exit}{}", advice(*.exit))]
    Exited {
        /// How.
        exit: Exit,
    },
    /// The check says nothing of it.
    #[error(
        "{check} answers while the app is stopped, so that it can't tell when the app is ready: end \
         what answers there (an app that runs as a daemon outlives its restarts), or check something \
         that only the app answers"
    )]
    NotTheApp {
        /// The check that passed without it.
        check: ReadyCheck,
    },
    /// It was stopped or started anew by someone else meanwhile.
    #[error("the app was stopped or started anew while it was being checked")]
    Superseded,
    /// The check did not pass in time.
    #[error("the app was not ready within {}: {last}", humantime::format_duration(*.timeout))]
    TimedOut {
        /// How long it was tried.
        timeout: Duration,
        /// Why the last attempt failed.
        last: String,
    },
}

/// Makes sure that a check can tell when an app is ready that is not started yet: that nobody else
/// answers it. What is left of an earlier app has two seconds to end.
///
/// A command is not tried, as it may pass without the app for good reasons, and the other checks look
/// at the app's own processes alone.
///
/// # Errors
///
/// [`NotReady::NotTheApp`].
pub async fn unanswered(check: &ReadyCheck) -> Result<(), NotReady> {
    let begun = Instant::now();
    let mut pause = PAUSE_FIRST;
    loop {
        let answer = async {
            match check {
                ReadyCheck::Http(url) => http(url).await.is_ok(),
                ReadyCheck::Tcp(port) => tcp(*port).await.is_ok(),
                ReadyCheck::Command(_) | ReadyCheck::Alive(_) | ReadyCheck::Auto => false,
            }
        };
        // Who takes longer, a proxy whose app is away, does not pass now.
        if !tokio::time::timeout(UNANSWERED, answer)
            .await
            .unwrap_or(false)
        {
            return Ok(());
        }
        if begun.elapsed() >= LEFT {
            let check = check.clone();
            return Err(NotReady::NotTheApp { check });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Tries the check until it passes, at most for `timeout`.
///
/// `ended` resolves when the app isn't there any more, to the reason; that ends the check at once,
/// and wins over a check that passes at the same moment. `alive:` takes the time it names and `auto`
/// a second, whatever the timeout: they are bounded where they are parsed. But for an app that is
/// known to answer HTTP, `auto` passes when it does so again: what is alive and answers no more is
/// most often a parent whose workers fail, or an app that fails late.
///
/// The caller makes sure that the processes of an earlier generation are gone, and that the check is
/// [`unanswered`] before the app is started: other answers could not be told from the app's.
///
/// # Errors
///
/// [`NotReady`]: what `ended` said, or [`NotReady::TimedOut`].
pub async fn check(
    check: &ReadyCheck,
    surroundings: Surroundings<'_>,
    timeout: Duration,
    ended: impl Future<Output = NotReady>,
) -> Result<Evidence, NotReady> {
    let timeout = match check {
        ReadyCheck::Alive(duration) => timeout.max(*duration + ATTEMPT),
        ReadyCheck::Auto if !surroundings.answers => timeout.max(ALIVE + ATTEMPT),
        ReadyCheck::Auto | ReadyCheck::Http(_) | ReadyCheck::Tcp(_) | ReadyCheck::Command(_) => {
            timeout
        }
    };
    let mut last = String::from(match (check, surroundings.answers) {
        (ReadyCheck::Auto, true) => {
            "it has answered HTTP requests before, and answers none now (if that is meant, the check to \
             use is alive:1s)"
        }
        (_, _) => "the first attempt was not answered",
    });
    tokio::select! {
        biased;
        not_ready = ended => Err(not_ready),
        evidence = attempts(check, surroundings, &mut last) => Ok(evidence),
        () = tokio::time::sleep(timeout) => Err(NotReady::TimedOut { timeout, last }),
    }
}

/// What most often made an app end in this way.
fn advice(exit: Exit) -> &'static str {
    match exit {
        Exit::Code(0) => " (its command has to stay in the foreground, not to start a daemon)",
        Exit::Code(_) | Exit::Signal(_) => "",
    }
}

async fn attempts(
    check: &ReadyCheck,
    surroundings: Surroundings<'_>,
    last: &mut String,
) -> Evidence {
    let mut pause = PAUSE_FIRST;
    loop {
        let begun = Instant::now();
        match attempt(check, surroundings).await {
            Ok(evidence) => return evidence,
            Err(reason) => *last = reason,
        }
        tracing::debug!(%check, reason = %last, took = ?begun.elapsed(), "not ready yet");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn attempt(check: &ReadyCheck, surroundings: Surroundings<'_>) -> Result<Evidence, String> {
    let passed = match check {
        ReadyCheck::Http(url) => in_time(http(url)).await,
        ReadyCheck::Tcp(port) => in_time(tcp(*port)).await,
        ReadyCheck::Command(text) => command(text, surroundings).await,
        ReadyCheck::Alive(duration) => {
            tokio::time::sleep(*duration).await;
            return Ok(Evidence::Alive);
        }
        ReadyCheck::Auto => {
            let answered = async {
                match surroundings.group {
                    Some(group) => answered(group).await,
                    None => std::future::pending().await,
                }
            };
            if surroundings.answers {
                return Ok(Evidence::Answered(answered.await));
            }
            let answered = tokio::time::timeout(ALIVE, answered).await;
            return Ok(answered.map_or(Evidence::Alive, Evidence::Answered));
        }
    };
    passed.map(|()| Evidence::Passed)
}

async fn in_time(answer: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let answer = tokio::time::timeout(ATTEMPT, answer).await;
    answer.unwrap_or_else(|_| Err(format!("no answer within {ATTEMPT:?}")))
}

async fn tcp(port: u16) -> Result<(), String> {
    let loopback = [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ];
    let connected = connect(&loopback[..]).await;
    connected
        .map(drop)
        .map_err(|error| format!("port {port}: {error}"))
}

async fn http(url: &HttpUrl) -> Result<(), String> {
    match get((url.host(), url.port()), &url.authority(), url.target()).await {
        Ok(status) if status.is_success() => Ok(()),
        Ok(status) => Err(format!("{url}: status {status}")),
        Err(error) => Err(format!("{url}: {error}")),
    }
}

/// Asks for a page, and gives the answer's status.
async fn get(
    address: impl tokio::net::ToSocketAddrs,
    host: &str,
    target: &str,
) -> Result<StatusCode, String> {
    let stream = connect(address).await.map_err(|error| error.to_string())?;
    let request = Request::get(target)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "patchwire")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut response = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        response = &mut response => response,
        // The connection may be done in the same moment as it hands the response over.
        _ = connection => response.await,
    };
    Ok(response.map_err(|error| error.to_string())?.status())
}

async fn connect(address: impl tokio::net::ToSocketAddrs) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // With nobody listening, a connection to a local port of the ephemeral range is now and then
    // given that same port, and connects to itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

async fn command(command: &str, surroundings: Surroundings<'_>) -> Result<(), String> {
    let launch = Launch::shell(command, surroundings.root, surroundings.env);
    // No bound of its own: when the time is up the future is dropped, which kills it.
    match launch.run(Duration::MAX).await {
        Ok(ran) if ran.exit == Exit::Code(0) => Ok(()),
        Ok(ran) => {
            let output = ran.output.trim_ascii_end();
            let line = output
                .rsplit(|byte| *byte == b'\n')
                .next()
                .unwrap_or_default();
            let line = String::from_utf8_lossy(&line[..line.len().min(QUOTED)]);
            Err(match line.is_empty() {
                true => ran.exit.to_string(),
                false => format!("{}: {}", ran.exit, line.escape_debug()),
            })
        }
        Err(error @ (RunError::Spawn(_) | RunError::TimedOut { .. })) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpSocket},
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(100);

    async fn tried(text: &str, timeout: Duration) -> Result<Evidence, NotReady> {
        let (check, env) = parts(text);
        super::check(&check, surroundings(&env), timeout, pending()).await
    }

    /// The reason why one attempt fails.
    async fn fails(text: &str) -> String {
        let (check, env) = parts(text);
        attempt(&check, surroundings(&env)).await.unwrap_err()
    }

    fn parts(text: &str) -> (ReadyCheck, [(OsString, OsString); 1]) {
        let path = ("PATH".into(), std::env::var_os("PATH").unwrap());
        (text.parse().unwrap(), [path])
    }

    fn surroundings(env: &[(OsString, OsString)]) -> Surroundings<'_> {
        Surroundings {
            root: Path::new("/"),
            env,
            group: None,
            answers: false,
        }
    }

    /// Answers every request with the next of these, the last for ever.
    async fn serve(listener: TcpListener, answers: &[&str]) -> io::Result<()> {
        let mut answers = answers.iter().peekable();
        loop {
            let (mut stream, _) = listener.accept().await?;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await?);
            }
            assert!(request.starts_with(b"GET /up?x=1 HTTP/1.1\r\n"));
            let answer = answers.next().unwrap();
            stream.write_all(answer.as_bytes()).await?;
            if answers.peek().is_none() {
                return Ok(());
            }
        }
    }

    #[tokio::test]
    async fn http_is_ready_at_the_first_success() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/up?x=1", listener.local_addr().unwrap());
        let answers = [
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            "garbage\r\n\r\n",
            "",
            "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ];
        let (ready, served) = tokio::join!(tried(&url, LONG), serve(listener, &answers));
        assert_eq!(ready, Ok(Evidence::Passed));
        served.unwrap();
    }

    #[tokio::test]
    async fn what_never_answers_times_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        for check in [&url, "command:tail -f /dev/null"] {
            let timed_out = NotReady::TimedOut {
                timeout: SHORT,
                last: "the first attempt was not answered".into(),
            };
            assert_eq!(tried(check, SHORT).await, Err(timed_out));
        }
    }

    #[tokio::test]
    async fn a_port_is_ready_while_someone_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(
            tried(&format!("tcp:{port}"), LONG).await,
            Ok(Evidence::Passed)
        );
        // Bound and not listening: a port that is merely closed is soon another test's.
        let bound = TcpSocket::new_v4().unwrap();
        bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = bound.local_addr().unwrap().port();
        let reason = fails(&format!("tcp:{port}")).await;
        assert!(reason.starts_with(&format!("port {port}: ")), "{reason}");
    }

    #[tokio::test]
    async fn a_command_is_tried_until_it_passes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tries");
        let command = format!(
            "command:echo x >> {0}; test $(wc -l < {0}) = 3",
            file.display()
        );
        assert_eq!(tried(&command, LONG).await, Ok(Evidence::Passed));
        assert_eq!(std::fs::read(&file).unwrap(), b"x\nx\nx\n");
    }

    #[tokio::test]
    async fn a_failing_command_is_quoted() {
        let reason = fails("command:echo no database >&2; exit 4").await;
        assert_eq!(reason, "exit status 4: no database");
        assert_eq!(fails("command:kill -9 $$").await, "killed by SIGKILL");
    }

    #[tokio::test]
    async fn a_check_that_someone_else_passes_says_nothing_of_the_app() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let check = format!("tcp:{}", listener.local_addr().unwrap().port());
        let check: ReadyCheck = check.parse().unwrap();
        let not_the_app = NotReady::NotTheApp {
            check: check.clone(),
        };
        assert_eq!(unanswered(&check).await, Err(not_the_app));
        // What is left of an earlier app goes away after it was asked once; at an address where no
        // other test listens next.
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let check = format!("http://{}/up?x=1", listener.local_addr().unwrap());
        let check: ReadyCheck = check.parse().unwrap();
        let leaving = serve(listener, &["HTTP/1.1 204 No Content\r\n\r\n"]);
        let (unanswered, left) = tokio::join!(unanswered(&check), leaving);
        assert_eq!(unanswered, Ok(()));
        left.unwrap();
    }

    #[tokio::test]
    async fn an_exit_wins_over_a_check_that_would_pass() {
        let exited = NotReady::Exited {
            exit: Exit::Code(1),
        };
        let (alive, env) = parts("alive:0s");
        let check = check(&alive, surroundings(&env), LONG, ready(exited.clone()));
        assert_eq!(check.await, Err(exited));
    }

    #[test]
    fn an_app_that_ends_as_if_all_were_well_is_told_of_daemons() {
        let ended = |code| {
            let exit = Exit::Code(code);
            NotReady::Exited { exit }.to_string()
        };
        assert!(ended(0).contains("stay in the foreground"));
        assert!(ended(1).ends_with("exit status 1"));
    }

    #[tokio::test]
    async fn staying_alive_takes_its_time_whatever_the_timeout() {
        assert_eq!(
            tried("alive:20ms", Duration::ZERO).await,
            Ok(Evidence::Alive)
        );
        assert_eq!(tried("auto", Duration::ZERO).await, Ok(Evidence::Alive));
    }
}
