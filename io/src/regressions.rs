//! Ways to be slower, put into the engine on purpose, to prove that the gates of its benchmarks find them.
//!
//! Each place in the sources is one call that is constantly nothing unless the feature `planted-regressions` is on and
//! `regress` has named it. What it then does is here. Spec: `benchmarks_v0`.

/// What becomes worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Regression {
    /// Each get allocates once.
    AllocationPerGet = 1,
    /// Each get does some hundred instructions more.
    InstructionsPerGet,
    /// Each get takes about twice as long.
    SlowGets,
    /// A get in 800 takes microseconds.
    SlowGetsSometimes,
    /// Each put takes longer.
    SlowPuts,
    /// Each group of the log is flushed twice.
    FlushPerGroup,
    /// Each group of the log is written twice.
    BytesPerGroup,
}

#[cfg(feature = "planted-regressions")]
mod on {
    use super::Regression;
    use std::cell::Cell;
    use std::hint::black_box;
    use std::sync::atomic::{AtomicU8, Ordering};

    static NOW: AtomicU8 = AtomicU8::new(0);

    thread_local! {
        static GETS: Cell<u32> = const { Cell::new(0) };
    }

    /// Turns this one on for the whole process, and all others off.
    pub fn regress(what: Regression) {
        NOW.store(what as u8, Ordering::Relaxed);
    }

    /// Whether this one is on.
    #[inline]
    pub fn regressed(what: Regression) -> bool {
        NOW.load(Ordering::Relaxed) == what as u8
    }

    /// About a third of a nanosecond a turn.
    #[inline(never)]
    fn work(turns: u32) {
        for turn in 0..turns {
            black_box(turn);
        }
    }

    /// Called by every get.
    #[inline]
    pub fn at_get() {
        if NOW.load(Ordering::Relaxed) == 0 {
            return;
        }
        if regressed(Regression::AllocationPerGet) {
            drop(black_box(Box::new([0_u8; 64])));
        } else if regressed(Regression::InstructionsPerGet) {
            work(50);
        } else if regressed(Regression::SlowGets) {
            work(1200);
        } else if regressed(Regression::SlowGetsSometimes) {
            let gets = GETS.get();
            GETS.set((gets + 1) % 800);
            if gets == 0 {
                work(30_000);
            }
        }
    }

    /// Called by every put into a batch.
    #[inline]
    pub fn at_put() {
        if regressed(Regression::SlowPuts) {
            work(100);
        }
    }
}

#[cfg(feature = "planted-regressions")]
pub use on::{at_get, at_put, regress, regressed};

/// Whether this one is on: never, in this build.
#[cfg(not(feature = "planted-regressions"))]
#[inline(always)]
pub const fn regressed(_: Regression) -> bool {
    false
}

/// Called by every get: nothing, in this build.
#[cfg(not(feature = "planted-regressions"))]
#[inline(always)]
pub const fn at_get() {}

/// Called by every put into a batch: nothing, in this build.
#[cfg(not(feature = "planted-regressions"))]
#[inline(always)]
pub const fn at_put() {}
