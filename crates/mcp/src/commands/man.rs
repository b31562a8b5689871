//! `patchwire man`: manual pages, from the same definitions as `--help`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::CommandFactory;
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use crate::{
    cli::{self, Cli},
    failure::Failure,
    output,
};

pub(crate) fn run(man: &cli::Man) -> Result<ExitCode, Failure> {
    let directory = &man.directory;
    let mut written = Vec::new();
    let done = fs::create_dir_all(directory).and_then(|()| {
        for program in [
            Cli::command(),
            patchwire_agent::cli::Cli::command(),
            patchwire_relay::Args::command(),
        ] {
            // What `help` says of a command stands on that command's page.
            let mut program = program.disable_help_subcommand(true);
            program.build();
            write_pages(&program, directory, &mut written)?;
        }
        Ok(())
    });
    done.with_context(|| format!("can't write manual pages in “{}”", directory.display()))
        .map_err(Failure::usage)?;
    for page in written {
        output::line(&page.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command, and those of its commands.
fn write_pages(
    command: &clap::Command,
    directory: &Path,
    written: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let page = Man::new(command.clone())
        .source(concat!("Patchwire ", env!("CARGO_PKG_VERSION")))
        .manual("Patchwire");
    let path = directory.join(page.get_filename());
    fs::write(&path, rendered(&page, command)?)?;
    written.push(path);
    for command in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        write_pages(command, directory, written)?;
    }
    Ok(())
}

/// A page. The library would fill the lines of the examples into paragraphs.
fn rendered(page: &Man, command: &clap::Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.get_subcommands().any(|one| !one.is_hide_set()) {
        page.render_subcommands_section(&mut text)?;
    }
    if let Some(notes) = command.get_after_help() {
        notes_and_examples(&notes.to_string()).to_writer(&mut text)?;
    }
    Ok(text)
}

/// What stands below the options in `--help`: prose, and examples behind a line of their own. What is
/// indented keeps its lines.
fn notes_and_examples(notes: &str) -> Roff {
    let mut roff = Roff::new();
    let mut section = "";
    let mut verbatim = false;
    for line in notes.lines() {
        let indented = line.starts_with(' ');
        let wanted = match line {
            "Examples:" => "EXAMPLES",
            // An indented line belongs to what is before it, and so does an empty one.
            _ if indented || line.is_empty() => section,
            _ => "NOTES",
        };
        if verbatim && !indented {
            roff.control("fi", []);
            verbatim = false;
        }
        if wanted != section {
            roff.control("SH", [wanted]);
            section = wanted;
        } else if line.is_empty() {
            roff.control("PP", []);
        }
        if line.is_empty() || line == "Examples:" {
            continue;
        }
        if indented && !verbatim {
            roff.control("nf", []);
            verbatim = true;
        }
        roff.text([roman(line)]);
    }
    if verbatim {
        roff.control("fi", []);
    }
    roff
}
