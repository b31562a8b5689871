//! `patchwire watch`.

use std::process::ExitCode;

use patchwire_client::{PushRequest, WatchEvent, WatchOptions, config::Project};

use crate::{
    cli::{Watch, WatchTimes},
    context::Context,
    failure::Failure,
    live::Live,
    output::{self, watch::Said},
    signals::Signals,
    writer::Writer,
};

pub(crate) async fn run(context: &Context, watch: Watch) -> Result<ExitCode, Failure> {
    let project = context.project()?;
    let client = context.client_of(context.link(&project)?);
    let request = |project: &Project| {
        project.check_link(client.link())?;
        let request = PushRequest {
            message: watch.message.clone(),
            ..context.request(project)?
        };
        Ok((request, options(project, watch.times)))
    };
    // What can't be used at the start is a mistake in the command, and no news.
    request(&project)?;
    let mut signals = Signals::to_end()?;
    let link = client.link();
    let quiet = context.options.quiet;
    let writer = Writer::new(quiet);
    // Where nobody reads results any more, saves are pushed all the same.
    let write = |write: fn(&str), text: String| {
        writer.write(move || {
            write(&text);
            true
        });
    };
    if !quiet {
        let deployment = format!("{}/{}", link.app(), link.deployment());
        let beginning = output::watch::beginning(&project.root, &deployment);
        write(output::complain, beginning);
    }
    let observe = |event: WatchEvent| {
        match &event {
            WatchEvent::Progress(step) => return writer.progress(*step),
            WatchEvent::Pushing { .. } | WatchEvent::Scanned { .. } | WatchEvent::App(_) => return,
            _ => {}
        }
        writer.end_progress();
        let event = match event {
            WatchEvent::Pushed { report, .. } if watch.json => {
                return writer.write(move || {
                    output::json(&report);
                    true
                });
            }
            event => event,
        };
        match output::watch::human(&event) {
            Said::Nothing => {}
            Said::Result(text) => write(output::text, text),
            Said::Notice(text) if quiet => drop(text),
            Said::Notice(text) | Said::Complaint(text) => write(output::complain, text),
        }
    };
    let live = Live {
        context,
        client: &client,
        project: &project,
        request: &request,
        observe: &observe,
        say: &|text| write(output::complain, text),
    };
    let ended = tokio::select! {
        ended = Box::pin(live.watch()) => Ok(ended),
        exit_code = signals.next() => Err(exit_code),
    };
    // So that the agent doesn't wait for what will not come any more.
    client.close().await;
    writer.end().await;
    match ended {
        Ok(Err(error)) => Err(error.into()),
        // The way in which a watch is meant to end: with what shells make of the signal.
        Err(exit_code) => Ok(ExitCode::from(exit_code)),
    }
}

/// What the command line says of when to push, then what the file says.
pub(crate) fn options(project: &Project, times: WatchTimes) -> WatchOptions {
    let (defaults, file) = (WatchOptions::default(), &project.settings.watch);
    WatchOptions {
        quiet: times
            .quiet_time
            .or(file.quiet_time)
            .unwrap_or(defaults.quiet),
        max: times.max_wait.or(file.max_wait).unwrap_or(defaults.max),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_command_line_wins_over_the_file_and_that_over_the_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("patchwire.toml");
        std::fs::write(file, "[watch]\nquiet_time = \"1s\"\n").unwrap();
        let project = Project::find(directory.path(), None).unwrap();
        let times = |quiet_time| {
            let max_wait = None;
            options(
                &project,
                WatchTimes {
                    quiet_time,
                    max_wait,
                },
            )
        };
        let two = Duration::from_secs(2);
        assert_eq!(times(None).quiet, Duration::from_secs(1));
        assert_eq!(times(Some(two)).quiet, two);
        assert_eq!(times(None).max, WatchOptions::default().max);
    }
}
