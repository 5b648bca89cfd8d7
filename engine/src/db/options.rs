//! How to open a database. Every default is safe.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Db;
use crate::error::{Error, Result};
use crate::limits;
use crate::retention::Retention;
use crate::txn::holder::{Holder, Watch};

/// Which way to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backend {
    /// `io_uring` with `O_DIRECT` where the kernel and the file system allow, else plain calls. What was refused is
    /// in [`Stats::warnings`](crate::Stats::warnings).
    #[default]
    Auto,
    /// `pread` and `pwrite`, direct where the file system allows.
    Plain,
    /// `pread` and `pwrite` through the kernel's page cache.
    Buffered,
}

/// Options for opening; built by value, finished by [`Options::open`] or [`Options::memory`].
///
/// ```
/// # fn main() -> northstardb::Result<()> {
/// let db = northstardb::Options::new().memory_budget(64 << 20).memory()?;
/// # db.close() }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    pub(crate) memory_budget: usize,
    pub(crate) delta_bytes: usize,
    pub(crate) page_bytes: u32,
    pub(crate) segment_bytes: u32,
    pub(crate) backend: Backend,
    pub(crate) read_only: bool,
    pub(crate) create: bool,
    pub(crate) buffered_flush: Duration,
    pub(crate) idle_after: Duration,
    pub(crate) value_bytes_max: usize,
    pub(crate) slice_bytes: u64,
    pub(crate) log_retention: Retention,
    pub(crate) subscriber_log_bytes: u64,
    pub(crate) snapshot_held_bytes: u64,
    pub(crate) snapshot_limit_bytes: Option<u64>,
    pub(crate) snapshot_watch: Option<Watch>,
    pub(crate) history: Option<Retention>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_budget: 512 << 20,
            delta_bytes: 64 << 20,
            page_bytes: limits::PAGE_BYTES_DEFAULT,
            segment_bytes: limits::SEGMENT_BYTES_DEFAULT,
            backend: Backend::Auto,
            read_only: false,
            create: true,
            buffered_flush: Duration::from_millis(5),
            idle_after: Duration::from_secs(1),
            value_bytes_max: limits::VALUE_BYTES_MAX,
            slice_bytes: 8 << 20,
            log_retention: Retention::None,
            subscriber_log_bytes: 1 << 30,
            snapshot_held_bytes: 32 << 20,
            snapshot_limit_bytes: None,
            snapshot_watch: None,
            history: None,
        }
    }
}

/// 1 TiB: what is kept of each page in memory is about 1/250 of it.
const MEMORY_BUDGET_MAX: usize = 1 << 40;
/// Cleaning up after less would keep the writer from those who need it.
const IDLE_AFTER_MIN: Duration = Duration::from_millis(1);

/// What a new database keeps of the past unless it is told.
const HISTORY_OF_NEW: Retention = Retention::Within {
    age: Duration::from_secs(3600),
    bytes: 1 << 30,
};

impl Options {
    /// What a database made with these options keeps of the past.
    pub(crate) fn history_of_new(&self) -> Retention {
        self.history.unwrap_or(HISTORY_OF_NEW)
    }

    /// The defaults: 512 MiB of memory, 64 MiB of it for buffered changes, 16 KiB pages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of memory for everything: page cache, buffered changes, log buffers. Default 512 MiB.
    ///
    /// Three deltas are set aside (see [`Options::delta_bytes`]), and 14 MiB for log and I/O buffers; the rest is page
    /// cache, but 4 MiB at least: so a budget below 72 MiB is exceeded by what these need. A transaction that is larger than
    /// a delta takes more while it lasts. From 16 MiB to 1 TiB.
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// Bytes of changes buffered in memory before a checkpoint merges them into pages. Default 64 MiB, and at most a
    /// quarter of the memory budget. Larger: fewer page writes per change, a longer log tail to replay after a crash. Fewer
    /// are merged when nobody commits for a while, on demand, and when cursors have passed over deleted rows for as long as that
    /// takes.
    pub fn delta_bytes(mut self, bytes: usize) -> Self {
        self.delta_bytes = bytes;
        self
    }

