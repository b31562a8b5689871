//! `patchwire demo`: a relay, an agent and an app as processes of this machine, and three pushes.
//!
//! Every step is checked: what is said to have happened has been seen.

use std::{env, fs, future::ready, io, path::PathBuf, pin::pin, process::ExitCode};

use anyhow::{Context as _, Error, anyhow, ensure};
use patchwire_client::{
    Client, PushRequest,
    config::{self, Project},
    report::{PushReport, ReportStatus},
};
use patchwire_transport::DeploymentLink;
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    cli::Demo,
    context::{self, Context},
    failure::Failure,
    local::{AgentLaunch, DEVELOPER_LINK, Local, Process},
    output,
    progress::PushProgress,
};

mod page;

/// The app, which `examples/` holds for those who go on from here.
const APP: &str = include_str!("../../../../examples/hello-python/app.py");
const FIRST_MESSAGE: &str = "Hello from Patchwire";
const SECOND_MESSAGE: &str = "Hello again, a moment later";
/// What the mistake puts before the app's first definition.
const MISTAKE: &str = "raise RuntimeError(\"this version can't start\")\n\n\nclass Page";

pub(crate) async fn run(context: &Context, demo: &Demo) -> Result<ExitCode, Failure> {
    find_python().await?;
    let failed = |error: Error| Failure::failed("demo", error);
    let interrupted = patchwire_agent::shutdown_signal().map_err(|error| failed(error.into()))?;
    let mut interrupted = pin!(interrupted);
    let interruption = || Failure::new(130, "interrupted", anyhow!("interrupted"));
    let mut stage = Stage::new().map_err(failed)?;

    let told = tokio::select! {
        biased;
        () = &mut interrupted => None,
        told = tell(&mut stage, context) => Some(told),
    };
    match told {
        Some(Ok(())) if demo.keep => stage.leave().map_err(failed)?,
        Some(Ok(())) => {
            stage.end().await.map_err(failed)?;
            output::line("\nRelay, agent and app have ended, and their files are removed.");
        }
        Some(Err(failure)) => {
            stage.end().await.map_err(failed)?;
            // A process leads its own group only once it runs: one that was just being started may
            // have heard the terminal's interrupt too, and failed of it before we knew.
            return Err(tokio::select! {
                biased;
                () = interrupted => interruption(),
                () = ready(()) => failure,
            });
        }
        None => {
            stage.end().await.map_err(failed)?;
            return Err(interruption());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The directory and the processes of a demo.
#[derive(Debug)]
struct Stage {
    directory: TempDir,
    /// Those that run, in the order in which they were started.
    processes: Vec<Process>,
    app_port: u16,
}

impl Stage {
    fn new() -> Result<Self, Error> {
        let made = tempfile::Builder::new().prefix("patchwire-demo-").tempdir();
        let stage = Self {
            directory: made.context("can't make a temporary directory")?,
            processes: Vec::new(),
            app_port: page::free_port().context("can't find a free port")?,
        };
        for directory in [stage.source(), stage.root()] {
            fs::create_dir(&directory)
                .with_context(|| format!("can't make “{}”", directory.display()))?;
        }
        Ok(stage)
    }

    /// The developer's directory.
    fn source(&self) -> PathBuf {
        self.path("source")
    }

    /// The agent's directory.
    fn root(&self) -> PathBuf {
        self.path("app")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a version of the app's source.
    fn write_app(&self, source: &str) -> Result<(), Error> {
        let path = self.source().join("app.py");
        fs::write(&path, source).with_context(|| format!("can't write “{}”", path.display()))
    }

    /// Starts relay and agent, and gives the developer's link to their deployment.
    async fn start(&mut self) -> Result<DeploymentLink, Error> {
        let (relay, relay_link) = self.local().start_relay().await?;
        self.processes.push(relay);
        let link = DeploymentLink::mint(&relay_link, "hello".parse()?, "demo".parse()?)?;
        let port = self.app_port.to_string();
        let agent = self.local().start_agent(
            &link,
            &AgentLaunch {
                options: &["--root=app"],
                command: &["python3".into(), "app.py".into(), port.into()],
                environment: &[],
                output: false,
            },
        )?;
        self.processes.push(agent);

        let ready = self.url();
        let file = format!("app = \"hello\"\ndeployment = \"demo\"\nready = \"{ready}\"\n");
        fs::write(self.source().join(config::FILE_NAME), file)?;
        Ok(link)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.app_port)
    }

    fn local(&self) -> Local {
        Local {
            directory: self.directory.path().to_owned(),
            // What is left running outlives us.
            held: false,
            verbose: 0,
        }
    }

    /// Ends everything and removes it.
    async fn end(self) -> Result<(), Error> {
        // The agent goes before the relay, and ends the app.
        for process in self.processes.into_iter().rev() {
            process.end().await?;
        }
        self.directory
            .close()
            .context("can't remove the demo's files")
    }

    /// Leaves everything running, and says how to go on.
    fn leave(self) -> Result<(), Error> {
        // The mistake is not what one wants to begin with.
        self.write_app(&second_version())?;
        let program = env::current_exe()?;
        let (program, source, url) = (program.display(), self.source(), self.url());
        let source = source.display();
        let link = self.path(DEVELOPER_LINK);
        let link = link.display();
        let ids: Vec<String> = self.processes.iter().rev().map(Process::id).collect();
        let ids = ids.join(" ");
        let directory = self.directory.keep();
        for process in self.processes {
            process.leave();
        }
        output::line(&format!(
            "
Relay, agent and app go on running; the app is at {url}
Edit {source}/app.py and push it:
    {program} push --root {source} --link @{link}
End them, and remove their files:
    kill {ids}
    rm -r {}",
            directory.display()
        ));
        Ok(())
    }
}

/// The demo from its first push to its last.
async fn tell(stage: &mut Stage, context: &Context) -> Result<(), Failure> {
    let failed = |error: Error| Failure::failed("demo", error);
    output::line("Starting a relay and an agent as processes of their own on this machine.");
    let link = stage.start().await.map_err(failed)?;
    let developer = Developer::new(stage, link, context)?;
    let url = stage.url();

    output::line("\n1. The first push: a small web app.");
    stage.write_app(APP).map_err(failed)?;
    let report = developer.push(stage, ReportStatus::Done).await?;
    let served = page::get(stage.app_port).await.map_err(failed)?;
    expect(&served, FIRST_MESSAGE, &report).map_err(failed)?;
    output::line(&format!("   {url} serves: {served}"));

    output::line(&format!(
        "\n2. Its source is edited: the message becomes “{SECOND_MESSAGE}”."
    ));
    stage.write_app(&second_version()).map_err(failed)?;
    let report = developer.push(stage, ReportStatus::Done).await?;
    let served = page::get(stage.app_port).await.map_err(failed)?;
    expect(&served, SECOND_MESSAGE, &report).map_err(failed)?;
    output::line(&format!("   {url} serves: {served}"));

    output::line("\n3. A mistake: this version raises an error as it starts.");
    let broken = second_version().replacen("class Page", MISTAKE, 1);
    stage.write_app(&broken).map_err(failed)?;
    developer.push(stage, ReportStatus::RolledBack).await?;
    let still = page::get(stage.app_port).await.map_err(failed)?;
    expect(&still, SECOND_MESSAGE, &report).map_err(failed)?;
    output::line(&format!("   {url} still serves: {still}"));
    Ok(())
}

/// The app's second version.
fn second_version() -> String {
    APP.replacen(FIRST_MESSAGE, SECOND_MESSAGE, 1)
}

/// Checks that a page is what a push brought.
fn expect(served: &str, message: &str, report: &PushReport) -> Result<(), Error> {
    let id = report.push_id.to_string();
    ensure!(
        served.contains(message) && served.contains(&id),
        "the app serves “{}”, not “{message}” of push {id}",
        served.escape_debug()
    );
    Ok(())
}

/// The developer's side.
struct Developer {
    client: Client,
    request: PushRequest,
    quiet: bool,
}

impl Developer {
    fn new(stage: &Stage, link: DeploymentLink, context: &Context) -> Result<Self, Failure> {
        let project = Project::find(&stage.source(), None)?;
        let request = PushRequest {
            scan: project.scan_options(),
            author: context::author(),
            app: project.app_options(context::variable)?,
            ..PushRequest::new(&project.root, stage.path("state"))
        };
        Ok(Self {
            client: context.client_of(link),
            request,
            quiet: context.options.quiet,
        })
    }

    /// Pushes, and says how it ended: as expected, or that is an error.
    async fn push(&self, stage: &Stage, expected: ReportStatus) -> Result<PushReport, Failure> {
        let progress = PushProgress::new(self.quiet);
        let show = |step| progress.show(step);
        let pushed = self.client.push(&self.request, &show).await;
        progress.end();
        let report = pushed?;
        for line in output::push::human(&report).lines() {
            output::line(&format!("   {line}"));
        }
        output::line(&format!("   {}", output::push::timings(&report.timings_ms)));
        if report.status != expected {
            let (was, expected) = (report.status.as_str(), expected.as_str());
            let error = Err(anyhow!("the push ended as {was}, not as {expected}"));
            return stage
                .local()
                .with_log(error, "agent")
                .map_err(|error| Failure::failed("demo", error));
        }
        Ok(report)
    }
}

/// Makes sure that the app can be run.
async fn find_python() -> Result<(), Failure> {
    let found = Command::new("python3").arg("--version").output().await;
    let found = found.and_then(|output| match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("it ends with {}", output.status))),
    });
    found
        .context("the demo's app needs python3, and it can't be run: install it, and try again")
        .map_err(|error| Failure::new(2, "no-python3", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_of_the_app_differs() {
        assert!(APP.contains(FIRST_MESSAGE));
        assert!(second_version().contains(SECOND_MESSAGE));
        assert!(
            second_version()
                .replacen("class Page", MISTAKE, 1)
                .contains("raise")
        );
    }
}
