//! Where a link comes from: `--link` and `--relay` take one, the file of one, or `-`.

use std::{
    convert::Infallible,
    env, fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
};

use zeroize::Zeroizing;

use super::LinkError;

/// The most bytes read for a link; the longest is under 700.
const MAX: u64 = 4096;

/// A link, `@FILE`, or `-` for standard input.
#[derive(Clone, PartialEq, Eq)]
pub enum LinkSource {
    /// The link itself.
    Text(Zeroizing<String>),
    /// The file that holds it.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

/// Why there is no link to be had from where it should be.
#[derive(Debug, thiserror::Error)]
pub enum LinkSourceError {
    /// The file can't be read.
    #[error("cannot read the link in “{}”", without_secret(path))]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Standard input can't be read.
    #[error("cannot read the link from standard input")]
    Stdin(#[source] io::Error),
    /// What the file holds is not the link that is needed.
    #[error("“{}” does not hold the link that is needed", without_secret(path))]
    FileLink {
        /// The file.
        path: PathBuf,
        /// What it is not.
        source: LinkError,
    },
    /// What standard input holds is not the link that is needed.
    #[error("standard input does not hold the link that is needed")]
    StdinLink(#[source] LinkError),
    /// The text itself is not the link that is needed.
    #[error(transparent)]
    Text(LinkError),
}

impl LinkSource {
    /// Tells whether this is no link at all, as when an environment passes on a variable that is not
    /// set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.trim().is_empty())
    }

    /// Reads and parses the link, as a [`RelayLink`](super::RelayLink) or a
    /// [`DeploymentLink`](super::DeploymentLink). White space around it does not count.
    ///
    /// # Errors
    ///
    /// [`LinkSourceError`], which names the file and never holds the link.
    pub fn read<L: FromStr<Err = LinkError>>(&self) -> Result<L, LinkSourceError> {
        match self {
            Self::Text(text) => text.trim().parse().map_err(LinkSourceError::Text),
            Self::File(path) => File::open(path)
                .and_then(bounded)
                .map_err(|source| LinkSourceError::File {
                    path: path.clone(),
                    source,
                })?
                .trim()
                .parse()
                .map_err(|source| LinkSourceError::FileLink {
                    path: path.clone(),
                    source,
                }),
            Self::Stdin => bounded(io::stdin())
                .map_err(LinkSourceError::Stdin)?
                .trim()
                .parse()
                .map_err(LinkSourceError::StdinLink),
        }
    }
}

impl FromStr for LinkSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix('@') {
            // Behind the `@` no shell has put the home in its place.
            Some(path) => Self::File(match (path.strip_prefix("~/"), env::home_dir()) {
                (Some(below), Some(home)) => home.join(below),
                _ => path.into(),
            }),
            None if text == "-" => Self::Stdin,
            None => Self::Text(Zeroizing::new(text.to_owned())),
        })
    }
}

impl fmt::Debug for LinkSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("LinkSource(…)"),
            Self::File(path) => write!(f, "LinkSource(@{})", without_secret(path)),
            Self::Stdin => f.write_str("LinkSource(-)"),
        }
    }
}

/// A path to show. Where a link was given for the file that should hold it, what follows `#` in that
/// is left out.
fn without_secret(path: &Path) -> String {
    let path = path.display().to_string();
    match path.split_once("#v1") {
        Some((before, _)) => format!("{before}#…"),
        None => path,
    }
}

fn bounded(from: impl Read) -> io::Result<Zeroizing<String>> {
    // All the room at once: growing would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096 + 1));
    from.take(MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("over {MAX} bytes, which no link has"),
        ));
    }
    match str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Pin, RelayKey, RelayLink};

    #[test]
    fn a_link_is_read_from_where_it_stands() {
        let link = RelayLink::new(
            "h:1".parse().unwrap(),
            Pin::new([1; 32]),
            RelayKey::new([2; 32]),
        );
        let text = link.expose();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link");
        fs::write(&path, format!("{}\n", *text)).unwrap();

        let file = format!("@{}", path.display());
        for source in [text.as_str(), &file] {
            let source: LinkSource = source.parse().unwrap();
            assert_eq!(*source.read::<RelayLink>().unwrap().expose(), *text);
            assert!(!format!("{source:?}").contains("AgIC"));
        }
        assert_eq!("-".parse(), Ok(LinkSource::Stdin));
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link");
        let source = LinkSource::File(path.clone());
        let read = || source.read::<RelayLink>().unwrap_err();
        assert!(matches!(read(), LinkSourceError::File { path: at, .. } if at == path));
        fs::write(&path, "x").unwrap();
        assert!(matches!(
            read(),
            LinkSourceError::FileLink { path: at, source: LinkError::NotALink } if at == path
        ));
        fs::write(&path, "x".repeat(5000)).unwrap();
        assert!(read().to_string().contains(path.to_str().unwrap()));
    }

    #[test]
    fn an_empty_text_is_no_link() {
        let source = |text: &str| text.parse::<LinkSource>().unwrap();
        assert!(source("").is_empty() && source(" \n").is_empty());
        assert!(!source("-").is_empty() && !source("@").is_empty());
    }

    #[test]
    fn a_link_in_the_place_of_its_file_is_not_repeated() {
        let source: LinkSource = "@patchwire://h:1/a/b#v1.pin.key.secret.sum"
            .parse()
            .unwrap();
        let error = source.read::<RelayLink>().unwrap_err();
        for said in [error.to_string(), format!("{source:?}")] {
            assert!(said.contains("patchwire://h:1/a/b#…"), "{said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