    /// Bytes of a page, fixed when the database is created: a power of two from 4 KiB to 64 KiB. Default 16 KiB.
    pub fn page_bytes(mut self, bytes: u32) -> Self {
        self.page_bytes = bytes;
        self
    }

    /// Bytes of a file of the commit log, fixed when the database is created: a power of two from 64 KiB to 1 GiB.
    /// Default 4 MiB. A database that was closed, or that nobody has written to for a while, keeps two of them; larger
    /// ones are changed less often.
    pub fn log_segment_bytes(mut self, bytes: u32) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Which way to the disk. Default [`Backend::Auto`].
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Opens for reading only: nothing is written, also not to recover. Default false.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Creates the database if the directory is missing or empty. Default true.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// The longest a [`Buffered`](crate::Durability::Buffered) commit waits in memory. Default 5 ms.
    pub fn buffered_flush(mut self, at_most: Duration) -> Self {
        self.buffered_flush = at_most;
        self
    }

    /// After this long without commits, buffered changes are merged and free space is given back. Default 1 s, at least
    /// 1 ms.
    pub fn idle_after(mut self, quiet: Duration) -> Self {
        self.idle_after = quiet;
        self
    }

    /// Longest value in bytes. Default 16 MiB, at most 128 MiB.
    pub fn value_bytes_max(mut self, bytes: usize) -> Self {
        self.value_bytes_max = bytes;
        self
    }

    /// How much of the past is kept in the commit log, for those who read it: see [`Log`](crate::Log). Default
    /// [`Retention::None`]. It holds while the database is open with it, and costs room on the disk, not time.
    pub fn log_retention(mut self, retention: Retention) -> Self {
        self.log_retention = retention.rounded();
        self
    }

    /// Bytes of the commit log that are kept for subscribers ([`Log::subscribe`](crate::Log::subscribe)), at most: of one that
    /// is further behind, what it has not seen is let go, and it is told so by [`Error::NotInLog`]. Default 1 GiB.
    pub fn subscriber_log_bytes(mut self, at_most: u64) -> Self {
        self.subscriber_log_bytes = at_most;
        self
    }

    /// Bytes of superseded pages that open snapshots may keep from being reused together. Beyond it checkpoints move
    /// those that read a state which history has ([`Options::history`]) from the pages of their time to the newest ones and
    /// history: they read the same as before, about as fast as [`Db::begin_read_at`](crate::Db::begin_read_at) does. Default
    /// 32 MiB. Without history, a snapshot that is held keeps its pages, however many.
    pub fn snapshot_held_bytes(mut self, at_most: u64) -> Self {
        self.snapshot_held_bytes = at_most;
        self
    }

    /// Calls `tell` of an open snapshot, or of the full backup that reads it, that keeps more than so many bytes of superseded
    /// pages from being reused: once for each, before it is moved or ended. Default: nobody is told; [`Db::holders`](crate::Db::holders) can be asked.
    ///
    /// The thread that checkpoints calls it, and does nothing else meanwhile: it must not wait, nor use the database. What
    /// panics in it is lost.
    ///
    /// ```
    /// # fn main() -> northstardb::Result<()> {
    /// let db = northstardb::Options::new()
    ///     .on_snapshot_holding(1 << 30, |holder| eprintln!("keeps more than 1 GiB: {holder:?}"))
    ///     .memory()?;
    /// # db.close() }
    /// ```
    pub fn on_snapshot_holding(
        mut self,
        bytes: u64,
        tell: impl Fn(&Holder) + Send + Sync + 'static,
    ) -> Self {
        self.snapshot_watch = Some(Watch {
            from: bytes,
            tell: Arc::new(tell),
        });
        self
    }

