//! Group commit: the writer role, the log role, and how work passes between threads without being lost.
//!
//! Two hand-over rules keep work from being stranded:
//! - Whoever queues a batch tries to take the writer role afterwards; whoever gives the role back looks at the
//!   queue afterwards. One of the two sees the batch. Nobody serves others for ever: after [`SERVE_MAX`] batches the
//!   log thread is asked to go on, if no committer is quicker.
//! - Whoever appends a record sets `pending` and then tries to take the log role; whoever gives that role back
//!   looks at `pending` afterwards. One of the two writes the record.
//!
//! What a crash does: records of a group that was not durable are gone or found whole by recovery, in order;
//! nobody was told about them.

mod admit;
mod gather;
mod log_role;
mod stats;
mod tasks;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::sync::ArrayQueue;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use northstar_io::SyncMethod;
use northstar_io::planted::planted;

use self::gather::Gather;
use self::log_role::{Kick, LogRole};
pub(crate) use self::stats::Counters;
use self::tasks::Asleep;
use super::core::Core;
use super::group::OpenGroup;
use super::handover::{is_raised, try_take};
use super::throttle::Progress;
use super::wait::{Commit, CommitHandle, Ticket, settle_group};
use crate::clock::Clock;
use crate::delta::Deltas;
use crate::error::{Error, Result};
use crate::format::group::LEN_BYTES_MAX;
use crate::format::record::FRAME_BYTES;
use crate::format::record::OpWriter;
use crate::ids::{Lsn, TxnId};
use crate::limits::{GROUP_BYTES_MAX, LOG_BLOCK_BYTES};
use crate::log::{Claim, LogCounters, LogPosition, LogWriter, Segments};
use crate::marks::{Mark, reached};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::txn::shape::Shapes;
use crate::txn::table::Table;

/// Batches that may wait for the writer role.
pub(crate) const QUEUE_MAX: usize = 4096;
/// Batches that one holder of the writer role applies for others before it goes its own way: under load the queue may
/// never be empty.
const SERVE_MAX: usize = 128;
/// Bytes the open group may hold while another is in flight; appenders wait beyond it. No more than a log segment.
const OPEN_BYTES_MAX: usize = 1024 * 1024;
/// Between two looks at a full open group: a safeguard beside the wake-up.
const RECHECK_AFTER: Duration = Duration::from_millis(10);
/// From this many waiters on, the log thread takes the next group; below, one of the waiters does.
const LOG_THREAD_FROM: usize = 2;

/// When a commit may be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// After its record is on stable storage.
    #[default]
    Durable,
    /// As soon as it is applied in memory; flushed within `Options::buffered_flush`. A crash may lose it, and then
    /// loses every later commit too. Readers see it once it is flushed.
    Buffered,
}

/// One batch on its way to the writer role.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) ops: OpWriter,
    /// The tables it touches: they must still be there when it is applied.
    pub(crate) tables: Vec<Table>,
    pub(crate) tag: Vec<u8>,
    pub(crate) durability: Durability,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) claim: Claim,
}

