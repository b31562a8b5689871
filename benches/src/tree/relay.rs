//! A relay that goes down once it has carried so much.

use std::{
    fmt, fs,
    io::{self, BufRead, Write},
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::Context;
use patchwire_relay::{Direction, RelayConfig, Tap};
use rustix::process::{Signal, getpid, kill_process};

use super::site::{PATIENCE, Site};
use crate::child::Dialogue;

/// The hidden subcommand that is this relay.
const SUBCOMMAND: &str = "tree-relay";

/// Such a relay as a process, which ends with this value.
#[derive(Debug)]
pub(crate) struct CutRelay {
    dialogue: Dialogue,
    /// Where it listens: the next one does, too.
    pub(crate) port: u16,
    pub(crate) link_file: PathBuf,
}

impl CutRelay {
    pub(crate) fn start(site: &Site, port: u16, most: u64) -> anyhow::Result<Self> {
        // This very program, even if another was built in its place meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(SUBCOMMAND)
            .arg("--state")
            .arg(site.dir.join("cut-relay"));
        command
            .arg(format!("--port={port}"))
            .arg(format!("--most={most}"));
        let mut dialogue = Dialogue::start(command, &site.interruption)?;
        let link = dialogue.hear(Instant::now() + PATIENCE)?;
        let link = String::from_utf8(link.context("the relay says nothing")?)?;
        let address = link
            .split('#')
            .next()
            .and_then(|address| address.rsplit_once(':'));
        let port = address.and_then(|(_, port)| port.parse().ok());
        let link_file = site.dir.join("cut-relay.link");
        fs::write(&link_file, &link)?;
        Ok(Self {
            dialogue,
            port: port.context("the relay's link has no port")?,
            link_file,
        })
    }

    /// How much it had carried when it went down; `None` if it is up until the deadline.
    pub(crate) fn went_down(&mut self, deadline: Instant) -> anyhow::Result<Option<u64>> {
        let line = self.dialogue.hear(deadline)?;
        line.map(|line| Ok(String::from_utf8(line)?.trim().parse()?))
            .transpose()
    }

    /// How much it has carried so far.
    pub(crate) fn carried(&mut self) -> anyhow::Result<u64> {
        self.dialogue.say(Vec::new())?;
        let carried = self.went_down(Instant::now() + PATIENCE)?;
        carried.context("the relay says nothing")
    }
}

/// How it is started.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory of its keys
    #[arg(long)]
    state: PathBuf,
    /// Where it listens on this machine; 0 for any port
    #[arg(long)]
    port: u16,
    /// How many bytes from developer to agent it carries before it goes down
    #[arg(long)]
    most: u64,
}

/// Serves until it has carried enough, and says on stdout how much that was; also whenever there is a
/// line on stdin.
pub(crate) fn serve(args: Args) -> anyhow::Result<()> {
    let tap = Arc::new(Meter {
        carried: AtomicU64::new(0),
        most: args.most,
    });
    let meter = Arc::clone(&tap);
    thread::spawn(move || {
        for _ in io::stdin().lock().lines() {
            say(meter.carried.load(Ordering::Relaxed));
        }
    });
    let config = RelayConfig {
        listen: Some(([127, 0, 0, 1], args.port).into()),
        tap: Some(tap),
        ..RelayConfig::new(args.state)
    };
    let runtime = tokio::runtime::Runtime::new()?;
    Ok(runtime.block_on(patchwire_relay::run(config, std::future::pending()))?)
}

/// Counts what goes to the agent.
struct Meter {
    carried: AtomicU64,
    most: u64,
}

impl Tap for Meter {
    fn carried(&self, direction: Direction, bytes: &[u8]) {
        if direction != Direction::ToAgent {
            return;
        }
        let bytes = bytes.len() as u64;
        let carried = self.carried.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Several threads carry: the one that crosses the line says so.
        if carried >= self.most && carried - bytes < self.most {
            say(carried);
            // Nobody is told, as when the machine goes down.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes", self.carried, self.most)
    }
}

fn say(carried: u64) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{carried}");
    let _ = out.flush();
}
