//! The engine's seams, for the crates that measure and attack it. Not covered by semver.

use std::path::Path;
use std::sync::Arc;

use northstar_io::{Disk, SyncMethod};

use crate::Options;
use crate::clock::Clock;
use crate::db::world::{Sizes, World as Inner};
use crate::db::{Db, open as opening};
use crate::error::Result;

mod decode;

pub use crate::marks::marks;
pub use crate::sync::{Joined, Scheduler, pause, run_under};
pub use decode::{
    GroupSummary, LogStart, LogSummary, MetaSummary, NodeSummary, PageSummary, RecordSummary,
    crc32c, decode_group, decode_meta, decode_node, decode_page, decode_record, scan_log,
    seal_page,
};

/// A clock: nanoseconds.
pub type Nanos = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a database runs in, in place of the machine.
#[derive(Clone)]
pub struct World {
    /// Where its files are.
    pub disk: Arc<dyn Disk>,
    /// Time since 1970.
    pub wall: Nanos,
    /// Time since whenever.
    pub monotonic: Nanos,
    /// Threads see to log and checkpoints; without, commits do, and [`idle`].
    pub threads: bool,
    /// The id of a database that is created.
    pub database: u128,
    /// How log writes become durable.
    pub sync_method: SyncMethod,
    /// Bytes of page frames, in place of what follows from the options.
    pub cache_bytes: usize,
    /// Address space of a delta.
    pub delta_address_bytes: usize,
    /// Bytes of new pages after which a slice of a checkpoint ends.
    pub slice_bytes: u64,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

/// Opens the database in `dir` of the world's disk.
///
/// # Errors
/// As [`Options::open`].
pub fn open(options: Options, dir: &Path, world: World) -> Result<Db> {
    let inner = Inner {
        disk: world.disk,
        clock: Clock::of(world.wall, world.monotonic),
        threads: world.threads,
        database: Some(world.database),
        sync_method: Some(world.sync_method),
        sizes: Some(Sizes {
            cache_bytes: world.cache_bytes,
            delta_address_bytes: world.delta_address_bytes,
        }),
    };
    let mut options = options.checked()?;
    options.slice_bytes = world.slice_bytes;
    opening::open_in(&options, dir, inner)
}

/// Does what the checkpoint thread does when nobody commits for a while.
///
/// # Errors
/// As [`Db::checkpoint`].
pub fn idle(db: &Db) -> Result<()> {
    db.engine()?.idle()
}

/// Makes everything committed so far durable.
///
/// # Errors
/// As [`Db::commit`].
pub fn flush(db: &Db) -> Result<()> {
    db.engine()?.pipeline.flush()
}
