//! What the tests of the command line share: a home of one's own, and a way to type.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use patchwire_transport::{Pin, RelayKey, RelayLink};
use tempfile::TempDir;

/// A user with an empty home and a project directory.
pub(crate) struct User {
    home: TempDir,
    pub(crate) project: PathBuf,
}

impl User {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let project = home.path().join("project");
        fs::create_dir(&project).expect("the home is empty");
        fs::create_dir(home.path().join("tmp")).expect("the home has a project alone");
        let project = project.canonicalize().expect("it was just made");
        Self { home, project }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where the links are recorded.
    pub(crate) fn links(&self) -> PathBuf {
        self.home().join("config/patchwire/links")
    }

    /// Where temporary files go.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.home().join("tmp")
    }

    /// A command line, split at spaces, typed in the project.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchwire"));
        command
            .args(line.split_whitespace())
            .current_dir(&self.project)
            .env_clear()
            .env("HOME", self.home())
            .env("USER", "ana")
            .env("TMPDIR", self.temporary())
            .env("XDG_CONFIG_HOME", self.home().join("config"))
            .env("XDG_STATE_HOME", self.home().join("state"))
            .stdin(Stdio::null());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// Runs a command line.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.run_under(line, &[])
    }

    /// Runs a command line with some variables set.
    pub(crate) fn run_under(&self, line: &str, variables: &[(&str, &str)]) -> Ran {
        let mut command = self.command(line);
        command.envs(variables.iter().copied());
        Ran::from(command.output().expect("the binary is there"))
    }

    /// Runs a command line with something on its standard input.
    pub(crate) fn run_with(&self, line: &str, stdin: &[u8]) -> Ran {
        let mut child = self
            .command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is there");
        let mut pipe = child.stdin.take().expect("it was piped");
        let stdin = stdin.to_owned();
        // Who doesn't read to the end closes early, as is its right.
        let writer = std::thread::spawn(move || drop(pipe.write_all(&stdin)));
        let output = child.wait_with_output().expect("it was started");
        writer.join().expect("it doesn't panic");
        Ran::from(output)
    }

    /// Writes a file in the project.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.project.join(name);
        fs::write(&path, content).expect("the project can be written to");
        path
    }

    /// Reads a file in the project.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.project.join(name)).expect("the file is there")
    }

    /// The names of the files in the project.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.project).expect("the project is there");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("it can be listed").file_name())
            .map(|name| name.into_string().expect("the tests write UTF-8"))
            .collect();
        names.sort();
        names
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.text(), self.stderr);
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The one JSON object on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.text(), self.stderr))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A relay's link, to a relay that isn't there.
pub(crate) fn relay_link() -> String {
    let address = "127.0.0.1:9".parse().expect("it is one");
    let link = RelayLink::new(address, Pin::new([1; 32]), RelayKey::new([2; 32]));
    link.expose().to_string()
}
