//! When the app is started, signalled and started again: a pure state machine.
//!
//! It knows no process. The shell around it ([`app`](crate::app)) hands in what was asked and what
//! happened, performs every [`Output`] in order, and calls [`Supervisor::handle_timeout`] when
//! [`Supervisor::poll_timeout`] says so. The promise it keeps: nothing is spawned before the group
//! of the process before is gone, so that two generations of an app never run side by side.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use patchwire_protocol::app::Exit;

/// The pause before an app that ended by itself is started again, doubled each time.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// The longest such pause.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// An app that lived this long is taken to have been well: the pauses begin anew.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// How long a killed group may take to be gone before whoever waits for it is told.
///
/// Only a process that hangs inside the kernel, on a dead network file system say, takes long.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

/// What was asked, or what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The app shall run, started anew: one that runs is stopped first.
    Start(OnExit),
    /// The app shall not run.
    Stop,
    /// What an exit of the app leads to from now on.
    Policy(OnExit),
    /// The first process of the group ended.
    Exited(Exit),
    /// No process of the group is alive. Comes after [`Input::Exited`].
    GroupGone,
    /// [`Output::Spawn`] could not be done.
    SpawnFailed,
}

/// What happens when the app ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// It is started again, after a pause that grows while it keeps ending.
    Restart,
    /// It stays down: a push is being verified, and whoever pushes decides.
    Hold,
}

/// What the shell has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Start the app, in a group of its own.
    Spawn,
    /// Send TERM to the whole group.
    Terminate,
    /// Send KILL to the whole group.
    Kill,
    /// Tell those who wait.
    Report(Report),
}

/// News for whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The app ended by itself.
    Crashed(Exit),
    /// The app is started again after this pause.
    Restarting {
        /// The pause.
        after: Duration,
    },
    /// Nothing of the app runs, as was asked.
    Stopped,
    /// The group was killed and is still not gone; it is waited for all the same.
    Stuck,
}

/// The state machine. See the [module](self) for its promise.
#[derive(Debug)]
pub struct Supervisor {
    state: State,
    grace: Duration,
    on_exit: OnExit,
    /// How often the app ended by itself without having been well in between.
    crashes: u32,
    restarts: u32,
    outputs: VecDeque<Output>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing runs and nothing shall.
    Down,
    /// The app runs since then.
    Running { since: Instant },
    /// The group was told to end, and is killed at the deadline.
    Stopping { kill_at: Instant, next: Next },
    /// The group was killed. `stuck_at` is none once it was reported.
    Killed {
        stuck_at: Option<Instant>,
        next: Next,
    },
    /// Nothing runs until then.
    Backoff { until: Instant },
    /// The app ended by itself and stays down until someone decides.
    Held,
}

/// What follows once the group is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Stay,
    Start,
    /// The app ended by itself: what [`OnExit`] says by then.
    Recover,
}

impl Supervisor {
    /// Makes one for an app that does not run. A group that was told to end has `grace` for it.
    #[must_use]
    pub const fn new(grace: Duration) -> Self {
        Self {
            state: State::Down,
            grace,
            on_exit: OnExit::Restart,
            crashes: 0,
            restarts: 0,
            outputs: VecDeque::new(),
        }
    }

