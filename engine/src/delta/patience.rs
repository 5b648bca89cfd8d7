//! When deleted rows that cursors pass over are worth a merge, which ends that: when passing over them has taken as long.
//!
//! - Unit: a row passed over, which takes about 50 ns. A page that is written is taken for 50 us, a change for 1 us.
//! - Why: as with renting and buying, it is time when as much has been spent as the other way costs. Sooner, tables whose changes
//!   lie scattered would be written again and again because somebody polls a queue beside them.

use crate::sync::atomic::{AtomicU64, Ordering};

/// For a change, whatever page it goes to.
const OF_A_CHANGE: u64 = 20;
/// For a page.
const OF_A_PAGE: u64 = 1_000;
/// Fewer changes say nothing of the pages that more would need: each merge writes some for itself.
const CHANGES_TOLD: u64 = 1_000;

/// What is passed over before a merge is worth it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// A cursor that passes over fewer rows says nothing.
    pub(crate) told_from: u64,
    /// For any merge, however little there is to it: mostly flushes.
    pub(crate) at_least: u64,
    /// For each change, until a merge has shown how many pages there are to one.
    pub(crate) of_a_change: u64,
}

impl Patience {
    /// On a machine.
    pub(crate) const USUAL: Self = Self {
        told_from: 256,
        at_least: 400_000,
        of_a_change: 128,
    };

    /// Where databases have a few hundred rows and live for a millisecond.
    pub(crate) const SHORT: Self = Self {
        told_from: 1,
        at_least: 4,
        of_a_change: 0,
    };
}

/// What merges are worth, by the last one.
#[derive(Debug)]
pub(super) struct Worth {
    at_least: u64,
    of_a_change: AtomicU64,
}

impl Worth {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            at_least: patience.at_least,
            of_a_change: AtomicU64::new(patience.of_a_change),
        }
    }

    /// So many changes were merged by writing so many pages.
    pub(super) fn note_merge(&self, changes: u64, pages: u64) {
        if changes >= CHANGES_TOLD {
            let of_pages = pages.saturating_mul(OF_A_PAGE) / changes;
            let of_a_change = OF_A_CHANGE.saturating_add(of_pages);
            // Alone, here and below: it is only about time.
            self.of_a_change.store(of_a_change, Ordering::Relaxed);
        }
    }

    /// Whether a merge of so many changes is worth it.
    pub(super) fn is_reached(&self, passed: u64, changes: u64) -> bool {
        let of_a_change = self.of_a_change.load(Ordering::Relaxed);
        passed >= (self.at_least).saturating_add(of_a_change.saturating_mul(changes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_is_worth_what_the_last_one_took() {
        let worth = Worth::new(Patience::USUAL);
        assert!(!worth.is_reached(400_000 + 128 * 3_000 - 1, 3_000));
        assert!(worth.is_reached(400_000 + 128 * 3_000, 3_000));
        // A page for each change.
        worth.note_merge(5_000, 5_000);
        assert!(!worth.is_reached(400_000 + 1_020 * 3_000 - 1, 3_000));
        assert!(worth.is_reached(400_000 + 1_020 * 3_000, 3_000));
        // Too little to tell.
        worth.note_merge(3, 60);
        assert!(worth.is_reached(400_000 + 1_020 * 3_000, 3_000));
        worth.note_merge(100_000, 100);
        assert!(worth.is_reached(400_000 + 21 * 3_000, 3_000));
        // Whatever is told.
        worth.note_merge(1_000, u64::MAX);
        assert!(!worth.is_reached(u64::MAX - 1, u64::MAX));
        assert!(worth.is_reached(400_000, 0));
    }
}
