//! The one place that reads the machine's clock: to say how long a run took, never to decide anything.

use std::time::Instant;

/// Now, on the monotonic clock.
#[must_use]
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a run says how long it took")]
    Instant::now()
}
