//! Who holds pages, and letting go of them: snapshots that keep more pages than they may are moved to history, or ended.
//!
//! Spec: SE-024.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use northstar_io::planted::planted;

use super::run::Checkpointer;
use crate::delta::Delta;
use crate::ids::{Generation, TableId, TxnId};
use crate::limits::NARROW_IDS_MAX;
use crate::marks::{Mark, reached};
use crate::sync::atomic::Ordering;
use crate::txn::holder::{Holder, Watch};
use crate::txn::moved::Moved;
use crate::txn::registry::{Open, SlotId};
use crate::txn::shape::Shape;

/// What open snapshots may hold.
#[derive(Debug, Clone)]
pub(crate) struct Allowance {
    /// Bytes of pages from which on they are moved to history.
    pub(crate) moved_from: u64,
    /// Bytes of pages from which on those that cannot be moved are ended; never, if absent.
    pub(crate) ended_from: Option<u64>,
    /// Who is told of those that keep much.
    pub(crate) watch: Option<Watch>,
}

/// What is known of a slot's snapshot.
#[derive(Debug)]
pub(crate) struct Noticed {
    /// When it was first seen, by the monotonic clock.
    since_ns: u64,
    /// Its transaction: another's is another snapshot.
    txn: TxnId,
    /// Somebody was told how much it keeps.
    told: bool,
}

impl Checkpointer {
    /// Sees to it that open snapshots hold no more pages than they may.
    pub(super) fn govern(&mut self) {
        let open = self.notice();
        // Looked at each time, so that none comes and goes unseen.
        if self.any_without_history(&self.shapes.load())
            && !planted("a snapshot of a table without history is moved to history")
        {
            self.whole_after = Some(self.shapes.shared.visible());
        }
        let held = self.store.held_before(self.meta.generation);
        let Allowance {
            moved_from,
            ended_from,
            ..
        } = self.allowance;
        if let Some(watch) = self.allowance.watch.clone()
            && held > watch.from
        {
            self.warn(&open, &watch);
        }
        if held <= moved_from.min(ended_from.unwrap_or(u64::MAX)) {
            return;
        }
        let shape = Arc::clone(&self.shapes.load());
        let old = open
            .into_iter()
            .filter(|open| open.place.is_some() && open.generation < shape.generation);
        // Of later transactions the trees hold a part, or nothing: the rest may only be in a delta.
        let last = match planted("a snapshot is moved that needs what is not merged") {
            true => shape.tree_txn,
            false => self.meta.log_start.last_txn,
        };
        let is_kept = self.keeps_history() && !self.history_is_damaged;
        let states = shape.history.horizon..=last;
        let whole_after = self.whole_after;
        let can_move =
            |open: &Open| is_kept && states.contains(&open.txn) && Some(open.txn) > whole_after;
        let (movable, fixed): (Vec<Open>, Vec<Open>) = old.partition(can_move);
        if held > moved_from && !movable.is_empty() {
            self.move_all(&movable, &shape);
        }
        if let Some(from) = ended_from {
            let holds_more = |open: &&Open| self.store.held_since(open.generation) > from;
            let ended: Vec<&Open> = fixed.iter().filter(holds_more).collect();
            for open in &ended {
                // As one that reads what will never be.
                self.move_on(open, Moved::Ended, Generation::new(NARROW_IDS_MAX));
            }
            let counter = &self.pipeline.counters.snapshots_ended;
            counter.fetch_add(ended.len() as u64, Ordering::Relaxed);
        }
    }

    /// Whether there is a table of which history has nothing.
    fn any_without_history(&self, shape: &Shape) -> bool {
        let has = |table: TableId| !table.keeps_history();
        shape.roots.iter().any(|(table, _)| has(table))
            || shape.deltas().any(|delta| delta.tables().any(has))
            || shape.shared.tables.any_without_history()
    }

    /// Tells of the snapshots that keep much and that nobody was told of.
    fn warn(&mut self, open: &[Open], watch: &Watch) {
        // Thousands of snapshots share a few generations.
        let mut held = BTreeMap::new();
        for open in open.iter().filter(|open| open.place.is_some()) {
            let Some(noticed) = self.noticed.get_mut(&open.slot) else {
                continue;
            };
            if noticed.told {
                continue;
            }
            let held_since = || self.store.held_since(open.generation);
            let held = *held.entry(open.generation).or_insert_with(held_since);
            if held > watch.from {
                noticed.told = true;
                let holder = self.holder(open, held);
                // The database goes on, whatever its user does there, or when what was thrown is dropped.
                if let Err(thrown) = catch_unwind(AssertUnwindSafe(|| (watch.tell)(&holder))) {
                    Box::leak(thrown);
                }
            }
        }
    }

    /// What is said of an open snapshot, or of the backup that reads it.
    pub(crate) fn holder(&self, open: &Open, held_bytes: u64) -> Holder {
        if let Some(backup) = self.shapes.shared.backups.of_snapshot(open.slot) {
            return backup.holder(self.clock.monotonic_ns(), held_bytes);
        }
        Holder::Snapshot {
            txn: open.txn,
            place: open.place,
            open_for: Duration::from_nanos(self.open_for(open.slot)),
            held_bytes,
            moves: self.shapes.shared.moved.moves(open.slot),
        }
    }

    fn move_all(&mut self, movable: &[Open], shape: &Shape) {
        let Some(empty) = self.empty_delta() else {
            // Without memory for it, nothing is moved.
            return;
        };
        let without_deltas = Arc::new(Shape {
            active: empty,
            frozen: Vec::new(),
            ..Shape::clone(shape)
        });
        for open in movable {
            let to = Moved::To(Arc::clone(&without_deltas));
            self.move_on(open, to, shape.generation);
            reached(Mark::SnapshotMoved);
        }
        let counter = &self.pipeline.counters.snapshots_moved;
        counter.fetch_add(movable.len() as u64, Ordering::Relaxed);
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
            self.empty_delta = Delta::empty().ok();
        }
        self.empty_delta.clone()
    }

    /// The open snapshots. Notes when each was first seen, and forgets those that have ended.
    pub(crate) fn notice(&mut self) -> Vec<Open> {
        let shared = &self.shapes.shared;
        let mut open = Vec::new();
        shared.registry.each_open(|found| open.push(found));
        // They come in the order of their slots.
        let is_open = |slot: &SlotId| open.binary_search_by_key(slot, |open| open.slot).is_ok();
        self.noticed.retain(|slot, _| is_open(slot));
        shared.moved.retain(|slot| is_open(&slot));
        let now = self.clock.monotonic_ns();
        for found in &open {
            let (since_ns, txn, told) = (now, found.txn, false);
            let new = || Noticed {
                since_ns,
                txn,
                told,
            };
            let noticed = self.noticed.entry(found.slot).or_insert_with(new);
            if noticed.txn != txn {
                *noticed = new();
            }
        }
        open
    }

    /// For how long the snapshot of a slot is known to be open, in nanoseconds.
    fn open_for(&self, slot: SlotId) -> u64 {
        let now = self.clock.monotonic_ns();
        let since = self
            .noticed
            .get(&slot)
            .map_or(now, |noticed| noticed.since_ns);
        now.saturating_sub(since)
    }
}
