//! Which page goes when a frame is needed: a clock with ranks, a short queue for scans, a ghost of what left.
//!
//! Scanned pages leave first, oldest first, once there are more than a few of them: a scan of any length works in
//! its own small part of the cache. Then the clock takes what has cooled down. Branches are passed over until
//! nothing else is left, or until they crowd the cache. A page that comes back soon after it left enters hotter.
//!
//! - Threads: one sweeps at a time, the others wait for what it frees.
//! - Failure: with every frame pinned no frame is found; the caller then uses memory outside the arena.
//! - Source: CLOCK; the ghost after S3-FIFO (Yang et al., SOSP 2023).

use std::collections::VecDeque;

use super::Cache;
use super::arena::FrameBuf;
use super::frame::{FrameMeta, HEAT_MAX, Rank};
use super::map::zeroed;
use super::stats::count;
use crate::ids::PageId;
use crate::marks::{Mark, reached};
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::thread;

/// Pages evicted by one sweep: so many misses share its cost.
const SWEEP: usize = 32;
/// Turns of the clock in one sweep; only the last looks at branches.
const TURNS: usize = 4;
/// Sweeps before giving up. A reader that was put off the processor inside a guard needs a few.
const ATTEMPTS: usize = 32;

/// What a sweep goes by.
#[derive(Debug, Default)]
pub(super) struct Clock {
    hand: u32,
    /// Pages that scans brought in and pages that were superseded, oldest first; entries may be out of date.
    scans: VecDeque<(u32, PageId)>,
}

/// Ids of leaves evicted lately; a newer one displaces an older one that shares its place.
#[derive(Debug)]
pub(super) struct Ghost(Box<[AtomicU32]>);

impl Ghost {
    pub(super) fn new(frames: u32) -> Self {
        Self(zeroed((frames / 2).max(16).next_power_of_two() as usize))
    }

    fn place(&self, id: PageId) -> Option<(&AtomicU32, u32)> {
        let mixed = id.get().wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let index = usize::try_from(mixed >> 32).ok()? & (self.0.len() - 1);
        // Page ids are below 2^32; the one that would look like "none" only loses its ghost.
        let mark = u32::try_from(id.get().wrapping_add(1)).unwrap_or(0);
        Some((self.0.get(index)?, mark))
    }

    fn add(&self, id: PageId) {
        if let Some((place, mark)) = self.place(id) {
            place.store(mark, Ordering::Relaxed);
        }
    }

    /// True if the page left lately.
    pub(super) fn remembers(&self, id: PageId) -> bool {
        self.place(id)
            .is_some_and(|(place, mark)| mark != 0 && place.load(Ordering::Relaxed) == mark)
    }
}

impl Cache {
    /// Frames that scans may fill before they evict their own pages.
    fn scan_room(&self) -> usize {
        (self.arena.count() as usize / 16).clamp(2, 4096)
    }

    /// Notes a page that is to go before others: one that a scan brought in, or that was superseded.
    pub(super) fn note_scanned(&self, frame: u32, id: PageId) {
        let mut clock = self.clock.lock();
        clock.scans.push_back((frame, id));
        if clock.scans.len() > self.arena.count() as usize {
            // More entries than frames: the oldest is out of date, or the clock will find its page.
            clock.scans.pop_front();
        }
    }

    /// A frame to fill, evicting if need be. `None` only if all stay pinned, guarded or leased.
    pub(super) fn take_frame(&self) -> Option<FrameBuf> {
        if let Some(frame) = self.arena.lease() {
            let low = (self.arena.count() as usize / 16).min(SWEEP);
            if self.arena.free_count() < low {
                // What is retired now can be had at once by a later miss.
                self.reclaim();
                if self.arena.free_count() < low {
                    self.sweep(SWEEP);
                }
            }
            return Some(frame);
        }
        for _ in 0..ATTEMPTS {
            self.reclaim();
            if let Some(frame) = self.arena.lease() {
                return Some(frame);
            }
            let all_pinned = !self.sweep(SWEEP.min(self.arena.count() as usize / 4).max(1));
            self.reclaim();
            if let Some(frame) = self.arena.lease() {
                return Some(frame);
            }
            if all_pinned {
                break;
            }
            thread::yield_now();
        }
        None
    }

