//! Relay, agent, app and developers as real processes, for the tests of the whole path.
//!
//! Everything of a [`World`] lies in a temporary directory and ends with it. Nothing here sleeps:
//! processes say what happened, and tests wait for that.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, Once, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use patchwire_transport::{DeploymentLink, RelayLink};
use rustix::{
    fs::{Mode, OFlags},
    process::Pid,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Action, tcflow},
};
use serde_json::Value;

pub(crate) use crate::common::{skipped, test_tool};

/// How long to wait for what has to happen. Far more than it takes, as machines may be slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The app of most tests: it serves a message and the id of the push that it runs.
pub(crate) const APP: &str = include_str!("../../../../examples/hello-python/app.py");

/// A program of this workspace.
pub(crate) fn program(name: &str) -> PathBuf {
    static BUILD: Once = Once::new();
    let own = PathBuf::from(env!("CARGO_BIN_EXE_patchwire"));
    let path = own.with_file_name(name);
    BUILD.call_once(|| {
        // `cargo test --workspace` has built them; of one package alone it has not.
        if !own.with_file_name("patchwire-agent").exists()
            || !own.with_file_name("patchwire-relay").exists()
        {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "-p", "patchwire-agent", "-p", "patchwire-relay"]);
            if own.components().any(|part| part.as_os_str() == "release") {
                build.arg("--release");
            }
            assert!(
                build.status().unwrap().success(),
                "the agent and the relay can be built"
            );
        }
    });
    path
}

/// A directory for everything, and a developer's home in it.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("patchwire-test-")
            .tempdir()
            .unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command whose home is this world's, and that inherits no setting of ours.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let ours = |name: &OsStr| {
            let name = name.to_string_lossy();
            name.starts_with("PATCHWIRE_") || name.starts_with("XDG_") || name == "RUST_LOG"
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
            command.env_remove(name);
        }
        command
            .env("HOME", self.path("home"))
            // Set on some machines, it would hide that stale bytecode runs.
            .env_remove("PYTHONDONTWRITEBYTECODE")
            .stdin(Stdio::null());
        command
    }

    /// The developer's `patchwire`.
    pub(crate) fn patchwire(&self) -> Command {
        self.command(program("patchwire"))
    }

    /// All processes that were started for this world, also those that have let go of everything
    /// but their working directory, their environment or an open file.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let own = std::process::id().to_string();
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap());
        processes
            .filter(|process| process.file_name() != *own && self.is_used_by(&process.path()))
            .filter_map(|process| process.file_name().to_str()?.parse().ok())
            .filter_map(Pid::from_raw)
            .collect()
    }

    fn is_used_by(&self, process: &Path) -> bool {
        let dir = self.dir.path().as_os_str().as_bytes();
        let names_it = |text: &[u8]| text.windows(dir.len()).any(|part| part == dir);
        let links_to_it =
            |link: &Path| fs::read_link(link).is_ok_and(|to| names_it(to.as_os_str().as_bytes()));
        let open = fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        ["cmdline", "environ"]
            .iter()
            .any(|file| fs::read(process.join(file)).is_ok_and(|text| names_it(&text)))
            || links_to_it(&process.join("cwd"))
            || open.into_iter().any(|file| links_to_it(&file.path()))
    }

    /// Mints a deployment link, and gives the files of the developer's and of the agent's.
    pub(crate) fn link(&self, relay: &Relay, app: &str, deployment: &str) -> Link {
        let [full, agent] =
            ["link", "agent-link"].map(|kind| self.path(&format!("{app}-{deployment}.{kind}")));
        let minted = self
            .patchwire()
            .args(["link", app, deployment, "--relay"])
            .arg(at(&relay.link_file))
            .output()
            .unwrap();
        assert!(minted.status.success(), "{minted:?}");
        fs::write(&full, &minted.stdout).unwrap();
        let narrowed = self
            .patchwire()
            .args(["link", "--agent"])
            .arg(at(&full))
            .output()
            .unwrap();
        assert!(narrowed.status.success(), "{narrowed:?}");
        fs::write(&agent, &narrowed.stdout).unwrap();
        Link { full, agent }
    }

    /// Pushes `root`, and gives the exit status and the JSON that came.
    pub(crate) fn push(&self, link: &Link, root: &Path) -> Pushed {
        self.push_with(link, root, &[])
    }

    pub(crate) fn push_with(&self, link: &Link, root: &Path, more: &[&str]) -> Pushed {
        let mut command = self.patchwire();
        command
            .args(["push", "--json", "--link"])
            .arg(at(&link.full));
        Pushed::of(command.arg("--root").arg(root).args(more))
    }
}

