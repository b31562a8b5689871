//! Completions and manual pages, as shells and man understand them.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{common::skipped, user::User};

/// A link in the environment, where what is generated could pick it up.
const SECRETS: [(&str, &str); 2] = [
    ("PATCHWIRE_LINK", "patchwire://h:1/a/b#v1.hunter2"),
    ("PATCHWIRE_RELAY", "patchwire://h:1#v1.hunter2"),
];

#[test]
fn every_shell_gets_its_completions() {
    let user = User::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let line = format!("completions {shell}");
        let script = user.run_under(&line, &SECRETS).expect(0).text();
        for word in ["push", "dry-run", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains("hunter2"), "{shell}");
    }
    assert!(user.run("completions sh").expect(2).stdout.is_empty());
}

#[test]
fn bash_completes_what_is_typed() {
    if !there_is("bash") {
        return;
    }
    let user = User::new();
    let script = user.run("completions bash").expect(0).stdout;
    let script = user.write("patchwire.bash", script);
    // As bash itself would call what the script registers.
    for (typed, expected) in [
        ("patchwire pu", "push"),
        ("patchwire push --dr", "--dry-run"),
        ("patchwire delta sig", "signature"),
        ("patchwire completions fi", "fish"),
        ("patchwire gua", ""),
    ] {
        let complete = format!(
            r#"set -eu -o pipefail
bash -n "$1"
source "$1"
complete -p patchwire >&2
COMP_WORDS=({typed}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_patchwire patchwire "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}" || test -z "${{COMPREPLY[*]}}"
echo "${{COMPREPLY[*]}}""#
        );
        let ran = Command::new("bash")
            .args(["--norc", "-c", &complete, "bash"])
            .arg(&script)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        let completed = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{typed}: {said}");
        assert_eq!(completed.trim_end(), expected, "{typed}: {said}");
    }
}

fn page(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).expect(name)
}

#[test]
fn every_command_has_a_manual_page() {
    let user = User::new();
    let written = user.run_under("man pages/man1", &SECRETS).expect(0).text();
    let directory = user.project.join("pages/man1");
    let mut names: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in [
        "patchwire.1",
        "patchwire-push.1",
        "patchwire-delta-diff.1",
        "patchwire-agent.1",
        "patchwire-agent-run.1",
        "patchwire-relay.1",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    assert_eq!(written.lines().count(), names.len());
    for name in &names {
        let page = page(&directory, name);
        assert!(!page.contains("hunter2"), "{name}");
        // The program that has nothing but one command shows that on its own.
        assert!(
            page.contains(".SH EXAMPLES") || name == "patchwire-agent.1",
            "{name}"
        );
    }
    // What is hidden in --help stays hidden.
    assert!(
        !names
            .iter()
            .any(|name| name.contains("guard") || name.contains("help")),
        "{names:?}"
    );
    assert!(!page(&directory, "patchwire-agent.1").contains("guard"));
    assert!(!page(&directory, "patchwire-agent-run.1").contains("link\\-file"));

    if there_is("groff") {
        for name in &names {
            let ran = Command::new("groff")
                .args(["-man", "-ww", "-z"])
                .arg(directory.join(name))
                .output()
                .unwrap();
            assert!(
                ran.status.success() && ran.stderr.is_empty(),
                "{name}: {ran:?}"
            );
        }
    }
}

#[test]
fn examples_keep_their_lines_in_a_manual_page() {
    if !there_is("groff") {
        return;
    }
    let user = User::new();
    user.run("man pages").expect(0);
    let ran = Command::new("groff")
        .args(["-man", "-Tascii", "-P-cbou"])
        .arg(user.project.join("pages/patchwire-init.1"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    let (_, examples) = text.split_once("EXAMPLES\n").expect(&text);
    let lines: Vec<_> = examples.lines().map(str::trim).take(2).collect();
    assert_eq!(
        lines,
        ["patchwire init", "patchwire init --yes --relay @relay.link"]
    );
}

#[test]
fn pages_that_can_not_be_written_are_exit_2() {
    let user = User::new();
    user.write("file", "");
    let refused = user.run("man file/below").expect(2);
    assert!(refused.stderr.contains("file/below"), "{}", refused.stderr);
}

/// Whether a program is installed, which most machines have. Skips where it isn't.
fn there_is(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .is_ok();
    if !found {
        skipped(&format!("{program} is not installed"));
    }
    found
}
