//! `patchwire.toml`: which app and deployment a directory belongs to, and how it is pushed.
//!
//! ```toml
//! app = "shop"
//! deployment = "dev-ana"
//! root = "."                     # relative to this file
//! include = ["dist/app.css"]     # ignored files to send all the same
//! ignore = ["*.sqlite3"]         # on top of the ignore files
//! symlinks = "inside"            # or "any": links may leave the root
//! modes = "all"                  # or "executable": of permissions only who may execute
//! reload = "restart"             # restart, signal:NAME, command:TEXT, none
//! ready = "http://127.0.0.1:8000/health"
//! ready_timeout = "30s"
//!
//! [watch]
//! quiet_time = "30ms"            # pushed once nothing was saved for this long
//! max_wait = "2s"                # and after this long in any case
//!
//! [env]                          # into the app's environment
//! DATABASE_URL = "${DATABASE_URL}"
//! ```
//!
//! A key that isn't one of these is an error: a typing mistake must not turn into a default.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::File,
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use etcetera::{BaseStrategy, HomeDirError, base_strategy::Xdg};
use patchwire_protocol::{
    app::{ReadyCheck, Reload},
    limits,
    message::push::{AppOptions, Environment, EnvironmentError},
    name::Name,
};
use patchwire_transport::DeploymentLink;
use patchwire_tree::{ModePolicy, ScanOptions, SymlinkPolicy};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

pub mod bifrost;
mod mistake;
pub mod schema;

/// The name of the configuration file.
pub const FILE_NAME: &str = "patchwire.toml";

/// The largest configuration file, in bytes.
pub const MAX_LEN: u64 = 1 << 20;

/// A directory to push, and what is configured for it.
#[derive(Clone, Debug)]
pub struct Project {
    /// The directory, absolute and without links on the way to it.
    pub root: PathBuf,
    /// The file that says so, `patchwire.toml` or `.bifrost.json`, if there is one.
    pub file: Option<PathBuf>,
    /// What it says.
    pub settings: Settings,
}

/// The keys of `patchwire.toml`. What isn't given there is `None`, empty or the default.
///
/// The descriptions of the fields are those of the file's [schema](schema::schema).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The app's name; a link has to agree with it.
    #[serde(default, deserialize_with = "parsed")]
    #[schemars(schema_with = "schema::name")]
    pub app: Option<Name>,
    /// The deployment's name; a link has to agree with it.
    #[serde(default, deserialize_with = "parsed")]
    #[schemars(schema_with = "schema::name")]
    pub deployment: Option<Name>,
    /// The directory to push, relative to the file.
    #[serde(default)]
    #[schemars(with = "String", extend("default" = "."))]
    pub root: Option<PathBuf>,
    /// Patterns of ignored files to send all the same, as in .gitignore.
    #[serde(default)]
    #[schemars(example = ["dist/app.css"])]
    pub include: Vec<String>,
    /// Patterns of files not to send, on top of the ignore files.
    #[serde(default)]
    #[schemars(example = ["*.sqlite3"])]
    pub ignore: Vec<String>,
    /// Where symbolic links may point: inside the root or anywhere.
    #[serde(default, deserialize_with = "symlinks")]
    #[schemars(schema_with = "schema::symlinks")]
    pub symlinks: SymlinkPolicy,
    /// What is pushed of permissions: all bits, or whether the owner may execute a file (0755, 0644;
    /// directories are 0755).
    #[serde(default, deserialize_with = "modes")]
    #[schemars(schema_with = "schema::modes")]
    pub modes: ModePolicy,
    /// How the app takes up a push: restart, signal:NAME, command:TEXT or none. The agent's own
    /// flag goes before it.
    #[serde(default, deserialize_with = "parsed")]
    #[schemars(schema_with = "schema::reload")]
    pub reload: Option<Reload>,
    /// When the app counts as ready: http://HOST:PORT/PATH (any 2xx), tcp:PORT, command:TEXT,
    /// alive:DURATION or auto, seen from the app's machine. The agent's own flag goes before it.
    #[serde(default, deserialize_with = "parsed")]
    #[schemars(schema_with = "schema::ready")]
    pub ready: Option<ReadyCheck>,
    /// How long the app may take to be ready, at most 10m.
    #[serde(default, deserialize_with = "ready_timeout")]
    #[schemars(schema_with = "schema::duration", extend("default" = "30s", "examples" = ["30s", "2m"]))]
    pub ready_timeout: Option<Duration>,
    /// Variables for the app, where `${NAME}` stands for one of the developer's own.
    #[serde(default)]
    #[schemars(extend("examples" = [{"DATABASE_URL": "${DATABASE_URL}"}]))]
    pub env: BTreeMap<String, String>,
    /// When saved files are pushed.
    #[serde(default)]
    pub watch: WatchSettings,
}

