//! `patchwire init`: prepares a directory for pushing.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    os::unix::fs::PermissionsExt,
    process::ExitCode,
};

use anyhow::Context as _;
use patchwire_client::{config, links::LinkStore};
use patchwire_transport::DeploymentLink;
use tempfile::Builder;

use crate::{cli::Init, context::Context, failure::Failure, output};

mod dialogue;
mod plan;
mod start;
mod words;

use plan::Plan;

pub(crate) async fn run(context: &Context, init: Init) -> Result<ExitCode, Failure> {
    let directory = context.directory()?;
    let directory = match &context.options.root {
        Some(root) => directory.join(root),
        None => directory,
    };
    let directory = config::canonical_directory(&directory)?;
    // A relay that is named makes a new link, whatever link the environment holds.
    let given = match init.relay {
        Some(_) => None,
        None => context.link_options().given()?,
    };
    let links = context.links()?;
    let mut plan = Plan::new(&directory, &init, given, &links)?;

    let alone = init.yes || !io::stdin().is_terminal() || !io::stderr().is_terminal();
    let asked = !alone && plan.lacks_something();
    if asked {
        let links = links.clone();
        plan = dialogue::hold(move |dialogue| plan.ask(&dialogue, &links)).await?;
    }
    let link = plan.link()?;
    plan.project().check_link(&link)?;
    plan.carry_out(&links, &link)?;
    let secret = asked && io::stdout().is_terminal();
    output::text(&plan.told(&links, &link, secret));
    Ok(ExitCode::SUCCESS)
}

impl Plan {
    /// Writes the file, and records the link.
    fn carry_out(&self, links: &LinkStore, link: &DeploymentLink) -> Result<(), Failure> {
        // The file first: of two that do this at once, one finds it there, and leaves the other's
        // link alone.
        let written = match self.settings {
            Some(_) => false,
            None => {
                self.write()?;
                true
            }
        };
        links.record(&self.project(), link).inspect_err(|_| {
            if written {
                // Why the link can't be recorded is what there is to say.
                let _ = fs::remove_file(&self.file);
            }
        })?;
        Ok(())
    }

    fn write(&self) -> Result<(), Failure> {
        let text = self.text()?;
        let write = || {
            // As any file that is made: less what the umask takes away.
            let mut file = Builder::new()
                .permissions(fs::Permissions::from_mode(0o666))
                .tempfile_in(&self.directory)?;
            file.write_all(text.as_bytes())?;
            file.persist_noclobber(&self.file)?;
            Ok::<_, io::Error>(())
        };
        write()
            .with_context(|| {
                let file = self.file.display();
                match self.file.exists() {
                    true => format!("“{file}” was made meanwhile: run `patchwire init` again"),
                    false => format!("can't write “{file}”"),
                }
            })
            .map_err(|error| Failure::new(2, "config", error))
    }
}