/// `@FILE`
pub(crate) fn at(file: &Path) -> OsString {
    let mut text = OsString::from("@");
    text.push(file);
    text
}

/// A deployment's links, in files.
pub(crate) struct Link {
    pub(crate) full: PathBuf,
    pub(crate) agent: PathBuf,
}

impl Link {
    /// Writes a link that was not made by the command line to files called `name`.
    pub(crate) fn write(world: &World, name: &str, link: &DeploymentLink) -> Self {
        let [full, agent] =
            ["link", "agent-link"].map(|kind| world.path(&format!("{name}.{kind}")));
        fs::write(&full, &*link.expose()).unwrap();
        fs::write(&agent, &*link.narrow().expose()).unwrap();
        Self { full, agent }
    }

    /// The full link, to act as either end.
    pub(crate) fn read(&self) -> DeploymentLink {
        fs::read_to_string(&self.full)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }
}

/// What a push came to.
#[derive(Debug)]
pub(crate) struct Pushed {
    pub(crate) status: ExitStatus,
    pub(crate) json: Value,
    pub(crate) stderr: String,
}

impl Pushed {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!(
                "{error}: {:?}, {stderr}",
                String::from_utf8_lossy(&output.stdout)
            )
        });
        Self {
            status: output.status,
            json,
            stderr,
        }
    }

    /// Checks the status in the JSON and the exit status that belongs to it.
    #[track_caller]
    pub(crate) fn expect(self, status: &str) -> Self {
        let exit = match status {
            "done" | "no-changes" => 0,
            "failed" | "rolled-back" | "conflict" => 1,
            "unknown" => 3,
            other => panic!("{other} is not a status"),
        };
        assert_eq!(self.json["status"], status, "{self:#?}");
        assert_eq!(self.status.code(), Some(exit), "{self:#?}");
        self
    }

    /// The sentence that says what went wrong.
    pub(crate) fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap()
    }

    /// Checks that nothing came to be applied: the error's code and the exit status.
    #[track_caller]
    pub(crate) fn expect_error(self, code: &str, exit: i32) -> Self {
        assert_eq!(self.json["error"]["code"], code, "{self:#?}");
        assert_eq!(self.status.code(), Some(exit), "{self:#?}");
        self
    }

    pub(crate) fn push_id(&self) -> &str {
        self.json["push_id"].as_str().unwrap()
    }

    /// Compressed and encrypted bytes written to the transport.
    pub(crate) fn sent(&self) -> u64 {
        self.json["bytes"]["sent"].as_u64().unwrap()
    }

    /// The same of what was read from it.
    pub(crate) fn received(&self) -> u64 {
        self.json["bytes"]["received"].as_u64().unwrap()
    }

    /// How many files were added, changed, deleted and moved.
    pub(crate) fn files(&self) -> [u64; 4] {
        ["added", "changed", "deleted", "moved"]
            .map(|kind| self.json["files"][kind].as_u64().unwrap())
    }

    pub(crate) fn pid(&self) -> u64 {
        self.json["agents"][0]["app"]["pid"].as_u64().unwrap()
    }

    pub(crate) fn log_tail(&self) -> String {
        let lines = self.json["agents"][0]["log_tail"].as_array().unwrap();
        lines
            .iter()
            .map(|line| format!("{}\n", line.as_str().unwrap()))
            .collect()
    }
}

/// A process whose output is collected, and that is killed with this value.
pub(crate) struct Process {
    pub(crate) child: Child,
    output: Arc<(Mutex<String>, Condvar)>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::<(Mutex<String>, Condvar)>::default();
        collect(child.stdout.take().unwrap(), Arc::clone(&output));
        collect(child.stderr.take().unwrap(), Arc::clone(&output));
        Self { child, output }
    }

    /// Starts it with the output that the command names, of which nothing is collected.
    pub(crate) fn start_unread(command: &mut Command) -> Self {
        Self {
            child: command.spawn().unwrap(),
            output: Arc::default(),
        }
    }

    /// All that it wrote.
    pub(crate) fn output(&self) -> String {
        // A test that failed while it waited for more shows what there was.
        let output = self.output.0.lock();
        output.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has written a line with `text` after the first `from` bytes, and gives where
    /// that line ends.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str, from: usize) -> usize {
        let (output, more) = &*self.output;
        let deadline = Instant::now() + PATIENCE;
        let mut output = output.lock().unwrap();
        loop {
            if let Some(at) = output[from..].find(text) {
                let rest = &output[from + at..];
                return from + at + rest.find('\n').map_or(rest.len(), |end| end + 1);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "“{text}” never came: {output}");
            output = more.wait_timeout(output, left).unwrap().0;
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Checks that it runs, and that nothing in it panicked.
    #[track_caller]
    pub(crate) fn assert_well(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "{}", self.output());
        assert!(!self.output().contains("panicked"), "{}", self.output());
    }

    /// kill -9, and waits for its end.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// TERM, and waits for its end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- process {}\n{}", self.child.id(), self.output());
        }
    }
}

