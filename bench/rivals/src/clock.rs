//! The one place that reads the clock.

use std::time::{Duration, Instant};

/// Now, on the monotonic clock.
pub(crate) fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "a benchmark is where time is read"
    )]
    Instant::now()
}

/// A duration in seconds, never zero, so that it may divide.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().max(1e-9)
}
