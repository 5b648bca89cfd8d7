//! Waiting for a commit to become durable, by a parked thread or by a task.
//!
//! A group may have a hundred waiters, and waking a thread costs microseconds. So the log role marks every ticket,
//! wakes the tasks and the first two of the threads that are parked, and each woken thread wakes two more: the next
//! group's write starts at once, and the cost of waking is spread over those who are woken.
//!
//! Invariants:
//! 1. A ticket is settled once. Its outcome is written before `state` is stored with `Release`.
//! 2. Every ticket of a list of parked threads wakes its two children after it has seen its own outcome, whoever woke it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use northstar_io::planted::planted;

use crate::error::{Error, Result};
use crate::ids::{Lsn, TxnId};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::thread::{self, Thread};
use crate::sync::{Condvar, Mutex};

const PENDING: u32 = 0;
const DURABLE: u32 = 1;
const FAILED: u32 = 2;
/// Pending, and its owner is asked to take the log role.
const LEAD: u32 = 3;

/// What a successful commit is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commit {
    /// The transaction's id: its place in the one order of all commits.
    pub txn_id: TxnId,
    /// The end of its group in the commit log.
    pub lsn: Lsn,
}

type Chain = (Arc<[Arc<Ticket>]>, usize);

/// One commit that someone waits for.
#[derive(Debug)]
pub(crate) struct Ticket {
    state: AtomicU32,
    txn: AtomicU64,
    lsn: AtomicU64,
    failure: OnceLock<Error>,
    /// Set for a blocking waiter, before the ticket is queued.
    thread: Option<Thread>,
    /// The thread parks, or is about to after one more look at `state`.
    parked: AtomicBool,
    /// Set by a task that polls.
    waker: Mutex<Option<Waker>>,
    /// The list the ticket was settled in and its place there, for waking on. Taken by the waking, which also
    /// breaks the cycle of references between list and tickets.
    chain: Mutex<Option<Chain>>,
}

impl Ticket {
    /// For the calling thread, which is going to block on it.
    pub(crate) fn blocking() -> Arc<Self> {
        Self::with_thread(Some(thread::current()))
    }

    /// For a task, or for a thread that will poll.
    pub(crate) fn detached() -> Arc<Self> {
        Self::with_thread(None)
    }

    fn with_thread(thread: Option<Thread>) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU32::new(PENDING),
            txn: AtomicU64::new(0),
            lsn: AtomicU64::new(0),
            failure: OnceLock::new(),
            thread,
            parked: AtomicBool::new(false),
            waker: Mutex::new(None),
            chain: Mutex::new(None),
        })
    }

    pub(crate) fn is_blocking(&self) -> bool {
        self.thread.is_some()
    }

    /// SeqCst, as the stores of `state` and `parked`: who settles stores the one and then looks at the other, the
    /// owner the other way round, so one of them sees the other.
    fn is_parked(&self) -> bool {
        self.parked.load(Ordering::SeqCst)
    }

    /// Notes the id the commit was given when it was applied.
    pub(crate) fn number(&self, txn: TxnId) {
        self.txn.store(txn.get(), Ordering::Relaxed);
    }

    /// The outcome, if it is known.
    pub(crate) fn outcome(&self) -> Option<Result<Commit>> {
        // Pairs with the stores in `settle` and `fail`; SeqCst for `is_parked`.
        match self.state.load(Ordering::SeqCst) {
            DURABLE => Some(Ok(Commit {
                txn_id: TxnId::new(self.txn.load(Ordering::Relaxed)),
                lsn: Lsn::new(self.lsn.load(Ordering::Relaxed)),
            })),
            FAILED => Some(Err(self.failure.get().cloned().unwrap_or(Error::Closed))),
            _ => None,
        }
    }

    fn settle(&self, lsn: Lsn) {
        self.lsn.store(lsn.get(), Ordering::Relaxed);
        self.state.store(DURABLE, Ordering::SeqCst);
    }

    fn fail(&self, error: &Error) {
        // A second failure of the same ticket changes nothing.
        let _first = self.failure.set(error.clone());
        self.state.store(FAILED, Ordering::SeqCst);
    }

    /// What wakes the task that waits, if one does. Waking may run anything: nothing may be held meanwhile.
    fn task(&self) -> Option<Waker> {
        self.waker.lock().take()
    }

    fn wake_thread(&self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }

    /// Fails a ticket that never reached a group. Gives back the task to wake.
    pub(crate) fn reject(&self, error: &Error) -> Option<Waker> {
        self.fail(error);
        self.wake_thread();
        self.task()
    }

    /// Asks a blocked owner to take the log role.
    pub(crate) fn ask_to_lead(&self) {
        let asked = self
            .state
            .compare_exchange(PENDING, LEAD, Ordering::AcqRel, Ordering::Relaxed);
        if asked.is_ok() {
            self.wake_thread();
        }
    }

    /// Blocks until the outcome is known or the caller is asked to lead (`None`).
    pub(crate) fn wait(&self) -> Option<Result<Commit>> {
        if self.outcome().is_none() {
            self.parked.store(true, Ordering::SeqCst);
        }
        loop {
            if let Some(outcome) = self.outcome() {
                self.wake_children();
                return Some(outcome);
            }
            let led =
                self.state
                    .compare_exchange(LEAD, PENDING, Ordering::AcqRel, Ordering::Relaxed);
            if led.is_ok() {
                self.parked.store(false, Ordering::SeqCst);
                return None;
            }
            thread::park();
        }
    }

    fn wake_children(&self) {
        let chain = self.chain.lock().take();
        if let Some((list, at)) = chain {
            for child in [2 * at + 2, 2 * at + 3] {
                if let Some(ticket) = list.get(child) {
                    ticket.wake_thread();
                }
            }
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Result<Commit>> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        let mut waker = self.waker.lock();
        *waker = Some(context.waker().clone());
        drop(waker);
        // Settled between the first look and the registration: nobody will wake us.
        self.outcome().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Settles every ticket of a group and starts the waking of threads. `error` is `None` when the group is durable. Gives
/// back the tasks to wake.
#[must_use = "these tasks are asleep"]
pub(crate) fn settle_group(
    tickets: &mut Vec<Arc<Ticket>>,
    lsn: Lsn,
    error: Option<&Error>,
) -> Vec<Waker> {
    let mut tasks = Vec::new();
    let settle = |ticket: &Ticket| match error {
        None => ticket.settle(lsn),
        Some(error) => ticket.fail(error),
    };
    // Whoever is parked belongs to the tree of waking. Whoever is not sees the outcome before it parks, or is seen
    // parked afterwards; in the tree it would keep its children asleep for as long as it does something else.
    let (parked, awake): (Vec<_>, Vec<_>) = tickets.drain(..).partition(|t| t.is_parked());
    for ticket in &awake {
        settle(ticket);
        tasks.extend(ticket.task());
        if ticket.is_parked() && !planted("a waiter that has just parked is not woken") {
            ticket.wake_thread();
        }
    }
    if parked.len() <= 2 {
        for ticket in &parked {
            settle(ticket);
            ticket.wake_thread();
        }
        return tasks;
    }
    let list: Arc<[Arc<Ticket>]> = parked.into();
    // Children before parents: a parent that is awake wakes its children as soon as it is settled.
    for (at, ticket) in list.iter().enumerate().rev() {
        let chain = Some((Arc::clone(&list), at));
        *ticket.chain.lock() = chain;
        settle(ticket);
    }
    for root in list.iter().take(2) {
        root.wake_thread();
    }
    tasks
}

/// A commit on its way: wait for it, poll it, or `.await` it on any executor.
///
/// Dropping the handle does not cancel the commit.
#[derive(Debug)]
#[must_use = "the commit's outcome is known only through its handle"]
pub struct CommitHandle {
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) parked: Arc<(Mutex<bool>, Condvar)>,
}

struct Unpark(Arc<(Mutex<bool>, Condvar)>);

impl std::task::Wake for Unpark {
    fn wake(self: Arc<Self>) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }
}

