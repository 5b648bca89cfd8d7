//! RocksDB.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, CompactionPri, DB,
    DEFAULT_COLUMN_FAMILY_NAME, Options, ReadOptions, WaitForCompactOptions, WriteBatch,
    WriteOptions,
};

use super::stripes::Stripes;
use crate::error::{Error, Result, engine};
use crate::generator::Key;
use crate::rival::{Change, Op, Rival, Seen, Session, Setup, Snapshot, Source, Visit, Work};

/// Bytes of a memtable, the default.
const MEMTABLE_BYTES: u64 = 64 << 20;
/// Part of small memory that one memtable gets.
const MEMTABLE_PART: u64 = 16;

struct Rocks {
    db: DB,
    stripes: Stripes,
}

/// What "Setup Options and Basic Tuning" recommends, with the cache that everyone has.
fn options(setup: &Setup) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(setup.cache_bytes as usize));
    table.set_block_size(16 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_max_background_jobs(6);
    options.set_bytes_per_sync(1 << 20);
    options.set_compaction_pri(CompactionPri::MinOverlappingRatio);
    let small = setup.memory_bytes.map(|bytes| bytes / MEMTABLE_PART);
    options.set_write_buffer_size(small.unwrap_or(MEMTABLE_BYTES).min(MEMTABLE_BYTES) as usize);
    options
}

pub(super) fn open(dir: &Path, setup: &Setup) -> Result<Box<dyn Rival>> {
    let options = options(setup);
    let rows = ColumnFamilyDescriptor::new(DEFAULT_COLUMN_FAMILY_NAME, options.clone());
    let db = DB::open_cf_descriptors(&options, dir, [rows]).map_err(engine)?;
    Ok(Box::new(Rocks {
        db,
        stripes: Stripes::new(),
    }))
}

impl Rival for Rocks {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        Ok(Box::new(RocksSession {
            rocks: self,
            durable,
        }))
    }

    fn settle(&self) -> Result<()> {
        let mut options = WaitForCompactOptions::default();
        options.set_flush(true);
        self.db.wait_for_compact(&options).map_err(engine)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct RocksSession<'a> {
    rocks: &'a Rocks,
    durable: WriteOptions,
}

impl Session for RocksSession<'_> {
    fn load(&mut self, next: &mut Source<'_>) -> Result<()> {
        let (mut batch, mut value) = (WriteBatch::default(), Vec::new());
        while let Some(key) = next(&mut value) {
            batch.put(key, &value);
        }
        self.rocks
            .db
            .write_opt(batch, &self.durable)
            .map_err(engine)
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for op in ops {
            match &op.value {
                Some(value) => batch.put(op.key, value),
                None => batch.delete(op.key),
            }
        }
        self.rocks
            .db
            .write_opt(batch, &self.durable)
            .map_err(engine)
    }

    fn modify(&mut self, key: &Key, change: &mut Change<'_>) -> Result<()> {
        let _held = self.rocks.stripes.hold(key);
        let old = self.rocks.db.get_pinned(key).map_err(engine)?;
        let value = change(old.as_deref())?;
        let put = self.rocks.db.put_opt(key, value, &self.durable);
        put.map_err(engine)
    }

    fn read(&mut self, work: &mut Work<'_>) -> Result<()> {
        let db = &self.rocks.db;
        let snapshot = db.snapshot();
        let mut options = ReadOptions::default();
        options.set_snapshot(&snapshot);
        work(&mut RocksSnapshot {
            db,
            options,
            snapshot: &snapshot,
        })
    }
}

struct RocksSnapshot<'a> {
    db: &'a DB,
    options: ReadOptions,
    snapshot: &'a rocksdb::Snapshot<'a>,
}

impl Snapshot for RocksSnapshot<'_> {
    fn get(&mut self, key: &Key, seen: &mut dyn FnMut(Option<&[u8]>)) -> Result<()> {
        let value = self.db.get_pinned_opt(key, &self.options).map_err(engine)?;
        seen(value.as_deref());
        Ok(())
    }

    fn multi_get(&mut self, keys: &[Key], seen: &mut Seen<'_>) -> Result<()> {
        let rows = self.db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME);
        let rows = rows.ok_or_else(|| Error::Engine("no column family".to_owned()))?;
        let db = self.db;
        let values = db.batched_multi_get_cf_opt(rows, keys, false, &self.options);
        for (index, value) in values.into_iter().enumerate() {
            seen(index, value.map_err(engine)?.as_deref());
        }
        Ok(())
    }

    fn scan(&mut self, from: &Key, visit: &mut Visit<'_>) -> Result<()> {
        let mut rows = self.snapshot.raw_iterator();
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if !visit(key, value) {
                break;
            }
            rows.next();
        }
        rows.status().map_err(engine)
    }
}
