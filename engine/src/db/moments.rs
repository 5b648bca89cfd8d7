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
    /// Begins reading the state at a moment of the wall clock: all that was committed by the end of that millisecond; the
    /// newest state where the moment lies ahead of every commit.
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
        let newest = self.begin_read()?;
        // Later than the read began: so all that it sees was committed by then, if nothing is known of when.
        let ahead = wanted >= self.engine()?.pipeline.now() / RESOLUTION_NS;
        let shape = newest.snapshot.shape();
        let (horizon, end) = (shape.history.horizon, newest.txn_id());
        let by_then = |txn: TxnId| -> Result<Option<bool>> {
            let time = time_of(&newest.snapshot, txn)?;
            Ok(time.map(|time| time / RESOLUTION_NS <= wanted))
        };
        if by_then(end)?.unwrap_or(ahead) {
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use northstar_io::{Disk, MemoryDisk, SyncMethod};

    use super::*;
    use crate::clock::Clock;
    use crate::db::open::open_in;
    use crate::db::options::Options;
    use crate::db::world::World;
    use crate::retention::Retention;

    const SECOND: u64 = 1_000_000_000;

    /// A disk, and a clock that stands where it is put.
    fn world() -> (World, Arc<AtomicU64>) {
        let disk: Arc<dyn Disk> = MemoryDisk::new();
        disk.create_dir(Path::new("disk")).unwrap();
        let now = Arc::new(AtomicU64::new(1_000 * SECOND));
        let mut world = World::of(disk);
        let wall = Arc::clone(&now);
        world.clock = Clock::of(
            Arc::new(move || wall.load(Ordering::Relaxed)),
            Arc::new(|| 0),
        );
        world.threads = false;
        world.sync_method = Some(SyncMethod::None);
        (world, now)
    }

    fn open(world: &World) -> Db {
        let options = Options::new()
            .history(Retention::All)
            .log_retention(Retention::All)
            .checked()
            .unwrap();
        open_in(&options, Path::new("disk/db"), world.clone()).unwrap()
    }

    fn put(db: &Db) -> TxnId {
        let mut write = db.begin_write().unwrap();
        let table = write.table("t").unwrap();
        write.put(&table, "k", "v").unwrap();
        write.commit().unwrap().txn_id
    }

    fn moment(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn at(db: &Db, seconds: u64) -> TxnId {
        db.begin_read_at_time(moment(seconds)).unwrap().txn_id()
    }

    #[test]
    fn times_of_commits_stand_still_where_the_clock_fell_also_after_closing() {
        for closes in [true, false] {
            let (world, now) = world();
            let db = open(&world);
            let first = put(&db);
            now.store(1_060 * SECOND, Ordering::Relaxed);
            let ahead = put(&db);
            // It is set right; and what carried the later time is in pages.
            now.store(1_001 * SECOND, Ordering::Relaxed);
            db.checkpoint().unwrap();
            match closes {
                true => db.close().unwrap(),
                false => drop(db),
            }
            let db = open(&world);
            let later = put(&db);
            now.store(1_002 * SECOND, Ordering::Relaxed);
            let last = put(&db);
            let table = db.open_table("t").unwrap();
            let versions = db.history(&table, "k", ..).unwrap();
            let found: Vec<_> = versions.iter().map(|v| (v.txn, v.time)).collect();
            let ahead_at = Some(moment(1_060));
            let expected = [
                (first, Some(moment(1_000))),
                (ahead, ahead_at),
                (later, ahead_at),
                (last, ahead_at),
            ];
            assert_eq!(found, expected);
            // The moment of the clock, too, means what the commits say.
            for (seconds, expected) in [
                (1_000, first),
                (1_002, first),
                (1_059, first),
                (1_060, last),
                (2_000, last),
            ] {
                assert_eq!(at(&db, seconds), expected, "at {seconds}");
            }
            let mut tail = db
                .log()
                .unwrap()
                .tail(first, crate::LogFilter::all())
                .unwrap();
            let mut times = Vec::new();
            while let Some(found) = tail.try_next().unwrap() {
                times.push(found.time());
            }
            assert!(times.is_sorted(), "{times:?}");
            drop(tail);
            db.close().unwrap();
        }
    }
}
