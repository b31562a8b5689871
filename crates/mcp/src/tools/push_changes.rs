//! `push_changes`: brings the app to what a root holds.

use patchwire_client::{Progress, PushRequest, report::PushReport};
use patchwire_protocol::message::push::Phase;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Outcome;
use crate::{
    failure::Failure,
    output,
    server::{
        roots::{Roots, Target},
        steps::Steps,
    },
};

pub(crate) const NAME: &str = "push_changes";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// The project's directory, absolute or relative to the server's. Default: the server's own root
    root: Option<String>,
    /// The app's name, to make sure of it: it has to be the one of the root's link
    app: Option<String>,
    /// The deployment's name, to make sure of it: it has to be the one of the root's link
    deployment: Option<String>,
    /// What others read of this push
    message: Option<String>,
    /// Replace what another client pushed since, and delete however much is gone here
    #[schemars(extend("default" = false))]
    force: Option<bool>,
    /// Only say what would be pushed
    #[schemars(extend("default" = false))]
    dry_run: Option<bool>,
}

pub(crate) fn definition() -> Tool {
    let annotations = ToolAnnotations::new()
        .read_only(false)
        // It replaces and deletes files where the app runs, and restarts the app.
        .destructive(true)
        // The same files pushed again change nothing.
        .idempotent(true)
        // It reaches the one deployment that the root is linked to, and nothing else.
        .open_world(false);
    super::definition::<Arguments, PushReport>(
        NAME,
        "Push changes",
        "Brings the running app to what the project's directory holds, as a whole or not at all, \
         and waits until it is ready. If the new code does not get ready, the previous code is \
         brought back, and the result is an error with the app's last output. Nothing is sent for \
         files that did not change.",
        annotations,
    )
}

pub(crate) async fn call(
    roots: &Roots,
    arguments: JsonObject,
    steps: &Steps,
) -> Result<Outcome, Failure> {
    let arguments: Arguments = super::parse(arguments)?;
    let (project, connection) = roots.find(Target {
        root: arguments.root.as_deref(),
        app: arguments.app.as_deref(),
        deployment: arguments.deployment.as_deref(),
    })?;
    let request = PushRequest {
        message: arguments.message.unwrap_or_default(),
        force: arguments.force.unwrap_or_default(),
        dry_run: arguments.dry_run.unwrap_or_default(),
        ..roots.context.request(&project)?
    };
    let show = |step| steps.show(step);
    show(Progress::Scanning {
        entries: 0,
        files: (0, 0),
    });
    let _turn = match connection.pushing.try_lock() {
        Ok(turn) => turn,
        Err(_) => {
            show(Progress::Agent(Phase::Queued));
            connection.pushing.lock().await
        }
    };
    // Where it comes to no report, what was kept before still is.
    let client = &connection.client;
    let mut report = client.push_warm(&request, &connection.tree, &show).await?;
    if !request.dry_run {
        connection.keep(request, &report);
    }
    report.warnings.extend(connection.keeper.take_note());
    let failed = report.exit_code() != 0;
    let text = output::push::for_tool(&report);
    Ok(Outcome::new(text, &report, failed))
}
