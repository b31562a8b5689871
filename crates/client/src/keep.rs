//! A tree that was pushed, pushed again when the agent comes back without it.

use std::sync::Arc;

use patchwire_delta::Digest;
use patchwire_protocol::message::value::WireDigest;
use patchwire_transport::{Backoff, random_u64};
use tokio::{sync::Mutex, time::sleep};

use crate::{
    connect::{Client, StatusStream},
    error::ClientError,
    push::{Origin, PushEnd},
    report::PushReport,
    request::PushRequest,
};

/// What became of a tree that was kept.
#[derive(Debug)]
pub enum Kept {
    /// The agent came back without it, and it was pushed again, which ended so.
    Pushed(Box<PushReport>),
    /// The agent came back without it, and the directory holds another by now, or can't be scanned.
    /// Nothing was pushed.
    Changed,
    /// Another push had taken its place when the agent went. Nothing was pushed.
    Replaced,
}

impl Client {
    /// Waits until the agent comes back without `tree`, which it had: started anew with an empty
    /// directory, say. Then pushes it again, if it is exactly what `request.root` holds.
    ///
    /// It is no more than that push once more: `force`, `delete_any` and `dry_run` of the request
    /// don't count, and what others pushed meanwhile makes it a conflict. `turn` is held for as long
    /// as it takes, so that it never meets another push of the same root; whoever holds it already
    /// goes first.
    ///
    /// Cancel safe: dropped, it is as if the agent had not come back, unless all had been sent.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the agent can't be followed, or the tree not pushed again, for a reason
    /// that doesn't pass.
    pub async fn keep(
        &self,
        request: &PushRequest,
        tree: Digest,
        turn: &Mutex<()>,
    ) -> Result<Kept, ClientError> {
        let request = PushRequest {
            force: false,
            delete_any: false,
            dry_run: false,
            ..request.clone()
        };
        let origin = Arc::new(Origin::new(self, &request)?);
        let mut backoff = Backoff::new();
        loop {
            match self.keep_attached(&origin, &request, tree, turn).await {
                Ok(Some(kept)) => return Ok(kept),
                Ok(None) => backoff.reset(),
                Err(error) if error.is_passing() => {
                    tracing::debug!(%error, "the agent can't be followed");
                }
                Err(error) => return Err(error),
            }
            sleep(backoff.next_delay(random_u64().unwrap_or(0))).await;
        }
    }

    /// The same for as long as the agent stays attached; `None` if it went and may come back.
    async fn keep_attached(
        &self,
        origin: &Arc<Origin>,
        request: &PushRequest,
        tree: Digest,
        turn: &Mutex<()>,
    ) -> Result<Option<Kept>, ClientError> {
        let mut news = self.follow().await?;
        let first = news.next().await?;
        let first = first.ok_or(ClientError::Lost { source: None })?;
        if first.root == Some(WireDigest(tree)) {
            // One that stays attached and has another tree got it by a push. That may be rolled
            // back, so that what it has at the end counts.
            let mut last = first.root;
            while let Ok(Some(status)) = news.next().await {
                last = status.root;
            }
            return Ok((last != first.root).then_some(Kept::Replaced));
        }
        let again = Box::pin(async {
            let _turn = turn.lock().await;
            self.push_again(origin, request, tree).await
        });
        tokio::select! {
            biased;
            kept = again => kept.map(Some),
            // Nobody is to wait for an agent that went again as soon as it had come.
            () = ended(&mut news) => Ok(None),
        }
    }

    async fn push_again(
        &self,
        origin: &Arc<Origin>,
        request: &PushRequest,
        tree: Digest,
    ) -> Result<Kept, ClientError> {
        let scanned = match origin.scan(request, None, &|_| ()).await {
            Ok(scanned) if scanned.scan.manifest.root() == tree => scanned,
            Ok(_) => return Ok(Kept::Changed),
            Err(error) => {
                tracing::debug!(%error, "the tree is not what it was");
                return Ok(Kept::Changed);
            }
        };
        let pushed = self.push_scanned(origin, request, scanned, &|_| ()).await;
        Arc::clone(origin).save_later(|| ());
        Ok(match pushed? {
            PushEnd::Reported { report, .. } => Kept::Pushed(report),
            PushEnd::Changed(_) => Kept::Changed,
        })
    }
}

async fn ended(news: &mut StatusStream) {
    while let Ok(Some(_)) = news.next().await {}
}
