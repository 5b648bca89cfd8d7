//! From times and tags to transactions, and back.
//!
//! Spec: SE-018.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Db;
use super::read::ReadTxn;
use crate::error::{Corruption, Error, Result};
use crate::ids::{TableId, TxnId};
use crate::limits;
use crate::txn::cursor::Cursor;
use crate::txn::snapshot::Snapshot;
use crate::txn::table::check_len;
use crate::writer::moments::RESOLUTION_NS;

impl Db {
    /// Begins reading the state at a moment of the wall clock: all that was committed by the end of that millisecond. The
    /// moment may lie ahead: then that is the newest state.
    ///
    /// ```
    /// # fn main() -> northstardb::Result<()> {
    /// use std::time::SystemTime;
    /// let db = northstardb::Options::new().history(northstardb::Retention::All).memory()?;
    /// let table = db.table("t")?;
    /// let then = SystemTime::now() - std::time::Duration::from_secs(1);
    /// let mut txn = db.begin_write()?;
    /// txn.put(&table, "later", "x")?;
    /// txn.commit()?;
    /// assert_eq!(db.begin_read_at_time(then)?.txn_id().get(), 0);
    /// assert!(db.begin_read_at_time(SystemTime::now())?.contains(&table, "later")?);
    /// # Ok(()) }
    /// ```
    ///
    /// Microseconds. Times are told while history is kept ([`Options::history`](crate::Options::history)), and those of commits
    /// never fall, also where the machine's clock did.
    ///
    /// # Errors
    /// [`Error::SnapshotGone`] for a moment before the horizon, or where no history is kept; [`Error::Corrupt`],
    /// [`Error::Io`], [`Error::Closed`].
    #[track_caller]
    pub fn begin_read_at_time(&self, moment: SystemTime) -> Result<ReadTxn> {
        let since = moment.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let wanted = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) / RESOLUTION_NS;
        let ahead = wanted >= self.engine()?.pipeline.now() / RESOLUTION_NS;
        let newest = self.begin_read()?;
        let shape = newest.snapshot.shape();
        let (horizon, end) = (shape.history.horizon, newest.txn_id());
        let by_then = |txn: TxnId| -> Result<Option<bool>> {
            let time = time_of(&newest.snapshot, txn)?;
            Ok(time.map(|time| time / RESOLUTION_NS <= wanted))
        };
        if ahead || by_then(end)? == Some(true) {
            return Ok(newest);
        }
        // Before the first transaction whose time is known there is only the state that history began with.
        let known = match by_then(horizon)? {
            Some(known) => known,
            None => match by_then(horizon.next())? {
                Some(by_then) => by_then || horizon == TxnId::ZERO,
                None => false,
            },
        };
        if !known {
            return Err(Error::SnapshotGone {
                asked: TxnId::new(horizon.get().saturating_sub(1)),
                horizon,
                newest: end,
            });
        }
        let (mut there, mut later) = (horizon, end);
        while there.next() < later {
            let middle = TxnId::new(there.get().midpoint(later.get()));
            if by_then(middle)? == Some(true) {
                there = middle;
            } else {
                later = middle;
            }
        }
        self.begin_read_at(there)
    }

    /// Begins reading the state right after the last transaction that carried `tag`: see
    /// [`WriteTxn::set_tag`](crate::WriteTxn::set_tag). `None` if none of those that can be read did.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Corrupt`], [`Error::Io`], [`Error::Closed`].
    #[track_caller]
    pub fn begin_read_at_tag(&self, tag: impl AsRef<[u8]>) -> Result<Option<ReadTxn>> {
        let tag = tag.as_ref();
        check_len("tag", tag.len(), limits::TAG_BYTES_MAX)?;
        let newest = self.begin_read()?;
        let Some(row) = newest.snapshot.get(TableId::TAGGED, tag)? else {
            return Ok(None);
        };
        let txn = number(&row)?;
        drop(row);
        match self.begin_read_at(TxnId::new(txn)) {
            Err(Error::SnapshotGone { .. }) => Ok(None),
            other => other.map(Some),
        }
    }
}

/// When `txn` was committed, in nanoseconds since 1970, to the millisecond; `None` if that was not noted.
pub(super) fn time_of(snapshot: &Snapshot, txn: TxnId) -> Result<Option<u64>> {
    let mut times = Cursor::new(snapshot, TableId::TIMES);
    let after = txn.get().saturating_add(1).to_be_bytes();
    match times.seek_before(Some(&after))? {
        Some((_, time)) => number(time).map(Some),
        None => Ok(None),
    }
}

/// The tag that `txn` carried.
pub(super) fn tag_of(snapshot: &Snapshot, txn: TxnId) -> Result<Option<Vec<u8>>> {
    let row = snapshot.get(TableId::TAGS, &txn.get().to_be_bytes())?;
    Ok(row.map(|tag| tag.to_vec()))
}

fn number(value: &[u8]) -> Result<u64> {
    let bytes = value.try_into().map_err(|_| {
        Error::Corrupt(Corruption {
            file: "data",
            offset: None,
            detail: format!(
                "a row of the tables of times and tags has {} bytes, expected 8",
                value.len()
            ),
        })
    })?;
    Ok(u64::from_be_bytes(bytes))
}
