//! Whom a call is about: a root, its project, its link, and a connection that lives on between
//! calls.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use anyhow::anyhow;
use patchwire_client::{
    Client, PushReport, PushRequest, WarmTree,
    config::{Project, canonical_directory},
    links::{LinkOptions, LinksError},
    report::ReportStatus,
};
use patchwire_protocol::name::Name;
use patchwire_transport::DeploymentLink;
use tokio::task::JoinSet;

use super::keeper::Keeper;
use crate::{context::Context, failure::Failure};

/// How many connections are kept that no call uses.
const KEPT: usize = 16;

/// What the arguments of a call say of its root. What isn't said, or is empty, is found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) root: Option<&'a str>,
    pub(crate) app: Option<&'a str>,
    pub(crate) deployment: Option<&'a str>,
}

/// The roots that this server works for.
#[derive(Debug)]
pub(crate) struct Roots {
    pub(crate) context: Context,
    /// The one that was used last stands last.
    connections: Mutex<Vec<Arc<Connection>>>,
    /// The turns of roots that someone pushes or may push, whichever connection they use.
    turns: Mutex<HashMap<PathBuf, Weak<Turn>>>,
}

/// Held by the push of a root, so that the next one finds what it left.
pub(crate) type Turn = tokio::sync::Mutex<()>;

/// A root's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    root: PathBuf,
    pub(crate) client: Arc<Client>,
    /// The turn of its root.
    pub(crate) pushing: Arc<Turn>,
    /// Keeps what the last push left.
    pub(crate) keeper: Keeper,
    /// Its tree, as far as it is known.
    pub(crate) tree: WarmTree,
}

impl Connection {
    /// Keeps nothing any more, and disconnects, so that relay and agent know at once.
    async fn close(&self) {
        self.keeper.end().await;
        self.client.close().await;
    }

    /// Keeps what a push has left at the agent, or nothing if it left nothing that is known.
    pub(crate) fn keep(&self, request: PushRequest, report: &PushReport) {
        let tree = match report.status {
            ReportStatus::Done | ReportStatus::NoChanges => report.root,
            ReportStatus::Failed
            | ReportStatus::RolledBack
            | ReportStatus::Conflict
            | ReportStatus::Unknown => None,
        };
        let (client, turn) = (Arc::clone(&self.client), Arc::clone(&self.pushing));
        self.keeper.keep(client, turn, request, tree);
    }
}

