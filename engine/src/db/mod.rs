//! The database as its users see it: opening, transactions, tables, closing.

pub(crate) mod apply;
pub(crate) mod backup;
pub(crate) mod batch;
mod changed;
pub(crate) mod changes;
pub(crate) mod holders;
pub(crate) mod log;
pub(crate) mod log_reader;
pub(crate) mod moments;
pub(crate) mod open;
pub(crate) mod options;
pub(crate) mod range;
pub(crate) mod read;
pub(crate) mod restore;
pub(crate) mod states;
pub(crate) mod subscribers;
pub(crate) mod verify;
pub(crate) mod world;
pub(crate) mod write;

use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use northstar_io::planted::planted;
use northstar_io::{Disk, SyncMethod};

use self::batch::WriteBatch;
use self::log::Log;
use self::options::Options;
use self::read::ReadTxn;
use self::write::WriteTxn;
use crate::checkpoint::run::Checkpointer;
use crate::checkpoint::thread::Signal;
use crate::error::{Error, Result};
use crate::ids::{Lsn, TxnId};
use crate::log::Segments;
use crate::stats::{CheckReport, Stats};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{JoinHandle, is_current};
use crate::txn::shape::Shapes;
use crate::txn::snapshot::Snapshot;
use crate::txn::table::{Table, TableOptions, check_name, made_so};
use crate::writer::pipeline::{Pipeline, Request};
use crate::writer::wait::{Commit, CommitHandle, Ticket};

/// An open database. Cheap to clone; all clones are the same database, which may be used from any thread.
///
/// ```
/// # fn main() -> northstardb::Result<()> {
/// # let dir = tempfile::tempdir().expect("a directory");
/// # let path = dir.path().join("db");
/// let db = northstardb::Db::open(&path)?;
/// let users = db.table("users")?;
///
/// let mut txn = db.begin_write()?;
/// txn.put(&users, "ada", "1815")?;
/// txn.commit()?;
///
/// let snapshot = db.begin_read()?;
/// assert_eq!(snapshot.get(&users, "ada")?.as_deref(), Some(&b"1815"[..]));
/// # drop(snapshot);
/// db.close()?;
/// # Ok(()) }
/// ```
///
/// [`Db::close`] merges what is buffered, so that the next open replays nothing. Dropping the last clone without it
/// flushes buffered commits and stops; nothing committed is lost, and the next open replays the log's tail.
#[derive(Debug, Clone)]
pub struct Db {
    handle: Arc<Handle>,
}

/// Dropped with the last clone.
#[derive(Debug)]
struct Handle {
    engine: Arc<Engine>,
    threads: Mutex<Vec<JoinHandle>>,
}

/// What all handles and background threads share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) shapes: Arc<Shapes>,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) checkpointer: Mutex<Checkpointer>,
    pub(crate) signal: Arc<Signal>,
    pub(crate) segments: Arc<Segments>,
    /// The database's id, and its low 64 bits.
    pub(crate) database_id: u128,
    pub(crate) database: u64,
    /// Where the log ended when it was opened.
    pub(crate) log_end_at_open: Lsn,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) key_bytes_max: usize,
    pub(crate) value_bytes_max: usize,
    pub(crate) memory_budget: usize,
    pub(crate) read_only: bool,
    pub(crate) replayed_records: u64,
    /// Both meta slots were sound when it was opened.
    has_older: bool,
    /// How far the log was surely durable when it was opened.
    proven: Lsn,
    dir: PathBuf,
    /// How log writes become durable, if that was said.
    sync_method: Option<SyncMethod>,
    /// The log can be appended to.
    awake: AtomicBool,
    closed: AtomicBool,
}

impl Db {
    /// Opens the database in directory `path` with default [`Options`], creating it if there is none.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// Opens a new, empty database in memory.
    ///
    /// # Errors
    /// As [`Options::memory`].
    pub fn memory() -> Result<Self> {
        Options::new().memory()
    }

    /// Options for opening.
    pub fn options() -> Options {
        Options::new()
    }

    pub(crate) fn engine(&self) -> Result<&Arc<Engine>> {
        if self.handle.engine.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        Ok(&self.handle.engine)
    }

    fn writable(&self) -> Result<&Arc<Engine>> {
        let engine = self.engine()?;
        if engine.read_only {
            Err(Error::ReadOnly)
        } else {
            Ok(engine)
        }
    }

    /// Begins reading the newest durable state. Nanoseconds; no lock, no allocation.
    ///
    /// # Errors
    /// [`Error::Closed`].
    #[track_caller]
    pub fn begin_read(&self) -> Result<ReadTxn> {
        let place = Some(Location::caller());
        Ok(ReadTxn {
            snapshot: Snapshot::newest(&self.engine()?.shapes, place)?,
        })
    }

