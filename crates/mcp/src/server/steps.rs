//! How far a call is, told to a client that asked for it.

use std::{
    collections::VecDeque,
    future::Future,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use patchwire_client::Progress;
use rmcp::{
    Peer, RoleServer,
    model::{ProgressNotificationParam, ProgressToken},
    service::RequestContext,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use crate::progress;

/// Between two notices of the same stage. The first and the last of each stage go out whenever they
/// come.
const PERIOD: Duration = Duration::from_millis(100);

/// Between two notices where nothing moves.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How many steps wait for a client that is slow to read. Two per stage are enough, unless a push is
/// sent again and again.
const WAITING: usize = 64;

/// The steps of one call that have not been told yet.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

impl Steps {
    /// Takes in how far the call is.
    pub(crate) fn show(&self, step: Progress) {
        self.waiting().put(step);
        self.changed.notify_one();
    }

    fn end(&self) {
        self.waiting().ended = true;
        self.changed.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Whatever happened, the steps are whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does the work of a call, whose steps are told as they come. All of them have been told when it
/// ends, so that none comes after the answer.
pub(crate) async fn reported<T>(
    steps: &Steps,
    reporter: Option<Reporter>,
    work: impl Future<Output = T>,
) -> T {
    let Some(mut reporter) = reporter else {
        return work.await;
    };
    let work = async {
        let result = work.await;
        steps.end();
        result
    };
    let (result, ()) = tokio::join!(work, reporter.run(steps));
    result
}

/// Tells a client of the steps of one call.
pub(crate) struct Reporter {
    peer: Peer<RoleServer>,
    token: ProgressToken,
    /// Notices so far: the one measure of all stages that always grows.
    told: u32,
    /// Whether the client has hung up. It may still wait for answers, but notices don't go out.
    hung_up: watch::Receiver<bool>,
}

impl Reporter {
    /// `None` for a client that doesn't ask to be told.
    pub(crate) fn new(
        context: &RequestContext<RoleServer>,
        hung_up: &watch::Receiver<bool>,
    ) -> Option<Self> {
        Some(Self {
            peer: context.peer.clone(),
            token: context.meta.get_progress_token()?,
            told: 0,
            hung_up: hung_up.clone(),
        })
    }

    async fn run(&mut self, steps: &Steps) {
        let mut stage = Progress::Connecting;
        let (mut since, mut told) = (Instant::now(), Instant::now());
        loop {
            let next = steps.waiting().next(told.elapsed() < PERIOD);
            match next {
                Next::Tell(step) => {
                    if !same_stage(&stage, &step) {
                        since = Instant::now();
                    }
                    stage = step;
                    self.tell(progress::words(step)).await;
                    told = Instant::now();
                }
                Next::Later => {
                    let rest = PERIOD.saturating_sub(told.elapsed());
                    let _ = timeout(rest, steps.changed.notified()).await;
                }
                Next::Nothing => {
                    let changed = timeout(HEARTBEAT, steps.changed.notified());
                    if changed.await.is_err() {
                        let seconds = since.elapsed().as_secs();
                        self.tell(format!("{} ({seconds} s)", progress::words(stage)))
                            .await;
                    }
                }
                Next::End => break,
            }
        }
    }

    async fn tell(&mut self, message: String) {
        self.told += 1;
        let notice = ProgressNotificationParam::new(self.token.clone(), self.told.into())
            .with_message(message);
        tokio::select! {
            told = self.peer.notify_progress(notice) => if let Err(error) = told {
                // The call goes on: its answer will tell whether anyone is there.
                tracing::debug!(%error, "can't tell the client how far a call is");
            },
            _ = self.hung_up.wait_for(|hung_up| *hung_up) => {}
        }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    /// Each with whether it is the first of its stage.
    steps: VecDeque<(Progress, bool)>,
    /// The one that came last, told or not.
    newest: Option<Progress>,
    ended: bool,
}

/// What there is to tell.
#[derive(Debug, PartialEq)]
enum Next {
    Tell(Progress),
    /// Something, once the stage has not been told of for a while.
    Later,
    Nothing,
    /// Nothing, and nothing will come.
    End,
}

impl Waiting {
    /// Takes a step in the place of the one before, if that is neither the first nor the last of
    /// its stage.
    fn put(&mut self, step: Progress) {
        let before = self.newest.replace(step);
        let is_first = !before.is_some_and(|before| same_stage(&before, &step));
        if !is_first {
            self.steps.pop_back_if(|(_, is_first)| !*is_first);
        }
        if self.steps.len() == WAITING {
            self.steps.pop_front();
        }
        self.steps.push_back((step, is_first));
    }

    fn next(&mut self, told_just_now: bool) -> Next {
        let held_back = |(_, is_first): &(Progress, bool)| told_just_now && !is_first;
        match self.steps.front() {
            // It may not be the last of its stage yet.
            Some(only) if self.steps.len() == 1 && !self.ended && held_back(only) => Next::Later,
            Some(_) => match self.steps.pop_front() {
                Some((step, _)) => Next::Tell(step),
                None => Next::Nothing,
            },
            None if self.ended => Next::End,
            None => Next::Nothing,
        }
    }
}

fn same_stage(one: &Progress, other: &Progress) -> bool {
    match (one, other) {
        (Progress::Agent(one), Progress::Agent(other)) => one == other,
        _ => mem::discriminant(one) == mem::discriminant(other),
    }
}

#[cfg(test)]
mod tests {
    use patchwire_protocol::message::push::Phase;

    use super::*;

    const STAGING: Progress = Progress::Agent(Phase::Staging);

    fn sent(sent: u64) -> Progress {
        Progress::Sending { sent }
    }

    fn tell(waiting: &mut Waiting, told_just_now: bool) -> Vec<Next> {
        let mut told = Vec::new();
        loop {
            match waiting.next(told_just_now) {
                next @ Next::Tell(_) => told.push(next),
                next => {
                    told.push(next);
                    return told;
                }
            }
        }
    }

    #[test]
    fn the_first_and_the_last_of_each_stage_are_told() {
        let mut waiting = Waiting::default();
        for step in [sent(0), sent(1), sent(2), STAGING] {
            waiting.put(step);
        }
        let all = [sent(0), sent(2), STAGING].map(Next::Tell);
        let told = tell(&mut waiting, true);
        assert_eq!(told[..3], all);
        assert_eq!(told[3..], [Next::Nothing]);
    }

    #[test]
    fn an_update_waits_until_the_stage_was_not_told_of_for_a_while() {
        let mut waiting = Waiting::default();
        waiting.put(sent(0));
        assert_eq!(tell(&mut waiting, true)[0], Next::Tell(sent(0)));
        waiting.put(sent(1));
        assert_eq!(tell(&mut waiting, true), [Next::Later]);
        waiting.put(sent(2));
        assert_eq!(
            tell(&mut waiting, false),
            [Next::Tell(sent(2)), Next::Nothing]
        );
    }

    #[test]
    fn everything_is_told_before_the_end() {
        let mut waiting = Waiting::default();
        waiting.put(sent(0));
        waiting.put(sent(1));
        waiting.ended = true;
        let all = [Next::Tell(sent(0)), Next::Tell(sent(1)), Next::End];
        assert_eq!(tell(&mut waiting, true), all);
    }

    #[test]
    fn a_client_that_does_not_read_costs_no_more_than_the_bound() {
        let mut waiting = Waiting::default();
        for round in 0..1000 {
            waiting.put(sent(round));
            waiting.put(STAGING);
        }
        assert_eq!(waiting.steps.len(), WAITING);
        assert_eq!(waiting.steps.back(), Some(&(STAGING, true)));
    }
}
