//! The standard library's, unless a [`Scheduler`] has the calling thread.
//!
//! Invariants:
//! 1. Of the threads under one scheduler one runs at a time; it stops only inside the calls below.
//! 2. A thread that finds a lock taken blocks on the lock's address; whoever gives it back wakes all who do.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::Duration;

/// Decides which of its threads runs.
pub trait Scheduler: Debug + Send + Sync {
    /// Another thread may run before this returns. Called for one pause in so many as [`pass`] says.
    fn pause(&self);
    /// As [`Scheduler::pause`], of a thread that waits for others to get on.
    fn step_aside(&self);
    /// Blocks the calling thread until somebody wakes `on`, or for so long; true if it was woken. No other thread runs
    /// between the call and the blocking.
    fn block(&self, on: usize, at_most: Option<Duration>) -> bool;
    /// Lets threads that are blocked on `on` go on, all or one. The caller goes on first.
    fn wake(&self, on: usize, all: bool);
    /// Starts a thread under this scheduler.
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Arc<dyn Joined>;
}

/// A thread that was spawned.
pub trait Joined: Debug + Send + Sync {
    /// Waits for its end; false if it panicked.
    fn join(&self) -> bool;
    /// True on the thread itself.
    fn is_current(&self) -> bool;
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Scheduler>>> = const { RefCell::new(None) };
    /// Pauses that pass by before anybody is asked.
    static PASSING: Cell<u32> = const { Cell::new(0) };
}

/// Runs `body` on the calling thread under `scheduler`.
pub fn run_under<R>(scheduler: Arc<dyn Scheduler>, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<Arc<dyn Scheduler>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.with(|current| *current.borrow_mut() = self.0.take());
            pass(0);
        }
    }
    let before = CURRENT.with(|current| current.borrow_mut().replace(scheduler));
    let _restore = Restore(before);
    pass(0);
    body()
}

/// Lets another thread run, if the calling one is under a scheduler.
#[inline]
pub fn pause() {
    // A thread whose locals are gone is under nobody any more.
    let passing = PASSING.try_with(|passing| {
        let left = passing.get();
        passing.set(left.wrapping_sub(1));
        left
    });
    if passing == Ok(0) {
        pause_now();
    }
}

#[cold]
fn pause_now() {
    pass(0);
    match current() {
        Some(scheduler) => scheduler.pause(),
        None => drop(pass(u32::MAX)),
    }
}

/// Lets so many pauses of the calling thread pass by before its scheduler is asked again. Returns how many of those said
/// before are left.
pub fn pass(pauses: u32) -> u32 {
    PASSING
        .try_with(|passing| passing.replace(pauses))
        .unwrap_or(0)
}

fn current() -> Option<Arc<dyn Scheduler>> {
    // As in `pause`.
    CURRENT
        .try_with(|current| current.borrow().clone())
        .ok()
        .flatten()
}

fn place<T: ?Sized>(of: &T) -> usize {
    std::ptr::from_ref(of).addr()
}

/// A mutual exclusion lock.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

/// Holds a [`Mutex`].
#[derive(Debug)]
pub(crate) struct MutexGuard<'m, T> {
    of: &'m Mutex<T>,
    /// `None` once it was given back.
    inner: Option<std::sync::MutexGuard<'m, T>>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        if let Some(scheduler) = current() {
            pause();
            return self.lock_under(&*scheduler);
        }
        self.guard(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock_under(&self, scheduler: &dyn Scheduler) -> MutexGuard<'_, T> {
        loop {
            if let Some(guard) = self.take() {
                return guard;
            }
            scheduler.block(place(self), None);
        }
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        pause();
        self.take()
    }

    fn take(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(inner) => Some(self.guard(inner)),
            Err(TryLockError::Poisoned(inner)) => Some(self.guard(inner.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn guard<'m>(&'m self, inner: std::sync::MutexGuard<'m, T>) -> MutexGuard<'m, T> {
        MutexGuard {
            of: self,
            inner: Some(inner),
        }
    }
}

impl<'m, T> MutexGuard<'m, T> {
    fn give_back(&mut self) -> Option<std::sync::MutexGuard<'m, T>> {
        self.inner.take()
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        if let Some(inner) = self.give_back() {
            drop(inner);
            if let Some(scheduler) = current() {
                scheduler.wake(place(self.of), true);
            }
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.inner {
            Some(inner) => inner,
            None => unreachable!("a guard that was given back"),
        }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.inner {
            Some(inner) => inner,
            None => unreachable!("a guard that was given back"),
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
        self.wait_at_most(guard, None).0
    }

    /// Waits to be notified, for so long at most; says whether the time ran out. May return without either.
    pub(crate) fn wait_timeout<'m, T>(
        &self,
        guard: MutexGuard<'m, T>,
        at_most: Duration,
    ) -> (MutexGuard<'m, T>, bool) {
        self.wait_at_most(guard, Some(at_most))
    }

    /// Waits while `unless` holds, for so long at most.
    pub(crate) fn wait_timeout_while<'m, T>(
        &self,
        mut guard: MutexGuard<'m, T>,
        at_most: Duration,
        mut unless: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'m, T> {
        while unless(&mut guard) {
            let timed_out;
            (guard, timed_out) = self.wait_at_most(guard, Some(at_most));
            if timed_out {
                break;
            }
        }
        guard
    }

    fn wait_at_most<'m, T>(
        &self,
        mut guard: MutexGuard<'m, T>,
        at_most: Option<Duration>,
    ) -> (MutexGuard<'m, T>, bool) {
        let of = guard.of;
        let Some(inner) = guard.give_back() else {
            unreachable!("a guard that was given back");
        };
        if let Some(scheduler) = current() {
            drop(inner);
            // No pause in between: a notification after the lock was given back finds this thread blocked.
            scheduler.wake(place(of), true);
            let woken = scheduler.block(place(self), at_most);
            return (of.lock_under(&*scheduler), !woken);
        }
        match at_most {
            Some(at_most) => {
                let waited = self.0.wait_timeout(inner, at_most);
                let (inner, result) = waited.unwrap_or_else(PoisonError::into_inner);
                (of.guard(inner), result.timed_out())
            }
            None => {
                let inner = self.0.wait(inner);
                (
                    of.guard(inner.unwrap_or_else(PoisonError::into_inner)),
                    false,
                )
            }
        }
    }

    pub(crate) fn notify_one(&self) {
        self.notify(false);
    }

    pub(crate) fn notify_all(&self) {
        self.notify(true);
    }

    fn notify(&self, all: bool) {
        if let Some(scheduler) = current() {
            pause();
            scheduler.wake(place(self), all);
        }
        // Also for threads that are under nobody.
        match all {
            true => self.0.notify_all(),
            false => self.0.notify_one(),
        }
    }
}

