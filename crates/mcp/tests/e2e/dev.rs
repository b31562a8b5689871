//! `patchwire dev` as someone uses it from morning to evening, and what it leaves behind.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::{Pid, Signal, kill_process, kill_process_group},
};

use crate::world::{APP, Process, World, free_port, get, stop, terminal, try_get, wait_until};

/// What stands before each line of ours.
const OURS: &str = "patchwire │ ";

/// That a push came to be served.
const READY: &str = ": ready (pid ";

/// The end of what is said when the app is up for the first time.
const UP: &str = "what you save is pushed from here on";

#[test]
fn ten_saves_are_ten_reloads() {
    let dev = Dev::new();
    let running = dev.start(&[]);
    let mut at = running.wait_for(UP, 0);
    assert!(get(dev.port).starts_with("Hello from Patchwire (push "));
    for version in 1..=10 {
        let message = format!("version {version}");
        dev.save(&message);
        at = running.wait_for(&format!("serving '{message}'"), at);
        at = running.wait_for(READY, at);
        assert!(get(dev.port).starts_with(&message));
    }
    // One push each, and one before them; the app's lines and ours don't mix.
    let output = running.output();
    assert_eq!(output.matches(READY).count(), 11, "{output}");
    for line in output.lines() {
        let known = line.starts_with(OURS) || line.starts_with("serving ");
        assert!(known, "{line}");
    }
    dev.interrupt(running);
}

#[test]
fn a_changed_configuration_is_the_one_that_the_app_runs_by() {
    let dev = Dev::new();
    let write = |greeting: &str| {
        let file = format!("app = \"shop\"\n[env]\nGREETING = \"{greeting}\"\n");
        fs::write(dev.root.join("patchwire.toml"), file).unwrap();
    };
    write("one");
    let app = "import os\nprint('greeting', os.environ['GREETING'], flush=True)\n".to_owned() + APP;
    fs::write(dev.app(), app).unwrap();
    let running = dev.start(&[]);
    let at = running.wait_for("greeting one", 0);
    let at = running.wait_for(UP, at);
    write("two");
    let at = running.wait_for("was read again", at);
    let at = running.wait_for("greeting two", at);
    running.wait_for(READY, at);
    dev.interrupt(running);
}

