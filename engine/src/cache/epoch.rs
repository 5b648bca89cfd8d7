//! Epochs: how a reader keeps a frame's bytes from changing for the microseconds it looks at them.
//!
//! A reader announces the epoch it entered in a slot of its own. A frame retired at stamp `s` is reused only when
//! every announced epoch is above `s`.
//!
//! Invariants:
//! 1. A reader's announcement precedes its look-up, an unlink precedes its stamp, and a stamp precedes the scan
//!    of the slots, all in the one total order of the `SeqCst` operations. So a reader either is seen by the scan
//!    or sees the unlink.
//! 2. A reader whose announcement is above a stamp read the epoch after an [`Domain::advance`] that came after
//!    the stamp, hence after the unlink: it cannot find the frame.
//! 3. A slot belongs to one thread from its first `enter` to the thread's end.
//!
//! - Threads: any enters; only who needs a frame advances.
//! - Cost: one `SeqCst` store to enter, one plain store to leave; nested guards only count.
//! - Failure: a guard held for long stops reuse of frames, not progress: loads fall back to the heap.
//! - Source: Fraser, Practical lock-freedom (2004).

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(loom))]
#[path = "epoch/local.rs"]
mod local;

use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

#[cfg(all(feature = "internals", not(loom)))]
pub(crate) use local::Turn;
#[cfg(not(loom))]
pub(crate) use local::{DOMAIN, Guard, enter, inside};

/// Slots of the first chunk; each further chunk has twice as many.
const CHUNK_SLOTS: usize = if cfg!(loom) { 2 } else { 64 };
/// Chunks: 64 x (2^16 - 1) slots, more threads than a process can have.
const CHUNKS: usize = 16;
/// Announced by a slot whose thread is outside.
const OUTSIDE: u64 = 0;

/// One thread's announcement.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    announced: AtomicU64,
    taken: AtomicBool,
}

type Chunk = Box<[CachePadded<Slot>]>;

/// An epoch and those who announced one.
#[derive(Debug)]
pub(crate) struct Domain {
    epoch: CachePadded<AtomicU64>,
    chunks: [OnceLock<Chunk>; CHUNKS],
}

impl Domain {
    /// A domain nobody has entered.
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            epoch: CachePadded::new(AtomicU64::new(OUTSIDE + 1)),
            chunks: [const { OnceLock::new() }; CHUNKS],
        }
    }

    /// A domain nobody has entered.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            epoch: CachePadded::new(AtomicU64::new(OUTSIDE + 1)),
            chunks: Default::default(),
        }
    }

    /// A slot for the calling thread alone.
    ///
    /// # Panics
    /// When four million slots are taken.
    pub(crate) fn register(&self) -> &Slot {
        for (index, chunk) in self.chunks.iter().enumerate() {
            let chunk = chunk.get_or_init(|| {
                (0..CHUNK_SLOTS << index)
                    .map(|_| CachePadded::default())
                    .collect()
            });
            for slot in chunk {
                // Acquire pairs with the Release in `unregister`: its last announcement is over.
                if !slot.taken.load(Ordering::Relaxed) && !slot.taken.swap(true, Ordering::Acquire)
                {
                    return slot;
                }
            }
        }
        panic!("more threads than epoch slots");
    }

    /// Announces the current epoch in `slot`.
    #[inline]
    pub(crate) fn announce(&self, slot: &Slot) {
        let epoch = self.epoch.load(Ordering::SeqCst);
        slot.announced.store(epoch, Ordering::SeqCst);
    }

    /// The current epoch: a stamp for what was unlinked before this call.
    pub(crate) fn stamp(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Starts the epoch after `stamp`, unless another thread has done so.
    pub(crate) fn advance(&self, stamp: u64) {
        let _another_did =
            self.epoch
                .compare_exchange(stamp, stamp + 1, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// The lowest announced epoch; `u64::MAX` if nobody is inside.
    pub(crate) fn min_active(&self) -> u64 {
        // `SeqCst` by invariant 1; it also acquires what a leaving reader did (its pins).
        self.chunks
            .iter()
            .map_while(OnceLock::get)
            .flatten()
            .map(|slot| slot.announced.load(Ordering::SeqCst))
            .filter(|&epoch| epoch != OUTSIDE)
            .min()
            .unwrap_or(u64::MAX)
    }
}

impl Slot {
    /// Ends an announcement.
    #[inline]
    pub(crate) fn withdraw(&self) {
        // Release: what the reader read and the pins it took come before.
        self.announced.store(OUTSIDE, Ordering::Release);
    }

    /// Gives the slot back.
    pub(crate) fn unregister(&self) {
        self.withdraw();
        self.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_passed_only_when_readers_of_its_epoch_have_left() {
        let domain = Domain::new();
        assert_eq!(domain.min_active(), u64::MAX);
        let (early, late) = (domain.register(), domain.register());
        domain.announce(early);
        let stamp = domain.stamp();
        domain.advance(stamp);
        domain.announce(late);
        assert!(domain.min_active() <= stamp);
        early.withdraw();
        assert!(domain.min_active() > stamp);
        late.unregister();
        assert_eq!(domain.min_active(), u64::MAX);
    }

    #[test]
    fn slots_are_given_back_and_their_number_is_not_a_limit() {
        let domain = Domain::new();
        let slots = (0..1000).map(|_| domain.register()).collect::<Vec<_>>();
        domain.announce(slots[999]);
        assert_eq!(domain.min_active(), 1);
        let freed = slots[500];
        freed.unregister();
        assert!(std::ptr::eq(domain.register(), freed));
    }
}
