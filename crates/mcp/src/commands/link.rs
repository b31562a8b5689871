//! `patchwire link`: makes deployment links, and narrows them.

use std::process::ExitCode;

use patchwire_transport::{DeploymentLink, RelayLink};

use crate::{cli::Link, context::Context, failure::Failure, output};

pub(crate) fn run(context: &Context, link: Link) -> Result<ExitCode, Failure> {
    let made = match (link.agent, link.app, link.deployment, link.relay) {
        (Some(Some(source)), ..) => source.read::<DeploymentLink>()?.narrow(),
        (Some(None), ..) => narrow_own(context)?,
        (None, Some(app), Some(deployment), Some(relay)) => {
            DeploymentLink::mint(&relay.read::<RelayLink>()?, app, deployment)?
        }
        _ => {
            return Err(Failure::usage(anyhow::anyhow!(
                "app, deployment and the relay's link are needed: \
                 patchwire link APP DEPLOYMENT --relay LINK"
            )));
        }
    };
    output::line(&made.expose());
    Ok(ExitCode::SUCCESS)
}

/// Narrows the link that is given otherwise, or recorded for the root.
fn narrow_own(context: &Context) -> Result<DeploymentLink, Failure> {
    match context.link_options().given()? {
        Some(link) => Ok(link.narrow()),
        None => Ok(context.link(&context.project()?)?.narrow()),
    }
}
