//! What to do next where the delta engine refuses a file.

use std::path::Path;

use anyhow::{Error, anyhow};
use patchwire_delta::{
    DecodeError, PatchError, ReadError, SignatureError, librsync::LibrsyncError,
};

/// The basis has no signature.
pub(super) fn on_signature(error: SignatureError) -> Error {
    match error {
        SignatureError::TooManyBlocks { .. } => anyhow!("{error}: give a larger --block-size"),
        SignatureError::Read { .. } => error.into(),
    }
}

/// A file can't be read as a signature or a delta.
pub(super) fn on_reading(error: ReadError, path: &Path, what: &str) -> Error {
    match error {
        ReadError::Malformed(error) => on_decoding(&error, path, what),
        ReadError::Io(error) => {
            Error::new(error).context(format!("can't read “{}”", path.display()))
        }
    }
}

/// A file is not one signature or delta, as it should be.
pub(super) fn on_decoding(error: &DecodeError, path: &Path, what: &str) -> Error {
    let path = path.display();
    match error {
        DecodeError::WrongMagic { found, .. } => match found {
            [b'r', b's', _] => anyhow!("“{path}” is of rdiff: give --format librsync"),
            b"PWS" => anyhow!("“{path}” is a signature and not {what}"),
            b"PWD" => anyhow!("“{path}” is a delta and not {what}"),
            _ => anyhow!("“{path}” is not {what}"),
        },
        DecodeError::UnknownVersion { .. } => {
            anyhow!("“{path}” is of another version of patchwire ({error}): make it again")
        }
        _ => damaged(&path, error),
    }
}

fn damaged(path: &impl std::fmt::Display, error: &impl std::error::Error) -> Error {
    anyhow!("“{path}” is damaged or not whole ({error}): fetch it again")
}

/// A basis and a delta make no target.
pub(super) fn on_patch(error: PatchError, basis: &Path, delta: &Path) -> Error {
    let (basis, path) = (basis.display(), delta.display());
    match error {
        PatchError::Malformed(error) => on_decoding(&error, delta, "a delta"),
        PatchError::WrongBasis => anyhow!(
            "“{path}” is not for “{basis}” as it is now: make a new signature of that, and a new delta"
        ),
        PatchError::Mismatch { expected, actual } => anyhow!(
            "“{path}” is damaged, or two blocks of “{basis}” had one hash (the digest is {actual} \
             instead of {expected}): fetch it again, or make a new signature and a new delta"
        ),
        PatchError::CopyOutside { .. } => damaged(&path, &error),
        PatchError::ReadDelta(error) => Error::new(error).context(format!("can't read “{path}”")),
        PatchError::ReadBasis { source, .. } => {
            Error::new(source).context(format!("can't read “{basis}”"))
        }
        PatchError::WriteTarget { .. }
        | PatchError::TooLong { .. }
        | PatchError::OutOfMemory { .. } => error.into(),
    }
}

/// A signature, or a delta for a basis, can't be used in the format of librsync.
pub(super) fn on_librsync(error: LibrsyncError, basis: Option<&Path>, path: &Path) -> Error {
    let path = path.display();
    match (error, basis) {
        (LibrsyncError::WrongMagic { magic }, _) => match (magic.to_be_bytes(), basis) {
            ([b'P', b'W', ..], _) => {
                anyhow!("“{path}” is of patchwire's own format: leave --format librsync away")
            }
            ([b'r', b's', 2, _], None) => anyhow!("“{path}” is a delta and not a signature"),
            ([b'r', b's', 1, _], Some(_)) => anyhow!("“{path}” is a signature and not a delta"),
            _ => anyhow!("“{path}” is not of rdiff ({error})"),
        },
        (LibrsyncError::CopyOutside { .. }, Some(basis)) => anyhow!(
            "“{path}” is not for “{}” as it is now: make a new signature of that, and a new delta",
            basis.display()
        ),
        (
            LibrsyncError::Truncated { .. }
            | LibrsyncError::Trailing { .. }
            | LibrsyncError::UnknownOp { .. }
            | LibrsyncError::EmptyCopy,
            _,
        ) => damaged(&path, &error),
        (LibrsyncError::TooLong { .. }, _) => {
            anyhow!("{error}: use patchwire's own format for files as large as that")
        }
        (
            LibrsyncError::UnsupportedHash { .. }
            | LibrsyncError::BlockSize { .. }
            | LibrsyncError::StrongLen { .. }
            | LibrsyncError::CopyOutside { .. }
            | LibrsyncError::Engine,
            _,
        ) => Error::new(error).context(format!("can't use “{path}”")),
    }
}
