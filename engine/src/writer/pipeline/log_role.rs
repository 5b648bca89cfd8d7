//! The log role: the open group goes to the log, its transactions become visible, its waiters wake.
//!
//! Invariants:
//! 1. Groups are written one at a time and in the order they were filled.
//! 2. A transaction becomes visible after the write of its group was durable, never before.

use std::time::Duration;

use northstar_io::planted::planted;

use super::gather::Gather;
use super::{Pipeline, is_raised, try_take};
use crate::error::Result;
use crate::ids::Lsn;
use crate::log::{LogPosition, LogWriter};
use crate::marks::{Mark, reached};
use crate::sync::atomic::{Ordering, fence};
use crate::sync::{MutexGuard, thread};
use crate::writer::group::OpenGroup;
use crate::writer::wait::settle_group;

/// How often the log thread steps aside for those who wait for its role: enough for a thread that was just woken.
const YIELDS_MAX: u32 = 1000;

/// What the log role owns.
#[derive(Debug)]
pub(crate) struct LogRole {
    pub(crate) writer: LogWriter,
    /// The group that is filled next; swapped with the open one so that buffers are reused.
    pub(super) next: OpenGroup,
    pub(super) gather: Gather,
}

/// What the log thread is woken for.
#[derive(Debug, Default)]
pub(super) struct Kick {
    pub(super) now: bool,
    /// A buffered commit waits: flush when the interval has passed.
    pub(super) later: bool,
    pub(super) stop: bool,
}

impl Pipeline {
    /// Writes the open group, if it holds anything, after those who are worth waiting for have joined it. Returns
    /// whether it did.
    pub(crate) fn drive(&self, role: &mut MutexGuard<'_, LogRole>) -> bool {
        let open = self.gathered(&mut role.gather);
        self.write(open, role)
    }

    /// As [`Pipeline::drive`], at once.
    pub(super) fn drive_now(&self, role: &mut MutexGuard<'_, LogRole>) -> bool {
        self.write(self.open.lock(), role)
    }

    fn write(&self, mut open: MutexGuard<'_, OpenGroup>, role: &mut LogRole) -> bool {
        // SeqCst: cleared while the group is held, so an append after the swap sets them again.
        self.pending.store(false, Ordering::SeqCst);
        self.urgent.store(false, Ordering::SeqCst);
        if open.is_empty() || self.halted.get().is_some() {
            return false;
        }
        std::mem::swap(&mut *open, &mut role.next);
        drop(open);
        self.open_swapped.notify_all();
        let group = &mut role.next;
        let start = role.writer.position();
        if group.freezes.take().is_some() {
            *self.boundary.lock() = Some(start);
        }
        let sealed = group.records.seal(start, start.lsn, self.database);
        let started = self.clock.monotonic_ns();
        if planted("a commit is visible before it is durable") {
            let last = sealed.end.last_txn.get();
            self.shapes.shared.visible.store(last, Ordering::Release);
        }
        match role.writer.append(&sealed) {
            Ok(end) => {
                // Release: pairs with `Shared::visible`; all delta entries of the group were written before.
                self.shapes
                    .shared
                    .visible
                    .store(end.last_txn.get(), Ordering::Release);
                let took = self.clock.monotonic_ns() - started;
                let woken = group.tickets.len();
                if woken > 1 {
                    reached(Mark::GroupShared);
                }
                // Looked at before those who are woken can join.
                let joined = Gather::wants(woken).then(|| self.open.lock().tickets.len());
                role.gather.wrote(woken, joined.unwrap_or(0), took);
                self.asleep
                    .add(settle_group(&mut group.tickets, end.lsn, None));
                self.asleep.add(self.shapes.shared.bell.ring());
            }
            Err(error) => {
                reached(Mark::LogFailed);
                let error = match planted("the log goes on after a failed write") {
                    true => crate::error::Error::Halted {
                        reason: error.to_string().into(),
                    },
                    false => self.halt_later(&error.to_string()),
                };
                let tasks = settle_group(&mut group.tickets, Lsn::default(), Some(&error));
                self.asleep.add(tasks);
            }
        }
        group.records.recycle(sealed);
        // Only now: what is claimed and the end of the log never both miss the group.
        self.segments.release(std::mem::take(&mut group.claimed));
        true
    }

