//! Snapshots that were moved from the pages of their time to newer ones and history, so that those pages can be reused.
//!
//! Whoever moves a snapshot puts here what it can read from now on, and then says so in its slot. The owner goes on reading
//! what it did, and looks here when that fails. A page that was reused meanwhile is never taken for what it was, since
//! every reference names checksum and generation: so what was read without an error is right, wherever it was read.
//!
//! - Cost: nothing until a page is missed; from then on a lock for each read of that snapshot.
//! - Spec: SE-024.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::registry::SlotId;
use super::shape::Shape;
use crate::sync::Mutex;

/// What a snapshot that was moved reads from.
#[derive(Debug, Clone)]
pub(crate) enum Moved {
    /// These trees and runs; the deltas of this shape are empty.
    To(Arc<Shape>),
    /// Nothing any more.
    Ended,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct MovedSnapshots {
    by_slot: Mutex<BTreeMap<SlotId, (u64, Moved)>>,
}

impl MovedSnapshots {
    /// How often a snapshot was moved, and where to the last time.
    pub(crate) fn find(&self, slot: SlotId) -> Option<(u64, Moved)> {
        self.by_slot.lock().get(&slot).cloned()
    }

    /// How often a snapshot was moved.
    pub(crate) fn moves(&self, slot: SlotId) -> u64 {
        let moved = self.by_slot.lock();
        moved.get(&slot).map_or(0, |(moves, _)| *moves)
    }

    /// Says where it can read from now on; its slot is still to say so.
    pub(crate) fn put(&self, slot: SlotId, to: Moved) {
        let mut moved = self.by_slot.lock();
        let moves = moved.get(&slot).map_or(0, |(moves, _)| *moves);
        moved.insert(slot, (moves + 1, to));
    }

    /// The snapshot has ended.
    pub(crate) fn remove(&self, slot: SlotId) {
        self.by_slot.lock().remove(&slot);
    }

    /// Forgets all that `is_open` does not know.
    pub(crate) fn retain(&self, is_open: impl Fn(SlotId) -> bool) {
        self.by_slot.lock().retain(|slot, _| is_open(*slot));
    }
}
