//! The engine's only source of time, passed in so that a simulation can own it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall clock and monotonic clock.
#[derive(Clone)]
pub(crate) struct Clock {
    wall: Arc<dyn Fn() -> u64 + Send + Sync>,
    monotonic: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl Clock {
    /// The machine's clocks.
    pub(crate) fn system() -> Self {
        let wall = || {
            let since = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or(Duration::ZERO);
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the clock"
        )]
        let started = Instant::now();
        let monotonic = move || u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Self {
            wall: Arc::new(wall),
            monotonic: Arc::new(monotonic),
        }
    }

    /// Clocks of somebody else's, both in nanoseconds.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn of(
        wall: Arc<dyn Fn() -> u64 + Send + Sync>,
        monotonic: Arc<dyn Fn() -> u64 + Send + Sync>,
    ) -> Self {
        Self { wall, monotonic }
    }

    /// Nanoseconds since 1970, UTC.
    pub(crate) fn wall_ns(&self) -> u64 {
        (self.wall)()
    }

    /// Nanoseconds since the clock was made; never goes back.
    pub(crate) fn monotonic_ns(&self) -> u64 {
        (self.monotonic)()
    }
}