fn collect(from: impl Read + Send + 'static, output: Arc<(Mutex<String>, Condvar)>) {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            output
                .0
                .lock()
                .unwrap()
                .push_str(&String::from_utf8_lossy(&line));
            output.1.notify_all();
            line.clear();
        }
    });
}

/// A relay on a port of its own.
pub(crate) struct Relay {
    pub(crate) process: Process,
    pub(crate) link_file: PathBuf,
    pub(crate) port: u16,
    state: PathBuf,
}

impl Relay {
    pub(crate) fn start(world: &World) -> Self {
        Self::start_in(world, "relay", 0)
    }

    /// Starts a relay with its state in `name`, on `port` or on any.
    pub(crate) fn start_in(world: &World, name: &str, port: u16) -> Self {
        let state = world.path(name);
        let link_file = world.path(&format!("{name}.link"));
        let mut command = world.command(program("patchwire-relay"));
        command.arg("--listen").arg(format!("127.0.0.1:{port}"));
        command
            .arg("--state")
            .arg(&state)
            .arg("--link-file")
            .arg(&link_file);
        let process = Process::start(&mut command);
        process.wait_for("patchwire://", 0);
        let link = fs::read_to_string(&link_file).unwrap();
        let port = link
            .split(['#', '/'])
            .nth(2)
            .unwrap()
            .rsplit(':')
            .next()
            .unwrap();
        Self {
            process,
            port: port.parse().unwrap(),
            link_file,
            state,
        }
    }

    /// Its own link.
    pub(crate) fn link(&self) -> RelayLink {
        let link = fs::read_to_string(&self.link_file).unwrap();
        link.trim().parse().unwrap()
    }

    /// Starts it again on its port with its state.
    pub(crate) fn restart(self, world: &World) -> Self {
        let name = self.state.file_name().unwrap().to_str().unwrap().to_owned();
        let port = self.port;
        drop(self);
        Self::start_in(world, &name, port)
    }
}

/// An agent with an app.
pub(crate) struct Agent {
    pub(crate) process: Process,
    pub(crate) root: PathBuf,
}

/// An app that costs nothing, says when it starts, and ends when it is told to.
pub(crate) const IDLE: [&str; 3] = ["sh", "-c", "echo app-started; exec sleep 1000"];

impl Agent {
    /// Starts an agent with an app that costs nothing and is ready at once.
    pub(crate) fn idle(world: &World, link: &Link, root: &Path) -> Self {
        Self::start(world, link, root, &["--ready", "alive:1ms"], &IDLE)
    }

    /// Starts an agent with these options before the `--` and this command after it, and waits
    /// until it has attached to the relay.
    pub(crate) fn start<S: AsRef<OsStr>>(
        world: &World,
        link: &Link,
        root: &Path,
        options: &[&str],
        app: &[S],
    ) -> Self {
        let agent = Self::start_alone(world, link, root, options, app);
        agent.process.wait_for("attached to the relay", 0);
        agent
    }

    /// The same without waiting.
    pub(crate) fn start_alone<S: AsRef<OsStr>>(
        world: &World,
        link: &Link,
        root: &Path,
        options: &[&str],
        app: &[S],
    ) -> Self {
        fs::create_dir_all(root).unwrap();
        let mut command = world.command(program("patchwire-agent"));
        command
            .args(["run", "--link"])
            .arg(at(&link.agent))
            .arg("--root")
            .arg(root);
        command.args(options).arg("--").args(app);
        Self {
            process: Process::start(&mut command),
            root: root.to_owned(),
        }
    }
}

