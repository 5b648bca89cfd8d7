//! Who keeps space from being reused: open snapshots, backups and subscribers.
//!
//! Spec: SE-024.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use super::Db;
use crate::error::Result;
use crate::ids::TxnId;
use crate::txn::holder::Holder;
use crate::txn::positions::each_of;

impl Db {
    /// Everybody who keeps space from being reused, snapshots and full backups first, then other backups and subscribers: who
    /// it is, for how long, and how much. Takes the time of the checkpoint that is under way.
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
        // Thousands of snapshots share a few generations.
        let mut held = BTreeMap::new();
        for open in checkpointer.notice() {
            let held_since = || checkpointer.store.held_since(open.generation);
            let bytes = *held.entry(open.generation).or_insert_with(held_since);
            holders.push(checkpointer.holder(&open, bytes));
        }
        drop(checkpointer);
        let log = self.log()?;
        let mut bytes_from = log.bytes_from();
        let now_ns = engine.pipeline.monotonic_ns();
        for backup in engine.shapes.shared.backups.running() {
            if let Some(from) = backup.log_from() {
                holders.push(backup.holder(now_ns, bytes_from(from)));
            }
        }
        // Who holds what is said also of a log that is damaged.
        let first = LazyCell::new(|| log.first().unwrap_or(TxnId::ZERO));
        each_of(&log.snapshot()?, |name, (position, since_ns)| {
            let is_lost = position < *first;
            holders.push(Holder::Subscriber {
                held_bytes: if is_lost { 0 } else { bytes_from(position) },
                name: String::from_utf8_lossy(name).into_owned(),
                position,
                since: UNIX_EPOCH + Duration::from_nanos(since_ns),
            });
        })?;
        Ok(holders)
    }
}
