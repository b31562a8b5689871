//! `patchwire init`: prepares a directory for pushing.

use std::{
    env,
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow};
use console::Term;
use patchwire_client::{
    config::{
        self, ConfigError, Project, Settings,
        bifrost::{self, Bifrost, name_like},
    },
    links::LinkStore,
};
use patchwire_protocol::name::Name;
use patchwire_transport::{DeploymentLink, LinkSource, RelayLink};
use zeroize::Zeroizing;

use crate::{
    cli::Init,
    context::{self, Context},
    failure::Failure,
    output,
};

pub(crate) fn run(context: &Context, init: Init) -> Result<ExitCode, Failure> {
    let directory = context.directory()?;
    let directory = match &context.options.root {
        Some(root) => directory.join(root),
        None => directory,
    };
    let directory = config::canonical_directory(&directory)?;
    let mut plan = Plan::new(&directory)?;
    // A relay that is named makes a new link, whatever link the environment holds.
    let given = match init.relay {
        Some(_) => None,
        None => context.link_options().given()?,
    };
    plan.choose(&init, given.as_ref())?;
    let project = plan.project();
    let links = context.links()?;

    // The link first: when there is none to be had, nothing is written.
    let link = match given {
        Some(link) => link,
        None => plan.recorded_or_new(&links, &project, init.relay)?,
    };
    project.check_link(&link)?;
    links.record(&project, &link)?;
    plan.write()?;
    output::text(&plan.told(&link));
    Ok(ExitCode::SUCCESS)
}

/// What is to be written and recorded, and what the user is told of it.
#[derive(Debug)]
struct Plan {
    file: PathBuf,
    /// What the file says, where it is there already.
    settings: Option<Settings>,
    bifrost: Option<Bifrost>,
    root: PathBuf,
    app: Name,
    deployment: Name,
    notes: Vec<String>,
}

impl Plan {
    /// Looks at what is in the directory, and takes names from there.
    fn new(directory: &Path) -> Result<Self, Failure> {
        let file = directory.join(config::FILE_NAME);
        let settings = file.exists().then(|| Settings::read(&file)).transpose()?;
        let bifrost = match settings {
            Some(_) => None,
            None => Bifrost::read(directory)?,
        };
        let root = match (&settings, &bifrost) {
            (Some(settings), _) => settings.root.as_deref(),
            (None, Some(bifrost)) => bifrost.app_root.as_deref(),
            (None, None) => None,
        };
        let root = config::canonical_directory(&directory.join(root.unwrap_or(Path::new(""))))?;

        let mut notes = Vec::new();
        let app_id = bifrost.as_ref().and_then(|file| file.app_id.clone());
        let deployment_id = bifrost.as_ref().and_then(|file| file.deployment_id.clone());
        let root_name = root
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let user = context::user().map(|user| format!("dev-{user}"));
        Ok(Self {
            app: like(&mut notes, app_id, root_name, "app")?,
            deployment: like(&mut notes, deployment_id, user, "dev")?,
            file,
            settings,
            bifrost,
            root,
            notes,
        })
    }

    /// Settles the names: flag, then file, then link, then what the directory suggests.
    fn choose(&mut self, init: &Init, link: Option<&DeploymentLink>) -> Result<(), Failure> {
        let settings = self.settings.as_ref();
        let of_file = [
            settings.and_then(|settings| settings.app.clone()),
            settings.and_then(|settings| settings.deployment.clone()),
        ];
        for (what, flag, of_file, of_link, name) in [
            (
                "app",
                &init.app,
                &of_file[0],
                link.map(DeploymentLink::app),
                &mut self.app,
            ),
            (
                "deployment",
                &init.deployment,
                &of_file[1],
                link.map(DeploymentLink::deployment),
                &mut self.deployment,
            ),
        ] {
            if let (Some(flag), Some(of_file)) = (flag, of_file)
                && flag != of_file
            {
                return Err(Failure::usage(anyhow!(
                    "--{what} is {flag}, but “{}” says {what} = \"{of_file}\": change one of them",
                    self.file.display()
                )));
            }
            if let Some(chosen) = flag.as_ref().or(of_file.as_ref()).or(of_link) {
                *name = chosen.clone();
            }
        }
        Ok(())
    }

    /// What the directory will be.
    fn project(&self) -> Project {
        Project {
            root: self.root.clone(),
            file: Some(self.file.clone()),
            settings: Settings {
                app: Some(self.app.clone()),
                deployment: Some(self.deployment.clone()),
                ..Settings::default()
            },
        }
    }

