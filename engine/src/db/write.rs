//! The exclusive write transaction: reads its own writes, alone while it lives.

use std::ops::{Deref, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Engine;
use super::range::{Span, span};
use super::read::ReadTxn;
use crate::delta::Mark;
use crate::error::{Error, Result};
use crate::format::record::{Op, OpMark, OpWriter};
use crate::ids::{TableId, TxnId};
use crate::limits;
use crate::txn::snapshot::Snapshot;
use crate::txn::table::{
    Table, TableOptions, Tables, check_len, check_name, encode_entry, made_so,
};
use crate::writer::core::{Core, apply_op};
use crate::writer::pipeline::Durability;
use crate::writer::wait::{Commit, Ticket};

/// A write transaction. It has the writer to itself: other commits wait until it commits, aborts or is dropped.
///
/// It reads like a [`ReadTxn`], and sees what it has written. Dropping it aborts. Committing from the same thread
/// by another way while it is open waits for itself, forever.
///
/// ```
/// # fn main() -> northstardb::Result<()> {
/// let db = northstardb::Db::memory()?;
/// let mut txn = db.begin_write()?;
/// let stock = txn.table("stock")?;
/// txn.put(&stock, "apples", "7")?;
/// let before = txn.savepoint();
/// txn.delete(&stock, "apples")?;
/// txn.rollback_to(&before)?;
/// assert_eq!(txn.get(&stock, "apples")?.as_deref(), Some(&b"7"[..]));
/// let commit = txn.commit()?;
/// assert_eq!(db.begin_read()?.txn_id(), commit.txn_id);
/// # db.close() }
/// ```
#[derive(Debug)]
pub struct WriteTxn {
    engine: Arc<Engine>,
    view: ReadTxn,
    /// Taken by commit and drop.
    core: Option<Box<Core>>,
    start: Mark,
    ops: OpWriter,
    tag: Vec<u8>,
    /// Tables dropped or created by this transaction, with the number of operations before it happened.
    table_changes: Vec<(u32, TableChange)>,
    /// The id it will commit as.
    serial: TxnId,
    /// Numbers of the savepoints that are still good, rising.
    savepoints: Vec<u64>,
}

#[derive(Debug)]
enum TableChange {
    Created(Table),
    Dropped(Table),
}

impl TableChange {
    fn undo(&self) {
        match self {
            Self::Created(table) => table.drop_from(TxnId::ZERO),
            Self::Dropped(table) => table.revive(),
        }
    }
}

/// A point in a write transaction to which it can go back.
#[derive(Debug)]
pub struct Savepoint {
    number: u64,
    point: Point,
}

/// Where a transaction's changes stood.
#[derive(Debug, Clone, Copy)]
struct Point {
    delta: Mark,
    ops: OpMark,
    op_count: u32,
}

impl Deref for WriteTxn {
    type Target = ReadTxn;

    fn deref(&self) -> &ReadTxn {
        &self.view
    }
}

impl WriteTxn {
    /// Begins, waiting for its turn.
    pub(super) fn wait_for(engine: &Arc<Engine>) -> Result<Self> {
        engine.before_commit()?;
        let mut core = engine.pipeline.take_core()?;
        // It sees what was submitted before it.
        engine.pipeline.serve_before_keeping(&mut core);
        Self::begin(Arc::clone(engine), core)
    }

    pub(crate) fn begin(engine: Arc<Engine>, core: Box<Core>) -> Result<Self> {
        let own = core.next_txn;
        let start = core.writer.mark();
        match Snapshot::own_writes(&engine.shapes, own) {
            Ok(snapshot) => Ok(Self {
                engine,
                view: ReadTxn { snapshot },
                core: Some(core),
                start,
                ops: OpWriter::new(),
                tag: Vec::new(),
                table_changes: Vec::new(),
                serial: own,
                savepoints: Vec::new(),
            }),
            Err(error) => {
                engine.pipeline.return_core(core);
                Err(error)
            }
        }
    }

    fn tables(&self) -> &Tables {
        &self.engine.shapes.shared.tables
    }

    fn core(&mut self) -> Result<&mut Core> {
        self.core.as_deref_mut().ok_or(Error::Closed)
    }

    /// Opens a table, creating it if this transaction does not see one of that name.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Corrupt`], [`Error::Io`].
    pub fn table(&mut self, name: &str) -> Result<Table> {
        check_name(name)?;
        match self.view.table_id(name)? {
            Some(id) => Ok(self.tables().handle(id, name)),
            None => self.make_table(name, TableOptions::new()),
        }
    }

    /// Opens a table, creating it as `options` say if this transaction does not see one of that name.
    ///
    /// # Errors
    /// As [`WriteTxn::table`]; [`Error::InvalidOption`] if the table was made otherwise.
    pub fn table_with(&mut self, name: &str, options: TableOptions) -> Result<Table> {
        check_name(name)?;
        match self.view.table_id(name)? {
            Some(id) => made_so(self.tables().handle(id, name), options),
            None => self.make_table(name, options),
        }
    }

    fn make_table(&mut self, name: &str, options: TableOptions) -> Result<Table> {
        let id = self.tables().new_id(options)?;
        self.name(name, id)?;
        let table = self.tables().handle(id, name);
        self.table_changes
            .push((self.ops.count(), TableChange::Created(table.clone())));
        Ok(table)
    }

    /// Renames a table; handles stay good.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::TableExists`], [`Error::TooLarge`].
    pub fn rename_table(&mut self, old: &str, new: &str) -> Result<()> {
        check_name(new)?;
        let Some(id) = self.view.table_id(old)? else {
            return Err(Error::UnknownTable {
                name: old.to_owned(),
            });
        };
        if old == new {
            return Ok(());
        }
        if self.view.table_id(new)?.is_some() {
            return Err(Error::TableExists {
                name: new.to_owned(),
            });
        }
        let before = self.point();
        self.unname(old)
            .and_then(|()| self.name(new, id))
            .inspect_err(|_| self.roll_back(&before))
    }

    /// Drops a table with all its rows; costs the same however many there are.
    ///
    /// # Errors
    /// [`Error::UnknownTable`].
    pub fn drop_table(&mut self, name: &str) -> Result<()> {
        let Some(id) = self.view.table_id(name)? else {
            return Err(Error::UnknownTable {
                name: name.to_owned(),
            });
        };
        let before = self.point();
        self.unname(name)
            .and_then(|()| self.change(Op::DropTable { table: id }))
            .inspect_err(|_| self.roll_back(&before))?;
        let table = self.tables().handle(id, name);
        table.drop_from(self.serial);
        self.table_changes
            .push((self.ops.count(), TableChange::Dropped(table)));
        Ok(())
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::TooLarge`] for the key, the value or the whole transaction. Nothing is
    /// changed then, and the transaction goes on.
    pub fn put(
        &mut self,
        table: &Table,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        let (key, value) = (key.as_ref(), value.as_ref());
        let table = self.view.resolve(table)?;
        check_len("key", key.len(), self.engine.key_bytes_max)?;
        check_len("value", value.len(), self.engine.value_bytes_max)?;
        self.change(Op::Put { table, key, value })
    }

    /// Removes `key`; fine if it is absent.
    ///
    /// # Errors
    /// As [`WriteTxn::put`].
    pub fn delete(&mut self, table: &Table, key: impl AsRef<[u8]>) -> Result<()> {
        let table = self.view.resolve(table)?;
        check_len("key", key.as_ref().len(), self.engine.key_bytes_max)?;
        self.change(Op::Delete {
            table,
            key: key.as_ref(),
        })
    }

    /// Removes every key in `range`; costs the same however many there are.
    ///
    /// # Errors
    /// As [`WriteTxn::put`].
    pub fn delete_range<B: AsRef<[u8]>>(
        &mut self,
        table: &Table,
        range: impl RangeBounds<B>,
    ) -> Result<()> {
        let table = self.view.resolve(table)?;
        match span(&range)? {
            Span::Empty => Ok(()),
            Span::Keys { from, to } => self.change(Op::DeleteRange {
                table,
                from: &from,
                to: to.as_deref(),
            }),
        }
    }

    /// Sets `key` to `new` (`None` removes it) if its value is `expected` (`None`: it is absent). Says whether it was.
    ///
    /// # Errors
    /// As [`WriteTxn::put`] and [`ReadTxn::get`].
    pub fn compare_and_swap(
        &mut self,
        table: &Table,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool> {
        let key = key.as_ref();
        if self.view.get(table, key)?.as_deref() != expected {
            return Ok(false);
        }
        match new {
            Some(value) => self.put(table, key, value)?,
            None => self.delete(table, key)?,
        }
        Ok(true)
    }

    /// Remembers this point of the transaction.
    pub fn savepoint(&mut self) -> Savepoint {
        // Never given twice in a process: a savepoint of another transaction is nobody else's.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.savepoints.push(number);
        Savepoint {
            number,
            point: self.point(),
        }
    }

    fn point(&self) -> Point {
        let delta = self
            .core
            .as_deref()
            .map_or(self.start, |core| core.writer.mark());
        Point {
            delta,
            ops: self.ops.mark(),
            op_count: self.ops.count(),
        }
    }

    /// Undoes everything since `savepoint`, which stays good. Savepoints taken later end to be good. The memory of what is
    /// undone is given back when the transaction ends.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a savepoint of another transaction, or one that was rolled back over.
    pub fn rollback_to(&mut self, savepoint: &Savepoint) -> Result<()> {
        let Ok(at) = self.savepoints.binary_search(&savepoint.number) else {
            return Err(Error::InvalidOption {
                option: "savepoint",
                found: "one of another transaction, or rolled back over".to_owned(),
                expected: format!("one of the {} that are good", self.savepoints.len()),
            });
        };
        self.savepoints.truncate(at + 1);
        self.roll_back(&savepoint.point);
        Ok(())
    }

    fn roll_back(&mut self, point: &Point) {
        if let Some(core) = self.core.as_deref_mut() {
            core.writer.rollback(point.delta);
        }
        self.ops.truncate(point.ops);
        while let Some((_, change)) = self
            .table_changes
            .pop_if(|(after, _)| *after > point.op_count)
        {
            change.undo();
        }
    }

    /// Attaches an opaque note of up to 1 KiB to the commit: who, why, from what. Kept in the commit record.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn set_tag(&mut self, tag: &[u8]) -> Result<()> {
        check_len("tag", tag.len(), limits::TAG_BYTES_MAX)?;
        self.tag = tag.to_vec();
        Ok(())
    }

    /// Commits durably. The writer is free for the next transaction before the record is on stable storage, so
    /// concurrent transactions share a flush.
    ///
    /// A transaction without changes commits nothing and answers with the id of the last commit it saw.
    ///
    /// # Errors
    /// [`Error::Full`]: nothing is changed. [`Error::Halted`]: the outcome is unknown until the database is reopened.
    pub fn commit(self) -> Result<Commit> {
        self.commit_with(Durability::Durable)
    }

    /// Commits with the chosen durability.
    ///
    /// # Errors
    /// As [`WriteTxn::commit`].
    pub fn commit_with(mut self, durability: Durability) -> Result<Commit> {
        let Some(mut core) = self.core.take() else {
            return Err(Error::Closed);
        };
        let pipeline = &self.engine.pipeline;
        if self.ops.is_empty() {
            core.writer.forget_marks();
            pipeline.return_core(core);
            // What it saw may still be in flight.
            pipeline.flush()?;
            let txn_id = TxnId::new(self.serial.get() - 1);
            return Ok(Commit {
                txn_id,
                lsn: crate::ids::Lsn::default(),
            });
        }
        let ticket = Ticket::blocking();
        let ops = std::mem::take(&mut self.ops);
        let time_ns = pipeline.time(&core);
        let appended = pipeline
            .claim_log(self.tag.len() + ops.bytes().len())
            .and_then(|claim| {
                core.note(time_ns, &self.tag)?;
                let record = (time_ns, &*self.tag, ops);
                pipeline.append(&mut core, record, (durability, Some(&ticket), claim))
            });
        if let Err(error) = appended {
            self.core = Some(core);
            // Dropping undoes it all.
            return Err(error);
        }
        core.writer.forget_marks();
        pipeline.return_core(core);
        pipeline.finish(&ticket, durability)
    }

    /// Ends the transaction and undoes all it did. Dropping it does the same.
    pub fn abort(self) {
        drop(self);
    }
}

impl Drop for WriteTxn {
    fn drop(&mut self) {
        if let Some(mut core) = self.core.take() {
            core.writer.rollback(self.start);
            core.writer.forget_marks();
            self.table_changes
                .drain(..)
                .rev()
                .for_each(|(_, change)| change.undo());
            self.engine.pipeline.after_rollback(&mut core);
            self.engine.pipeline.return_core(core);
        }
    }
}

// Changes without checks: the delta first, then the record, so that a refused change leaves no trace.
impl WriteTxn {
    fn change(&mut self, op: Op<'_>) -> Result<()> {
        let bytes = match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key, .. } => key.len(),
            Op::DeleteRange { from, to, .. } => from.len() + to.map_or(0, <[u8]>::len),
            Op::DropTable { .. } => 0,
        };
        // Table, lengths and kind of the operation, and a tag that may still come.
        let more = bytes + 32 + limits::TAG_BYTES_MAX;
        check_len(
            "transaction",
            self.ops.bytes().len() + more,
            limits::RECORD_BYTES_MAX,
        )?;
        let txn = self.serial;
        apply_op(&mut self.core()?.writer, &op, txn)?;
        self.ops.push(op);
        Ok(())
    }

    fn name(&mut self, name: &str, id: TableId) -> Result<()> {
        self.put_own(TableId::NAMES, name.as_bytes(), &encode_entry(id))
    }

    fn unname(&mut self, name: &str) -> Result<()> {
        self.delete_own(TableId::NAMES, name.as_bytes())
    }

    /// Puts a row into a table of the database's own.
    pub(super) fn put_own(&mut self, table: TableId, key: &[u8], value: &[u8]) -> Result<()> {
        self.change(Op::Put { table, key, value })
    }

    /// Deletes a row of a table of the database's own.
    pub(super) fn delete_own(&mut self, table: TableId, key: &[u8]) -> Result<()> {
        self.change(Op::Delete { table, key })
    }

    /// The wall clock.
    pub(super) fn now_ns(&self) -> u64 {
        self.engine.pipeline.now()
    }
}
