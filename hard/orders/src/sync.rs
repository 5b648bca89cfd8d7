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

    /// Time never runs out here.
    pub(crate) fn wait_timeout_while<'m, T>(
        &self,
        mut guard: MutexGuard<'m, T>,
        _: std::time::Duration,
        mut unless: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'m, T> {
        while unless(&mut guard) {
            guard = self.wait(guard);
        }
        guard
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

    use super::Weak;

    std::thread_local! {
        /// For one thread of the system, on which all threads of its models run.
        pub(super) static WEAK: Cell<Weak> = const { Cell::new(Weak::Not) };
    }

    pub(crate) fn fence(order: Ordering) {
        match (WEAK.with(Cell::get), order) {
            (Weak::Unordered, _) => {}
            (Weak::Pairs, Ordering::SeqCst) => loom::sync::atomic::fence(Ordering::AcqRel),
            _ => loom::sync::atomic::fence(order),
        }
    }

    /// The fence that makes a `SeqCst` access worth its name.
    fn full(order: Ordering) {
        if order == Ordering::SeqCst && WEAK.with(Cell::get) == Weak::Not {
            fence(Ordering::SeqCst);
        }
    }

    /// The order that an access gets.
    fn given(order: Ordering) -> Ordering {
        match WEAK.with(Cell::get) {
            Weak::Unordered => Ordering::Relaxed,
            Weak::Not | Weak::Pairs => order,
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
                    let value = self.0.load(given(order));
                    full(order);
                    value
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    full(order);
                    self.0.store(value, given(order));
                    full(order);
                }

                pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                    full(order);
                    let before = self.0.swap(value, given(order));
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
                    let outcome = self
                        .0
                        .compare_exchange(from, to, given(success), given(failure));
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
                    let before = self.0.fetch_add(value, given(order));
                    full(order);
                    before
                }

                pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    full(order);
                    let before = self.0.fetch_sub(value, given(order));
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

/// What the sources' orders of accesses are taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weak {
    /// What they say.
    Not,
    /// `SeqCst` only acquires and releases: there is no one order of all accesses.
    Pairs,
    /// Everything is `Relaxed`, and fences are none.
    Unordered,
}

/// From now on orders are taken for that: wrong, and meant to be found out.
pub(crate) fn weaken(weak: Weak) {
    atomic::WEAK.with(|switch| switch.set(weak));
}
