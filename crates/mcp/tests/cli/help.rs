//! What `--help` says: every command with examples, and nothing that isn't there.

use crate::user::User;

const COMMANDS: &[&str] = &[
    "",
    "dev",
    "demo",
    "init",
    "link",
    "join",
    "push",
    "watch",
    "status",
    "logs",
    "mcp",
    "delta",
    "delta signature",
    "delta diff",
    "delta patch",
    "schema",
    "completions",
    "man",
];

fn examples(user: &User, command: &str) -> String {
    let help = user.run(&format!("{command} --help")).expect(0).text();
    let (_, examples) = help.split_once("Examples:\n").expect(command);
    examples.to_owned()
}

#[test]
fn every_command_has_an_example_and_the_options_of_all() {
    let user = User::new();
    for &command in COMMANDS {
        assert!(examples(&user, command).contains(&format!("patchwire {command}")));
        let help = user.run(&format!("{command} --help")).expect(0).text();
        for option in [
            "--root <DIR>",
            "--link <LINK>",
            "--wait <TIME>",
            "--verbose",
            "--quiet",
        ] {
            assert!(help.contains(option), "{command}: {option}");
        }
    }
}

#[test]
fn every_example_is_of_commands_and_options_that_are_there() {
    let user = User::new();
    for &command in COMMANDS {
        let examples = examples(&user, command);
        let lines: Vec<&str> = examples
            .lines()
            .take_while(|line| !line.is_empty())
            .collect();
        assert!(!lines.is_empty());
        for line in lines {
            let typed = line.split_once("patchwire ").expect(line).1;
            let typed = typed.split(['|', '<', '>']).next().unwrap_or_default();
            // What stands behind three spaces is a note.
            let typed = typed.split("   ").next().unwrap_or_default();
            let typed = typed.replace("\"larger buttons\"", "larger");
            // Help, last, keeps it from being done; what can't be understood before it is an error.
            // What follows a double dash is the app's.
            let ours = typed.split(" -- ").next().unwrap_or_default();
            user.run(&format!("{ours} --help")).expect(0);
        }
    }
}

#[test]
fn what_is_not_built_is_not_offered() {
    let help = User::new().run("--help").expect(0).text();
    for absent in ["rollback", "exec", "--env", "relay ", "agent ", "guard"] {
        let offered = help
            .lines()
            .any(|line| line.trim_start().starts_with(absent));
        assert!(!offered, "{absent}: {help}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let version = User::new().run("--version").expect(0).text();
    assert_eq!(
        version,
        concat!("patchwire ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn help_shows_no_variable_that_holds_a_secret() {
    let user = User::new();
    let link = "patchwire://h:1/a/b#v1.hunter2";
    for &command in COMMANDS {
        let variables = [("PATCHWIRE_LINK", link), ("PATCHWIRE_RELAY", link)];
        let help = user.run_under(&format!("{command} --help"), &variables);
        assert!(!help.expect(0).text().contains("hunter2"), "{command}");
    }
}

#[test]
fn the_programs_inside_have_help_of_their_own() {
    let user = User::new();
    let help = user.run("relay --help").expect(0).text();
    assert!(help.contains("Usage: patchwire relay"), "{help}");
    assert!(!help.contains("--wait"), "{help}");
}
