//! `patchwire mcp` as a client sees it: lines of JSON-RPC, and nothing from anyone else's library.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    mem,
    path::Path,
    process::{Child, ChildStdin, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::world::{PATIENCE, World};

/// A running server, which is killed with this value.
pub(crate) struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Lines of standard output; it hangs up at its end.
    lines: Receiver<String>,
    /// Lines of standard error that nobody has waited for yet.
    stderr: Receiver<String>,
    /// Those before.
    said: String,
    /// Notices of progress since the last call: token, progress and message.
    pub(crate) notices: Vec<(Value, f64, String)>,
    next_id: u64,
}

/// What a tool's call came to.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) is_error: bool,
    pub(crate) text: String,
    pub(crate) structured: Value,
}

impl Server {
    /// Starts a server in a directory, which no client has greeted.
    pub(crate) fn start<S: AsRef<OsStr>>(world: &World, directory: &Path, arguments: &[S]) -> Self {
        Self::start_under(world, directory, arguments, &[])
    }

    /// The same with these variables.
    pub(crate) fn start_under<S: AsRef<OsStr>>(
        world: &World,
        directory: &Path,
        arguments: &[S],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut child = world
            .patchwire()
            .arg("mcp")
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take(),
            lines: lines(child.stdout.take().unwrap()),
            stderr: lines(child.stderr.take().unwrap()),
            child,
            said: String::new(),
            notices: Vec::new(),
            next_id: 1,
        }
    }

    /// Starts a server in a directory, and greets it as older clients do.
    pub(crate) fn greeted<S: AsRef<OsStr>>(
        world: &World,
        directory: &Path,
        arguments: &[S],
    ) -> Self {
        let mut server = Self::start(world, directory, arguments);
        server.greet();
        server
    }

    pub(crate) fn greet(&mut self) -> Value {
        let client = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        });
        let greeting = self.request("initialize", &client)["result"].take();
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        greeting
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.write(format!("{message}\n").as_bytes());
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    /// Asks without waiting for the answer, and gives the request's id.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    pub(crate) fn request(&mut self, method: &str, params: &Value) -> Value {
        let id = self.ask(method, params);
        self.answer(id)
    }

    /// The next message. Whatever stands on standard output has to be one.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE).unwrap();
        let message: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    /// The answer to a request, behind notices of progress.
    #[track_caller]
    pub(crate) fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.receive();
            if message["method"] == "notifications/progress" {
                self.notice(&message);
                continue;
            }
            assert_eq!(message["id"], id, "{message:#}");
            return message;
        }
    }

    /// Waits for a notice of progress with this text.
    #[track_caller]
    pub(crate) fn wait_for_notice(&mut self, text: &str) {
        loop {
            let message = self.receive();
            self.notice(&message);
            if self.notices.last().unwrap().2.contains(text) {
                return;
            }
        }
    }

    #[track_caller]
    fn notice(&mut self, message: &Value) {
        assert_eq!(message["method"], "notifications/progress", "{message:#}");
        let params = &message["params"];
        self.notices.push((
            params["progressToken"].clone(),
            params["progress"].as_f64().unwrap(),
            params["message"].as_str().unwrap().to_owned(),
        ));
    }

    /// Asks for a tool, and to be told how far it is, without waiting for the answer.
    pub(crate) fn ask_for(&mut self, tool: &str, arguments: &Value) -> u64 {
        self.notices.clear();
        let token = format!("token-{}", self.next_id);
        let call = json!({
            "name": tool, "arguments": arguments, "_meta": {"progressToken": token},
        });
        self.ask("tools/call", &call)
    }

    #[track_caller]
    pub(crate) fn call(&mut self, tool: &str, arguments: &Value) -> Called {
        let id = self.ask_for(tool, arguments);
        self.called(id)
    }

    /// What a call came to.
    #[track_caller]
    pub(crate) fn called(&mut self, id: u64) -> Called {
        let answer = self.answer(id);
        Called::of(&answer)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has written a line with `text` to standard error since the last such wait.
    #[track_caller]
    pub(crate) fn complains(&mut self, text: &str) {
        loop {
            let line = self.stderr.recv_timeout(PATIENCE).unwrap();
            let found = line.contains(text);
            self.said.extend([&*line, "\n"]);
            if found {
                return;
            }
        }
    }

    /// Closes its standard input.
    pub(crate) fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// All of standard error, once it has ended.
    fn said(&mut self) -> String {
        for line in &self.stderr {
            self.said.extend([&*line, "\n"]);
        }
        mem::take(&mut self.said)
    }

    /// Waits for its end, and gives what it wrote to standard error.
    #[track_caller]
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        self.hang_up();
        let status = self.child.wait().unwrap();
        let said = self.said();
        assert!(!said.contains("panicked"), "{said}");
        assert_eq!(self.lines.recv().ok(), None, "nothing comes unasked");
        (status, said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        if thread::panicking() {
            eprintln!("--- the server's standard error\n{}", self.said());
        }
    }
}

/// Lines as they come, up to the end.
fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

impl Called {
    #[track_caller]
    pub(crate) fn of(answer: &Value) -> Self {
        let result = &answer["result"];
        assert_eq!(result["content"][0]["type"], "text", "{answer:#}");
        assert_eq!(result["content"].as_array().unwrap().len(), 1);
        let called = Self {
            is_error: result["isError"].as_bool().unwrap(),
            text: result["content"][0]["text"].as_str().unwrap().to_owned(),
            structured: result["structuredContent"].clone(),
        };
        assert_eq!(called.is_error, !called.structured["error"].is_null());
        called
    }

    /// Checks that a push ended like this.
    #[track_caller]
    pub(crate) fn expect(self, status: &str) -> Self {
        assert_eq!(self.structured["status"], status, "{self:#?}");
        let is_well = ["done", "no-changes"].contains(&status);
        assert_eq!(self.is_error, !is_well, "{self:#?}");
        self
    }

    /// Checks that nothing came of it, and that the text and the error say the same.
    #[track_caller]
    pub(crate) fn expect_error(self, code: &str) -> Self {
        assert_eq!(self.structured["error"]["code"], code, "{self:#?}");
        assert_eq!(self.structured["error"]["message"], *self.text, "{self:#?}");
        self
    }

    /// Checks that it says so.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.text.contains(text), "“{text}” is not in {self:#?}");
        self
    }
}
