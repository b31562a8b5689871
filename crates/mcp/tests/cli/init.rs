//! Preparing a directory: what is asked, what is written, and what is left alone.

use std::fs;

use patchwire_transport::DeploymentLink;

use crate::{
    links::{mint, mode, recorded},
    terminal::Terminal,
    user::{User, relay_link},
};

/// What a file says after the line that names its schema.
fn below_schema(file: &str) -> &str {
    file.split_once('\n').expect("it has lines").1
}

#[test]
fn init_asks_for_what_it_can_not_know() {
    let user = User::new();
    user.write("app.py", "print()");
    let mut terminal = Terminal::new(&user.command("init"));
    terminal.answer("The app's name [project]: ", "Shop!\n");
    // What makes no sense is asked again.
    terminal.answer("The app's name [project]: ", "shop\n");
    terminal.answer("The deployment's name [dev-ana]: ", "\n");
    terminal.answer("The relay's link", "@missing\n");
    terminal.answer("The relay's link", "-\n");
    terminal.answer("The relay's link", &format!("{}\n", relay_link()));
    terminal.answer(
        "The command that starts the app, on its machine [python3 app.py]: ",
        "\n",
    );
    terminal.answer("or nothing: ", "soon\n");
    terminal.answer("or nothing: ", "http://127.0.0.1:8000/health\n");
    assert_eq!(user.names(), ["app.py"]);
    assert!(recorded(&user).is_empty());
    terminal.answer("Go on? [Y/n] ", "\n");
    let ended = terminal.end(0);

    let file = String::from_utf8(user.read("patchwire.toml")).unwrap();
    let expected = "app = \"shop\"\ndeployment = \"dev-ana\"\n";
    assert!(below_schema(&file).starts_with(expected), "{file}");
    let path = &recorded(&user)[0];
    assert_eq!(mode(path), 0o600);
    let link: DeploymentLink = fs::read_to_string(path).unwrap().parse().unwrap();

    // Its text and where the link goes were said before, and the agent's link after.
    let (before, after) = ended.split_once("Go on?").unwrap();
    for line in file.lines() {
        assert!(before.contains(line), "{line}: {before}");
    }
    assert!(before.contains(path.to_str().unwrap()), "{before}");
    assert!(after.contains(&**link.narrow().expose()), "{after}");
    let command = "patchwire-agent run --link @$HOME/agent.link --root . \
                   --ready http://127.0.0.1:8000/health -- python3 app.py";
    assert!(after.contains(command), "{after}");
    // What lets one use the relay, or push, is not shown.
    assert!(!ended.contains("#v1."), "{ended}");
    assert!(
        before.contains("cannot read the link in “missing”"),
        "{before}"
    );
}

#[test]
fn what_is_interrupted_or_declined_leaves_nothing() {
    const NAMES: [(&str, &str); 2] = [("The app's name", "\n"), ("The deployment's name", "\n")];
    let relay = format!("{}\n", relay_link());
    let to_the_end = [
        ("The relay's link", relay.as_str()),
        ("The command", "\n"),
        ("readiness", "\n"),
    ];
    // Ctrl+C is 3 and Ctrl+D is 4.
    for (answers, exit_code) in [
        (vec![("The app's name", "sho\x03")], 130),
        (
            [&NAMES[..], &[("The relay's link", "patch\x03")]].concat(),
            130,
        ),
        (
            [&NAMES[..], &to_the_end, &[("Go on?", "\x03")]].concat(),
            130,
        ),
        (vec![("The app's name", "\x04")], 2),
        ([&NAMES[..], &[("The relay's link", "\x04")]].concat(), 2),
        ([&NAMES[..], &to_the_end, &[("Go on?", "no\n")]].concat(), 1),
    ] {
        let user = User::new();
        let mut terminal = Terminal::new(&user.command("init"));
        for (question, answer) in &answers {
            terminal.answer(question, answer);
        }
        let ended = terminal.end(exit_code);
        assert!(ended.ends_with("nothing is written\r\n"), "{ended}");
        assert!(user.names().is_empty(), "{answers:?}");
        assert!(recorded(&user).is_empty(), "{answers:?}");
    }
}

