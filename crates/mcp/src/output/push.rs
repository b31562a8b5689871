//! A push's result for a person.

use std::time::Duration;

use console::style;
use indicatif::HumanBytes;
use patchwire_client::report::{
    AgentReport, FileCounts, PlannedAction, PushReport, ReportStatus, Timings,
};

use super::words::{app, count, duration, foreign, indented, time};

/// The most changes that a dry run lists.
const PLANNED: usize = 50;

/// From when on a first push is slow enough to say of what.
const SLOW: Duration = Duration::from_secs(5);

/// What a push came to: one line where all is well, and what to know and do where it isn't.
pub(crate) fn human(report: &PushReport) -> String {
    said(report, "`patchwire push --force`")
}

/// The same for who called the tool.
pub(crate) fn for_tool(report: &PushReport) -> String {
    said(report, "the argument `force`")
}

fn said(report: &PushReport, forcing: &str) -> String {
    let mut said = match report.status {
        _ if report.dry_run => planned(report),
        ReportStatus::Done => done(report),
        ReportStatus::NoChanges => format!(
            "{}: the agent has this tree{}\n",
            style("nothing to push").green(),
            apps(report)
        ),
        ReportStatus::Failed => ended_badly("push failed", report),
        ReportStatus::RolledBack => {
            let ended = ended_badly("rolled back", report);
            format!("{ended}the previous tree is back{}\n", apps(report))
        }
        ReportStatus::Conflict => conflict(report, forcing),
        ReportStatus::Unknown => format!("{}: {}\n", style("unknown").yellow(), message(report)),
    };
    if !report.drift.is_empty() {
        said.push_str("changed on the agent's side since the last push:\n");
        said.push_str(&indented(report.drift.iter().map(ToString::to_string)));
    }
    for warning in &report.warnings {
        said.push_str(&super::warning(warning));
    }
    said
}

/// Where the time went.
pub(crate) fn timings(timings: &Timings) -> String {
    let parts = [
        ("scan", timings.scan),
        ("send", timings.send),
        ("commit", timings.commit),
        ("reload", timings.reload),
        ("ready", timings.ready),
    ];
    let parts = parts.map(|(name, took)| format!("{name} {}", duration(took)));
    format!("{}; {} in all", parts.join(", "), duration(timings.total))
}

fn done(report: &PushReport) -> String {
    let ready = match report.agents.iter().all(|agent| agent.verified) {
        true => "ready",
        false => "committed",
    };
    format!(
        "{} {}, {} sent in {}: {ready}{}\n",
        style("pushed").green(),
        files(report.files),
        HumanBytes(report.bytes.sent),
        duration(report.timings_ms.total),
        apps(report)
    ) + &largest(report)
}

/// What made a first push slow, if it was.
fn largest(report: &PushReport) -> String {
    if report.timings_ms.total < SLOW || report.largest.is_empty() {
        return String::new();
    }
    let parts = report.largest.iter();
    let parts: Vec<String> = parts
        .map(|part| format!("{} {}", part.path, HumanBytes(part.bytes)))
        .collect();
    format!("largest: {}\n", parts.join(", "))
}

fn planned(report: &PushReport) -> String {
    let changes = report.plan.as_deref().unwrap_or_default();
    let mut said = String::new();
    for change in changes.iter().take(PLANNED) {
        let action = match change.action {
            PlannedAction::Added => "add",
            PlannedAction::Changed => "change",
            PlannedAction::Deleted => "delete",
            PlannedAction::Moved => "move",
        };
        let bytes = HumanBytes(change.bytes).to_string();
        let path = match &change.from {
            Some(from) => format!("{from} to {}", change.path),
            None => change.path.to_string(),
        };
        said.push_str(&format!("{action:>10} {bytes:>10}  {path}\n"));
    }
    if changes.len() > PLANNED {
        said.push_str(&format!("{:>10} {} more\n", "and", changes.len() - PLANNED));
    }
    match changes.is_empty() && report.files == FileCounts::default() {
        true => said.push_str("nothing to push: the agent has this tree\n"),
        false => {
            let sum = changes.iter().map(|change| change.bytes).sum();
            said.push_str(&format!(
                "would push {}, {} in all; nothing was sent\n",
                files(report.files),
                HumanBytes(sum)
            ));
        }
    }
    said
}

