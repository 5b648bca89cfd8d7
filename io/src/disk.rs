//! The seam: what every backend offers. One [`Disk`] makes [`File`]s and, per thread, [`Queue`]s.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use crate::{Buf, IoCounters, IoError, Mapping};

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; reads only.
    Read,
    /// It must exist; reads and writes.
    Write,
    /// It must not exist; it is created, empty.
    CreateNew,
}

/// How a write is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMethod {
    /// `pwrite`, then `fdatasync`.
    WriteThenSync,
    /// `pwritev2` with `RWF_DSYNC`.
    WriteDsync,
    /// An io_uring write with `RWF_DSYNC`.
    RingDsync,
    /// Nothing to do: the disk is memory. On any other it means [`SyncMethod::WriteThenSync`].
    None,
}

/// A namespace of files.
pub trait Disk: Debug + Send + Sync {
    /// Opens one file.
    ///
    /// # Errors
    /// The kernel's, `ENOENT` and `EEXIST` among them.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>, IoError>;
    /// Creates a directory and its missing parents; fine if it exists.
    ///
    /// # Errors
    /// The kernel's.
    fn create_dir(&self, path: &Path) -> Result<(), IoError>;
    /// Names of the entries of a directory, sorted.
    ///
    /// # Errors
    /// The kernel's.
    fn list(&self, path: &Path) -> Result<Vec<String>, IoError>;
    /// Renames a file within the disk, replacing the target. Volatile until [`Disk::sync_dir`].
    ///
    /// # Errors
    /// The kernel's.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), IoError>;
    /// Removes a file. Volatile until [`Disk::sync_dir`].
    ///
    /// # Errors
    /// The kernel's.
    fn remove(&self, path: &Path) -> Result<(), IoError>;
    /// Makes the directory's entries durable.
    ///
    /// # Errors
    /// The kernel's.
    fn sync_dir(&self, path: &Path) -> Result<(), IoError>;
    /// Takes the exclusive lock file at `path`, creating it if need be, for as long as the value lives.
    ///
    /// # Errors
    /// [`LockError::Held`] with the holder's process id if it can be read.
    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, LockError>;
    /// A new queue for the calling thread, with room for `depth` operations in flight.
    ///
    /// # Errors
    /// None in practice: a refused ring falls back to plain system calls.
    fn queue(&self, depth: u32) -> Result<Box<dyn Queue>, IoError>;
    /// What this disk runs on, and what it had to do without.
    fn status(&self) -> DiskStatus;
    /// What was read, written and synced through this disk's files and queues.
    fn counters(&self) -> &IoCounters;
}

/// Held for as long as the lock is wanted.
pub trait FileLock: Debug + Send + Sync {}

/// Why a lock was not had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LockError {
    /// Another process, or another handle in this one, holds it.
    #[error("{path} is locked by {}", .pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    Held {
        /// The lock file.
        path: Arc<str>,
        /// The holder, as it wrote itself into the lock file.
        pid: Option<u32>,
    },
    /// The lock file cannot be made or locked.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// What a disk runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskStatus {
    /// `io_uring`, `pread` or `memory`.
    pub backend: &'static str,
    /// Transfers bypass the kernel's page cache.
    pub direct: bool,
    /// One sentence for each thing the disk wanted and was refused.
    pub warnings: Vec<String>,
}

