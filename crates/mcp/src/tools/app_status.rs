//! `app_status`: how the agent and its app are.

use patchwire_client::report::StatusReport;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Outcome;
use crate::{
    failure::Failure,
    output,
    server::roots::{Roots, Target},
};

pub(crate) const NAME: &str = "app_status";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// The project's directory, absolute or relative to the server's. Default: the server's own root
    root: Option<String>,
    /// The app's name, to make sure of it: it has to be the one of the root's link
    app: Option<String>,
    /// The deployment's name, to make sure of it: it has to be the one of the root's link
    deployment: Option<String>,
}

pub(crate) fn definition() -> Tool {
    let annotations = ToolAnnotations::new()
        .read_only(true)
        .destructive(false)
        .idempotent(true)
        .open_world(false);
    super::definition::<Arguments, StatusReport>(
        NAME,
        "App status",
        "Tells whether the app runs, whether it was seen ready, and which push stands.",
        annotations,
    )
}

pub(crate) async fn call(roots: &Roots, arguments: JsonObject) -> Result<Outcome, Failure> {
    let arguments: Arguments = super::parse(arguments)?;
    let (_, connection) = roots.find(Target {
        root: arguments.root.as_deref(),
        app: arguments.app.as_deref(),
        deployment: arguments.deployment.as_deref(),
    })?;
    let report = StatusReport::from(connection.client.status().await?);
    let mut text = output::status::human(&report);
    text.extend(connection.keeper.take_note().map(output::warning));
    Ok(Outcome::new(text, &report, false))
}
