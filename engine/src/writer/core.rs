//! The writer role: what exactly one thread at a time owns in order to change the database.
//!
//! The role is a box that is taken out of its slot and put back, so holding it is ownership, not a lock held across
//! calls: an open `WriteTxn` simply keeps the box.
//!
//! Invariants:
//! 1. Transaction ids rise by one, and records are appended to the open group in that order.
//! 2. A transaction is in the delta before its record is in the open group.

use std::sync::Arc;

use super::moments::note;
use crate::delta::{Delta, DeltaFull, DeltaWriter, WARM_KEYS};
use crate::error::{Error, Result};
use crate::format::record::{Op, OpWriter, Ops};
use crate::ids::{TableId, TxnId};
use crate::txn::table::decode_entry;

/// What the role owns.
pub(crate) struct Core {
    pub(crate) writer: DeltaWriter,
    pub(crate) delta: Arc<Delta>,
    /// The id the next commit gets.
    pub(crate) next_txn: TxnId,
    /// Wall clock of the last commit; commits never go back in time.
    pub(crate) last_timestamp_ns: u64,
    /// History is kept, so that it is noted when transactions were committed and what tags they carry.
    pub(crate) notes: bool,
    /// Wall clock of the last commit that was noted since opening.
    pub(crate) noted_ns: Option<u64>,
    /// Batches of others were applied, and nobody has looked yet who brings them to the log.
    pub(crate) unseen: bool,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("next_txn", &self.next_txn)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// The time of a commit that happens now, by the wall clock.
    pub(crate) fn time_after_last(&self, wall_ns: u64) -> u64 {
        wall_ns.max(self.last_timestamp_ns)
    }

    /// Notes when `next_txn` is committed and what tag it carries. On an error some of it may stand.
    pub(crate) fn note(&mut self, time_ns: u64, tag: &[u8]) -> Result<()> {
        if !self.notes {
            return Ok(());
        }
        let times = (time_ns, self.noted_ns);
        note(&mut self.writer, self.next_txn, times, tag).map_err(delta_full)
    }

    /// Applies encoded operations as transaction `next_txn`, committed at `time_ns` with `tag`. On an error nothing is left
    /// of them.
    pub(crate) fn apply(&mut self, ops: &OpWriter, time_ns: u64, tag: &[u8]) -> Result<()> {
        let mark = self.writer.mark();
        let txn = self.next_txn;
        let mut ahead = Ahead::of(ops.ops());
        let outcome = ops.ops().try_for_each(|op| {
            ahead.step(&self.writer);
            let op = op.map_err(|error| Error::InvalidOption {
                option: "batch",
                found: error.to_string(),
                expected: "operations encoded by this version".to_owned(),
            })?;
            apply_op(&mut self.writer, &op, txn)
        });
        let outcome = outcome.and_then(|()| self.note(time_ns, tag));
        if outcome.is_err() {
            self.writer.rollback(mark);
        }
        self.writer.forget_marks();
        outcome
    }
}

/// A walk over operations ahead of that which applies them: fetches what some of them will look at, all at once.
pub(crate) struct Ahead<'a> {
    ops: Ops<'a>,
    /// Operations that were looked at and not yet applied.
    warm: usize,
}

impl<'a> Ahead<'a> {
    /// Nothing fetched so far.
    pub(crate) const fn of(ops: Ops<'a>) -> Self {
        Self { ops, warm: 0 }
    }

    /// To be called before each operation is applied.
    pub(crate) fn step(&mut self, writer: &DeltaWriter) {
        if let Some(left) = self.warm.checked_sub(1) {
            self.warm = left;
            return;
        }
        let mut keys: [(TableId, &[u8]); WARM_KEYS] = [(TableId::NAMES, &[]); WARM_KEYS];
        let mut many = 0;
        for op in self.ops.by_ref().take(WARM_KEYS) {
            if let Ok(Op::Put { table, key, .. } | Op::Delete { table, key }) = op {
                keys[many] = (table, key);
                many += 1;
            }
            self.warm += 1;
        }
        if many > 1 {
            writer.warm(&keys[..many]);
        }
        // The one that is applied now.
        self.warm = self.warm.saturating_sub(1);
    }
}

/// Fetches what the first operations of these transactions will look at, all at once.
pub(crate) fn warm<'a>(writer: &DeltaWriter, transactions: impl Iterator<Item = Ops<'a>>) {
    let mut keys: [(TableId, &[u8]); WARM_KEYS] = [(TableId::NAMES, &[]); WARM_KEYS];
    let mut many = 0;
    for op in transactions.flatten().flatten() {
        if let Op::Put { table, key, .. } | Op::Delete { table, key } = op {
            keys[many] = (table, key);
            many += 1;
        }
        if many == WARM_KEYS {
            break;
        }
    }
    if many > 1 {
        writer.warm(&keys[..many]);
    }
}

/// Whether a record may hold `op`: it changes a table that was made before it. `next` is the id of the next new table, and
/// rises with those that `op` makes.
///
/// # Errors
/// [`Error::Corrupt`] for what says no table's name.
pub(crate) fn is_of_known_table(op: &Op<'_>, next: &mut TableId) -> Result<bool> {
    if let Op::Put {
        table: TableId::NAMES,
        key,
        value,
    } = *op
    {
        let id = decode_entry(&String::from_utf8_lossy(key), value)?;
        *next = id.number().next().max(*next);
    }
    let table = op.table();
    Ok(table.was_given_out(*next) || table == TableId::NAMES || table == TableId::SUBSCRIBERS)
}

/// Puts one operation of `txn` into a delta: the one way in, for commits and for replay.
pub(crate) fn apply_op(writer: &mut DeltaWriter, op: &Op<'_>, txn: TxnId) -> Result<()> {
    match *op {
        Op::Put { table, key, value } => writer.put(table, key, value, txn),
        Op::Delete { table, key } => writer.delete(table, key, txn),
        Op::DeleteRange { table, from, to } => writer.delete_range(table, from, to, txn),
        Op::DropTable { table } => writer.delete_range(table, &[], None, txn),
    }
    .map_err(delta_full)
}

/// What the caller learns when a delta has no room left.
pub(crate) fn delta_full(full: DeltaFull) -> Error {
    Error::TooLarge {
        what: "uncommitted and unmerged data",
        len: full.wanted as u64,
        limit: full.free as u64,
    }
}
