//! A status for a person.

use patchwire_client::report::StatusReport;

use super::words::{app, count, foreign, time};

/// How the agent and its app are, and which push stands.
pub(crate) fn human(report: &StatusReport) -> String {
    let ready = match (report.verified, &report.root) {
        (true, Some(_)) => "ready",
        (false, Some(_)) => "not seen ready",
        (_, None) => "nothing pushed yet",
    };
    let mut said = format!(
        "agent   {} ({})\n",
        foreign(&report.name),
        foreign(&report.version)
    );
    said.push_str(&match &report.app {
        Some(state) => format!("app     {}; {ready}\n", app(state)),
        None => format!("app     none of the agent's own; {ready}\n"),
    });
    if let Some(restarts) = report
        .app
        .map(|app| app.restarts)
        .filter(|count| *count > 0)
    {
        said.push_str(&format!(
            "        ended by itself and was started again {}\n",
            count(restarts.into(), "time", "times")
        ));
    }
    if let Some(root) = &report.root {
        let entries = count(report.entries, "entry", "entries");
        said.push_str(&format!("tree    {root}, {entries}\n"));
    }
    if let Some(push) = &report.last_push {
        let message = match push.message.is_empty() {
            true => String::new(),
            false => format!(": {}", foreign(&push.message)),
        };
        said.push_str(&format!(
            "push    {} by {}, {}{message}\n",
            push.push_id,
            foreign(&push.author),
            time(push.at_ms)
        ));
        if let Some(newest) = push
            .last_result
            .filter(|newest| newest.push_id != push.push_id)
        {
            let status = newest.status.as_str();
            said.push_str(&format!(
                "        the newest, {}, ended as {status}\n",
                newest.push_id
            ));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use patchwire_client::report::{LastPushReport, LastResult, ReportStatus};
    use patchwire_protocol::{app::AppState, message::push::PushId};

    use super::*;

    #[test]
    fn a_status_says_what_stands_and_what_did_not() {
        let mut status = StatusReport {
            name: "web".to_owned(),
            version: "0.1.0".to_owned(),
            root: None,
            entries: 0,
            verified: false,
            app: None,
            last_push: None,
        };
        assert_eq!(
            human(&status),
            "agent   web (0.1.0)\napp     none of the agent's own; nothing pushed yet\n"
        );
        status.verified = true;
        status.entries = 2;
        status.root = Some(patchwire_delta::Digest::from_bytes([0xab; 32]));
        status.app = Some(AppState {
            running: true,
            pid: Some(7),
            restarts: 1,
            ..AppState::default()
        });
        status.last_push = Some(LastPushReport {
            push_id: PushId([1; 16]),
            author: "ana@laptop".to_owned(),
            message: "larger".to_owned(),
            at_ms: 0,
            last_result: Some(LastResult {
                push_id: PushId([2; 16]),
                status: ReportStatus::RolledBack,
            }),
        });
        let root = "ab".repeat(32);
        assert_eq!(
            human(&status),
            format!(
                "agent   web (0.1.0)\n\
                 app     pid 7; ready\n        ended by itself and was started again 1 time\n\
                 tree    {root}, 2 entries\n\
                 push    01010101-0101-0101-0101-010101010101 by ana@laptop, \
                 1970-01-01T00:00:00Z: larger\n        \
                 the newest, 02020202-0202-0202-0202-020202020202, ended as rolled-back\n"
            )
        );
    }
}
