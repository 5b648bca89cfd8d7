//! What happened between two states: the versions of a key, the keys that differ, and how to take changes back.
//!
//! Spec: SE-019.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Db;
use super::batch::WriteBatch;
use super::changed::Between;
use super::moments::{tag_of, time_of};
use super::read::Value;
use crate::delta::Hit;
use crate::error::{Error, Result};
use crate::format::leaf::RowValue;
use crate::history;
use crate::ids::{TableId, TxnId};
use crate::limits;
use crate::pages::Class;
use crate::tree::cursor::Cursor as TreeCursor;
use crate::tree::overflow::read_extent;
use crate::txn::snapshot::Snapshot;
use crate::txn::table::{Table, check_len};

/// One version of a key: what a transaction left there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Version {
    /// Who wrote or deleted it.
    pub txn: TxnId,
    /// The value; `None` if the key was deleted.
    pub value: Option<Vec<u8>>,
    /// When that was committed, to the millisecond, if it was noted.
    pub time: Option<SystemTime>,
    /// The tag it carried.
    pub tag: Option<Vec<u8>>,
}

/// A key whose value differs between two states.
#[derive(Debug)]
#[non_exhaustive]
pub struct Difference<'d> {
    /// The key.
    pub key: &'d [u8],
    /// Its value in the first state.
    pub before: Option<Value<'d>>,
    /// Its value in the second.
    pub after: Option<Value<'d>>,
}

impl Db {
    /// The versions of a key that transactions of a range wrote, oldest first, deletions among them. Complete from the horizon
    /// on; of what was before, those are listed that were still there.
    ///
    /// ```
    /// # fn main() -> northstardb::Result<()> {
    /// let db = northstardb::Options::new().history(northstardb::Retention::All).memory()?;
    /// let table = db.table("t")?;
    /// for value in ["one", "two"] {
    ///     let mut txn = db.begin_write()?;
    ///     txn.put(&table, "k", value)?;
    ///     txn.set_tag(value.as_bytes())?;
    ///     txn.commit()?;
    /// }
    /// let versions = db.history(&table, "k", ..)?;
    /// assert_eq!(versions.len(), 2);
    /// assert_eq!(versions[1].value.as_deref(), Some(&b"two"[..]));
    /// assert_eq!(versions[0].tag.as_deref(), Some(&b"one"[..]));
    /// # Ok(()) }
    /// ```
    ///
    /// Memory and time grow with the versions of the key.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::NoHistory`], [`Error::TooLarge`], [`Error::Corrupt`], [`Error::Io`],
    /// [`Error::Closed`].
    pub fn history(
        &self,
        table: &Table,
        key: impl AsRef<[u8]>,
        txns: impl RangeBounds<TxnId>,
    ) -> Result<Vec<Version>> {
        let key = key.as_ref();
        check_len("key", key.len(), limits::KEY_BYTES_MAX)?;
        let snapshot = Snapshot::newest(&self.engine()?.shapes, None)?;
        let table = self.ever(table)?;
        let versions = versions(&snapshot, table, key, &txns)?;
        versions
            .into_iter()
            .map(|(txn, value)| {
                let time = time_of(&snapshot, txn)?;
                Ok(Version {
                    txn,
                    value,
                    time: time.map(|time| UNIX_EPOCH + Duration::from_nanos(time)),
                    tag: tag_of(&snapshot, txn)?,
                })
            })
            .collect()
    }

