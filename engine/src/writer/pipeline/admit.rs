//! Letting commits in: no faster than checkpoints free memory, and no more than the log has room for.
//!
//! - Spec: CC-015, CC-017.

use crate::sync::atomic::Ordering;

use northstar_io::planted::planted;

use super::{Pipeline, RECHECK_AFTER};
use crate::error::{Error, Result};
use crate::log::Claim;
use crate::marks::{Mark, reached};
use crate::sync::thread;

impl Pipeline {
    /// Delays the caller while checkpoints are behind. When two deltas are full, waits until one is merged, or
    /// fails with what keeps it from being merged (`stuck`).
    pub(crate) fn throttle(&self, stuck: impl Fn() -> Option<Error>) -> Result<()> {
        loop {
            self.check_running()?;
            let shape = self.shapes.load();
            if shape.frozen.is_empty() {
                return Ok(());
            }
            let used = shape.active.used_bytes() as u64;
            drop(shape);
            let full = used >= 2 * self.delta_bytes;
            if full && let Some(error) = stuck() {
                return Err(error);
            }
            if !self.background {
                // Nobody would catch up meanwhile.
                return Ok(());
            }
            let delay = self.progress.delay(used, self.delta_bytes);
            let Some(delay) = delay.or(full.then_some(RECHECK_AFTER)) else {
                return Ok(());
            };
            reached(Mark::Throttled);
            let started = self.clock.monotonic_ns();
            thread::sleep(delay);
            let waited = self.clock.monotonic_ns() - started;
            self.counters
                .throttled_ns
                .fetch_add(waited, Ordering::Relaxed);
            if !full {
                return Ok(());
            }
        }
    }

    /// Claims room in the log for a record of `payload` bytes, making it if need be.
    ///
    /// # Errors
    /// [`Error::Full`] if the disk has no room for it.
    pub(crate) fn claim_log(&self, payload: usize) -> Result<Claim> {
        let claim = self.segments.claim(payload);
        let (claimed, room) = (self.segments.claimed(), self.segments.room());
        if planted("room in the log is not claimed before a batch is applied") {
            return Ok(claim);
        }
        if room < claimed {
            self.prepare_log(claimed)
                .inspect_err(|_| reached(Mark::LogFull))?;
        } else if room < claimed + self.log_ahead_bytes {
            // In time, by the checkpoint thread; above only if it does not come to it.
            (self.on_spare)();
        }
        Ok(claim)
    }

    /// Gets the log ready for some commits more.
    pub(crate) fn prepare_segment(&self) -> Result<()> {
        self.prepare_log(self.segments.claimed() + 2 * self.log_ahead_bytes)
    }

    fn prepare_log(&self, bytes: u64) -> Result<()> {
        let made = self.segments.prepare(bytes);
        made.map_err(|source| Error::from_io("the commit log", source))
    }

    /// Gives prepared segments back that no commit is about to need.
    pub(crate) fn shrink_log(&self) -> Result<()> {
        let dropped = self.segments.drop_prepared(self.log_ahead_bytes);
        dropped.map_err(|source| Error::from_io("the commit log", source))
    }
}
