//! The commit stream: every committed transaction, in order, from the log. Spec: SE-015.

use std::iter::FusedIterator;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_core::Stream;

use super::Engine;
use super::range::{Span, prefix_span};
use super::verify::{LogHole, LogReport, Walk};
use super::write::WriteTxn;
use crate::error::{Corruption, Error, Result};
use crate::format::record::{Op, Ops, Record};
use crate::ids::{Lsn, TableId, TxnId};
use crate::log::{Follower, LogError, Places};
use crate::sync::atomic::Ordering;
use crate::txn::snapshot::Snapshot;
use crate::txn::table::{Table, decode_entry};

/// Walks over the log from which segments were let go before they came to them, until one has them wait.
const OVERTAKEN_MAX: u32 = 3;

/// The commit log of an open database: what was committed, readable as a stream of transactions.
///
/// The log holds what recovery needs, and before it as much as [`Options::log_retention`](crate::Options::log_retention) says.
///
/// ```
/// # fn main() -> northstardb::Result<()> {
/// # use northstardb::{Change, Db, LogFilter};
/// let db = Db::memory()?;
/// let table = db.table("users")?;
/// let mut txn = db.begin_write()?;
/// txn.put(&table, "ada", "1815")?;
/// txn.set_tag(b"import 7")?;
/// let commit = txn.commit()?;
///
/// let mut tail = db.log()?.tail(commit.txn_id, LogFilter::all())?;
/// let found = tail.try_next()?.expect("it was committed");
/// assert_eq!((found.txn_id(), found.tag()), (commit.txn_id, &b"import 7"[..]));
/// let changes: Vec<_> = found.changes().collect();
/// assert_eq!(changes, [Change::Put { table: table.id(), key: b"ada", value: b"1815" }]);
/// # drop(tail);
/// # db.close() }
/// ```
#[derive(Debug, Clone)]
pub struct Log {
    engine: Arc<Engine>,
}

impl Log {
    pub(crate) fn of(engine: &Arc<Engine>) -> Self {
        Self {
            engine: Arc::clone(engine),
        }
    }

