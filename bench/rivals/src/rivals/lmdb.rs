//! LMDB, through heed.
#![expect(
    unsafe_code,
    reason = "heed cannot know that nobody else opens the directory"
)]

use std::ops::Bound;
use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, RoTxn, WithTls};

use crate::error::{Result, engine};
use crate::generator::Key;
use crate::rival::{Change, Op, Rival, Session, Setup, Snapshot, Source, Visit, Work};

/// Address space set aside: more than any row stores.
const MAP_BYTES: usize = 64 << 30;
/// More than any row has threads.
const READERS: u32 = 512;

type Rows = Database<'static, Bytes, Bytes>;

struct Lmdb {
    env: Env,
    rows: Rows,
}

pub(super) fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Rival>> {
    std::fs::create_dir_all(dir).map_err(engine)?;
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES).max_readers(READERS).max_dbs(1);
    if setup.memory_bytes.is_some() {
        // "improves random read performance when the DB is larger than RAM".
        // SAFETY: MDB_NORDAHEAD changes nothing about what is promised.
        unsafe { options.flags(EnvFlags::NO_READ_AHEAD) };
    }
    // SAFETY: the directory belongs to this run, and only one process has it open at a time.
    let env = unsafe { options.open(dir) }.map_err(engine)?;
    let txn = env.write_txn().map_err(engine)?;
    let made = env.create_databases_and_commit(txn, |opener, txn| {
        let rows = opener.create_database::<Bytes, Bytes>(txn, Some("rows"));
        rows.map(CommitOrAbort::<_, ()>::Commit)
    });
    let made: Result<_, heed::Error> = made;
    let rows = made.map_err(engine)?.unwrap_commit();
    Ok(Box::new(Lmdb { env, rows }))
}

impl Rival for Lmdb {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(LmdbSession(self)))
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

struct LmdbSession<'a>(&'a Lmdb);

impl Session for LmdbSession<'_> {
    fn load(&mut self, next: &mut Source<'_>) -> Result<()> {
        let mut txn = self.0.env.write_txn().map_err(engine)?;
        let mut value = Vec::new();
        while let Some(key) = next(&mut value) {
            let rows = &self.0.rows;
            rows.put_with_flags(&mut txn, PutFlags::APPEND, &key, &value)
                .map_err(engine)?;
        }
        txn.commit().map_err(engine)
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        let mut txn = self.0.env.write_txn().map_err(engine)?;
        for op in ops {
            match &op.value {
                Some(value) => self.0.rows.put(&mut txn, &op.key, value).map_err(engine)?,
                None => drop(self.0.rows.delete(&mut txn, &op.key).map_err(engine)?),
            }
        }
        txn.commit().map_err(engine)
    }

    fn modify(&mut self, key: &Key, change: &mut Change<'_>) -> Result<()> {
        let mut txn = self.0.env.write_txn().map_err(engine)?;
        let value = change(self.0.rows.get(&txn, key).map_err(engine)?)?;
        self.0.rows.put(&mut txn, key, &value).map_err(engine)?;
        txn.commit().map_err(engine)
    }

    fn read(&mut self, work: &mut Work<'_>) -> Result<()> {
        let txn = self.0.env.read_txn().map_err(engine)?;
        work(&mut LmdbSnapshot {
            txn,
            rows: self.0.rows,
        })
    }
}

struct LmdbSnapshot<'a> {
    txn: RoTxn<'a, WithTls>,
    rows: Rows,
}

impl Snapshot for LmdbSnapshot<'_> {
    fn get(&mut self, key: &Key, seen: &mut dyn FnMut(Option<&[u8]>)) -> Result<()> {
        seen(self.rows.get(&self.txn, key).map_err(engine)?);
        Ok(())
    }

    fn scan(&mut self, from: &Key, visit: &mut Visit<'_>) -> Result<()> {
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(from), Bound::Unbounded);
        for row in self.rows.range(&self.txn, &range).map_err(engine)? {
            let (key, value) = row.map_err(engine)?;
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}
