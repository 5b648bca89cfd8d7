//! The snapshot registry: who still reads which generation of the tree.
//!
//! A snapshot announces the generation of the tree it reads in a slot of its own. Pages that a checkpoint
//! retired are reused only when every announced generation is younger. Claiming a slot is one compare-exchange
//! on a cache line that no other thread uses in steady state; there is no lock and no allocation.
//!
//! A snapshot that keeps too much can be moved on: its slot says so, and then announces a younger generation. Its owner
//! looks at that when a read has failed, and pays nothing for it before.
//!
//! Invariants:
//! 1. A slot's generation does not change between claim and release, unless the snapshot is moved; then it rises, after the
//!    slot has said so.
//! 2. Whoever publishes a new shape stores its sequence number (`SeqCst`) before scanning the slots; whoever
//!    claims a slot re-reads that number (`SeqCst`) afterwards. So either the scan sees the slot, or the claimer
//!    sees the new shape and starts over.
//! 3. Each snapshot in a slot has another ticket: what was meant for one is never taken for the next one's.
//!
//! - Threads: any.
//! - Limit: 2^20 - 1 snapshots at a time (`CHUNKS` chunks, each twice the one before).
//! - Failure: a snapshot that is never closed stops page reuse, not progress; see `Db::holders`.

use std::cell::Cell;
use std::panic::Location;
use std::sync::OnceLock;

use crate::sync::atomic::{AtomicU64, Ordering};
// Not of the seam: a guess, which orders nothing.
use std::sync::atomic::AtomicU32;

use crossbeam_utils::CachePadded;
use crossbeam_utils::atomic::AtomicCell;

use crate::ids::{Generation, TxnId};

const CHUNKS: usize = 14;
const FIRST_CHUNK: u32 = if cfg!(loom) { 2 } else { 64 };
/// Slots between the starting points of two threads, so that they do not meet while each holds a few snapshots.
const THREAD_STRIDE: u32 = 8;

#[derive(Debug, Default)]
struct Slot {
    /// 0 when free, else the announced generation plus one.
    announced: AtomicU64,
    /// The snapshot's txn id; meaningful while `announced` is not 0. May lag by one claim for an observer.
    txn: AtomicU64,
    /// Counts the snapshots that were in it.
    ticket: AtomicU64,
    /// The ticket of the last one that was moved.
    moved: AtomicU64,
    /// Where it was opened, of one that may be moved.
    place: AtomicCell<Option<&'static Location<'static>>>,
}

/// A claimed slot, and the snapshot in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotId {
    at: u32,
    ticket: u64,
}

/// What a slot says of an open snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    /// Its slot.
    pub(crate) slot: SlotId,
    /// The generation of the tree it reads.
    pub(crate) generation: Generation,
    /// Its transaction.
    pub(crate) txn: TxnId,
    /// Where it was opened, if it may be moved on.
    pub(crate) place: Option<&'static Location<'static>>,
}

/// All slots.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    chunks: [OnceLock<Box<[CachePadded<Slot>]>>; CHUNKS],
}

crate::sync::thread_local! {
    static HINT: Cell<u32> = const { Cell::new(u32::MAX) };
}

fn first_hint() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if cfg!(loom) {
        // A model does the same each time.
        return 0;
    }
    NEXT.fetch_add(THREAD_STRIDE, Ordering::Relaxed) % FIRST_CHUNK
}

/// Where a thread of that number claims first.
#[cfg(feature = "internals")]
pub(crate) fn hint_of(thread: u32) -> u32 {
    thread.wrapping_mul(THREAD_STRIDE) % FIRST_CHUNK
}

/// Exchanges the place where the calling thread claims next: for threads that share one of the system's by turns.
#[cfg(feature = "internals")]
pub(crate) fn swap_hint(with: &mut u32) {
    *with = HINT.with(|hint| hint.replace(*with));
}

