use super::*;

const OPTIONS: WatchOptions = WatchOptions {
    quiet: Duration::from_millis(30),
    max: Duration::from_secs(2),
};

/// A schedule and a clock of its own.
struct Clock {
    schedule: Schedule,
    now: Instant,
}

fn digest(tree: &str) -> Digest {
    Digest::of(tree.as_bytes())
}

fn standing(epoch: u64, tree: &str) -> Standing {
    Standing {
        epoch,
        root: Some(digest(tree)),
    }
}

fn done(tree: &str) -> Ended {
    Ended::Answered {
        verdict: Some(Verdict::Stands),
        standing: Some(standing(1, tree)),
    }
}

/// Rolled back to a tree.
fn rolled_back(tree: &str) -> Ended {
    Ended::Answered {
        verdict: Some(Verdict::Bad),
        standing: Some(standing(1, tree)),
    }
}

const UNREACHABLE: Ended = Ended::Unreachable { random: u64::MAX };
const SCAN: Output = Output::Scan {
    heed_git: true,
    silent: false,
};

fn pushing(cause: PushCause) -> Output {
    Output::Tell(Tell::Pushing(cause))
}

fn failed(again: bool) -> Output {
    Output::Tell(Tell::Failed { again })
}

impl Clock {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            schedule: Schedule::new(OPTIONS, now),
            now,
        }
    }

    /// One that has pushed `tree`, to an agent that is followed.
    fn after_pushing(tree: &str) -> Self {
        let mut clock = Self::new();
        assert_eq!(clock.pass(0), [pushing(PushCause::Start), SCAN]);
        assert_eq!(clock.found(tree), [Output::Push]);
        let ended = clock.input(Input::Ended(done(tree)));
        assert_eq!(ended, [Output::Tell(Tell::Report { since_save: None })]);
        assert_eq!(clock.attached(1, standing(1, tree)), []);
        assert_eq!(clock.schedule.poll_timeout(), None);
        clock
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.schedule.poll_output()).collect()
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.schedule.handle_input(input, self.now);
        self.outputs()
    }

    /// Lets time pass.
    fn pass(&mut self, millis: u64) -> Vec<Output> {
        self.now += Duration::from_millis(millis);
        self.schedule.handle_timeout(self.now);
        self.outputs()
    }

    fn found(&mut self, tree: &str) -> Vec<Output> {
        self.input(Input::Found {
            target: digest(tree),
            git_at_work: false,
            took: Duration::ZERO,
        })
    }

    fn attached(&mut self, stream: u64, standing: Standing) -> Vec<Output> {
        self.input(Input::Agent(Presence::Attached { stream, standing }))
    }

    /// Saves, and lets it be quiet.
    fn save(&mut self) {
        assert_eq!(self.input(Input::Saved), []);
        assert_eq!(self.pass(30), [pushing(PushCause::Saved), SCAN]);
    }

    /// Saves a tree, and pushes it.
    fn save_and_push(&mut self, tree: &str, ended: Ended) {
        self.save();
        assert_eq!(self.found(tree), [Output::Push]);
        assert_eq!(self.input(Input::Ended(ended)), [report(30)]);
    }

    /// How long until something is due.
    fn due(&self) -> Option<u128> {
        let at = self.schedule.poll_timeout()?;
        Some(at.saturating_duration_since(self.now).as_millis())
    }
}

fn report(millis: u64) -> Output {
    let since_save = Some(Duration::from_millis(millis));
    Output::Tell(Tell::Report { since_save })
}

#[test]
fn a_push_waits_until_it_is_quiet() {
    let mut clock = Clock::after_pushing("a");
    assert_eq!(clock.input(Input::Saved), []);
    assert_eq!(clock.pass(20), []);
    assert_eq!(clock.input(Input::Saved), []);
    assert_eq!(clock.pass(29), []);
    assert_eq!(clock.pass(1), [pushing(PushCause::Saved), SCAN]);
    assert_eq!(clock.found("b"), [Output::Push]);
    assert_eq!(clock.input(Input::Ended(done("b"))), [report(50)]);
    assert_eq!(clock.due(), None);
}

