//! The snapshot registry: who still reads which generation of the tree.
//!
//! A snapshot announces the generation of the tree it reads in a slot of its own. Pages that a checkpoint
//! retired are reused only when every announced generation is younger. Claiming a slot is one compare-exchange
//! on a cache line that no other thread uses in steady state; there is no lock and no allocation.
//!
//! Invariants:
//! 1. A slot's generation does not change between claim and release.
//! 2. Whoever publishes a new shape stores its sequence number (`SeqCst`) before scanning the slots; whoever
//!    claims a slot re-reads that number (`SeqCst`) afterwards. So either the scan sees the slot, or the claimer
//!    sees the new shape and starts over.
//!
//! - Threads: any.
//! - Limit: 2^20 - 1 snapshots at a time (`CHUNKS` chunks, each twice the one before).
//! - Failure: a snapshot that is never closed stops page reuse, not progress; see `Stats::snapshots_open`.

use std::cell::Cell;
use std::sync::OnceLock;

use crate::sync::atomic::{AtomicU64, Ordering};
// Not of the seam: a guess, which orders nothing.
use std::sync::atomic::AtomicU32;

use crossbeam_utils::CachePadded;

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
}

/// Where a claimed slot is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotId(u32);

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
                return Some(SlotId(at));
            }
            at += 1;
            if wrapped && at == start {
                return None;
            }
        }
    }

    /// Notes the snapshot's txn id, for reports only.
    pub(crate) fn note(&self, slot: SlotId, txn: TxnId) {
        if let Some(slot) = self.slot(slot.0) {
            slot.txn.store(txn.get(), Ordering::Relaxed);
        }
    }

    /// Gives a slot back.
    pub(crate) fn release(&self, slot: SlotId) {
        if let Some(claimed) = self.slot(slot.0) {
            // Release: what the snapshot read happens before the reuse of its pages.
            claimed.announced.store(0, Ordering::Release);
        }
        // A thread may end its snapshots while its locals are being torn down.
        let _ended = HINT.try_with(|hint| hint.set(slot.0));
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
