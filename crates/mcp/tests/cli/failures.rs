//! Exit statuses, and failures as JSON.

use crate::user::{User, relay_link};

/// A user with a link to a relay that isn't there.
fn linked() -> User {
    let user = User::new();
    user.write("relay.link", relay_link());
    user.run("init --relay @relay.link").expect(0);
    user
}

#[test]
fn arguments_that_make_no_sense_are_exit_2() {
    let user = User::new();
    for line in [
        "",
        "pusch",
        "push --wrong",
        "push extra",
        "push --wait soon",
        "logs --lines many",
        "link shop",
        "link shop dev",
        "link --agent @x shop dev",
        "join",
        "delta patch old",
        "delta signature a b --format zip",
        "--quiet -v status",
        "relay --wrong",
    ] {
        let refused = user.run(line).expect(2);
        assert!(refused.stdout.is_empty(), "{line}");
        assert!(!refused.stderr.is_empty(), "{line}");
    }
}

#[test]
fn a_file_with_an_unknown_key_is_exit_2_with_its_line() {
    let user = linked();
    user.write("patchwire.toml", "app = \"project\"\nignroe = [\"x\"]\n");
    for line in ["push", "status", "logs", "join @relay.link", "init"] {
        let refused = user.run(line).expect(2);
        for said in ["patchwire.toml", "line 2", "`ignroe`", "`ignore`"] {
            assert!(refused.stderr.contains(said), "{line}: {}", refused.stderr);
        }
        assert!(refused.stdout.is_empty(), "{line}");
    }
}

#[test]
fn a_variable_that_is_not_set_is_exit_2() {
    let user = linked();
    user.write("patchwire.toml", "[env]\nDATABASE_URL = \"${SHOP_DB}\"\n");
    let refused = user.run("push").expect(2);
    assert!(refused.stderr.contains("${SHOP_DB}"), "{}", refused.stderr);
    // Set, it is the relay that is missing.
    user.run_under("push --wait 0s", &[("SHOP_DB", "x")])
        .expect(3);
}

#[test]
fn a_root_that_is_not_there_is_exit_2() {
    let user = User::new();
    let refused = user.run("push --root missing --json").expect(2);
    assert_eq!(refused.json()["error"]["code"], "config");
}

#[test]
fn a_relay_that_is_not_there_is_exit_3() {
    let user = linked();
    for line in ["push", "status", "logs"] {
        let failed = user.run(&format!("{line} --json --wait 0s")).expect(3);
        let json = failed.json();
        let code = json["error"]["code"].as_str().unwrap();
        assert!(!code.is_empty() && !code.contains(' '), "{json}");
        let message = json["error"]["message"].as_str().unwrap();
        assert!(failed.stderr.contains(message), "{}", failed.stderr);
    }
}

#[test]
fn failures_are_json_where_it_is_asked_for() {
    let user = User::new();
    for (line, code) in [
        ("push --json", "no-link"),
        ("status --json", "no-link"),
        ("logs --json --follow", "no-link"),
        ("push --json --link @missing", "link"),
        ("push --json --wrong", "usage"),
        ("push --wait soon --json", "usage"),
        ("pusch --json", "usage"),
    ] {
        let json = user.run(line).expect(2).json();
        assert_eq!(json["error"]["code"], code, "{line}");
        assert!(json["error"]["message"].is_string(), "{line}");
        assert_eq!(json.as_object().unwrap().len(), 1);
    }
    for line in ["push", "status", "logs", "push --wrong"] {
        assert!(user.run(line).expect(2).stdout.is_empty(), "{line}");
    }
}

#[test]
fn options_may_stand_in_the_environment() {
    let user = linked();
    for (name, value, line, code) in [
        ("PATCHWIRE_WAIT", "0s", "status", 3),
        ("PATCHWIRE_WAIT", "soon", "status", 2),
        ("PATCHWIRE_ROOT", "missing", "status", 2),
        ("PATCHWIRE_LINK_FILE", "missing", "status", 2),
        ("PATCHWIRE_LINK", "@missing", "status", 2),
        // The flag goes before the environment.
        ("PATCHWIRE_ROOT", "missing", "status --root . --wait 0s", 3),
    ] {
        user.run_under(line, &[(name, value)]).expect(code);
    }
}