/// When saved files are pushed, as far as the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchSettings {
    /// A push begins once nothing was saved for this long.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(schema_with = "schema::duration", extend("default" = "30ms"))]
    pub quiet_time: Option<Duration>,
    /// A save waits at most this long while others go on.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(schema_with = "schema::duration", extend("default" = "2s"))]
    pub max_wait: Option<Duration>,
}

/// Why there is no configuration to work with. Never holds a value of the `env` table.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The directory to push is none.
    #[error("“{}” can't be pushed: name the app's directory as root: with `--root`, in a tool's call, or in patchwire.toml", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A configuration file can't be read.
    #[error("can't read “{}”", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A configuration file says what it can't.
    #[error("“{}”, line {line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A variable of the developer's environment is wanted and not there.
    #[error(
        "“{}” wants ${{{wanted}}} for the app's {name}, and it is not set (links are never \
         passed on): set {wanted} in this environment, or write the value into the file",
        path.display()
    )]
    Variable {
        /// The file.
        path: PathBuf,
        /// The app's variable.
        name: String,
        /// The developer's variable.
        wanted: String,
    },
    /// The `env` table is no environment.
    #[error("the env table of “{}” can't be used", path.display())]
    Environment {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: EnvironmentError,
    },
    /// A link is for another app or deployment than the file.
    #[error(
        "the link is for {what} “{link}”, but “{}” says {what} = \"{configured}\": use the link of \
         that {what}, or change the file",
        path.display()
    )]
    OtherLink {
        /// The file.
        path: PathBuf,
        /// `app` or `deployment`.
        what: &'static str,
        /// The link's.
        link: Name,
        /// The file's.
        configured: Name,
    },
    /// The user has no home directory.
    #[error("there is no home directory to keep links in: set HOME")]
    Home(#[from] HomeDirError),
}

impl Project {
    /// Finds the project that a command run in `directory` is about.
    ///
    /// The file is the first `patchwire.toml` in `directory` or above it, and where there is none,
    /// the first [`.bifrost.json`](bifrost). A root given by hand (which is relative to
    /// `directory`) wins over the file's, and may have its own file where none is found from
    /// `directory`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the file or the root can't be used.
    pub fn find(directory: &Path, root: Option<&Path>) -> Result<Self, ConfigError> {
        let given = root.map(|root| directory.join(root));
        let above = |name: &str| {
            let starts = [Some(directory), given.as_deref()];
            let found = |start| file_above(start, name);
            starts.into_iter().flatten().find_map(found)
        };
        let (file, settings) = if let Some(file) = above(FILE_NAME) {
            let settings = Settings::read(&file)?;
            (Some(file), settings)
        } else if let Some(file) = above(bifrost::FILE_NAME) {
            let settings = bifrost::settings(&file)?;
            (Some(file), settings)
        } else {
            (None, Settings::default())
        };
        let root = given.unwrap_or_else(|| match file.as_deref().and_then(Path::parent) {
            Some(beside) => beside.join(settings.root.as_deref().unwrap_or(Path::new(""))),
            None => directory.to_owned(),
        });
        Ok(Self {
            root: canonical_directory(&root)?,
            file,
            settings,
        })
    }

