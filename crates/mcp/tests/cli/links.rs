//! Making, narrowing and recording links, and what refuses to.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::user::{User, relay_link};
use patchwire_transport::DeploymentLink;

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o7777
}

pub(crate) fn recorded(user: &User) -> Vec<PathBuf> {
    let entries = fs::read_dir(user.links()).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// A deployment's link, and the relay's in `relay.link`.
pub(crate) fn mint(user: &User, app: &str, deployment: &str) -> String {
    user.write("relay.link", relay_link());
    let minted = user
        .run(&format!("link {app} {deployment} --relay @relay.link"))
        .expect(0);
    minted.text().trim_end().to_owned()
}

#[test]
fn a_link_is_minted_from_wherever_the_relays_stands() {
    let user = User::new();
    let relay = relay_link();
    user.write("relay.link", &relay);
    let links = [
        user.run("link shop dev --relay @relay.link"),
        user.run_with("link shop dev --relay -", relay.as_bytes()),
        user.run(&format!("link shop dev --relay {relay}")),
        user.run_under("link shop dev", &[("PATCHWIRE_RELAY", "@relay.link")]),
    ]
    .map(|ran| {
        let printed = ran.expect(0).text();
        printed.trim_end().parse::<DeploymentLink>().unwrap()
    });
    for link in &links {
        assert_eq!(
            (link.app().as_str(), link.deployment().as_str()),
            ("shop", "dev")
        );
    }
    assert_ne!(links[0].id(), links[1].id());
}

#[test]
fn a_narrowed_link_is_the_agents_alone() {
    let user = User::new();
    let link = mint(&user, "shop", "dev");
    user.write("full.link", &link);
    for narrow in [
        "link --agent @full.link",
        "link --agent @~/project/full.link",
        "link --agent --link @full.link",
    ] {
        let narrowed = user.run(narrow).expect(0).text();
        let narrowed: DeploymentLink = narrowed.trim_end().parse().unwrap();
        assert!(narrowed.is_agent_only());
        assert_eq!(narrowed.id(), link.parse::<DeploymentLink>().unwrap().id());
        user.write("agent.link", narrowed.expose().as_bytes());
    }
    for line in [
        "join @agent.link",
        "push --link @agent.link",
        "status --link @agent.link",
    ] {
        let refused = user.run(line).expect(2);
        assert!(refused.stderr.contains("agent"), "{}", refused.stderr);
    }
    assert!(recorded(&user).is_empty());
}

#[test]
fn links_that_are_not_what_they_should_be_are_told_apart() {
    let user = User::new();
    let link = mint(&user, "shop", "dev");
    let mistyped = link.replacen("shop", "shoq", 1);
    for (given, said) in [
        (mistyped.as_str(), "mistyped"),
        (&link[..link.len() - 3], "mistyped"),
        ("https://example.com", "not a link"),
        (&relay_link(), "relay link"),
        ("@missing", "missing"),
    ] {
        let refused = user.run(&format!("join {given}")).expect(2);
        assert!(refused.stderr.contains(said), "{given}: {}", refused.stderr);
        assert!(!refused.stderr.contains("#v1."), "{}", refused.stderr);
    }
    let refused = user.run(&format!("link a b --relay {link}")).expect(2);
    assert!(
        refused.stderr.contains("link of a deployment"),
        "{}",
        refused.stderr
    );
    let refused = user.run("link Shop dev --relay @relay.link").expect(2);
    assert!(refused.stderr.contains("a-z"), "{}", refused.stderr);
}

#[test]
fn a_link_where_none_belongs_is_not_repeated() {
    let user = User::new();
    let link = mint(&user, "shop", "dev");
    let refused = user.run(&format!("push {link} --json")).expect(2);
    for output in [refused.text(), refused.stderr] {
        assert!(output.contains("shop/dev#…"), "{output}");
        assert!(!output.contains("#v1."), "{output}");
    }
}

#[test]
fn a_joined_link_is_found_from_its_root_alone() {
    let user = User::new();
    let link = mint(&user, "shop", "dev");
    let joined = user.run_with("join -", link.as_bytes()).expect(0).text();
    assert!(
        joined.contains("patchwire://127.0.0.1:9/shop/dev#…"),
        "{joined}"
    );

    let files = recorded(&user);
    assert_eq!(files.len(), 1);
    assert_eq!(mode(&files[0]), 0o600);
    assert_eq!(mode(&user.links()), 0o700);
    // The file names the link to other commands as well.
    user.run(&format!("link --agent @{}", files[0].display()))
        .expect(0);

    // From this root there is a link, to a relay that isn't there; from another there is none.
    user.run("link --agent").expect(0);
    user.run("status --wait 0s").expect(3);
    let inside = user.project.join("inside");
    fs::create_dir(&inside).unwrap();
    for root in [inside.as_path(), user.home()] {
        let none = user
            .run(&format!("status --wait 0s --root {}", root.display()))
            .expect(2);
        assert!(none.stderr.contains("patchwire join"), "{}", none.stderr);
    }
}

#[test]
fn a_link_that_others_can_read_is_not_used() {
    let user = User::new();
    let link = mint(&user, "shop", "dev");
    user.run_with("join -", link.as_bytes()).expect(0);
    fs::set_permissions(&recorded(&user)[0], fs::Permissions::from_mode(0o644)).unwrap();
    let refused = user.run("status --wait 0s").expect(2);
    assert!(refused.stderr.contains("0644"), "{}", refused.stderr);
    user.run_with("join -", link.as_bytes()).expect(0);
    user.run("status --wait 0s").expect(3);
}

#[test]
fn a_link_has_to_agree_with_the_file() {
    let user = User::new();
    let link = mint(&user, "shop", "dev");
    user.write("shop.link", &link);
    user.write("patchwire.toml", "app = \"shop\"\ndeployment = \"prod\"\n");
    for line in [
        "join @shop.link",
        "push --link @shop.link",
        "status --link @shop.link",
    ] {
        let refused = user.run(line).expect(2);
        assert!(
            refused.stderr.contains("prod"),
            "{line}: {}",
            refused.stderr
        );
    }
    assert!(recorded(&user).is_empty());
}
