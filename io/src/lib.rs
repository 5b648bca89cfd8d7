//! Storage I/O for NorthstarDB: aligned buffers, files, and a completion-based queue over three kinds of disk.
//!
//! Knows nothing of pages, trees or transactions. Every byte the engine keeps passes through [`Disk`], [`File`]
//! and [`Queue`], so that the same engine runs on io_uring, on plain `pread`/`pwrite`, and in memory.
//!
//! | disk | queue | for |
//! |---|---|---|
//! | [`NativeDisk`], [`Choice::Auto`] | io_uring, a ring per queue | NVMe; falls back by itself to the next |
//! | [`NativeDisk`], [`Choice::Never`] | operations run inside `submit` | containers, other systems, comparison |
//! | [`MemoryDisk`] | operations run inside `submit` | databases in memory, tests |
//!
//! Rules every backend keeps and every caller may rely on:
//! 1. A buffer given to [`Queue::submit`] is owned by the queue until its [`Completion`] hands it back.
//! 2. A transfer completes whole or fails: short transfers, `EINTR` and `EAGAIN` are dealt with inside.
//! 3. A sync covers the writes whose completion was seen before the sync was submitted, and no others.
//! 4. Nothing else is ordered. File lengths and directory entries are volatile until synced.
//! 5. Offsets and lengths of transfers are multiples of [`Buf::ALIGN`]; others are answered with `EINVAL`.
//! 6. What the system refuses (a ring, direct I/O, registered memory) changes speed, never bytes: it shows in
//!    [`Disk::status`] and nowhere else.
//!
//! ```
//! use northstar_io::{Buf, Disk, MemoryDisk, Op, OpenMode};
//! # fn main() -> Result<(), northstar_io::IoError> {
//! let disk = MemoryDisk::new();
//! let file = disk.open("data".as_ref(), OpenMode::CreateNew)?;
//! let mut queue = disk.queue(8)?;
//! queue.submit(1, Op::Write { file: file.clone(), offset: 0, buf: Buf::zeroed(4096) })?;
//! let mut ended = Vec::new();
//! queue.poll(1, &mut ended)?;
//! assert!(ended[0].token == 1 && ended[0].result.is_ok());
//! file.sync()?;
//! # Ok(())
//! # }
//! ```

mod buf;
mod counters;
mod disk;
mod error;
#[cfg(target_os = "linux")]
mod flight;
mod inline;
mod mem;
mod native;
mod plain;
#[doc(hidden)]
pub mod planted;
#[doc(hidden)]
pub mod regressions;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(target_os = "linux")]
mod ring_queue;
#[cfg(feature = "sim")]
pub mod sim;
mod sys;
mod tape;
#[cfg(test)]
mod tests;
mod transfer;

pub use buf::{Buf, BufPool, Mapping};
pub use counters::{IoCounters, IoCounts};
pub use disk::{
    Completion, Disk, DiskStatus, File, FileLock, LockError, Op, OpenMode, Queue, SyncMethod,
};
pub use error::{IoError, IoKind};
pub use mem::MemoryDisk;
pub use native::{Choice, NativeDisk, NativeOptions};
pub use tape::Tape;
