//! Faults put into the engine on purpose, to prove that its tests would find them.
//!
//! Each is one condition in the sources, `planted("what is wrong")`, which is constantly false unless the feature
//! `planted` is on and `plant` has named it. Never to be built into anything that holds data. Spec: HD-010.

#[cfg(feature = "planted")]
mod on {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::{Mutex, PoisonError};

    static ANY: AtomicBool = AtomicBool::new(false);
    static NAME: Mutex<Option<&'static str>> = Mutex::new(None);
    static ASKED: AtomicU64 = AtomicU64::new(0);

    /// Whether the fault of this name is on.
    pub fn planted(name: &'static str) -> bool {
        if !ANY.load(Ordering::Relaxed) {
            return false;
        }
        let on = *NAME.lock().unwrap_or_else(PoisonError::into_inner) == Some(name);
        ASKED.fetch_add(u64::from(on), Ordering::Relaxed);
        on
    }

    /// Turns the fault of this name on for the whole process, and all others off.
    pub fn plant(name: Option<&'static str>) {
        *NAME.lock().unwrap_or_else(PoisonError::into_inner) = name;
        ASKED.store(0, Ordering::Relaxed);
        ANY.store(name.is_some(), Ordering::Relaxed);
    }

    /// How often the fault that is on was come by: never, if its name is not in the sources.
    pub fn times_asked() -> u64 {
        ASKED.load(Ordering::Relaxed)
    }
}

#[cfg(feature = "planted")]
pub use on::{plant, planted, times_asked};

/// Whether the fault of this name is on: never, in this build.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_: &'static str) -> bool {
    false
}
