//! Waiting for those who will be back in a moment, so that they share a flush.
//!
//! Committers that work in a closed loop come back with their next transaction soon after a group has woken them. A
//! group that is sealed at once takes the few who are back first and leaves the rest to the next one: two half groups
//! take turns, each with a flush of its own. So after a large group the log role waits until most of its waiters are
//! back, but no longer than the write of that group took. If they do not come back, it waits less and less often.
//!
//! - Cost: for a group, at most the time of one flush, and one millisecond; nothing for small groups, and on devices so fast that a
//!   thread cannot sleep for as short a time as a flush.
//! - Source: the groups' sizes and times seen last, no setting. Spec: CC-004.

use std::time::Duration;

/// Groups with fewer waiters are not waited for: a lone committer never waits.
const WAITERS_MIN: usize = 8;
/// Flushes shorter than this are over before a sleeping thread is awake again.
const FLUSH_NS_MIN: u64 = 50_000;
/// Longest wait: a device that is stuck for a while is no reason to wait as long again.
const WAIT_NS_MAX: u64 = 1_000_000;
/// Most groups between two tries while nobody comes back.
const PAUSE_MAX: u32 = 63;

/// What the log role knows of the group it wrote last.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Waiters it woke.
    woken: usize,
    /// Waiters of the next group by then.
    joined: usize,
    /// How long its write took.
    flush_ns: u64,
    /// Groups to go before the next try.
    pause: u32,
    /// Groups between the last try and the one before it.
    last_pause: u32,
}

impl Gather {
    /// Whether a group of so many waiters is large enough.
    pub(super) fn wants(woken: usize) -> bool {
        woken >= WAITERS_MIN
    }

    /// A group was written in `flush_ns`, and its `woken` waiters are about to know it; the next has `joined` already.
    pub(super) fn wrote(&mut self, woken: usize, joined: usize, flush_ns: u64) {
        self.woken = woken;
        self.joined = joined;
        self.flush_ns = flush_ns;
    }

    /// How many waiters the open group should have, and for how long to wait for them. Asked once for a group.
    pub(super) fn plan(&mut self) -> Option<(usize, Duration)> {
        let woken = std::mem::take(&mut self.woken);
        if !Self::wants(woken) || self.flush_ns < FLUSH_NS_MIN {
            return None;
        }
        if let Some(less) = self.pause.checked_sub(1) {
            self.pause = less;
            return None;
        }
        let at_most = Duration::from_nanos(self.flush_ns.min(WAIT_NS_MAX));
        Some((self.joined + woken - woken / 8, at_most))
    }

    /// How it went.
    pub(super) fn learn(&mut self, came: bool) {
        self.pause = match came {
            true => 0,
            false => (2 * self.last_pause + 1).min(PAUSE_MAX),
        };
        self.last_pause = self.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_groups_on_slow_devices_are_waited_for() {
        let mut gather = Gather::default();
        assert_eq!(gather.plan(), None);
        gather.wrote(WAITERS_MIN - 1, 0, 1_000_000);
        assert_eq!(gather.plan(), None);
        gather.wrote(32, 0, FLUSH_NS_MIN - 1);
        assert_eq!(gather.plan(), None);
        gather.wrote(32, 5, 80_000);
        assert_eq!(gather.plan(), Some((33, Duration::from_micros(80))));
        assert_eq!(gather.plan(), None, "once for a group");
        gather.wrote(32, 0, 9_000_000);
        assert_eq!(gather.plan(), Some((28, Duration::from_millis(1))));
    }

    #[test]
    fn who_does_not_come_back_is_waited_for_ever_less_often() {
        let mut gather = Gather::default();
        let (mut groups, mut tries) = (0, 0);
        while groups < 10_000 {
            groups += 1;
            gather.wrote(32, 0, 80_000);
            if gather.plan().is_some() {
                tries += 1;
                gather.learn(false);
            }
        }
        assert!(tries < 10_000 / 60, "{tries} tries");
        while gather.plan().is_none() {
            gather.wrote(32, 0, 80_000);
        }
        gather.learn(true);
        gather.wrote(32, 0, 80_000);
        assert!(gather.plan().is_some());
    }
}
