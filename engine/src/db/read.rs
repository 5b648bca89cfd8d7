//! Read transactions: one consistent state of the whole database, for as long as wanted.

use std::fmt;
use std::ops::{ControlFlow, RangeBounds};

use super::range::{Range, Row, Span, prefix_span, span};
use crate::error::{Error, Result};
use crate::ids::{TableId, TxnId};
use crate::limits;
use crate::txn::cursor::Cursor as SnapshotCursor;
use crate::txn::snapshot::Snapshot;
pub use crate::txn::snapshot::Value;
use crate::txn::table::{Table, check_len, decode_entry};

/// One immutable state of the database. Commits made after it began are not seen, for as long as it lives.
///
/// Beginning and ending one takes nanoseconds, no lock and no allocation; it may be sent to and shared by threads.
/// A transaction kept for hours keeps the pages of its state from being reused:
/// [`Stats::snapshots_open`](crate::Stats::snapshots_open) shows whether one was forgotten.
///
/// In a state of the past every read of a table without history is [`Error::NoHistory`]:
/// [`TableOptions::history`](crate::TableOptions::history).
///
/// What is read borrows from the transaction and cannot outlive it:
///
/// ```compile_fail,E0505
/// # fn main() -> northstardb::Result<()> {
/// let db = northstardb::Db::memory()?;
/// let table = db.table("t")?;
/// let txn = db.begin_read()?;
/// let value = txn.get(&table, "key")?;
/// drop(txn);
/// println!("{value:?}");
/// # Ok(()) }
/// ```
pub struct ReadTxn {
    pub(crate) snapshot: Snapshot,
}

impl fmt::Debug for ReadTxn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadTxn").field(&self.txn_id()).finish()
    }
}

impl ReadTxn {
    /// The last transaction this state includes.
    #[must_use]
    pub fn txn_id(&self) -> TxnId {
        self.snapshot.txn()
    }

    pub(crate) fn resolve(&self, table: &Table) -> Result<TableId> {
        table.resolve(self.snapshot.shape().shared.tables.instance, self.txn_id())
    }

