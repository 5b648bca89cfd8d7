//! How much a disk was asked to do: operations and bytes, counted when they ended well.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one disk did since it was made. Only ever rises; read with [`IoCounters::counts`].
///
/// Every access is relaxed: the numbers guard nothing, and one that is late by an operation is harmless.
#[derive(Debug, Default)]
pub struct IoCounters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    write_bytes: AtomicU64,
    syncs: AtomicU64,
}

/// Numbers of [`IoCounters`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoCounts {
    /// Read operations, as asked for: one split inside counts once.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Write operations, durable ones included.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Times written data was made durable: syncs of files and durable writes, not syncs of directories.
    pub syncs: u64,
}

impl IoCounters {
    /// One read of `bytes` bytes ended well. For disks; so are the next two.
    pub fn add_read(&self, bytes: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// One write of `bytes` bytes ended well.
    pub fn add_write(&self, bytes: usize) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.write_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Written data was made durable.
    pub fn add_sync(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers now, each read on its own.
    #[must_use]
    pub fn counts(&self) -> IoCounts {
        IoCounts {
            reads: self.reads.load(Ordering::Relaxed),
            read_bytes: self.read_bytes.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            write_bytes: self.write_bytes.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
        }
    }
}

impl IoCounts {
    /// What was done between `earlier` and these numbers.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(earlier.reads),
            read_bytes: self.read_bytes.saturating_sub(earlier.read_bytes),
            writes: self.writes.saturating_sub(earlier.writes),
            write_bytes: self.write_bytes.saturating_sub(earlier.write_bytes),
            syncs: self.syncs.saturating_sub(earlier.syncs),
        }
    }
}
