//! How long from saving a file to the new code being served, under `patchwire dev`?
//!
//! The floor is starting the app by hand. The peer restarts a local process, where one is
//! installed: it copies, verifies and transports nothing, and doesn't look whether the app is well.

use std::{
    env,
    fs::{self, File},
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    measure::median,
    programs::{Programs, isolate},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// How many versions are saved
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    saves: u16,
}

/// The project that is copied, and what of it is replaced by a version.
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/hello-python");
const APP: &str = "app.py";
const MESSAGE: &str = "Hello from Patchwire";

/// How long anything may take. What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often an app that doesn't serve the new version yet is asked.
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let patchwire = Programs::build(&["patchwire"])?.path("patchwire");
    let dir = tempfile::Builder::new()
        .prefix("patchwire-bench-")
        .tempdir()?;
    let by_hand = Project::copy(dir.path(), "by-hand")?;
    let developed = Project::copy(dir.path(), "dev")?;
    let restarted = Project::copy(dir.path(), "peer")?;

    let app = developed.app();
    let mut dev = Command::new(patchwire);
    dev.arg("dev").arg("--").args(&app);
    isolate(&mut dev, dir.path());
    let mut dev = Running::start(&developed, dev)?;
    dev.serves(MESSAGE)?;
    let mut peer = match Peer::find() {
        Some(found) => {
            let mut running = Running::start(&restarted, found.command(&restarted.app()))?;
            running.serves(MESSAGE)?;
            Some((found, running))
        }
        None => None,
    };

    let (mut start_times, mut dev_times, mut peer_times) = (Vec::new(), Vec::new(), Vec::new());
    // By turns, so that a busy moment of the machine hits all.
    for save in 0..args.saves {
        let message = format!("Version {save}");
        by_hand.save(&message)?;
        let started = Instant::now();
        let [python, arguments @ ..] = &by_hand.app();
        let mut command = Command::new(python);
        command.args(arguments);
        let mut running = Running::start(&by_hand, command)?;
        running.serves(&message)?;
        start_times.push(started.elapsed());
        drop(running);

        dev_times.push(dev.reloads(&message)?);
        if let Some((_, running)) = &mut peer {
            peer_times.push(running.reloads(&message)?);
        }
    }

    let start = Spread::of(start_times);
    let dev = Spread::of(dev_times);
    let peer = peer.map(|(found, _)| (found.name, Spread::of(peer_times)));
    let mut out = io::stdout().lock();
    if args.json {
        let report = json!({
            "saves": args.saves,
            "dev": dev.to_json(),
            "start_by_hand": start.to_json(),
            "dev_to_start": dev.ratio(&start),
            "peer": peer.as_ref().map(|(name, spread)| json!({
                "name": name,
                "seconds": spread.to_json(),
                "peer_to_dev": spread.ratio(&dev),
            })),
        });
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(
        out,
        "{:<40} {:>8} {:>8} {:>8}",
        "milliseconds", "median", "min", "max"
    )?;
    dev.print(&mut out, "patchwire dev: save to new code served")?;
    start.print(&mut out, "floor: starting the app by hand")?;
    match &peer {
        Some((name, spread)) => spread.print(&mut out, &format!("peer: {name}"))?,
        None => writeln!(
            out,
            "peer: none (neither watchfiles nor nodemon is installed)"
        )?,
    }
    write!(
        out,
        "{} saves by turns; dev takes {:.2}x the floor",
        args.saves,
        dev.ratio(&start)
    )?;
    if let Some((_, spread)) = &peer {
        write!(out, ", the peer {:.2}x of dev", spread.ratio(&dev))?;
    }
    Ok(writeln!(out)?)
}

/// A copy of the example, and the port that is its own.
struct Project {
    root: PathBuf,
    port: u16,
    template: String,
}

impl Project {
    fn copy(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let template = fs::read_to_string(Path::new(EXAMPLE).join(APP))?;
        ensure!(template.contains(MESSAGE), "{EXAMPLE} is not what it was");
        let root = dir.join(name);
        fs::create_dir(&root)?;
        let project = Self {
            root,
            port: TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
            template,
        };
        project.save(MESSAGE)?;
        Ok(project)
    }

