//! Relay, agents and developers as real processes on this machine.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::fs::syncfs;
use serde_json::Value;

use super::{
    process::{cpu_of, peak_of},
    sample::Sample,
    server::Server,
};
use crate::{
    child::{Dialogue, Interruption, Running},
    measure::{Cost, Resident},
    programs::{Programs, isolate},
};

/// How long anything may take. What takes longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// An app that costs nothing.
const APP: [&str; 2] = ["sleep", "1000000"];

/// The directory of a run, and the relay in it.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) dir: PathBuf,
    pub(crate) interruption: Interruption,
    programs: Programs,
    relay: Dialogue,
}

impl Site {
    /// Starts the relay.
    pub(crate) fn open(
        dir: &Path,
        programs: &Programs,
        interruption: &Interruption,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(programs.path("patchwire-relay"));
        isolate(&mut command, dir);
        command.args(["--listen", "127.0.0.1:0", "--state"]);
        command.arg(dir.join("relay"));
        command.arg("--link-file").arg(dir.join(RELAY_LINK));
        command.stderr(File::create(dir.join("relay.log"))?);
        let mut relay = Dialogue::start(command, interruption)?;
        // Once it has said its link, it is there.
        let link = relay.hear(Instant::now() + PATIENCE)?;
        link.context("the relay says nothing")?;
        Ok(Self {
            dir: dir.to_owned(),
            interruption: interruption.clone(),
            programs: programs.clone(),
            relay,
        })
    }

    /// Makes a deployment with an agent that is attached, whose root is empty.
    pub(crate) fn deploy(&self, name: &str) -> anyhow::Result<Deployment<'_>> {
        self.deploy_at(name, &self.dir.join(RELAY_LINK))
    }

    /// The same through another relay.
    pub(crate) fn deploy_at(
        &self,
        name: &str,
        relay_link: &Path,
    ) -> anyhow::Result<Deployment<'_>> {
        let dir = self.dir.join("deployments").join(name);
        let root = dir.join("root");
        fs::create_dir_all(&root)?;
        fs::create_dir(dir.join(HOME))?;
        let mut deployment = Deployment {
            site: self,
            root,
            agent: None,
            dir,
        };
        let mut mint = deployment.patchwire();
        mint.args(["link", name, "bench", "--relay"]);
        mint.arg(at(relay_link));
        self.run(mint, &deployment.dir.join(LINK))?;
        let mut narrow = deployment.patchwire();
        narrow
            .args(["link", "--agent"])
            .arg(at(&deployment.dir.join(LINK)));
        self.run(narrow, &deployment.dir.join(AGENT_LINK))?;
        deployment.start_agent()?;
        Ok(deployment)
    }

    /// Runs a command that prints to this file, and says what it has cost.
    pub(crate) fn run(&self, mut command: Command, output: &Path) -> anyhow::Result<Cost> {
        let program = PathBuf::from(command.get_program());
        let errors = self.dir.join("stderr");
        command
            .stdin(Stdio::null())
            .stdout(File::create(output)?)
            .stderr(File::create(&errors)?);
        // A program begins as a copy of this process, and the kernel counts that into its peak. Where
        // it can't be reset that is a little more.
        let _ = Resident::reset_peak();
        let started = Instant::now();
        let mut running = Running::start(command)?;
        let ended = running.wait(&self.interruption, started + PATIENCE)?;
        let wall = started.elapsed();
        let ended = ended.with_context(|| format!("{} does not end", program.display()))?;
        if !ended.status.success() {
            self.interruption.check()?;
            let said = [fs::read(&errors)?, fs::read(output)?].concat();
            let said = String::from_utf8_lossy(&said);
            bail!("{} has failed, {}: {said}", program.display(), ended.status);
        }
        Ok(Cost {
            cpu: ended.rusage.utime + ended.rusage.stime,
            wall,
            peak_bytes: Some(ended.rusage.maxrss),
        })
    }

    /// Waits until nothing is left to be written, so that nobody pays for what others wrote.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        Ok(syncfs(File::open(&self.dir)?)?)
    }
}

/// A developer and an agent.
#[derive(Debug)]
pub(crate) struct Deployment<'a> {
    site: &'a Site,
    dir: PathBuf,
    /// What the agent's pushes change.
    pub(crate) root: PathBuf,
    /// `None` while there is none.
    agent: Option<Running>,
}

