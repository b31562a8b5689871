use std::fs;

use patchwire_transport::{Pin, RelayKey, RelayLink};
use tempfile::TempDir;

use super::*;

fn directory(file: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(FILE_NAME), file).unwrap();
    directory
}

fn settings(file: &str) -> Result<Settings, ConfigError> {
    Settings::read(&directory(file).path().join(FILE_NAME))
}

fn project(file: &str) -> Project {
    Project::find(directory(file).path(), None).unwrap()
}

fn link(app: &str, deployment: &str) -> DeploymentLink {
    let relay = RelayLink::new(
        "h:1".parse().unwrap(),
        Pin::new([1; 32]),
        RelayKey::new([2; 32]),
    );
    DeploymentLink::mint(&relay, app.parse().unwrap(), deployment.parse().unwrap()).unwrap()
}

#[test]
fn every_key_is_read() {
    let settings = settings(
        r#"
        app = "shop"
        deployment = "dev-ana"
        root = "."
        include = ["dist/app.css"]
        ignore = ["*.sqlite3"]
        symlinks = "any"
        modes = "executable"
        reload = "signal:HUP"
        ready = "http://127.0.0.1:8000/health"
        ready_timeout = "30s"
        [watch]
        quiet_time = "50ms"
        max_wait = "1s"
        [env]
        A = "1"
        "#,
    )
    .unwrap();
    assert_eq!(settings.watch.quiet_time, Some(Duration::from_millis(50)));
    assert_eq!(settings.watch.max_wait, Some(Duration::from_secs(1)));
    assert_eq!(settings.app, Some("shop".parse().unwrap()));
    assert_eq!(settings.deployment, Some("dev-ana".parse().unwrap()));
    assert_eq!(settings.root.as_deref(), Some(Path::new(".")));
    assert_eq!(settings.include, ["dist/app.css"]);
    assert_eq!(settings.ignore, ["*.sqlite3"]);
    assert_eq!(settings.symlinks, SymlinkPolicy::Any);
    assert_eq!(settings.modes, ModePolicy::Executable);
    assert_eq!(settings.reload, Some("signal:HUP".parse().unwrap()));
    assert_eq!(
        settings.ready.unwrap().to_string(),
        "http://127.0.0.1:8000/health"
    );
    assert_eq!(settings.ready_timeout, Some(Duration::from_secs(30)));
    assert_eq!(settings.env["A"], "1");
}

#[test]
fn an_empty_file_leaves_the_defaults() {
    let settings = settings("").unwrap();
    assert_eq!(settings.app, None);
    assert_eq!(settings.symlinks, SymlinkPolicy::Inside);
    assert_eq!(settings.modes, ModePolicy::All);
    assert_eq!(settings.reload, None);
}

#[test]
fn the_template_is_a_file_with_or_without_its_comments() {
    let (app, deployment) = ("shop".parse().unwrap(), "dev".parse().unwrap());
    let template = Settings::template(&app, &deployment, None);
    let uncommented = template
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or(line));
    let uncommented: String = uncommented.flat_map(|line| [line, "\n"]).collect();
    for text in [&template, &uncommented] {
        assert!(text.starts_with(&format!("#:schema {}\n", schema::URL)));
        let settings = settings(text).unwrap();
        assert_eq!(settings.app.as_ref(), Some(&app));
        assert_eq!(settings.deployment.as_ref(), Some(&deployment));
    }
    let odd = settings(&Settings::template(&app, &deployment, Some("a \"b\\c"))).unwrap();
    assert_eq!(odd.root.as_deref(), Some(Path::new("a \"b\\c")));
}

#[test]
fn what_a_file_can_not_say_is_named_with_its_line() {
    for (file, expected_line, said) in [
        (
            "app = \"a\"\nignroe = []",
            2,
            "unknown key `ignroe`: did you mean `ignore`?",
        ),
        (
            "port = 80",
            1,
            "unknown key `port`: the keys here are `app`, `deployment`, `root`",
        ),
        (
            "[watch]\nquiet_tmie = \"1s\"",
            2,
            "unknown key `quiet_tmie`: did you mean `quiet_time`?",
        ),
        (
            "[watch]\nignore = []",
            2,
            "the keys here are `quiet_time`, `max_wait`",
        ),
        ("\"x`, expected `\\u001b\" = 1", 1, "keys here are `app`"),
        (
            "symlinks = \"inisde\"",
            1,
            "unknown value `inisde`: did you mean `inside`?",
        ),
        ("\n\napp = \"A B\"", 3, "“A B” is not a name"),
        ("reload = \"reboot\"", 1, "restart, signal:NAME"),
        ("ready = \"udp:1\"", 1, "tcp:PORT"),
        ("ready_timeout = \"2h\"", 1, "at most 10m"),
        ("ready_timeout = \"soon\"", 1, "“soon”"),
        (
            "symlinks = \"outside\"",
            1,
            "the values here are `inside`, `any`",
        ),
        ("app = 1", 1, "expected a string"),
        ("\napp", 2, ""),
    ] {
        match settings(file).unwrap_err() {
            ConfigError::Invalid {
                path,
                line,
                message,
            } => {
                assert!(path.ends_with(FILE_NAME));
                assert_eq!(line, expected_line, "{file}: {message}");
                assert!(message.contains(said), "{file}: {message}");
            }
            error => panic!("{file}: {error}"),
        }
    }
}

