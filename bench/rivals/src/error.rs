//! What can stop a row, or the whole comparison.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An engine reported an error.
    #[error("engine: {0}")]
    Engine(String),
    /// An engine answered, and the answer was wrong.
    #[error("wrong answer: {0}")]
    Wrong(String),
    /// A file or directory of ours.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A process of ours did not do its part.
    #[error("child process: {0}")]
    Child(String),
    /// What was asked for does not exist, or cannot be done here.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// For `map_err` of files.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }

    /// 2 for what can be fixed on the command line, 1 for everything else: as `nsbench` itself.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Engine(_) | Self::Wrong(_) | Self::File { .. } | Self::Child(_) => 1,
        }
    }
}

/// For `map_err` of any engine's error.
pub(crate) fn engine(error: impl Display) -> Error {
    Error::Engine(error.to_string())
}

/// The comparison's results.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;
