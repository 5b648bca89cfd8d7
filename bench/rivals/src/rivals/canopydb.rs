//! canopydb.

use std::path::Path;

use canopydb::{Database, DbOptions, EnvOptions, ReadTransaction, Tree, WriteTransaction};

use crate::error::{Error, Result, engine};
use crate::generator::Key;
use crate::rival::{Change, Op, Rival, Session, Setup, Snapshot, Source, Visit, Work};

const ROWS: &[u8] = b"rows";
/// Parts of small memory: changes until a checkpoint starts, and until writers wait for it.
const CHECKPOINT_PART: usize = 16;
const STALL_PART: usize = 4;

struct Canopy(Database);

pub(super) fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Rival>> {
    let is_there = dir.exists();
    std::fs::create_dir_all(dir).map_err(engine)?;
    let mut env = EnvOptions::new(dir);
    env.page_cache_size = setup.cache_bytes as usize;
    let mut options = DbOptions::new();
    options.default_commit_sync = true;
    if let Some(bytes) = setup.memory_bytes {
        let bytes = bytes as usize;
        options.checkpoint_target_size = bytes / CHECKPOINT_PART;
        options.write_txn_memory_limit = bytes / CHECKPOINT_PART;
        options.throttle_memory_limit = bytes / STALL_PART;
        options.stall_memory_limit = bytes / STALL_PART;
    }
    let db = Database::with_options(env, options).map_err(engine)?;
    if is_there {
        // Opening is timed: no commit belongs to it.
        return Ok(Box::new(Canopy(db)));
    }
    let txn = db.begin_write().map_err(engine)?;
    drop(txn.get_or_create_tree(ROWS).map_err(engine)?);
    txn.commit().map_err(engine)?;
    Ok(Box::new(Canopy(db)))
}

impl Rival for Canopy {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(CanopySession(self)))
    }

    fn settle(&self) -> Result<()> {
        self.0.checkpoint().map_err(engine)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.0.sync().map_err(engine)
    }
}

struct CanopySession<'a>(&'a Canopy);

impl CanopySession<'_> {
    fn write(&self, work: impl FnOnce(&mut Tree<'_>) -> Result<()>) -> Result<()> {
        let txn: WriteTransaction = self.0.0.begin_write().map_err(engine)?;
        let mut rows = txn.get_or_create_tree(ROWS).map_err(engine)?;
        work(&mut rows)?;
        drop(rows);
        txn.commit().map_err(engine)?;
        Ok(())
    }
}

impl Session for CanopySession<'_> {
    fn load(&mut self, next: &mut Source<'_>) -> Result<()> {
        self.write(|rows| {
            let mut value = Vec::new();
            while let Some(key) = next(&mut value) {
                rows.insert(&key, &value).map_err(engine)?;
            }
            Ok(())
        })
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        self.write(|rows| {
            for op in ops {
                match &op.value {
                    Some(value) => rows.insert(&op.key, value).map_err(engine)?,
                    None => drop(rows.delete(&op.key).map_err(engine)?),
                }
            }
            Ok(())
        })
    }

    fn modify(&mut self, key: &Key, change: &mut Change<'_>) -> Result<()> {
        self.write(|rows| {
            let value = change(rows.get(key).map_err(engine)?.as_deref())?;
            rows.insert(key, &value).map_err(engine)
        })
    }

    fn read(&mut self, work: &mut Work<'_>) -> Result<()> {
        let txn: ReadTransaction = self.0.0.begin_read().map_err(engine)?;
        let rows = txn.get_tree(ROWS).map_err(engine)?;
        let rows = rows.ok_or_else(|| Error::Engine("the tree is gone".to_owned()))?;
        work(&mut CanopySnapshot(rows))
    }
}

struct CanopySnapshot<'a>(Tree<'a>);

impl Snapshot for CanopySnapshot<'_> {
    fn get(&mut self, key: &Key, seen: &mut dyn FnMut(Option<&[u8]>)) -> Result<()> {
        let value = self.0.get(key).map_err(engine)?;
        seen(value.as_deref());
        Ok(())
    }

    fn scan(&mut self, from: &Key, visit: &mut Visit<'_>) -> Result<()> {
        for row in self.0.range(from.as_slice()..).map_err(engine)? {
            let (key, value) = row.map_err(engine)?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}
