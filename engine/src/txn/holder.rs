//! Who keeps space from being reused, and whoever wants to be told.
//!
//! Spec: SE-024.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::ids::TxnId;

/// Somebody who keeps pages, or the log, from being reused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// An open read transaction.
    Snapshot {
        /// The state it reads.
        txn: TxnId,
        /// Where it was opened; absent for one that the engine itself uses.
        place: Option<&'static Location<'static>>,
        /// For how long it has been open at least: since a checkpoint, or a call like this, first saw it.
        open_for: Duration,
        /// Bytes of pages that are not in the newest state any more and that it may still read. What several of them need is
        /// counted for each.
        held_bytes: u64,
        /// How often it was moved from pages of its time to newer ones and history.
        moves: u64,
    },
    /// A named reader of the commit log.
    Subscriber {
        /// Its name.
        name: String,
        /// The first transaction that it has not acknowledged.
        position: TxnId,
        /// When it subscribed.
        since: SystemTime,
        /// Bytes of the log from there on.
        held_bytes: u64,
    },
    /// A backup that is being made.
    Backup {
        /// It is a full one and holds a snapshot; else it holds the log from where it has come to.
        is_full: bool,
        /// The state that it leads to.
        to: TxnId,
        /// Where it was asked for.
        place: &'static Location<'static>,
        /// For how long it has been running.
        open_for: Duration,
        /// Bytes that it has written.
        written_bytes: u64,
        /// Bytes of pages, as of a snapshot, or of the log.
        held_bytes: u64,
    },
}

/// Whoever is told of those who keep much.
#[derive(Clone)]
pub(crate) struct Watch {
    /// Bytes from which on.
    pub(crate) from: u64,
    /// What is called.
    pub(crate) tell: Arc<dyn Fn(&Holder) + Send + Sync>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}
