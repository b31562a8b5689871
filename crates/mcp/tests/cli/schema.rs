//! The schema of the configuration file, as it is published, and as a validator understands it.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    common::test_tool,
    user::{User, relay_link},
};

fn docs() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs"))
}

fn schema() -> Value {
    User::new().run("schema").expect(0).json()
}

#[test]
fn what_is_published_is_what_the_code_says() {
    let path = docs().join("patchwire.schema.json");
    let published = fs::read_to_string(&path).unwrap();
    let printed = User::new().run("schema").expect(0).text();
    assert!(
        published == printed,
        "write it anew: cargo run --bin patchwire -- schema > docs/patchwire.schema.json"
    );
}

#[test]
fn every_key_is_documented() {
    let page = fs::read_to_string(docs().join("configuration.md")).unwrap();
    for key in schema()["properties"].as_object().unwrap().keys() {
        assert!(
            page.contains(&format!("`{key}`")) || page.contains(&format!("`[{key}]`")),
            "docs/configuration.md says nothing of {key}"
        );
    }
}

/// Values that a key may have, and some that it may not, for the parser and for the schema alike.
const VALUES: [(&str, &[&str], &[&str]); 9] = [
    ("app", &["shop", "0.a_b-c"], &["Shop", "", "-a", "a b"]),
    ("deployment", &["dev-ana"], &["dev/ana"]),
    ("root", &[".", "../project"], &[]),
    ("symlinks", &["inside", "any"], &["outside", "Any", ""]),
    (
        "reload",
        &[
            "restart",
            "none",
            "signal:HUP",
            "signal:sighup",
            "command:x y",
        ],
        &[
            "reboot",
            "signal",
            "signal:",
            "command:",
            "command: ",
            " none",
        ],
    ),
    (
        "ready",
        &[
            "http://127.0.0.1:8000/health?x",
            "http://h",
            "http://[::1]:1/",
            "tcp:80",
            "command:true",
            "alive:1m 30s",
            "auto",
        ],
        &[
            "Auto",
            "https://h/",
            "http://",
            "http://h/#x",
            "tcp:",
            "tcp:x",
            "alive",
            "alive:",
            "udp:1",
        ],
    ),
    (
        "ready_timeout",
        &["30s", "1m 30s", "1500ms"],
        &["", "30", "soon", "s"],
    ),
    ("watch", &[], &["x"]),
    ("ignroe", &[], &["x"]),
];

/// Files, and whether they are configuration files.
fn files() -> Vec<(String, bool)> {
    let mut files = Vec::new();
    for (key, right, wrong) in VALUES {
        let line = |value: &str| format!("{key} = {value:?}\n");
        files.extend(right.iter().map(|value| (line(value), true)));
        files.extend(wrong.iter().map(|value| (line(value), false)));
    }
    for (file, right) in [
        ("", true),
        ("include = [\"a\"]\nignore = []", true),
        ("include = \"a\"", false),
        ("ignore = [1]", false),
        ("app = 1", false),
        ("[watch]\nquiet_time = \"50ms\"", true),
        ("[watch]\nquiet_tmie = \"50ms\"", false),
        ("[watch]\nmax_wait = \"soon\"", false),
        ("[env]\nANY = \"thing\"", true),
        ("[env]\nANY = 1", false),
    ] {
        files.push((file.to_owned(), right));
    }
    files
}

/// The examples in the documentation that are whole files.
fn examples() -> Vec<(String, bool)> {
    let mut examples = Vec::new();
    let pages = [docs(), &docs().join("frameworks")]
        .map(|directory| fs::read_dir(directory).expect("it is there"));
    let pages = pages.into_iter().flatten().flatten();
    for page in pages.filter(|page| page.path().is_file()) {
        let text = fs::read_to_string(page.path()).expect("it is text");
        let blocks = text.split("```toml\n").skip(1);
        examples.extend(blocks.map(|block| {
            let example = block.split("```").next().unwrap_or_default();
            (example.to_owned(), true)
        }));
    }
    examples
}

/// The file that `init` writes, as it is and with its comments taken for what they show.
fn templates() -> Vec<(String, bool)> {
    let user = User::new();
    user.write("relay.link", relay_link());
    user.run("init --yes --relay @relay.link").expect(0);
    let written = String::from_utf8(user.read("patchwire.toml")).expect("it is TOML");
    let lines = written
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or(line));
    let uncommented: String = lines.flat_map(|line| [line, "\n"]).collect();
    vec![(written, true), (uncommented, true)]
}

#[test]
fn the_parser_and_a_validator_agree() {
    let user = User::new();
    let files = [files(), examples(), templates()].concat();
    for (file, right) in &files {
        user.write("patchwire.toml", file);
        // With a file that can be read, it is the link that is missing.
        let code = user.run("status --json").expect(2).json()["error"]["code"].clone();
        assert_eq!(code, if *right { "no-link" } else { "config" }, "{file}");
    }

    let Some(python) = test_tool("PATCHWIRE_TEST_PYTHON", "python/bin/python") else {
        return;
    };
    let given = json!({"schema": schema(), "files": files});
    user.write("given.json", given.to_string());
    let ran = Command::new(python)
        .args(["-c", VALIDATE])
        .current_dir(&user.project)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert_eq!(
        String::from_utf8_lossy(&ran.stdout),
        format!("{}\n", files.len())
    );
}

/// Validates every file by the schema, and the schema by its own.
const VALIDATE: &str = r#"
import json, tomllib, jsonschema
given = json.load(open("given.json"))
validator = jsonschema.validators.validator_for(given["schema"])
validator.check_schema(given["schema"])
for text, right in given["files"]:
    errors = [e.message for e in validator(given["schema"]).iter_errors(tomllib.loads(text))]
    assert bool(errors) != right, (text, errors)
print(len(given["files"]))
"#;