    /// Begins reading the state right after transaction `txn`: of any down to the horizon, which
    /// [`Options::history`](crate::Options::history) keeps in the past; without it, as far back as changes are still in
    /// memory. Nanoseconds; no lock, no allocation. Reading a table without history
    /// ([`TableOptions::history`]) in such a state is [`Error::NoHistory`].
    ///
    /// # Errors
    /// [`Error::SnapshotGone`] beyond the horizon, [`Error::Closed`].
    #[track_caller]
    pub fn begin_read_at(&self, txn: TxnId) -> Result<ReadTxn> {
        let place = Some(Location::caller());
        Ok(ReadTxn {
            snapshot: Snapshot::at(&self.engine()?.shapes, txn, place)?,
        })
    }

    /// Begins the exclusive write transaction, waiting for its turn.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Halted`], [`Error::Closed`], [`Error::Full`].
    pub fn begin_write(&self) -> Result<WriteTxn> {
        WriteTxn::wait_for(self.writable()?)
    }

    /// Begins the exclusive write transaction if nobody else is writing.
    ///
    /// # Errors
    /// [`Error::WriteBusy`] otherwise; and as [`Db::begin_write`].
    pub fn try_begin_write(&self) -> Result<WriteTxn> {
        let engine = self.writable()?;
        engine.before_commit()?;
        match engine.pipeline.try_take_core() {
            Some(mut core) => {
                engine.pipeline.serve_before_keeping(&mut core);
                WriteTxn::begin(Arc::clone(engine), core)
            }
            None => Err(Error::WriteBusy),
        }
    }

    /// Commits a batch and waits until it is acknowledged.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::TooLarge`], [`Error::Full`]: nothing is changed.
    /// [`Error::Halted`]: the outcome is unknown. [`Error::ReadOnly`], [`Error::Closed`].
    pub fn commit(&self, batch: WriteBatch) -> Result<Commit> {
        let engine = self.writable()?;
        if batch.is_empty() {
            return engine.nothing_to_commit(batch);
        }
        let request = engine.request(batch, Ticket::blocking())?;
        engine.pipeline.commit(request)
    }

    /// Hands a batch over without waiting for it to become durable; the handle tells its outcome. Batches of one thread
    /// commit in the order they were submitted.
    ///
    /// It blocks where there is no room: while checkpoints are behind, or when 4,096 batches wait for the writer. So it is
    /// no place for a thread that keeps a [`WriteTxn`] open. An empty batch waits for what was committed before it.
    ///
    /// # Errors
    /// As [`Db::commit`], except [`Error::Halted`], which the handle reports if it happens later.
    pub fn submit(&self, batch: WriteBatch) -> Result<CommitHandle> {
        let engine = self.writable()?;
        if batch.is_empty() {
            return engine.nothing_to_commit(batch).map(CommitHandle::settled);
        }
        let request = engine.request(batch, Ticket::detached())?;
        engine.pipeline.submit(request)
    }

    /// Opens a table, creating it durably if there is none of that name.
    ///
    /// # Errors
    /// As [`Db::begin_write`]; [`Error::TooLarge`] for the name.
    pub fn table(&self, name: &str) -> Result<Table> {
        check_name(name)?;
        match self.open_table(name) {
            Err(Error::UnknownTable { .. }) => {}
            found => return found,
        }
        let mut txn = self.begin_write()?;
        let table = txn.table(name)?;
        txn.commit()?;
        Ok(table)
    }

    /// Opens a table, creating it durably as `options` say if there is none of that name.
    ///
    /// ```
    /// # fn main() -> northstardb::Result<()> {
    /// use northstardb::{Error, Options, Retention, TableOptions};
    ///
    /// let db = Options::new().history(Retention::All).memory()?;
    /// let scratch = db.table_with("scratch", TableOptions::new().history(false))?;
    /// let before = db.begin_read()?.txn_id();
    /// let mut txn = db.begin_write()?;
    /// txn.put(&scratch, "k", "v")?;
    /// txn.commit()?;
    /// db.checkpoint()?;
    /// let then = db.begin_read_at(before)?;
    /// assert!(matches!(then.get(&scratch, "k"), Err(Error::NoHistory { .. })));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Db::table`]; [`Error::InvalidOption`] if the table was made otherwise.
    pub fn table_with(&self, name: &str, options: TableOptions) -> Result<Table> {
        check_name(name)?;
        match self.open_table(name) {
            Err(Error::UnknownTable { .. }) => {}
            found => return found.and_then(|table| made_so(table, options)),
        }
        let mut txn = self.begin_write()?;
        let table = txn.table_with(name, options)?;
        txn.commit()?;
        Ok(table)
    }

