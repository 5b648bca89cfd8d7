//! The delta: records of commits that are not yet in the trees, ordered, with all their versions, in memory.
//!
//! Each table has a tree of wide nodes over one arena; each key a chain of versions, newest first. Nothing is removed: the
//! arena goes as a whole when the last reader lets go of the delta, and the next delta has the memory. A filter in front
//! answers for absent keys.
//!
//! ```text
//! table id -> Table -> branches -> leaf (14 heads, 14 records) -> version -> older version ...
//!                \-> range deletes, newest first
//! ```
//!
//! Invariants:
//! 1. One [`DeltaWriter`] exists per [`Delta`], and only it writes.
//! 2. A reader at snapshot `T` sees exactly the standing versions with `txn <= T`, provided that it learned `T` after they
//!    were written (the visible transaction id is published with `Release` and read with `Acquire`).
//! 3. Transaction ids never fall from one write to the next, except after a roll-back, which takes back what was above.
//! 4. A write that returns [`DeltaFull`] has changed nothing.
//!
//! - Threads: one writer, any number of readers; no reader waits for anything.
//! - Cost: beyond key and value 35 (rising keys) to 45 bytes (random keys) a key, 20 to 27 for each further version.
//! - Failure: [`DeltaFull`] when the reserved address space is used up; everything written stays readable.

mod arena;
mod cursor;
mod events;
pub(crate) mod filter;
mod node;
mod patience;
mod range;
mod table;
mod tree;
mod version;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use northstar_io::IoError;

use crate::ids::{TableId, TxnId};
use crate::sync::atomic::{AtomicU64, Ordering};
use arena::{Arena, At, NewRecord, Record, Spare};
use filter::Filter;
use node::ChildAt;
use patience::Worth;
use table::{TABLE_BYTES_MAX, Tables};
use tree::{INSERT_BYTES_MAX, Path, Table};
use version::{DELETE, DELETE_FROM, DELETE_TO, PUT, newer_of, visible};

pub(crate) use arena::ArenaFull as DeltaFull;
pub(crate) use cursor::DeltaCursor;
#[cfg(feature = "internals")]
pub(crate) use filter::{Filter as KeyFilter, hash as key_hash};
pub(crate) use patience::Patience;
pub(crate) use range::RangeDeletes;
pub(crate) use version::Hit;

/// Keys that [`DeltaWriter::warm`] takes at once: about as many misses as a core keeps in flight.
pub(crate) const WARM_KEYS: usize = 8;
/// Records below which a delta fits the processor's caches anyway.
const WARM_LEN: u64 = 8_000;

/// How large a delta may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeltaConfig {
    /// Address space reserved, in bytes; memory is taken as it is used. At most 32 GiB.
    pub(crate) arena_bytes: usize,
    /// Number of keys the filter is sized for, at 1.25 bytes each. More keys make it weaker, not wrong.
    pub(crate) filter_keys: usize,
}

/// Makes one delta after the other, each in the memory of one that ended, where there is such; knows what merging them takes.
pub(crate) struct Deltas {
    config: DeltaConfig,
    spare: Arc<Spare>,
    patience: Patience,
    worth: Worth,
}

impl Deltas {
    /// Of deltas that are to take about `kept_bytes` each: as much memory is kept between two of them.
    pub(crate) fn new(config: DeltaConfig, kept_bytes: usize, patience: Patience) -> Self {
        let spare = Arc::new(Spare::new(kept_bytes));
        Self {
            config,
            spare,
            patience,
            worth: Worth::new(patience),
        }
    }

    /// A delta of so many changes was merged by writing so many pages.
    pub(crate) fn note_merge(&self, changes: u64, pages: u64) {
        self.worth.note_merge(changes, pages);
    }

    /// Whether cursors have passed over deleted rows of `delta` for as long as it takes to merge it.
    pub(crate) fn is_passed_over(&self, delta: &Delta) -> bool {
        (self.worth).is_reached(delta.passed.load(Ordering::Relaxed), delta.len())
    }