/// Both roles, their slots and what passes between them.
pub(crate) struct Pipeline {
    shapes: Arc<Shapes>,
    clock: Clock,
    core: Mutex<Option<Box<Core>>>,
    core_returned: Condvar,
    /// Threads that wait for the writer role itself: batches queue behind them.
    core_waiters: AtomicUsize,
    queue: ArrayQueue<Request>,
    open: Mutex<OpenGroup>,
    open_swapped: Condvar,
    /// The open group has as many waiters as the log role wanted.
    open_wanted: Condvar,
    /// The open group has records that nobody may have noticed.
    pending: AtomicBool,
    /// ... and someone waits for them.
    urgent: AtomicBool,
    /// Batches wait for the writer role, and its last holder has served enough.
    stranded: AtomicBool,
    log: Mutex<LogRole>,
    /// Threads that wait for the log role: the log thread lets them have it between two groups.
    log_waiters: AtomicUsize,
    boundary: Mutex<Option<LogPosition>>,
    kick: Mutex<Kick>,
    kicked: Condvar,
    /// The log thread sleeps or is about to.
    log_thread_idle: AtomicBool,
    log_thread_gone: AtomicBool,
    asleep: Asleep,
    halted: OnceLock<Error>,
    segments: Arc<Segments>,
    log_stats: Mutex<(Arc<LogCounters>, SyncMethod)>,
    pub(crate) progress: Progress,
    pub(crate) counters: Counters,
    delta_bytes: u64,
    open_bytes_max: usize,
    /// Room the log should have beside what is claimed, so that no commit has to wait for it.
    log_ahead_bytes: u64,
    /// The database's id, which every group carries.
    database: u64,
    deltas: Deltas,
    /// The log thread and the checkpoint thread exist, or did.
    background: bool,
    /// Told when a delta was frozen.
    on_freeze: Box<dyn Fn() + Send + Sync>,
    /// Told when the log needs its next segment.
    on_spare: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("halted", &self.halted)
            .finish_non_exhaustive()
    }
}

/// What a pipeline is made of.
pub(crate) struct Parts {
    pub(crate) shapes: Arc<Shapes>,
    pub(crate) clock: Clock,
    pub(crate) core: Core,
    pub(crate) log: LogWriter,
    pub(crate) delta_bytes: u64,
    pub(crate) database: u64,
    pub(crate) deltas: Deltas,
    pub(crate) background: bool,
    /// Batches that may wait for the writer role.
    pub(crate) queue_max: usize,
    pub(crate) on_freeze: Box<dyn Fn() + Send + Sync>,
    pub(crate) on_spare: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}

// ---- The writer role -------------------------------------------------------------------------------------------

impl Pipeline {
    pub(crate) fn new(parts: Parts) -> Self {
        let segment_bytes = parts.log.segments().segment_bytes();
        let open_bytes_max = usize::try_from(segment_bytes)
            .map_or(OPEN_BYTES_MAX, |bytes| bytes.min(OPEN_BYTES_MAX));
        Self {
            open_bytes_max,
            log_ahead_bytes: 4 * open_bytes_max as u64,
            segments: Arc::clone(parts.log.segments()),
            log_stats: Mutex::new((parts.log.counters(), parts.log.method())),
            shapes: parts.shapes,
            clock: parts.clock,
            core: Mutex::new(Some(Box::new(parts.core))),
            core_returned: Condvar::new(),
            core_waiters: AtomicUsize::new(0),
            queue: ArrayQueue::new(parts.queue_max),
            open: Mutex::default(),
            open_swapped: Condvar::new(),
            open_wanted: Condvar::new(),
            pending: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            stranded: AtomicBool::new(false),
            log: Mutex::new(LogRole {
                writer: parts.log,
                next: OpenGroup::default(),
                gather: Gather::default(),
            }),
            log_waiters: AtomicUsize::new(0),
            boundary: Mutex::new(None),
            kick: Mutex::default(),
            kicked: Condvar::new(),
            log_thread_idle: AtomicBool::new(false),
            log_thread_gone: AtomicBool::new(!parts.background),
            background: parts.background,
            asleep: Asleep::default(),
            halted: OnceLock::new(),
            progress: Progress::default(),
            counters: Counters::default(),
            delta_bytes: parts.delta_bytes,
            database: parts.database,
            deltas: parts.deltas,
            on_freeze: parts.on_freeze,
            on_spare: parts.on_spare,
        }
    }

    /// Whether a record with `payload` bytes may join a group of `len` bytes that is not empty.
    fn fits(&self, len: usize, payload: usize) -> bool {
        let together = (len + FRAME_BYTES + payload + LOG_BLOCK_BYTES) as u64;
        len <= self.open_bytes_max && together <= LEN_BYTES_MAX
    }

    /// Whether there are threads for log and checkpoints.
    pub(crate) fn has_background(&self) -> bool {
        self.background
    }

