//! Why a command did not do what it was asked to: for a person, a program and a shell.

use anyhow::Error;
use patchwire_client::{ClientError, config::ConfigError, links::LinksError};
use patchwire_transport::{LinkError, LinkSourceError, NoRandomness};

/// A failure of a command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit status.
    pub(crate) exit_code: u8,
    /// What programs know it by: words joined by `-`.
    pub(crate) code: &'static str,
    error: Error,
}

impl Failure {
    /// What was asked for can't be meant.
    pub(crate) fn usage(error: impl Into<Error>) -> Self {
        Self::new(2, "usage", error)
    }

    /// The command itself did not succeed, for a reason on this machine.
    pub(crate) fn failed(code: &'static str, error: impl Into<Error>) -> Self {
        Self::new(1, code, error)
    }

    pub(crate) fn new(exit_code: u8, code: &'static str, error: impl Into<Error>) -> Self {
        Self {
            exit_code,
            code,
            error: error.into(),
        }
    }

    /// What went wrong, with its causes, in one text.
    pub(crate) fn message(&self) -> String {
        format!("{:#}", self.error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::new(error.exit_code(), error.code(), error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(2, "config", error)
    }
}

impl From<LinksError> for Failure {
    fn from(error: LinksError) -> Self {
        let code = match error {
            LinksError::None { .. } => "no-link",
            LinksError::Config(_) => "config",
            LinksError::Source(_)
            | LinksError::Link(_)
            | LinksError::Open { .. }
            | LinksError::Io { .. } => "link",
        };
        Self::new(2, code, error)
    }
}

impl From<LinkSourceError> for Failure {
    fn from(error: LinkSourceError) -> Self {
        Self::new(2, "link", error)
    }
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Self {
        Self::new(2, "link", error)
    }
}

impl From<NoRandomness> for Failure {
    fn from(error: NoRandomness) -> Self {
        Self::failed("randomness", error)
    }
}