#[test]
fn what_is_given_is_not_asked_for() {
    let user = User::new();
    let relay = user.write("relay.link", relay_link());
    let relay = relay.to_str().unwrap();
    let file = "app = \"shop\"\ndeployment = \"dev\"\n";
    let bifrost = r#"{"app_id": "shop", "deployment_id": "dev"}"#;
    for (line, variables, written) in [
        (
            "init --app shop --deployment dev --relay @relay.link",
            vec![],
            None,
        ),
        (
            "init --app shop --deployment dev",
            vec![("PATCHWIRE_RELAY", format!("@{relay}"))],
            None,
        ),
        ("init --app shop --deployment dev", vec![], None),
        ("init --yes", vec![], None),
        ("init", vec![], Some(("patchwire.toml", file))),
        ("init", vec![], Some((".bifrost.json", bifrost))),
    ] {
        let user = User::new();
        user.write("relay.link", relay_link());
        if let Some((name, text)) = written {
            user.write(name, text);
        }
        let mut command = user.command(line);
        command.envs(variables);
        let ended = Terminal::new(&command).end(0);
        assert!(!ended.contains("Go on?"), "{ended}");
        // Nobody was asked: this may be no person's terminal.
        assert!(!ended.contains("#v1"), "{ended}");
        assert!(ended.contains("patchwire link --agent"), "{ended}");
        assert_eq!(recorded(&user).len(), 1, "{ended}");
    }
}

#[test]
fn init_takes_the_relays_link_that_lies_there() {
    let user = User::new();
    user.write("relay.link", relay_link());
    user.write("other.link", "not a link");
    let done = user.run("init").expect(0).text();
    assert!(done.contains("took the relay's link from"), "{done}");
    assert!(done.contains("would be pushed"), "{done}");

    // Of two, none is.
    let user = User::new();
    user.write("relay.link", relay_link());
    user.write("other.link", relay_link());
    user.run("init").expect(2);
}

#[test]
fn init_takes_names_from_the_link_that_is_recorded() {
    let user = User::new();
    let link = mint(&user, "shop", "dev");
    user.run_with("join -", link.as_bytes()).expect(0);
    user.run("init").expect(0);
    let file = String::from_utf8(user.read("patchwire.toml")).unwrap();
    assert!(
        file.contains("app = \"shop\"\ndeployment = \"dev\"\n"),
        "{file}"
    );
}

#[test]
fn init_leaves_no_file_where_the_link_can_not_be_recorded() {
    let user = User::new();
    user.write("relay.link", relay_link());
    fs::write(user.home().join("config"), "in the way").unwrap();
    user.run("init --relay @relay.link").expect(2);
    assert_eq!(user.names(), ["relay.link"]);
}

#[test]
fn init_writes_the_file_records_a_link_and_says_what_is_next() {
    let user = User::new();
    user.write("relay.link", relay_link());
    let done = user.run("init --relay @relay.link").expect(0).text();
    for said in [
        "patchwire link --agent",
        "patchwire-agent run --link @$HOME/agent.link --root . -- COMMAND",
        "patchwire watch",
    ] {
        assert!(done.contains(said), "{done}");
    }
    assert!(!done.contains("#v1"), "{done}");
    let file = String::from_utf8(user.read("patchwire.toml")).unwrap();
    let expected = "app = \"project\"\ndeployment = \"dev-ana\"\n";
    assert!(below_schema(&file).starts_with(expected), "{file}");
    assert!(file.starts_with("#:schema https://"), "{file}");
    assert_eq!(mode(&user.project.join("patchwire.toml")) & 0o600, 0o600);
    assert_eq!(mode(&recorded(&user)[0]), 0o600);
    user.run("status --wait 0s").expect(3);

    // Once more, nothing changes; another name does not slip in.
    let link = fs::read(&recorded(&user)[0]).unwrap();
    user.run("init").expect(0);
    user.run("init --relay @relay.link").expect(0);
    user.run("init --app other").expect(2);
    assert_eq!(fs::read(&recorded(&user)[0]).unwrap(), link);
    assert_eq!(user.read("patchwire.toml"), file.as_bytes());
}

