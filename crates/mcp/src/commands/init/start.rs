//! The command that starts the app, guessed from what lies in its directory.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::Deserialize;

/// The most that is read of a file, in bytes: what is longer was not written by hand.
const MAX_LEN: u64 = 1 << 20;

/// Guesses the command. `None` if nothing suggests one.
pub(super) fn guess(root: &Path) -> Option<String> {
    let text = |name: &str| read(&root.join(name)).ok();
    let has = |name: &str| root.join(name).is_file();
    let guesses = [
        text("Procfile").and_then(|procfile| web_of(&procfile)),
        text("package.json")
            .filter(|package| has_start_script(package))
            .map(|_| "npm start".to_owned()),
        // By itself it would restart at every file that changes, on top of the agent.
        has("manage.py").then(|| "python3 manage.py runserver --noreload".to_owned()),
        has("config.ru").then(|| "rackup".to_owned()),
        python(root, "app"),
        python(root, "main"),
    ];
    let scripts = [
        ("server.js", "node server.js"),
        ("index.js", "node index.js"),
        ("app.rb", "ruby app.rb"),
    ];
    let scripts = scripts.map(|(name, command)| has(name).then(|| command.to_owned()));
    let shown = |command: &String| !command.chars().any(char::is_control);
    guesses.into_iter().chain(scripts).flatten().find(shown)
}

/// Writes the command as the last words of another one, for a shell to read.
pub(super) fn behind_dashes(command: &str) -> String {
    // What only a shell can run needs one of its own: the other command's would cut the line there.
    let operators = command.contains(['&', '|', ';', '<', '>', '(', ')', '`', '#']);
    let first_word = command.split_whitespace().next().unwrap_or_default();
    match operators || first_word.contains('=') {
        true => format!("sh -c {}", quoted(command)),
        false => command.to_owned(),
    }
}

/// Writes a text as one word for a shell to read.
pub(super) fn quoted(text: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "-_./:,%+@".contains(char);
    match text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// The process that a Procfile calls `web`.
fn web_of(procfile: &str) -> Option<String> {
    let web = procfile.lines().find_map(|line| line.strip_prefix("web:"));
    let web = web?.trim();
    (!web.is_empty()).then(|| web.to_owned())
}

fn has_start_script(package: &str) -> bool {
    #[derive(Deserialize)]
    struct Package {
        scripts: Scripts,
    }
    #[derive(Deserialize)]
    struct Scripts {
        start: String,
    }
    serde_json::from_str::<Package>(package).is_ok_and(|package| !package.scripts.start.is_empty())
}

/// A Python file, or what serves the application in it.
fn python(root: &Path, module: &str) -> Option<String> {
    let text = read(&root.join(format!("{module}.py"))).ok()?;
    let serves_itself = text.contains("__main__") || text.contains("uvicorn.run");
    Some(match text.contains("FastAPI(") && !serves_itself {
        true => format!("uvicorn {module}:app"),
        false => format!("python3 {module}.py"),
    })
}

fn read(path: &Path) -> io::Result<String> {
    if !path.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut text = String::new();
    File::open(path)?.take(MAX_LEN).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_command_is_what_the_files_suggest() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let guessed = || guess(dir.path());
        assert_eq!(guessed(), None);
        // Each goes before those above it.
        for (name, text, command) in [
            ("index.js", "", "node index.js"),
            ("main.py", "app = FastAPI()", "uvicorn main:app"),
            ("main.py", "print()", "python3 main.py"),
            ("app.py", "if __name__ == '__main__'", "python3 app.py"),
            ("config.ru", "", "rackup"),
            ("manage.py", "", "python3 manage.py runserver --noreload"),
            (
                "package.json",
                r#"{"scripts": {"start": "node ."}}"#,
                "npm start",
            ),
            (
                "Procfile",
                "worker: x\nweb: gunicorn a:b --bind :$PORT\r\n",
                "gunicorn a:b --bind :$PORT",
            ),
        ] {
            write(name, text);
            assert_eq!(guessed().as_deref(), Some(command), "{name}");
        }
    }

    #[test]
    fn what_makes_no_sense_suggests_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).unwrap();
        write("Procfile", b"web:\n");
        write("package.json", br#"{"scripts": {"test": "x"}}"#);
        write("app.py", b"\xff");
        fs::create_dir(dir.path().join("config.ru")).unwrap();
        assert_eq!(guess(dir.path()), None);
        write("Procfile", b"web: \x1b[2Jevil");
        assert_eq!(guess(dir.path()), None);
    }

    #[test]
    fn what_needs_a_shell_gets_one() {
        assert_eq!(
            behind_dashes("python3 app.py $PORT"),
            "python3 app.py $PORT"
        );
        assert_eq!(behind_dashes("PORT=1 serve"), "sh -c 'PORT=1 serve'");
        assert_eq!(
            behind_dashes("cd x && echo 'y'"),
            r"sh -c 'cd x && echo '\''y'\'''"
        );
    }
}