    /// An empty delta and its writer.
    ///
    /// # Errors
    /// The system's, if it refuses the address space.
    pub(crate) fn make(&self) -> Result<(Arc<Delta>, DeltaWriter), IoError> {
        let config = self.config;
        let delta = Arc::new(Delta {
            arena: Arena::reserve(config.arena_bytes, &self.spare)?,
            tables: Tables::new(),
            filter: Filter::for_keys(config.filter_keys),
            len: AtomicU64::new(0),
            last_txn: AtomicU64::new(0),
            passed_from: self.patience.told_from,
            passed: AtomicU64::new(0),
        });
        let writer = DeltaWriter {
            delta: Arc::clone(&delta),
            path: Path::default(),
            undo: Vec::new(),
            forgotten: 0,
        };
        Ok((delta, writer))
    }

    #[cfg(test)]
    pub(crate) fn has_spare(&self) -> bool {
        self.spare.is_there()
    }

    /// Gives memory that no delta uses back to the system.
    pub(crate) fn release_spare(&self) {
        self.spare.release();
    }
}

/// Committed records, and those of the commit in progress, that are not yet in the trees.
pub(crate) struct Delta {
    arena: Arena,
    tables: Tables,
    filter: Filter,
    /// Standing versions and range deletes. Written by the writer only, like the one below; late values are harmless.
    len: AtomicU64,
    last_txn: AtomicU64,
    /// Deleted rows that cursors passed over because of what stands here, each at least so many.
    passed_from: u64,
    passed: AtomicU64,
}

/// The only way to write to a [`Delta`].
pub(crate) struct DeltaWriter {
    delta: Arc<Delta>,
    path: Path,
    /// Records written since the oldest mark that may still be rolled back to.
    undo: Vec<At<Record>>,
    /// Number of records forgotten before `undo`.
    forgotten: u64,
}

/// A point in the writes of a [`DeltaWriter`] to roll back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    writes: u64,
    last_txn: u64,
}

/// A key to look for, hashed once for all deltas.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe<'k> {
    table: TableId,
    key: &'k [u8],
    hash: u64,
}

impl<'k> Probe<'k> {
    /// Looks for `key` of `table`.
    #[inline]
    pub(crate) fn new(table: TableId, key: &'k [u8]) -> Self {
        Self {
            table,
            key,
            hash: filter::hash(table, key),
        }
    }
}

impl Delta {
    /// An empty delta and its writer, by themselves.
    ///
    /// # Errors
    /// The system's, if it refuses the address space.
    pub(crate) fn new(config: DeltaConfig) -> Result<(Arc<Self>, DeltaWriter), IoError> {
        Deltas::new(config, 0, Patience::USUAL).make()
    }

    /// One that nobody writes to.
    ///
    /// # Errors
    /// The system's, if it refuses a page.
    pub(crate) fn empty() -> Result<Arc<Self>, IoError> {
        let nothing = DeltaConfig {
            arena_bytes: 0,
            filter_keys: 0,
        };
        Self::new(nothing).map(|(delta, _)| delta)
    }

    /// Asks the processor for what [`Delta::get`] will look at first.
    #[inline]
    pub(crate) fn warm(&self, probe: &Probe<'_>) {
        if self.was_written() {
            self.filter.warm(probe.hash);
        }
    }

    /// Whether anything was ever written here, taken back or not. Looks at nothing that later writes change, so that
    /// asking costs readers no cache miss while a writer is at work.
    #[inline]
    pub(crate) fn was_written(&self) -> bool {
        self.tables.any()
    }

    /// What the delta knows of a key at snapshot `at`; none if only lower layers can tell.
    #[inline]
    pub(crate) fn get(&self, probe: &Probe<'_>, at: TxnId) -> Option<Hit<'_>> {
        let key = probe.key;
        let tree = self.table(probe.table)?;
        let ranges = tree.ranges.load();
        // Bits of the filter that are not set mean a key that is not here: see the filter's invariant.
        let version = if self.filter.may_contain(probe.hash) {
            tree.find(&self.arena, key)
                .and_then(|newest| visible(&self.arena, newest, at))
        } else {
            None
        };
        let version = version.map(|(at, record)| (at, Hit::of(&record)));
        match ranges {
            None => version.map(|(_, hit)| hit),
            Some(_) => {
                let ranges = RangeDeletes {
                    arena: &self.arena,
                    next: ranges,
                    at,
                };
                newer_of(version, ranges.covering(key))
            }
        }
    }

    /// The range deletes of a table that snapshot `at` sees, newest first.
    pub(crate) fn range_deletes(&self, table: TableId, at: TxnId) -> RangeDeletes<'_> {
        let next = self.table(table).and_then(|table| table.ranges.load());
        RangeDeletes {
            arena: &self.arena,
            next,
            at,
        }
    }

