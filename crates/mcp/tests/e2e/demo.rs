//! `patchwire demo` as someone sees it who has just installed it, and what it leaves behind.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Signal, kill_process, kill_process_group};

use crate::world::{Process, World, get, wait_until};

#[test]
fn the_demo_shows_three_acts_and_leaves_nothing() {
    let demo = Demo::new();
    let output = demo.command(&[]).output().unwrap();
    let (said, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{stderr}");

    let acts: Vec<&str> = said.split("\n\n").collect();
    let [start, first, second, third, end] = acts[..] else {
        panic!("not three acts: {said}");
    };
    assert!(start.contains("relay and an agent"), "{said}");
    let served = |act: &str| {
        let line = act.lines().find(|line| line.contains("serve")).unwrap();
        let (before, id) = line.split_once(" (push ").unwrap();
        let (_, message) = before.split_once(": ").unwrap();
        (message.to_owned(), id.trim_end_matches(')').to_owned())
    };
    let (first_message, first_id) = served(first);
    let (second_message, second_id) = served(second);
    assert_ne!(first_message, second_message, "{said}");
    assert_ne!(first_id, second_id, "{said}");
    for act in [first, second] {
        assert!(act.contains("pushed ") && act.contains(": ready"), "{said}");
    }
    // What crashed says why, and what ran before runs again.
    assert!(third.contains("rolled back"), "{said}");
    assert!(
        third.contains("Traceback (most recent call last)"),
        "{said}"
    );
    assert!(third.contains("RuntimeError: "), "{said}");
    assert_eq!(served(third), (second_message, second_id), "{said}");
    assert!(end.contains("ended"), "{said}");

    demo.assert_nothing_left();
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    // At its start, with one process of three, and with all of them.
    for moment in ["Starting a relay", "1. The first push", " serves: "] {
        let demo = Demo::new();
        let mut command = demo.command(&[]);
        let mut process = Process::start(command.process_group(0));
        process.wait_for(moment, 0);
        // As a terminal does it: to the whole group.
        kill_process_group(process.pid(), Signal::INT).unwrap();
        let status = process.child.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{moment}: {}", process.output());
        demo.assert_nothing_left();
    }
}

#[test]
fn a_kept_demo_goes_on_until_it_is_ended_as_it_says() {
    let demo = Demo::new();
    let output = demo.command(&["--keep"]).output().unwrap();
    let (said, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}{stderr}");
    let line = |beginning: &str| {
        let mut lines = said.lines().map(str::trim).rev();
        let line = lines.find(|line| line.contains(beginning));
        line.unwrap_or_else(|| panic!("no {beginning}: {said}"))
    };
    let url = line("the app is at ").rsplit_once(' ').unwrap().1;
    let port = url
        .trim_end_matches('/')
        .rsplit_once(':')
        .unwrap()
        .1
        .parse()
        .unwrap();
    let app = line("Edit ").strip_prefix("Edit ").unwrap();
    let app = Path::new(app.strip_suffix(" and push it:").unwrap());
    assert!(get(port).contains("push "), "{said}");

    let source = fs::read_to_string(app).unwrap();
    let message = source
        .lines()
        .find(|line| line.starts_with("MESSAGE = "))
        .unwrap();
    fs::write(app, source.replace(message, "MESSAGE = 'Edited by hand'")).unwrap();
    let pushed = demo.shell(line(" push --root "));
    assert!(pushed.contains("pushed 1 file"), "{pushed}");
    assert!(get(port).starts_with("Edited by hand (push "), "{said}");

    // Relay, agent, the agent's guard and the app: otherwise nobody looks in the right place.
    assert_eq!(
        demo.world.processes().len(),
        4,
        "{:?}",
        demo.world.processes()
    );
    demo.shell(line("kill "));
    wait_until("no process is left", || demo.world.processes().is_empty());
    assert_eq!(demo.files().len(), 1, "{:?}", demo.files());
    demo.shell(line("rm -r "));
    demo.assert_nothing_left();
}

/// A place for a demo, in which every process of it stands with one foot.
struct Demo {
    world: World,
}

impl Demo {
    fn new() -> Self {
        let world = World::new();
        fs::create_dir(world.path("tmp")).unwrap();
        Self { world }
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = self.world.patchwire();
        command.env("TMPDIR", self.world.path("tmp"));
        command
            .current_dir(self.world.dir.path())
            .arg("demo")
            .args(options);
        command
    }

    /// Runs a line of what the demo said, as someone does who copies it.
    #[track_caller]
    fn shell(&self, line: &str) -> String {
        let output = self
            .world
            .command("sh")
            .args(["-c", line])
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        text(output.stdout)
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        // The agent's guard ends by itself, right after the agent.
        wait_until("no process is left", || self.world.processes().is_empty());
        assert_eq!(self.files(), [] as [PathBuf; 0]);
    }

    fn files(&self) -> Vec<PathBuf> {
        let left = fs::read_dir(self.world.path("tmp")).unwrap();
        left.map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Only a test that fails leaves any.
        for process in self.world.processes() {
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
