//! Who holds pages, and letting go of them: snapshots that keep more pages than they may are moved to history, or ended.
//!
//! Spec: SE-024.

use std::collections::BTreeSet;
use std::sync::Arc;

use northstar_io::planted::planted;

use super::run::Checkpointer;
use crate::delta::Delta;
use crate::ids::Generation;
use crate::limits::NARROW_IDS_MAX;
use crate::marks::{Mark, reached};
use crate::sync::atomic::Ordering;
use crate::txn::moved::Moved;
use crate::txn::registry::{Open, SlotId};
use crate::txn::shape::Shape;

/// What open snapshots may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// Bytes of pages from which on they are moved to history.
    pub(crate) moved_from: u64,
    /// Bytes of pages from which on those that cannot be moved are ended; never, if absent.
    pub(crate) ended_from: Option<u64>,
}

impl Checkpointer {
    /// Sees to it that open snapshots hold no more pages than they may.
    pub(super) fn govern(&mut self) {
        self.notice();
        let held = self.store.held_before(self.meta.generation);
        if held <= self.allowance.moved_from {
            return;
        }
        let Some(empty) = self.empty_delta() else {
            // Without memory for it, nothing is moved.
            return;
        };
        let shapes = Arc::clone(&self.shapes);
        let shape = shapes.load();
        let shared = &shape.shared;
        let mut old: Vec<Open> = Vec::new();
        shared.registry.each_open(|open| {
            if open.place.is_some() && open.generation < shape.generation {
                old.push(open);
            }
        });
        if old.is_empty() {
            return;
        }
        let is_kept = self.keeps_history() && self.meta.history.is_some();
        let can_move = |open: &Open| {
            let first = shape.history.horizon;
            // Of later transactions the trees hold a part, or nothing: the rest is only in a delta.
            let last = match planted("a snapshot is moved that needs what is not merged") {
                true => shape.tree_txn,
                false => self.meta.log_start.last_txn,
            };
            is_kept && !self.history_is_damaged && first <= open.txn && open.txn <= last
        };
        let without_deltas = Arc::new(Shape {
            active: empty,
            frozen: Vec::new(),
            ..Shape::clone(&shape)
        });
        let (movable, fixed): (Vec<Open>, Vec<Open>) = old.into_iter().partition(can_move);
        for open in &movable {
            let to = Moved::To(Arc::clone(&without_deltas));
            self.move_on(open, to, shape.generation);
            reached(Mark::SnapshotMoved);
        }
        let counters = &self.pipeline.counters;
        let add = |counter: &crate::sync::atomic::AtomicU64, many: usize| {
            counter.fetch_add(many as u64, Ordering::Relaxed);
        };
        add(&counters.snapshots_moved, movable.len());
        let held = fixed
            .iter()
            .map(|open| self.store.held_since(open.generation));
        let most = held.max().unwrap_or(0);
        if self.allowance.ended_from.is_none_or(|from| most <= from) {
            return;
        }
        for open in &fixed {
            // As one that reads what will never be.
            self.move_on(open, Moved::Ended, Generation::new(NARROW_IDS_MAX));
        }
        add(&counters.snapshots_ended, fixed.len());
    }

    fn move_on(&self, open: &Open, to: Moved, generation: Generation) {
        let shared = &self.shapes.shared;
        shared.moved.put(open.slot, to);
        if !shared.registry.advance(open, generation) {
            shared.moved.remove(open.slot);
        }
    }

    /// The delta of shapes that snapshots are moved to: nothing was ever written to it.
    fn empty_delta(&mut self) -> Option<Arc<Delta>> {
        if self.empty_delta.is_none() {
            self.empty_delta = self.pipeline.make_delta().ok();
        }
        self.empty_delta.clone()
    }

    /// Notes when snapshots were first seen, and forgets those that have ended.
    pub(crate) fn notice(&mut self) {
        let now = self.clock.monotonic_ns();
        let shared = &self.shapes.shared;
        let mut open = BTreeSet::new();
        shared.registry.each_open(|found| {
            open.insert(found.slot);
        });
        self.noticed.retain(|slot, _| open.contains(slot));
        shared.moved.retain(|slot| open.contains(&slot));
        for slot in open {
            self.noticed.entry(slot).or_insert(now);
        }
    }

    /// For how long the snapshot of a slot is known to be open, in nanoseconds.
    pub(crate) fn open_for(&self, slot: SlotId) -> u64 {
        let now = self.clock.monotonic_ns();
        let since = self.noticed.get(&slot).copied().unwrap_or(now);
        now.saturating_sub(since)
    }
}
