//! Tasks whose commits are settled and that are still to be woken.
//!
//! Waking one may run anything, also a commit or the end of the database: so it is done by whoever settled them, once it has
//! given its roles back.
//!
//! - Threads: any. Of two that wake at once each task is woken by one.

use std::task::Waker;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Asleep {
    tasks: Mutex<Vec<Waker>>,
    /// There are some.
    any: AtomicBool,
}

impl Asleep {
    /// Whether there are tasks to wake.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Notes tasks.
    pub(super) fn add(&self, tasks: impl IntoIterator<Item = Waker>) {
        let mut tasks = tasks.into_iter().peekable();
        if tasks.peek().is_some() {
            self.tasks.lock().extend(tasks);
            // After they were added: who takes this back takes them too.
            self.any.store(true, Ordering::SeqCst);
        }
    }

    /// Wakes those that were noted. For callers that hold no role.
    pub(super) fn wake(&self) {
        if self.any() {
            self.any.store(false, Ordering::SeqCst);
            let tasks = std::mem::take(&mut *self.tasks.lock());
            tasks.into_iter().for_each(Waker::wake);
        }
    }
}
