//! Counters of the cache's slow paths. A hit counts nothing: it would write a shared line.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) misses: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) fallbacks: AtomicU64,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    count_many(counter, 1);
}

/// Adds some. Relaxed: counters order nothing.
pub(super) fn count_many(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}

/// What the cache did and holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CacheStats {
    /// Frames in all.
    pub(crate) frames: u64,
    /// Frames that hold nothing.
    pub(crate) frames_free: u64,
    /// Frames that hold branches.
    pub(crate) frames_branch: u64,
    /// Loads of pages that were not resident.
    pub(crate) misses: u64,
    /// Pages asked of the device, ahead of need or not, alone or with neighbours; a run of overflow pages counts once.
    pub(crate) reads: u64,
    /// Reads repeated because the first failed or did not verify.
    pub(crate) retries: u64,
    /// Pages dropped to make room.
    pub(crate) evictions: u64,
    /// Pages held outside the arena because no frame could be had.
    pub(crate) fallbacks: u64,
}

impl Counters {
    pub(super) fn read(&self) -> CacheStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStats {
            misses: read(&self.misses),
            reads: read(&self.reads),
            retries: read(&self.retries),
            evictions: read(&self.evictions),
            fallbacks: read(&self.fallbacks),
            ..CacheStats::default()
        }
    }
}