    /// The link that is recorded for this very deployment, or a new one at the relay.
    fn recorded_or_new(
        &self,
        links: &LinkStore,
        project: &Project,
        relay: Option<LinkSource>,
    ) -> Result<DeploymentLink, Failure> {
        let recorded = links.recorded(project)?;
        let relay: Option<RelayLink> = match (relay, &recorded) {
            (Some(relay), _) => Some(relay.read()?),
            (None, Some(_)) => None,
            (None, None) => Some(ask_for_relay()?),
        };
        let Some(recorded) = recorded else {
            let relay = relay.ok_or_else(no_relay)?;
            return Ok(DeploymentLink::mint(
                &relay,
                self.app.clone(),
                self.deployment.clone(),
            )?);
        };
        let same_relay = relay.is_none_or(|relay| *relay.expose() == *recorded.relay().expose());
        if same_relay && *recorded.app() == self.app && *recorded.deployment() == self.deployment {
            return Ok(recorded);
        }
        Err(Failure::usage(anyhow!(
            "{} uses {recorded}, whose secret is nowhere else: keep the file “{}” and remove it \
             there, or put another link in its place with `patchwire join`",
            self.root.display(),
            links.path(project).display()
        )))
    }

    fn write(&self) -> Result<(), Failure> {
        if self.settings.is_some() {
            return Ok(());
        }
        let beside = self.file.parent();
        let root = match beside.map(|beside| (self.root.strip_prefix(beside), beside)) {
            Some((_, beside)) if beside == self.root => None,
            Some((Ok(inside), _)) => Some(inside),
            _ => Some(self.root.as_path()),
        };
        let root = root.map(|root| {
            root.to_str().with_context(|| {
                format!(
                    "“{}” is not UTF-8 and can't stand in a TOML file",
                    root.display()
                )
            })
        });
        let root = root.transpose().map_err(Failure::usage)?;
        let text = Settings::template(&self.app, &self.deployment, root);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.file)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("can't write “{}”", self.file.display()))
            .map_err(|error| Failure::new(2, "config", error))
    }

    /// What was done, and what is next.
    fn told(&self, link: &DeploymentLink) -> String {
        let mut lines = self.notes.clone();
        if self.bifrost.is_some() {
            lines.push(format!(
                "took over {}; Patchwire doesn't read it again",
                bifrost::FILE_NAME
            ));
        }
        for (variable, instead) in bifrost::VARIABLES {
            if env::var_os(variable).is_some() {
                lines.push(format!(
                    "{variable} is set and means nothing here: see {instead}"
                ));
            }
        }
        let file = self.file.display();
        lines.push(match &self.settings {
            Some(_) => format!("kept {file}"),
            None => format!("wrote {file}"),
        });
        lines.push(format!("{} uses {link}", self.root.display()));
        lines.push(
            "
For the agent, make a link that can't push, and take it to the app's machine:
    patchwire link --agent > agent.link
There, start the app under the agent, in the directory it runs in:
    patchwire-agent run --link @agent.link --root DIR -- COMMAND…
Then, from here:
    patchwire push
"
            .to_owned(),
        );
        lines.join("\n")
    }
}

/// A name like a text that another program took for one, else like what suggests itself.
fn like(
    notes: &mut Vec<String>,
    foreign: Option<String>,
    suggested: Option<String>,
    default: &str,
) -> Result<Name, Failure> {
    let foreign = foreign.and_then(|text| Some((name_like(&text)?, text)));
    if let Some((name, text)) = foreign {
        if name.as_str() != text {
            notes.push(format!("“{}” is called {name} here", text.escape_debug()));
        }
        return Ok(name);
    }
    match suggested.and_then(|text| name_like(&text)) {
        Some(name) => Ok(name),
        None => default.parse().map_err(Failure::usage),
    }
}

/// Asks for the relay's link where there is someone to answer.
fn ask_for_relay() -> Result<RelayLink, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(no_relay());
    }
    let term = Term::stderr();
    let ask = || {
        term.write_str("The relay's link, or @FILE (it is not shown): ")?;
        term.read_secure_line().map(Zeroizing::new)
    };
    let answer = ask().map_err(|source| ConfigError::Read {
        path: "/dev/tty".into(),
        source,
    })?;
    let source: LinkSource = answer.trim().parse().unwrap_or_else(|never| match never {});
    Ok(source.read()?)
}

fn no_relay() -> Failure {
    Failure::usage(anyhow!(
        "the relay's link is needed: patchwire init --relay @FILE, with the file that \
         `patchwire-relay --link-file FILE` writes"
    ))
}
