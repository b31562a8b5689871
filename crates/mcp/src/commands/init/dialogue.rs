//! Questions on a terminal, and their answers.
//!
//! Answers are whole lines in the terminal's own line mode: what it can edit, one can edit; its end of
//! file and its interrupt keep their meaning; and nothing is left to clean up but the echo.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use console::Term;
use rustix::{
    io::{read, retry_on_intr},
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr},
};
use tokio::{select, task::spawn_blocking};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// The longest line that Linux lets a terminal give.
const MAX_LINE: usize = 4096;

/// Someone at a terminal who can be asked.
#[derive(Clone, Debug)]
pub(super) struct Dialogue {
    modes: Arc<Mutex<Modes>>,
}

/// The modes of the terminal.
#[derive(Debug)]
struct Modes {
    /// As they were, and will be in the end.
    original: Termios,
    /// Whether the end has come, so that nothing changes them any more.
    over: bool,
}

/// Asks what there is to ask, until it is interrupted.
///
/// # Errors
///
/// What `ask` fails with, and exit status 130 when it is interrupted.
pub(super) async fn hold<T: Send + 'static>(
    ask: impl FnOnce(Dialogue) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let interrupted = patchwire_agent::shutdown_signal().map_err(no_terminal)?;
    let original = tcgetattr(io::stdin()).map_err(|error| no_terminal(error.into()))?;
    let over = false;
    let dialogue = Dialogue {
        modes: Arc::new(Mutex::new(Modes { original, over })),
    };
    let asking = spawn_blocking({
        let dialogue = dialogue.clone();
        move || ask(dialogue)
    });
    let told = select! {
        biased;
        () = interrupted => {
            // The line that was being typed ends here.
            let _ = Term::stderr().write_line("");
            let interrupted = anyhow::anyhow!("interrupted: nothing is written");
            Err(Failure::new(130, "interrupted", interrupted))
        }
        told = asking => told.unwrap_or_else(|error| Err(Failure::failed("dialogue", error))),
    };
    let mut modes = dialogue.modes();
    modes.over = true;
    tcsetattr(io::stdin(), OptionalActions::Now, &modes.original)
        .map_err(|error| no_terminal(error.into()))?;
    told
}

impl Dialogue {
    /// Asks until the answer makes sense. Nothing but Enter gives the default, or an empty answer.
    pub(super) fn ask<T>(
        &self,
        question: &str,
        default: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let default_shown = default.map(|default| format!(" [{default}]"));
        let question = format!("{question}{}: ", default_shown.unwrap_or_default());
        self.ask_line(&question, Echo::On, |answer| match (answer, default) {
            ("", Some(default)) => parse(default),
            (answer, _) => parse(answer),
        })
    }

    /// Asks for a secret, which isn't shown.
    pub(super) fn ask_hidden<T>(
        &self,
        question: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        self.ask_line(&format!("{question}: "), Echo::Off, parse)
    }

    /// Asks for a yes, which Enter is too, or a no.
    pub(super) fn confirm(&self, question: &str) -> Result<bool, Failure> {
        let question = format!("{question} [Y/n] ");
        self.ask_line(&question, Echo::On, |answer| {
            match &*answer.to_lowercase() {
                "" | "y" | "yes" => Ok(true),
                "n" | "no" => Ok(false),
                _ => Err("answer y or n".to_owned()),
            }
        })
    }

    fn ask_line<T>(
        &self,
        question: &str,
        echo: Echo,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let term = Term::stderr();
        loop {
            // Before the question is seen, so that no answer is echoed that shouldn't be.
            self.set(echo).map_err(no_terminal)?;
            term.write_str(question).map_err(no_terminal)?;
            let mut bytes = Zeroizing::new([0; MAX_LINE]);
            let len = retry_on_intr(|| read(io::stdin(), &mut bytes[..]))
                .map_err(|error| no_terminal(error.into()))?;
            if echo == Echo::Off || len == 0 {
                term.write_line("").map_err(no_terminal)?;
            }
            if len == 0 {
                let ended = anyhow::anyhow!("the input has ended: nothing is written");
                return Err(Failure::usage(ended));
            }
            let parsed = match str::from_utf8(&bytes[..len]).map(str::trim) {
                Ok(line) if line.chars().any(char::is_control) => {
                    Err("that has control characters in it".to_owned())
                }
                Ok(line) => parse(line),
                Err(_) => Err("that is not UTF-8".to_owned()),
            };
            match parsed {
                Ok(answer) => return Ok(answer),
                Err(why) => term.write_line(&why).map_err(no_terminal)?,
            }
        }
    }

    fn set(&self, echo: Echo) -> io::Result<()> {
        let modes = self.modes();
        if modes.over {
            return Ok(());
        }
        let mut wanted = modes.original.clone();
        let line_mode = LocalModes::ICANON | LocalModes::ISIG;
        wanted.local_modes.insert(line_mode | LocalModes::ECHO);
        if echo == Echo::Off {
            wanted.local_modes.remove(LocalModes::ECHO);
        }
        Ok(tcsetattr(io::stdin(), OptionalActions::Now, &wanted)?)
    }

    fn modes(&self) -> MutexGuard<'_, Modes> {
        self.modes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Echo {
    On,
    Off,
}

fn no_terminal(error: io::Error) -> Failure {
    let error = anyhow::Error::new(error).context(
        "can't ask on this terminal: give --app, --deployment and --relay, or --yes instead",
    );
    Failure::usage(error)
}