    /// The first transaction that the log holds; the one that will be committed next, if it holds none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn first(&self) -> Result<TxnId> {
        let engine = &self.engine;
        let border = engine.pipeline.position();
        let next = border.last_txn.next();
        match Follower::from_first(&engine.segments, engine.database, border.lsn) {
            Ok(follower) => Ok(follower.map_or(next, |follower| follower.txn().min(next))),
            Err(LogError::Gone) => Ok(next),
            Err(error) => Err(error.into()),
        }
    }

    /// The transaction that will be committed, and durable, next.
    #[must_use]
    pub fn next(&self) -> TxnId {
        self.engine.log_end().0
    }

    /// Follows the log from transaction `from` on: what is there, and then what is committed, as it becomes durable.
    ///
    /// `from` is at most [`Log::next`]. To go on where another tail ended, give what [`Tail::position`] said there, or the id
    /// after that of the last transaction seen. The tail keeps the database open, as a write transaction does.
    ///
    /// # Errors
    /// [`Error::NotInLog`], [`Error::UnknownTable`] for a table of another database, [`Error::Corrupt`], [`Error::Io`].
    pub fn tail(&self, from: TxnId, filter: LogFilter) -> Result<Tail> {
        let engine = &self.engine;
        let instance = self.instance();
        if let Some(table) = filter.wanted.iter().find(|want| want.instance != instance) {
            return Err(Error::UnknownTable {
                name: table.name.clone(),
            });
        }
        let border = engine.pipeline.position();
        let from = from.max(TxnId::ZERO.next());
        if from > border.last_txn.next() {
            return Err(self.not_in_log(from, border.last_txn.next())?);
        }
        let sought = Follower::seek(&engine.segments, engine.database, from, border);
        match sought {
            Ok(follower) => Ok(Tail {
                log: self.clone(),
                follower,
                filter: Arc::new(filter),
                ended: false,
                waits: None,
            }),
            Err(LogError::Gone) => Err(self.not_in_log(from, border.last_txn.next())?),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the whole log, verifies every checksum and every link of the chain, and goes on behind what is damaged.
    /// [`Options::verify_log`](crate::Options::verify_log) does so where the database cannot be opened.
    ///
    /// # Errors
    /// [`Error::Closed`]. What it finds is in the report, also what the device refuses to read.
    pub fn check(&self) -> Result<LogReport> {
        let engine = &self.engine;
        if engine.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let segments = &engine.segments;
        let mut overtaken = 0;
        loop {
            // Who is overtaken again and again has segments wait for the end of a walk.
            let _held = (overtaken >= OVERTAKEN_MAX).then(|| segments.hold_recycling());
            let started_at = segments.start();
            let border = engine.pipeline.position();
            let (next, end) = (border.last_txn.next(), border.lsn);
            let mut walk = Walk::default();
            let first = Follower::from_any(segments, engine.database, started_at, end);
            walk.note_start(started_at, first.as_ref(), Some(end));
            if let Some(mut follower) = first {
                walk.walk_to(segments, &mut follower, end, next);
                walk.check_border(&follower, end, border.checksum, next);
            }
            // What is let go during the walk is no hole.
            let starts_at = segments.start();
            let is_old = |hole: &LogHole| hole.place.is_some_and(|(from, _)| from < starts_at);
            let is_late = walk
                .report
                .unexplained
                .is_some_and(|(from, _)| from < starts_at);
            if starts_at > started_at && (is_late || walk.report.holes.iter().any(is_old)) {
                overtaken += 1;
                continue;
            }
            let report = &mut walk.report;
            report.first = report.first.or(Some(next));
            report.next = report.next.or(Some(next));
            return Ok(walk.report);
        }
    }

    /// How many bytes the log has from the segment on in which a transaction is, or from its start if that was let go or cannot be
    /// read; none from the next transaction on.
    pub(super) fn bytes_from(&self) -> impl FnMut(TxnId) -> u64 {
        let segments = &self.engine.segments;
        let border = self.engine.pipeline.position();
        let mut places = Places::new(segments, self.engine.database, border.lsn);
        move |txn| {
            if txn > border.last_txn {
                return 0;
            }
            let from = places.segment_of(txn).ok().flatten();
            let from = from.unwrap_or_else(|| segments.start());
            border.lsn.get().saturating_sub(from.get())
        }
    }

    pub(super) fn begin_write(&self) -> Result<WriteTxn> {
        let engine = &self.engine;
        if engine.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if engine.read_only {
            return Err(Error::ReadOnly);
        }
        WriteTxn::wait_for(engine)
    }

    /// Waits until what is being decided about old segments has happened.
    pub(super) fn pass_recycling(&self) {
        drop(self.engine.segments.hold_recycling());
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::newest(&self.engine.shapes, None)
    }

    /// What tells this open database from all others.
    pub(super) fn instance(&self) -> u64 {
        self.engine.shapes.shared.tables.instance
    }

    /// Why `asked` was not found, when `next` was the transaction that would come next.
    pub(super) fn not_in_log(&self, asked: TxnId, next: TxnId) -> Result<Error> {
        let first = self.first()?;
        if (first..next).contains(&asked) {
            return Ok(damaged(format!(
                "{asked} is not found in it, though it holds {first} up to and without {next}"
            )));
        }
        Ok(Error::NotInLog { asked, first, next })
    }
}

impl Engine {
    /// The transaction that becomes visible next, and a border of the log, durable, that is not before its group.
    fn log_end(&self) -> (TxnId, Lsn) {
        // In this order: the end of the log was noted before its transactions became visible. It may be that of a group
        // whose transactions are not visible yet, so the two together are no place to begin at.
        let visible = self.shapes.shared.visible();
        let end = self.segments.end().max(self.log_end_at_open);
        (visible.next(), end)
    }
}

/// Which changes a [`Tail`] shows.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct LogFilter {
    /// Everything, if empty.
    wanted: Vec<Wanted>,
    /// Also transactions of which nothing is shown.
    all: bool,
}