impl Deployment<'_> {
    fn start_agent(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(self.site.programs.path("patchwire-agent"));
        isolate(&mut command, &self.dir);
        command.args(["run", "--reload=none", "--ready=alive:1ms", "--link"]);
        command.arg(at(&self.dir.join(AGENT_LINK)));
        command.arg("--root").arg(&self.root);
        command.arg("--state").arg(self.dir.join(STATE));
        command.arg("--").args(APP);
        let log = File::create(self.dir.join("agent.log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.agent = Some(Running::start(command)?);
        // It waits until there is an agent.
        let mut status = self.patchwire();
        status.args(["status", "--wait=60s", "--link"]);
        status.arg(at(&self.dir.join(LINK)));
        self.site.run(status, &self.dir.join("status"))?;
        Ok(())
    }

    /// Ends the agent as its host does.
    fn stop_agent(&mut self) -> anyhow::Result<()> {
        if let Some(agent) = self.agent.take() {
            agent.terminate(&self.site.interruption, Instant::now() + PATIENCE)?;
        }
        Ok(())
    }

    /// Ends the agent, and starts it again.
    pub(crate) fn restart_agent(&mut self) -> anyhow::Result<()> {
        self.stop_agent()?;
        self.start_agent()
    }

    /// Gives the agent's root to an agent that knows nothing of it, as a new container of the same
    /// image does.
    pub(crate) fn lose_base(&mut self) -> anyhow::Result<()> {
        self.stop_agent()?;
        fs::remove_dir_all(self.dir.join(STATE))?;
        self.start_agent()
    }

    /// Removes all that the developer's side remembers.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        let home = self.dir.join(HOME);
        fs::remove_dir_all(&home)?;
        Ok(fs::create_dir(home)?)
    }

    fn patchwire(&self) -> Command {
        let mut command = Command::new(self.site.programs.path("patchwire"));
        isolate(&mut command, &self.dir.join(HOME));
        command
    }

    fn push_command(&self, source: &Path) -> Command {
        let mut command = self.patchwire();
        command.args(["push", "--json", "--link"]);
        command.arg(at(&self.dir.join(LINK)));
        command.arg("--root").arg(source);
        command
    }

    /// Starts the push of a directory, of which nothing is measured.
    pub(crate) fn start_push(&self, source: &Path) -> anyhow::Result<Running> {
        let log = File::create(self.dir.join("push.log"))?;
        let mut command = self.push_command(source);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Running::start(command)
    }

    /// Pushes a directory by a command of its own.
    pub(crate) fn push(&self, source: &Path) -> anyhow::Result<Sample> {
        let command = self.push_command(source);
        let output = self.dir.join("push.json");
        let before = self.serving()?;
        let cost = self.site.run(command, &output)?;
        let report: Value = serde_json::from_slice(&fs::read(&output)?)?;
        self.sample(cost, before, &report)
    }

    /// Starts a server for an editor or an agent of the developer's, which pushes a directory.
    pub(crate) fn serve(&self, source: &Path) -> anyhow::Result<Server> {
        let mut command = self.patchwire();
        command
            .args(["mcp", "--link"])
            .arg(at(&self.dir.join(LINK)));
        command.arg("--root").arg(source).current_dir(source);
        command.stderr(File::create(self.dir.join("mcp.log"))?);
        Server::greet(Dialogue::start(command, &self.site.interruption)?)
    }

    /// Pushes by a server that was started before.
    pub(crate) fn push_by(&self, server: &mut Server) -> anyhow::Result<Sample> {
        let before = self.serving()? + cpu_of(server.id())?;
        let started = Instant::now();
        let report = server.push()?;
        let cost = Cost {
            wall: started.elapsed(),
            cpu: cpu_of(server.id())?,
            peak_bytes: Some(peak_of(server.id())?),
        };
        self.sample(cost, before, &report)
    }

    /// The most memory that the agent had since it was started.
    pub(crate) fn agent_peak(&self) -> anyhow::Result<u64> {
        peak_of(self.agent.as_ref().context("there is no agent")?.id()?)
    }

    /// What relay and agent have spent on a processor so far.
    fn serving(&self) -> anyhow::Result<Duration> {
        let agent = self.agent.as_ref().context("there is no agent")?;
        Ok(cpu_of(agent.id()?)? + cpu_of(self.site.relay.running().id()?)?)
    }

    /// What a push has cost all, where this much was spent before.
    fn sample(&self, cost: Cost, before: Duration, report: &Value) -> anyhow::Result<Sample> {
        let status = report["status"].as_str();
        ensure!(
            matches!(status, Some("done" | "no-changes")),
            "a push did not succeed: {report:#}"
        );
        let bytes = |way: &str| {
            let bytes = report["bytes"][way].as_u64();
            bytes.with_context(|| format!("no bytes {way} in {report:#}"))
        };
        let timings = report["timings_ms"].as_object();
        let timings = timings.context("a report has its timings")?;
        Ok(Sample {
            cpu: Some((cost.cpu + self.serving()?).saturating_sub(before)),
            sent: Some(bytes("sent")?),
            received: Some(bytes("received")?),
            timings_ms: timings
                .iter()
                .filter_map(|(stage, ms)| Some((stage.clone(), ms.as_f64()?)))
                .collect(),
            ..cost.into()
        })
    }

    /// Ends everything, and removes what there was.
    pub(crate) fn remove(mut self) -> anyhow::Result<()> {
        self.stop_agent()?;
        Ok(fs::remove_dir_all(&self.dir)?)
    }
}

/// `@FILE`
fn at(file: &Path) -> OsString {
    let mut text = OsString::from("@");
    text.push(file);
    text
}

const RELAY_LINK: &str = "relay.link";
const LINK: &str = "link";
const AGENT_LINK: &str = "agent-link";
const HOME: &str = "home";
const STATE: &str = "state";
