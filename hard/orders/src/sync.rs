//! What the engine's `sync` gives, in the words of `loom`.

use std::sync::PoisonError;

pub(crate) use loom::sync::MutexGuard;

/// As the standard library's, whose initial values may be constants.
macro_rules! local {
    ($(#[$doc:meta])* $vis:vis static $name:ident: $type:ty = const { $init:expr };) => {
        loom::thread_local! { $(#[$doc])* $vis static $name: $type = $init; }
    };
}
pub(crate) use local as thread_local;

/// Nothing: every access is a place where another thread may run.
pub(crate) fn pause() {}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub(crate) fn wait<'m, T>(&self, guard: MutexGuard<'m, T>) -> MutexGuard<'m, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

pub(crate) mod thread {
    pub(crate) use loom::thread::{Thread, current, park, spawn};
}

pub(crate) mod atomic {
    use std::cell::Cell;
    pub(crate) use std::sync::atomic::Ordering;

    /// Whether to leave out the fences that make a `SeqCst` access worth its name, and to weaken those in the sources.
    ///
    /// For one thread of the system, on which all threads of its models run.
    pub(super) fn is_weak() -> bool {
        WEAK.with(Cell::get)
    }

    std::thread_local! {
        pub(super) static WEAK: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn fence(order: Ordering) {
        let weak = order == Ordering::SeqCst && is_weak();
        loom::sync::atomic::fence(if weak { Ordering::AcqRel } else { order });
    }

    fn full(order: Ordering) {
        if order == Ordering::SeqCst && !is_weak() {
            fence(Ordering::SeqCst);
        }
    }

    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            #[derive(Debug, Default)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    full(order);
                    let value = self.0.load(order);
                    full(order);
                    value
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    full(order);
                    self.0.store(value, order);
                    full(order);
                }

                pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                    full(order);
                    let before = self.0.swap(value, order);
                    full(order);
                    before
                }

                pub(crate) fn compare_exchange(
                    &self,
                    from: $value,
                    to: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    full(success);
                    let outcome = self.0.compare_exchange(from, to, success, failure);
                    full(if outcome.is_ok() { success } else { failure });
                    outcome
                }
            }
        };
    }

    macro_rules! number {
        ($name:ident, $value:ty) => {
            atomic!($name, $value);

            impl $name {
                pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    full(order);
                    let before = self.0.fetch_add(value, order);
                    full(order);
                    before
                }

                pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    full(order);
                    let before = self.0.fetch_sub(value, order);
                    full(order);
                    before
                }
            }
        };
    }

    atomic!(AtomicBool, bool);
    number!(AtomicU8, u8);
    number!(AtomicU16, u16);
    number!(AtomicU32, u32);
    number!(AtomicU64, u64);
}

/// From now on `SeqCst` accesses and fences only acquire and release: wrong, and meant to be found out.
pub(crate) fn weaken(weak: bool) {
    atomic::WEAK.with(|switch| switch.set(weak));
}
