//! What can stop a run.

use std::path::PathBuf;

/// Why a row, or the whole run, could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The engine reported an error.
    #[error("engine: {0}")]
    Engine(#[from] crate::target::Error),
    /// The raw loops or the scratch directory failed.
    #[error("i/o: {0}")]
    Io(#[from] northstar_io::IoError),
    /// A file of the bench's own could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The engine answered, and the answer was wrong.
    #[error("wrong answer: {what}")]
    Wrong {
        /// What was asked and what came.
        what: String,
    },
    /// A profile that cannot be used.
    #[error("profile {name}: {why}")]
    Profile {
        /// Its name or path.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file that is no result.
    #[error("result {path}: {why}")]
    Result {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Results that say nothing about each other.
    #[error("these results cannot be compared: {0}")]
    Incomparable(String),
    /// No row has what was asked for.
    #[error("no row matches {0}; `nsbench list` names them all")]
    NoRow(String),
    /// A row that this machine cannot run: it lacks what the row measures.
    #[error("{0}")]
    Absent(String),
    /// What was asked for cannot be meant.
    #[error("{0}")]
    BadUse(String),
    /// No property has what was asked for.
    #[error("no property has {0:?} in its name")]
    NoProperty(String),
    /// Something grew that must not.
    #[error("drifted: {0}")]
    Drifted(String),
    /// No engine is called so.
    #[error("no engine is called {name}; there are {known}")]
    NoRival {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The comparison with other engines could not be built or run.
    #[error("versus: {0}")]
    Rivals(String),
    /// The comparison refused what it was asked, and said why.
    #[error("versus: nothing was run")]
    RivalsUse,
    /// A child process did not do its part.
    #[error("child process: {0}")]
    Child(String),
}

impl BenchError {
    /// For `map_err` of the bench's own files.
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }

    /// 2 for what the user can fix on the command line, 1 for everything else.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Profile { .. }
            | Self::Result { .. }
            | Self::Incomparable(_)
            | Self::NoRow(_)
            | Self::NoProperty(_)
            | Self::BadUse(_)
            | Self::NoRival { .. }
            | Self::RivalsUse => 2,
            Self::Engine(_)
            | Self::Io(_)
            | Self::File { .. }
            | Self::Wrong { .. }
            | Self::Absent(_)
            | Self::Drifted(_)
            | Self::Rivals(_)
            | Self::Child(_) => 1,
        }
    }
}

/// The bench's results.
pub(crate) type Result<T, E = BenchError> = std::result::Result<T, E>;
