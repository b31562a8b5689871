//! Where tests interrupt a commit.

use std::io;

/// Asked at every point at which a crash must leave a whole tree. Does nothing outside tests.
#[derive(Debug, Default)]
pub(crate) struct Fault {
    #[cfg(test)]
    pub(crate) hook: Option<hook::Hook>,
    /// The file system has no exchange.
    #[cfg(test)]
    pub(crate) no_exchange: bool,
    /// The file system refuses to rename directories that were there before.
    #[cfg(test)]
    pub(crate) no_directory_renames: bool,
}

impl Fault {
    /// Passes a point; in a test, it may fail there or never return.
    #[cfg_attr(
        not(test),
        expect(
            clippy::unused_self,
            clippy::unnecessary_wraps,
            reason = "only tests have a hook"
        )
    )]
    pub(crate) fn point(&self, _at: &'static str) -> io::Result<()> {
        #[cfg(test)]
        if self.no_exchange && _at == "exchange" {
            return Err(io::Error::from_raw_os_error(22));
        }
        #[cfg(test)]
        if self.no_directory_renames && _at == "rename directory" {
            return Err(io::Error::from_raw_os_error(18));
        }
        #[cfg(test)]
        if let Some(hook) = &self.hook {
            return hook.pass(_at);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod hook {
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    /// What happens at the point that is counted down to.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Effect {
        /// The process is gone: unwinds without printing; what is dropped cleans nothing up.
        Crash,
        /// The operation fails.
        Fail(i32),
    }

    /// Takes effect once, at the n-th point passed.
    #[derive(Clone, Debug)]
    pub(crate) struct Hook {
        nth: usize,
        left: Arc<AtomicUsize>,
        only_at: Option<&'static str>,
        effect: Effect,
        /// What counts from then on.
        then: Option<Box<Self>>,
    }

    /// What a simulated crash unwinds with.
    #[derive(Debug)]
    pub(crate) struct Crashed;

    impl Hook {
        pub(crate) fn new(nth: usize, effect: Effect) -> Self {
            Self {
                nth,
                left: Arc::new(AtomicUsize::new(nth + 1)),
                only_at: None,
                effect,
                then: None,
            }
        }

        pub(crate) fn then(self, next: Self) -> Self {
            Self {
                then: Some(Box::new(next)),
                ..self
            }
        }

        pub(crate) fn at(name: &'static str, effect: Effect) -> Self {
            Self {
                only_at: Some(name),
                ..Self::new(0, effect)
            }
        }

        /// The same, not yet counted down.
        pub(crate) fn fresh(&self) -> Self {
            Self {
                left: Arc::new(AtomicUsize::new(self.nth + 1)),
                ..self.clone()
            }
        }

        /// Tells whether it took effect.
        pub(crate) fn is_spent(&self) -> bool {
            self.left.load(Ordering::Relaxed) == 0
        }

        pub(super) fn pass(&self, at: &'static str) -> io::Result<()> {
            if self.is_spent() {
                return self.then.as_ref().map_or(Ok(()), |next| next.pass(at));
            }
            if self.only_at.is_some_and(|only| only != at) {
                return Ok(());
            }
            if self.left.fetch_sub(1, Ordering::Relaxed) > 1 {
                return Ok(());
            }
            match self.effect {
                Effect::Crash => std::panic::resume_unwind(Box::new(Crashed)),
                Effect::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}