    fn app(&self) -> [String; 3] {
        ["python3".to_owned(), APP.to_owned(), self.port.to_string()]
    }

    fn save(&self, message: &str) -> io::Result<()> {
        let app = self.template.replace(MESSAGE, message);
        fs::write(self.root.join(APP), app)
    }
}

/// A program that runs the app of a project, and ends with this value.
struct Running<'a> {
    project: &'a Project,
    child: Child,
    log: PathBuf,
}

impl<'a> Running<'a> {
    fn start(project: &'a Project, mut command: Command) -> anyhow::Result<Self> {
        let log = project.root.with_extension("log");
        let file = File::create(&log)?;
        command
            .current_dir(&project.root)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("can't start {}", command.get_program().display()))?;
        Ok(Self {
            project,
            child,
            log,
        })
    }

    /// Saves a version, and gives how long it took until that was served.
    fn reloads(&mut self, message: &str) -> anyhow::Result<Duration> {
        self.project.save(message)?;
        let saved = Instant::now();
        self.serves(message)?;
        Ok(saved.elapsed())
    }

    /// Waits until this message is served.
    fn serves(&mut self, message: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // Before, after and while the app is restarted there is no answer, or half of one.
        while !get(self.project.port).is_ok_and(|page| page.starts_with(message)) {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("“{message}” was never served:\n{log}");
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for Running<'_> {
    /// As Ctrl+C, so that it ends what it has started.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            thread::sleep(PAUSE);
        }
    }
}

/// What is served at `/`.
fn get(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let body = response.split_once("\r\n\r\n");
    Ok(body.map_or_else(String::new, |(_, body)| body.to_owned()))
}

/// A program that restarts another one when a file is saved.
struct Peer {
    name: String,
    kind: PeerKind,
}

#[derive(Clone, Copy)]
enum PeerKind {
    Watchfiles,
    Nodemon,
}

impl Peer {
    /// The first that is installed.
    fn find() -> Option<Self> {
        [PeerKind::Watchfiles, PeerKind::Nodemon]
            .into_iter()
            .find_map(|kind| {
                let program = kind.program();
                let asked = Command::new(program).arg("--version").output().ok()?;
                let version = String::from_utf8_lossy(&asked.stdout);
                let version = version.split_whitespace().next_back()?;
                let version = version.trim_start_matches('v');
                asked.status.success().then(|| Self {
                    name: format!("{program} {version}"),
                    kind,
                })
            })
    }

    fn command(&self, app: &[String]) -> Command {
        let mut command = Command::new(self.kind.program());
        match self.kind {
            PeerKind::Watchfiles => command.args(["--filter", "python", &app.join(" "), "."]),
            PeerKind::Nodemon => command.args(["--ext", "py", "--exec", &app.join(" ")]),
        };
        command
    }
}

impl PeerKind {
    const fn program(self) -> &'static str {
        match self {
            Self::Watchfiles => "watchfiles",
            Self::Nodemon => "nodemon",
        }
    }
}

/// How long something took.
struct Spread {
    median: Duration,
    min: Duration,
    max: Duration,
}

impl Spread {
    fn of(times: Vec<Duration>) -> Self {
        Self {
            min: times.iter().min().copied().unwrap_or_default(),
            max: times.iter().max().copied().unwrap_or_default(),
            median: median(times),
        }
    }

    /// How many times as long as the other.
    fn ratio(&self, other: &Self) -> f64 {
        self.median.as_secs_f64() / other.median.as_secs_f64()
    }

    fn print(&self, out: &mut impl Write, what: &str) -> io::Result<()> {
        let [median, min, max] =
            [self.median, self.min, self.max].map(|time| time.as_secs_f64() * 1e3);
        writeln!(out, "{what:<40} {median:>8.1} {min:>8.1} {max:>8.1}")
    }

    fn to_json(&self) -> Value {
        json!({
            "median": self.median.as_secs_f64(),
            "min": self.min.as_secs_f64(),
            "max": self.max.as_secs_f64(),
        })
    }
}
