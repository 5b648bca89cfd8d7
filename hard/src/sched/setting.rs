//! Databases that runs begin with: made once in a process, small in every way, so that a run opens one in microseconds
//! and every boundary is near.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use northstar_io::SyncMethod;
use northstar_io::sim::{FaultPlan, Hook, Image, Shadow, SimDisk, SimOptions, What};
use northstardb::internals::{self, Nanos, World};
use northstardb::{Db, Options, Retention, TxnId};

use super::explorer;
use crate::model::{Draft, State};
use crate::ops::{Edit, Fill, KeyStyle, key_bytes, table_name, value_bytes};
use crate::rng::Rng;
use crate::{During, Failure};

/// Kinds of databases to begin with.
pub const KINDS: u64 = 16;
/// Tables of each.
pub const TABLES: u8 = 2;

/// Where the database is on the simulated disk.
const DIR: &str = "disk/db";
const PAGE_BYTES: u32 = 4096;

/// A database at rest, and what it holds.
#[derive(Debug)]
pub struct Setting {
    /// The disk.
    pub image: Image,
    /// The last transaction.
    pub at: TxnId,
    /// Its state.
    pub state: Arc<State>,
    /// Bounds of the work in it.
    pub style: KeyStyle,
    /// Keys that exist at first are below this.
    pub keys: u32,
    /// Longest value in bytes.
    pub value_bytes_max: u32,
    frames: usize,
    /// Every superseded version is kept.
    history: bool,
}

/// What a run draws beside its setting.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Bytes of a delta before it is frozen.
    pub delta_bytes: usize,
    /// Bytes of new pages in a slice of a checkpoint.
    pub slice_bytes: u64,
    /// How log writes become durable.
    pub sync_method: SyncMethod,
    /// Nanoseconds that pass with each look at the clock.
    pub clock_step: u64,
    /// Transactions of the past that are kept, where any are; all, if absent.
    pub kept: Option<u64>,
}

impl Sizes {
    /// Those of a run.
    #[must_use]
    pub fn of(rng: &mut Rng, still: bool) -> Self {
        let kept = rng.clone().fork(37).pick(&[None, None, Some(1), Some(5)]);
        Self {
            kept,
            delta_bytes: rng.pick(&[600, 1_500, 4_000, 64 << 10]),
            slice_bytes: rng.pick(&[1, 16 << 10, 1 << 20]),
            sync_method: rng.pick(&[
                SyncMethod::WriteDsync,
                SyncMethod::WriteThenSync,
                SyncMethod::RingDsync,
            ]),
            // Where no wait ends by time, the log role must not begin one that only time ends.
            clock_step: if still { 1 } else { rng.pick(&[1_003, 40_000]) },
        }
    }
}

/// Others may run before each operation of the disk, and queues end theirs in any order.
#[derive(Debug)]
struct Interrupted;

impl Hook for Interrupted {
    fn before(&self, _: What, _: u64) {
        internals::pause();
    }

    fn choose(&self, count: usize) -> usize {
        explorer::draw(count)
    }
}

impl Setting {
    /// The setting of that kind.
    ///
    /// # Errors
    /// The engine's.
    pub fn make(kind: u64) -> Result<Self, Failure> {
        let mut rng = Rng::new(kind).fork(23);
        let blank = Image::with_dir(Path::new("disk"));
        let mut setting = Self {
            image: blank.clone(),
            at: TxnId::ZERO,
            state: Arc::default(),
            style: [KeyStyle::Short, KeyStyle::LongPrefix][usize::from(kind & 1 != 0)],
            keys: [12, 60][usize::from(kind & 2 != 0)],
            value_bytes_max: [300, 1_500][usize::from(kind & 4 != 0)],
            frames: [8, 16][usize::from(rng.chance(50))],
            history: kind & 8 != 0,
        };
        let disk = Self::quiet_disk(blank);
        let sizes = Sizes::of(&mut rng, false);
        let db = setting.open(&disk, sizes, false)?;
        let mut draft = Draft::new(State::default(), setting.style, false);
        let mut write = db.begin_write().during("begin_write")?;
        for slot in 0..TABLES {
            let table = write.table(&table_name(slot)).during("make a table")?;
            draft.apply(&Edit::Create { slot });
            for key in 0..setting.keys {
                let value = setting.fill(&mut rng);
                draft.apply(&Edit::Put { slot, key, value });
                let key = key_bytes(setting.style, key);
                write.put(&table, key, value_bytes(value)).during("put")?;
            }
        }
        setting.at = write.commit().during("commit")?.txn_id;
        db.checkpoint().during("checkpoint")?;
        if rng.chance(50) {
            db.close().during("close")?;
        } else {
            drop(db);
        }
        setting.state = Arc::new(draft.state);
        setting.image = disk.image();
        Ok(setting)
    }

