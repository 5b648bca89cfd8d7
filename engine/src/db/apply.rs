//! Applying another database's commit stream: a copy that is the same, transaction by transaction.
//!
//! Spec: SE-021.

use std::sync::Arc;

use northstar_io::planted::planted;

use super::log::{Transaction, damaged};
use super::{Db, Engine};
use crate::delta::WARM_KEYS;
use crate::error::{Error, Result};
use crate::format::record::{Op, OpWriter, Ops};
use crate::ids::TxnId;
use crate::txn::table::check_len;
use crate::writer::core::{Core, is_of_known_table, warm};
use crate::writer::pipeline::Durability;

/// Applies transactions of another database's log, under their own ids, times and tags: see [`Db::begin_apply`].
///
/// It has the writer to itself while it lives, as a write transaction has. What was pushed becomes durable in groups, and all
/// of it by [`Apply::finish`]; dropped, it leaves that to happen a little later.
#[derive(Debug)]
pub struct Apply {
    engine: Arc<Engine>,
    /// Taken by finish and drop.
    core: Option<Box<Core>>,
    /// Pushed and not applied yet: what they look at is fetched for all of them at once.
    pushed: Vec<Transaction>,
}

impl Db {
    /// Begins to apply transactions of another database's [`Log`](crate::Log) to this one, which must be as that one was before
    /// the first of them: empty, restored from a backup of it, or itself made by applying what came before. Nothing
    /// else may be committed to it, or the ids go apart.
    ///
    /// ```
    /// # fn main() -> northstardb::Result<()> {
    /// # use northstardb::{Db, LogFilter, TxnId};
    /// # let db = Db::memory()?;
    /// # let table = db.table("t")?;
    /// # let mut txn = db.begin_write()?;
    /// # txn.put(&table, "a", "1")?;
    /// # txn.commit()?;
    /// let copy = Db::memory()?;
    /// let mut apply = copy.begin_apply()?;
    /// let mut tail = db.log()?.tail(apply.next(), LogFilter::every_transaction())?;
    /// while let Some(transaction) = tail.try_next()? {
    ///     apply.push(transaction)?;
    /// }
    /// apply.finish()?;
    /// assert_eq!(copy.begin_read()?.state_hash()?, db.begin_read()?.state_hash()?);
    /// # drop(tail); copy.close()?; db.close() }
    /// ```
    ///
    /// # Errors
    /// As [`Db::begin_write`].
    pub fn begin_apply(&self) -> Result<Apply> {
        let engine = self.writable()?;
        engine.before_commit()?;
        let mut core = engine.pipeline.take_core()?;
        engine.pipeline.serve_before_keeping(&mut core);
        Ok(Apply {
            engine: Arc::clone(engine),
            core: Some(core),
            pushed: Vec::with_capacity(WARM_KEYS),
        })
    }
}

impl Apply {
    /// The transaction that must be pushed next.
    #[must_use]
    pub fn next(&self) -> TxnId {
        let next = self.core.as_deref().map_or(0, |core| core.next_txn.get());
        TxnId::new(next + self.pushed.len() as u64)
    }

    /// Applies a transaction, or takes it to be applied with those that follow. It may wait for checkpoints, as commits do.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for another than [`Apply::next`]: nothing is changed then. [`Error::Corrupt`] for one that
    /// changes a table which was never made: neither it nor what was pushed after it is applied, and the same is pushed
    /// next again. [`Error::TooLarge`], likewise, for one with a key that the pages of this database are too small for.
    /// [`Error::Full`], [`Error::Halted`].
    pub fn push(&mut self, transaction: Transaction) -> Result<()> {
        let next = self.next();
        if transaction.txn_id() != next {
            return Err(Error::InvalidOption {
                option: "transaction",
                found: transaction.txn_id().to_string(),
                expected: format!("{next}, which comes next"),
            });
        }
        self.pushed.push(transaction);
        if self.pushed.len() < WARM_KEYS {
            return Ok(());
        }
        self.apply_pushed()
    }

    fn apply_pushed(&mut self) -> Result<()> {
        let mut pushed = std::mem::take(&mut self.pushed);
        let core = self.core.as_mut().ok_or(Error::Closed)?;
        let ops = pushed.iter().map(|transaction| {
            let (bytes, count) = transaction.encoded();
            Ops::new(bytes, count)
        });
        warm(&core.writer, ops);
        let mut all = pushed.drain(..);
        all.try_for_each(|transaction| self.apply(transaction))?;
        drop(all);
        self.pushed = pushed;
        Ok(())
    }

    fn apply(&mut self, transaction: Transaction) -> Result<()> {
        let engine = &self.engine;
        engine.before_commit()?;
        let core = self.core.as_mut().ok_or(Error::Closed)?;
        let (bytes, count) = transaction.encoded();
        let tables = &engine.shapes.shared.tables;
        let mut next_table = tables.next_id();
        let mut dropped = Vec::new();
        for op in Ops::new(bytes, count) {
            let op = op.map_err(|error| damaged(error.to_string()))?;
            if !is_of_known_table(&op, &mut next_table)? {
                let (txn, table) = (transaction.txn_id(), op.table());
                return Err(damaged(format!(
                    "{txn} changes {table:?}, which was never given out; the next new table is {next_table:?}"
                )));
            }
            if let Op::Put { key, .. } | Op::Delete { key, .. } = op {
                check_len("key", key.len(), engine.key_bytes_max)?;
            }
            if let Op::DropTable { table } = op {
                dropped.push(table);
            }
        }
        let time_ns = transaction.time_ns();
        let claim = (engine.pipeline).claim_log(transaction.tag().len() + bytes.len())?;
        let (bytes, count, tag) = transaction.into_encoded();
        let ops = OpWriter::from_encoded(bytes, count);
        core.apply(&ops, time_ns, &tag)?;
        if !planted("a copy gives ids of tables that it has seen again") {
            tables.raise_next(next_table);
        }
        let txn = core.next_txn;
        for table in dropped {
            tables.handle(table, "").drop_from(txn);
        }
        let record = (time_ns, &*tag, ops);
        let nobody_waits = (Durability::Buffered, None, claim);
        engine.pipeline.append(core, record, nobody_waits)
    }

    /// Ends, once all that was pushed is durable; the last transaction of it.
    ///
    /// # Errors
    /// As [`Apply::push`].
    pub fn finish(mut self) -> Result<TxnId> {
        self.apply_pushed()?;
        let core = self.core.take().ok_or(Error::Closed)?;
        let last = TxnId::new(core.next_txn.get() - 1);
        self.engine.pipeline.return_core(core);
        self.engine.pipeline.flush()?;
        Ok(last)
    }
}

impl Drop for Apply {
    fn drop(&mut self) {
        // What was pushed is applied if it can be; whoever asks `next` of another one learns how far that went.
        let _tried = self.apply_pushed();
        if let Some(core) = self.core.take() {
            self.engine.pipeline.return_core(core);
            self.engine.pipeline.flush_later();
        }
    }
}
