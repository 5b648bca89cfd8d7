//! Who keeps space from being reused: open snapshots and subscribers.
//!
//! Spec: SE-024.

use std::collections::BTreeMap;
use std::panic::Location;
use std::time::{Duration, SystemTime};

use super::Db;
use crate::error::Result;
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
}

impl Db {
    /// Everybody who keeps space from being reused, snapshots first: who it is, for how long, and how much. Takes the time of
    /// the checkpoint that is under way.
    ///
    /// ```
    /// # fn main() -> northstardb::Result<()> {
    /// # let db = northstardb::Db::memory()?;
    /// let forgotten = db.begin_read()?;
    /// for holder in db.holders()? {
    ///     println!("{holder:?}");
    /// }
    /// # assert_eq!(db.holders()?.len(), 1);
    /// # drop(forgotten); db.close() }
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt), [`Error::Io`](crate::Error::Io),
    /// [`Error::Closed`](crate::Error::Closed).
    pub fn holders(&self) -> Result<Vec<Holder>> {
        let engine = self.engine()?;
        let mut holders = Vec::new();
        let mut checkpointer = engine.checkpointer.lock();
        let moved = &engine.shapes.shared.moved;
        // Thousands of snapshots share a few generations.
        let mut held = BTreeMap::new();
        for open in checkpointer.notice() {
            let held_since = || checkpointer.store.held_since(open.generation);
            holders.push(Holder::Snapshot {
                txn: open.txn,
                place: open.place,
                open_for: Duration::from_nanos(checkpointer.open_for(open.slot)),
                held_bytes: *held.entry(open.generation).or_insert_with(held_since),
                moves: moved.moves(open.slot),
            });
        }
        drop(checkpointer);
        let log = self.log()?;
        for subscriber in log.subscribers()? {
            holders.push(Holder::Subscriber {
                held_bytes: log.bytes_from(subscriber.position)?,
                name: subscriber.name,
                position: subscriber.position,
                since: subscriber.since,
            });
        }
        Ok(holders)
    }
}
