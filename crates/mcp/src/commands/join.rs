//! `patchwire join`: records a link for a root.

use std::process::ExitCode;

use patchwire_transport::DeploymentLink;

use crate::{cli::Join, context::Context, failure::Failure, output};

pub(crate) fn run(context: &Context, join: &Join) -> Result<ExitCode, Failure> {
    let project = context.project()?;
    let link: DeploymentLink = join.deployment_link.read()?;
    project.check_link(&link)?;
    let links = context.links()?;
    // One that can't be read any more is replaced as well.
    let previous = links.recorded(&project).ok().flatten();
    links.record(&project, &link)?;
    let root = project.root.display();
    output::line(&match previous {
        Some(previous) if previous.id() != link.id() => {
            format!("{root} now uses {link}, and no longer {previous}")
        }
        _ => format!("{root} uses {link}"),
    });
    Ok(ExitCode::SUCCESS)
}