    /// A frame to fill with what may not be needed: leaves some for those who wait for theirs.
    pub(super) fn take_spare_frame(&self) -> Option<FrameBuf> {
        let spare = (self.arena.count() as usize / 8).min(8);
        if self.arena.free_count() <= spare {
            self.reclaim();
            if self.arena.free_count() <= spare {
                self.sweep(SWEEP.min(self.arena.count() as usize / 4).max(1));
                self.reclaim();
            }
        }
        (self.arena.free_count() > spare).then(|| self.arena.lease())?
    }

    /// Makes frames free whose pages are gone and which nobody reads any more.
    pub(crate) fn reclaim(&self) {
        self.arena.reclaim(|meta| {
            if meta.rank() == Rank::Branch {
                self.branches.fetch_sub(1, Ordering::Relaxed);
            }
            self.hints.give_back(meta.hints.swap(0, Ordering::Relaxed));
        });
    }

    /// Evicts up to `wanted` pages. False if none went and none is about to: each frame holds a pinned page.
    fn sweep(&self, wanted: usize) -> bool {
        let Some(mut clock) = self.clock.try_lock() else {
            return true;
        };
        let mut evicted = 0;
        while evicted < wanted && clock.scans.len() > self.scan_room() {
            let Some((frame, id)) = clock.scans.pop_front() else {
                break;
            };
            if let Some(meta) = self.arena.meta(frame)
                && meta.holds(id)
                && meta.rank() == Rank::Scan
                && meta.heat() < HEAT_MAX
                && meta.pins.load(Ordering::Relaxed) == 0
            {
                evicted += usize::from(self.evict(meta, frame, id));
            }
        }
        if evicted > 0 {
            // The clock would cool the hot set once per sweep of a long scan.
            return true;
        }
        let mut on_the_way = false;
        let frames = self.arena.count();
        let crowded = self.branches.load(Ordering::Relaxed) > frames / 4;
        let turn = frames as usize;
        for step in 0..TURNS * turn {
            // While the guard lives, the frame is not published as another page between looking and cooling.
            let _guard = super::epoch::enter();
            if evicted >= wanted {
                break;
            }
            clock.hand = (clock.hand + 1) % frames;
            let Some(meta) = self.arena.meta(clock.hand) else {
                break;
            };
            if meta.pins.load(Ordering::Relaxed) > 0 {
                continue;
            }
            let Some(id) = meta.id() else {
                on_the_way = true;
                continue;
            };
            let (rank, heat) = (meta.rank(), meta.heat());
            let last_turn = step >= (TURNS - 1) * turn;
            if rank == Rank::Branch && !crowded && !last_turn {
                continue;
            }
            if heat == 0 || last_turn {
                evicted += usize::from(self.evict(meta, clock.hand, id));
            } else {
                meta.set_clock(rank, heat - 1);
            }
        }
        evicted > 0 || on_the_way
    }

    fn evict(&self, meta: &FrameMeta, frame: u32, id: PageId) -> bool {
        if meta.rank() == Rank::Point {
            self.ghost.add(id);
        }
        self.map.clear(id, frame);
        let evicted = self.arena.retire(frame, id);
        if evicted {
            reached(Mark::PageEvicted);
            count(&self.counters.evictions);
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ghost_remembers_what_left_and_not_what_did_not() {
        let ghost = Ghost::new(64);
        assert!(!ghost.remembers(PageId::new(0)));
        assert!(!ghost.remembers(PageId::new(5)));
        ghost.add(PageId::new(5));
        assert!(ghost.remembers(PageId::new(5)));
        let page_with_no_mark = PageId::new(u64::from(u32::MAX));
        ghost.add(page_with_no_mark);
        assert!(!ghost.remembers(page_with_no_mark));
    }
}
