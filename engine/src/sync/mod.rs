//! Locks, condition variables, threads, atomics and queues, as the engine uses them.
//!
//! Thin over the standard library's. A lock is had whatever happened to its last holder: what the engine's locks guard
//! is kept from misuse by the halt, not by poisoning. With the feature `internals` a `Scheduler` can take the place of
//! the operating system's for the threads that run under it, so that one seed decides every interleaving; the code
//! between two calls into this module, or into a disk that pauses, then runs undisturbed. What is only counted takes
//! its atomics from the standard library: no thread goes by it.
//!
//! - Cost: none beside the standard library's; with `internals`, a look at a thread-local for each call.

pub(crate) use std::thread_local;

#[cfg(feature = "internals")]
pub(crate) mod atomic;
#[cfg(not(feature = "internals"))]
mod plain;
#[cfg(feature = "internals")]
mod queue;
#[cfg(feature = "internals")]
mod scheduled;

#[cfg(not(feature = "internals"))]
pub(crate) use plain::{ArrayQueue, Condvar, Mutex, MutexGuard, atomic, pause, thread};
#[cfg(feature = "internals")]
pub(crate) use queue::ArrayQueue;
#[cfg(feature = "internals")]
pub(crate) use scheduled::{Condvar, Mutex, MutexGuard, thread};
#[cfg(feature = "internals")]
pub use scheduled::{Joined, Scheduler, pass, pause, run_under};

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_lock_is_had_after_its_holder_panicked() {
        let lock = Arc::new(Mutex::new(1));
        let holder = Arc::clone(&lock);
        let body = move || {
            let mut guard = holder.lock();
            *guard = 2;
            panic!("on purpose");
        };
        assert!(thread::spawn("holder", body).unwrap().join().is_err());
        assert_eq!(*lock.lock(), 2);
        assert_eq!(lock.try_lock().map(|guard| *guard), Some(2));
    }

    #[test]
    fn waiting_ends_by_being_told_or_by_time() {
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let other = Arc::clone(&pair);
        let teller = thread::spawn("teller", move || {
            *other.0.lock() = true;
            other.1.notify_all();
        });
        let mut told = pair.0.lock();
        while !*told {
            told = pair.1.wait(told);
        }
        let (told, timed_out) = pair.1.wait_timeout(told, Duration::from_millis(1));
        assert!(*told && timed_out);
        drop(told);
        teller.unwrap().join().unwrap();
        let parked = thread::current();
        parked.unpark();
        thread::park();
    }
}
