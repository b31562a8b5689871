//! `patchwire push`.

use std::process::ExitCode;

use patchwire_client::PushRequest;

use crate::{cli::Push, context::Context, failure::Failure, output, progress::PushProgress};

pub(crate) async fn run(context: &Context, push: Push) -> Result<ExitCode, Failure> {
    let project = context.project()?;
    let client = context.client(&project)?;
    let request = PushRequest {
        message: push.message,
        force: push.force,
        mirror: push.mirror,
        dry_run: push.dry_run,
        ..context.request(&project)?
    };
    let progress = PushProgress::new(context.options.quiet);
    let pushed = {
        let show = |step| progress.show(step);
        tokio::select! {
            pushed = client.push(&request, &show) => Some(pushed),
            _ = tokio::signal::ctrl_c() => None,
        }
    };
    progress.end();
    // So that the agent doesn't wait for what will not come any more.
    client.close().await;
    let interrupted = || Failure::new(130, "interrupted", anyhow::anyhow!("interrupted"));
    let report = pushed.ok_or_else(interrupted)??;
    match push.json {
        true => output::json(&report),
        false => output::text(&output::push::human(&report)),
    }
    Ok(report.exit_code().into())
}