    /// The newest transaction that snapshot `at` sees and that deleted a range with `key` in it: rows of lower layers with this
    /// key are gone.
    #[inline]
    pub(crate) fn covered(&self, table: TableId, key: &[u8], at: TxnId) -> Option<TxnId> {
        self.range_deletes(table, at)
            .covering(key)
            .map(|(_, txn)| txn)
    }

    /// A cursor over a table as snapshot `at` sees it, before its first seek.
    pub(crate) fn cursor(&self, table: TableId, at: TxnId) -> DeltaCursor<'_> {
        DeltaCursor::new(&self.arena, self.table(table), at)
    }

    /// The tables written to, in id order.
    pub(crate) fn tables(&self) -> impl Iterator<Item = TableId> + '_ {
        self.tables
            .iter(&self.arena)
            .filter(|(_, table)| table.is_used())
            .map(|(id, _)| id)
    }

    /// Number of versions and range deletes, those rolled back not counted.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether nothing stands in the delta.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The transaction of the last write.
    pub(crate) fn last_txn(&self) -> Option<TxnId> {
        Some(self.last_txn.load(Ordering::Relaxed))
            .filter(|&txn| txn != 0)
            .map(TxnId::new)
    }

    /// A cursor had to pass over so many rows that are deleted here.
    pub(crate) fn note_passed(&self, rows: u64) {
        if rows >= self.passed_from {
            // Alone: it is only about time.
            self.passed.fetch_add(rows, Ordering::Relaxed);
        }
    }

    /// Bytes of the arena in use, of what was rolled back too.
    pub(crate) fn used_bytes(&self) -> usize {
        self.arena.used_bytes()
    }

    /// Whether the table was ever written to here.
    pub(crate) fn has_table(&self, table: TableId) -> bool {
        self.table(table).is_some_and(Table::is_used)
    }

    #[inline]
    fn table(&self, table: TableId) -> Option<&Table> {
        self.tables.get(&self.arena, table)
    }
}

impl std::fmt::Debug for Delta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delta")
            .field("len", &self.len())
            .field("arena", &self.arena)
            .finish_non_exhaustive()
    }
}

impl DeltaWriter {
    /// Stores `value` under `key` as of `txn`.
    ///
    /// # Errors
    /// [`DeltaFull`]; nothing has changed then.
    pub(crate) fn put(
        &mut self,
        table: TableId,
        key: &[u8],
        value: &[u8],
        txn: TxnId,
    ) -> Result<(), DeltaFull> {
        self.write(
            table,
            NewRecord {
                txn: txn.get(),
                older: None,
                kind: PUT,
                key,
                value,
            },
        )
    }

    /// Deletes `key` as of `txn`, whether or not it exists in any layer.
    ///
    /// # Errors
    /// [`DeltaFull`]; nothing has changed then.
    pub(crate) fn delete(
        &mut self,
        table: TableId,
        key: &[u8],
        txn: TxnId,
    ) -> Result<(), DeltaFull> {
        self.write(
            table,
            NewRecord {
                txn: txn.get(),
                older: None,
                kind: DELETE,
                key,
                value: &[],
            },
        )
    }

    /// Deletes all keys from `from` up to but not including `to`, or to the end of the table, as of `txn`.
    ///
    /// # Errors
    /// [`DeltaFull`]; nothing has changed then.
    pub(crate) fn delete_range(
        &mut self,
        table: TableId,
        from: &[u8],
        to: Option<&[u8]>,
        txn: TxnId,
    ) -> Result<(), DeltaFull> {
        let (kind, value) = to.map_or((DELETE_FROM, &[][..]), |to| (DELETE_TO, to));
        let new = NewRecord {
            txn: txn.get(),
            older: None,
            kind,
            key: from,
            value,
        };
        let arena = &self.delta.arena;
        arena.require(new.arena_bytes() + TABLE_BYTES_MAX)?;
        let table = self.delta.tables.get_or_make(arena, table)?;
        let record = arena.alloc_record(NewRecord {
            older: table.ranges.load(),
            ..new
        })?;
        table.ranges.store(record);
        self.written(record, txn.get());
        Ok(())
    }