#[test]
fn a_push_waits_no_longer_than_the_maximum() {
    let mut clock = Clock::after_pushing("a");
    for _ in 0..99 {
        assert_eq!(clock.input(Input::Saved), []);
        assert_eq!(clock.pass(20), []);
    }
    assert_eq!(clock.input(Input::Saved), []);
    assert_eq!(clock.pass(20), [pushing(PushCause::Saved), SCAN]);
    // What is saved from here on waits anew.
    assert_eq!(clock.input(Input::Saved), []);
    assert_eq!(clock.found("b"), [Output::Push]);
    assert_eq!(clock.input(Input::Ended(done("b"))), [report(2000)]);
    assert_eq!(clock.due(), Some(30));
}

#[test]
fn what_is_saved_during_a_push_makes_one_more_after_it() {
    let mut clock = Clock::after_pushing("a");
    clock.save();
    assert_eq!(clock.input(Input::Saved), []);
    assert_eq!(clock.found("b"), [Output::Push]);
    for _ in 0..10 {
        assert_eq!(clock.input(Input::Saved), []);
        assert_eq!(clock.pass(40), []);
    }
    let next = [report(30), pushing(PushCause::Saved), SCAN];
    assert_eq!(clock.input(Input::Ended(done("b"))), next[..1]);
    assert_eq!(clock.pass(0), next[1..]);
    assert_eq!(clock.found("c"), [Output::Push]);
    assert_eq!(clock.input(Input::Ended(done("c"))), [report(400)]);
    assert_eq!(clock.due(), None);
}

#[test]
fn what_changes_nothing_is_not_pushed() {
    let mut clock = Clock::after_pushing("a");
    clock.save();
    assert_eq!(clock.found("a"), [Output::Tell(Tell::Unchanged)]);
    assert_eq!(clock.due(), None);
}

#[test]
fn a_version_that_was_rolled_back_is_not_sent_again_until_it_changes() {
    let mut clock = Clock::after_pushing("good");
    clock.save_and_push("bad", rolled_back("good"));
    clock.save();
    assert_eq!(clock.found("bad"), [Output::Tell(Tell::Rejected)]);
    clock.save();
    assert_eq!(clock.found("bad"), [Output::Tell(Tell::Unchanged)]);
    // Nor when the agent comes back.
    assert_eq!(
        clock.input(Input::Agent(Presence::Lost)),
        [Output::Tell(Tell::AgentLost)]
    );
    let back = clock.attached(2, standing(1, "good"));
    assert_eq!(back, [Output::Tell(Tell::AgentBack)]);
    assert_eq!(clock.due(), None);
    // The next version is.
    clock.save_and_push("better", done("better"));
    // And so is the same one, once there was another.
    clock.save();
    assert_eq!(clock.found("bad"), [Output::Push]);
}

#[test]
fn a_version_that_one_agent_failed_on_is_sent_to_another() {
    // Also if there was nothing to go back to, whether that is known before or during the push.
    let nothing = |epoch| Standing { epoch, root: None };
    let bad = |epoch| {
        Input::Ended(Ended::Answered {
            verdict: Some(Verdict::Bad),
            standing: Some(nothing(epoch)),
        })
    };
    let mut clock = Clock::new();
    clock.attached(1, nothing(1));
    clock.pass(0);
    assert_eq!(clock.found("a"), [Output::Push]);
    clock.input(bad(1));
    assert_eq!(clock.due(), None);
    clock.save();
    assert_eq!(clock.found("a"), [Output::Tell(Tell::Rejected)]);
    clock.input(Input::Agent(Presence::Lost));
    clock.attached(2, nothing(2));
    assert_eq!(clock.pass(0), [pushing(PushCause::AgentChanged), SCAN]);
    assert_eq!(clock.found("a"), [Output::Push]);
    assert_eq!(clock.attached(3, nothing(3)), []);
    clock.input(bad(2));
    assert_eq!(clock.pass(0), [pushing(PushCause::AgentChanged), SCAN]);
    assert_eq!(clock.found("a"), [Output::Push]);
    clock.input(bad(3));
    clock.save();
    assert_eq!(clock.found("a"), [Output::Tell(Tell::Rejected)]);
}

#[test]
fn a_push_that_failed_for_another_reason_than_the_tree_is_tried_with_the_next_save() {
    let mut clock = Clock::after_pushing("a");
    let full_disk = Ended::Answered {
        verdict: None,
        standing: Some(standing(1, "a")),
    };
    clock.save_and_push("b", full_disk);
    assert_eq!(clock.due(), None);
    clock.save_and_push("b", full_disk);
    clock.save();
    assert_eq!(clock.found("a"), [Output::Tell(Tell::Unchanged)]);
}

