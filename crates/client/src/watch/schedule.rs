//! When to scan and when to push. Pure: no clock, no file, no network.
//!
//! The shell tells what happened ([`Schedule::handle_input`]) and performs what comes of it
//! ([`Schedule::poll_output`]). One scan or push is under way at a time; what is saved meanwhile makes
//! one more after it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use patchwire_delta::Digest;
use patchwire_transport::Backoff;

use super::{PushCause, WatchOptions};

/// How long to wait before looking again whether git is still at work, or a file still changes.
const SOON: Duration = Duration::from_millis(50);

/// A lock of git's index that is older was left behind: it is not heeded until it vanishes.
const GIT_STALE: Duration = Duration::from_secs(30);

/// After a scan that found nothing new there is none for this many times as long as it took: what is
/// written without end and not pushed (a log) is not to cost a processor. No save waits for longer
/// than [`WatchOptions::max`] because of that.
const REST: u32 = 4;

/// Nobody waits for longer than a day, which can be added to any time.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How often a push begins anew in a row because files changed while they were read, before that is
/// told.
const UNSETTLED: u32 = 3;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Something below the root changed, or may have.
    Saved,
    /// Saves can't be heard of, and it is time to look.
    Poll,
    /// Of what happened some was not heard. It may have been a scan that was too loud: that is not to
    /// make another one at once.
    Lost {
        /// How long to wait before the next scan if nothing is saved.
        again: Duration,
    },
    /// The scan found this.
    Found {
        target: Digest,
        /// Whether git holds the lock of its index.
        git_at_work: bool,
        /// How long the scan took.
        took: Duration,
    },
    /// The scan was put off: because git is at work, or because the root was exchanged under it.
    PutOff { git_at_work: bool },
    /// The directory can't be scanned.
    ScanFailed {
        /// Whether it fails in another way than it did.
        news: bool,
        /// How long to wait before the next scan if nothing is saved.
        again: Duration,
    },
    /// The push has ended.
    Ended(Ended),
    /// What is known of the agent.
    Agent(Presence),
    /// The root isn't there any more.
    RootGone,
    /// It is there again.
    RootBack,
}

/// How a push ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The agent answered, and has this now, where it says so.
    Answered {
        /// `None` if the answer says nothing of the tree.
        verdict: Option<Verdict>,
        standing: Option<Standing>,
    },
    /// It answered nothing that would say what became of the push: the same may succeed.
    Unanswered {
        /// For the back-off.
        random: u64,
    },
    /// The agent couldn't be reached.
    Unreachable {
        /// For the back-off.
        random: u64,
    },
    /// A file changed while it was read.
    Changed {
        /// For the back-off.
        random: u64,
    },
    /// This side refused to push that tree to what the agent has.
    Refused,
    /// It can't be pushed, for another reason.
    Failed,
}

/// What became of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The agent has it.
    Stands,
    /// The app did not come up with it.
    Bad,
    /// It doesn't go with what the agent has.
    Refused,
}

/// What an agent has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) epoch: u64,
    pub(super) root: Option<Digest>,
}

/// What is known of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// There is no way to it.
    Lost,
    /// It is there, and doesn't go on to say how it is.
    Unfollowed,
    /// It is attached, and has this.
    Attached {
        /// Another number for every time it was reached.
        stream: u64,
        standing: Standing,
    },
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Scan, and tell what was found.
    Scan {
        /// Whether to put it off while git is at work.
        heed_git: bool,
        /// Whether nobody is to hear of it, as it may find nothing.
        silent: bool,
    },
    /// Push what the scan found.
    Push,
    /// Say so.
    Tell(Tell),
}

/// What to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    Pushing(PushCause),
    Report { since_save: Option<Duration> },
    Unchanged,
    Rejected,
    Failed { again: bool },
    AgentLost,
    AgentBack,
    RootGone,
    RootBack,
}