/// Keys of a table.
#[derive(Debug, Clone)]
struct Wanted {
    instance: u64,
    table: TableId,
    name: String,
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl LogFilter {
    /// Every change of every table.
    pub fn all() -> Self {
        Self::default()
    }

    /// As [`LogFilter::all`], and also transactions without changes of tables, such as those that move a subscriber on: for
    /// who makes a copy ([`Db::begin_apply`](crate::Db::begin_apply)) and needs each one.
    ///
    /// A subscriber is then shown what its own acknowledging commits. Who acknowledges that in turn never comes to an end: acknowledge once
    /// something with changes was seen.
    pub fn every_transaction() -> Self {
        Self {
            wanted: Vec::new(),
            all: true,
        }
    }

    /// Also changes of this table; of no others but those asked for.
    pub fn table(self, table: &Table) -> Self {
        self.span(table, Vec::new(), None)
    }

    /// Also changes of keys of this table that begin with `prefix`. A range delete is shown whole if it may meet one.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a prefix longer than any key.
    pub fn prefix(self, table: &Table, prefix: impl AsRef<[u8]>) -> Result<Self> {
        match prefix_span(prefix.as_ref())? {
            Span::Keys { from, to } => Ok(self.span(table, from, to)),
            Span::Empty => Ok(self),
        }
    }

    fn span(mut self, table: &Table, from: Vec<u8>, to: Option<Vec<u8>>) -> Self {
        self.wanted.push(Wanted {
            instance: table.instance(),
            table: table.table_id(),
            name: table.name().to_owned(),
            from,
            to,
        });
        self
    }

    fn wants(&self, change: &Change<'_>) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| wanted.meets(change))
    }
}

impl Wanted {
    fn meets(&self, change: &Change<'_>) -> bool {
        if change.table() != self.table.get() {
            return false;
        }
        let below = |key: &[u8]| self.to.as_deref().is_none_or(|to| key < to);
        match *change {
            Change::Put { key, .. } | Change::Delete { key, .. } => {
                *self.from <= *key && below(key)
            }
            Change::DeleteRange { from, to, .. } => {
                to.is_none_or(|to| *self.from < *to) && below(from)
            }
            Change::CreateTable { .. } | Change::RenameTable { .. } | Change::DropTable { .. } => {
                true
            }
        }
    }
}

/// One change of a transaction. Later ones of the same transaction win over earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change<'t> {
    /// The key has this value from now on.
    Put {
        /// [`Table::id`].
        table: u32,
        /// The key.
        key: &'t [u8],
        /// Its value.
        value: &'t [u8],
    },
    /// The key is absent from now on.
    Delete {
        /// [`Table::id`].
        table: u32,
        /// The key.
        key: &'t [u8],
    },
    /// All keys from `from` up to and without `to` are absent from now on.
    DeleteRange {
        /// [`Table::id`].
        table: u32,
        /// The first that goes.
        from: &'t [u8],
        /// The first that stays; none if all go to the end.
        to: Option<&'t [u8]>,
    },
    /// A table was made.
    CreateTable {
        /// Its id.
        table: u32,
        /// Its name.
        name: &'t str,
    },
    /// A table has another name.
    RenameTable {
        /// Its id.
        table: u32,
        /// The name it had.
        from: &'t str,
        /// The name it has.
        to: &'t str,
    },
    /// A table is gone with all its rows.
    DropTable {
        /// Its id.
        table: u32,
        /// The name it had.
        name: &'t str,
    },
}

impl<'t> Change<'t> {
    /// The id of the table it changes.
    #[must_use]
    pub const fn table(&self) -> u32 {
        match *self {
            Self::Put { table, .. }
            | Self::Delete { table, .. }
            | Self::DeleteRange { table, .. }
            | Self::CreateTable { table, .. }
            | Self::RenameTable { table, .. }
            | Self::DropTable { table, .. } => table,
        }
    }

    /// The next change of a record: one operation, or the two that rename or drop a table.
    fn take(ops: &mut Ops<'t>) -> Option<Result<Self>> {
        // How far subscribers are is no change of a table.
        let is_own = |op: &Op<'_>| op.table() == TableId::SUBSCRIBERS;
        let next = ops.find(|op| !op.as_ref().is_ok_and(is_own))?;
        Some(
            next.map_err(|error| damaged(error.to_string()))
                .and_then(|op| Self::of(op, ops)),
        )
    }

