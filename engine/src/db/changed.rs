//! Which keys of a table may differ between two states.
//!
//! Two places know. History, with the pages and deltas that are newer than it, is ordered by key, and tells after reading what
//! was changed since the earlier state, of this table. The log is ordered by transaction, and tells after reading what was
//! committed between the two, of all tables; but it may have been let go. History is read first, and left once that has cost
//! about what the log will.
//!
//! Spec: SE-019.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use super::Engine;
use super::states::generation_at;
use crate::delta::Hit;
use crate::error::Result;
use crate::format::record::Op;
use crate::history;
use crate::ids::{TableId, TxnId};
use crate::log::{Follower, LogError, Places};
use crate::pages::Class;
use crate::tree::cursor::Cursor as TreeCursor;
use crate::tree::since::rows_since;
use crate::txn::cursor::Cursor;
use crate::txn::snapshot::Snapshot;

/// Rows of history that are looked at before the log is thought of.
const FEW_ROWS: u64 = 4096;
/// Bytes of log that are read in the time in which one row of a page is looked at, about.
const ROW_LOG_BYTES: u64 = 64;

/// Two states, and the table that is compared.
pub(super) struct Between<'s> {
    pub(super) table: TableId,
    /// The earlier one.
    pub(super) then: &'s Snapshot,
    /// The later one, of a shape that has all that happened in between.
    pub(super) now: &'s Snapshot,
}

/// Keys in order, each once.
type Keys = BTreeSet<Vec<u8>>;