    /// Fetches what writes of these keys will look at, for all of them at once instead of one after the other. Changes
    /// nothing, and is worth it where the tree is larger than the processor's caches.
    pub(crate) fn warm(&self, keys: &[(TableId, &[u8])]) {
        let delta = &*self.delta;
        if delta.len() < WARM_LEN {
            return;
        }
        let mut ways: [(Option<ChildAt>, &[u8]); WARM_KEYS] = [(None, &[]); WARM_KEYS];
        for (way, (table, key)) in ways.iter_mut().zip(keys) {
            let tree = delta.tables.get(&delta.arena, *table);
            *way = (tree.and_then(|tree| tree.way(&delta.arena, key)), key);
            delta.filter.warm(filter::hash(*table, key));
        }
        while Table::warm_below(&delta.arena, &mut ways) {}
    }

    /// A mark at the present state, to roll back to until the next [`DeltaWriter::forget_marks`].
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            writes: self.forgotten + self.undo.len() as u64,
            last_txn: self.delta.last_txn.load(Ordering::Relaxed),
        }
    }

    /// Takes back all writes since `mark`. Their transactions must never have been visible to a snapshot; a later
    /// transaction may reuse their ids.
    ///
    /// # Panics
    /// If the mark was forgotten or lies beyond an earlier roll-back.
    pub(crate) fn rollback(&mut self, mark: Mark) {
        let keep = mark
            .writes
            .checked_sub(self.forgotten)
            .and_then(|keep| usize::try_from(keep).ok());
        let keep = keep.filter(|&keep| keep <= self.undo.len());
        let Some(keep) = keep else {
            panic!("{mark:?} is not among the {} writes kept", self.undo.len())
        };
        let undone = self.undo.len() - keep;
        for record in self.undo.drain(keep..) {
            self.delta.arena.record(record).abort();
        }
        let delta = &self.delta;
        delta
            .len
            .store(delta.len() - undone as u64, Ordering::Relaxed);
        delta.last_txn.store(mark.last_txn, Ordering::Relaxed);
    }

    /// Makes all writes so far final and earlier marks void. Called for each commit, so that the list for rolling back stays short.
    pub(crate) fn forget_marks(&mut self) {
        self.forgotten += self.undo.len() as u64;
        self.undo.clear();
    }

    /// Writes a version of a key.
    fn write(&mut self, table: TableId, new: NewRecord<'_>) -> Result<(), DeltaFull> {
        let delta = &*self.delta;
        let arena = &delta.arena;
        // All that can be needed is asked for at once, so that nothing below stops halfway.
        arena.require(new.arena_bytes() + TABLE_BYTES_MAX + INSERT_BYTES_MAX)?;
        let tree = delta.tables.get_or_make(arena, table)?;
        let spot = tree.locate(arena, new.key, &mut self.path);
        let older = spot.as_ref().and_then(|spot| spot.existing(arena));
        let record = arena.alloc_record(NewRecord { older, ..new })?;
        if older.is_none() {
            // Before the key is published: see the filter's invariant.
            delta.filter.insert(filter::hash(table, new.key));
        }
        tree.insert(arena, spot, new.key, record, &mut self.path)?;
        self.written(record, new.txn);
        Ok(())
    }

    /// Accounts for a record of transaction `txn`.
    fn written(&mut self, record: At<Record>, txn: u64) {
        let delta = &self.delta;
        let last = delta.last_txn.load(Ordering::Relaxed);
        debug_assert!(last <= txn, "t{txn} after t{last}");
        delta.last_txn.store(txn, Ordering::Relaxed);
        bump(&delta.len);
        self.undo.push(record);
    }
}

/// Adds one to a counter that only the writer changes.
fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