/// Decides when to scan and to push.
#[derive(Debug)]
pub(super) struct Schedule {
    options: WatchOptions,
    state: State,
    /// What comes after what is under way.
    next: Option<Next>,
    /// The tree that was pushed last, and what became of it.
    handled: Option<Handled>,
    agent: Agent,
    /// What the agent has, as it was last heard of.
    stands: Option<Standing>,
    /// What the agent has, as it answered a push of ours, unless it said anything else since.
    confirmed: Option<Standing>,
    root_is_there: bool,
    /// When the next scan may begin at the earliest.
    rest_until: Instant,
    /// Since when git's lock is seen.
    git_since: Option<Instant>,
    backoff: Backoff,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Idle,
    Scanning(Job),
    Pushing {
        job: Job,
        target: Digest,
        /// Another tree that an agent came back with meanwhile.
        came_back: Option<Standing>,
    },
}

/// A scan, and the push that comes of it.
#[derive(Clone, Copy, Debug)]
struct Job {
    cause: PushCause,
    /// The first save that it carries.
    since: Option<Instant>,
    begun: Instant,
    /// Whether it was told that it begins.
    told: bool,
    /// Whether it was told that it fails.
    failed: bool,
    /// How often files changed under it.
    unsettled: u32,
}

#[derive(Clone, Copy, Debug)]
struct Next {
    job: Job,
    at: Instant,
    /// The first save since it waits.
    first: Option<Instant>,
    /// Whether only looking tells if there is anything to do.
    silent: bool,
}

#[derive(Clone, Copy, Debug)]
struct Handled {
    target: Digest,
    verdict: Verdict,
    /// Whose verdict that is, if it is known.
    epoch: Option<u64>,
    /// Whether it was told that it isn't sent again.
    told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agent {
    /// It was never heard of, or doesn't say how it is.
    Unknown,
    Attached {
        stream: u64,
    },
    Lost,
}

impl Schedule {
    /// Begins with a push.
    pub(super) fn new(options: WatchOptions, now: Instant) -> Self {
        let job = Job::new(PushCause::Start, None, now);
        let options = WatchOptions {
            quiet: options.quiet.min(LONGEST),
            max: options.max.min(LONGEST),
        };
        Self {
            options,
            state: State::Idle,
            next: Some(Next::new(job, now)),
            handled: None,
            agent: Agent::Unknown,
            stands: None,
            confirmed: None,
            root_is_there: true,
            rest_until: now,
            git_since: None,
            backoff: Backoff::new(),
            outputs: VecDeque::new(),
        }
    }

    /// What to do next, if anything.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let held =
            !matches!(self.state, State::Idle) || !self.root_is_there || self.agent == Agent::Lost;
        let next = self.next.filter(|_| !held)?;
        Some(next.at.max(self.rest_until))
    }

