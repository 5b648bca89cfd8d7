//! All that happened to one key within a delta, for whoever keeps history.
//!
//! Versions and range deletes of the key are put into one order. Of several events of one transaction only the last
//! counts: no snapshot ever saw the others.
//!
//! - Cost: the key's versions, and every range delete of the table.

use super::arena::{Arena, At, Record};
use super::range::RangeDeletes;
use super::version::{Hit, visible};
use crate::ids::{TableId, TxnId};

/// Puts the events of the key of `newest` into `events`, oldest first.
pub(super) fn events<'d>(
    arena: &'d Arena,
    newest: At<Record>,
    ranges: Option<At<Record>>,
    events: &mut Vec<Hit<'d>>,
) {
    let key = arena.record(newest).key;
    let at = TxnId::MAX;
    let mut versions = visible(arena, newest, at);
    let mut ranges = RangeDeletes {
        arena,
        next: ranges,
        at,
    };
    let mut covering = ranges.next_covering(key);
    loop {
        let version = versions.map(|(at, record)| ((record.txn(), at.offset()), Hit::of(&record)));
        let range = covering.map(|(at, txn)| ((txn.get(), at.offset()), Hit { txn, value: None }));
        // Newest first.
        let (is_version, hit) = match (version, range) {
            (None, None) => break,
            (Some((place, hit)), Some((other, _))) if place > other => (true, hit),
            (Some((_, hit)), None) => (true, hit),
            (_, Some((_, hit))) => (false, hit),
        };
        if events.last().is_none_or(|newer| newer.txn > hit.txn) {
            events.push(hit);
        }
        if is_version {
            let older = versions.and_then(|(_, record)| record.older());
            versions = older.and_then(|older| visible(arena, older, at));
        } else {
            covering = ranges.next_covering(key);
        }
    }
    events.reverse();
}

impl super::Delta {
    /// All that happened to `key`, oldest first, into `into`: also what no snapshot sees yet.
    pub(crate) fn events<'d>(&'d self, table: TableId, key: &[u8], into: &mut Vec<Hit<'d>>) {
        into.clear();
        let mut cursor = self.cursor(table, TxnId::MAX);
        if cursor.seek(key).is_some_and(|(found, _)| found == key) {
            cursor.events(into);
            return;
        }
        let mut ranges = self.range_deletes(table, TxnId::MAX);
        while let Some((_, txn)) = ranges.next_covering(key) {
            if into.last().is_none_or(|newer| newer.txn > txn) {
                into.push(Hit { txn, value: None });
            }
        }
        into.reverse();
    }
}

impl<'d> super::DeltaCursor<'d> {
    /// All that happened to the current key, oldest first, into `into`: also what the cursor's snapshot does not see.
    pub(crate) fn events(&self, into: &mut Vec<Hit<'d>>) {
        into.clear();
        if let Some(newest) = self.newest() {
            events(self.arena(), newest, self.ranges(), into);
        }
    }
}