impl Roots {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            connections: Mutex::default(),
            turns: Mutex::default(),
        }
    }

    /// Finds a call's project and the connection to its deployment. Files and links are read anew,
    /// so that what changed since the last call counts.
    pub(crate) fn find(&self, target: Target<'_>) -> Result<(Project, Arc<Connection>), Failure> {
        let project = match target.root {
            None | Some("") => self.context.project()?,
            Some(root) => self.project(Path::new(root))?,
        };
        let link = self.link(&project)?;
        check_name(&project, "app", target.app, link.app())?;
        check_name(&project, "deployment", target.deployment, link.deployment())?;
        let connection = self.connection(&project, link);
        Ok((project, connection))
    }

    /// Closes all connections, so that relay and agents know at once.
    pub(crate) async fn close(&self) {
        let connections = std::mem::take(&mut *self.connections());
        let mut closing = JoinSet::new();
        for connection in connections {
            closing.spawn(async move { connection.close().await });
        }
        closing.join_all().await;
    }

    /// The project of a directory that a call names, which is relative to the server's root.
    ///
    /// It is the root, also where a file further up says otherwise. A file in it says where the
    /// root is.
    fn project(&self, root: &Path) -> Result<Project, Failure> {
        let mut directory = PathBuf::new();
        if root.is_relative() {
            directory = self.context.directory()?;
            directory.extend(self.context.options.root.as_deref());
        }
        let directory = canonical_directory(&directory.join(root))?;
        let found = Project::find(&directory, None)?;
        match found.file.as_deref().and_then(Path::parent) == Some(&directory) {
            true => Ok(found),
            false => Ok(Project::find(&directory, Some(&directory))?),
        }
    }

    /// The link for a project. The one that the server was given is for the server's own root
    /// alone: no other project is to be pushed there by mistake.
    fn link(&self, project: &Project) -> Result<DeploymentLink, Failure> {
        let options = self.context.link_options();
        let is_given = options.link.is_some() || options.file.is_some();
        let own = is_given.then(|| self.context.project().map(|own| own.root));
        let options = match &own {
            Some(Ok(own)) if *own == project.root => options,
            _ => LinkOptions::default(),
        };
        let error = match self.context.links()?.resolve(project, &options) {
            Ok(link) => return Ok(link),
            Err(error) => error,
        };
        let is_none = matches!(error, LinksError::None { .. });
        let failure = Failure::from(error);
        if !is_none {
            return Err(failure);
        }
        let but = match own {
            Some(_) => ", and the one that this server was given is for its own root alone",
            None => "",
        };
        // Its own words name an option, which a call has not.
        Err(Failure::new(
            failure.exit_code,
            failure.code,
            anyhow!(
                "there is no link for “{}”{but}: in a terminal, record one with `patchwire join \
                 --root DIR @FILE`, or make one with `patchwire init --root DIR --relay @FILE`",
                project.root.display()
            ),
        ))
    }

    fn connection(&self, project: &Project, link: DeploymentLink) -> Arc<Connection> {
        let mut connections = self.connections();
        let mut found = connections
            .iter()
            .position(|connection| connection.root == project.root)
            .map(|index| connections.remove(index));
        // Another link now: calls in flight go on with theirs.
        let is_other =
            |found: &mut Arc<Connection>| *found.client.link().expose() != *link.expose();
        let mut outdated = Vec::from_iter(found.take_if(is_other));
        let connection = found.unwrap_or_else(|| {
            Arc::new(Connection {
                root: project.root.clone(),
                client: Arc::new(self.context.client_of(link)),
                pushing: self.turn(&project.root),
                keeper: Keeper::default(),
                tree: WarmTree::default(),
            })
        });
        while connections.len() >= KEPT {
            // What a call uses is as many as there are calls.
            let idle = |connection: &Arc<Connection>| Arc::strong_count(connection) == 1;
            match connections.iter().position(idle) {
                Some(index) => outdated.push(connections.remove(index)),
                None => break,
            }
        }
        connections.push(Arc::clone(&connection));
        // One that a call still uses closes as that call lets go of it.
        for connection in outdated.into_iter().filter_map(Arc::into_inner) {
            tokio::spawn(async move { connection.close().await });
        }
        connection
    }

    fn turn(&self, root: &Path) -> Arc<Turn> {
        // Whatever happened, the map is whole.
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = turns.get(root).and_then(Weak::upgrade).unwrap_or_default();
        turns.insert(root.to_owned(), Arc::downgrade(&turn));
        turn
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        // Whatever happened, the list is whole.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that a call means the app or deployment that the root's link is for.
fn check_name(
    project: &Project,
    what: &str,
    asked: Option<&str>,
    is: &Name,
) -> Result<(), Failure> {
    match asked {
        None | Some("") => Ok(()),
        Some(asked) if asked == is.as_str() => Ok(()),
        Some(asked) => Err(Failure::new(
            2,
            "other-deployment",
            anyhow!(
                "{what} “{}” was asked for, but the link of “{}” is for {what} “{is}”: leave {what} \
                 out, or name the root of the other {what}",
                asked.escape_debug(),
                project.root.display()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use patchwire_client::config::Settings;
    use patchwire_transport::{Pin, RelayKey, RelayLink};

    use super::*;
    use crate::cli::Cli;

    fn roots() -> Roots {
        Roots::new(Context::new(Cli::parse_from(["patchwire", "mcp"]).options))
    }

    fn project(name: usize) -> Project {
        Project {
            root: format!("/roots/{name}").into(),
            file: None,
            settings: Settings::default(),
        }
    }

    fn link() -> DeploymentLink {
        let (pin, key) = (Pin::new([1; 32]), RelayKey::new([2; 32]));
        let relay = RelayLink::new("h:1".parse().unwrap(), pin, key);
        DeploymentLink::mint(&relay, "shop".parse().unwrap(), "dev".parse().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn pushes_of_one_root_take_turns_whatever_link_they_use() {
        let roots = roots();
        let in_flight = roots.connection(&project(1), link());
        let other_link = roots.connection(&project(1), link());
        assert!(!Arc::ptr_eq(&in_flight, &other_link));
        assert!(Arc::ptr_eq(&in_flight.pushing, &other_link.pushing));
        let other_root = roots.connection(&project(2), link());
        assert!(!Arc::ptr_eq(&in_flight.pushing, &other_root.pushing));
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_its_root_and_link() {
        let (roots, one, other) = (roots(), link(), link());
        let first = roots.connection(&project(1), one.clone());
        assert!(Arc::ptr_eq(
            &first,
            &roots.connection(&project(1), one.clone())
        ));
        assert!(!Arc::ptr_eq(
            &first,
            &roots.connection(&project(2), one.clone())
        ));
        assert!(!Arc::ptr_eq(&first, &roots.connection(&project(1), other)));
        assert!(!Arc::ptr_eq(&first, &roots.connection(&project(1), one)));
        assert_eq!(roots.connections().len(), 2);
    }

    #[tokio::test]
    async fn of_many_connections_those_are_kept_that_are_in_use_or_were_last() {
        let (roots, link) = (roots(), link());
        let used = roots.connection(&project(0), link.clone());
        for name in 1..100 {
            roots.connection(&project(name), link.clone());
        }
        let kept: Vec<PathBuf> = roots
            .connections()
            .iter()
            .map(|kept| kept.root.clone())
            .collect();
        let last = (100 - (KEPT - 1)..100).map(project);
        let expected: Vec<PathBuf> = [project(0)]
            .into_iter()
            .chain(last)
            .map(|p| p.root)
            .collect();
        assert_eq!(kept, expected);

        let all: Vec<_> = (0..100)
            .map(|name| roots.connection(&project(name), link.clone()))
            .collect();
        assert_eq!(roots.connections().len(), all.len());
        assert!(Arc::ptr_eq(&used, &all[0]));
    }

    #[test]
    fn a_name_that_is_not_the_links_is_refused() {
        let is = "shop".parse().unwrap();
        for fits in [None, Some(""), Some("shop")] {
            assert!(check_name(&project(1), "app", fits, &is).is_ok());
        }
        let refused = check_name(&project(1), "app", Some("Shop\n"), &is).unwrap_err();
        assert_eq!(refused.code, "other-deployment");
        assert!(
            refused.message().contains("“Shop\\n”"),
            "{}",
            refused.message()
        );
    }
}
