//! `patchwire dev`: the user's own app in a synced copy on this machine, pushed to as files are
//! saved, through a relay and an agent that are processes of their own.

use std::{convert::Infallible, ffi::OsString, future::ready, process::ExitCode};

use anyhow::{Error, anyhow};
use patchwire_client::{PushRequest, config::Project};
use patchwire_protocol::app::ReadyCheck;

use super::watch;
use crate::{
    cli::Dev,
    context::{self, Context},
    embedded,
    failure::Failure,
    live::{Configured, Live},
    local::{AgentLaunch, Local, Process},
    output::{
        self,
        dev::{Places, Stream},
    },
    signals::Signals,
};

mod dependencies;
mod events;
mod place;
mod program;
mod screen;

use dependencies::Links;
use events::Observer;
use place::Place;
use screen::Screen;

/// Makes Python write its lines when they are printed, as it does on a terminal.
const UNBUFFERED: (&str, &str) = ("PYTHONUNBUFFERED", "1");

pub(crate) async fn run(context: &Context, dev: Dev) -> Result<ExitCode, Failure> {
    let mut signals = Signals::to_end_or_hang_up()?;
    let project = context.project()?;
    let root = &project.root;
    let app = project.app_options(context::variable)?;
    let search = program::search(app.environment.iter());
    program::check(&dev.command[0], root, search.as_deref())
        .map_err(|error| Failure::new(2, "no-command", error))?;
    let state = context.directories()?.state;
    let place = tokio::select! {
        place = Place::open(&state, root, dev.fresh) => place?,
        signal = signals.next() => return Ok(ExitCode::from(signal)),
    };
    let request = |project: &Project| configured(project, &dev, &place);
    // What can't be used at the start is a mistake in the command, and no news.
    request(&project)?;

    let places = Places {
        copy: place.copy(),
        root: root.clone(),
    };
    let screen = Screen::new(context.options.quiet, places.clone());
    screen.mention(&output::dev::beginning(&places));
    let observer = Observer::new(&screen, Links::open(root, &place.copy(), &place.directory));
    let mut stage = Stage {
        local: Local {
            directory: place.directory.clone(),
            held: true,
            verbose: context.options.verbose,
        },
        relay: None,
        agent: None,
    };
    let ended = tokio::select! {
        biased;
        exit_code = signals.next() => Ok(exit_code),
        // As a program that writes to a pipe which nobody reads.
        () = screen.closed() => Ok(0),
        failed = stage.play(context, &project, &dev.command, &request, &place, &observer) => match failed {
            Ok(never) => match never {},
            // A process leads its own group only once it runs: one that was just being started may
            // have heard the terminal's interrupt too, and failed of it before we knew.
            Err(failure) => tokio::select! {
                biased;
                exit_code = signals.next() => Ok(exit_code),
                () = ready(()) => Err(failure),
            },
        },
    };
    tokio::select! {
        () = stage.end() => {}
        // What is dropped is killed, and the agent's guard ends the app.
        _ = signals.next() => {}
    }
    screen.end().await;
    ended.map(ExitCode::from)
}

/// What is pushed to the copy, and when: by the flags, then by the file.
fn configured(project: &Project, dev: &Dev, place: &Place) -> Configured {
    let mut app = project.app_options(context::variable)?;
    app.ready = dev.ready.clone().or(app.ready).or(Some(ReadyCheck::Auto));
    app.reload = dev.reload.clone().or(app.reload);
    let mut request = PushRequest {
        scan: project.scan_options(),
        author: context::author(),
        // The copy is nobody's only one.
        delete_any: true,
        app,
        ..PushRequest::new(&project.root, place.directory.join("memory"))
    };
    let mut ignore = dependencies::patterns(&project.root);
    ignore.extend(place.pattern(&project.root)?);
    // Before the user's own, which have the last word.
    request.scan.ignore.splice(0..0, ignore);
    Ok((request, watch::options(project, dev.times)))
}

/// The processes.
#[derive(Debug)]
struct Stage {
    local: Local,
    relay: Option<Process>,
    agent: Option<Process>,
}

impl Stage {
    /// Starts them, and pushes until something fails.
    async fn play(
        &mut self,
        context: &Context,
        project: &Project,
        command: &[OsString],
        request: &(dyn Fn(&Project) -> Configured + Sync),
        place: &Place,
        observer: &Observer<'_>,
    ) -> Result<Infallible, Failure> {
        let failed = |error: Error| Failure::failed("dev", error);
        let (relay, relay_link) = self.local.start_relay().await.map_err(failed)?;
        let relay = self.relay.insert(relay);
        let link = place.link(&relay_link).map_err(failed)?;
        let environment = [UNBUFFERED];
        let is_set = context::variable(UNBUFFERED.0).is_some();
        let launch = AgentLaunch {
            options: &[
                &format!("--root={}", place::COPY),
                &format!("--state={}", place::AGENT_STATE),
            ],
            command,
            environment: if is_set { &[] } else { &environment },
            output: true,
        };
        let agent = self.local.start_agent(&link, &launch).map_err(failed)?;
        let agent = self.agent.insert(agent);
        if let Some((stdout, stderr)) = agent.output() {
            observer.screen.pass(Stream::Stdout, stdout);
            observer.screen.pass(Stream::Stderr, stderr);
        }
        let client = context.client_of(link);
        let live = Live {
            context,
            client: &client,
            project,
            request,
            observe: &|event| observer.observe(event),
            say: &|text| observer.screen.say(&text),
        };
        let (process, status) = tokio::select! {
            failed = Box::pin(live.watch()) => match failed {
                Ok(never) => match never {},
                Err(error) => return Err(error.into()),
            },
            status = agent.wait() => (embedded::AGENT, status),
            status = relay.wait() => (embedded::RELAY, status),
        };
        let error = match status {
            Ok(status) => anyhow!("the {process} ended by itself: {status}"),
            Err(error) => Error::new(error).context(format!("the {process} is lost")),
        };
        self.local.with_log(Err(error), process).map_err(failed)
    }

    /// Ends what was started.
    async fn end(self) {
        // The agent goes before the relay, and ends the app.
        for process in [self.agent, self.relay].into_iter().flatten() {
            if let Err(error) = process.end().await {
                tracing::warn!("{error:#}");
            }
        }
    }
}