    /// Begins what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        let Some(Next {
            mut job, silent, ..
        }) = self.next.take()
        else {
            return;
        };
        job.begun = now;
        if !silent {
            self.announce(&mut job);
        }
        let heed_git = self
            .git_since
            .is_none_or(|since| now.duration_since(since) < GIT_STALE);
        self.outputs.push_back(Output::Scan { heed_git, silent });
        self.state = State::Scanning(job);
    }

    /// Takes in what happened.
    pub(super) fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Saved => self.saved(now),
            Input::Poll => {
                if matches!(self.state, State::Idle) {
                    self.look(now, now);
                }
            }
            // What is under way may be over that already: there is one more after it.
            Input::Lost { again } => self.look(now, now + again.min(LONGEST)),
            Input::Found {
                target,
                git_at_work,
                took,
            } => {
                if !git_at_work {
                    self.git_since = None;
                }
                if let State::Scanning(job) = self.state {
                    self.state = State::Idle;
                    self.found(job, target);
                    if matches!(self.state, State::Idle) {
                        let rest = took.saturating_mul(REST).min(self.options.max);
                        self.rest_until = now + rest;
                    }
                }
            }
            Input::PutOff { git_at_work } => {
                if git_at_work {
                    self.git_since.get_or_insert(now);
                }
                if let State::Scanning(job) = self.state {
                    self.state = State::Idle;
                    self.put_back(job, now + SOON);
                }
            }
            Input::ScanFailed { news, again } => {
                if let State::Scanning(mut job) = self.state {
                    self.state = State::Idle;
                    // Without a root the scan can't but fail, and that was told.
                    if self.root_is_there {
                        job.failed &= !news;
                        self.announce(&mut job);
                        self.fail(&mut job);
                    }
                    self.put_back(job, now + again);
                }
            }
            Input::Ended(ended) => {
                if let State::Pushing {
                    job,
                    target,
                    came_back,
                } = self.state
                {
                    self.state = State::Idle;
                    self.ended(job, target, ended, now);
                    self.compare(came_back, now);
                }
            }
            Input::Agent(presence) => self.presence(presence, now),
            Input::RootGone => {
                self.root_is_there = false;
                self.outputs.push_back(Output::Tell(Tell::RootGone));
            }
            Input::RootBack => {
                self.root_is_there = true;
                self.outputs.push_back(Output::Tell(Tell::RootBack));
                self.saved(now);
            }
        }
    }

    /// Looks at `at` whether there is anything to do, unless something is to be done anyway.
    fn look(&mut self, now: Instant, at: Instant) {
        let job = Job::new(PushCause::Saved, None, now);
        self.next.get_or_insert(Next {
            silent: true,
            ..Next::new(job, at)
        });
    }

    fn saved(&mut self, now: Instant) {
        let quiet = now + self.options.quiet;
        let job = Job::new(PushCause::Saved, None, now);
        let next = self.next.get_or_insert(Next::new(job, quiet));
        next.job.since.get_or_insert(now);
        let first = *next.first.get_or_insert(now);
        next.at = quiet.min(first + self.options.max);
        next.silent = false;
    }

    /// Puts a job back that could not be ended. What was saved since belongs to it.
    fn put_back(&mut self, mut job: Job, at: Instant) {
        let Some(next) = &mut self.next else {
            let silent = !job.told;
            self.next = Some(Next {
                silent,
                ..Next::new(job, at)
            });
            return;
        };
        job.since = job.since.or(next.job.since);
        if next.job.cause == PushCause::AgentChanged {
            job.cause = next.job.cause;
        }
        next.job = job;
        next.at = next.at.min(at);
    }

    fn found(&mut self, mut job: Job, target: Digest) {
        let handled = self.handled.filter(|handled| handled.target == target);
        let anew = job.cause == PushCause::AgentChanged;
        let rejected = handled.is_some_and(|handled| match handled.verdict {
            // With another agent there may be another app, or what that one lacked.
            Verdict::Bad => match (handled.epoch, self.stands) {
                (Some(judge), Some(stands)) => judge == stands.epoch,
                (None, _) | (_, None) => true,
            },
            Verdict::Refused => !anew,
            Verdict::Stands => false,
        });
        let stands = match handled {
            Some(handled) if !anew && handled.verdict == Verdict::Stands => true,
            _ => {
                let known = if anew { self.stands } else { self.confirmed };
                matches!(self.agent, Agent::Attached { .. })
                    && known.is_some_and(|standing| standing.root == Some(target))
            }
        };
        if rejected {
            if let Some(handled) = &mut self.handled
                && job.told
            {
                let news = !std::mem::replace(&mut handled.told, true);
                let tell = if news {
                    Tell::Rejected
                } else {
                    Tell::Unchanged
                };
                self.outputs.push_back(Output::Tell(tell));
            }
            return;
        }
        if stands {
            self.handled = Some(Handled {
                target,
                verdict: Verdict::Stands,
                epoch: None,
                told: false,
            });
            if job.told {
                self.outputs.push_back(Output::Tell(Tell::Unchanged));
            }
            return;
        }
        self.announce(&mut job);
        // Until there is an answer, nobody knows what the agent has.
        self.handled = None;
        self.confirmed = None;
        self.outputs.push_back(Output::Push);
        self.state = State::Pushing {
            job,
            target,
            came_back: None,
        };
    }

    fn ended(&mut self, mut job: Job, target: Digest, ended: Ended, now: Instant) {
        let handled = |verdict, standing: Option<Standing>| Handled {
            target,
            verdict,
            epoch: standing.map(|standing| standing.epoch),
            told: false,
        };
        match ended {
            Ended::Answered { verdict, standing } => {
                self.backoff.reset();
                self.handled = verdict.map(|verdict| handled(verdict, standing));
                if standing.is_some() {
                    (self.stands, self.confirmed) = (standing, standing);
                }
                self.report(job);
            }
            Ended::Unanswered { random } => {
                if !job.failed {
                    self.report(job);
                    job.failed = true;
                }
                let delay = self.backoff.next_delay(random);
                self.put_back(job, now + delay);
            }
            Ended::Unreachable { random } => {
                self.fail(&mut job);
                let delay = self.backoff.next_delay(random);
                self.put_back(job, now + delay);
            }
            Ended::Refused | Ended::Failed | Ended::Changed { .. } if !self.root_is_there => {
                self.put_back(job, now);
            }
            Ended::Changed { random } => {
                job.unsettled += 1;
                if job.unsettled >= UNSETTLED {
                    self.fail(&mut job);
                }
                let delay = self.backoff.next_delay(random).max(self.options.quiet);
                self.put_back(job, now + delay);
            }
            Ended::Refused => {
                self.handled = Some(handled(Verdict::Refused, None));
                let failed = Tell::Failed { again: false };
                self.outputs.push_back(Output::Tell(failed));
            }
            Ended::Failed => {
                let failed = Tell::Failed { again: false };
                self.outputs.push_back(Output::Tell(failed));
            }
        }
    }

    fn presence(&mut self, presence: Presence, now: Instant) {
        let (stream, standing) = match presence {
            Presence::Lost => {
                if matches!(self.agent, Agent::Attached { .. }) {
                    self.agent = Agent::Lost;
                    self.outputs.push_back(Output::Tell(Tell::AgentLost));
                }
                return;
            }
            Presence::Unfollowed => return self.agent = Agent::Unknown,
            Presence::Attached { stream, standing } => (stream, standing),
        };
        let before = std::mem::replace(&mut self.agent, Agent::Attached { stream });
        if before == Agent::Lost {
            self.outputs.push_back(Output::Tell(Tell::AgentBack));
        }
        // Where the same agent has another tree, somebody meant it: another developer's push, or one
        // that was taken back.
        let other = self.stands.is_some_and(|stands| {
            stands.epoch != standing.epoch || stands.root.is_some() && standing.root.is_none()
        });
        self.stands = Some(standing);
        if self.confirmed != Some(standing) {
            self.confirmed = None;
        }
        if before == (Agent::Attached { stream }) {
            // Another developer's push, or ours on its way: the next save decides.
            return;
        }
        // There is no need to wait any longer for an agent that can be reached.
        if let Some(next) = self.next.as_mut().filter(|next| next.job.failed) {
            next.at = next.at.min(now);
        }
        if !other {
            return;
        }
        match &mut self.state {
            State::Pushing { came_back, .. } => *came_back = Some(standing),
            State::Idle | State::Scanning(_) => self.agent_changed(now),
        }
    }

    /// What to do about an agent that came back during the push that has just ended.
    fn compare(&mut self, came_back: Option<Standing>, now: Instant) {
        if let (Some(came_back), Some(answered)) = (came_back, self.confirmed)
            && came_back.epoch != answered.epoch
        {
            // The answer was the one of the agent before.
            (self.stands, self.confirmed) = (Some(came_back), None);
            self.agent_changed(now);
        }
    }

    fn agent_changed(&mut self, now: Instant) {
        match &mut self.next {
            Some(next) => {
                next.job.cause = PushCause::AgentChanged;
                next.silent = false;
            }
            None => {
                let job = Job::new(PushCause::AgentChanged, None, now);
                self.next = Some(Next::new(job, now));
            }
        }
    }

    fn announce(&mut self, job: &mut Job) {
        if !std::mem::replace(&mut job.told, true) {
            let pushing = Tell::Pushing(job.cause);
            self.outputs.push_back(Output::Tell(pushing));
        }
    }

    fn fail(&mut self, job: &mut Job) {
        if !std::mem::replace(&mut job.failed, true) {
            let failed = Tell::Failed { again: true };
            self.outputs.push_back(Output::Tell(failed));
        }
    }

    fn report(&mut self, job: Job) {
        let since_save = job.since.map(|since| job.begun.duration_since(since));
        let report = Tell::Report { since_save };
        self.outputs.push_back(Output::Tell(report));
    }
}

impl Next {
    const fn new(job: Job, at: Instant) -> Self {
        Self {
            job,
            at,
            first: None,
            silent: false,
        }
    }
}

impl Job {
    const fn new(cause: PushCause, since: Option<Instant>, now: Instant) -> Self {
        Self {
            cause,
            since,
            begun: now,
            told: false,
            failed: false,
            unsettled: 0,
        }
    }
}

#[cfg(test)]
mod tests;
