//! What the engine can report to its caller: one variant for each thing a caller could react to.

use std::path::PathBuf;
use std::sync::Arc;

use northstar_io::{IoError, LockError};

use crate::format::page::PageError;
use crate::ids::TxnId;

/// The result of every fallible call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Nothing has changed unless the variant says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The asked-for state is no longer, or not yet, there to be read.
    #[error("snapshot {asked} is gone: states from {horizon} to {newest} can be read")]
    SnapshotGone {
        /// What was asked for.
        asked: TxnId,
        /// The oldest state that can still be read.
        horizon: TxnId,
        /// The newest visible state.
        newest: TxnId,
    },
    /// The commit log does not hold the transaction asked for: it was trimmed, or it has not happened.
    #[error(
        "transaction {asked} is not in the commit log, which holds {first} up to and without {next}"
    )]
    NotInLog {
        /// What was asked for.
        asked: TxnId,
        /// The first that is there; `next` if none is.
        first: TxnId,
        /// The one that will be committed next.
        next: TxnId,
    },
    /// The device, the quota or the file system is full. Nothing of the refused change was applied; the handle stays
    /// usable, and what needs no more room still works. A delete is a record in the log, so it may be refused, too.
    #[error("no space for {what}: {source}")]
    Full {
        /// What needed the space.
        what: &'static str,
        /// The kernel's answer.
        source: IoError,
    },
    /// A key, value, name, tag or transaction beyond its limit.
    #[error("{what} has {len} bytes, the limit is {limit}")]
    TooLarge {
        /// Which thing.
        what: &'static str,
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Another process, or another handle in this one, has the database open.
    #[error("{} is locked by {}", .path.display(), .pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The holder's process id, if it could be read.
        pid: Option<u32>,
    },
    /// Stored bytes contradict themselves. What does not need them stays readable.
    #[error(transparent)]
    Corrupt(Corruption),
    /// The device failed.
    #[error(transparent)]
    Io(IoError),
    /// An earlier write or flush failed, so the fate of the commits in flight is unknown: they may or may not be
    /// found after reopening. Snapshots stay readable; reopening recovers.
    #[error("the writer has halted, the outcome of commits in flight is unknown: {reason}")]
    Halted {
        /// The first failure.
        reason: Arc<str>,
    },
    /// Another write transaction is open.
    #[error("another write transaction is open")]
    WriteBusy,
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// The database was opened for reading only.
    #[error("the database is open for reading only")]
    ReadOnly,
    /// No table of this name, or one that was dropped, or a handle of another database.
    #[error("no table {name:?} in this snapshot")]
    UnknownTable {
        /// The table's name.
        name: String,
    },
    /// The past of a table of which no history is kept: [`TableOptions::history`](crate::TableOptions::history).
    #[error(
        "no history is kept of the table with the id {table}: only its newest states can be read"
    )]
    NoHistory {
        /// The table's id.
        table: u32,
    },
    /// A table of the new name exists.
    #[error("a table {name:?} exists already")]
    TableExists {
        /// The name.
        name: String,
    },
    /// The path holds something else than a NorthstarDB database.
    #[error("{} is not a NorthstarDB database: {why}", .path.display())]
    NotADatabase {
        /// Where.
        path: PathBuf,
        /// What was found instead.
        why: String,
    },
    /// The database was written by a newer version.
    #[error("{} needs a newer version: {why}", .path.display())]
    NewerFormat {
        /// Where.
        path: PathBuf,
        /// The format or feature this version does not know.
        why: String,
    },
    /// An option contradicts another, the machine or the stored database.
    #[error("option {option} is {found}, expected {expected}")]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        expected: String,
    },
}

/// Damage found in stored bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("corrupt {file}{}: {detail}", .offset.map_or_else(String::new, |at| format!(" at byte {at}")))]
pub struct Corruption {
    /// Which file: `data` or `log`.
    pub file: &'static str,
    /// Where in the file (`data`) or in the commit log (`log`), in bytes.
    pub offset: Option<u64>,
    /// What was expected there and what was found.
    pub detail: String,
}

impl Error {
    /// There is no memory for another delta.
    pub(crate) fn no_delta(source: IoError) -> Self {
        Self::from_io("buffered changes", source)
    }

    pub(crate) fn from_io(what: &'static str, source: IoError) -> Self {
        if source.is_full() {
            Self::Full { what, source }
        } else {
            Self::Io(source)
        }
    }
}

impl From<PageError> for Error {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Io { source, .. } => Self::from_io("the data file", source),
            PageError::Checksum { .. }
            | PageError::Stale { .. }
            | PageError::Misdirected { .. }
            | PageError::Foreign { .. }
            | PageError::Format { .. }
            | PageError::Kind { .. }
            | PageError::Structure { .. }
            | PageError::OutOfRange { .. } => Self::Corrupt(Corruption {
                file: "data",
                // The text names the page; how large pages are here, it does not know.
                offset: None,
                detail: error.to_string(),
            }),
        }
    }
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held { path, pid } => Self::Locked {
                path: PathBuf::from(&*path),
                pid,
            },
            LockError::Io(source) => Self::from_io("the lock file", source),
        }
    }
}