/// Chunk and index within it: chunk `c` holds slots `64 * (2^c - 1) ..`.
fn place(slot: u32) -> (usize, usize) {
    let chunk = (slot / FIRST_CHUNK + 1).ilog2();
    (
        chunk as usize,
        (slot - FIRST_CHUNK * ((1 << chunk) - 1)) as usize,
    )
}

impl Registry {
    fn slot(&self, slot: u32) -> Option<&Slot> {
        let (chunk, index) = place(slot);
        self.chunks
            .get(chunk)?
            .get()?
            .get(index)
            .map(|slot| &**slot)
    }

    fn slot_or_grow(&self, slot: u32) -> Option<&Slot> {
        let (chunk, index) = place(slot);
        let slots = self.chunks.get(chunk)?.get_or_init(|| {
            (0..FIRST_CHUNK << chunk)
                .map(|_| CachePadded::new(Slot::default()))
                .collect()
        });
        slots.get(index).map(|slot| &**slot)
    }

    /// Announces that the caller reads `generation`. `None` when every slot is taken.
    pub(crate) fn claim(&self, generation: Generation) -> Option<SlotId> {
        let announced = u64::from(generation.get()) + 1;
        let start = HINT.with(|hint| {
            if hint.get() == u32::MAX {
                hint.set(first_hint());
            }
            hint.get()
        });
        let mut at = start;
        let mut wrapped = false;
        loop {
            let Some(slot) = self.slot_or_grow(at) else {
                if wrapped {
                    return None;
                }
                wrapped = true;
                at = 0;
                continue;
            };
            // SeqCst: pairs with the publisher's scan in `oldest`, see invariant 2.
            let free = slot.announced.load(Ordering::Relaxed) == 0;
            if free
                && slot
                    .announced
                    .compare_exchange(0, announced, Ordering::SeqCst, Ordering::Relaxed)
                    .is_ok()
            {
                HINT.with(|hint| hint.set(at + 1));
                // Before the caller looks again: whoever takes what was here before for what is here now meets
                // one that starts over.
                slot.place.store(None);
                let ticket = slot.ticket.load(Ordering::Relaxed) + 1;
                slot.ticket.store(ticket, Ordering::SeqCst);
                return Some(SlotId { at, ticket });
            }
            at += 1;
            if wrapped && at == start {
                return None;
            }
        }
    }

    /// Notes the snapshot in a slot that was claimed: its txn id, and where it was opened if it may be moved on.
    pub(crate) fn note(&self, id: SlotId, txn: TxnId, place: Option<&'static Location<'static>>) {
        if let Some(slot) = self.slot(id.at) {
            slot.txn.store(txn.get(), Ordering::Relaxed);
            if place.is_some() {
                // Whoever sees it sees the transaction.
                slot.place.store(place);
            }
        }
    }

    /// Whether the snapshot in the caller's slot was moved.
    pub(crate) fn is_moved(&self, id: SlotId) -> bool {
        // SeqCst: pairs with `advance`.
        let slot = self.slot(id.at);
        slot.is_some_and(|slot| slot.moved.load(Ordering::SeqCst) == id.ticket)
    }

