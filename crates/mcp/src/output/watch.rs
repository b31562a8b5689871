//! What a watch comes to, for a person.

use std::path::Path;

use console::style;
use patchwire_client::{PushCause, WatchEvent, chain};
use patchwire_protocol::path::escape;

use super::{
    failure_text, push,
    words::{count, duration, foreign},
};
use crate::failure::Failure;

/// What is said of an event, and where it belongs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Nothing,
    /// What became of a push.
    Result(String),
    /// What is good to know, and nothing has to be done about.
    Notice(String),
    /// What somebody has to do something about.
    Complaint(String),
}

/// The first line: what is watched, and where it goes.
pub(crate) fn beginning(root: &Path, deployment: &str) -> String {
    format!("watching {} for {deployment}\n", shown(root))
}

/// That the configuration can't be used any more.
pub(crate) fn unusable(failure: &Failure) -> String {
    format!(
        "{}: {}\nnothing is pushed until that is mended\n",
        style("not pushed").red(),
        failure_text(failure)
    )
}

/// That the configuration counts as it is by now.
pub(crate) fn read_again(file: &Path) -> String {
    let said = format!("{} has changed, and was read again", shown(file));
    format!("{}\n", style(said).dim())
}

/// What an event means to a person. Each text brings its own line ends.
pub(crate) fn human(event: &WatchEvent) -> Said {
    let notice = |text: String| Said::Notice(format!("{}\n", style(text).dim()));
    match event {
        WatchEvent::Watching { directories, .. } => notice(format!(
            "listening in {}",
            count(*directories, "directory", "directories")
        )),
        WatchEvent::Polling { cause, interval } => Said::Complaint(format!(
            "{}: {}\nlooking for changes every {} instead\n",
            style("can't hear of saved files").yellow(),
            foreign(cause),
            duration(*interval)
        )),
        WatchEvent::Pushing {
            cause: PushCause::Start | PushCause::Saved | PushCause::AgentChanged,
        }
        | WatchEvent::Scanned { .. }
        | WatchEvent::App(_)
        | WatchEvent::Progress(_)
        | WatchEvent::Unchanged => Said::Nothing,
        WatchEvent::Pushed { report, .. } => {
            let mut said = push::human(report);
            if report.is_rejection() {
                said.push_str("not sent again until it changes\n");
            }
            Said::Result(said)
        }
        WatchEvent::Rejected => notice(
            "this is the version that was refused: not sent again until it changes".to_owned(),
        ),
        WatchEvent::Failed { error, again } => {
            let mut said = format!("{}: {}", style("not pushed").red(), foreign(&chain(error)));
            if *again {
                said.push_str("\nit is pushed as soon as it can be");
            }
            said.push('\n');
            Said::Complaint(said)
        }
        WatchEvent::AgentLost => Said::Complaint(format!(
            "{}: what is saved is pushed once it is back\n",
            style("the agent is away").yellow()
        )),
        WatchEvent::AgentBack => notice("the agent is back".to_owned()),
        WatchEvent::RootGone { root } => Said::Complaint(format!(
            "{}: nothing is pushed until it is back\n",
            style(format!("{} is gone", shown(root))).yellow()
        )),
        WatchEvent::RootBack { root } => notice(format!("{} is back", shown(root))),
    }
}

pub(super) fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use patchwire_client::ClientError;

    use super::*;

    fn said(event: &WatchEvent) -> Said {
        console::set_colors_enabled(false);
        human(event)
    }

    #[test]
    fn a_failure_says_why_and_whether_it_is_tried_again() {
        let error = Arc::new(ClientError::Root {
            root: "/a".into(),
            source: std::io::ErrorKind::NotFound.into(),
        });
        let failed = |again| {
            let error = Arc::clone(&error);
            said(&WatchEvent::Failed { error, again })
        };
        let why = "not pushed: can't find /a: entity not found\n";
        assert_eq!(failed(false), Said::Complaint(why.to_owned()));
        let again = format!("{why}it is pushed as soon as it can be\n");
        assert_eq!(failed(true), Said::Complaint(again));
    }

    #[test]
    fn what_was_only_touched_is_not_worth_a_word() {
        assert_eq!(said(&WatchEvent::Unchanged), Said::Nothing);
    }

    #[test]
    fn polling_says_why_and_how_often() {
        let polling = WatchEvent::Polling {
            cause: "no more watches".to_owned(),
            interval: Duration::from_secs(1),
        };
        let text = "can't hear of saved files: no more watches\nlooking for changes every 1.0 s \
                    instead\n";
        assert_eq!(said(&polling), Said::Complaint(text.to_owned()));
    }
}