/// An open file. All calls block; for many operations at once use a [`Queue`].
///
/// Offsets and lengths of transfers are multiples of [`Buf::ALIGN`], as direct I/O needs; every disk answers
/// `EINVAL` to others. The length of a file may be any.
#[expect(
    clippy::len_without_is_empty,
    reason = "asking is a system call that can fail; one suffices"
)]
pub trait File: Debug + Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// The kernel's.
    fn len(&self) -> Result<u64, IoError>;
    /// Cuts or extends (with zeros) to `len` bytes. Volatile until [`File::sync`].
    ///
    /// # Errors
    /// The kernel's.
    fn set_len(&self, len: u64) -> Result<(), IoError>;
    /// Gives the space of a range back to the file system; the range then reads as zeros.
    /// Does nothing where the file system cannot.
    ///
    /// # Errors
    /// The kernel's, `EOPNOTSUPP` excepted.
    fn punch(&self, offset: u64, len: u64) -> Result<(), IoError>;
    /// Bytes of storage the file occupies.
    ///
    /// # Errors
    /// The kernel's.
    fn allocated(&self) -> Result<u64, IoError>;
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// The kernel's; [`IoError::END_OF_FILE`] if the file ends first.
    fn read_at(&self, offset: u64, buf: &mut Buf) -> Result<(), IoError>;
    /// Writes the first `len` bytes of `buf` at `offset`.
    ///
    /// # Errors
    /// The kernel's.
    fn write_at(&self, offset: u64, buf: &Buf, len: usize) -> Result<(), IoError>;
    /// As [`File::write_at`], then durable in the way `method` says, or in the plainest way
    /// ([`SyncMethod::WriteThenSync`]) where the kernel does not know that one.
    ///
    /// # Errors
    /// The kernel's. After an error the file's content at the range is unknown.
    fn write_durable(
        &self,
        offset: u64,
        buf: &Buf,
        len: usize,
        method: SyncMethod,
    ) -> Result<(), IoError>;
    /// Makes every completed write durable (`fdatasync`).
    ///
    /// # Errors
    /// The kernel's. After an error nothing is known about earlier writes; do not retry.
    fn sync(&self) -> Result<(), IoError>;
    /// Claims the file for this handle, waiting a moment for whoever has it.
    ///
    /// A process that was killed loses its lock files at once, but transfers it had under way end later, and hold
    /// the open file until then: so the claim comes after the last of them. To be called with a lock in hand, so
    /// that nobody else can be in the way for long; gives up after a quarter of a second.
    fn hold(&self) {}
    /// For backends to find their own files again.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// One operation of a [`Queue`]. Transfers cover the whole buffer.
#[derive(Debug)]
pub enum Op {
    /// Fill `buf` from `offset`.
    Read {
        /// Where from.
        file: Arc<dyn File>,
        /// Bytes from the start of the file.
        offset: u64,
        /// Filled whole.
        buf: Buf,
    },
    /// Fill `bufs`, one after the other, from `offset` on: one transfer into memory that is not in one piece.
    ReadRun {
        /// Where from.
        file: Arc<dyn File>,
        /// Bytes from the start of the file.
        offset: u64,
        /// Each filled whole.
        bufs: Vec<Buf>,
    },
    /// Write `buf` at `offset`.
    Write {
        /// Where to.
        file: Arc<dyn File>,
        /// Bytes from the start of the file.
        offset: u64,
        /// Written whole.
        buf: Buf,
    },
    /// Make completed writes durable.
    Sync {
        /// Which file's.
        file: Arc<dyn File>,
    },
}

/// An operation that ended.
#[derive(Debug)]
pub struct Completion {
    /// As given to [`Queue::submit`].
    pub token: u64,
    /// The operation's buffer, if it had one.
    pub buf: Option<Buf>,
    /// The buffers of an [`Op::ReadRun`], in its order.
    pub run: Vec<Buf>,
    /// How it went.
    pub result: Result<(), IoError>,
}

/// Operations in flight, owned by one thread at a time.
pub trait Queue: Debug + Send {
    /// Takes an operation. Blocks only while `depth` operations are on their way.
    ///
    /// It starts now or at the latest with the next [`Queue::poll`]: a ring gathers a few, so that many cost one
    /// system call. A caller that wants it under way while doing something else polls for 0.
    ///
    /// # Errors
    /// If the ring itself fails; the operation's own errors arrive as its completion.
    fn submit(&mut self, token: u64, op: Op) -> Result<(), IoError>;
    /// Waits until at least `at_least` operations have ended (or none is in flight) and appends all that have.
    ///
    /// # Errors
    /// If the ring itself fails.
    fn poll(&mut self, at_least: usize, ended: &mut Vec<Completion>) -> Result<(), IoError>;
    /// Operations submitted and not yet handed back.
    fn in_flight(&self) -> usize;
    /// Tells the queue that many buffers will lie in `mapping`, so that the kernel pins its pages once instead of
    /// at each transfer. This takes all its memory at once, and it stays taken: [`Mapping::release`] then does
    /// nothing. False if it was refused or there is nothing to gain; transfers work either way.
    fn register(&mut self, mapping: &Arc<Mapping>) -> bool {
        let _nothing_to_gain = mapping;
        false
    }
    /// Tells the queue that many operations will be on `file`, so that the kernel looks it up once. The queue
    /// keeps the file open from then on. False as for [`Queue::register`].
    fn register_file(&mut self, file: &Arc<dyn File>) -> bool {
        let _nothing_to_gain = file;
        false
    }
}