    /// The open group, when those are in it who are worth waiting for.
    fn gathered(&self, gather: &mut Gather) -> MutexGuard<'_, OpenGroup> {
        let mut open = self.open.lock();
        if let Some((wanted, at_most)) = gather.plan() {
            if open.tickets.len() < wanted {
                open.wanted = wanted;
                let unless = |open: &mut OpenGroup| open.wanted > 0 && self.running();
                open = self.open_wanted.wait_timeout_while(open, at_most, unless);
            }
            gather.learn(std::mem::take(&mut open.wanted) == 0);
        }
        open
    }

    /// Makes everything applied so far durable.
    pub(crate) fn flush(&self) -> Result<()> {
        // Holding the role, nothing is in flight: one group takes all that was appended.
        self.drive(&mut self.take_log());
        self.hand_on();
        self.check_running()
    }

    /// Where the log of the frozen delta ends; everything in it is durable afterwards.
    pub(crate) fn frozen_boundary(&self) -> Result<LogPosition> {
        let mut role = self.take_log();
        while self.boundary.lock().is_none() && self.drive(&mut role) {}
        if let Err(halted) = self.check_running() {
            drop(role);
            self.hand_on();
            return Err(halted);
        }
        // Unresolved: no group holds a newer record: the next one will start where the log ends now.
        let resolved = self.boundary.lock().take();
        let unresolved = self.open.lock().freezes.take();
        let boundary = unresolved.map(|_| role.writer.position()).or(resolved);
        drop(role);
        self.hand_on();
        boundary.ok_or_else(|| self.halt("a frozen delta has no place in the log"))
    }

    /// Waits for the log role. Under load the log thread hardly ever lets go of it, and a mutex is not fair: so it is
    /// told.
    pub(super) fn take_log(&self) -> MutexGuard<'_, LogRole> {
        self.log_waiters.fetch_add(1, Ordering::Relaxed);
        let role = self.log.lock();
        self.log_waiters.fetch_sub(1, Ordering::Relaxed);
        role
    }

    /// Gives those who wait for the log role the time to take it. Relaxed: a late value costs a turn.
    fn let_others_lead(&self) {
        for _ in 0..YIELDS_MAX {
            if self.log_waiters.load(Ordering::Relaxed) == 0 {
                return;
            }
            thread::yield_now();
        }
    }

    pub(super) fn wake_log_thread(&self) {
        if self.log_thread_gone.load(Ordering::SeqCst) {
            // A write transaction that outlived its database: nobody else is left to write.
            self.drive_all();
        } else if self.log_thread_idle.load(Ordering::SeqCst) {
            self.kick.lock().now = true;
            self.kicked.notify_one();
        }
    }

    /// Writes what there is, by one who has nobody to leave it to. If somebody else has the log role, that one looks at
    /// `pending` when it gives it back, and comes here.
    fn drive_all(&self) {
        while let Some(mut role) = try_take(&self.log) {
            while self.drive(&mut role) {}
            drop(role);
            self.asleep.wake();
            // The second hand-over rule: something may have been appended before the role was given back.
            if !is_raised(&self.pending) || !self.running() {
                break;
            }
        }
    }

    /// Asks the log thread to serve the queue of the writer role. False if there is no log thread any more.
    pub(super) fn ask_to_serve(&self) -> bool {
        // SeqCst: the log thread says that it is idle before it looks at this, and we look at that afterwards.
        self.stranded.store(true, Ordering::SeqCst);
        if self.log_thread_gone.load(Ordering::SeqCst) {
            return false;
        }
        self.wake_log_thread();
        true
    }

    pub(crate) fn flush_later(&self) {
        if !self.background {
            // The next durable commit takes it along, or whoever flushes.
            return;
        }
        if self.log_thread_gone.load(Ordering::SeqCst) {
            return self.wake_log_thread();
        }
        let mut kick = self.kick.lock();
        if !kick.later {
            kick.later = true;
            drop(kick);
            self.kicked.notify_one();
        }
    }

    /// The log thread: takes the log role whenever there is more to write than one committer's own group.
    pub(crate) fn run_log_thread(&self, buffered_flush: Duration) {
        loop {
            self.log_thread_idle.store(true, Ordering::SeqCst);
            let mut kick = self.kick.lock();
            // SeqCst: an append that saw this thread busy set `urgent` before; see the second hand-over rule.
            while !kick.now
                && !kick.stop
                && !self.urgent.load(Ordering::SeqCst)
                && !self.stranded.load(Ordering::SeqCst)
            {
                if kick.later {
                    kick = self.kicked.wait_timeout(kick, buffered_flush).0;
                    break;
                }
                kick = self.kicked.wait(kick);
            }
            let stop = kick.stop;
            *kick = Kick {
                stop,
                ..Kick::default()
            };
            drop(kick);
            self.log_thread_idle.store(false, Ordering::SeqCst);
            loop {
                let mut role = self.log.lock();
                while self.drive(&mut role) {
                    reached(Mark::ThreadLed);
                    // What nobody waits for gathers until there is a group's worth of it, or for as long as it may.
                    let urgent = self.urgent.load(Ordering::SeqCst);
                    let others = self.log_waiters.load(Ordering::Relaxed) > 0;
                    if !urgent || others || self.asleep.any() {
                        break;
                    }
                }
                drop(role);
                self.asleep.wake();
                // As `hand_on`: pairs with the fence in `try_take`.
                fence(Ordering::SeqCst);
                self.let_others_lead();
                let stranded = self.stranded.swap(false, Ordering::SeqCst);
                if stranded {
                    self.serve_stranded();
                }
                let urgent = self.urgent.load(Ordering::SeqCst);
                if !(urgent || stranded) || self.check_running().is_err() {
                    break;
                }
            }
            if stop {
                // First gone, then a last look: whoever appends later sees that nobody can be woken.
                self.log_thread_gone.store(true, Ordering::SeqCst);
                self.serve_stranded();
                if planted("the log thread ends without another look") {
                    self.drive(&mut self.log.lock());
                    return;
                }
                self.drive_all();
                return;
            }
            if self.pending.load(Ordering::SeqCst) && self.running() {
                self.flush_later();
            }
        }
    }

    /// Ends the log thread after a last flush.
    pub(crate) fn stop_log_thread(&self) {
        self.kick.lock().stop = true;
        self.kicked.notify_all();
    }
}