    /// A value that work in this setting stores.
    pub fn fill(&self, rng: &mut Rng) -> Fill {
        let len = rng.below(u64::from(self.value_bytes_max));
        Fill {
            len: u32::try_from(len).unwrap_or(0),
            seed: u32::try_from(rng.below(1 << 32)).unwrap_or(0),
        }
    }

    /// A disk on which a run begins.
    #[must_use]
    pub fn disk(&self, faults: FaultPlan) -> Arc<SimDisk> {
        let hook: Arc<dyn Hook> = Arc::new(Interrupted);
        SimDisk::new(SimOptions {
            begin: Shadow::new(self.image.clone()),
            direct: true,
            faults,
            trace: true,
            hook: Some(hook),
        })
    }

    /// A disk that holds `image`, which nothing interrupts.
    #[must_use]
    pub fn quiet_disk(image: Image) -> Arc<SimDisk> {
        SimDisk::new(SimOptions {
            direct: true,
            ..SimOptions::new(image)
        })
    }

    /// Opens the database on `disk`: with threads of its own inside a run, without them outside.
    ///
    /// # Errors
    /// The engine's.
    pub fn open(&self, disk: &Arc<SimDisk>, sizes: Sizes, threads: bool) -> Result<Db, Failure> {
        let (options, world) = self.placed(disk, sizes, threads);
        internals::open(options, Path::new(DIR), world).during("open")
    }

    /// Makes a database of a backup, on a disk of its own.
    ///
    /// # Errors
    /// The engine's.
    pub fn restore(&self, sizes: Sizes, backup: &[u8]) -> Result<Db, Failure> {
        let disk = Self::quiet_disk(Image::with_dir(Path::new("disk")));
        let (options, world) = self.placed(&disk, sizes, false);
        let restored = internals::restore(options, Path::new(DIR), world, backup);
        Ok(restored.during("restore")?.finish())
    }

    fn placed(&self, disk: &Arc<SimDisk>, sizes: Sizes, threads: bool) -> (Options, World) {
        let clock = |step: u64| -> Nanos {
            if threads {
                return Arc::new(move || explorer::look_at_clock(step));
            }
            let now = AtomicU64::new(1);
            Arc::new(move || now.fetch_add(step, Ordering::Relaxed))
        };
        let options = Options::new()
            .memory_budget(64 << 20)
            .delta_bytes(sizes.delta_bytes)
            .page_bytes(PAGE_BYTES)
            .log_segment_bytes(64 << 10)
            .snapshot_held_bytes(0)
            .history(match (self.history, sizes.kept) {
                (true, None) => Retention::All,
                (true, Some(many)) => Retention::Txns(many),
                (false, _) => Retention::None,
            });
        let disk: Arc<SimDisk> = Arc::clone(disk);
        let world = World {
            disk,
            wall: clock(1_000 * sizes.clock_step),
            monotonic: clock(sizes.clock_step),
            threads,
            database: 0x5eed,
            sync_method: sizes.sync_method,
            cache_bytes: self.frames * PAGE_BYTES as usize,
            delta_address_bytes: 1 << 20,
            slice_bytes: sizes.slice_bytes,
        };
        (options, world)
    }
}