    /// Fails once the writer has halted.
    pub(crate) fn check_running(&self) -> Result<()> {
        self.halted.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn running(&self) -> bool {
        self.halted.get().is_none()
    }

    /// Halts the writer for the life of the handle. The first reason stays. Not for holders of a role.
    pub(crate) fn halt(&self, reason: &str) -> Error {
        let first = self.halt_later(reason);
        self.asleep.wake();
        first
    }

    /// As [`Pipeline::halt`], but tasks that learn of it are still to be woken.
    fn halt_later(&self, reason: &str) -> Error {
        self.end(Error::Halted {
            reason: reason.into(),
        })
    }

    /// The database is closed: whoever still waits for the writer learns it.
    pub(crate) fn shut(&self) {
        self.end(Error::Closed);
        self.asleep.wake();
    }

    fn end(&self, error: Error) -> Error {
        let first = self.halted.get_or_init(|| error).clone();
        let mut open = self.open.lock();
        let mut tickets = std::mem::take(&mut open.tickets);
        drop(open);
        self.asleep
            .add(settle_group(&mut tickets, Lsn::default(), Some(&first)));
        self.reject_waiting(&first);
        self.asleep.add(self.shapes.shared.bell.ring());
        self.open_swapped.notify_all();
        self.open_wanted.notify_all();
        // Whoever looked before the halt is waiting by the time the lock is had.
        drop(self.core.lock());
        self.core_returned.notify_all();
        first
    }

    /// Refuses the batches that wait for the writer role.
    fn reject_waiting(&self, error: &Error) {
        while let Some(request) = self.queue.pop() {
            self.asleep.add(request.ticket.reject(error));
        }
    }

    /// Takes the writer role if it is free.
    pub(crate) fn try_take_core(&self) -> Option<Box<Core>> {
        self.core.lock().take()
    }

    /// Waits for the writer role. Batches that come meanwhile queue up instead of taking it first.
    pub(crate) fn take_core(&self) -> Result<Box<Core>> {
        // SeqCst: whoever queues a batch and then finds somebody waiting leaves it to that one, who looks at the queue
        // after it has the role.
        self.core_waiters.fetch_add(1, Ordering::SeqCst);
        let mut slot = self.core.lock();
        let taken = loop {
            if let Err(error) = self.check_running() {
                break Err(error);
            }
            if let Some(core) = slot.take() {
                break Ok(core);
            }
            slot = self.core_returned.wait(slot);
        };
        self.core_waiters.fetch_sub(1, Ordering::SeqCst);
        taken
    }

    /// Takes the writer role for a moment, if it is free and nobody waits for it.
    fn borrow_core(&self) -> Option<Box<Core>> {
        match self.core_waiters.load(Ordering::SeqCst) {
            0 => self.try_take_core(),
            _ => None,
        }
    }

    /// Gives the writer role back, having served the batches that wait for it.
    pub(crate) fn return_core(&self, mut core: Box<Core>) {
        let mut served = 0;
        let mut unseen = false;
        loop {
            served += self.serve(&mut core, SERVE_MAX.saturating_sub(served));
            unseen |= std::mem::take(&mut core.unseen);
            *self.core.lock() = Some(core);
            self.core_returned.notify_one();
            // The first hand-over rule: look again after giving the role back.
            if self.queue.is_empty() || planted("the writer role is given back without a look") {
                break;
            }
            if served >= SERVE_MAX {
                if self.ask_to_serve() {
                    break;
                }
                // Nobody else is left.
                served = 0;
            }
            match self.borrow_core() {
                Some(again) => core = again,
                None => break,
            }
        }
        if unseen {
            self.show_to_log();
        }
        self.asleep.wake();
    }

    /// Applies batches that wait for the role, `at_most` of them. Says how many.
    fn serve(&self, core: &mut Box<Core>, at_most: usize) -> usize {
        let mut served = 0;
        while served < at_most
            && let Some(request) = self.queue.pop()
        {
            self.apply(core, request);
            reached(Mark::ServedOthers);
            served += 1;
        }
        core.unseen |= served > 0;
        served
    }

    /// Applies every batch that waits for the role, by one who never gives it back.
    pub(crate) fn serve_all(&self, core: &mut Box<Core>) {
        self.serve(core, usize::MAX);
    }

    /// Applies the batches that wait for the role now: they came before its holder's own.
    pub(crate) fn serve_waiting(&self, core: &mut Box<Core>) {
        self.serve(core, self.queue.len());
    }

    /// As [`Pipeline::serve_waiting`], by one who keeps the role for as long as it pleases.
    pub(crate) fn serve_before_keeping(&self, core: &mut Box<Core>) {
        self.serve_waiting(core);
        if std::mem::take(&mut core.unseen) {
            self.show_to_log();
        }
    }

    /// The second hand-over rule, on behalf of those who were served: they found the log role taken, or nothing to
    /// write.
    fn show_to_log(&self) {
        if let Some(role) = try_take(&self.log) {
            drop(role);
            self.hand_on();
        }
    }

    /// Serves the queue if nobody does.
    fn serve_stranded(&self) {
        if !self.queue.is_empty()
            && let Some(core) = self.try_take_core()
        {
            self.return_core(core);
        }
    }

    /// Applies one batch and appends its record; a refused batch learns why through its ticket.
    fn apply(&self, core: &mut Box<Core>, request: Request) {
        let Request {
            ops,
            tables,
            tag,
            durability,
            ticket,
            claim,
        } = request;
        let instance = self.shapes.shared.tables.instance;
        let time_ns = self.time(core);
        let outcome = self
            .check_running()
            .and_then(|()| {
                tables
                    .iter()
                    .try_for_each(|t| t.resolve(instance, core.next_txn).map(drop))
            })
            .and_then(|()| core.apply(&ops, time_ns, &tag))
            .and_then(|()| {
                let record = (time_ns, &*tag, ops);
                self.append(core, record, (durability, Some(&ticket), claim))
            });
        if let Err(error) = outcome {
            self.asleep.add(ticket.reject(&error));
            self.after_rollback(core);
        }
    }

    /// The monotonic clock.
    pub(crate) fn monotonic_ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }

