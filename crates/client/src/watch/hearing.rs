//! How saves are heard of, and when to look for them where they aren't. Pure: no clock, no file.

use std::time::{Duration, Instant};

/// The shortest time between two scans where saves can't be heard of.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// How many times as long as a look takes it is between two of them then.
const SCAN_SHARE: u32 = 10;

/// How often to try to hear of saves again.
const HEAR_AGAIN: Duration = Duration::from_secs(60);

/// What a look came to, as far as hearing is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// So many directories are watched now.
    Directories(u64),
    /// They can't be watched.
    Deaf,
    /// It says neither: it was put off, it failed, or it brought no watches.
    Unknown,
}

/// What is news about how saves are heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Watching { directories: u64 },
    Polling { interval: Duration },
}

/// What to do before the next look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preparation {
    /// Nothing.
    None,
    /// Listen anew, by watches that the look is to make.
    Listen,
    /// Have the watches that there are made anew.
    StartOver,
}

/// Knows how saves are heard of.
#[derive(Debug)]
pub(super) struct Hearing {
    state: State,
    told: Told,
    interval: Duration,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The next look makes the watches. Until it has come back nothing is heard, and that may take
    /// as long as a push does: saves are looked for all the while.
    Beginning { next: Instant },
    /// By events.
    Heard,
    /// They are not.
    Deaf { next: Instant, hear_at: Instant },
}

/// What was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Watching,
    Polling,
}

impl Hearing {
    /// Begins where the first look is about to make watches.
    pub(super) fn new(now: Instant) -> Self {
        let interval = SHORTEST_INTERVAL;
        Self {
            state: State::Beginning {
                next: now + interval,
            },
            told: Told::Nothing,
            interval,
        }
    }

    /// How long to wait between two scans that nobody asked for.
    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    /// When to look for what was saved, if that isn't heard.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Beginning { next } | State::Deaf { next, .. } => Some(next),
            State::Heard => None,
        }
    }

    /// It is time to look: says what to do before.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Preparation {
        let later = now + self.interval;
        match &mut self.state {
            State::Deaf { hear_at, .. } if *hear_at <= now => {
                self.state = State::Beginning { next: later };
                Preparation::Listen
            }
            State::Beginning { next } | State::Deaf { next, .. } => {
                *next = later;
                Preparation::None
            }
            State::Heard => Preparation::None,
        }
    }

    /// Another directory stands at the root: says what to do before it is looked at.
    pub(super) fn root_exchanged(&mut self, now: Instant) -> Preparation {
        let before = self.state;
        self.state = State::Beginning {
            next: now + self.interval,
        };
        if self.told == Told::Watching {
            self.told = Told::Nothing;
        }
        match before {
            State::Beginning { .. } | State::Heard => Preparation::StartOver,
            State::Deaf { .. } => Preparation::Listen,
        }
    }

    /// Takes in what a look came to that took `spent`.
    pub(super) fn looked(
        &mut self,
        watched: Watched,
        spent: Duration,
        now: Instant,
    ) -> Option<News> {
        self.interval = SHORTEST_INTERVAL.max(spent.saturating_mul(SCAN_SHARE));
        let (told, news) = match watched {
            Watched::Directories(directories) => {
                self.state = State::Heard;
                (Told::Watching, News::Watching { directories })
            }
            Watched::Deaf => {
                let interval = self.interval;
                self.state = State::Deaf {
                    next: now + interval,
                    hear_at: now + HEAR_AGAIN,
                };
                (Told::Polling, News::Polling { interval })
            }
            Watched::Unknown => return None,
        };
        (std::mem::replace(&mut self.told, told) != told).then_some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const POLLING: News = News::Polling { interval: SECOND };

    fn watching(directories: u64) -> Option<News> {
        Some(News::Watching { directories })
    }

    /// What there is to hear, and a clock of its own.
    struct Clock {
        hearing: Hearing,
        now: Instant,
    }

    impl Clock {
        fn new() -> Self {
            let now = Instant::now();
            let hearing = Hearing::new(now);
            Self { hearing, now }
        }

        fn looked(&mut self, watched: Watched) -> Option<News> {
            self.hearing.looked(watched, Duration::ZERO, self.now)
        }

        fn exchanged(&mut self) -> Preparation {
            self.hearing.root_exchanged(self.now)
        }

        /// Waits for the next look at an interval. Tells how long that was, and what to do.
        fn next(&mut self) -> (u64, Preparation) {
            let at = self.hearing.poll_timeout().unwrap();
            let waited = at.duration_since(self.now).as_secs();
            self.now = at;
            (waited, self.hearing.handle_timeout(at))
        }

        fn is_heard(&self) -> bool {
            self.hearing.poll_timeout().is_none()
        }
    }

    #[test]
    fn what_is_heard_is_not_looked_for() {
        let mut clock = Clock::new();
        assert_eq!(clock.looked(Watched::Directories(3)), watching(3));
        assert!(clock.is_heard());
        assert_eq!(clock.looked(Watched::Directories(4)), None);
        // As of a look that was put off.
        assert_eq!(clock.looked(Watched::Unknown), None);
        assert!(clock.is_heard());
    }

    #[test]
    fn it_is_looked_until_a_look_has_come_back_with_watches() {
        let mut clock = Clock::new();
        assert_eq!(clock.looked(Watched::Deaf), Some(POLLING));
        for _ in 1..60 {
            assert_eq!(clock.next(), (1, Preparation::None));
            assert_eq!(clock.looked(Watched::Unknown), None);
        }
        assert_eq!(clock.next(), (1, Preparation::Listen));
        // A push is under way, and no look begins for long; or one came back that began before.
        for _ in 0..200 {
            assert_eq!(clock.next(), (1, Preparation::None));
        }
        assert_eq!(clock.looked(Watched::Unknown), None);
        assert_eq!(clock.next(), (1, Preparation::None));
        assert_eq!(clock.looked(Watched::Directories(2)), watching(2));
        assert!(clock.is_heard());
    }

    #[test]
    fn what_still_cant_be_heard_is_told_once_and_tried_again() {
        let mut clock = Clock::new();
        assert_eq!(clock.looked(Watched::Deaf), Some(POLLING));
        for _ in 0..3 {
            for _ in 1..60 {
                assert_eq!(clock.next(), (1, Preparation::None));
            }
            assert_eq!(clock.next(), (1, Preparation::Listen));
            assert_eq!(clock.looked(Watched::Deaf), None);
        }
        clock.looked(Watched::Directories(1));
        assert_eq!(clock.looked(Watched::Deaf), Some(POLLING));
    }

    #[test]
    fn another_root_is_watched_anew_and_looked_at_until_it_is() {
        let mut clock = Clock::new();
        assert_eq!(clock.exchanged(), Preparation::StartOver);
        clock.looked(Watched::Directories(1));
        assert_eq!(clock.exchanged(), Preparation::StartOver);
        assert!(!clock.is_heard());
        assert_eq!(clock.looked(Watched::Directories(1)), watching(1));
        clock.looked(Watched::Deaf);
        assert_eq!(clock.exchanged(), Preparation::Listen);
        // It listens already.
        assert_eq!(clock.exchanged(), Preparation::StartOver);
        assert_eq!(clock.looked(Watched::Deaf), None);
    }

    #[test]
    fn looks_take_a_tenth_of_the_time_at_most() {
        let mut clock = Clock::new();
        let news = clock.hearing.looked(Watched::Deaf, SECOND, clock.now);
        let interval = 10 * SECOND;
        assert_eq!(news, Some(News::Polling { interval }));
        assert_eq!(clock.next(), (10, Preparation::None));
    }
}
