//! What a database runs in: disk, time, threads and memory. Production takes the machine's; a simulation brings its own.

use std::sync::Arc;

use northstar_io::{Disk, SyncMethod};

use crate::clock::Clock;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Clock,
    /// Threads of its own see to the log and to checkpoints. Without them commits do the work themselves, and what time
    /// would trigger is left to the caller.
    pub(crate) threads: bool,
    /// The id of a database that is created; random if it is not given.
    pub(crate) database: Option<u128>,
    /// How log writes become durable; measured if it is not given.
    pub(crate) sync_method: Option<SyncMethod>,
    /// Memory, in place of what follows from the options.
    pub(crate) sizes: Option<Sizes>,
}

/// Memory of a database that is to be opened and dropped thousands of times a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Page frames.
    pub(crate) cache_bytes: usize,
    /// Address space of a delta.
    pub(crate) delta_address_bytes: usize,
    /// Batches that may wait for the writer role.
    pub(crate) queue_max: usize,
}

impl World {
    /// The machine's clock and threads over `disk`.
    pub(crate) fn of(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            clock: Clock::system(),
            threads: true,
            database: None,
            sync_method: None,
            sizes: None,
        }
    }
}