/// Threads.
pub(crate) mod thread {
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::{Joined, current as scheduler, place};

    /// A handle of a thread, to unpark it.
    #[derive(Debug, Clone)]
    pub(crate) enum Thread {
        Std(std::thread::Thread),
        /// Its token: set by an unpark, taken by a park.
        Under(Arc<AtomicBool>),
    }

    thread_local! {
        static TOKEN: RefCell<Arc<AtomicBool>> = RefCell::default();
    }

    /// Exchanges the calling thread's token.
    pub(crate) fn swap_token(with: &mut Arc<AtomicBool>) {
        TOKEN.with(|token| std::mem::swap(&mut *token.borrow_mut(), with));
    }

    fn token() -> Arc<AtomicBool> {
        TOKEN.with(|token| Arc::clone(&token.borrow()))
    }

    /// The calling thread.
    pub(crate) fn current() -> Thread {
        match scheduler() {
            Some(_) => Thread::Under(token()),
            None => Thread::Std(std::thread::current()),
        }
    }

    impl Thread {
        /// Ends one `park` of the thread, the present or the next one.
        pub(crate) fn unpark(&self) {
            match self {
                Self::Std(thread) => thread.unpark(),
                Self::Under(token) => {
                    super::pause();
                    // SeqCst, as nothing here is worth less.
                    token.store(true, Ordering::SeqCst);
                    if let Some(scheduler) = scheduler() {
                        scheduler.wake(place(&**token), true);
                    }
                }
            }
        }
    }

    /// Waits for an `unpark`; may return without.
    pub(crate) fn park() {
        match scheduler() {
            Some(scheduler) => {
                let token = token();
                super::pause();
                while !token.swap(false, Ordering::SeqCst) {
                    scheduler.block(place(&*token), None);
                }
            }
            None => std::thread::park(),
        }
    }

    /// Lets others run.
    pub(crate) fn yield_now() {
        match scheduler() {
            Some(scheduler) => scheduler.step_aside(),
            None => std::thread::yield_now(),
        }
    }

    /// Waits for so long.
    pub(crate) fn sleep(how_long: Duration) {
        match scheduler() {
            // Nobody wakes this place.
            Some(scheduler) => drop(scheduler.block(0, Some(how_long))),
            None => std::thread::sleep(how_long),
        }
    }

    /// A thread that was spawned.
    #[derive(Debug)]
    pub(crate) enum JoinHandle {
        Std(std::thread::JoinHandle<()>),
        Under(Arc<dyn Joined>),
    }

    impl JoinHandle {
        /// Waits for its end.
        pub(crate) fn join(self) -> std::thread::Result<()> {
            match self {
                Self::Std(handle) => handle.join(),
                Self::Under(handle) if handle.join() => Ok(()),
                Self::Under(_) => Err(Box::new("a scheduled thread panicked")),
            }
        }
    }

    /// Starts a named thread.
    pub(crate) fn spawn(
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle> {
        match scheduler() {
            Some(scheduler) => Ok(JoinHandle::Under(scheduler.spawn(name, Box::new(body)))),
            None => {
                let builder = std::thread::Builder::new().name(name.to_owned());
                builder.spawn(body).map(JoinHandle::Std)
            }
        }
    }

    /// Whether the handle is the calling thread's own.
    pub(crate) fn is_current(handle: &JoinHandle) -> bool {
        match handle {
            JoinHandle::Std(handle) => handle.thread().id() == std::thread::current().id(),
            JoinHandle::Under(handle) => handle.is_current(),
        }
    }
}
