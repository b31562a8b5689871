//! `.bifrost.json`: the project file of the system that Patchwire replaces.
//!
//! ```json
//! {"app_id": "my-app", "deployment_id": "dev-john", "app_root": "absolute/or/relative/path"}
//! ```

use std::path::{Path, PathBuf};

use patchwire_protocol::name::Name;
use serde::Deserialize;

use super::{ConfigError, Settings, read_bounded};

/// The name of the file.
pub const FILE_NAME: &str = ".bifrost.json";

/// The variables of that system, none of which Patchwire reads, and what stands for them.
pub const VARIABLES: [(&str, &str); 3] = [
    ("BIFROST_API_KEY", "PATCHWIRE_LINK"),
    ("BIFROST_API_URL", "PATCHWIRE_LINK"),
    ("BIFROST_PUSH_ID", "PATCHWIRE_PUSH_ID"),
];

/// What the file says. Everything in it may be missing; other keys are left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Bifrost {
    /// The app, in whatever characters.
    pub app_id: Option<String>,
    /// The deployment, in whatever characters.
    pub deployment_id: Option<String>,
    /// The directory to push, absolute or relative to the file.
    pub app_root: Option<PathBuf>,
}

impl Bifrost {
    /// Reads the file in a directory, if there is one.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if it can't be read or is none.
    pub fn read(directory: &Path) -> Result<Option<Self>, ConfigError> {
        let path = directory.join(FILE_NAME);
        if !path.exists() {
            return Ok(None);
        }
        Self::read_file(&path).map(Some)
    }

    fn read_file(path: &Path) -> Result<Self, ConfigError> {
        let text = read_bounded(path)?;
        serde_json::from_str(&text).map_err(|error| ConfigError::Invalid {
            path: path.to_owned(),
            line: error.line(),
            message: error.to_string(),
        })
    }
}

/// What the file says, in the words of `patchwire.toml`.
pub(super) fn settings(path: &Path) -> Result<Settings, ConfigError> {
    let file = Bifrost::read_file(path)?;
    let name = |key: &str, text: Option<String>| -> Result<Option<Name>, ConfigError> {
        let Some(text) = text else {
            return Ok(None);
        };
        let name = name_like(&text).ok_or_else(|| ConfigError::Invalid {
            path: path.to_owned(),
            line: 1,
            message: format!("no name can be made of {key} “{}”", text.escape_debug()),
        })?;
        if name.as_str() != text {
            tracing::info!("{key} “{}” is “{name}” here", text.escape_debug());
        }
        Ok(Some(name))
    };
    Ok(Settings {
        app: name("app_id", file.app_id)?,
        deployment: name("deployment_id", file.deployment_id)?,
        root: file.app_root,
        ..Settings::default()
    })
}

/// Makes a name of a text: in lower case, with `-` for what names don't hold, cut to their length.
/// `None` if nothing is left.
#[must_use]
pub fn name_like(text: &str) -> Option<Name> {
    let plain = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit();
    let replaced: String = text
        .chars()
        .flat_map(char::to_lowercase)
        .map(|char| match char {
            '.' | '_' | '-' => char,
            char if plain(char) => char,
            _ => '-',
        })
        .skip_while(|char| !plain(*char))
        .take(Name::MAX)
        .collect();
    replaced.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_file_is_read_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Bifrost::read(dir.path()).unwrap(), None);
        let write = |text| fs::write(dir.path().join(FILE_NAME), text).unwrap();
        write(r#"{"app_id": "My App", "deployment_id": "dev-john", "app_root": "src", "x": 1}"#);
        let read = Bifrost::read(dir.path()).unwrap().unwrap();
        assert_eq!(read.app_id.as_deref(), Some("My App"));
        assert_eq!(read.deployment_id.as_deref(), Some("dev-john"));
        assert_eq!(read.app_root.as_deref(), Some(Path::new("src")));
        write("{}");
        assert_eq!(Bifrost::read(dir.path()).unwrap(), Some(Bifrost::default()));
        write("{\n\"app_id\": 1}");
        assert!(matches!(
            Bifrost::read(dir.path()),
            Err(ConfigError::Invalid { line: 2, .. })
        ));
    }

    #[test]
    fn any_text_with_a_letter_or_digit_makes_a_name() {
        let name = |text: &str| name_like(text).map(|name| name.to_string());
        for (text, expected) in [
            ("my-app", "my-app"),
            ("My App/ÄÖ", "my-app---"),
            ("__x", "x"),
            ("ÄA", "a"),
            ("v1.2_b", "v1.2_b"),
        ] {
            assert_eq!(name(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(name(&"x".repeat(80)), Some("x".repeat(63)));
        assert_eq!(name("…"), None);
        assert_eq!(name(""), None);
    }
}