#[test]
fn the_version_that_was_rolled_back_to_need_not_be_sent() {
    let mut clock = Clock::after_pushing("good");
    clock.save_and_push("bad", rolled_back("good"));
    clock.save();
    assert_eq!(clock.found("good"), [Output::Tell(Tell::Unchanged)]);
    // Unless it isn't known to stand there any more.
    let mut clock = Clock::after_pushing("good");
    clock.save_and_push("bad", rolled_back("good"));
    assert_eq!(clock.attached(1, standing(1, "of another")), []);
    clock.save();
    assert_eq!(clock.found("good"), [Output::Push]);
}

#[test]
fn a_conflict_is_not_repeated_until_something_changes() {
    let mut clock = Clock::after_pushing("a");
    // Another developer pushes, which alone is no reason to push.
    assert_eq!(clock.attached(1, standing(1, "of another")), []);
    assert_eq!(clock.due(), None);
    let conflict = Ended::Answered {
        verdict: Some(Verdict::Refused),
        standing: Some(standing(1, "of another")),
    };
    clock.save_and_push("b", conflict);
    clock.save();
    assert_eq!(clock.found("b"), [Output::Tell(Tell::Rejected)]);
    clock.save();
    assert_eq!(clock.found("b and theirs"), [Output::Push]);
    clock.input(Input::Ended(conflict));
    // With another agent there is no conflict any more.
    clock.input(Input::Agent(Presence::Lost));
    clock.attached(2, standing(2, "nothing"));
    assert_eq!(clock.pass(0), [pushing(PushCause::AgentChanged), SCAN]);
    assert_eq!(clock.found("b and theirs"), [Output::Push]);
}

#[test]
fn another_agent_and_one_without_a_tree_are_pushed_to() {
    let mut clock = Clock::after_pushing("a");
    clock.input(Input::Agent(Presence::Lost));
    clock.attached(2, standing(2, "a"));
    assert_eq!(clock.pass(0), [pushing(PushCause::AgentChanged), SCAN]);
    assert_eq!(clock.found("a"), [Output::Tell(Tell::Unchanged)]);
    clock.input(Input::Agent(Presence::Lost));
    let epoch = 2;
    clock.attached(3, Standing { epoch, root: None });
    assert_eq!(clock.pass(0), [pushing(PushCause::AgentChanged), SCAN]);
    assert_eq!(clock.found("a"), [Output::Push]);
    clock.input(Input::Ended(done("a")));
    // Also if it was lost and came back so fast that nobody saw it gone.
    assert_eq!(clock.attached(4, standing(9, "other")), []);
    assert_eq!(clock.pass(0), [pushing(PushCause::AgentChanged), SCAN]);
}

#[test]
fn what_another_developer_pushed_during_an_outage_is_left_alone() {
    let mut clock = Clock::after_pushing("a");
    clock.input(Input::Agent(Presence::Lost));
    clock.attached(2, standing(1, "of another"));
    assert_eq!(clock.due(), None);
    // The next save decides.
    clock.save();
    assert_eq!(clock.found("b"), [Output::Push]);
}

#[test]
fn an_agent_that_is_replaced_during_a_push_is_pushed_to_after_it() {
    let mut clock = Clock::after_pushing("a");
    clock.save();
    assert_eq!(clock.found("b"), [Output::Push]);
    assert_eq!(clock.attached(2, standing(2, "nothing")), []);
    // This is still the answer of the one before.
    assert_eq!(clock.input(Input::Ended(done("b"))), [report(30)]);
    assert_eq!(clock.pass(0), [pushing(PushCause::AgentChanged), SCAN]);
    assert_eq!(clock.found("b"), [Output::Push]);
    // And this one's is the newer's.
    let ended = Ended::Answered {
        verdict: Some(Verdict::Stands),
        standing: Some(standing(2, "b")),
    };
    clock.input(Input::Ended(ended));
    assert_eq!(clock.due(), None);
}