/// Whether a process that is not our child runs. One that has ended and that nobody has waited for
/// does not.
pub(crate) fn is_running(pid: u64) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The name may hold anything, so what follows its last bracket counts.
    !matches!(stat.rsplit_once(") ").unwrap().1.as_bytes()[0], b'Z' | b'X')
}

/// Waits for what nobody tells us of: the end of a process that is not our child, a file of another
/// process. For everything else there is an event.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: never");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A port that nobody listens on, and that nobody else is given: none of those that the system gives
/// to whoever asks for any, nor one of another test's.
pub(crate) fn free_port() -> u16 {
    const LOWEST: u32 = 10_000;
    /// How many one process of tests may need.
    const EACH: u32 = 256;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let mut bounds = range.split_whitespace().map(|bound| bound.parse().unwrap());
    let [first, last]: [u32; 2] = [(); 2].map(|()| bounds.next().unwrap());
    let outside = match first.saturating_sub(LOWEST) >= EACH {
        true => LOWEST..first,
        false => last + 1..65_536,
    };
    let len = outside.end.saturating_sub(outside.start);
    assert!(len >= EACH, "no ports are left beside {range}");
    // Processes that run at the same time begin far from each other.
    let start = std::process::id() % (len / EACH) * EACH;
    loop {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        assert!(taken < len, "no port is free");
        let port = u16::try_from(outside.start + (start + taken) % len).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A terminal that nobody looks at.
pub(crate) fn terminal() -> OwnedFd {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::open(name, flags, Mode::empty()).unwrap();
    // Until nobody has it open any more, which is an error.
    std::thread::spawn(move || io::copy(&mut fs::File::from(master), &mut io::sink()));
    terminal
}

/// Lets a terminal take nothing more, as Ctrl+S does.
pub(crate) fn stop(terminal: &OwnedFd) {
    tcflow(terminal, Action::OOff).unwrap();
}

/// What the app at `port` serves at `/`.
pub(crate) fn get(port: u16) -> String {
    try_get(port).unwrap()
}

/// The same of an app that may just be starting or ending.
pub(crate) fn try_get(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let body = response.split_once("\r\n\r\n");
    let (_, body) = body.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(body.to_owned())
}

/// Bytes that don't compress, always the same.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    // Xorshift (Marsaglia 2003).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = vec![0; len];
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    bytes
}

/// What stands at a path, as far as a push covers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    File {
        mode: u32,
        content: Vec<u8>,
    },
    Directory {
        mode: u32,
    },
    Link(PathBuf),
    /// A fifo, a socket or a device, which no push covers.
    Special,
}

/// Everything below `root` but the agent's state and Python's bytecode.
pub(crate) fn tree(root: &Path) -> BTreeMap<PathBuf, Node> {
    fn walk(root: &Path, below: &Path, tree: &mut BTreeMap<PathBuf, Node>) {
        for entry in fs::read_dir(root.join(below)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if name == ".patchwire" || name == "__pycache__" {
                continue;
            }
            let path = below.join(name);
            let metadata = entry.metadata().unwrap();
            let mode = metadata.permissions().mode() & 0o777;
            let node = if metadata.is_dir() {
                walk(root, &path, tree);
                Node::Directory { mode }
            } else if metadata.is_symlink() {
                Node::Link(fs::read_link(entry.path()).unwrap())
            } else if metadata.is_file() {
                Node::File {
                    mode,
                    content: fs::read(entry.path()).unwrap(),
                }
            } else {
                Node::Special
            };
            tree.insert(path, node);
        }
    }
    let mut nodes = BTreeMap::new();
    walk(root, Path::new(""), &mut nodes);
    nodes
}

/// Checks that two directories hold the same, by our own comparison and, where it is installed, by
/// rsync's.
#[track_caller]
pub(crate) fn assert_same_tree(source: &Path, target: &Path) {
    let (expected, actual) = (tree(source), tree(target));
    let differing: Vec<_> = expected
        .keys()
        .chain(actual.keys())
        .filter(|path| expected.get(*path) != actual.get(*path))
        .collect();
    assert!(
        differing.is_empty(),
        "{differing:?} differ in {source:?} and {target:?}"
    );

    let mut rsync = Command::new("rsync");
    rsync.args(["-rlpc", "--delete", "-n", "-i", "--exclude", ".patchwire"]);
    rsync.args(["--exclude", "__pycache__"]);
    rsync.arg(source.join("")).arg(target.join(""));
    match rsync.output() {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "");
        }
        Err(_) => skipped("rsync is not installed: compared by our own means alone"),
    }
}
