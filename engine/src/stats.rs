//! What a database says about itself.

use crate::ids::TxnId;

/// Figures of an open database, taken without stopping anyone: each is exact, together they may be of slightly
/// different moments. Counters start at 0 when the database is opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// `io_uring`, `pread` or `memory`.
    pub backend: &'static str,
    /// Transfers bypass the kernel's page cache.
    pub direct: bool,
    /// One sentence for each thing the database wanted from the machine and was refused.
    pub warnings: Vec<String>,
    /// How a commit is made durable: chosen by measurement when the database was created.
    pub sync_method: &'static str,
    /// Transactions committed.
    pub commits: u64,
    /// Groups written to the log.
    pub log_groups: u64,
    /// Flushes of log files: the only thing a commit waits for.
    pub log_flushes: u64,
    /// Bytes written to the log, padding included.
    pub log_bytes_written: u64,
    /// Flushes of the data file, by checkpoints.
    pub data_flushes: u64,
    /// Bytes written to the data file.
    pub data_bytes_written: u64,
    /// Times that something written was made durable, in any file: groups, checkpoints, segments of the log that were made ready. Not
    /// counted are syncs of directories. None in memory.
    pub flushes: u64,
    /// Bytes written to all files. None in memory.
    pub bytes_written: u64,
    /// Bytes read from all files.
    pub bytes_read: u64,
    /// Pages read because they were not in memory.
    pub page_reads: u64,
    /// Pages dropped from memory for others.
    pub evictions: u64,
    /// Checkpoints completed.
    pub checkpoints: u64,
    /// The generation of the current tree: rises with every slice of a checkpoint.
    pub generation: u32,
    /// The newest transaction that readers see.
    pub visible_txn: TxnId,
    /// The oldest transaction that [`Db::begin_read_at`](crate::Db::begin_read_at) can read.
    pub horizon_txn: TxnId,
    /// Bytes of changes not yet merged into pages.
    pub delta_bytes: u64,
    /// Bytes of memory the database may use.
    pub memory_budget: u64,
    /// Pages that memory has room for.
    pub frames: u64,
    /// Bytes of a page.
    pub page_bytes: u32,
    /// Length of the data file in bytes.
    pub data_file_bytes: u64,
    /// Pages of the data file that hold nothing.
    pub free_pages: u64,
    /// Pages of the data file that hold superseded versions.
    pub history_pages: u64,
    /// Runs of history: a read of the past that finds a key changed looks at those that end after it.
    pub history_runs: u64,
    /// Bytes of the log that a recovery would read.
    pub log_tail_bytes: u64,
    /// Snapshots open now.
    pub snapshots_open: u64,
    /// The oldest of them.
    pub snapshot_oldest: Option<TxnId>,
    /// Moves of open snapshots from pages of their time to history.
    pub snapshots_moved: u64,
    /// Open snapshots that were ended for what they held.
    pub snapshots_ended: u64,
    /// Commit records replayed when the database was opened.
    pub replayed_records: u64,
    /// Nanoseconds commits were held back because checkpoints were behind.
    pub throttled_ns: u64,
}

/// What a walk over every page found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CheckReport {
    /// Tables, system tables not counted.
    pub tables: u64,
    /// Rows in pages.
    pub rows: u64,
    /// Superseded versions in history.
    pub versions: u64,
    /// Leaf pages.
    pub leaves: u64,
    /// Branch pages.
    pub branches: u64,
    /// Pages of large values.
    pub overflow_pages: u64,
    /// Pages that hold nothing.
    pub free_pages: u64,
    /// Copies of the meta pages that are sound, of four. One is enough to open the database; a crash may leave some that are not, and
    /// an opening that may write mends those of the newest.
    pub meta_copies: u64,
    /// Every contradiction found; empty means sound.
    pub faults: Vec<String>,
}
