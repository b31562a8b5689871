//! What went wrong, in the words of an answer.

use std::error::Error;

use patchwire_protocol::{
    message::push::{Failure, FailureCode},
    operation::stream::StreamError,
};
use patchwire_tree::{CommitError, StageError};

use crate::deployment::StagingError;

/// Why a push could not be staged.
pub(crate) fn of_staging(error: &StagingError) -> Failure {
    let code = match error {
        StagingError::Operations(error) => match error {
            StreamError::LinkLeavesRoot { .. } => FailureCode::LinkLeavesRoot,
            StreamError::Io(_)
            | StreamError::Malformed(_)
            | StreamError::TooLarge { .. }
            | StreamError::NoBasis { .. } => FailureCode::Invalid,
        },
        StagingError::Stage(error) => match error {
            StageError::Local(_) | StageError::Store(_) => FailureCode::Io,
            StageError::Basis { .. } | StageError::NotKept { .. } => FailureCode::Unsettled,
            StageError::Operations(_)
            | StageError::Target { .. }
            | StageError::Stream { .. }
            | StageError::Content { .. }
            | StageError::Trailing => FailureCode::Invalid,
        },
    };
    Failure::new(code, chain(error))
}

/// Why a tree could not be put in place or brought back.
pub(crate) fn of_commit(error: &CommitError) -> Failure {
    let code = match error {
        CommitError::Stale | CommitError::Basis { .. } => FailureCode::Unsettled,
        CommitError::Undone(_)
        | CommitError::HalfMade { .. }
        | CommitError::NothingToRollBack
        | CommitError::Store(_) => FailureCode::Io,
    };
    Failure::new(code, chain(error))
}

/// An error and what it comes from, as one sentence.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