#[test]
fn init_does_not_throw_a_secret_away() {
    let user = User::new();
    let link = mint(&user, "shop", "dev");
    user.run_with("join -", link.as_bytes()).expect(0);
    let refused = user.run("init --relay @relay.link --app blog").expect(2);
    assert!(refused.stderr.contains("shop/dev"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(&recorded(&user)[0]).unwrap(), link);
    assert!(!user.project.join("patchwire.toml").exists());
}

#[test]
fn init_takes_names_from_a_link_and_its_directory_from_the_root_option() {
    let user = User::new();
    let link = mint(&user, "shop", "dev");
    user.write("shop.link", &link);
    fs::create_dir(user.project.join("app")).unwrap();
    user.run("init --root app --link @shop.link").expect(0);
    let file = fs::read_to_string(user.project.join("app/patchwire.toml")).unwrap();
    let expected = "app = \"shop\"\ndeployment = \"dev\"\n";
    assert!(below_schema(&file).starts_with(expected), "{file}");
    user.run("status --root app --wait 0s").expect(3);
    user.run("status --wait 0s").expect(2);
}

#[test]
fn init_needs_a_relay_and_leaves_nothing_without() {
    let user = User::new();
    let refused = user.run("init").expect(2);
    assert!(refused.stderr.contains("--relay"), "{}", refused.stderr);
    assert!(user.names().is_empty());
    assert!(recorded(&user).is_empty());
}

#[test]
fn init_takes_over_the_file_of_the_system_before() {
    let user = User::new();
    user.write("relay.link", relay_link());
    fs::create_dir(user.project.join("src")).unwrap();
    user.write(
        ".bifrost.json",
        r#"{"app_id": "My App", "deployment_id": "dev-john", "app_root": "src"}"#,
    );
    let variables = [("BIFROST_API_KEY", "hunter2")];
    let done = user
        .run_under("init --relay @relay.link", &variables)
        .expect(0)
        .text();
    for said in [
        "“My App” is called my-app",
        ".bifrost.json",
        "BIFROST_API_KEY",
        "PATCHWIRE_LINK",
    ] {
        assert!(done.contains(said), "{said}: {done}");
    }
    assert!(
        !done.contains("hunter2") && !done.contains("“dev-john”"),
        "{done}"
    );
    let file = String::from_utf8(user.read("patchwire.toml")).unwrap();
    let expected = "app = \"my-app\"\ndeployment = \"dev-john\"\nroot = \"src\"\n";
    assert!(below_schema(&file).starts_with(expected), "{file}");
    // The link is the root's, which the file leads to.
    user.run("status --wait 0s").expect(3);
}

#[test]
fn a_file_that_was_made_meanwhile_is_left_alone() {
    let user = User::new();
    let mut terminal = Terminal::new(&user.command("init"));
    terminal.answer("The app's name", "\n");
    terminal.answer("The deployment's name", "\n");
    terminal.answer("The relay's link", &format!("{}\n", relay_link()));
    terminal.answer("The command", "\n");
    terminal.answer("readiness", "\n");
    // The first keys of the answer are there once the question is.
    terminal.answer("Go on? ", "y");
    user.write("patchwire.toml", "app = \"other\"\n");
    terminal.answer("y", "\n");
    let ended = terminal.end(2);
    assert!(ended.contains("made meanwhile"), "{ended}");
    assert_eq!(user.read("patchwire.toml"), b"app = \"other\"\n");
    assert!(recorded(&user).is_empty());
}
