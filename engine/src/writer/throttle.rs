//! Slowing writers down smoothly when they outrun the checkpoint.
//!
//! While a frozen delta is being merged, the active one may fill only as fast as the frozen one drains: a commit
//! is delayed in proportion to how far ahead it is. So the two meet at the end, instead of writers running at full
//! speed into a wall.

use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering};

/// Progress is counted in parts of this.
const WHOLE: u64 = 1 << 20;
/// Writers may be ahead of the merge by this part of a delta without any delay.
const FREE_LEAD: u64 = WHOLE / 4;
/// The lead at which a commit waits longest. The active delta may be full then, the frozen one hardly begun.
const FULL_LEAD: u64 = WHOLE;
/// The longest single delay: long enough to hold any writer to the pace of any device, short of a stall.
const DELAY_MAX: Duration = Duration::from_millis(60);

/// How far the merge of the frozen delta has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// 0: nothing is frozen. Else parts of [`WHOLE`] merged, plus one.
    merged: AtomicU64,
}

impl Progress {
    pub(crate) fn started(&self) {
        self.merged.store(1, Ordering::Relaxed);
    }

    /// `done` of `all` entries are merged.
    pub(crate) fn advanced(&self, done: u64, all: u64) {
        let part = done.min(all).saturating_mul(WHOLE) / all.max(1);
        self.merged.store(part + 1, Ordering::Relaxed);
    }

    pub(crate) fn finished(&self) {
        self.merged.store(0, Ordering::Relaxed);
    }

    /// How long the next commit should wait when the active delta holds `used` of `limit` bytes.
    pub(crate) fn delay(&self, used: u64, limit: u64) -> Option<Duration> {
        let merged = self.merged.load(Ordering::Relaxed).checked_sub(1)?;
        let filled = used.saturating_mul(WHOLE) / limit.max(1);
        let ahead = filled.saturating_sub(merged + FREE_LEAD);
        if ahead == 0 {
            return None;
        }
        // Squared: hardly felt at first, and steep enough at the end that the lead settles before it.
        let range = FULL_LEAD - FREE_LEAD;
        let share = u128::from(ahead.min(range));
        let nanos = share * share * DELAY_MAX.as_nanos() / u128::from(range).pow(2);
        u64::try_from(nanos).ok().map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_waits_the_longer_the_further_it_is_ahead() {
        let progress = Progress::default();
        assert_eq!(progress.delay(100, 100), None, "nothing is being merged");
        progress.started();
        assert_eq!(progress.delay(20, 100), None, "within the free lead");
        let near = progress.delay(30, 100).unwrap();
        let far = progress.delay(60, 100).unwrap();
        assert!(near < far && far < DELAY_MAX);
        assert_eq!(progress.delay(120, 100), Some(DELAY_MAX));
        progress.advanced(90, 100);
        assert_eq!(progress.delay(90, 100), None);
        progress.finished();
        assert_eq!(progress.delay(90, 100), None);
    }
}