#[test]
fn what_is_saved_while_the_app_reloads_is_served_in_the_end() {
    let dev = Dev::new();
    let gate = dev.world.path("gate");
    mknodat(CWD, &gate, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let url = format!("http://127.0.0.1:{}/", dev.port);
    let running = dev.start(&["--ready", &url]);
    let at = running.wait_for(UP, 0);
    // It doesn't serve before the gate is opened: until then its push is under way.
    let waits = format!("print('waits', flush=True)\nopen({gate:?}).read()\n");
    let app = APP.replace("Hello from Patchwire", "A");
    fs::write(dev.app(), waits + &app).unwrap();
    let at = running.wait_for("waits", at);
    let at = running.wait_for("the app is not ready yet", at);
    dev.save("B");
    drop(OpenOptions::new().write(true).open(&gate).unwrap());
    let at = running.wait_for("serving 'A'", at);
    let at = running.wait_for(READY, at);
    let at = running.wait_for("serving 'B'", at);
    running.wait_for(READY, at);
    assert!(get(dev.port).starts_with("B (push "));
    dev.interrupt(running);
}

#[test]
fn a_checkout_of_thousands_of_files_is_one_push() {
    const FILES: usize = 3000;
    let dev = Dev::new();
    let write = |content: &str| {
        for file in 0..FILES {
            let dir = dev.root.join(format!("data/{}", file % 50));
            fs::create_dir_all(&dir).unwrap();
            fs::write(
                dir.join(format!("{file}.txt")),
                format!("{content} {file}\n"),
            )
            .unwrap();
        }
    };
    dev.git(&["init", "-q", "-b", "main"]);
    write("one");
    dev.git(&["add", "."]);
    dev.git(&["commit", "-qm", "one"]);
    dev.git(&["checkout", "-qb", "other"]);
    write("two");
    dev.save("another branch");
    dev.git(&["commit", "-qam", "two"]);

    let running = dev.start(&[]);
    let at = running.wait_for(UP, 0);
    dev.git(&["checkout", "-q", "main"]);
    let at = running.wait_for("serving 'Hello from Patchwire'", at);
    let end = running.wait_for(READY, at);
    let said = running.output();
    let pushed = said[at..end]
        .lines()
        .find(|line| line.contains(READY))
        .unwrap();
    let files = format!("pushed {} files ({} changed)", FILES + 1, FILES + 1);
    assert!(pushed.contains(&files), "{pushed}");
    // Nothing of it comes later.
    dev.save("last");
    let end = running.wait_for("serving 'last'", end);
    let end = running.wait_for("pushed 1 file (1 changed)", end);
    // However much that deletes: the copy is nobody's only one. At once, or it may be two pushes.
    fs::rename(dev.root.join("data"), dev.world.path("data")).unwrap();
    running.wait_for(&format!("pushed {FILES} files ({FILES} deleted)"), end);
    assert_eq!(running.output().matches(READY).count(), 4);
    dev.interrupt(running);
}

#[test]
fn an_editors_rename_is_one_change() {
    let dev = Dev::new();
    // As long as a slow machine needs for both steps.
    let running = dev.start(&["--quiet-time=300ms"]);
    let mut at = running.wait_for(UP, 0);
    for version in 1..=3 {
        let temporary = dev.root.join(".app.py.swp~");
        fs::write(&temporary, dev.source(&format!("edit {version}"))).unwrap();
        fs::rename(&temporary, dev.app()).unwrap();
        at = running.wait_for(&format!("serving 'edit {version}'"), at);
        at = running.wait_for("pushed 1 file (1 changed)", at);
    }
    assert_eq!(running.output().matches(READY).count(), 4);
    dev.interrupt(running);
}

#[test]
fn a_version_that_does_not_start_is_taken_back() {
    let dev = Dev::new();
    let running = dev.start(&[]);
    let at = running.wait_for(UP, 0);
    fs::write(dev.app(), "def broken(:\n").unwrap();
    let at = running.wait_for("SyntaxError", at);
    let at = running.wait_for("rolled back: the app ended before it was ready", at);
    let at = running.wait_for("the previous tree is back", at);
    assert!(get(dev.port).starts_with("Hello from Patchwire (push "));
    // The app's lines stand there once.
    assert_eq!(running.output().matches("SyntaxError").count(), 1);
    dev.save("repaired");
    running.wait_for(READY, at);
    assert!(get(dev.port).starts_with("repaired"));
    dev.interrupt(running);
}

#[test]
fn what_git_ignores_and_the_app_needs_is_linked_in() {
    let dev = Dev::new();
    let file = |name: &str, content: &str| {
        let path = dev.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    file(".gitignore", ".env\nweb/vendor/\nnode_modules/\ndist/\n");
    file(".env", "secret");
    file("web/vendor/library.py", "NAME = 'library'\n");
    file("dist/built.js", "built");
    // No rule says that this one is to be ignored.
    file(".venv/pyvenv.cfg", "");
    file(
        "main.py",
        "import os, signal, sys\nsys.path.insert(0, 'web/vendor')\nimport library\n\
         there = [name for name in ('node_modules', 'dist', '.venv') if os.path.exists(name)]\n\
         print('found', open('.env').read(), library.NAME, *there, flush=True)\nsignal.pause()\n",
    );
    let running = dev.start_command(&["--ready=alive:1ms"], &["python3", "main.py"]);
    let linked = "linked into the copy, not pushed: .env, .venv, web/vendor";
    running.wait_for(linked, 0);
    running.wait_for("found secret library .venv", 0);
    let at = running.wait_for(UP, 0);

    // One that is installed later, and one that goes.
    fs::remove_dir_all(dev.root.join(".venv")).unwrap();
    file("node_modules/left-pad/index.js", "");
    let at = running.wait_for("linked into the copy, not pushed: node_modules", at);
    file(
        "main.py",
        &(fs::read_to_string(dev.root.join("main.py")).unwrap() + "\n"),
    );
    running.wait_for("found secret library node_modules", at);
    dev.interrupt(running);
}

#[test]
fn an_app_that_ends_is_started_again_and_that_is_said() {
    let dev = Dev::new();
    let running = dev.start(&[]);
    let at = running.wait_for(UP, 0);
    let said = running.output();
    let pid = said.split_once(READY).unwrap().1.split_once(')').unwrap().0;
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    kill_process(pid, Signal::USR1).unwrap();
    let at = running.wait_for("the app ended by itself: killed by SIGUSR1", at);
    let _ = running.wait_for("serving ", at.min(said.len()));
    dev.save("after");
    running.wait_for(READY, at);
    assert!(get(dev.port).starts_with("after"));
    dev.interrupt(running);
}

#[test]
fn whatever_ends_it_ends_everything() {
    // To dev alone; to the whole group, as a terminal does it; and what it can't hear.
    for (signal, group, code) in [
        (Signal::INT, false, Some(130)),
        (Signal::INT, true, Some(130)),
        (Signal::TERM, false, Some(143)),
        (Signal::HUP, true, Some(129)),
        (Signal::KILL, false, None),
    ] {
        let dev = Dev::new();
        let mut running = dev.start(&[]);
        running.wait_for(UP, 0);
        // Ours, relay, agent, guard and app: otherwise nobody looks in the right place.
        assert_eq!(dev.world.processes().len(), 5);
        match group {
            true => kill_process_group(running.pid(), signal).unwrap(),
            false => running.signal(signal),
        }
        let status = running.child.wait().unwrap();
        assert_eq!(status.code(), code, "{signal:?}: {}", running.output());
        dev.assert_nothing_left();
    }
}

#[test]
fn an_interrupt_at_any_moment_ends_everything() {
    for moment in ["dev: ", "serving ", "pushed "] {
        let dev = Dev::new();
        let mut running = dev.start(&[]);
        running.wait_for(moment, 0);
        kill_process_group(running.pid(), Signal::INT).unwrap();
        let status = running.child.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{moment}: {}", running.output());
        dev.assert_nothing_left();
    }
}

#[test]
fn without_its_agent_it_ends_and_says_so() {
    let dev = Dev::new();
    let mut running = dev.start(&[]);
    running.wait_for(UP, 0);
    let agent = dev.process("held\0agent\0");
    kill_process(agent, Signal::KILL).unwrap();
    let status = running.child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "{}", running.output());
    running.wait_for("the agent logged:", 0);
    running.wait_for("attached to the relay", 0);
    running.wait_for("the agent ended by itself: signal: 9", 0);
    dev.assert_nothing_left();
}

#[test]
fn the_second_time_only_changes_are_pushed() {
    let dev = Dev::new();
    let running = dev.start(&[]);
    running.wait_for("pushed 1 file (1 added)", 0);
    running.wait_for(UP, 0);
    dev.interrupt(running);

    let running = dev.start(&[]);
    running.wait_for("nothing has changed since the last time", 0);
    running.wait_for("serving ", 0);
    assert!(get(dev.port).starts_with("Hello from Patchwire (push "));
    dev.interrupt(running);

    fs::write(dev.root.join("notes"), "new").unwrap();
    let running = dev.start(&[]);
    running.wait_for("pushed 1 file (1 added)", 0);
    running.wait_for(UP, 0);
    dev.interrupt(running);

    let running = dev.start(&["--fresh"]);
    running.wait_for("pushed 2 files (2 added)", 0);
    running.wait_for(UP, 0);
    dev.interrupt(running);
}

#[test]
fn two_of_one_root_do_not_run_at_once() {
    let dev = Dev::new();
    let running = dev.start(&[]);
    running.wait_for(UP, 0);
    let second = dev.command(&[], &["python3", "app.py"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second.stderr);
    let pid = running.pid().as_raw_nonzero();
    assert!(said.contains(&format!("process {pid}, runs for")), "{said}");
    // The first one is none the worse.
    assert!(get(dev.port).starts_with("Hello from Patchwire (push "));
    dev.interrupt(running);
}

#[test]
fn a_command_that_is_not_there_is_told_at_once() {
    let dev = Dev::new();
    for (command, said) in [
        ("pyton3", "there is no such program in "),
        ("./run.sh", "there is no "),
        ("./app.py", "is no file that may be executed"),
        ("app.py", "there is no such program in "),
    ] {
        let output = dev.command(&[], &[command]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains(said) && stderr.contains(command),
            "{stderr}"
        );
    }
    // One of the root's own, with options of its own, and without a double dash.
    let script = dev.root.join("run.sh");
    fs::write(&script, "#!/bin/sh\necho run with $*\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = dev.world.patchwire();
    command.args(["dev", "--ready=alive:1ms", "./run.sh", "--root", "-x"]);
    let running = Process::start(command.current_dir(&dev.root).process_group(0));
    running.wait_for("run with --root -x", 0);
    running.wait_for(UP, 0);
    dev.interrupt(running);
}

#[test]
fn a_pipe_gets_the_apps_output_as_it_is_and_no_escape_codes_of_ours() {
    let dev = Dev::new();
    let app = "import os, signal, sys\nsys.stdout.buffer.write(b'out \\xff \\x1b[1mbold\\x1b[0m\\n')\n\
               sys.stdout.flush()\nprint('err', file=sys.stderr)\nos.close(1)\nsignal.pause()\n";
    fs::write(dev.app(), app).unwrap();
    let (out, err) = (dev.world.path("out"), dev.world.path("err"));
    let file = |path: &Path| Stdio::from(fs::File::create(path).unwrap());
    let mut child = dev
        .command(&["--ready=alive:1ms"], &["python3", "app.py"])
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn()
        .unwrap();
    wait_until("the app is up", || {
        fs::read_to_string(&err).unwrap().contains(UP)
            && fs::read_to_string(&err).unwrap().contains("err\n")
            && !fs::read(&out).unwrap().is_empty()
    });
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read(&out).unwrap(), b"out \xff \x1b[1mbold\x1b[0m\n");
    let err = fs::read_to_string(&err).unwrap();
    assert!(!err.contains('\x1b'), "{err}");
    for line in err.lines() {
        assert!(line.starts_with(OURS) || line == "err", "{line}");
    }
    dev.assert_nothing_left();
}

#[test]
fn a_terminal_that_is_stopped_holds_up_neither_pushes_nor_the_end() {
    let dev = Dev::new();
    let terminal = terminal();
    stop(&terminal);
    let mut command = dev.command(&[], &["python3", "app.py", &dev.port.to_string()]);
    let stdout = terminal.try_clone().unwrap();
    command.stdout(stdout).stderr(terminal).env("TERM", "xterm");
    let mut running = Process::start_unread(command.process_group(0));
    for version in 0..3 {
        let message = format!("version {version}");
        dev.save(&message);
        wait_until("it serves what is saved", || {
            try_get(dev.port).is_ok_and(|body| body.starts_with(&message))
        });
    }
    assert_eq!(running.terminate().code(), Some(143));
    dev.assert_nothing_left();
}

#[test]
fn a_terminal_shows_colours_and_ends_it_with_a_key() {
    let dev = Dev::new();
    let app =
        "import signal\nprint('\\x1b[32mgreen\\x1b[0m \\x1b]0;title\\x07end')\nsignal.pause()\n";
    fs::write(dev.app(), app).unwrap();
    let run = |colours: bool| {
        let mut inner = dev.command(&["--ready=alive:1ms"], &["python3", "app.py"]);
        // A terminal of Python's, whose keyboard is our pipe.
        let spawn =
            "import pty, sys, os; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let mut terminal = dev.world.command("python3");
        terminal
            .args(["-c", spawn])
            .arg(inner.get_program())
            .args(inner.get_args());
        terminal
            .current_dir(&dev.root)
            .env("TERM", "xterm")
            .stdin(Stdio::piped());
        terminal.env_remove("NO_COLOR");
        if !colours {
            terminal.env("NO_COLOR", "1");
        }
        inner.env_clear();
        let mut running = Process::start(&mut terminal);
        running.wait_for(UP, 0);
        running.wait_for("green", 0);
        let mut keyboard = running.child.stdin.take().unwrap();
        keyboard.write_all(b"\x03").unwrap();
        let status = running.child.wait().unwrap();
        drop(keyboard);
        assert_eq!(status.code(), Some(130), "{}", running.output());
        dev.assert_nothing_left();
        running.output()
    };
    let coloured = run(true);
    assert!(
        coloured.contains("\x1b[1mpatchwire │\x1b[0m "),
        "{coloured:?}"
    );
    assert!(
        coloured.contains("\x1b[32mgreen\x1b[0m end\x1b[0m"),
        "{coloured:?}"
    );
    let plain = run(false);
    assert!(plain.contains("green end"), "{plain:?}");
    for style in ["\x1b[1m", "\x1b[32m", "\x1b[0m"] {
        assert!(!plain.contains(style), "{plain:?}");
    }
}

/// A project, and a home whose state directory holds its copy.
struct Dev {
    world: World,
    root: PathBuf,
    port: u16,
}

impl Dev {
    /// With the example app.
    fn new() -> Self {
        let world = World::new();
        let root = world.path("project");
        fs::create_dir(&root).unwrap();
        let root = root.canonicalize().unwrap();
        let port = free_port();
        fs::write(root.join("app.py"), APP).unwrap();
        Self { world, root, port }
    }

    fn app(&self) -> PathBuf {
        self.root.join("app.py")
    }

    fn source(&self, message: &str) -> String {
        APP.replace("Hello from Patchwire", message)
    }

    /// Saves the app with another message, as an editor does that writes in place.
    fn save(&self, message: &str) {
        fs::write(self.app(), self.source(message)).unwrap();
    }

    fn command(&self, options: &[&str], app: &[&str]) -> Command {
        let mut command = self.world.patchwire();
        command.current_dir(&self.root).arg("dev").args(options);
        command.arg("--").args(app);
        command
    }

    /// Starts it with the example app.
    fn start(&self, options: &[&str]) -> Process {
        self.start_command(options, &["python3", "app.py", &self.port.to_string()])
    }

    fn start_command(&self, options: &[&str], app: &[&str]) -> Process {
        Process::start(self.command(options, app).process_group(0))
    }

    /// Ends it as Ctrl+C does.
    #[track_caller]
    fn interrupt(&self, mut running: Process) -> ExitStatus {
        kill_process_group(running.pid(), Signal::INT).unwrap();
        let status = running.child.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{}", running.output());
        self.assert_nothing_left();
        status
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        wait_until("no process is left", || self.world.processes().is_empty());
    }

    /// The process whose command line holds this.
    fn process(&self, command: &str) -> Pid {
        let processes = self.world.processes().into_iter();
        let mut named = processes.filter(|pid| {
            let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
            fs::read_to_string(path).is_ok_and(|line| line.contains(command))
        });
        named.next().unwrap()
    }

    #[track_caller]
    fn git(&self, arguments: &[&str]) {
        let mut git = self.world.command("git");
        git.current_dir(&self.root)
            .args(["-c", "user.name=ana", "-c", "user.email=ana@example.org"])
            .args(arguments);
        let output = git.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Only a test that fails leaves any.
        for process in self.world.processes() {
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
