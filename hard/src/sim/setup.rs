//! How a seed opens its database: small in every way, so that every boundary is near and an open costs microseconds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use northstar_io::SyncMethod;
use northstar_io::sim::{FaultPlan, Image, Shadow, SimDisk, SimOptions};
use northstardb::internals::{self, World};
use northstardb::{Db, Options, Retention};

use crate::ops::{KeyStyle, Shape};
use crate::rng::Rng;

/// The database's directory on the simulated disk.
pub const DIR: &str = "disk/db";

/// What a seed draws.
#[derive(Debug, Clone, Copy)]
pub struct SimSetup {
    /// The work's bounds.
    pub shape: Shape,
    /// Bytes of a page.
    pub page_bytes: u32,
    /// Bytes of a log segment.
    pub segment_bytes: u32,
    /// Bytes of a delta before it is frozen.
    pub delta_bytes: usize,
    /// Bytes of new pages in a slice of a checkpoint.
    pub slice_bytes: u64,
    /// Frames of the cache.
    pub frames: usize,
    /// How log writes become durable.
    pub sync_method: SyncMethod,
    /// Reads pass by the system's memory; see [`SimOptions::direct`].
    pub direct: bool,
    /// A database that could not be opened because of a fault is opened again by a step that drops and reopens it.
    pub patient: bool,
    /// The id of the database.
    pub database: u128,
    /// What is kept of the log.
    pub retention: Retention,
    /// What is kept of superseded versions, if it is said.
    pub history: Retention,
    /// Bytes of pages that open snapshots keep before they are moved.
    pub held_bytes: u64,
    /// Somebody follows the log under a name.
    pub followed: bool,
}

impl SimSetup {
    /// The setup of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed).fork(3);
        let page_bytes = rng.pick(&[4096, 4096, 4096, 8192]);
        let shape = Shape {
            keys: rng.pick(&[2, 7, 30, 120]),
            value_bytes_max: rng.pick(&[20, 60, 600, 5_000]),
            edits_max: rng.pick(&[1, 3, 8]),
            key_style: rng.pick(&[KeyStyle::Short, KeyStyle::Short, KeyStyle::LongPrefix]),
        };
        Self {
            shape,
            page_bytes,
            segment_bytes: 64 << 10,
            delta_bytes: rng.pick(&[1 << 10, 4 << 10, 16 << 10, 64 << 10]),
            slice_bytes: rng.pick(&[1, 16 << 10, 1 << 20]),
            frames: rng.pick(&[16, 32]),
            sync_method: rng.pick(&[
                SyncMethod::WriteDsync,
                SyncMethod::WriteThenSync,
                SyncMethod::RingDsync,
            ]),
            direct: rng.chance(70),
            patient: false,
            database: u128::from(rng.word()) << 64 | u128::from(rng.word()),
            retention: rng.pick(&[
                Retention::None,
                Retention::None,
                Retention::All,
                Retention::Bytes(100 << 10),
                Retention::Txns(5),
            ]),
            history: Rng::new(seed).fork(5).pick(&[
                Retention::None,
                Retention::None,
                Retention::All,
                Retention::All,
                Retention::Within {
                    age: Duration::from_secs(3600),
                    bytes: 100 << 10,
                },
                Retention::Txns(5),
            ]),
            held_bytes: Rng::new(seed).fork(7).pick(&[0, 0, 40 << 10, 32 << 20]),
            followed: !Rng::new(seed).fork(6).chance(72),
        }
    }

    /// The options to open with.
    pub fn options(&self) -> Options {
        Options::new()
            .memory_budget(64 << 20)
            .delta_bytes(self.delta_bytes)
            .page_bytes(self.page_bytes)
            .log_segment_bytes(self.segment_bytes)
            .log_retention(self.retention)
            .snapshot_held_bytes(self.held_bytes)
            .history(self.history)
    }

    /// A disk that begins as `begin`.
    #[must_use]
    pub fn disk(&self, begin: Shadow, trace: bool, faults: FaultPlan) -> Arc<SimDisk> {
        SimDisk::new(SimOptions {
            begin,
            direct: self.direct,
            faults,
            trace,
            hook: None,
        })
    }

    /// A disk that holds nothing but the place for a database's directory.
    #[must_use]
    pub fn blank() -> Image {
        Image::with_dir(Path::new("disk"))
    }

    /// The world of a database on `disk`, without threads.
    #[must_use]
    pub fn world(&self, disk: &Arc<SimDisk>) -> World {
        let disk: Arc<SimDisk> = Arc::clone(disk);
        // Time passes by being looked at.
        let clock = |step: u64| -> internals::Nanos {
            let now = AtomicU64::new(1);
            Arc::new(move || now.fetch_add(step, Ordering::Relaxed))
        };
        World {
            disk,
            wall: clock(1_000_003),
            monotonic: clock(1_003),
            threads: false,
            database: self.database,
            sync_method: self.sync_method,
            cache_bytes: self.frames * self.page_bytes as usize,
            delta_address_bytes: 1 << 20,
            slice_bytes: self.slice_bytes,
        }
    }

    /// Opens the database on `disk`.
    ///
    /// # Errors
    /// The engine's.
    pub fn open(&self, disk: &Arc<SimDisk>) -> northstardb::Result<Db> {
        internals::open(self.options(), Path::new(DIR), self.world(disk))
    }
}