    /// Checks that a link is for the app and deployment that the file names.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OtherLink`] if it is for another.
    pub fn check_link(&self, link: &DeploymentLink) -> Result<(), ConfigError> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        for (what, link, configured) in [
            ("app", link.app(), &self.settings.app),
            ("deployment", link.deployment(), &self.settings.deployment),
        ] {
            if let Some(configured) = configured
                && configured != link
            {
                return Err(ConfigError::OtherLink {
                    path: path.clone(),
                    what,
                    link: link.clone(),
                    configured: configured.clone(),
                });
            }
        }
        Ok(())
    }

    /// What of the root is to be pushed.
    #[must_use]
    pub fn scan_options(&self) -> ScanOptions {
        ScanOptions {
            include: self.settings.include.clone(),
            ignore: self.settings.ignore.clone(),
            symlinks: self.settings.symlinks,
            modes: self.settings.modes,
            ..ScanOptions::default()
        }
    }

    /// How the app is to be run, with the developer's variables (which `variable` looks up) filled
    /// in.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a variable is not set, or the variables can't be an environment.
    pub fn app_options(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<AppOptions, ConfigError> {
        let path = || self.file.clone().unwrap_or_else(|| FILE_NAME.into());
        // The app is not to have what lets one push to it.
        let variable = |name: &str| match name.starts_with("PATCHWIRE_LINK") {
            true => None,
            false => variable(name),
        };
        let filled = |(name, value): (&String, &String)| match fill(value, variable) {
            Ok(value) => Ok((name.clone(), value)),
            Err(wanted) => Err(ConfigError::Variable {
                path: path(),
                name: name.clone(),
                wanted,
            }),
        };
        let variables = self.settings.env.iter().map(filled);
        let environment =
            Environment::new(variables.collect::<Result<_, _>>()?).map_err(|source| {
                ConfigError::Environment {
                    path: path(),
                    source,
                }
            })?;
        let milliseconds =
            |timeout: Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        Ok(AppOptions {
            reload: self.settings.reload.clone(),
            ready: self.settings.ready.clone(),
            ready_timeout_ms: self.settings.ready_timeout.map(milliseconds),
            environment,
        })
    }
}

impl Settings {
    /// Writes a configuration file's text, with the other keys as comments. A root is relative to
    /// the file, or absolute.
    #[must_use]
    pub fn template(app: &Name, deployment: &Name, root: Option<&str>) -> String {
        let root = match root {
            // A value of a TOML document quotes and escapes itself.
            Some(root) => format!("root = {}", toml::Value::from(root)),
            None => "# root = \".\"                     # relative to this file".to_owned(),
        };
        let schema = schema::URL;
        format!(
            "\
#:schema {schema}
app = \"{app}\"
deployment = \"{deployment}\"
{root}
# include = [\"dist/app.css\"]     # ignored files to send all the same
# ignore = [\"*.sqlite3\"]         # on top of the ignore files
# reload = \"restart\"             # or signal:NAME, command:TEXT, none
# ready = \"http://127.0.0.1:8000/health\"   # or tcp:PORT, command:TEXT, alive:DURATION, auto
# ready_timeout = \"30s\"

# [watch]
# quiet_time = \"30ms\"           # pushed once nothing was saved for this long
# max_wait = \"2s\"               # and after this long in any case

# [env]                          # into the app's environment
# DATABASE_URL = \"${{DATABASE_URL}}\"
"
        )
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which names the file and the line.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read_bounded(path)?;
        toml::from_str(&text).map_err(|error| ConfigError::Invalid {
            path: path.to_owned(),
            line: line_of(&text, error.span()),
            message: mistake::explained(error.message()),
        })
    }
}