    /// The wall clock.
    pub(crate) fn now(&self) -> u64 {
        self.clock.wall_ns()
    }

    /// The time of a commit that happens now.
    pub(crate) fn time(&self, core: &Core) -> u64 {
        core.time_after_last(self.clock.wall_ns())
    }

    /// Numbers what was applied to the delta as `core.next_txn`, appends its record to the open group, and freezes
    /// the delta if it is full or worth a merge. With no ticket nobody is told of the outcome.
    pub(crate) fn append(
        &self,
        core: &mut Box<Core>,
        (timestamp_ns, tag, ops): (u64, &[u8], OpWriter),
        (durability, ticket, claim): (Durability, Option<&Arc<Ticket>>, Claim),
    ) -> Result<()> {
        let txn = core.next_txn;
        ticket.inspect(|ticket| ticket.number(txn));
        let payload = tag.len() + ops.bytes().len();
        let mut open = self.open.lock();
        while !open.is_empty() && !self.fits(open.records.len(), payload) {
            // Nobody else can join it, so nobody has to be waited for.
            let gathered = std::mem::take(&mut open.wanted) > 0;
            drop(open);
            self.check_running()?;
            if gathered {
                self.open_wanted.notify_one();
            }
            // It goes to the log by this thread, or by whoever has the log role: perhaps with another group before it.
            if let Some(mut role) = try_take(&self.log) {
                self.drive_now(&mut role);
                drop(role);
                self.pass_on();
            }
            open = self.open.lock();
            if !open.is_empty() && !self.fits(open.records.len(), payload) && self.running() {
                open = self.open_swapped.wait_timeout(open, RECHECK_AFTER).0;
            }
        }
        // A halt is noted before the open group's tickets are failed, so one of the two sees the other.
        self.check_running()?;
        self.counters.note_time(timestamp_ns);
        open.records.push_record(txn, timestamp_ns, tag, ops);
        open.claimed += claim.hand_over();
        match (durability, ticket) {
            (_, None) => {}
            (Durability::Durable, Some(ticket)) => open.tickets.push(Arc::clone(ticket)),
            (Durability::Buffered, Some(ticket)) => {
                let mut now = vec![Arc::clone(ticket)];
                self.asleep
                    .add(settle_group(&mut now, Lsn::default(), None));
            }
        }
        // SeqCst: the second hand-over rule, pairs with the loads in `hand_on` and `run_log_thread`.
        self.pending.store(true, Ordering::SeqCst);
        let full = open.records.len() >= GROUP_BYTES_MAX.min(self.open_bytes_max);
        if durability == Durability::Durable || full {
            self.urgent.store(true, Ordering::SeqCst);
        }
        let gathered = open.wanted > 0 && (full || open.tickets.len() >= open.wanted);
        if gathered {
            open.wanted = 0;
        }
        drop(open);
        if gathered {
            self.open_wanted.notify_one();
        }
        if durability == Durability::Buffered && full {
            self.wake_log_thread();
        }
        core.next_txn = txn.next();
        core.last_timestamp_ns = timestamp_ns;
        core.noted_ns = Some(timestamp_ns);
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        let full = core.delta.used_bytes() as u64 >= self.delta_bytes;
        if (full || self.deltas.is_passed_over(&core.delta)) && self.shapes.load().frozen.is_empty()
        {
            reached(match full {
                true => Mark::FrozeFull,
                false => Mark::FrozePassed,
            });
            // No memory for another delta: this one goes on growing, and the next commit tries again.
            let _tried = self.freeze(core);
        }
        Ok(())
    }