#[test]
fn an_unreachable_agent_is_tried_again_with_back_off_and_told_once() {
    let mut clock = Clock::new();
    assert_eq!(clock.pass(0), [pushing(PushCause::Start), SCAN]);
    assert_eq!(clock.found("a"), [Output::Push]);
    assert_eq!(clock.input(Input::Ended(UNREACHABLE)), [failed(true)]);
    for delay in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
        assert_eq!(clock.due(), Some(delay));
        assert_eq!(clock.pass(u64::try_from(delay).unwrap()), [SCAN]);
        assert_eq!(clock.found("a"), [Output::Push]);
        assert_eq!(clock.input(Input::Ended(UNREACHABLE)), []);
    }
    // A save is tried at once, and as little is told of it.
    assert_eq!(clock.input(Input::Saved), []);
    assert_eq!(clock.pass(30), [SCAN]);
    assert_eq!(clock.found("b"), [Output::Push]);
    assert_eq!(clock.input(Input::Ended(done("b"))), [report(30)]);
    // From here on it would be told again.
    clock.save();
    assert_eq!(clock.found("c"), [Output::Push]);
    assert_eq!(clock.input(Input::Ended(UNREACHABLE)), [failed(true)]);
    assert_eq!(clock.due(), Some(50));
}

#[test]
fn an_agent_that_is_lost_is_waited_for() {
    let mut clock = Clock::after_pushing("a");
    let lost = clock.input(Input::Agent(Presence::Lost));
    assert_eq!(lost, [Output::Tell(Tell::AgentLost)]);
    assert_eq!(clock.input(Input::Agent(Presence::Lost)), []);
    for _ in 0..3 {
        assert_eq!(clock.input(Input::Saved), []);
        assert_eq!(clock.pass(5_000), []);
        assert_eq!(clock.due(), None);
    }
    let back = clock.attached(2, standing(1, "a"));
    assert_eq!(back, [Output::Tell(Tell::AgentBack)]);
    assert_eq!(clock.pass(0), [pushing(PushCause::Saved), SCAN]);
    assert_eq!(clock.found("b"), [Output::Push]);
}

#[test]
fn an_agent_that_cant_be_followed_is_pushed_to() {
    let mut clock = Clock::after_pushing("a");
    assert_eq!(clock.input(Input::Agent(Presence::Unfollowed)), []);
    clock.save_and_push("b", done("b"));
    // It says now and then what it has.
    assert_eq!(clock.attached(2, standing(1, "b")), []);
    assert_eq!(clock.input(Input::Agent(Presence::Unfollowed)), []);
    clock.save_and_push("c", done("c"));
    assert_eq!(clock.attached(3, standing(2, "nothing")), []);
    assert_eq!(clock.input(Input::Agent(Presence::Unfollowed)), []);
    assert_eq!(clock.pass(0), [pushing(PushCause::AgentChanged), SCAN]);
    assert_eq!(clock.found("c"), [Output::Push]);
}

#[test]
fn an_answer_that_never_came_is_told_once_and_asked_for_again() {
    let mut clock = Clock::after_pushing("a");
    clock.save();
    assert_eq!(clock.found("b"), [Output::Push]);
    let unanswered = Input::Ended(Ended::Unanswered { random: u64::MAX });
    assert_eq!(clock.input(unanswered), [report(30)]);
    assert_eq!(clock.pass(50), [SCAN]);
    // Even if the tree is the one before: nobody knows what the agent has.
    assert_eq!(clock.found("a"), [Output::Push]);
    assert_eq!(clock.input(unanswered), []);
    assert_eq!(clock.pass(100), [SCAN]);
}

#[test]
fn git_is_waited_for_but_not_for_a_lock_that_was_left_behind() {
    let mut clock = Clock::after_pushing("a");
    clock.save();
    let mut waited = 0;
    loop {
        assert_eq!(clock.input(Input::PutOff { git_at_work: true }), []);
        let due = u64::try_from(clock.due().unwrap()).unwrap();
        waited += due;
        // Its own writes are heard all the while.
        assert_eq!(clock.input(Input::Saved), []);
        match clock.pass(due)[..] {
            [SCAN] => assert!(waited < 30_000),
            [Output::Scan { heed_git, .. }] => {
                assert!(!heed_git && waited >= 30_000);
                break;
            }
            ref other => panic!("{other:?}"),
        }
    }
    let with_lock = |tree: &str| Input::Found {
        target: digest(tree),
        git_at_work: true,
        took: Duration::ZERO,
    };
    assert_eq!(clock.input(with_lock("b")), [Output::Push]);
    clock.input(Input::Ended(done("b")));
    // The lock is not heeded until it vanishes.
    clock.input(Input::Saved);
    let unheeding = Output::Scan {
        heed_git: false,
        silent: false,
    };
    assert_eq!(clock.pass(30), [pushing(PushCause::Saved), unheeding]);
    assert_eq!(clock.found("c"), [Output::Push]);
    clock.input(Input::Ended(done("c")));
    clock.save();
}

