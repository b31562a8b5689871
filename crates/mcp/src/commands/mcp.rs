//! `patchwire mcp`.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use anyhow::anyhow;
use patchwire_transport::LinkSource;

use crate::{context::Context, failure::Failure, server};

pub(crate) async fn run(context: &Context) -> Result<ExitCode, Failure> {
    if let Some(LinkSource::Stdin) = context.link_options().link {
        return Err(Failure::usage(anyhow!(
            "standard input belongs to the protocol here: give the link as @FILE, or record it \
             with `patchwire join`"
        )));
    }
    if io::stdin().is_terminal() {
        tracing::warn!("an editor starts this and speaks JSON-RPC to it: docs/mcp.md says how");
    }
    // What is said of a push is read by a program, whatever the environment says of colours.
    console::set_colors_enabled(false);
    Box::pin(server::serve(context.clone())).await?;
    Ok(ExitCode::SUCCESS)
}
