//! A terminal with a command in it, whose keys are pressed when what it shows asks for that.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};

/// How long a terminal may show nothing new: who waits longer waits for a question that won't come.
const SILENCE: Duration = Duration::from_secs(60);

pub(crate) struct Terminal {
    keyboard_and_screen: File,
    child: Child,
    shown: Vec<u8>,
    /// How much of that was waited for.
    seen: usize,
}

impl Terminal {
    /// Starts a command that has the terminal as its own, so that Ctrl+C reaches it.
    pub(crate) fn new(command: &Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("there are terminals");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it is ours");
        let name = ptsname(&master, Vec::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened: OwnedFd = rustix::fs::open(name, flags, Mode::empty()).expect("it is unlocked");
        let stdio = || Stdio::from(opened.try_clone().expect("descriptors are left"));

        let mut within = Command::new("setsid");
        within.arg("--ctty").arg(command.get_program());
        within.args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            within.envs(value.map(|value| (name, value)));
        }
        if let Some(directory) = command.get_current_dir() {
            within.current_dir(directory);
        }
        let child = within
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn();
        Self {
            keyboard_and_screen: master.into(),
            child: child.expect("setsid is there"),
            shown: Vec::new(),
            seen: 0,
        }
    }

    /// Waits until a question is shown, and presses keys.
    #[track_caller]
    pub(crate) fn answer(&mut self, question: &str, keys: &str) {
        let at = loop {
            let new = &self.shown[self.seen..];
            let found = new
                .windows(question.len())
                .position(|part| part == question.as_bytes());
            if let Some(at) = found {
                break at;
            }
            assert!(self.show_more(), "no {question:?}: {}", self.text());
        };
        self.seen += at + question.len();
        let written = self.keyboard_and_screen.write_all(keys.as_bytes());
        written.expect("the terminal takes keys");
    }

    /// Waits until the command has ended in this way, with the terminal as it was before, and gives all
    /// that was shown.
    #[track_caller]
    pub(crate) fn end(mut self, exit_code: i32) -> String {
        while self.show_more() {}
        let status = self.child.wait().expect("it was started");
        assert_eq!(status.code(), Some(exit_code), "{status}: {}", self.text());
        let modes = tcgetattr(&self.keyboard_and_screen).expect("it is a terminal");
        let usual = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        assert!(modes.local_modes.contains(usual), "{modes:?}");
        let hidden = self.text().rfind("\x1b[?25l");
        assert!(
            hidden <= self.text().rfind("\x1b[?25h"),
            "the cursor is gone"
        );
        self.text()
    }

    /// Reads what is shown next. `false` once nobody shows anything any more.
    #[track_caller]
    fn show_more(&mut self) -> bool {
        let mut ready = [PollFd::new(&self.keyboard_and_screen, PollFlags::IN)];
        let silence = Timespec::try_from(SILENCE).expect("it is short");
        let events = poll(&mut ready, Some(&silence)).expect("it can be waited for");
        assert_ne!(events, 0, "silence after: {}", self.text());
        let mut part = [0; 4096];
        match self.keyboard_and_screen.read(&mut part) {
            Ok(0) => false,
            Ok(len) => {
                self.shown.extend(&part[..len]);
                true
            }
            // So Linux says that the last who had the terminal open has closed it.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A test that fails leaves nobody waiting for answers.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
