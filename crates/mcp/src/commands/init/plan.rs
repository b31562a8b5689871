//! What `init` is going to write and record.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use patchwire_client::{
    config::{
        self, Project, Settings,
        bifrost::{Bifrost, name_like},
    },
    links::LinkStore,
};
use patchwire_protocol::{app::ReadyCheck, name::Name};
use patchwire_transport::{DeploymentLink, LinkSource, RelayLink};

use super::{dialogue::Dialogue, start};
use crate::{cli::Init, context, failure::Failure, output};

/// What is to be written and recorded, and what the user is told of it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) directory: PathBuf,
    pub(super) file: PathBuf,
    /// What the file says, where it is there already.
    pub(super) settings: Option<Settings>,
    pub(super) bifrost: Option<Bifrost>,
    pub(super) root: PathBuf,
    pub(super) app: Choice,
    pub(super) deployment: Choice,
    /// The link that is given, or recorded for the root.
    pub(super) link: Option<DeploymentLink>,
    /// The relay at which to make one otherwise.
    pub(super) relay: Option<RelayLink>,
    /// The command that starts the app, at its machine.
    pub(super) command: Option<String>,
    /// When it is ready, if that is known.
    pub(super) ready: Option<ReadyCheck>,
    pub(super) notes: Vec<String>,
}

/// A name, and whether somebody has chosen it.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) name: Name,
    pub(super) chosen: bool,
}

impl Plan {
    /// Takes what the arguments, the files in the directory and a link say, and what suggests itself
    /// for the rest.
    pub(super) fn new(
        directory: &Path,
        init: &Init,
        given: Option<DeploymentLink>,
        links: &LinkStore,
    ) -> Result<Self, Failure> {
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
        let mut plan = Self {
            app: like(&mut notes, app_id, root_name, "app")?,
            deployment: like(&mut notes, deployment_id, user, "dev")?,
            directory: directory.to_owned(),
            file,
            settings,
            bifrost,
            command: start::guess(&root),
            root,
            link: given,
            relay: None,
            ready: None,
            notes,
        };
        let recorded = match plan.link {
            Some(_) => None,
            None => links.recorded(&plan.project())?,
        };
        plan.choose(
            init,
            plan.link.clone().or_else(|| recorded.clone()).as_ref(),
        )?;
        plan.relay = match &init.relay {
            Some(LinkSource::File(path)) => Some(plan.relay_in(path)?),
            Some(relay) => Some(relay.read()?),
            None if plan.link.is_some() || recorded.is_some() => None,
            None => plan.find_relay(),
        };
        if let Some(recorded) = recorded {
            plan.keep(recorded, links)?;
        }
        Ok(plan)
    }

    /// Settles the names: flag, then file, then link, then what the directory suggests.
    fn choose(&mut self, init: &Init, link: Option<&DeploymentLink>) -> Result<(), Failure> {
        let settings = self.settings.as_ref();
        let of_file = [
            settings.and_then(|settings| settings.app.clone()),
            settings.and_then(|settings| settings.deployment.clone()),
        ];
        for (what, flag, of_file, of_link, choice) in [
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
            if let Some(name) = flag.as_ref().or(of_file.as_ref()).or(of_link) {
                choice.name = name.clone();
                choice.chosen = true;
            }
        }
        Ok(())
    }

    /// Keeps the link that is recorded for the root, as long as it is for this very deployment.
    fn keep(&mut self, recorded: DeploymentLink, links: &LinkStore) -> Result<(), Failure> {
        let relay = self.relay.as_ref();
        let same_relay = relay.is_none_or(|relay| *relay.expose() == *recorded.relay().expose());
        if same_relay
            && *recorded.app() == self.app.name
            && *recorded.deployment() == self.deployment.name
        {
            self.link = Some(recorded);
            return Ok(());
        }
        Err(Failure::usage(anyhow!(
            "{} uses {recorded}, whose secret is nowhere else: keep the file “{}” and remove it \
             there, or put another link in its place with `patchwire join`",
            self.root.display(),
            links.path(&self.project()).display()
        )))
    }

