//! fjall.

use std::path::Path;
use std::time::Duration;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use super::stripes::Stripes;
use crate::error::{Error, Result, engine};
use crate::generator::Key;
use crate::rival::{Change, Op, Rival, Session, Setup, Snapshot, Source, Visit, Work};

/// Bytes of a memtable, the default.
const MEMTABLE_BYTES: u64 = 64 << 20;
/// Part of small memory that one memtable gets; the documentation's least is 8 MiB.
const MEMTABLE_PART: u64 = 16;
const MEMTABLE_BYTES_MIN: u64 = 8 << 20;
/// How often it is asked whether it rests, and how often in a row it must say so.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOKS: u32 = 3;
/// Longest wait for that, in looks.
const LOOKS_MAX: u32 = 12_000;

struct Fjall {
    db: Database,
    rows: Keyspace,
    stripes: Stripes,
}

pub(super) fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Rival>> {
    let small = setup.memory_bytes.map(|bytes| bytes / MEMTABLE_PART);
    let memtable = small.map_or(MEMTABLE_BYTES, |bytes| {
        bytes.clamp(MEMTABLE_BYTES_MIN, MEMTABLE_BYTES)
    });
    let db = Database::builder(dir).cache_size(setup.cache_bytes);
    let db = db.open().map_err(engine)?;
    let options = || KeyspaceCreateOptions::default().max_memtable_size(memtable);
    let rows = db.keyspace("rows", options).map_err(engine)?;
    Ok(Box::new(Fjall {
        db,
        rows,
        stripes: Stripes::new(),
    }))
}

impl Rival for Fjall {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(FjallSession(self)))
    }

    fn settle(&self) -> Result<()> {
        self.rows.rotate_memtable_and_wait().map_err(engine)?;
        let mut rested = 0;
        for _ in 0..LOOKS_MAX {
            let rests = self.db.active_compactions() == 0 && self.db.outstanding_flushes() == 0;
            rested = if rests { rested + 1 } else { 0 };
            if rested >= LOOKS {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(Error::Engine("background work does not end".to_owned()))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.db.persist(PersistMode::SyncAll).map_err(engine)
    }
}

struct FjallSession<'a>(&'a Fjall);

impl Session for FjallSession<'_> {
    fn load(&mut self, next: &mut Source<'_>) -> Result<()> {
        let mut batch = self.0.db.batch().durability(Some(PersistMode::SyncData));
        let mut value = Vec::new();
        while let Some(key) = next(&mut value) {
            batch.insert(&self.0.rows, key.as_slice(), value.as_slice());
        }
        batch.commit().map_err(engine)
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        let mut batch = self.0.db.batch().durability(Some(PersistMode::SyncData));
        for op in ops {
            match &op.value {
                Some(value) => batch.insert(&self.0.rows, op.key.as_slice(), &**value),
                None => batch.remove(&self.0.rows, op.key.as_slice()),
            }
        }
        batch.commit().map_err(engine)
    }

    fn modify(&mut self, key: &Key, change: &mut Change<'_>) -> Result<()> {
        let _held = self.0.stripes.hold(key);
        let old = self.0.rows.get(key).map_err(engine)?;
        let value = Some(change(old.as_deref())?);
        self.commit(&[Op { key: *key, value }])
    }

    fn read(&mut self, work: &mut Work<'_>) -> Result<()> {
        work(&mut FjallSnapshot {
            snapshot: self.0.db.snapshot(),
            rows: &self.0.rows,
        })
    }
}

struct FjallSnapshot<'a> {
    snapshot: fjall::Snapshot,
    rows: &'a Keyspace,
}

impl Snapshot for FjallSnapshot<'_> {
    fn get(&mut self, key: &Key, seen: &mut dyn FnMut(Option<&[u8]>)) -> Result<()> {
        let value = self.snapshot.get(self.rows, key).map_err(engine)?;
        seen(value.as_deref());
        Ok(())
    }

    fn scan(&mut self, from: &Key, visit: &mut Visit<'_>) -> Result<()> {
        for row in self.snapshot.range(self.rows, from.as_slice()..) {
            let (key, value) = row.into_inner().map_err(engine)?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}
