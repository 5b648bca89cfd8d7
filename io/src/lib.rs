//! Storage I/O for NorthstarDB: aligned buffers, files, and a completion-based queue over three kinds of disk.
//!
//! Knows nothing of pages, trees or transactions. Every byte the engine keeps passes through [`Disk`], [`File`]
//! and [`Queue`], so that the same engine runs on io_uring, on plain `pread`/`pwrite`, and in memory.
//!
//! Rules every backend keeps and every caller may rely on:
//! 1. A buffer given to [`Queue::submit`] is owned by the queue until its [`Completion`] hands it back.
//! 2. A transfer completes whole or fails: short transfers, `EINTR` and `EAGAIN` are dealt with inside.
//! 3. A sync covers the writes whose completion was seen before the sync was submitted, and no others.
//! 4. Nothing else is ordered. File lengths and directory entries are volatile until synced.

mod buf;
mod counters;
mod disk;
mod error;
mod inline;
mod mem;

pub use buf::{Buf, Mapping};
pub use counters::{IoCounters, IoCounts};
pub use disk::{
    Completion, Disk, DiskStatus, File, FileLock, LockError, Op, OpenMode, Queue, SyncMethod,
};
pub use error::{IoError, IoKind};
pub use mem::MemoryDisk;