    /// The value of `key`, without copying it where it lies in one piece.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::TooLarge`], [`Error::Corrupt`], [`Error::Io`].
    pub fn get(&self, table: &Table, key: impl AsRef<[u8]>) -> Result<Option<Value<'_>>> {
        let (table, key) = (self.resolve(table)?, key.as_ref());
        check_len("key", key.len(), limits::KEY_BYTES_MAX)?;
        northstar_io::regressions::at_get();
        self.snapshot.get(table, key)
    }

    /// Calls `read` with the value of `key`.
    ///
    /// # Errors
    /// As [`ReadTxn::get`].
    pub fn get_with<R>(
        &self,
        table: &Table,
        key: impl AsRef<[u8]>,
        read: impl FnOnce(Option<&[u8]>) -> R,
    ) -> Result<R> {
        Ok(read(self.get(table, key)?.as_deref()))
    }

    /// Whether `key` is there.
    ///
    /// # Errors
    /// As [`ReadTxn::get`].
    pub fn contains(&self, table: &Table, key: impl AsRef<[u8]>) -> Result<bool> {
        self.get_with(table, key, |value| value.is_some())
    }

    /// The values of many keys, in their order. Pages that are not in memory are read all at once.
    ///
    /// # Errors
    /// As [`ReadTxn::get`].
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        table: &Table,
        keys: &[K],
    ) -> Result<Vec<Option<Value<'_>>>> {
        let table = self.resolve(table)?;
        for key in keys {
            check_len("key", key.as_ref().len(), limits::KEY_BYTES_MAX)?;
        }
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        self.snapshot.multi_get(table, &keys)
    }

    /// The rows of a range, from either end. A range whose start is not below its end is empty.
    ///
    /// ```
    /// # fn main() -> northstardb::Result<()> {
    /// # let db = northstardb::Db::memory()?;
    /// # let table = db.table("t")?;
    /// # let mut batch = northstardb::WriteBatch::new();
    /// # batch.put(&table, "a", "1").put(&table, "b", "2").put(&table, "c", "3");
    /// # db.commit(batch)?;
    /// let txn = db.begin_read()?;
    /// let last = txn.range(&table, "a".."c")?.next_back().transpose()?;
    /// assert_eq!(last, Some((b"b".to_vec(), b"2".to_vec())));
    /// # drop(txn); db.close() }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::TooLarge`]; while iterating [`Error::Corrupt`], [`Error::Io`].
    pub fn range<B: AsRef<[u8]>>(
        &self,
        table: &Table,
        range: impl RangeBounds<B>,
    ) -> Result<Range<'_>> {
        Ok(Range::new(
            &self.snapshot,
            self.resolve(table)?,
            span(&range)?,
        ))
    }

    /// Every row of the table.
    ///
    /// # Errors
    /// As [`ReadTxn::range`].
    pub fn iter(&self, table: &Table) -> Result<Range<'_>> {
        self.range::<&[u8]>(table, ..)
    }

    /// The rows whose keys begin with `prefix`.
    ///
    /// # Errors
    /// As [`ReadTxn::range`].
    pub fn prefix(&self, table: &Table, prefix: impl AsRef<[u8]>) -> Result<Range<'_>> {
        Ok(Range::new(
            &self.snapshot,
            self.resolve(table)?,
            prefix_span(prefix.as_ref())?,
        ))
    }

    /// Calls `visit` with every row of a range in key order until it breaks: the fastest way over many rows,
    /// nothing is copied or allocated per row.
    ///
    /// # Errors
    /// As [`ReadTxn::range`].
    pub fn scan<B: AsRef<[u8]>>(
        &self,
        table: &Table,
        range: impl RangeBounds<B>,
        visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        let table = self.resolve(table)?;
        match span(&range)? {
            Span::Empty => Ok(()),
            Span::Keys { from, to } => {
                SnapshotCursor::new(&self.snapshot, table).scan(&from, to.as_deref(), visit)
            }
        }
    }

    /// A cursor over the table: borrowed rows, any direction, seeking at will.
    ///
    /// # Errors
    /// [`Error::UnknownTable`].
    pub fn cursor(&self, table: &Table) -> Result<Cursor<'_>> {
        Ok(Cursor {
            inner: SnapshotCursor::new(&self.snapshot, self.resolve(table)?),
        })
    }

    /// The first row.
    ///
    /// # Errors
    /// As [`ReadTxn::range`].
    pub fn first(&self, table: &Table) -> Result<Option<Row>> {
        self.iter(table)?.next().transpose()
    }

    /// The last row.
    ///
    /// # Errors
    /// As [`ReadTxn::range`].
    pub fn last(&self, table: &Table) -> Result<Option<Row>> {
        self.iter(table)?.next_back().transpose()
    }

    /// Rows of the table as of the last checkpoint: an estimate that costs nothing.
    ///
    /// # Errors
    /// [`Error::UnknownTable`].
    pub fn len_estimate(&self, table: &Table) -> Result<u64> {
        Ok(self.snapshot.rows_estimate(self.resolve(table)?))
    }

    /// Names of the tables, in order.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn tables(&self) -> Result<Vec<String>> {
        let all = Span::Keys {
            from: Vec::new(),
            to: None,
        };
        Range::new(&self.snapshot, TableId::NAMES, all)
            .map(|row| row.map(|(name, _)| String::from_utf8_lossy(&name).into_owned()))
            .collect()
    }

    /// Opens a table that exists in this state, by the name it has here. The handle is as any other of that table: if it was
    /// dropped since, later transactions answer [`Error::UnknownTable`].
    ///
    /// ```
    /// # fn main() -> northstardb::Result<()> {
    /// # let db = northstardb::Db::memory()?;
    /// db.table("drafts")?;
    /// let before = db.begin_read()?;
    /// db.rename_table("drafts", "letters")?;
    /// let drafts = before.open_table("drafts")?;
    /// assert_eq!(drafts.id(), db.open_table("letters")?.id());
    /// # drop(before); db.close() }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::Corrupt`], [`Error::Io`].
    pub fn open_table(&self, name: &str) -> Result<Table> {
        match self.table_id(name)? {
            Some(id) => {
                let table = self.snapshot.shape().shared.tables.handle(id, name);
                if self.snapshot.is_past() && !table.is_dropped() {
                    self.find_drop(&table)?;
                }
                Ok(table)
            }
            None => Err(Error::UnknownTable {
                name: name.to_owned(),
            }),
        }
    }

    /// Marks `table`, which this state has, dropped if it was dropped before this process opened the database: then
    /// nobody has told its handles. The last state that has it is found by halving.
    fn find_drop(&self, table: &Table) -> Result<()> {
        let has = |at: TxnId| -> Result<bool> {
            let snapshot = self.snapshot.of_same_shape(at)?;
            let mut names = SnapshotCursor::new(&snapshot, TableId::NAMES);
            let mut row = names.seek(&[])?;
            while let Some((name, value)) = row {
                let name = String::from_utf8_lossy(name);
                if decode_entry(&name, value)? == table.table_id() {
                    return Ok(true);
                }
                row = names.next()?;
            }
            Ok(false)
        };
        // Whatever is dropped later than this is in a delta, and was told.
        let (mut with, mut without) = (self.txn_id(), self.snapshot.shape().tree_txn);
        if has(without)? {
            return Ok(());
        }
        while with.next() < without {
            let middle = TxnId::new(with.get().midpoint(without.get()));
            if has(middle)? {
                with = middle;
            } else {
                without = middle;
            }
        }
        table.drop_from(without);
        Ok(())
    }

    /// The id of the table named `name` in this state.
    pub(crate) fn table_id(&self, name: &str) -> Result<Option<TableId>> {
        let row = self.snapshot.get(TableId::NAMES, name.as_bytes())?;
        row.map(|row| decode_entry(name, &row)).transpose()
    }
}

