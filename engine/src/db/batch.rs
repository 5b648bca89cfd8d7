//! Batches: changes gathered without a transaction, committed as one.

use std::ops::RangeBounds;

use super::range::{Span, span};
use crate::error::{Error, Result};
use crate::format::record::OpWriter;
use crate::limits;
use crate::txn::table::{Table, check_len};
use crate::writer::pipeline::Durability;

/// Changes that become one transaction: all or none, in the order they were added.
///
/// Building a batch touches no database; [`Db::commit`](crate::Db::commit) and [`Db::submit`](crate::Db::submit) do.
/// Errors of single calls are kept and reported by the commit, so calls can be chained.
///
/// ```
/// # fn main() -> northstardb::Result<()> {
/// let db = northstardb::Db::memory()?;
/// let users = db.table("users")?;
/// let mut batch = northstardb::WriteBatch::new();
/// batch.put(&users, "ada", "1815").put(&users, "grace", "1906").delete(&users, "nobody");
/// db.commit(batch)?;
/// assert_eq!(db.begin_read()?.get(&users, "ada")?.as_deref(), Some(&b"1815"[..]));
/// # db.close() }
/// ```
#[derive(Debug, Default)]
pub struct WriteBatch {
    pub(crate) ops: OpWriter,
    pub(crate) tables: Vec<Table>,
    pub(crate) tag: Vec<u8>,
    pub(crate) durability: Durability,
    /// The longest key and value so far.
    key_bytes_max: usize,
    value_bytes_max: usize,
    failed: Option<Error>,
}

impl WriteBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(
        &mut self,
        table: &Table,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut Self {
        let (key, value) = (key.as_ref(), value.as_ref());
        let checked = check_len("key", key.len(), limits::KEY_BYTES_MAX);
        // The database's own limit is checked at commit; this one bounds what a batch may hold at all.
        let checked = checked.and(check_len("value", value.len(), limits::RECORD_BYTES_MAX));
        northstar_io::regressions::at_put();
        if self.accept(table, checked) {
            self.key_bytes_max = self.key_bytes_max.max(key.len());
            self.value_bytes_max = self.value_bytes_max.max(value.len());
            self.ops.put(table.table_id(), key, value);
        }
        self
    }

    /// Removes `key`; fine if it is absent.
    pub fn delete(&mut self, table: &Table, key: impl AsRef<[u8]>) -> &mut Self {
        let key = key.as_ref();
        if self.accept(table, check_len("key", key.len(), limits::KEY_BYTES_MAX)) {
            self.key_bytes_max = self.key_bytes_max.max(key.len());
            self.ops.delete(table.table_id(), key);
        }
        self
    }

    /// Removes every key in `range`.
    pub fn delete_range<B: AsRef<[u8]>>(
        &mut self,
        table: &Table,
        range: impl RangeBounds<B>,
    ) -> &mut Self {
        let checked = span(&range);
        let (checked, found) = match checked {
            Ok(span) => (Ok(()), Some(span)),
            Err(error) => (Err(error), None),
        };
        if self.accept(table, checked)
            && let Some(span) = found
            && let Span::Keys { from, to } = span
        {
            self.ops
                .delete_range(table.table_id(), &from, to.as_deref());
        }
        self
    }

    /// Adds all changes of another batch behind those of this one: so what was gathered apart becomes one transaction, as what
    /// [`Db::revert`](crate::Db::revert) gives for several tables. The other's tag and durability are not taken over.
    ///
    /// ```
    /// # fn main() -> northstardb::Result<()> {
    /// # let db = northstardb::Options::new().history(northstardb::Retention::All).memory()?;
    /// # let (accounts, journal) = (db.table("accounts")?, db.table("journal")?);
    /// let before = db.begin_read()?.txn_id();
    /// let mut batch = northstardb::WriteBatch::new();
    /// batch.put(&accounts, "ada", "90").put(&journal, "1", "ada -10");
    /// let after = db.commit(batch)?.txn_id;
    /// let mut undo = db.revert(&accounts, before, after)?;
    /// undo.append(db.revert(&journal, before, after)?);
    /// db.commit(undo)?;
    /// assert!(db.begin_read()?.get(&journal, "1")?.is_none());
    /// # db.close() }
    /// ```
    pub fn append(&mut self, other: Self) -> &mut Self {
        if let Some(error) = other.failed {
            self.failed = self.failed.take().or(Some(error));
        }
        let takes = |batch: &mut Self, table| batch.accept(table, Ok(()));
        if self.failed.is_none() && other.tables.iter().all(|table| takes(self, table)) {
            self.key_bytes_max = self.key_bytes_max.max(other.key_bytes_max);
            self.value_bytes_max = self.value_bytes_max.max(other.value_bytes_max);
            self.ops.append(&other.ops);
        }
        self
    }

    /// Attaches an opaque note of up to 1 KiB to the commit: who, why, from what. Kept in the commit record.
    pub fn tag(&mut self, tag: &[u8]) -> &mut Self {
        match check_len("tag", tag.len(), limits::TAG_BYTES_MAX) {
            Ok(()) => self.tag = tag.to_vec(),
            Err(error) => self.failed = self.failed.take().or(Some(error)),
        }
        self
    }

    /// Chooses when the commit is acknowledged. Default [`Durability::Durable`].
    pub fn durability(&mut self, durability: Durability) -> &mut Self {
        self.durability = durability;
        self
    }

    /// How many changes the batch holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.count() as usize
    }

    /// Whether the batch holds no change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    fn accept(&mut self, table: &Table, checked: Result<()>) -> bool {
        if let Err(error) = checked {
            self.failed = self.failed.take().or(Some(error));
        }
        if self.failed.is_some() {
            return false;
        }
        let known = self.tables.last().is_some_and(|last| last.is(table))
            || self.tables.iter().any(|known| known.is(table));
        if !known {
            self.tables.push(table.clone());
        }
        true
    }

    /// Fails with the first error a call ran into, or if the batch is beyond a limit.
    pub(crate) fn check(&mut self, key_bytes_max: usize, value_bytes_max: usize) -> Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        check_len("value", self.value_bytes_max, value_bytes_max)?;
        check_len("key", self.key_bytes_max, key_bytes_max)?;
        let together = self.ops.bytes().len() + self.tag.len();
        check_len("transaction", together, limits::RECORD_BYTES_MAX)
    }
}