    fn of(op: Op<'t>, rest: &mut Ops<'t>) -> Result<Self> {
        let text = |name: &'t [u8]| {
            std::str::from_utf8(name).map_err(|error| damaged(format!("a table's name: {error}")))
        };
        Ok(match op {
            Op::Put {
                table: TableId::NAMES,
                key,
                value,
            } => {
                let name = text(key)?;
                let table = decode_entry(name, value)?.get();
                Self::CreateTable { table, name }
            }
            Op::Delete {
                table: TableId::NAMES,
                key,
            } => match rest.next() {
                Some(Ok(Op::Put {
                    table: TableId::NAMES,
                    key: to,
                    value,
                })) => Self::RenameTable {
                    table: decode_entry(text(to)?, value)?.get(),
                    from: text(key)?,
                    to: text(to)?,
                },
                Some(Ok(
                    Op::DropTable { table }
                    | Op::DeleteRange {
                        table,
                        from: &[],
                        to: None,
                    },
                )) => Self::DropTable {
                    table: table.get(),
                    name: text(key)?,
                },
                other => {
                    return Err(damaged(format!(
                        "a table lost its name, and {other:?} follows"
                    )));
                }
            },
            Op::DropTable { table } => {
                return Err(damaged(format!("{table:?} was dropped and kept its name")));
            }
            Op::DeleteRange {
                table: TableId::NAMES,
                ..
            } => return Err(damaged("tables lost their names".to_owned())),
            Op::Put { table, key, value } => Self::Put {
                table: table.get(),
                key,
                value,
            },
            Op::Delete { table, key } => Self::Delete {
                table: table.get(),
                key,
            },
            Op::DeleteRange { table, from, to } => Self::DeleteRange {
                table: table.get(),
                from,
                to,
            },
        })
    }
}

/// Damage in the log.
pub(super) fn damaged(detail: String) -> Error {
    Error::Corrupt(Corruption {
        file: "log",
        offset: None,
        detail,
    })
}

/// A committed transaction, as the log has it.
#[derive(Debug, Clone)]
pub struct Transaction {
    txn: TxnId,
    time_ns: u64,
    tag: Box<[u8]>,
    ops: Box<[u8]>,
    op_count: u32,
    filter: Arc<LogFilter>,
}

impl Transaction {
    /// Its id. Ids rise by one: one that is not shown had no change that the filter wants.
    #[must_use]
    pub const fn txn_id(&self) -> TxnId {
        self.txn
    }

    /// When it was committed: the writer's wall clock, never below that of the transaction before.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.time_ns)
    }

    /// What [`WriteTxn::set_tag`](crate::WriteTxn::set_tag) was given.
    #[must_use]
    pub const fn tag(&self) -> &[u8] {
        &self.tag
    }

    /// The same in nanoseconds since 1970.
    pub(crate) const fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// All its operations, as its record has them, and how many.
    pub(crate) fn encoded(&self) -> (&[u8], u32) {
        (&self.ops, self.op_count)
    }

    /// The same, and the tag, without a copy.
    pub(crate) fn into_encoded(self) -> (Vec<u8>, u32, Box<[u8]>) {
        (self.ops.into_vec(), self.op_count, self.tag)
    }

    /// The changes that the filter wants, in the order they were made.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let mut ops = Ops::new(&self.ops, self.op_count);
        // All of them were found sound when the transaction was read.
        std::iter::from_fn(move || Change::take(&mut ops)?.ok())
            .filter(|change| self.filter.wants(change))
    }

    /// The transaction, unless the filter wants nothing of it.
    pub(crate) fn of(record: &Record<'_>, filter: &Arc<LogFilter>) -> Result<Option<Self>> {
        let (mut ops, mut wanted) = (record.ops(), filter.all);
        while let Some(change) = Change::take(&mut ops) {
            wanted |= filter.wants(&change?);
        }
        Ok(wanted.then(|| Self {
            txn: record.txn,
            time_ns: record.timestamp_ns,
            tag: record.tag().into(),
            ops: record.op_bytes().into(),
            op_count: record.op_count,
            filter: Arc::clone(filter),
        }))
    }
}

/// A place in the commit log that moves on: see [`Log::tail`].
///
/// As an iterator it blocks until there is another transaction, and ends when the database is closed. As a
/// [`Stream`] it wakes its task instead; what is not in memory is read from the disk while it is polled.
///
/// - Memory: one group of the log and one transaction, however far behind it is.
/// - Failure: [`Error::NotInLog`] once what comes next was trimmed: a reader that is slower than retention allows. After an
///   error nothing more comes.
#[derive(Debug)]
pub struct Tail {
    log: Log,
    follower: Follower,
    filter: Arc<LogFilter>,
    ended: bool,
    /// Its number among the tasks that wait, once it has waited.
    waits: Option<u64>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some(number) = self.waits {
            self.log.engine.shapes.shared.bell.forget(number);
        }
    }
}

