//! redb.

use std::path::Path;

use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition,
    WriteTransaction,
};

use crate::error::{Result, engine};
use crate::generator::Key;
use crate::rival::{Change, Op, Rival, Session, Setup, Snapshot, Source, Visit, Work};

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

struct Redb(Database);

pub(super) fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Rival>> {
    std::fs::create_dir_all(dir).map_err(engine)?;
    let file = dir.join("rows.redb");
    let is_there = file.exists();
    let mut builder = Database::builder();
    let builder = builder.set_cache_size(setup.cache_bytes as usize);
    let redb = Redb(builder.create(file).map_err(engine)?);
    if is_there {
        // Opening is timed: no commit belongs to it.
        return Ok(Box::new(redb));
    }
    let txn = redb.begin()?;
    drop(txn.open_table(ROWS).map_err(engine)?);
    txn.commit().map_err(engine)?;
    Ok(Box::new(redb))
}

impl Redb {
    fn begin(&self) -> Result<WriteTransaction> {
        let mut txn = self.0.begin_write().map_err(engine)?;
        txn.set_durability(Durability::Immediate).map_err(engine)?;
        Ok(txn)
    }
}

impl Rival for Redb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(RedbSession(self)))
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.0.close().map_err(engine)
    }
}

struct RedbSession<'a>(&'a Redb);

impl Session for RedbSession<'_> {
    fn load(&mut self, next: &mut Source<'_>) -> Result<()> {
        let txn = self.0.begin()?;
        let mut rows = txn.open_table(ROWS).map_err(engine)?;
        let mut value = Vec::new();
        while let Some(key) = next(&mut value) {
            rows.insert(key.as_slice(), value.as_slice())
                .map_err(engine)?;
        }
        drop(rows);
        txn.commit().map_err(engine)
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        let txn = self.0.begin()?;
        let mut rows = txn.open_table(ROWS).map_err(engine)?;
        for op in ops {
            let key = op.key.as_slice();
            match &op.value {
                Some(value) => drop(rows.insert(key, &**value).map_err(engine)?),
                None => drop(rows.remove(key).map_err(engine)?),
            }
        }
        drop(rows);
        txn.commit().map_err(engine)
    }

    fn modify(&mut self, key: &Key, change: &mut Change<'_>) -> Result<()> {
        let txn = self.0.begin()?;
        let mut rows = txn.open_table(ROWS).map_err(engine)?;
        let old = rows.get(key.as_slice()).map_err(engine)?;
        let value = change(old.as_ref().map(redb::AccessGuard::value))?;
        drop(old);
        rows.insert(key.as_slice(), &*value).map_err(engine)?;
        drop(rows);
        txn.commit().map_err(engine)
    }

    fn read(&mut self, work: &mut Work<'_>) -> Result<()> {
        let txn = self.0.0.begin_read().map_err(engine)?;
        work(&mut RedbSnapshot(txn.open_table(ROWS).map_err(engine)?))
    }
}

struct RedbSnapshot(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Snapshot for RedbSnapshot {
    fn get(&mut self, key: &Key, seen: &mut dyn FnMut(Option<&[u8]>)) -> Result<()> {
        let value = self.0.get(key.as_slice()).map_err(engine)?;
        seen(value.as_ref().map(redb::AccessGuard::value));
        Ok(())
    }

    fn scan(&mut self, from: &Key, visit: &mut Visit<'_>) -> Result<()> {
        for row in self.0.range(from.as_slice()..).map_err(engine)? {
            let (key, value) = row.map_err(engine)?;
            if !visit(key.value(), value.value()) {
                break;
            }
        }
        Ok(())
    }
}