    /// After writes were taken back: what they took of the delta is not given back, so a delta that is full of them makes
    /// room for another.
    pub(crate) fn after_rollback(&self, core: &mut Box<Core>) {
        if (core.delta.used_bytes() as u64) < self.delta_bytes {
            return;
        }
        // No memory for another delta: the next roll-back tries again.
        let _tried = match core.delta.is_empty() {
            true => self.renew(core),
            false => self.freeze(core).map(drop),
        };
    }

    /// Replaces the active delta, of which nothing stands, by a new one.
    fn renew(&self, core: &mut Box<Core>) -> Result<()> {
        let (delta, writer) = self.deltas.make().map_err(Error::no_delta)?;
        core.delta = Arc::clone(&delta);
        core.writer = writer;
        reached(Mark::DeltaRenewed);
        self.shapes.publish(|shape| shape.active = delta);
        Ok(())
    }

    /// Makes the active delta a frozen one and starts a new one. Returns whether there was anything to freeze.
    pub(crate) fn freeze(&self, core: &mut Box<Core>) -> Result<bool> {
        // Only the holder of the role adds to what is frozen, so one delta is frozen at a time.
        if core.delta.is_empty() || !self.shapes.load().frozen.is_empty() {
            return Ok(false);
        }
        let (delta, writer) = self.deltas.make().map_err(Error::no_delta)?;
        self.open.lock().freezes = TxnId::new(core.next_txn.get() - 1).into();
        core.delta = Arc::clone(&delta);
        core.writer = writer;
        self.shapes.publish(|shape| {
            let frozen = std::mem::replace(&mut shape.active, delta);
            shape.frozen.insert(0, frozen);
        });
        self.progress.started();
        (self.on_freeze)();
        Ok(true)
    }

    /// Puts the log in place that commits are appended to.
    pub(crate) fn install_log(&self, log: LogWriter) {
        let mut role = self.take_log();
        *self.log_stats.lock() = (log.counters(), log.method());
        role.writer = log;
    }

    #[cfg(test)]
    pub(crate) fn has_spare_delta(&self) -> bool {
        self.deltas.has_spare()
    }

    /// A frozen delta of so many changes was merged by writing so many pages.
    pub(crate) fn note_merge(&self, changes: u64, pages: u64) {
        self.deltas.note_merge(changes, pages);
    }

    /// Gives memory that is kept for the next delta back to the system.
    pub(crate) fn release_spare_delta(&self) {
        self.deltas.release_spare();
    }

