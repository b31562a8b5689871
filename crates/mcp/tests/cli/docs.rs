//! The documentation, held to what the programs say.

use std::{fs, path::Path};

/// The repository.
fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The text of all the programs' sources, tests left out where they are files of their own.
fn sources() -> String {
    let mut text = String::new();
    let mut directories = vec![repository().join("crates")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("it is there").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "tests" && name != "examples" {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && name != "tests.rs"
            {
                text.push_str(&fs::read_to_string(path).expect("it is text"));
            }
        }
    }
    text
}

/// Source text with its string literals as they are printed: what runs over several lines is joined,
/// and what is filled in is `…`.
fn printed(source: &str) -> String {
    let mut joined = String::new();
    for part in source.split("\\\n") {
        joined.push_str(part.trim_start());
    }
    let joined = joined.replace("\\\"", "\"");
    // Twofold braces stand for one, and a third is what is filled in within them.
    let mut rest = &*joined
        .replace("{{{", "\u{1}{")
        .replace("}}}", "}\u{2}")
        .replace("{{", "\u{1}")
        .replace("}}", "\u{2}");
    let mut printed = String::new();
    while let Some((before, after)) = rest.split_once('{') {
        printed.push_str(before);
        rest = match after.split_once('}') {
            Some((name, after)) if !name.contains(['\n', '{']) => {
                printed.push('…');
                after
            }
            _ => after,
        };
    }
    printed.push_str(rest);
    printed.replace('\u{1}', "{").replace('\u{2}', "}")
}

#[test]
fn what_is_filled_in_is_told_apart() {
    let source =
        "error(\"cannot {action} “{path}”: \\\n         it \\\"is\\\" ${{{wanted}}}\") {\n}";
    let expected = "error(\"cannot … “…”: it \"is\" ${…}\")";
    assert!(printed(source).starts_with(expected), "{}", printed(source));
}

#[test]
fn every_message_in_the_troubleshooting_page_is_one_of_the_programs() {
    let page = fs::read_to_string(repository().join("docs/troubleshooting.md")).unwrap();
    let sources = printed(&sources());
    let messages: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(|heading| heading.trim_matches('`'))
        .collect();
    assert!(messages.len() > 30, "{messages:?}");
    for message in messages {
        assert!(sources.contains(message), "no program says: {message}");
    }
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    for page in fs::read_dir(repository().join("docs")).unwrap().flatten() {
        if page.path().is_dir() {
            continue;
        }
        let text = fs::read_to_string(page.path()).unwrap();
        for target in text.split("](").skip(1) {
            let target = target.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = repository().join("docs").join(target);
            assert!(path.exists(), "{}: {target}", page.path().display());
        }
    }
}
