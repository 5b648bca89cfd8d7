//! The standard library's, and nothing in between.

use std::sync::PoisonError;
pub(crate) use std::sync::atomic;
use std::time::Duration;

pub(crate) use crossbeam_queue::ArrayQueue;

/// A place where another thread might run: nobody asks here.
#[inline(always)]
pub(crate) fn pause() {}

/// Holds a [`Mutex`].
pub(crate) type MutexGuard<'m, T> = std::sync::MutexGuard<'m, T>;

/// A mutual exclusion lock.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock if it is free.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

/// Where threads wait for a change of what a [`Mutex`] guards.
#[derive(Debug, Default)]
pub(crate) struct Condvar(std::sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    /// Waits to be notified; may return without.
    pub(crate) fn wait<'m, T>(&self, guard: MutexGuard<'m, T>) -> MutexGuard<'m, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits to be notified, for so long at most; says whether the time ran out. May return without either.
    pub(crate) fn wait_timeout<'m, T>(
        &self,
        guard: MutexGuard<'m, T>,
        at_most: Duration,
    ) -> (MutexGuard<'m, T>, bool) {
        let waited = self.0.wait_timeout(guard, at_most);
        let (guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
        (guard, result.timed_out())
    }

    /// Waits while `unless` holds, for so long at most.
    pub(crate) fn wait_timeout_while<'m, T>(
        &self,
        guard: MutexGuard<'m, T>,
        at_most: Duration,
        unless: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'m, T> {
        let waited = self.0.wait_timeout_while(guard, at_most, unless);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Threads.
pub(crate) mod thread {
    pub(crate) use std::thread::{Thread, current, park, sleep, yield_now};

    /// A thread that was spawned.
    pub(crate) type JoinHandle = std::thread::JoinHandle<()>;

    /// Starts a named thread.
    pub(crate) fn spawn(
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle> {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
    }

    /// Whether the handle is the calling thread's own.
    pub(crate) fn is_current(handle: &JoinHandle) -> bool {
        handle.thread().id() == current().id()
    }
}