    /// Opens a table that exists.
    ///
    /// # Errors
    /// [`Error::UnknownTable`].
    pub fn open_table(&self, name: &str) -> Result<Table> {
        self.begin_read()?.open_table(name)
    }

    /// Names of the tables, in order.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`], [`Error::Closed`].
    pub fn tables(&self) -> Result<Vec<String>> {
        self.begin_read()?.tables()
    }

    /// Renames a table; handles stay good.
    ///
    /// # Errors
    /// As [`WriteTxn::rename_table`] and [`Db::begin_write`].
    pub fn rename_table(&self, old: &str, new: &str) -> Result<Commit> {
        let mut txn = self.begin_write()?;
        txn.rename_table(old, new)?;
        txn.commit()
    }

    /// Drops a table with all its rows; its space is freed by the checkpoints that follow.
    ///
    /// # Errors
    /// As [`WriteTxn::drop_table`] and [`Db::begin_write`].
    pub fn drop_table(&self, name: &str) -> Result<Commit> {
        let mut txn = self.begin_write()?;
        txn.drop_table(name)?;
        txn.commit()
    }

    /// Merges everything committed so far into pages and waits for it. Needed by nobody for safety; it shortens
    /// the next open and frees memory and, if nobody commits meanwhile, the space of the log.
    ///
    /// # Errors
    /// [`Error::Full`]: nothing is lost, and it will be tried again. [`Error::Halted`], [`Error::ReadOnly`],
    /// [`Error::Closed`].
    pub fn checkpoint(&self) -> Result<()> {
        let engine = self.writable()?;
        // The space of the log is given back at the end, which is safe only for one who has secured what was found.
        engine.awaken()?;
        loop {
            engine.signal.merge();
            engine.merge_alone()?;
            engine.signal.wait_merged(&engine.shapes)?;
            let mut core = engine.pipeline.take_core()?;
            let frozen = engine.pipeline.freeze(&mut core);
            // Empty: frozen just now, or nothing to merge. Else another one was frozen first.
            let done = core.delta.is_empty();
            engine.pipeline.return_core(core);
            frozen?;
            if done {
                engine.merge_alone()?;
                engine.signal.wait_merged(&engine.shapes)?;
                return engine.shrink_log();
            }
        }
    }

    /// The number that its backups name it by ([`Backup::database`](crate::Backup::database)): drawn when it was created, and that
    /// of every copy of its files, too.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn id(&self) -> Result<u128> {
        Ok(self.engine()?.database_id)
    }

    /// The commit log, as a stream of transactions.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn log(&self) -> Result<Log> {
        self.engine().map(Log::of)
    }

    /// Figures about this database.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn stats(&self) -> Result<Stats> {
        Ok(self.engine()?.stats())
    }

    /// Walks every page of the newest checkpoint, verifies every checksum and invariant, and compares what is
    /// reachable with what is marked in use. Checkpoints wait for it; commits and reads do not.
    ///
    /// # Errors
    /// [`Error::Closed`]. What it finds is in the report.
    pub fn check(&self) -> Result<CheckReport> {
        let engine = self.engine()?;
        let checkpointer = engine.checkpointer.lock();
        checkpointer.check()
    }

    /// Closes the database: commits in progress end, and what is buffered is merged. Other clones answer
    /// [`Error::Closed`] from then on. Open read transactions go on reading; it can be opened again when they end.
    ///
    /// # Errors
    /// What the last checkpoint met. Nothing committed is lost by it, and the next open replays the log's tail.
    pub fn close(self) -> Result<()> {
        self.handle.close()
    }
}

impl Handle {
    fn stop_threads(&self) {
        self.engine.signal.stop();
        self.engine.pipeline.stop_log_thread();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // The last handle may be dropped by a task that one of the threads wakes and thereby ends.
            if !is_current(&thread) {
                // A background thread that panicked has halted the writer; there is nothing to add here.
                let _ended = thread.join();
            }
        }
    }

    fn close(&self) -> Result<()> {
        let engine = &self.engine;
        if engine.closed.swap(true, Ordering::AcqRel) {
            return Err(Error::Closed);
        }
        // Waits for an open write transaction; its box is kept, so nobody commits any more.
        let core = if engine.read_only {
            None
        } else {
            engine.pipeline.take_core().ok()
        };
        self.stop_threads();
        let outcome = match core {
            Some(_) if !engine.awake.load(Ordering::Acquire) => Ok(()),
            Some(core) => engine.last_checkpoint(core),
            None => engine.pipeline.check_running(),
        };
        engine.pipeline.shut();
        // Whoever was about to write first has either done so or finds the database closed: the file lock ends here.
        if !planted("closing does not wait for who writes first") {
            engine.checkpointer.lock().segments.shut();
        }
        engine.shapes.shared.close();
        engine.shapes.shared.store.leave();
        outcome
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.engine.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        // The lock goes with the engine: a write transaction that lives on may still commit.
        self.stop_threads();
        self.engine.shapes.shared.forget_ended();
        let tasks = self.engine.shapes.shared.bell.ring();
        tasks.into_iter().for_each(std::task::Waker::wake);
    }
}