#[test]
fn a_directory_that_cant_be_scanned_is_scanned_again_and_told_once() {
    let mut clock = Clock::after_pushing("a");
    clock.save();
    let again = Duration::from_secs(1);
    let fails = |news| Input::ScanFailed { news, again };
    assert_eq!(clock.input(fails(true)), [failed(true)]);
    assert_eq!(clock.due(), Some(1000));
    assert_eq!(clock.pass(1000), [SCAN]);
    assert_eq!(clock.input(fails(false)), []);
    // For another reason.
    assert_eq!(clock.pass(1000), [SCAN]);
    assert_eq!(clock.input(fails(true)), [failed(true)]);
    assert_eq!(clock.input(Input::Saved), []);
    assert_eq!(clock.pass(30), [SCAN]);
    assert_eq!(clock.found("b"), [Output::Push]);
}

#[test]
fn a_file_that_goes_on_changing_is_told_of_after_a_few_times() {
    let mut clock = Clock::after_pushing("a");
    clock.save();
    let changed = Input::Ended(Ended::Changed { random: u64::MAX });
    for (round, delay) in (1..).zip([50, 100, 200, 400, 800, 1600, 2000, 2000]) {
        assert_eq!(clock.found("b"), [Output::Push]);
        let expected: &[_] = if round == 3 { &[failed(true)] } else { &[] };
        assert_eq!(clock.input(changed), expected, "{round}");
        assert_eq!(clock.due(), Some(u128::from(delay)));
        assert_eq!(clock.pass(delay), [SCAN]);
    }
    assert_eq!(clock.found("b"), [Output::Push]);
    clock.input(Input::Ended(done("b")));
    assert_eq!(clock.due(), None);
}

#[test]
fn nothing_is_pushed_while_the_root_is_gone() {
    let mut clock = Clock::after_pushing("a");
    assert_eq!(clock.input(Input::Saved), []);
    let gone = clock.input(Input::RootGone);
    assert_eq!(gone, [Output::Tell(Tell::RootGone)]);
    assert_eq!(clock.pass(60_000), []);
    let back = clock.input(Input::RootBack);
    assert_eq!(back, [Output::Tell(Tell::RootBack)]);
    assert_eq!(clock.pass(30), [pushing(PushCause::Saved), SCAN]);
    // A scan that fails because of that is no news.
    clock.input(Input::RootGone);
    let again = Duration::from_secs(1);
    assert_eq!(clock.input(Input::ScanFailed { news: true, again }), []);
    clock.input(Input::RootBack);
    assert_eq!(clock.pass(30), [SCAN]);
    assert_eq!(clock.found("a"), [Output::Tell(Tell::Unchanged)]);
}

#[test]
fn files_that_change_as_their_root_goes_are_no_news() {
    let mut clock = Clock::after_pushing("a");
    clock.save();
    for _ in 0..2 * UNSETTLED {
        assert_eq!(clock.found("b"), [Output::Push]);
        clock.input(Input::RootGone);
        let changed = Input::Ended(Ended::Changed { random: u64::MAX });
        assert_eq!(clock.input(changed), []);
        assert_eq!(clock.due(), None);
        clock.input(Input::RootBack);
        assert_eq!(clock.pass(30), [SCAN]);
    }
}