/// Where the user's own things are kept, by the XDG base directory specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// Configuration: the links.
    pub config: PathBuf,
    /// State: what is remembered between pushes.
    pub state: PathBuf,
}

impl Directories {
    /// Finds them, from `HOME` and the `XDG_` variables.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Home`] if the user has no home directory.
    pub fn of_user() -> Result<Self, ConfigError> {
        let xdg = Xdg::new()?;
        let state = xdg.state_dir().unwrap_or_else(|| xdg.data_dir());
        Ok(Self {
            config: xdg.config_dir().join("patchwire"),
            state: state.join("patchwire"),
        })
    }
}

/// A directory's path as the system knows it: links are recorded by it.
///
/// # Errors
///
/// [`ConfigError::Root`] if it isn't there or no directory.
pub fn canonical_directory(path: &Path) -> Result<PathBuf, ConfigError> {
    let directory = |path: PathBuf| match path.metadata()?.is_dir() {
        true => Ok(path),
        false => Err(io::ErrorKind::NotADirectory.into()),
    };
    path.canonicalize()
        .and_then(directory)
        .map_err(|source| ConfigError::Root {
            path: path.to_owned(),
            source,
        })
}

fn file_above(directory: &Path, name: &str) -> Option<PathBuf> {
    // Above is meant as the shell shows it unless the path is relative, which has no parents.
    let directory = std::path::absolute(directory).ok()?;
    directory
        .ancestors()
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

fn read_bounded(path: &Path) -> Result<String, ConfigError> {
    let read = || {
        let mut text = String::new();
        File::open(path)?
            .take(MAX_LEN + 1)
            .read_to_string(&mut text)?;
        match text.len() as u64 > MAX_LEN {
            true => Err(io::ErrorKind::FileTooLarge.into()),
            false => Ok(text),
        }
    };
    read().map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let before = text.get(..span.map_or(0, |span| span.start));
    before.map_or(1, |before| before.matches('\n').count() + 1)
}

/// Puts variables in the place of their `${NAME}`; `$${` stands for `${`. An error is the name of
/// the variable that isn't set.
fn fill(value: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = value;
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            filled.extend([before, "${"]);
            rest = after;
            continue;
        }
        let Some(end) = after.find('}') else {
            break;
        };
        let name = &after[..end];
        filled.push_str(before);
        filled.push_str(&variable(name).ok_or_else(|| name.to_owned())?);
        rest = &after[end + 1..];
    }
    filled.push_str(rest);
    Ok(filled)
}

fn parsed<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(D::Error::custom)
}

fn symlinks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SymlinkPolicy, D::Error> {
    match &*String::deserialize(deserializer)? {
        "inside" => Ok(SymlinkPolicy::Inside),
        "any" => Ok(SymlinkPolicy::Any),
        other => Err(D::Error::unknown_variant(other, &["inside", "any"])),
    }
}

fn modes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ModePolicy, D::Error> {
    match &*String::deserialize(deserializer)? {
        "all" => Ok(ModePolicy::All),
        "executable" => Ok(ModePolicy::Executable),
        other => Err(D::Error::unknown_variant(other, &["all", "executable"])),
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = humantime::parse_duration(&text).map(Some);
    parsed.map_err(|error| {
        D::Error::custom(format_args!(
            "“{}” is not a duration like 30ms or 2s: {error}",
            text.escape_debug()
        ))
    })
}

fn ready_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .ok()
        .filter(|timeout| *timeout <= limits::READY_TIMEOUT)
        .map(Some)
        .ok_or_else(|| {
            D::Error::custom(format_args!(
                "“{}” is not a time to get ready in: a duration like 30s or 2m, at most {}",
                text.escape_debug(),
                humantime::format_duration(limits::READY_TIMEOUT)
            ))
        })
}

#[cfg(test)]
mod tests;