impl CommitHandle {
    pub(crate) fn new(ticket: Arc<Ticket>) -> Self {
        Self {
            ticket,
            parked: Arc::default(),
        }
    }

    /// Of a commit that is over.
    pub(crate) fn settled(commit: Commit) -> Self {
        let ticket = Ticket::detached();
        ticket.number(commit.txn_id);
        ticket.settle(commit.lsn);
        Self::new(ticket)
    }

    /// The outcome, if it is known already.
    #[must_use]
    pub fn try_wait(&self) -> Option<Result<Commit>> {
        self.ticket.outcome()
    }

    /// Blocks until the outcome is known.
    ///
    /// # Errors
    /// Why the commit failed; [`Error::Halted`] when its outcome is unknown.
    pub fn wait(self) -> Result<Commit> {
        let waker = Waker::from(Arc::new(Unpark(Arc::clone(&self.parked))));
        let context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(outcome) = self.ticket.poll(&context) {
                return outcome;
            }
            let (woken, changed) = &*self.parked;
            let mut woken = woken.lock();
            while !*woken {
                woken = changed.wait(woken);
            }
            *woken = false;
        }
    }
}

impl Future for CommitHandle {
    type Output = Result<Commit>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.ticket.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_waiter_of_a_large_group_wakes() {
        let tickets = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    let ticket = Ticket::blocking();
                    tickets.lock().push(Arc::clone(&ticket));
                    let commit = ticket.wait().unwrap().unwrap();
                    assert_eq!(commit.lsn, Lsn::new(7));
                });
            }
            let mut group = loop {
                let mut waiting = tickets.lock();
                if waiting.len() == 40 {
                    break std::mem::take(&mut *waiting);
                }
                drop(waiting);
                std::thread::yield_now();
            };
            assert!(settle_group(&mut group, Lsn::new(7), None).is_empty());
        });
    }

    #[test]
    fn a_handle_learns_of_failure() {
        let handle = CommitHandle::new(Ticket::detached());
        assert!(handle.try_wait().is_none());
        let mut group = vec![Arc::clone(&handle.ticket)];
        let tasks = settle_group(&mut group, Lsn::default(), Some(&Error::Closed));
        assert!(tasks.is_empty());
        assert!(matches!(handle.wait(), Err(Error::Closed)));
    }
}