/// A position in a table. Rows are borrowed until the next move.
///
/// ```
/// # fn main() -> northstardb::Result<()> {
/// # let db = northstardb::Db::memory()?;
/// # let table = db.table("t")?;
/// # let mut batch = northstardb::WriteBatch::new();
/// # batch.put(&table, "a", "1").put(&table, "c", "3");
/// # db.commit(batch)?;
/// let txn = db.begin_read()?;
/// let mut cursor = txn.cursor(&table)?;
/// assert_eq!(cursor.seek("b")?, Some((&b"c"[..], &b"3"[..])));
/// assert_eq!(cursor.prev()?, Some((&b"a"[..], &b"1"[..])));
/// # drop(cursor); drop(txn); db.close() }
/// ```
#[derive(Debug)]
pub struct Cursor<'t> {
    inner: SnapshotCursor<'t>,
}

impl Cursor<'_> {
    /// Moves to the first row at or after `key`.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Corrupt`], [`Error::Io`].
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<Option<(&[u8], &[u8])>> {
        check_len("key", key.as_ref().len(), limits::KEY_BYTES_MAX)?;
        self.inner.seek(key.as_ref())
    }

    /// Moves to the last row before `key`.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    pub fn seek_before(&mut self, key: impl AsRef<[u8]>) -> Result<Option<(&[u8], &[u8])>> {
        check_len("key", key.as_ref().len(), limits::KEY_BYTES_MAX)?;
        self.inner.seek_before(Some(key.as_ref()))
    }

    /// Moves to the first row.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    pub fn seek_first(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.inner.seek(&[])
    }

    /// Moves to the last row.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    pub fn seek_last(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.inner.seek_before(None)
    }

    /// Moves to the next row; to the first one on a new cursor. At the end it stays there.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    #[expect(
        clippy::should_implement_trait,
        reason = "rows borrow from the cursor, which Iterator cannot say"
    )]
    pub fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.inner.next()
    }

    /// Moves to the previous row; to the last one on a new cursor. At the start it stays there.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    pub fn prev(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.inner.prev()
    }
}

const _: () = {
    const fn shareable<T: Send + Sync + 'static>() {}
    shareable::<ReadTxn>();
    shareable::<Error>();
};