    /// How often the app was started again by itself since [`Input::Start`].
    #[must_use]
    pub const fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Takes in one thing that was asked or that happened.
    ///
    /// An event that cannot come in the present state changes nothing.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Start(on_exit) => {
                self.on_exit = on_exit;
                self.crashes = 0;
                self.restarts = 0;
                match self.state {
                    State::Down | State::Backoff { .. } | State::Held => self.spawn(now),
                    State::Running { .. } => self.terminate(Next::Start, now),
                    State::Stopping { .. } | State::Killed { .. } => {
                        self.set_next(Next::Start, now);
                    }
                }
            }
            Input::Stop => match self.state {
                State::Down => {}
                State::Backoff { .. } | State::Held => {
                    self.state = State::Down;
                    self.report(Report::Stopped);
                }
                State::Running { .. } => self.terminate(Next::Stay, now),
                State::Stopping { .. } | State::Killed { .. } => self.set_next(Next::Stay, now),
            },
            Input::Policy(on_exit) => {
                self.on_exit = on_exit;
                match (self.state, on_exit) {
                    (State::Held, OnExit::Restart) => self.recover(now),
                    (State::Backoff { .. }, OnExit::Hold) => self.state = State::Held,
                    (
                        State::Down
                        | State::Running { .. }
                        | State::Stopping { .. }
                        | State::Killed { .. }
                        | State::Backoff { .. }
                        | State::Held,
                        _,
                    ) => {}
                }
            }
            Input::Exited(exit) => {
                if let State::Running { since } = self.state {
                    self.report(Report::Crashed(exit));
                    self.count_crash(since, now);
                    // Others of its group may linger, and hold the port.
                    self.terminate(Next::Recover, now);
                }
            }
            Input::GroupGone => match self.state {
                State::Stopping { next, .. } | State::Killed { next, .. } => match next {
                    Next::Stay => {
                        self.state = State::Down;
                        self.report(Report::Stopped);
                    }
                    Next::Start => self.spawn(now),
                    Next::Recover => self.recover(now),
                },
                State::Down | State::Running { .. } | State::Backoff { .. } | State::Held => {}
            },
            Input::SpawnFailed => {
                if let State::Running { since } = self.state {
                    self.count_crash(since, now);
                    self.recover(now);
                }
            }
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        match self.state {
            State::Stopping { next, .. } => {
                self.state = State::Killed {
                    stuck_at: Some(now + STUCK_AFTER),
                    next,
                };
                self.outputs.push_back(Output::Kill);
            }
            State::Killed { next, .. } => {
                self.state = State::Killed {
                    stuck_at: None,
                    next,
                };
                self.report(Report::Stuck);
            }
            State::Backoff { .. } => {
                self.restarts = self.restarts.saturating_add(1);
                self.spawn(now);
            }
            State::Down | State::Running { .. } | State::Held => {}
        }
    }

    /// When [`Self::handle_timeout`] is to be called, if nothing happens before.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Stopping { kill_at, .. } => Some(kill_at),
            State::Killed { stuck_at, .. } => stuck_at,
            State::Backoff { until } => Some(until),
            State::Down | State::Running { .. } | State::Held => None,
        }
    }

    /// Returns the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn spawn(&mut self, now: Instant) {
        self.state = State::Running { since: now };
        self.outputs.push_back(Output::Spawn);
    }

    fn terminate(&mut self, next: Next, now: Instant) {
        self.state = State::Stopping {
            kill_at: now + self.grace,
            next,
        };
        self.outputs.push_back(Output::Terminate);
    }

    fn set_next(&mut self, wanted: Next, now: Instant) {
        match &mut self.state {
            State::Stopping { next, .. } => *next = wanted,
            State::Killed { next, stuck_at } => {
                *next = wanted;
                // Whoever asks is told once more, if it still hangs.
                stuck_at.get_or_insert(now + STUCK_AFTER);
            }
            State::Down | State::Running { .. } | State::Backoff { .. } | State::Held => {}
        }
    }

    fn count_crash(&mut self, since: Instant, now: Instant) {
        if now.saturating_duration_since(since) >= HEALTHY_AFTER {
            self.crashes = 0;
        }
        self.crashes = self.crashes.saturating_add(1);
    }

    fn recover(&mut self, now: Instant) {
        self.state = match self.on_exit {
            OnExit::Hold => State::Held,
            OnExit::Restart => {
                let doublings = self.crashes.saturating_sub(1).min(16);
                let after = (BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_MAX);
                self.report(Report::Restarting { after });
                State::Backoff { until: now + after }
            }
        };
    }

    fn report(&mut self, report: Report) {
        self.outputs.push_back(Output::Report(report));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);
    const FAILED: Exit = Exit::Code(1);

    /// A supervisor and its clock: each step returns what has to be done.
    struct Transcript {
        supervisor: Supervisor,
        now: Instant,
    }

    impl Transcript {
        fn new() -> Self {
            Self {
                supervisor: Supervisor::new(GRACE),
                now: Instant::now(),
            }
        }

        fn running(on_exit: OnExit) -> Self {
            let mut this = Self::new();
            assert_eq!(this.input(Input::Start(on_exit)), [Output::Spawn]);
            this
        }

        fn input(&mut self, input: Input) -> Vec<Output> {
            self.supervisor.handle_input(input, self.now);
            self.outputs()
        }

        fn after(&mut self, time: Duration) -> Vec<Output> {
            self.now += time;
            self.supervisor.handle_timeout(self.now);
            self.outputs()
        }

        /// Lets time pass to the next deadline: how long that was, and what has to be done.
        fn deadline(&mut self) -> (Duration, Vec<Output>) {
            let due = self.supervisor.poll_timeout().expect("a deadline");
            let wait = due - self.now;
            if let Some(early) = wait.checked_sub(Duration::from_nanos(1)) {
                assert_eq!(self.after(early), [], "acted before its time");
                self.now -= early;
            }
            (wait, self.after(wait))
        }

        fn outputs(&mut self) -> Vec<Output> {
            std::iter::from_fn(|| self.supervisor.poll_output()).collect()
        }

        fn crash(&mut self) -> Vec<Output> {
            let crashed = Output::Report(Report::Crashed(FAILED));
            assert_eq!(
                self.input(Input::Exited(FAILED)),
                [crashed, Output::Terminate]
            );
            self.input(Input::GroupGone)
        }
    }

    fn restarting(millis: u64) -> Vec<Output> {
        let after = Duration::from_millis(millis);
        vec![Output::Report(Report::Restarting { after })]
    }

    #[test]
    fn a_restart_spawns_only_when_the_group_is_gone() {
        let mut app = Transcript::running(OnExit::Restart);
        assert_eq!(app.input(Input::Start(OnExit::Hold)), [Output::Terminate]);
        assert_eq!(app.input(Input::Exited(Exit::Signal(15))), []);
        assert_eq!(app.input(Input::GroupGone), [Output::Spawn]);
        assert_eq!(app.supervisor.poll_timeout(), None);
        assert_eq!(app.supervisor.restarts(), 0);
    }

    #[test]
    fn a_group_that_ignores_term_is_killed_at_the_grace() {
        let mut app = Transcript::running(OnExit::Restart);
        assert_eq!(app.input(Input::Stop), [Output::Terminate]);
        assert_eq!(app.deadline(), (GRACE, vec![Output::Kill]));
        assert_eq!(app.input(Input::Exited(Exit::Signal(9))), []);
        assert_eq!(
            app.input(Input::GroupGone),
            [Output::Report(Report::Stopped)]
        );
        assert_eq!(app.supervisor.poll_timeout(), None);
    }

    #[test]
    fn members_that_outlive_the_first_process_are_killed_too() {
        let mut app = Transcript::running(OnExit::Restart);
        app.input(Input::Stop);
        assert_eq!(app.input(Input::Exited(Exit::Code(0))), []);
        assert_eq!(app.deadline(), (GRACE, vec![Output::Kill]));
        assert_eq!(
            app.input(Input::GroupGone),
            [Output::Report(Report::Stopped)]
        );
    }

    #[test]
    fn what_even_kill_does_not_end_is_reported_once_and_waited_for() {
        let mut app = Transcript::running(OnExit::Restart);
        app.input(Input::Start(OnExit::Restart));
        app.deadline();
        assert_eq!(
            app.deadline(),
            (STUCK_AFTER, vec![Output::Report(Report::Stuck)])
        );
        assert_eq!(app.supervisor.poll_timeout(), None);
        assert_eq!(app.input(Input::Exited(Exit::Signal(9))), []);
        assert_eq!(app.input(Input::GroupGone), [Output::Spawn]);
    }

    #[test]
    fn crashes_are_restarted_ever_more_slowly_up_to_a_bound() {
        let mut app = Transcript::running(OnExit::Restart);
        for millis in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            assert_eq!(app.crash(), restarting(millis));
            let (wait, outputs) = app.deadline();
            assert_eq!(wait, Duration::from_millis(millis));
            assert_eq!(outputs, [Output::Spawn]);
        }
        assert_eq!(app.supervisor.restarts(), 9);

        app.after(HEALTHY_AFTER);
        assert_eq!(app.crash(), restarting(100));
    }

    #[test]
    fn a_deliberate_start_forgets_the_crashes() {
        let mut app = Transcript::running(OnExit::Restart);
        app.crash();
        app.deadline();
        app.crash();
        assert_eq!(app.input(Input::Start(OnExit::Restart)), [Output::Spawn]);
        assert_eq!(app.supervisor.restarts(), 0);
        assert_eq!(app.crash(), restarting(100));
    }

    #[test]
    fn a_stop_ends_the_backoff() {
        let mut app = Transcript::running(OnExit::Restart);
        app.crash();
        assert_eq!(app.input(Input::Stop), [Output::Report(Report::Stopped)]);
        assert_eq!(app.supervisor.poll_timeout(), None);
        assert_eq!(app.after(BACKOFF_MAX), []);
    }

    #[test]
    fn the_last_wish_during_a_stop_counts() {
        let mut app = Transcript::running(OnExit::Restart);
        app.input(Input::Stop);
        assert_eq!(app.input(Input::Start(OnExit::Restart)), []);
        assert_eq!(app.input(Input::GroupGone), [Output::Spawn]);

        app.input(Input::Start(OnExit::Restart));
        assert_eq!(app.input(Input::Stop), []);
        assert_eq!(
            app.input(Input::GroupGone),
            [Output::Report(Report::Stopped)]
        );
    }

    #[test]
    fn an_exit_during_verification_is_reported_and_not_restarted() {
        let mut app = Transcript::running(OnExit::Hold);
        assert_eq!(app.crash(), []);
        assert_eq!(app.supervisor.poll_timeout(), None);
        assert_eq!(app.input(Input::Start(OnExit::Hold)), [Output::Spawn]);
        assert_eq!(app.input(Input::Policy(OnExit::Restart)), []);
        assert_eq!(app.crash(), restarting(100));
    }

    #[test]
    fn an_app_that_was_held_is_restarted_when_the_hold_ends() {
        let mut app = Transcript::running(OnExit::Hold);
        app.crash();
        assert_eq!(app.input(Input::Policy(OnExit::Restart)), restarting(100));
        assert_eq!(app.input(Input::Policy(OnExit::Hold)), []);
        assert_eq!(app.supervisor.poll_timeout(), None);
    }

    #[test]
    fn a_failed_spawn_is_a_crash() {
        let mut app = Transcript::running(OnExit::Restart);
        assert_eq!(app.input(Input::SpawnFailed), restarting(100));
        assert_eq!(app.deadline().1, [Output::Spawn]);
        assert_eq!(app.input(Input::SpawnFailed), restarting(200));

        let mut app = Transcript::running(OnExit::Hold);
        assert_eq!(app.input(Input::SpawnFailed), []);
        assert_eq!(app.supervisor.poll_timeout(), None);
    }

    #[test]
    fn events_that_cannot_come_change_nothing() {
        let mut app = Transcript::new();
        for input in [Input::Exited(FAILED), Input::GroupGone, Input::SpawnFailed] {
            assert_eq!(app.input(input), []);
        }
        assert_eq!(app.input(Input::Stop), [], "nothing ran");
        assert_eq!(app.input(Input::Start(OnExit::Restart)), [Output::Spawn]);
        assert_eq!(app.input(Input::GroupGone), []);
    }
}