    /// Bytes of superseded pages from which on a snapshot that cannot be moved is ended: its pages are reused, and reading
    /// what was in them answers [`Error::SnapshotGone`]. So much of history may be kept for snapshots beyond policy, too.
    /// Default: never, whatever it holds; [`Db::holders`](crate::Db::holders) tells who holds what.
    pub fn snapshot_limit_bytes(mut self, at_most: Option<u64>) -> Self {
        self.snapshot_limit_bytes = at_most;
        self
    }

    /// How much of the past can be read: see [`Db::begin_read_at`](crate::Db::begin_read_at). Default: what the database
    /// was last opened with; for a new one an hour or 1 GiB, whichever is less; for one in memory nothing.
    ///
    /// The database remembers it. Versions are kept from the moment on at which it is first asked for; what
    /// [`Retention::None`] gives up is gone. Asked for where it was not kept, it makes the first commit read all rows, for
    /// the digest of the state ([`Db::state_hashes`](crate::Db::state_hashes)). It costs room in the data file for what is overwritten or deleted, and the
    /// writing of it, once and in checkpoints; what is only inserted costs nothing. Bytes are those of the pages that
    /// history takes. What one checkpoint supersedes is kept or let go as a whole, however much it is: so a large range delete
    /// or a dropped table takes as much room again, until it is old enough; [`Retention::None`] gives it back with the
    /// next checkpoint.
    pub fn history(mut self, retention: Retention) -> Self {
        // What the meta page says can be compared with it.
        self.history = Some(retention.rounded());
        self
    }

    /// Opens the database in directory `path`.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NotADatabase`], [`Error::NewerFormat`], [`Error::Corrupt`],
    /// [`Error::InvalidOption`], [`Error::Io`], [`Error::Full`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Db> {
        Db::open_with(&self.checked()?, path.as_ref())
    }

    /// Opens a new, empty database in memory: the same engine over a disk that is gone with it. It keeps no history unless that
    /// is asked for: pages of the past are memory beyond the budget.
    ///
    /// # Errors
    /// [`Error::InvalidOption`].
    pub fn memory(self) -> Result<Db> {
        Db::memory_with(&self.checked()?)
    }

    pub(crate) fn checked(mut self) -> Result<Self> {
        let page = self.page_bytes;
        let sizes = limits::PAGE_BYTES_MIN..=limits::PAGE_BYTES_MAX;
        if !page.is_power_of_two() || !sizes.contains(&page) {
            return Err(invalid(
                "page_bytes",
                &page,
                "a power of two from 4096 to 65536",
            ));
        }
        let segment = self.segment_bytes;
        let sizes = limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX;
        if !segment.is_power_of_two() || !sizes.contains(&segment) {
            return Err(invalid(
                "log_segment_bytes",
                &segment,
                "a power of two from 65536 to 1073741824",
            ));
        }
        if !(16 << 20..=MEMORY_BUDGET_MAX).contains(&self.memory_budget) {
            return Err(invalid(
                "memory_budget",
                &self.memory_budget,
                "from 16777216 to 1099511627776",
            ));
        }
        self.idle_after = self.idle_after.max(IDLE_AFTER_MIN);
        if self.value_bytes_max > 128 << 20 {
            return Err(invalid(
                "value_bytes_max",
                &self.value_bytes_max,
                "at most 134217728",
            ));
        }
        if self.delta_bytes == 0 {
            return Err(invalid("delta_bytes", &self.delta_bytes, "at least 1"));
        }
        if self.delta_bytes > 2 << 30 {
            return Err(invalid(
                "delta_bytes",
                &self.delta_bytes,
                "at most 2147483648",
            ));
        }
        self.delta_bytes = self.delta_bytes.min(self.memory_budget / 4);
        Ok(self)
    }
}

fn invalid(option: &'static str, found: &impl ToString, expected: &str) -> Error {
    Error::InvalidOption {
        option,
        found: found.to_string(),
        expected: expected.to_owned(),
    }
}