    /// Calls `visit` with every key of a table whose value differs between the states after `before` and after `after`, in
    /// key order, until it breaks.
    ///
    /// Memory grows with the keys changed. Time does with what was committed between the two states, to whole segments of the log,
    /// where that still has it ([`Options::log_retention`](crate::Options::log_retention)), or with the table's changes since `before`, whichever is less.
    /// Read are, for the latter, the table's versions in those runs of history that reach beyond `before`, and those of its pages
    /// that were written after the last checkpoint at or before it; all its pages, if no checkpoint since history began is
    /// as old.
    ///
    /// # Errors
    /// [`Error::SnapshotGone`], [`Error::UnknownTable`], [`Error::NoHistory`], [`Error::InvalidOption`] where `before` is the later one,
    /// [`Error::Corrupt`], [`Error::Io`], [`Error::Closed`].
    pub fn diff(
        &self,
        table: &Table,
        before: TxnId,
        after: TxnId,
        mut visit: impl FnMut(Difference<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        if before > after {
            return Err(Error::InvalidOption {
                option: "before",
                found: before.to_string(),
                expected: format!("at most {after}"),
            });
        }
        let table = self.ever(table)?;
        let engine = self.engine()?;
        let shapes = &engine.shapes;
        let then = Snapshot::at(shapes, before, None)?;
        // Both of the newer shape, which has all that happened in between.
        let now = Snapshot::at(shapes, after, None)?;
        let horizon = now.shape().history.horizon;
        if before < horizon {
            return Err(Error::SnapshotGone {
                asked: before,
                horizon,
                newest: shapes.shared.visible(),
            });
        }
        let between = Between {
            table,
            then: &then,
            now: &now,
        };
        for key in &between.changed_keys(engine)? {
            let (before, after) = (then.get(table, key)?, now.get(table, key)?);
            if before.as_deref() == after.as_deref() {
                continue;
            }
            let difference = Difference { key, before, after };
            if visit(difference).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// A batch that gives every key of a table whose value differs between the states after `before` and after `after` the
    /// value it had at `before`. What came later to the same keys is overwritten with it; other keys are left alone. Nothing is
    /// committed.
    ///
    /// Of several tables, [`WriteBatch::append`] makes one transaction.
    ///
    /// It is about rows: a table that was made, renamed or dropped in between stays so, and where it was dropped the commit answers
    /// [`Error::UnknownTable`]. What is too much for one transaction is answered by the commit, too, with [`Error::TooLarge`].
    ///
    /// # Errors
    /// As [`Db::diff`].
    pub fn revert(&self, table: &Table, before: TxnId, after: TxnId) -> Result<WriteBatch> {
        let mut batch = WriteBatch::new();
        self.diff(table, before, after, |difference| {
            match &difference.before {
                Some(value) => batch.put(table, difference.key, value),
                None => batch.delete(table, difference.key),
            };
            ControlFlow::Continue(())
        })?;
        Ok(batch)
    }

    /// The id of a table of this database of which history is kept, dropped or not.
    fn ever(&self, table: &Table) -> Result<TableId> {
        let shared = &self.engine()?.shapes.shared;
        let table = table.resolve(shared.tables.instance, TxnId::ZERO)?;
        match table.keeps_history() {
            true => Ok(table),
            false => Err(Error::NoHistory { table: table.get() }),
        }
    }
}

type Versions = BTreeMap<TxnId, Option<Vec<u8>>>;

fn versions(
    snapshot: &Snapshot,
    table: TableId,
    key: &[u8],
    txns: &impl RangeBounds<TxnId>,
) -> Result<Versions> {
    let shape = snapshot.shape();
    let store = &*shape.shared.store;
    let mut found = Versions::new();
    let owned = |value: RowValue<'_>| match value {
        RowValue::Inline(value) => Ok(value.to_vec()),
        RowValue::Extent(extent) => read_extent(store, &extent, store.page_bytes(), Class::Point),
    };
    // Values that nobody asked for are not read.
    let wanted = |txn: TxnId, value: RowValue<'_>| match txns.contains(&txn) {
        true => owned(value),
        false => Ok(Vec::new()),
    };
    history::versions(store, &shape.history.runs, table, key, |from, to, value| {
        found.insert(from, Some(wanted(from, value)?));
        // Deleted, unless somebody wrote it then; before the horizon that somebody may be forgotten.
        if to > shape.history.horizon {
            found.entry(to).or_insert(None);
        }
        Ok(())
    })?;
    let root = shape.roots.get(table).map(|root| root.page);
    let mut tree = TreeCursor::new(store, root, Class::Point);
    tree.seek(Bound::Included(key))?;
    if let Some(row) = tree.row().filter(|row| row.key == key) {
        found.insert(row.txn, Some(wanted(row.txn, row.value)?));
    }
    let mut events: Vec<Hit<'_>> = Vec::new();
    for delta in shape.deltas() {
        delta.events(table, key, &mut events);
        for event in &events {
            if event.txn <= snapshot.txn() {
                found.insert(event.txn, event.value.map(<[u8]>::to_vec));
            }
        }
    }
    // Deleting what is not there is no version.
    let mut is_there = false;
    found.retain(|_, value| {
        let was_there = std::mem::replace(&mut is_there, value.is_some());
        is_there || was_there
    });
    found.retain(|txn, _| txns.contains(txn));
    Ok(found)
}
