//! Waiting for the next commit to become visible.
//!
//! Invariants:
//! 1. Who waits announces itself and then looks; who rings has made its change before it looks for waiters. Between each
//!    two stands a `SeqCst` fence, so one of them sees the other.
//! 2. Tasks are woken by the caller of [`Bell::ring`], once it has given its roles back.
//!
//! - Cost: a fence and a load while nobody waits.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64 as Count;
use std::task::Waker;
use std::time::Duration;

use northstar_io::planted::planted;

use crate::sync::atomic::{AtomicU32, Ordering, fence};
use crate::sync::{Condvar, Mutex};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Threads and tasks.
    waiting: AtomicU32,
    /// By the numbers of those who wait.
    tasks: Mutex<BTreeMap<u64, Waker>>,
    numbers: Count,
    rung: Condvar,
}

impl Bell {
    /// After a change that somebody may wait for. Wakes threads, and gives the tasks to wake.
    pub(crate) fn ring(&self) -> Vec<Waker> {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        let mut tasks = self.tasks.lock();
        let tasks = std::mem::take(&mut *tasks);
        self.leave(tasks.len());
        // A thread that looked before the change waits by the time the lock is had.
        self.rung.notify_all();
        tasks.into_values().collect()
    }

    /// A number for somebody whose tasks will wait.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Blocks until `ready`, or for so long; says whether it is ready.
    pub(crate) fn wait(&self, at_most: Option<Duration>, ready: impl Fn() -> bool) -> bool {
        let mut tasks = self.tasks.lock();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let mut is_ready = !planted("who waits for a commit does not look first") && ready();
        match at_most {
            None => {
                while !is_ready {
                    tasks = self.rung.wait(tasks);
                    is_ready = ready();
                }
            }
            Some(at_most) if !is_ready => {
                tasks = self.rung.wait_timeout_while(tasks, at_most, |_| {
                    is_ready = ready();
                    !is_ready
                });
            }
            Some(_) => {}
        }
        self.leave(1);
        drop(tasks);
        is_ready
    }

    /// Has the task of `number` woken once `ready` may hold, in the place of one that it had before. False if it holds: then it
    /// is not.
    pub(crate) fn wake_when(&self, number: u64, task: &Waker, ready: impl Fn() -> bool) -> bool {
        let mut tasks = self.tasks.lock();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if ready() {
            self.leave(1);
            return false;
        }
        let before = tasks.insert(number, task.clone());
        // What is dropped with it may be a reader of the log, which comes here to be forgotten.
        drop(tasks);
        if before.is_some() {
            self.leave(1);
        }
        true
    }

    /// Has no task of `number` woken any more.
    pub(crate) fn forget(&self, number: u64) {
        let mut tasks = self.tasks.lock();
        let task = tasks.remove(&number);
        drop(tasks);
        if task.is_some() {
            self.leave(1);
        }
    }

    fn leave(&self, many: usize) {
        let many = u32::try_from(many).unwrap_or(u32::MAX);
        self.waiting.fetch_sub(many, Ordering::SeqCst);
    }
}
