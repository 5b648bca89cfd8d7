//! Range deletes: a list a table, newest first, empty almost always.
//!
//! A range delete is a record whose key is the lower end and whose value is the upper end. It covers every key in the
//! range that was written before it, here or in any layer below.
//!
//! - Cost: one load where a table has none; otherwise every lookup in that table walks the list, until the delta is
//!   frozen and merged.

use super::arena::{Arena, At, Record, RecordRef};
use super::version::{DELETE_TO, visible};
use crate::ids::TxnId;

/// One deleted range: all keys from `from` on, up to but not including `to`, or to the end of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RangeDelete<'d> {
    /// The lowest key covered.
    pub(crate) from: &'d [u8],
    /// The lowest key above the range; none if it has no upper end.
    pub(crate) to: Option<&'d [u8]>,
    /// The transaction that deleted the range.
    pub(crate) txn: TxnId,
}

impl<'d> RangeDelete<'d> {
    fn of(record: &RecordRef<'d>) -> Self {
        Self {
            from: record.key,
            to: if record.kind() == DELETE_TO {
                Some(record.value)
            } else {
                None
            },
            txn: TxnId::new(record.txn()),
        }
    }

    /// Whether `key` lies in the range.
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        self.from <= key && self.to.is_none_or(|to| key < to)
    }
}

/// The range deletes of a table that a snapshot sees, newest first.
#[derive(Clone)]
pub(crate) struct RangeDeletes<'d> {
    pub(super) arena: &'d Arena,
    pub(super) next: Option<At<Record>>,
    pub(super) at: TxnId,
}

impl<'d> RangeDeletes<'d> {
    /// The next one and where its record is.
    fn step(&mut self) -> Option<(At<Record>, RangeDelete<'d>)> {
        let (at, record) = visible(self.arena, self.next?, self.at)?;
        self.next = record.older();
        Some((at, RangeDelete::of(&record)))
    }

    /// The newest that covers `key`, and where its record is. The list is newest first, so it is the first.
    pub(super) fn covering(mut self, key: &[u8]) -> Option<(At<Record>, TxnId)> {
        self.next_covering(key)
    }

    /// The next that covers `key`, and where its record is.
    pub(super) fn next_covering(&mut self, key: &[u8]) -> Option<(At<Record>, TxnId)> {
        loop {
            let (at, range) = self.step()?;
            if range.covers(key) {
                return Some((at, range.txn));
            }
        }
    }
}

impl<'d> Iterator for RangeDeletes<'d> {
    type Item = RangeDelete<'d>;

    fn next(&mut self) -> Option<RangeDelete<'d>> {
        self.step().map(|(_, range)| range)
    }
}