    /// The relay whose link lies in the directory, if there is no doubt which.
    fn find_relay(&mut self) -> Option<RelayLink> {
        let entries = fs::read_dir(&self.directory).ok()?;
        let paths = entries.flatten().map(|entry| entry.path());
        let mut found = paths
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "link")
            })
            .filter(|path| path.is_file())
            .filter(|path| LinkSource::File(path.clone()).read::<RelayLink>().is_ok());
        let (path, None) = (found.next()?, found.next()) else {
            return None;
        };
        self.relay_in(&path).ok()
    }

    /// The relay whose link is in a file.
    fn relay_in(&mut self, path: &Path) -> Result<RelayLink, Failure> {
        let relay: RelayLink = LinkSource::File(path.to_owned()).read()?;
        self.notes
            .push(format!("took the relay's link from {}", path.display()));
        if path
            .canonicalize()
            .is_ok_and(|path| path.starts_with(&self.root))
        {
            self.notes.push(
                "that is a secret, and would be pushed: move it out of this directory".to_owned(),
            );
        }
        Ok(relay)
    }

    /// Whether something has to be asked for, or taken as it suggests itself.
    pub(super) const fn lacks_something(&self) -> bool {
        !self.app.chosen || !self.deployment.chosen || (self.link.is_none() && self.relay.is_none())
    }

    /// Asks for what isn't known, and whether to go on.
    pub(super) fn ask(mut self, dialogue: &Dialogue, links: &LinkStore) -> Result<Self, Failure> {
        for (question, choice) in [
            ("The app's name", &mut self.app),
            ("The deployment's name", &mut self.deployment),
        ] {
            if !choice.chosen {
                let default = Some(choice.name.as_str());
                choice.name = dialogue.ask(question, default, parsed::<Name>)?;
            }
        }
        if self.link.is_none() && self.relay.is_none() {
            let question = "The relay's link, or @FILE that holds it (what you type is not shown)";
            let relay = dialogue.ask_hidden(question, relay_in_answer)?;
            self.relay = Some(relay);
        }
        let question = "The command that starts the app, on its machine";
        let command = dialogue.ask(question, self.command.as_deref(), parsed::<String>)?;
        self.command = Some(command).filter(|command| !command.is_empty());
        let question = "Its readiness check, as http://127.0.0.1:8000/health, or nothing";
        self.ready = dialogue.ask(question, None, |answer| match answer {
            "" => Ok(None),
            answer => parsed(answer).map(Some),
        })?;
        // Made once, so that what is asked about is what is recorded.
        let link = self.link()?;
        output::aside(&self.announced(links, &link)?);
        self.link = Some(link);
        match dialogue.confirm("Go on?")? {
            true => Ok(self),
            false => Err(Failure::failed("declined", anyhow!("nothing is written"))),
        }
    }

    /// What the directory will be.
    pub(super) fn project(&self) -> Project {
        Project {
            root: self.root.clone(),
            file: Some(self.file.clone()),
            settings: Settings {
                app: Some(self.app.name.clone()),
                deployment: Some(self.deployment.name.clone()),
                ..Settings::default()
            },
        }
    }

    /// The link to use, which is a new one if there is none.
    pub(super) fn link(&self) -> Result<DeploymentLink, Failure> {
        match (&self.link, &self.relay) {
            (Some(link), _) => Ok(link.clone()),
            (None, Some(relay)) => {
                let (app, deployment) = (self.app.name.clone(), self.deployment.name.clone());
                Ok(DeploymentLink::mint(relay, app, deployment)?)
            }
            (None, None) => Err(Failure::usage(anyhow!(
                "the relay's link is needed: patchwire init --relay @FILE, with the file that \
                 `patchwire-relay --link-file FILE` writes"
            ))),
        }
    }

    /// The text of the configuration file.
    pub(super) fn text(&self) -> Result<String, Failure> {
        let beside = &self.directory;
        let root = match self.root.strip_prefix(beside) {
            Ok(inside) if inside.as_os_str().is_empty() => None,
            Ok(inside) => Some(inside),
            Err(_) => Some(self.root.as_path()),
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
        Ok(Settings::template(
            &self.app.name,
            &self.deployment.name,
            root,
        ))
    }
}

/// A name like a text that another program took for one, else like what suggests itself.
fn like(
    notes: &mut Vec<String>,
    foreign: Option<String>,
    suggested: Option<String>,
    default: &str,
) -> Result<Choice, Failure> {
    let foreign = foreign.and_then(|text| Some((name_like(&text)?, text)));
    if let Some((name, text)) = foreign {
        if name.as_str() != text {
            notes.push(format!("“{}” is called {name} here", text.escape_debug()));
        }
        return Ok(Choice { name, chosen: true });
    }
    let name = match suggested.and_then(|text| name_like(&text)) {
        Some(name) => name,
        None => default.parse().map_err(Failure::usage)?,
    };
    Ok(Choice {
        name,
        chosen: false,
    })
}

/// An answer, or why it is none.
fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(answer: &str) -> Result<T, String> {
    answer.parse().map_err(|error: T::Err| error.to_string())
}

/// The relay's link, typed or pasted, or in the file that is named.
fn relay_in_answer(answer: &str) -> Result<RelayLink, String> {
    let source: LinkSource = parsed(answer)?;
    if source == LinkSource::Stdin || source.is_empty() {
        return Err("paste the link that the relay prints, or say @FILE".to_owned());
    }
    source
        .read()
        .map_err(|error| format!("{:#}", anyhow::Error::new(error)))
}