fn ended_badly(what: &str, report: &PushReport) -> String {
    let mut said = format!("{}: {}\n", style(what).red(), message(report));
    for agent in &report.agents {
        if !agent.log_tail.is_empty() {
            said.push_str("the app's last lines:\n");
            said.push_str(&indented(&agent.log_tail));
        }
    }
    said
}

fn conflict(report: &PushReport, forcing: &str) -> String {
    let mut said = format!("{}: ", style("conflict").red());
    match &report.conflict {
        Some(with) => {
            said.push_str(&format!(
                "{} pushed since, {} ({})",
                foreign(with.author.as_str()),
                time(with.at_ms),
                with.push_id
            ));
            match with.paths.is_empty() {
                true => said.push('\n'),
                false => said.push_str(", changing:\n"),
            }
            said.push_str(&indented(with.paths.iter().map(ToString::to_string)));
        }
        None => said.push_str(&format!("{}\n", message(report))),
    }
    said.push_str(&format!(
        "take those changes over here and push again, or replace them with {forcing}\n"
    ));
    said
}

fn message(report: &PushReport) -> String {
    let message = report
        .error
        .as_ref()
        .map_or("no reason given", |error| &error.message);
    message
        .lines()
        .map(foreign)
        .collect::<Vec<_>>()
        .join("\n    ")
}

/// How the apps are, in brackets: nothing where no agent runs one.
pub(super) fn apps(report: &PushReport) -> String {
    let several = report.agents.len() > 1;
    let app = |agent: &AgentReport| {
        let app = app(agent.app.as_ref()?);
        Some(match several {
            true => format!("{}: {app}", foreign(&agent.name)),
            false => app,
        })
    };
    let apps: Vec<String> = report.agents.iter().filter_map(app).collect();
    match apps.is_empty() {
        true => String::new(),
        false => format!(" ({})", apps.join(", ")),
    }
}

