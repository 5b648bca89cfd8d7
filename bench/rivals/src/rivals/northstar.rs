//! NorthstarDB.

use std::ops::ControlFlow;
use std::path::Path;

use northstardb::{Db, Options, ReadTxn, Retention, Table, WriteBatch};

use crate::error::{Result, engine};
use crate::generator::Key;
use crate::rival::{Change, Op, Rival, Seen, Session, Setup, Snapshot, Source, Visit, Work};

/// Delta of a database whose budget is small: a sixteenth of it, so that pages get the larger part.
const DELTA_PART: u64 = 16;

struct Northstar {
    db: Db,
    table: Table,
}

pub(super) fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Rival>> {
    let options = Options::new();
    let options = match setup.memory_bytes {
        Some(bytes) => options
            .memory_budget(bytes as usize)
            .delta_bytes((bytes / DELTA_PART) as usize),
        None => options.memory_budget(setup.cache_bytes as usize),
    };
    let options = match setup.history {
        true => options,
        false => options.history(Retention::None),
    };
    let db = options.open(dir).map_err(engine)?;
    let table = db.table("rows").map_err(engine)?;
    Ok(Box::new(Northstar { db, table }))
}

impl Rival for Northstar {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(NorthstarSession(self)))
    }

    fn settle(&self) -> Result<()> {
        self.db.checkpoint().map_err(engine)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.db.close().map_err(engine)
    }
}

struct NorthstarSession<'a>(&'a Northstar);

impl Session for NorthstarSession<'_> {
    fn load(&mut self, next: &mut Source<'_>) -> Result<()> {
        let (mut batch, mut value) = (WriteBatch::new(), Vec::new());
        while let Some(key) = next(&mut value) {
            batch.put(&self.0.table, key, &value);
        }
        self.0.db.commit(batch).map_err(engine)?;
        Ok(())
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        let mut batch = WriteBatch::new();
        for op in ops {
            match &op.value {
                Some(value) => batch.put(&self.0.table, op.key, value),
                None => batch.delete(&self.0.table, op.key),
            };
        }
        self.0.db.commit(batch).map_err(engine)?;
        Ok(())
    }

    fn modify(&mut self, key: &Key, change: &mut Change<'_>) -> Result<()> {
        let mut txn = self.0.db.begin_write().map_err(engine)?;
        let value = change(txn.get(&self.0.table, key).map_err(engine)?.as_deref())?;
        txn.put(&self.0.table, key, value).map_err(engine)?;
        txn.commit().map_err(engine)?;
        Ok(())
    }

    fn read(&mut self, work: &mut Work<'_>) -> Result<()> {
        let txn = self.0.db.begin_read().map_err(engine)?;
        work(&mut NorthstarSnapshot {
            txn,
            table: &self.0.table,
        })
    }
}

struct NorthstarSnapshot<'a> {
    txn: ReadTxn,
    table: &'a Table,
}

impl Snapshot for NorthstarSnapshot<'_> {
    fn get(&mut self, key: &Key, seen: &mut dyn FnMut(Option<&[u8]>)) -> Result<()> {
        self.txn.get_with(self.table, key, seen).map_err(engine)
    }

    fn multi_get(&mut self, keys: &[Key], seen: &mut Seen<'_>) -> Result<()> {
        let values = self.txn.multi_get(self.table, keys).map_err(engine)?;
        for (index, value) in values.iter().enumerate() {
            seen(index, value.as_deref());
        }
        Ok(())
    }

    fn scan(&mut self, from: &Key, visit: &mut Visit<'_>) -> Result<()> {
        let rows = from.as_slice()..;
        let go_on = |key: &[u8], value: &[u8]| match visit(key, value) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        };
        self.txn.scan(self.table, rows, go_on).map_err(engine)
    }
}
