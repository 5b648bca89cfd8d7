//! What the pipeline counts, and shows.

use northstar_io::SyncMethod;

use super::Pipeline;
use crate::ids::Lsn;
use crate::stats::Stats;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Counters that `Stats` shows.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    /// Not before the time of any commit that can be read.
    pub(crate) last_time_ns: AtomicU64,
    pub(crate) throttled_ns: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    /// Where a recovery would begin to read the log.
    pub(crate) log_start: AtomicU64,
    pub(crate) snapshots_moved: AtomicU64,
    pub(crate) snapshots_ended: AtomicU64,
}

impl Counters {
    /// What is known when a database is opened.
    pub(crate) fn begin(&self, log_start: Lsn, last_time_ns: u64) {
        self.log_start.store(log_start.get(), Ordering::Relaxed);
        self.last_time_ns.store(last_time_ns, Ordering::Relaxed);
    }

    /// Notes the time of a commit, before its group can be sealed: whoever sees the commit finds that here.
    pub(crate) fn note_time(&self, time_ns: u64) {
        self.last_time_ns.fetch_max(time_ns, Ordering::Relaxed);
    }
}

impl Pipeline {
    pub(crate) fn fill_stats(&self, stats: &mut Stats) {
        let (log, method) = &*self.log_stats.lock();
        stats.log_groups = log.groups();
        stats.log_flushes = log.flushes();
        stats.log_bytes_written = log.bytes();
        stats.throttled_ns = self.counters.throttled_ns.load(Ordering::Relaxed);
        stats.checkpoints = self.counters.checkpoints.load(Ordering::Relaxed);
        stats.snapshots_moved = self.counters.snapshots_moved.load(Ordering::Relaxed);
        stats.snapshots_ended = self.counters.snapshots_ended.load(Ordering::Relaxed);
        let start = self.counters.log_start.load(Ordering::Relaxed);
        stats.log_tail_bytes = self.segments.end().get().saturating_sub(start);
        stats.sync_method = match method {
            SyncMethod::WriteThenSync => "write + fdatasync",
            SyncMethod::WriteDsync => "write with RWF_DSYNC",
            SyncMethod::RingDsync => "io_uring write with RWF_DSYNC",
            SyncMethod::None => "none yet, or memory",
        };
    }
}