    /// Not before the time of any commit that can be read.
    pub(crate) fn last_time_ns(&self) -> u64 {
        self.counters.last_time_ns.load(Ordering::Relaxed)
    }

    /// Commits so far.
    pub(crate) fn commits(&self) -> u64 {
        self.counters.commits.load(Ordering::Relaxed)
    }

    /// The end of the durable log.
    pub(crate) fn position(&self) -> LogPosition {
        let position = self.take_log().writer.position();
        self.hand_on();
        position
    }
}

// ---- Commits ---------------------------------------------------------------------------------------------------

impl Pipeline {
    /// Commits one batch and waits for its outcome.
    pub(crate) fn commit(&self, request: Request) -> Result<Commit> {
        let ticket = Arc::clone(&request.ticket);
        let durability = request.durability;
        self.enter(request)?;
        self.finish(&ticket, durability)
    }

    /// Hands one batch over; the log thread sees to it.
    pub(crate) fn submit(&self, request: Request) -> Result<CommitHandle> {
        let ticket = Arc::clone(&request.ticket);
        let durability = request.durability;
        self.enter(request)?;
        match durability {
            Durability::Durable => self.wake_log_thread(),
            Durability::Buffered => self.flush_later(),
        }
        Ok(CommitHandle::new(ticket))
    }

    /// Gets a batch applied: by this thread if the writer role is free, else by whoever holds it.
    fn enter(&self, request: Request) -> Result<()> {
        self.check_running()?;
        if let Some(core) = self.borrow_core() {
            self.apply_last(core, request);
            return Ok(());
        }
        if let Err(request) = self.queue.push(request) {
            self.apply_last(self.take_core()?, request);
            return Ok(());
        }
        // The first hand-over rule: the role may have been given back before the batch was queued.
        if let Some(core) = self.borrow_core() {
            self.return_core(core);
        }
        // A halt may have emptied the queue just before.
        if let Some(error) = self.halted.get() {
            self.reject_waiting(error);
            self.asleep.wake();
        }
        Ok(())
    }

    /// Applies a batch after those that queued before it.
    fn apply_last(&self, mut core: Box<Core>, request: Request) {
        self.serve_waiting(&mut core);
        self.apply(&mut core, request);
        self.return_core(core);
    }

    /// Sees an appended commit through to its outcome.
    pub(crate) fn finish(&self, ticket: &Arc<Ticket>, durability: Durability) -> Result<Commit> {
        if durability == Durability::Buffered {
            self.flush_later();
        } else if ticket.outcome().is_none()
            && let Some(role) = try_take(&self.log)
        {
            self.lead(role, ticket);
        }
        loop {
            if let Some(outcome) = ticket.wait() {
                return outcome;
            }
            // Asked to lead. If somebody else leads already, that one looks at `pending` afterwards; to wait for the
            // role here could take as long as the log thread finds work.
            if let Some(role) = try_take(&self.log) {
                self.lead(role, ticket);
            }
        }
    }

    /// Drives the log until `ticket` is settled, then hands the role on.
    fn lead(&self, mut role: MutexGuard<'_, LogRole>, ticket: &Arc<Ticket>) {
        while ticket.outcome().is_none() && self.drive(&mut role) {}
        drop(role);
        self.hand_on();
    }

    /// The second hand-over rule: whoever gave the log role back finds a successor for what came meanwhile.
    fn hand_on(&self) {
        self.asleep.wake();
        self.pass_on();
    }

    /// As [`Pipeline::hand_on`], by one who still has the writer role: tasks are woken when that is given back.
    fn pass_on(&self) {
        if !is_raised(&self.pending) || planted("the log role is given back without a look") {
            return;
        }
        let open = self.open.lock();
        let waiting = open.tickets.len();
        let first = open.tickets.first().cloned();
        drop(open);
        match first {
            Some(ticket) if waiting < LOG_THREAD_FROM && ticket.is_blocking() => {
                ticket.ask_to_lead();
            }
            Some(_) => self.wake_log_thread(),
            None => self.flush_later(),
        }
    }
}
