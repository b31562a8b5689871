//! What a push left at its agent, kept there until the next push.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use patchwire_client::{Client, ClientError, Kept, PushReport, PushRequest, report::ReportStatus};
use patchwire_delta::Digest;
use tokio::task::JoinSet;

use crate::{failure::Failure, output};

/// Keeps one tree, or none. Dropped, it keeps none.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// At most one.
    task: Mutex<JoinSet<()>>,
    /// What it came to last, for the next result.
    note: Note,
}

type Note = Arc<Mutex<Option<String>>>;

impl Keeper {
    /// Keeps this tree from here on, and the one before no longer. The caller has the turn, so that
    /// the one before is not being pushed.
    pub(crate) fn keep(
        &self,
        client: Arc<Client>,
        turn: Arc<tokio::sync::Mutex<()>>,
        request: PushRequest,
        tree: Option<Digest>,
    ) {
        let mut task = JoinSet::new();
        if let Some(tree) = tree {
            task.spawn(keep(client, turn, request, tree, Arc::clone(&self.note)));
        }
        *locked(&self.task) = task;
    }

    /// What happened since the last call, for its result.
    pub(crate) fn take_note(&self) -> Option<String> {
        locked(&self.note).take()
    }

    /// Keeps nothing any more, and waits until nothing is under way.
    pub(crate) async fn end(&self) {
        let mut task = mem::take(&mut *locked(&self.task));
        task.shutdown().await;
    }
}

async fn keep(
    client: Arc<Client>,
    turn: Arc<tokio::sync::Mutex<()>>,
    request: PushRequest,
    tree: Digest,
    note: Note,
) {
    loop {
        let kept = client.keep(&request, tree, &turn).await;
        let goes_on = matches!(&kept, Ok(Kept::Pushed(report)) if stands(report));
        if let Some(said) = said(kept) {
            tracing::warn!(root = %request.root.display(), "{said}");
            *locked(&note) = Some(said);
        }
        if !goes_on {
            break;
        }
    }
}

/// What is to be said of what became of a tree, in one line.
fn said(kept: Result<Kept, ClientError>) -> Option<String> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    let said = match kept {
        // It had got there on another way.
        Ok(Kept::Pushed(report)) if report.status == ReportStatus::NoChanges => return None,
        Ok(Kept::Pushed(report)) if stands(&report) => {
            format!("the agent came back without what was pushed: it was pushed again at {now}")
        }
        Ok(Kept::Pushed(report)) => {
            let error = report.error.map(|error| format!(": {}", error.message));
            format!(
                "the agent came back without what was pushed: it was pushed again at {now}, which \
                 ended as {}{}",
                report.status.as_str(),
                error.unwrap_or_default()
            )
        }
        Ok(Kept::Changed) => format!(
            "the agent came back without what was pushed at {now}: it was not pushed again, as the \
             directory had changed"
        ),
        Ok(Kept::Replaced) => {
            tracing::info!("another push took the place of what was kept");
            return None;
        }
        Err(error) => format!(
            "what was pushed is not pushed again if the agent comes back without it: {}",
            Failure::from(error).message()
        ),
    };
    Some(output::foreign(&said))
}

fn stands(report: &PushReport) -> bool {
    matches!(report.status, ReportStatus::Done | ReportStatus::NoChanges)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever happened, what it holds is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