impl Engine {
    /// Slows the caller down where checkpoints are behind.
    pub(crate) fn before_commit(&self) -> Result<()> {
        self.pipeline.check_running()?;
        self.awaken()?;
        match self.merge_alone() {
            // Commits go on while memory lasts.
            Ok(()) | Err(Error::Full { .. }) => {}
            Err(error) => return Err(error),
        }
        self.pipeline.throttle(|| self.signal.failure())
    }

    /// Merges what is frozen, if there is no thread for it.
    pub(crate) fn merge_alone(&self) -> Result<()> {
        if self.pipeline.has_background() || self.shapes.load().frozen.is_empty() {
            return Ok(());
        }
        let outcome = self.checkpointer.lock().merge_frozen().map(drop);
        self.signal.done(&outcome);
        outcome
    }

    /// Does what the checkpoint thread does when nobody commits for a while.
    #[cfg(feature = "internals")]
    pub(crate) fn idle(&self) -> Result<()> {
        self.merge_alone()?;
        if let Some(mut core) = self.pipeline.try_take_core() {
            let frozen = self.pipeline.freeze(&mut core);
            self.pipeline.return_core(core);
            frozen?;
        }
        self.merge_alone()?;
        self.checkpointer.lock().tidy()
    }

    /// Gives the log's space back, unless somebody is about to need it.
    fn shrink_log(&self) -> Result<()> {
        let mut checkpointer = self.checkpointer.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if self.shapes.load().active.is_empty() {
            checkpointer.shrink_log()?;
        }
        Ok(())
    }

    fn request(&self, mut batch: WriteBatch, ticket: Arc<Ticket>) -> Result<Request> {
        batch.check(self.key_bytes_max, self.value_bytes_max)?;
        self.before_commit()?;
        let claim = self
            .pipeline
            .claim_log(batch.tag.len() + batch.ops.bytes().len())?;
        let WriteBatch {
            ops,
            tables,
            tag,
            durability,
            ..
        } = batch;
        Ok(Request {
            ops,
            tables,
            tag,
            durability,
            ticket,
            claim,
        })
    }

    /// An empty batch: waits for what was committed before it, as any commit would.
    fn nothing_to_commit(&self, mut batch: WriteBatch) -> Result<Commit> {
        batch.check(self.key_bytes_max, self.value_bytes_max)?;
        self.pipeline.flush()?;
        let position = self.pipeline.position();
        Ok(Commit {
            txn_id: position.last_txn,
            lsn: position.lsn,
        })
    }

    /// Merges all there is, with the writer role in hand and no thread running.
    fn last_checkpoint(&self, mut core: Box<crate::writer::core::Core>) -> Result<()> {
        self.pipeline.serve_all(&mut core);
        self.pipeline.flush()?;
        let mut checkpointer = self.checkpointer.lock();
        checkpointer.merge_frozen()?;
        if self.pipeline.freeze(&mut core)? {
            checkpointer.merge_frozen()?;
        }
        checkpointer.finish()
    }

    fn stats(&self) -> Stats {
        let disk = self.disk.status();
        let io = self.disk.counters().counts();
        let in_files = |count: u64| if disk.backend == "memory" { 0 } else { count };
        let shape = self.shapes.load();
        let shared = &self.shapes.shared;
        let (snapshots_open, snapshot_oldest) = shared.registry.open();
        let mut stats = Stats {
            backend: disk.backend,
            direct: disk.direct,
            warnings: disk.warnings,
            commits: self.pipeline.commits(),
            flushes: in_files(io.syncs),
            bytes_written: in_files(io.write_bytes),
            bytes_read: io.read_bytes,
            generation: shape.generation.get(),
            visible_txn: shared.visible(),
            horizon_txn: shape.history.horizon,
            history_pages: shape.history.runs.iter().map(|run| run.pages).sum(),
            history_runs: shape.history.runs.len() as u64,
            delta_bytes: shape.deltas().map(|delta| delta.used_bytes() as u64).sum(),
            memory_budget: self.memory_budget as u64,
            snapshots_open,
            snapshot_oldest,
            replayed_records: self.replayed_records,
            ..Stats::default()
        };
        self.pipeline.fill_stats(&mut stats);
        shared.store.fill_stats(&mut stats);
        stats
    }
}