/// `3 files (1 added, 2 changed)`.
fn files(files: FileCounts) -> String {
    let kinds = [
        (files.changed, "changed"),
        (files.added, "added"),
        (files.deleted, "deleted"),
        (files.moved, "moved"),
    ];
    let total = kinds.iter().map(|(count, _)| count).sum();
    let kinds = kinds.iter().filter(|(count, _)| *count > 0);
    let kinds: Vec<String> = kinds
        .map(|(count, kind)| format!("{count} {kind}"))
        .collect();
    match kinds.is_empty() {
        // Directories and permissions alone.
        true => "no files".to_owned(),
        false => format!("{} ({})", count(total, "file", "files"), kinds.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use patchwire_client::report::{ByteCounts, Contributor, PlannedChange, ReportedError};
    use patchwire_protocol::{
        app::{AppState, Exit},
        message::{
            push::{ConflictWith, PushId},
            value::Text,
        },
        path::RelativePath,
    };

    use super::*;

    fn report(status: ReportStatus) -> PushReport {
        PushReport {
            push_id: PushId([1; 16]),
            status,
            error: None,
            root: None,
            files: FileCounts {
                added: 1,
                changed: 1,
                deleted: 1,
                moved: 0,
            },
            bytes: ByteCounts {
                tree: 9,
                sent: 1229,
                received: 1,
            },
            timings_ms: Timings {
                total: Duration::from_millis(84),
                ..Timings::default()
            },
            agents: vec![AgentReport {
                name: "web".to_owned(),
                status,
                verified: true,
                app: Some(AppState {
                    running: true,
                    pid: Some(1234),
                    ..AppState::default()
                }),
                log_tail: Vec::new(),
            }],
            drift: Vec::new(),
            warnings: Vec::new(),
            dry_run: false,
            plan: None,
            largest: Vec::new(),
            conflict: None,
        }
    }

    fn said(report: &PushReport) -> String {
        console::set_colors_enabled(false);
        human(report)
    }

    #[test]
    fn a_push_is_one_line() {
        assert_eq!(
            said(&report(ReportStatus::Done)),
            "pushed 3 files (1 changed, 1 added, 1 deleted), 1.20 KiB sent in 84 ms: ready (pid 1234)\n"
        );
        assert_eq!(
            said(&report(ReportStatus::NoChanges)),
            "nothing to push: the agent has this tree (pid 1234)\n"
        );
    }

    #[test]
    fn a_slow_first_push_says_what_was_large() {
        let mut slow = report(ReportStatus::Done);
        slow.largest = vec![Contributor {
            path: "assets".try_into().unwrap(),
            bytes: 5 << 20,
        }];
        assert_eq!(said(&slow).lines().count(), 1);
        slow.timings_ms.total = SLOW;
        assert!(said(&slow).ends_with("\nlargest: assets 5.00 MiB\n"));
    }

    #[test]
    fn a_push_that_was_not_seen_ready_does_not_say_so() {
        let mut unverified = report(ReportStatus::Done);
        unverified.agents[0].verified = false;
        unverified.agents[0].app = None;
        assert!(said(&unverified).ends_with(" in 84 ms: committed\n"));
    }

    #[test]
    fn a_dry_run_claims_nothing() {
        let mut dry = report(ReportStatus::NoChanges);
        dry.dry_run = true;
        let change = |path: &str, action, from: Option<&str>| PlannedChange {
            path: path.try_into().unwrap(),
            action,
            bytes: 1536,
            from: from.map(|from| from.try_into().unwrap()),
        };
        dry.plan = Some(vec![
            change("a.py", PlannedAction::Changed, None),
            change("new/b.py", PlannedAction::Moved, Some("b.py")),
        ]);
        assert_eq!(
            said(&dry),
            "    change   1.50 KiB  a.py\n      move   1.50 KiB  b.py to new/b.py\n\
             would push 3 files (1 changed, 1 added, 1 deleted), 3.00 KiB in all; nothing was sent\n"
        );
        dry.plan = Some(vec![
            change("a.py", PlannedAction::Added, None);
            PLANNED + 3
        ]);
        assert!(said(&dry).contains("\n       and 3 more\n"));
        assert_eq!(said(&dry).lines().count(), PLANNED + 2);
        dry.plan = Some(Vec::new());
        dry.files = FileCounts::default();
        assert_eq!(said(&dry), "nothing to push: the agent has this tree\n");
    }

    #[test]
    fn a_roll_back_gives_the_reason_and_the_apps_last_lines() {
        let mut back = report(ReportStatus::RolledBack);
        back.error = Some(ReportedError {
            code: "app-exited".to_owned(),
            message: "the app ended before it was ready: exit status 1".to_owned(),
        });
        back.agents[0].log_tail = vec!["Traceback".to_owned(), "  \x1b[2Jline".to_owned()];
        back.agents[0].app = Some(AppState {
            exit: Some(Exit::Code(1)),
            ..AppState::default()
        });
        assert_eq!(
            said(&back),
            "rolled back: the app ended before it was ready: exit status 1\n\
             the app's last lines:\n    Traceback\n      line\n\
             the previous tree is back (not running: exit status 1)\n"
        );
    }

    #[test]
    fn a_conflict_says_who_when_what_and_what_to_do() {
        let mut conflict = report(ReportStatus::Conflict);
        conflict.conflict = Some(ConflictWith {
            author: Text::cut("ben@desk\n"),
            at_ms: 0,
            push_id: PushId([2; 16]),
            paths: vec![RelativePath::new(*b"caf\xe9.py").unwrap()],
        });
        assert_eq!(
            said(&conflict),
            "conflict: ben@desk\\x0a pushed since, 1970-01-01T00:00:00Z \
             (02020202-0202-0202-0202-020202020202), changing:\n    caf\\xe9.py\n\
             take those changes over here and push again, or replace them with \
             `patchwire push --force`\n"
        );
        assert!(for_tool(&conflict).ends_with("replace them with the argument `force`\n"));
    }

    #[test]
    fn drift_and_warnings_are_listed() {
        let mut drifted = report(ReportStatus::Done);
        drifted.drift = vec![RelativePath::try_from("a.py").unwrap()];
        drifted.warnings = vec!["careful".to_owned()];
        assert!(said(&drifted).ends_with(
            "changed on the agent's side since the last push:\n    a.py\nwarning: careful\n"
        ));
    }
}