impl Tail {
    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// Where it is: the first transaction that it has not looked at. Kept, it tells [`Log::tail`] where to go on.
    #[must_use]
    pub fn position(&self) -> TxnId {
        self.follower.txn()
    }

    /// Goes on, showing nothing, until all was read that was durable when it began: then what it has shown is of this database's own
    /// log, not of a copy's that was put in its place.
    pub(super) fn prove(&mut self) -> Result<()> {
        let (next, end) = self.log.engine.log_end();
        match self.follower.come_to_border(end) {
            Err(LogError::Gone) => Err(self.log.not_in_log(self.follower.txn(), next)?),
            led => Ok(led?),
        }
    }

    /// The next transaction, if it is durable already.
    ///
    /// # Errors
    /// [`Error::NotInLog`], [`Error::Closed`], [`Error::Halted`] once all that is durable was shown, [`Error::Corrupt`],
    /// [`Error::Io`].
    pub fn try_next(&mut self) -> Result<Option<Transaction>> {
        let found = self.look();
        self.ended |= found.is_err();
        found
    }

    /// The next transaction, waiting for it for so long at most.
    ///
    /// # Errors
    /// As [`Tail::try_next`].
    pub fn next_timeout(&mut self, at_most: Duration) -> Result<Option<Transaction>> {
        let pipeline = &Arc::clone(&self.log.engine).pipeline;
        let began_ns = pipeline.monotonic_ns();
        loop {
            if let Some(found) = self.try_next()? {
                return Ok(Some(found));
            }
            // What came is not always what the filter wants.
            let passed = Duration::from_nanos(pipeline.monotonic_ns().saturating_sub(began_ns));
            let left = at_most.saturating_sub(passed);
            if left.is_zero() || !self.wait(Some(left)) {
                return Ok(None);
            }
        }
    }

    fn look(&mut self) -> Result<Option<Transaction>> {
        let engine = &self.log.engine;
        if self.ended || engine.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let (next, end) = engine.log_end();
        while self.follower.txn() < next {
            let at = self.follower.txn();
            let record = match self.follower.next(end) {
                Ok(Some(record)) => record,
                Ok(None) => return Err(damaged(format!("it ends before {at}, which is durable"))),
                Err(LogError::Gone) => return Err(self.log.not_in_log(at, next)?),
                Err(error) => return Err(error.into()),
            };
            if let Some(found) = Transaction::of(&record, &self.filter)? {
                return Ok(Some(found));
            }
        }
        self.follower.expect_border()?;
        engine.pipeline.check_running().map(|()| None)
    }

    /// Whether there is something to say.
    fn is_ready(&self) -> bool {
        let engine = &self.log.engine;
        engine.closed.load(Ordering::Acquire)
            || self.follower.txn() < engine.log_end().0
            || engine.pipeline.check_running().is_err()
    }

    fn wait(&self, at_most: Option<Duration>) -> bool {
        let bell = &self.log.engine.shapes.shared.bell;
        bell.wait(at_most, || self.is_ready())
    }
}

impl Iterator for Tail {
    type Item = Result<Transaction>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.ended {
                return None;
            }
            match self.try_next() {
                Ok(Some(found)) => return Some(Ok(found)),
                Ok(None) => drop(self.wait(None)),
                Err(Error::Closed) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl FusedIterator for Tail {}

impl Stream for Tail {
    type Item = Result<Transaction>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let tail = self.get_mut();
        loop {
            if tail.ended {
                return Poll::Ready(None);
            }
            match tail.try_next() {
                Ok(Some(found)) => return Poll::Ready(Some(Ok(found))),
                Ok(None) => {
                    let bell = &tail.log.engine.shapes.shared.bell;
                    let number = *tail.waits.get_or_insert_with(|| bell.number());
                    if bell.wake_when(number, context.waker(), || tail.is_ready()) {
                        return Poll::Pending;
                    }
                }
                Err(Error::Closed) => return Poll::Ready(None),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}
