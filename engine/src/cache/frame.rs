//! What is known of a frame beside its bytes: 16 bytes of atomics, so that the sidecar of a large cache stays in
//! the processor's caches.
//!
//! Invariants:
//! 1. `id` names a page only while the frame's bytes are that verified page and do not change.
//! 2. `state` goes free → leased → shared → free; all three moves are made by [`super::arena`] alone.

use crate::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::ids::PageId;

/// `id` of a frame that holds no page to be found.
const NO_PAGE: u64 = u64::MAX;

/// Who may touch a frame's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// Nobody: it lies in the free list.
    Free = 0,
    /// One [`super::arena::FrameBuf`], which may be in the kernel's hands.
    Leased = 1,
    /// Readers under a guard or a pin; resident, or retired and waiting for them to leave.
    Shared = 2,
}

/// How the cache treats a frame's page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Rank {
    /// A leaf or overflow page that point reads asked for.
    Point = 0,
    /// Brought in by a scan or a checkpoint: goes first.
    Scan = 1,
    /// A branch: goes last.
    Branch = 2,
}

/// Highest value of a frame's heat.
pub(crate) const HEAT_MAX: u8 = 3;

/// The sidecar of one frame.
#[derive(Debug)]
pub(super) struct FrameMeta {
    id: AtomicU64,
    /// Holders by count. Taken under a guard or by a holder, so it cannot rise from 0 once the epoch has passed.
    pub(super) pins: AtomicU32,
    /// Block of child hints; 0 for none.
    pub(super) hints: AtomicU16,
    state: AtomicU8,
    /// Low two bits heat, above them the rank. Late values only make eviction choose a little worse.
    clock: AtomicU8,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<FrameMeta>() == 16);

impl FrameMeta {
    pub(super) fn new() -> Self {
        Self {
            id: AtomicU64::new(NO_PAGE),
            pins: AtomicU32::new(0),
            hints: AtomicU16::new(0),
            state: AtomicU8::new(State::Free as u8),
            clock: AtomicU8::new(0),
        }
    }

    /// True if the frame holds `id`. `SeqCst`: ordered after the reader's announcement (see `epoch`, invariant 1);
    /// acquires the bytes that [`FrameMeta::link`] released.
    #[inline]
    pub(super) fn holds(&self, id: PageId) -> bool {
        self.id.load(Ordering::SeqCst) == id.get()
    }

    /// The page to be found here.
    pub(super) fn id(&self) -> Option<PageId> {
        let id = self.id.load(Ordering::SeqCst);
        (id != NO_PAGE).then(|| PageId::new(id))
    }

    /// Lets readers find the page. Releases the bytes.
    pub(super) fn link(&self, id: PageId) {
        self.id.store(id.get(), Ordering::SeqCst);
    }

    /// Hides the page from new readers; false if the frame does not hold it.
    pub(super) fn unlink(&self, id: PageId) -> bool {
        self.id
            .compare_exchange(id.get(), NO_PAGE, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    pub(super) fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    pub(super) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Records a hit; writes only what is not yet so.
    #[inline]
    pub(super) fn touch(&self) {
        let clock = self.clock.load(Ordering::Relaxed);
        // A branch and a point leaf are as hot as can be after one hit. A scanned leaf needs three to count: a
        // scan itself looks once or twice.
        let wanted = match clock >> 2 {
            1 => (clock & 3).saturating_add(1).min(HEAT_MAX),
            2 => HEAT_MAX,
            _ => 2,
        };
        if clock & 3 < wanted {
            self.clock.store(clock & !3 | wanted, Ordering::Relaxed);
        }
    }

    /// Makes a leaf as cold as can be. False for a branch, which stays what it is: there are few of them.
    pub(super) fn demote(&self) -> bool {
        let leaf = self.rank() != Rank::Branch;
        if leaf {
            self.set_clock(Rank::Scan, 0);
        }
        leaf
    }

    pub(super) fn heat(&self) -> u8 {
        self.clock.load(Ordering::Relaxed) & 3
    }

    pub(super) fn rank(&self) -> Rank {
        match self.clock.load(Ordering::Relaxed) >> 2 {
            1 => Rank::Scan,
            2 => Rank::Branch,
            _ => Rank::Point,
        }
    }

    pub(super) fn set_clock(&self, rank: Rank, heat: u8) {
        self.clock
            .store((rank as u8) << 2 | heat.min(HEAT_MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scanned_page_turns_hot_on_its_third_hit_and_others_on_the_first() {
        let frame = FrameMeta::new();
        frame.set_clock(Rank::Scan, 0);
        frame.touch();
        frame.touch();
        assert_eq!((frame.heat(), frame.rank()), (2, Rank::Scan));
        frame.touch();
        frame.touch();
        assert_eq!(frame.heat(), HEAT_MAX);
        frame.set_clock(Rank::Branch, 0);
        frame.touch();
        assert_eq!((frame.heat(), frame.rank()), (HEAT_MAX, Rank::Branch));
        frame.set_clock(Rank::Point, 0);
        frame.touch();
        assert_eq!((frame.heat(), frame.rank()), (2, Rank::Point));
    }
}