#[test]
fn a_look_that_finds_nothing_is_not_told_of() {
    let mut clock = Clock::after_pushing("a");
    let silent = Output::Scan {
        heed_git: true,
        silent: true,
    };
    assert_eq!(clock.input(Input::Poll), []);
    assert_eq!(clock.pass(0), [silent]);
    assert_eq!(clock.found("a"), []);
    assert_eq!(clock.input(Input::Poll), []);
    assert_eq!(clock.pass(0), [silent]);
    let push = [pushing(PushCause::Saved), Output::Push];
    assert_eq!(clock.found("b"), push);
    // One look at a time.
    assert_eq!(clock.input(Input::Poll), []);
    let unsaved = Output::Tell(Tell::Report { since_save: None });
    assert_eq!(clock.input(Input::Ended(rolled_back("a"))), [unsaved]);
    assert_eq!(clock.due(), None);
    clock.input(Input::Poll);
    clock.pass(0);
    assert_eq!(clock.found("b"), []);
}

#[test]
fn where_events_were_lost_it_is_looked_after_a_rest() {
    let mut clock = Clock::after_pushing("a");
    let silent = Output::Scan {
        heed_git: true,
        silent: true,
    };
    let again = Duration::from_secs(1);
    assert_eq!(clock.input(Input::Lost { again }), []);
    assert_eq!(clock.pass(999), []);
    assert_eq!(clock.pass(1), [silent]);
    // The scan itself was too loud: there is one more, and not at once.
    assert_eq!(clock.input(Input::Lost { again }), []);
    assert_eq!(clock.found("a"), []);
    assert_eq!(clock.pass(999), []);
    // What is heard doesn't wait for that, and does for it.
    assert_eq!(clock.input(Input::Saved), []);
    assert_eq!(clock.input(Input::Lost { again }), []);
    assert_eq!(clock.pass(30), [pushing(PushCause::Saved), SCAN]);
    assert_eq!(clock.found("a"), [Output::Tell(Tell::Unchanged)]);
    assert_eq!(clock.due(), None);
}

#[test]
fn a_push_that_was_refused_here_waits_for_a_change() {
    let mut clock = Clock::after_pushing("a");
    clock.save();
    assert_eq!(clock.found("almost nothing"), [Output::Push]);
    let refused = clock.input(Input::Ended(Ended::Refused));
    assert_eq!(refused, [failed(false)]);
    assert_eq!(clock.due(), None);
    clock.save();
    let rejected = [Output::Tell(Tell::Rejected)];
    assert_eq!(clock.found("almost nothing"), rejected);
    // What can't be sent for another reason may be with the next save.
    clock.save();
    assert_eq!(clock.found("b"), [Output::Push]);
    assert_eq!(clock.input(Input::Ended(Ended::Failed)), [failed(false)]);
    clock.save();
    assert_eq!(clock.found("b"), [Output::Push]);
}

#[test]
fn what_is_written_without_end_and_not_pushed_does_not_cost_a_processor() {
    let mut clock = Clock::after_pushing("a");
    clock.save();
    let found = |tree| Input::Found {
        target: digest(tree),
        git_at_work: false,
        took: Duration::from_millis(100),
    };
    assert_eq!(clock.input(found("a")), [Output::Tell(Tell::Unchanged)]);
    assert_eq!(clock.input(Input::Saved), []);
    assert_eq!(clock.due(), Some(400));
    assert_eq!(clock.pass(400), [pushing(PushCause::Saved), SCAN]);
    // However long the scan takes, a save waits no longer than the maximum.
    let slow = Input::Found {
        target: digest("a"),
        git_at_work: false,
        took: Duration::from_secs(60),
    };
    assert_eq!(clock.input(slow), [Output::Tell(Tell::Unchanged)]);
    assert_eq!(clock.input(Input::Saved), []);
    assert_eq!(clock.due(), Some(2000));
    assert_eq!(clock.pass(2000), [pushing(PushCause::Saved), SCAN]);
    // A push is followed by the next one without a rest.
    assert_eq!(clock.input(found("b")), [Output::Push]);
    assert_eq!(clock.input(Input::Saved), []);
    clock.input(Input::Ended(done("b")));
    assert_eq!(clock.due(), Some(30));
}

#[test]
fn times_that_are_too_long_are_a_day() {
    let now = Instant::now();
    let options = WatchOptions {
        quiet: Duration::MAX,
        max: Duration::MAX,
    };
    let mut schedule = Schedule::new(options, now);
    schedule.handle_timeout(now);
    schedule.handle_input(Input::PutOff { git_at_work: false }, now);
    schedule.handle_input(Input::Saved, now);
    assert_eq!(schedule.poll_timeout(), Some(now + LONGEST));
}
