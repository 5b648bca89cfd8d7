//! The engine's seams, for the crates that measure and attack it. Not covered by semver.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use northstar_io::{Disk, SyncMethod};

use crate::cache;
use crate::clock::Clock;
use crate::db::world::{Sizes, World as Inner};
use crate::db::{Db, open as opening, restore as restoring, verify as verifying};
use crate::error::Result;
use crate::sync::thread;
use crate::txn::registry;
use crate::{LogReport, Options, Restore};

mod decode;
mod parts;

pub use crate::marks::marks;
pub use crate::sync::{Joined, Scheduler, pass, pause, run_under};
pub use decode::{
    GroupSummary, LogStart, LogSummary, MetaSummary, NodeSummary, PageSummary, RecordSummary,
    crc32c, decode_group, decode_meta, decode_node, decode_page, decode_record, scan_log,
    seal_page,
};
pub use parts::{Buffered, KeyFilter, Node, encode_record, history_leaf};

/// Batches that may wait for the writer role: more than threads of a simulation send.
const QUEUE_MAX: usize = 64;

/// What the engine keeps for a thread, for a scheduler whose threads share one of the system's by turns: exchanged when
/// a turn begins and when it ends. Dropping it ends the thread as far as the engine is concerned.
#[derive(Debug, Default)]
pub struct Locals {
    epoch: cache::Turn,
    ahead: cache::AheadTurn,
    hint: u32,
    token: Arc<AtomicBool>,
}

impl Locals {
    /// For a new thread. Threads of different numbers do not claim the same snapshot slots first.
    #[must_use]
    pub fn of(thread: u32) -> Self {
        Self {
            hint: registry::hint_of(thread),
            ..Self::default()
        }
    }

    /// Makes the calling thread of the system take now what it would take at its first read, so that what others find
    /// does not depend on whether it has read before.
    pub fn settle() {
        cache::Turn::settle();
    }

    /// Exchanges it with what the calling thread of the system has.
    pub fn swap(&mut self) {
        self.epoch.swap();
        self.ahead.swap();
        registry::swap_hint(&mut self.hint);
        thread::swap_token(&mut self.token);
    }
}

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
    let (options, inner) = placed(options, world)?;
    opening::open_in(&options, dir, inner)
}

/// Makes a database in `dir` of the world's disk of a full backup.
///
/// # Errors
/// As [`Options::restore`].
pub fn restore(options: Options, dir: &Path, world: World, from: impl Read) -> Result<Restore> {
    let (options, inner) = placed(options, world)?;
    restoring::restore_in(&options, dir, inner, from)
}

/// Verifies the commit log of the database in `dir` of a disk, without opening it.
///
/// # Errors
/// As [`Options::verify_log`].
pub fn verify_log(options: Options, dir: &Path, disk: &Arc<dyn Disk>) -> Result<LogReport> {
    verifying::verify_log_in(&options.checked()?, dir, disk)
}

fn placed(options: Options, world: World) -> Result<(Options, Inner)> {
    let inner = Inner {
        disk: world.disk,
        clock: Clock::of(world.wall, world.monotonic),
        threads: world.threads,
        database: Some(world.database),
        sync_method: Some(world.sync_method),
        sizes: Some(Sizes {
            cache_bytes: world.cache_bytes,
            delta_address_bytes: world.delta_address_bytes,
            queue_max: QUEUE_MAX,
        }),
    };
    let mut options = options.checked()?;
    options.slice_bytes = world.slice_bytes;
    Ok((options, inner))
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
