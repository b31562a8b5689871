//! `patchwire watch`.

use std::{
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use patchwire_client::{PushRequest, WatchEvent, WatchOptions, config::Project};

use crate::{
    cli::{Watch, WatchTimes},
    context::{self, Context},
    failure::Failure,
    output::{self, watch::Said},
    progress::PushProgress,
    signals::Signals,
};

pub(crate) async fn run(context: &Context, watch: Watch) -> Result<ExitCode, Failure> {
    let project = context.project()?;
    let client = context.client(&project)?;
    let request = PushRequest {
        scan: project.scan_options(),
        message: watch.message,
        author: context::author(),
        app: project.app_options(context::variable)?,
        ..PushRequest::new(&project.root, context.directories()?.state)
    };
    let options = options(&project, watch.times);
    let mut signals = Signals::to_end()?;
    let link = client.link();
    let quiet = context.options.quiet;
    if !quiet {
        let deployment = format!("{}/{}", link.app(), link.deployment());
        output::complain(&output::watch::beginning(&project.root, &deployment));
    }
    let progress = Mutex::new(None::<PushProgress>);
    let observe = |event: WatchEvent| {
        // Nothing panics while it is held.
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        match &event {
            WatchEvent::Progress(step) => {
                let progress = progress.get_or_insert_with(|| PushProgress::new(quiet));
                return progress.show(*step);
            }
            WatchEvent::Pushing { .. } | WatchEvent::Scanned { .. } => return,
            _ => {}
        }
        if let Some(progress) = progress.take() {
            progress.end();
        }
        if let (true, WatchEvent::Pushed { report, .. }) = (watch.json, &event) {
            return output::json(report);
        }
        match output::watch::human(&event) {
            Said::Nothing => {}
            Said::Result(text) => output::text(&text),
            Said::Notice(text) if quiet => drop(text),
            Said::Notice(text) | Said::Complaint(text) => output::complain(&text),
        }
    };
    let ended = tokio::select! {
        ended = Box::pin(client.watch(&request, &options, &observe)) => Ok(ended),
        exit_code = signals.next() => Err(exit_code),
    };
    if let Some(progress) = progress
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
    {
        progress.end();
    }
    // So that the agent doesn't wait for what will not come any more.
    client.close().await;
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
