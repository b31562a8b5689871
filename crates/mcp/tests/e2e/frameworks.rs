//! Apps of real frameworks, each by the commands of its page in `docs/frameworks`: what a page says
//! is what is run here.

use std::{
    env, fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;

use crate::world::{
    Agent, Link, PATIENCE, Process, Pushed, Relay, World, free_port, get, is_running, program,
    skipped, wait_until,
};

/// What the commands of the pages begin with, but for variables.
const DEV: &str = "patchwire dev ";
const RUN: &str = "patchwire-agent run ";

/// What the pages call the file of the agent's link, the root and the file of a process id.
const LINK: &str = "@/run/secrets/patchwire";
const ROOT: &str = "/srv/app";
const PID_FILE: &str = "/tmp/gunicorn.pid";

/// What the examples say, and what is made of it.
const HELLO: &str = "Hello from";
const EVENING: &str = "Good evening from";
const NIGHT: &str = "Good night from";

/// No statement in any of the languages.
const BROKEN: &str = "\nx = (\n";

#[test]
fn fastapi_by_dev() {
    FASTAPI.restarts_by_dev();
}

#[test]
fn flask_by_dev() {
    FLASK.restarts_by_dev();
}

#[test]
fn django_by_dev() {
    DJANGO.restarts_by_dev();
}

#[test]
fn sinatra_by_dev() {
    SINATRA.restarts_by_dev();
}

#[test]
fn node_by_dev() {
    NODE.restarts_by_dev();
}

#[test]
fn fastapi_by_the_agent() {
    FASTAPI.restarts_by_the_agent(0);
}

#[test]
fn flask_by_the_agent() {
    FLASK.restarts_by_the_agent(0);
}

#[test]
fn django_by_the_agent() {
    DJANGO.restarts_by_the_agent(0);
}

#[test]
fn django_with_migrations_by_the_agent() {
    DJANGO.restarts_by_the_agent(1);
}

#[test]
fn sinatra_by_the_agent() {
    SINATRA.restarts_by_the_agent(0);
}

#[test]
fn node_by_the_agent() {
    NODE.restarts_by_the_agent(0);
}

#[test]
fn flask_by_the_agent_without_a_restart() {
    let Some(mut running) = FLASK.under_an_agent(1) else {
        return;
    };
    let first = running.push("done");
    running.serves(HELLO);

    running.say(HELLO, EVENING);
    let pushed = running.push("done");
    assert_eq!(pushed.json["agents"][0]["verified"], false, "{pushed:#?}");
    assert_eq!(pushed.pid(), first.pid());
    // The old worker may answer for a moment.
    wait_for_page(running.port, EVENING);

    running.break_it();
    let pushed = running.push("rolled-back");
    assert!(pushed.message().contains("SyntaxError"), "{pushed:#?}");
    assert_eq!(pushed.pid(), first.pid());
    running.serves(EVENING);
    running.end(&pushed);
}

#[test]
fn the_dockerfile_runs_the_command_of_fastapis_page() {
    let page = fs::read_to_string(repository().join("docs/frameworks/README.md")).unwrap();
    let (_, block) = page.split_once("```dockerfile\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let block = block.replace("\\\n", " ");
    let words = |instruction: &str| -> Vec<String> {
        let mut lines = block.lines();
        let line = lines.find_map(|line| line.strip_prefix(instruction));
        serde_json::from_str(line.unwrap()).unwrap()
    };
    let found = [words("ENTRYPOINT "), words("CMD ")].concat().join(" ");
    let command = &FASTAPI.commands(RUN)[0];
    let expected: Vec<_> = command.split_whitespace().skip(1).collect();
    assert_eq!(found, expected.join(" "));
}

#[test]
fn every_command_of_the_pages_is_run_here() {
    for (framework, dev, run) in [
        (FASTAPI, 1, 1),
        (FLASK, 1, 2),
        (DJANGO, 1, 2),
        (SINATRA, 1, 1),
        (NODE, 1, 1),
    ] {
        let found = [DEV, RUN].map(|command| framework.commands(command).len());
        assert_eq!(found, [dev, run], "{framework:?}");
    }
}

/// A page, the example that it is about, and where to edit that.
#[derive(Clone, Copy, Debug)]
struct Framework {
    page: &'static str,
    example: &'static str,
    /// The port that the page names.
    port: &'static str,
    /// The file that holds what the app says.
    message: &'static str,
    /// A file that the app needs for its start.
    code: &'static str,
    /// What succeeds where everything is installed, for the shell.
    probe: &'static str,
}

const FASTAPI: Framework = Framework {
    page: "fastapi.md",
    example: "fastapi",
    port: "8000",
    message: "greeting.py",
    code: "greeting.py",
    probe: "python -c 'import fastapi, uvicorn'",
};

const FLASK: Framework = Framework {
    page: "flask.md",
    example: "flask",
    port: "8000",
    message: "greeting.py",
    code: "greeting.py",
    probe: "python -c 'import flask, gunicorn'",
};

const DJANGO: Framework = Framework {
    page: "django.md",
    example: "django",
    port: "8000",
    message: "pages/templates/pages/index.html",
    code: "pages/views.py",
    probe: "python -c 'import django'",
};

const SINATRA: Framework = Framework {
    page: "ruby.md",
    example: "sinatra",
    port: "9292",
    message: "greeting.rb",
    code: "greeting.rb",
    probe: r#"bundle --version && ruby -e 'require "sinatra/base"; require "puma"'"#,
};

const NODE: Framework = Framework {
    page: "node.md",
    example: "node",
    port: "3000",
    message: "greeting.js",
    code: "greeting.js",
    probe: "node --version",
};

impl Framework {
    /// A push is served by a new process, a broken one is rolled back with the reason, and the next
    /// good one is served again.
    fn restarts_by_the_agent(self, command: usize) {
        let Some(mut running) = self.under_an_agent(command) else {
            return;
        };
        let first = running.push("done");
        running.serves(HELLO);

        running.say(HELLO, EVENING);
        let second = running.push("done");
        running.serves(EVENING);
        assert_eq!(second.json["agents"][0]["verified"], true, "{second:#?}");
        assert_ne!(second.pid(), first.pid());
        assert!(!is_running(first.pid()));

        let good = running.break_it();
        let third = running.push("rolled-back");
        running.serves(EVENING);
        let tail = third.log_tail();
        assert!(tail.contains("SyntaxError"), "{tail}");
        assert!(tail.contains(self.code), "{tail}");

        fs::write(running.source.join(self.code), good).unwrap();
        running.say(EVENING, NIGHT);
        let fourth = running.push("done");
        running.serves(NIGHT);
        running.end(&fourth);
    }

    /// The same as files are saved.
    fn restarts_by_dev(self) {
        let Some((world, source)) = self.world() else {
            return;
        };
        let port = free_port();
        let command = self.commands(DEV)[0].replace(self.port, &port.to_string());
        let mut dev = Process::start(shell(&world, &command).current_dir(&source));
        let ready = |from: usize| {
            let end = dev.wait_for("ready (pid ", from);
            let output = dev.output();
            let (_, pid) = output[from..end].split_once("ready (pid ").unwrap();
            let (pid, _) = pid.split_once(')').unwrap();
            pid.parse::<u64>().unwrap()
        };
        // Of an app that takes longer than a second to start, nobody knows yet that it will answer.
        let first = ready(0);
        wait_for_page(port, HELLO);
        let up = dev.wait_for("up after", 0);

        let message = source.join(self.message);
        replace(&message, HELLO, EVENING);
        let second = ready(up);
        wait_for_page(port, EVENING);
        assert_ne!(second, first);
        assert!(!is_running(first));

        let saved = dev.output().len();
        let code = source.join(self.code);
        let good = append(&code, BROKEN);
        dev.wait_for("the previous tree is back", saved);
        serves(port, EVENING);
        dev.wait_for("SyntaxError", saved);
        dev.wait_for(self.code, saved);

        fs::write(&code, good.replace(EVENING, NIGHT)).unwrap();
        if code != message {
            replace(&message, EVENING, NIGHT);
        }
        wait_for_page(port, NIGHT);

        dev.assert_well();
        dev.signal(Signal::INT);
        let ended = dev.child.wait().unwrap();
        assert_eq!(ended.code(), Some(130), "{}", dev.output());
        TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    }

    /// The app under an agent with nothing in its root, by one of the page's commands; none if it
    /// isn't installed.
    fn under_an_agent(self, command: usize) -> Option<Running> {
        let (world, source) = self.world()?;
        let relay = Relay::start(&world);
        let link = world.link(&relay, self.example, "dev");
        let (root, port) = (world.path("target"), free_port());
        fs::create_dir(&root).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let command = self.commands(RUN)[command]
            .replace(LINK, &format!("@{}", text(&link.agent)))
            .replace(ROOT, &text(&root))
            .replace(PID_FILE, &text(&world.path("pid")))
            .replace(self.port, &port.to_string());
        let agent = Agent {
            process: Process::start(&mut shell(&world, &command)),
            root,
        };
        agent.process.wait_for("attached to the relay", 0);
        Some(Running {
            framework: self,
            world,
            _relay: relay,
            link,
            agent,
            source,
            port,
        })
    }

    /// A world with a copy of the example; none if the framework isn't installed.
    fn world(self) -> Option<(World, PathBuf)> {
        let world = World::new();
        let probed = shell(&world, self.probe).output().unwrap();
        if !probed.status.success() {
            skipped(&format!(
                "{} ({}): run .ci/test-tools, and see .ci/run for Debian's packages",
                self.example, self.probe
            ));
            return None;
        }
        let source = world.path("source");
        copy(&repository().join("examples").join(self.example), &source);
        Some((world, source))
    }

    /// The lines of the page's shell blocks that hold `command`; a line that is continued is one.
    fn commands(self, command: &str) -> Vec<String> {
        let page = repository().join("docs/frameworks").join(self.page);
        let page = fs::read_to_string(page).unwrap();
        let blocks = page.split("```").skip(1).step_by(2);
        let shell = blocks.filter_map(|block| block.strip_prefix("sh\n"));
        shell
            .flat_map(|block| {
                let block = block.replace("\\\n", " ");
                block.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .filter(|line| line.contains(command))
            // So that what ends the shell ends what it runs.
            .map(|line| line.replacen(command, &format!("exec {command}"), 1))
            .collect()
    }
}

/// A framework's app under an agent.
struct Running {
    framework: Framework,
    world: World,
    _relay: Relay,
    link: Link,
    agent: Agent,
    source: PathBuf,
    port: u16,
}

impl Running {
    #[track_caller]
    fn push(&self, status: &str) -> Pushed {
        self.world.push(&self.link, &self.source).expect(status)
    }

    /// Has the app say something else.
    fn say(&self, before: &str, after: &str) {
        replace(&self.source.join(self.framework.message), before, after);
    }

    /// Breaks a file that the app needs for its start, and gives what it held.
    fn break_it(&self) -> String {
        append(&self.source.join(self.framework.code), BROKEN)
    }

    #[track_caller]
    fn serves(&self, message: &str) {
        serves(self.port, message);
    }

    /// Ends the agent, and checks that the app went before it.
    #[track_caller]
    fn end(&mut self, last: &Pushed) {
        self.agent.process.assert_well();
        let ended = self.agent.process.terminate();
        assert!(ended.success(), "{}", self.agent.process.output());
        assert!(!is_running(last.pid()));
        TcpStream::connect(("127.0.0.1", self.port)).unwrap_err();
    }
}

/// Checks that the page says so now.
#[track_caller]
fn serves(port: u16, message: &str) {
    let page = get(port);
    assert!(page.contains(message), "{page}");
}

/// Waits until the page says so. Nobody tells when what a check does not ask for is served.
#[track_caller]
fn wait_for_page(port: u16, message: &str) {
    wait_until(message, || {
        page(port).is_some_and(|page| page.contains(message))
    });
}

/// The page that is served, if one is.
fn page(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream
        .write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let (status, _) = response.split_once("\r\n")?;
    status.contains(" 200 ").then_some(response)
}

/// A command for the shell, which finds our programs and those of the frameworks.
fn shell(world: &World, command: &str) -> Command {
    let python = env::var_os("PATCHWIRE_TEST_PYTHON").map_or_else(
        || repository().join("target/test-tools/python/bin/python"),
        PathBuf::from,
    );
    let mut path: Vec<PathBuf> = [program("patchwire-agent"), python]
        .iter()
        .filter_map(|program| program.parent().map(Path::to_owned))
        .collect();
    path.extend(env::split_paths(&env::var_os("PATH").unwrap()));
    let mut shell = world.command("sh");
    shell
        .args(["-c", command])
        .env("PATH", env::join_paths(path).unwrap());
    shell
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Copies the files of a directory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(from, to).unwrap()),
        }
    }
}

fn replace(file: &Path, before: &str, after: &str) {
    let content = fs::read_to_string(file).unwrap();
    assert!(content.contains(before), "{content}");
    fs::write(file, content.replace(before, after)).unwrap();
}

/// Appends to a file, and gives what it held.
fn append(file: &Path, text: &str) -> String {
    let content = fs::read_to_string(file).unwrap();
    fs::write(file, format!("{content}{text}")).unwrap();
    content
}