#[test]
fn errors_show_no_value_of_the_environment() {
    let error = settings("[env]\nKEY = \"hunter2\"\nOTHER = 3\n").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn a_file_too_large_is_refused() {
    let large = format!("# {}", "x".repeat(1 << 20));
    assert!(matches!(
        settings(&large),
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::FileTooLarge
    ));
}

#[test]
fn the_file_is_found_upwards_and_says_the_root() {
    let top = directory("root = \"src\"");
    let inner = top.path().join("src/deep");
    fs::create_dir_all(&inner).unwrap();
    let project = Project::find(&inner, None).unwrap();
    assert_eq!(project.file, Some(top.path().join(FILE_NAME)));
    assert_eq!(project.root, top.path().join("src").canonicalize().unwrap());
}

#[test]
fn a_root_given_by_hand_wins_and_may_have_a_file_of_its_own() {
    let outside = tempfile::tempdir().unwrap();
    let top = directory("app = \"shop\"\nroot = \"src\"");
    let root = top.path().join("lib");
    fs::create_dir(&root).unwrap();
    for from in [outside.path(), top.path()] {
        let project = Project::find(from, Some(&root)).unwrap();
        assert_eq!(project.root, root.canonicalize().unwrap());
        assert_eq!(project.settings.app, Some("shop".parse().unwrap()));
    }
    let relative = Project::find(top.path(), Some(Path::new("lib"))).unwrap();
    assert_eq!(relative.root, root.canonicalize().unwrap());
}

#[test]
fn without_a_file_the_root_is_the_directory() {
    let outside = tempfile::tempdir().unwrap();
    let project = Project::find(outside.path(), None).unwrap();
    assert_eq!(project.root, outside.path().canonicalize().unwrap());
    assert_eq!(project.file, None);
}

#[test]
fn a_root_that_is_no_directory_is_refused() {
    let top = directory("");
    for root in ["missing", FILE_NAME] {
        assert!(matches!(
            Project::find(top.path(), Some(Path::new(root))),
            Err(ConfigError::Root { path, .. }) if path == top.path().join(root)
        ));
    }
}

#[test]
fn a_link_has_to_agree_with_the_file() {
    let both = project("app = \"shop\"\ndeployment = \"dev\"");
    both.check_link(&link("shop", "dev")).unwrap();
    let error = both.check_link(&link("shop", "prod")).unwrap_err();
    assert!(error.to_string().contains("deployment “prod”"), "{error}");
    let error = both.check_link(&link("blog", "dev")).unwrap_err();
    assert!(error.to_string().contains("app = \"shop\""), "{error}");
    project("").check_link(&link("any", "at-all")).unwrap();
}

#[test]
fn the_developers_variables_are_filled_in() {
    let project = project(
        "ready_timeout = \"1500ms\"\n[env]\nA = \"x-${USER}-y\"\nB = \"$HOME ${\"\nC = \"$${USER}\"",
    );
    let options = project
        .app_options(|name| (name == "USER").then(|| "ana".to_owned()))
        .unwrap();
    assert_eq!(
        options.environment.iter().collect::<Vec<_>>(),
        [("A", "x-ana-y"), ("B", "$HOME ${"), ("C", "${USER}")]
    );
    assert_eq!(options.ready_timeout_ms, Some(1500));

    let error = project.app_options(|_| None).unwrap_err();
    assert!(matches!(
        &error,
        ConfigError::Variable { name, wanted, .. } if name == "A" && wanted == "USER"
    ));
    assert!(error.to_string().contains("${USER}"), "{error}");
}

#[test]
fn a_variable_that_can_not_be_one_is_refused() {
    assert!(matches!(
        project("[env]\n\"A=B\" = \"\"").app_options(|_| None),
        Err(ConfigError::Environment { .. })
    ));
}

#[test]
fn a_file_of_the_replaced_system_says_app_deployment_and_root() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().canonicalize().unwrap();
    fs::create_dir_all(directory.join("src/deep")).unwrap();
    let file = directory.join(bifrost::FILE_NAME);
    fs::write(
        &file,
        r#"{"app_id": "My App", "deployment_id": "dev-john", "app_root": "src"}"#,
    )
    .unwrap();

    let found = Project::find(&directory.join("src/deep"), None).unwrap();
    assert_eq!(found.root, directory.join("src"));
    assert_eq!(found.file.as_deref(), Some(&*file));
    found.check_link(&link("my-app", "dev-john")).unwrap();
    let other = found.check_link(&link("my-app", "prod")).unwrap_err();
    assert!(other.to_string().contains(bifrost::FILE_NAME), "{other}");

    let given = Project::find(&directory, Some(Path::new("src/deep"))).unwrap();
    assert_eq!(given.root, directory.join("src/deep"));

    fs::write(&file, r#"{"app_id": "My App"}"#).unwrap();
    let beside = Project::find(&directory, None).unwrap();
    assert_eq!(beside.root, directory);
    assert_eq!(beside.settings.deployment, None);
}

#[test]
fn our_own_file_goes_before_that_of_the_replaced_system() {
    let outer = directory("app = \"shop\"");
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).unwrap();
    // Also where it lies further up.
    fs::write(inner.join(bifrost::FILE_NAME), r#"{"app_id": "other"}"#).unwrap();
    let found = Project::find(&inner, None).unwrap();
    assert_eq!(found.settings.app, Some("shop".parse().unwrap()));
}

#[test]
fn a_file_of_the_replaced_system_that_says_nothing_usable_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    for text in [r#"{"app_id": "…"}"#, r#"{"app_id": 1}"#, "{", ""] {
        fs::write(directory.path().join(bifrost::FILE_NAME), text).unwrap();
        let found = Project::find(directory.path(), None);
        assert!(matches!(found, Err(ConfigError::Invalid { .. })), "{text}");
    }
}