    /// Moves a snapshot on from one generation to another. False if it has ended.
    ///
    /// A slot that was claimed anew meanwhile, by somebody who has not looked again yet, may get the younger generation: that
    /// one finds its shape outdated and gives the slot back.
    pub(crate) fn advance(&self, open: &Open, to: Generation) -> bool {
        let Some(slot) = self.slot(open.slot.at) else {
            return false;
        };
        // SeqCst: the owner must be able to learn of it before anything it reads is reused.
        slot.moved.store(open.slot.ticket, Ordering::SeqCst);
        let announced = |generation: Generation| u64::from(generation.get()) + 1;
        let (from, to) = (announced(open.generation), announced(to));
        let moved = slot
            .announced
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed);
        moved.is_ok() && slot.ticket.load(Ordering::SeqCst) == open.slot.ticket
    }

    /// Every open snapshot. One that is opened or ended meanwhile may be among them or not.
    pub(crate) fn each_open(&self, mut see: impl FnMut(Open)) {
        let mut at = 0_u32;
        for (chunk, slots) in self.chunks.iter().enumerate() {
            let Some(slots) = slots.get() else {
                at += FIRST_CHUNK << chunk;
                continue;
            };
            for slot in slots {
                let ticket = slot.ticket.load(Ordering::Acquire);
                let place = slot.place.load();
                let txn = TxnId::new(slot.txn.load(Ordering::Relaxed));
                let announced = slot.announced.load(Ordering::SeqCst);
                let unchanged = slot.ticket.load(Ordering::SeqCst) == ticket;
                if let Some(generation) = announced.checked_sub(1)
                    && let Ok(generation) = u32::try_from(generation)
                    && unchanged
                {
                    see(Open {
                        slot: SlotId { at, ticket },
                        generation: Generation::new(generation),
                        txn,
                        place,
                    });
                }
                at += 1;
            }
        }
    }

    /// Gives a slot back. Says whether the snapshot in it was moved, unless that happens just now.
    pub(crate) fn release(&self, id: SlotId) -> bool {
        let mut was_moved = false;
        if let Some(claimed) = self.slot(id.at) {
            was_moved = claimed.moved.load(Ordering::Relaxed) == id.ticket;
            // Release: what the snapshot read happens before the reuse of its pages.
            claimed.announced.store(0, Ordering::Release);
        }
        // A thread may end its snapshots while its locals are being torn down.
        let _ended = HINT.try_with(|hint| hint.set(id.at));
        was_moved
    }

    fn occupied(&self) -> impl Iterator<Item = (u64, u64)> {
        // A thread's hint may lead to a later chunk first: chunks are not made in order.
        self.chunks
            .iter()
            .filter_map(OnceLock::get)
            .flat_map(|chunk| chunk.iter())
            .map(|slot| {
                (
                    slot.announced.load(Ordering::SeqCst),
                    slot.txn.load(Ordering::Relaxed),
                )
            })
            .filter(|(announced, _)| *announced != 0)
    }

    /// The oldest announced generation, if any snapshot is open.
    pub(crate) fn oldest(&self) -> Option<Generation> {
        let oldest = self.occupied().map(|(announced, _)| announced - 1).min()?;
        u32::try_from(oldest).ok().map(Generation::new)
    }

    /// How many snapshots are open, and the oldest txn id among them.
    pub(crate) fn open(&self) -> (u64, Option<TxnId>) {
        let (mut count, mut oldest) = (0, None);
        for (_, txn) in self.occupied() {
            count += 1;
            oldest = Some(oldest.map_or(txn, |so_far: u64| so_far.min(txn)));
        }
        (count, oldest.map(TxnId::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_cover_every_slot_once() {
        let mut expected = (0, 0);
        for slot in 0..10_000 {
            assert_eq!(place(slot), expected, "slot {slot}");
            expected.1 += 1;
            if expected.1 == (FIRST_CHUNK as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }

    #[test]
    fn the_oldest_open_generation_is_reported_until_its_snapshot_ends() {
        let registry = Registry::default();
        assert_eq!(registry.oldest(), None);
        let slots: Vec<_> = (0..5000)
            .filter_map(|g| registry.claim(Generation::new(g)))
            .collect();
        assert_eq!(slots.len(), 5000);
        assert_eq!(registry.oldest(), Some(Generation::new(0)));
        for (ended, slot) in slots.iter().enumerate() {
            registry.release(*slot);
            let left = u32::try_from(ended + 1)
                .ok()
                .filter(|g| *g < 5000)
                .map(Generation::new);
            assert_eq!(registry.oldest(), left);
        }
        assert_eq!(registry.open(), (0, None));
    }
}