impl Between<'_> {
    /// The keys that may have changed after the one and not after the other: all that did, and some that did not.
    pub(super) fn changed_keys(&self, engine: &Engine) -> Result<Keys> {
        if let Some(keys) = self.keys_in_history(Some(FEW_ROWS))? {
            return Ok(keys);
        }
        if let Some(log_bytes) = self.log_bytes(engine) {
            let rows = log_bytes / ROW_LOG_BYTES;
            if rows > FEW_ROWS
                && let Some(keys) = self.keys_in_history(Some(rows))?
            {
                return Ok(keys);
            }
            if let Some(keys) = self.keys_in_log(engine)? {
                return Ok(keys);
            }
        }
        Ok(self.keys_in_history(None)?.unwrap_or_default())
    }

    fn is_between(&self, txn: TxnId) -> bool {
        self.then.txn() < txn && txn <= self.now.txn()
    }

    /// How much log there is to read, if it is there.
    fn log_bytes(&self, engine: &Engine) -> Option<u64> {
        let end = engine.pipeline.position().lsn;
        let mut places = Places::new(&engine.segments, engine.database, end);
        // A log that cannot be read is told of elsewhere; here it is of no use.
        let bytes = places.bytes_of(self.then.txn().next(), self.now.txn());
        bytes.ok().flatten()
    }

    /// None if the log does not have all of it.
    fn keys_in_log(&self, engine: &Engine) -> Result<Option<Keys>> {
        let mut keys = Keys::new();
        let mut ranges = Vec::new();
        if self.read_log(engine, &mut keys, &mut ranges).is_err() {
            return Ok(None);
        }
        let ranges = ranges.iter();
        let ranges = ranges.map(|(from, to)| (from.as_slice(), to.as_deref()));
        let mut rows = Cursor::new(self.then, self.table);
        for (from, to) in united(ranges.collect()) {
            rows.scan(from, to, |key, _| {
                add(&mut keys, key);
                ControlFlow::Continue(())
            })?;
        }
        Ok(Some(keys))
    }

    /// The keys that were put and deleted, and the ranges that were deleted.
    fn read_log(
        &self,
        engine: &Engine,
        keys: &mut Keys,
        ranges: &mut Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), LogError> {
        let border = engine.pipeline.position();
        let (first, last) = (self.then.txn().next(), self.now.txn());
        let mut follower = Follower::seek(&engine.segments, engine.database, first, border)?;
        while follower.txn() <= last {
            let (group, txn) = (follower.position(), follower.txn());
            let record = follower.next(border.lsn)?.ok_or(LogError::Gone)?;
            for op in record.ops() {
                let op = op.map_err(|source| LogError::Record { group, txn, source })?;
                match op {
                    _ if op.table() != self.table => {}
                    Op::Put { key, .. } | Op::Delete { key, .. } => add(keys, key),
                    Op::DeleteRange { from, to, .. } => {
                        ranges.push((from.to_vec(), to.map(<[u8]>::to_vec)));
                    }
                    Op::DropTable { .. } => ranges.push((Vec::new(), None)),
                }
            }
        }
        Ok(())
    }

    /// None if that takes looking at more than so many rows.
    fn keys_in_history(&self, rows_max: Option<u64>) -> Result<Option<Keys>> {
        let mut left = rows_max.unwrap_or(u64::MAX);
        let mut look = || {
            let goes_on = left > 0;
            left = left.saturating_sub(1);
            match goes_on {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        let mut keys = Keys::new();
        let found = self.read_history(&mut keys, &mut look)?;
        Ok(found.is_continue().then_some(keys))
    }

    /// Asks `look` of every row whether to go on.
    fn read_history(
        &self,
        keys: &mut Keys,
        look: &mut impl FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let (table, shape) = (self.table, self.now.shape());
        let (after, until) = (self.then.txn(), self.now.txn());
        let store = &*shape.shared.store;
        let runs = shape.history.seen_at(after);
        let mut goes_on = history::rows(store, runs, table, |key, from, to| {
            if self.is_between(from) || self.is_between(to) {
                add(keys, key);
            }
            look()
        })?;
        let ranges = shape
            .deltas()
            .flat_map(|delta| delta.range_deletes(table, until))
            .filter(|range| self.is_between(range.txn));
        let ranges = united(ranges.map(|range| (range.from, range.to)).collect());
        let root = shape.roots.get(table).map(|root| root.page);
        // What was there before is in the runs; what was not is in pages written since.
        let since = generation_at(self.now, after)?;
        if goes_on.is_continue() {
            goes_on = rows_since(store, root, since, |key, txn| {
                if self.is_between(txn) {
                    add(keys, key);
                }
                look()
            })?;
        }
        let mut tree = TreeCursor::new(store, root, Class::Scan);
        for &(from, to) in &ranges {
            if goes_on.is_break() {
                break;
            }
            tree.seek(Bound::Included(from))?;
            while let Some(row) = tree.row().filter(|row| to.is_none_or(|to| row.key < to)) {
                add(keys, row.key);
                goes_on = look();
                if goes_on.is_break() {
                    break;
                }
                tree.next()?;
            }
        }
        let mut events: Vec<Hit<'_>> = Vec::new();
        for delta in shape.deltas() {
            let mut cursor = delta.cursor(table, TxnId::MAX);
            cursor.seek(&[]);
            while goes_on.is_continue()
                && let Some((key, _)) = cursor.current()
            {
                cursor.events(&mut events);
                // A range delete of a newer delta covers what is in this one, too.
                let covered = || {
                    let after = ranges.partition_point(|(from, _)| *from <= key);
                    let range = after.checked_sub(1).and_then(|at| ranges.get(at));
                    range.is_some_and(|(_, to)| to.is_none_or(|to| key < to))
                };
                if events.iter().any(|event| self.is_between(event.txn)) || covered() {
                    add(keys, key);
                }
                goes_on = look();
                cursor.next();
            }
        }
        Ok(goes_on)
    }
}

fn add(keys: &mut Keys, key: &[u8]) {
    if !keys.contains(key) {
        keys.insert(key.to_vec());
    }
}

type Span<'d> = (&'d [u8], Option<&'d [u8]>);

/// Ranges of keys that cover the same and do not overlap, in order.
fn united(mut ranges: Vec<Span<'_>>) -> Vec<Span<'_>> {
    ranges.sort_unstable();
    let mut united: Vec<Span<'_>> = Vec::new();
    for (from, to) in ranges {
        match united.last_mut() {
            Some((_, last)) if last.is_none_or(|last| from <= last) => {
                *last = match (*last, to) {
                    (Some(last), Some(to)) => Some(last.max(to)),
                    (None, _) | (_, None) => None,
                };
            }
            Some(_) | None => united.push((from, to)),
        }
    }
    united
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::db::options::Options;
    use crate::retention::Retention;

    #[test]
    fn the_log_and_history_tell_of_the_same_keys() {
        let options = Options::new()
            .history(Retention::All)
            .log_retention(Retention::All)
            .log_segment_bytes(64 << 10)
            .page_bytes(4096);
        let db = options.memory().unwrap();
        let (table, other) = (db.table("t").unwrap(), db.table("other").unwrap());
        let mut rng = SmallRng::seed_from_u64(5);
        let key = |number: u32| format!("{number:03}");
        let first = db.begin_read().unwrap().txn_id().get();
        for round in 0..400 {
            let mut write = db.begin_write().unwrap();
            for _ in 0..rng.random_range(0..4) {
                let at = rng.random_range(0..200);
                match rng.random_range(0..20) {
                    0..12 => write.put(&table, key(at), [7; 400]),
                    12..16 => write.delete(&table, key(at)),
                    16..19 => write.put(&other, key(at), [7; 400]),
                    _ => {
                        let range: Range<String> = key(at)..key(at + rng.random_range(0..30));
                        write.delete_range(&table, range)
                    }
                }
                .unwrap();
            }
            write.commit().unwrap();
            if round % 90 == 60 {
                db.checkpoint().unwrap();
            }
        }
        db.drop_table("t").unwrap();
        let last = db.begin_read().unwrap().txn_id().get();
        let engine = db.engine().unwrap();
        let mut differing = 0;
        for _ in 0..300 {
            let pair = [(); 2].map(|()| TxnId::new(rng.random_range(first..=last)));
            let at = |txn| Snapshot::at(&engine.shapes, txn, None).unwrap();
            let table = TableId::new(table.id());
            let between = Between {
                table,
                then: &at(pair[0].min(pair[1])),
                now: &at(pair[0].max(pair[1])),
            };
            let differs = |key: &Vec<u8>| {
                let value = |at: &Snapshot| at.get(table, key).unwrap().map(|value| value.to_vec());
                value(between.then) != value(between.now)
            };
            let of_log = between.keys_in_log(engine).unwrap().unwrap();
            let of_history = between.keys_in_history(None).unwrap().unwrap();
            let [of_log, of_history] = [of_log, of_history].map(|keys| {
                let keys = keys.into_iter().filter(differs);
                keys.collect::<Vec<_>>()
            });
            assert_eq!(of_log, of_history, "{pair:?}");
            differing += of_log.len();
            // Left before its end, it says nothing.
            if pair[0] != pair[1] {
                assert!(between.keys_in_history(Some(0)).unwrap().is_none());
            }
        }
        assert!(differing > 10_000, "{differing}");
    }

    #[test]
    fn ranges_that_overlap_or_touch_become_one() {
        let spans = |spans: &[(&'static str, &'static str)]| -> Vec<Span<'static>> {
            let end = |to: &'static str| (to != "-").then_some(to.as_bytes());
            spans
                .iter()
                .map(|(from, to)| (from.as_bytes(), end(to)))
                .collect()
        };
        let all = spans(&[
            ("d", "e"),
            ("a", "c"),
            ("b", "bb"),
            ("c", "cc"),
            ("x", "-"),
            ("y", "z"),
        ]);
        assert_eq!(united(all), spans(&[("a", "cc"), ("d", "e"), ("x", "-")]));
        assert_eq!(
            united(spans(&[("a", "-"), ("a", "b")])),
            spans(&[("a", "-")])
        );
        assert_eq!(united(Vec::new()), Vec::new());
    }
}
