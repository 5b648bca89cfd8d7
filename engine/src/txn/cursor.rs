//! A cursor over one table of one snapshot: deltas over the tree, merged by key.
//!
//! Every source stands on its next candidate. The smallest key (largest, going back) wins; among equal keys the
//! newest source does, and the others are passed over. A winning delete, or a row that a newer range delete covers,
//! is skipped. While every delta is empty for the table, whole leaves are handed through.
//!
//! Invariants:
//! 1. Sources are ordered newest first: active delta, frozen deltas, tree or, for an earlier state, tree and history.
//! 2. After an error the cursor gives the error again; it never skips rows to go on. A snapshot that was moved meanwhile is no
//!    error: the cursor begins anew where it was, on what the snapshot reads from now.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::delta::{Delta, DeltaCursor, Hit};
use crate::error::{Error, Result};
use crate::format::leaf::RowValue;
use crate::history::PastCursor;
use crate::ids::{TableId, TxnId};
use crate::pages::Class;
use crate::pages::store::Store;
use crate::tree::cursor::{self, CursorRow};
use crate::tree::overflow::read_extent;

type TreeCursor<'t> = cursor::Cursor<'t, Store>;

/// The rows below the deltas.
enum Base<'t> {
    /// The tree's.
    Tree(TreeCursor<'t>),
    /// Those of an earlier state.
    Past(PastCursor<'t, Store>),
}

impl Base<'_> {
    fn row(&self) -> Option<CursorRow<'_>> {
        match self {
            Self::Tree(tree) => tree.row(),
            Self::Past(past) => past.row(),
        }
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        match self {
            Self::Tree(tree) => tree.seek(Bound::Included(key)).map(drop),
            Self::Past(past) => past.seek(key),
        }?;
        Ok(())
    }

    fn seek_before(&mut self, key: Option<&[u8]>) -> Result<()> {
        match self {
            Self::Tree(tree) => {
                let to = key.map_or(Bound::Unbounded, Bound::Excluded);
                tree.seek_back(to).map(drop)
            }
            Self::Past(past) => past.seek_back(key),
        }?;
        Ok(())
    }

    /// On from the current row.
    fn advance(&mut self, direction: Direction) -> Result<()> {
        match self {
            Self::Tree(tree) if direction == Direction::Backward => tree.prev().map(drop),
            Self::Tree(tree) => tree.next().map(drop),
            Self::Past(past) => past.advance(),
        }?;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// Not positioned.
    Nowhere,
    /// The current row is the last one given; sources that stand on it have not moved yet.
    Forward,
    Backward,
    /// Ran off the end or the start.
    End,
    Start,
}

/// See the module.
pub(crate) struct Cursor<'t> {
    snapshot: &'t Snapshot,
    /// How often the snapshot was moved when the sources were made.
    moves: u64,
    deltas: Vec<Source<'t>>,
    base: Option<Base<'t>>,
    table: TableId,
    at: TxnId,
    direction: Direction,
    /// The key of the current row.
    key: Vec<u8>,
    /// The current row's value, when it does not lie in one piece.
    assembled: Vec<u8>,
    store: &'t Store,
    failed: Option<Error>,
}

struct Source<'t> {
    delta: &'t Arc<Delta>,
    cursor: DeltaCursor<'t>,
    has_range_deletes: bool,
    /// Rows that were passed over because they are deleted here.
    passed: u64,
}

impl Drop for Source<'_> {
    fn drop(&mut self) {
        self.delta.note_passed(self.passed);
    }
}

impl std::fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor")
            .field("table", &self.table)
            .field("at", &self.at)
            .finish()
    }
}

/// Which source holds the current row.
#[derive(Clone, Copy)]
enum Winner {
    Delta(usize),
    Base,
}

type Current<'c> = Option<(&'c [u8], &'c [u8])>;

impl<'t> Cursor<'t> {
    pub(crate) fn new(snapshot: &'t Snapshot, table: TableId) -> Self {
        let mut cursor = Self {
            snapshot,
            moves: 0,
            deltas: Vec::new(),
            base: None,
            table,
            at: snapshot.txn(),
            direction: Direction::Nowhere,
            key: Vec::new(),
            assembled: Vec::new(),
            store: &snapshot.shape().shared.store,
            failed: None,
        };
        let follows = snapshot.is_elsewhere().then(|| {
            let moved = cursor.follow()?;
            snapshot.may_look_back(table)?;
            Ok(moved)
        });
        match follows {
            Some(Ok(true)) => {}
            Some(Err(error)) => cursor.failed = Some(error),
            Some(Ok(false)) | None => cursor.take_own(),
        }
        cursor
    }

    /// Says which keys will be asked for, so that no more is searched for the rows of an earlier state. A cursor that goes beyond
    /// them may miss rows.
    pub(crate) fn within(&mut self, from: &[u8], to: Option<&[u8]>) {
        if let Some(Base::Past(past)) = &mut self.base {
            past.within(from, to);
        }
    }

    /// Takes what the snapshot was opened with for its sources.
    fn take_own(&mut self) {
        let (table, at) = (self.table, self.at);
        let shape = self.snapshot.shape();
        self.deltas = shape
            .deltas()
            .filter(|delta| delta.has_table(table))
            .map(|delta| Source {
                delta,
                cursor: delta.cursor(table, at),
                has_range_deletes: delta.range_deletes(table, at).next().is_some(),
                passed: 0,
            })
            .collect();
        let root = shape.roots.get(table).map(|root| root.page);
        self.base = if self.snapshot.is_past() {
            let runs = self.snapshot.runs();
            let past = PastCursor::new(self.store, root, runs, table, at, Class::Scan);
            Some(Base::Past(past))
        } else {
            root.map(|root| Base::Tree(TreeCursor::new(self.store, Some(root), Class::Scan)))
        };
    }

    /// If the snapshot was moved since the sources were taken, takes what it was moved to, and says so: the position is still to be
    /// found again.
    #[cold]
    fn follow(&mut self) -> Result<bool> {
        let Some((moves, shape)) = self.snapshot.moved()? else {
            return Ok(false);
        };
        if moves == self.moves {
            return Ok(false);
        }
        self.snapshot.may_look_back(self.table)?;
        self.moves = moves;
        let (table, at) = (self.table, self.at);
        let root = shape.roots.get(table).map(|root| root.page);
        let runs = shape.history.seen_at(at);
        let past = PastCursor::new(self.store, root, runs, table, at, Class::Scan);
        self.deltas = Vec::new();
        self.base = Some(Base::Past(past));
        Ok(true)
    }

    /// The key of the current row, if there is one.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        matches!(self.direction, Direction::Forward | Direction::Backward).then_some(&*self.key)
    }

    /// Moves to the first row at or after `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<Current<'_>> {
        self.moved(|cursor| cursor.find(key), |cursor| cursor.find(key))
    }

    fn find(&mut self, key: &[u8]) -> Result<Option<Winner>> {
        for source in &mut self.deltas {
            source.cursor.seek(key);
        }
        if let Some(base) = &mut self.base {
            base.seek(key)?;
        }
        self.settle(Direction::Forward)
    }

    /// Moves to the last row before `key`; to the very last one for `None`.
    pub(crate) fn seek_before(&mut self, key: Option<&[u8]>) -> Result<Current<'_>> {
        self.moved(
            |cursor| cursor.find_before(key),
            |cursor| cursor.find_before(key),
        )
    }

    fn find_before(&mut self, key: Option<&[u8]>) -> Result<Option<Winner>> {
        for source in &mut self.deltas {
            match key {
                None => source.cursor.last(),
                Some(key) => match source.cursor.seek_for_prev(key) {
                    Some((found, _)) if found == key => source.cursor.prev(),
                    found => found,
                },
            };
        }
        if let Some(base) = &mut self.base {
            base.seek_before(key)?;
        }
        self.settle(Direction::Backward)
    }

    /// The first row behind the last key that was looked at.
    fn find_on(&mut self) -> Result<Option<Winner>> {
        let after = [&*self.key, &[0]].concat();
        self.find(&after)
    }

    /// The last row before the last key that was looked at.
    fn find_back(&mut self) -> Result<Option<Winner>> {
        let before = self.key.clone();
        self.find_before(Some(&before))
    }

    /// Moves to the next row.
    pub(crate) fn next(&mut self) -> Result<Current<'_>> {
        match self.direction {
            Direction::Nowhere | Direction::Start => self.seek(&[]),
            Direction::End => self.moved(|_| Ok(None), |_| Ok(None)),
            Direction::Forward => {
                self.moved(|cursor| cursor.step(Direction::Forward), Self::find_on)
            }
            Direction::Backward => self.moved(Self::find_on, Self::find_on),
        }
    }

    /// Moves to the previous row.
    pub(crate) fn prev(&mut self) -> Result<Current<'_>> {
        match self.direction {
            Direction::Nowhere | Direction::End => self.seek_before(None),
            Direction::Start => self.moved(|_| Ok(None), |_| Ok(None)),
            Direction::Backward => {
                self.moved(|cursor| cursor.step(Direction::Backward), Self::find_back)
            }
            Direction::Forward => self.moved(Self::find_back, Self::find_back),
        }
    }

    /// Calls `visit` with every row from `from` up to `to`, until it breaks.
    pub(crate) fn scan(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.within(from, to);
        if self.deltas.is_empty() {
            let mut scanned = self.scan_base((from, 0), to, &mut visit);
            while let Err((error, (from, passed))) = scanned {
                if !self.follow()? {
                    return Err(error);
                }
                scanned = self.scan_base((&from, passed), to, &mut visit);
            }
            return Ok(());
        }
        let mut row = self.seek(from)?;
        while let Some((key, value)) = row {
            if to.is_some_and(|to| key >= to) || visit(key, value).is_break() {
                break;
            }
            row = self.next()?;
        }
        Ok(())
    }

    /// From a key on, but for so many rows. An error comes with where the scan is to go on.
    fn scan_base(
        &mut self,
        (from, mut pass): (&[u8], usize),
        to: Option<&[u8]>,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), (Error, (Vec<u8>, usize))> {
        let store = self.store;
        let (mut failed, mut visited, passed) = (None, false, pass);
        let mut visit = |key: &[u8], value: RowValue<'_>| {
            if to.is_some_and(|to| key >= to) {
                return ControlFlow::Break(());
            }
            if pass > 0 {
                pass -= 1;
                return ControlFlow::Continue(());
            }
            let goes_on = match value {
                RowValue::Inline(value) => visit(key, value),
                RowValue::Extent(extent) => {
                    match read_extent(store, &extent, store.page_bytes(), Class::Scan) {
                        Ok(value) => visit(key, &value),
                        Err(error) => {
                            failed = Some((error.into(), (key.to_vec(), 0)));
                            ControlFlow::Break(())
                        }
                    }
                }
            };
            visited = true;
            goes_on
        };
        let scanned = match &mut self.base {
            None => Ok(()),
            Some(Base::Tree(tree)) => tree
                .seek(Bound::Included(from))
                .and_then(|_| tree.scan(|key, value, _| visit(key, value)))
                .map_err(|error| (error, (tree.last_key(), 1))),
            Some(Base::Past(past)) => past
                .seek(from)
                .and_then(|()| past.scan(&mut visit))
                .map_err(|error| (error, past.last_key())),
        };
        if let Some(failed) = failed {
            return Err(failed);
        }
        scanned.map_err(|(error, (last, rows))| {
            let place = match visited {
                true => (last.to_vec(), rows),
                false => (from.to_vec(), passed),
            };
            (error.into(), place)
        })
    }

    /// Runs a move, or `again` what leads to the same place where the snapshot was moved; keeps an error for good.
    fn moved(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<Option<Winner>>,
        again: impl Fn(&mut Self) -> Result<Option<Winner>>,
    ) -> Result<Current<'_>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match self.land(step, again) {
            Ok(winner) => Ok(winner.and_then(|winner| self.current(winner))),
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    fn land(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<Option<Winner>>,
        again: impl Fn(&mut Self) -> Result<Option<Winner>>,
    ) -> Result<Option<Winner>> {
        let mut landed = step(self);
        while landed.is_err() && self.follow()? {
            landed = again(self);
        }
        let Some(mut winner) = landed? else {
            return Ok(None);
        };
        while let Err(error) = self.assemble(winner) {
            if !self.follow()? {
                return Err(error);
            }
            // The row is still there, in other pages.
            let found = match self.direction {
                Direction::Backward => {
                    let after = [&*self.key, &[0]].concat();
                    self.find_before(Some(&after))?
                }
                Direction::Forward | Direction::Nowhere | Direction::End | Direction::Start => {
                    self.find(&self.key.clone())?
                }
            };
            match found {
                Some(found) => winner = found,
                None => return Err(error),
            }
        }
        Ok(Some(winner))
    }

    /// On from the current row.
    fn step(&mut self, direction: Direction) -> Result<Option<Winner>> {
        self.pass(direction)?;
        self.settle(direction)
    }

    /// Reads the current row's value together if it lies in pages of its own.
    fn assemble(&mut self, winner: Winner) -> Result<()> {
        let row = match winner {
            Winner::Delta(_) => None,
            Winner::Base => self.base.as_ref().and_then(Base::row),
        };
        if let Some(RowValue::Extent(extent)) = row.map(|row| row.value) {
            let (store, class) = (self.store, Class::Scan);
            self.assembled = read_extent(store, &extent, store.page_bytes(), class)?;
        }
        Ok(())
    }

    fn current(&self, winner: Winner) -> Current<'_> {
        let value = match winner {
            Winner::Delta(index) => {
                let (_, hit) = self.deltas.get(index)?.cursor.current()?;
                hit.value?
            }
            Winner::Base => match self.base.as_ref()?.row()?.value {
                RowValue::Inline(value) => value,
                RowValue::Extent(_) => &*self.assembled,
            },
        };
        Some((&*self.key, value))
    }

    /// Moves every source that stands on the current key past it.
    fn pass(&mut self, direction: Direction) -> Result<()> {
        for source in &mut self.deltas {
            if source
                .cursor
                .current()
                .is_some_and(|(key, _)| key == &*self.key)
            {
                if direction == Direction::Backward {
                    source.cursor.prev();
                } else {
                    source.cursor.next();
                }
            }
        }
        if let Some(base) = &mut self.base
            && base.row().is_some_and(|row| row.key == &*self.key)
        {
            base.advance(direction)?;
        }
        Ok(())
    }

    /// Finds the winner among the sources' candidates, passing over what is deleted.
    fn settle(&mut self, direction: Direction) -> Result<Option<Winner>> {
        loop {
            let Some((winner, live)) = self.choose(direction) else {
                self.direction = if direction == Direction::Backward {
                    Direction::Start
                } else {
                    Direction::End
                };
                return Ok(None);
            };
            if live {
                self.direction = direction;
                return Ok(Some(winner));
            }
            let deleter = match winner {
                Winner::Delta(index) => self.deltas.get_mut(index),
                // Only a range delete hides it: mostly there is one delta that has any.
                Winner::Base => (self.deltas.iter_mut()).find(|source| source.has_range_deletes),
            };
            if let Some(source) = deleter {
                source.passed += 1;
            }
            self.pass(direction)?;
        }
    }

    /// The foremost key, copied to `self.key`; who holds its newest version; and whether that is a live row.
    fn choose(&mut self, direction: Direction) -> Option<(Winner, bool)> {
        let backward = direction == Direction::Backward;
        let ahead = |key: &[u8], best: &[u8]| if backward { key > best } else { key < best };
        let mut best: Option<(&[u8], Winner, Option<Hit<'_>>, TxnId)> = None;
        for (index, source) in self.deltas.iter().enumerate() {
            if let Some((key, hit)) = source.cursor.current()
                && best.as_ref().is_none_or(|(leader, ..)| ahead(key, leader))
            {
                best = Some((key, Winner::Delta(index), Some(hit), hit.txn));
            }
        }
        if let Some(row) = self.base.as_ref().and_then(Base::row)
            && best
                .as_ref()
                .is_none_or(|(leader, ..)| ahead(row.key, leader))
        {
            best = Some((row.key, Winner::Base, None, row.txn));
        }
        let (key, winner, hit, txn) = best?;
        let newer = match winner {
            Winner::Delta(index) => index,
            Winner::Base => self.deltas.len(),
        };
        let covered = self.deltas.iter().take(newer).any(|source| {
            source.has_range_deletes
                && source
                    .delta
                    .covered(self.table, key, self.at)
                    .is_some_and(|by| by > txn)
        });
        let live = !covered && hit.is_none_or(|hit| hit.value.is_some());
        self.key.clear();
        self.key.extend_from_slice(key);
        Some((winner, live))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use northstar_io::MemoryDisk;

    use crate::Db;
    use crate::db::batch::WriteBatch;
    use crate::db::open::open_in;
    use crate::db::options::Options;
    use crate::db::world::World;

    /// Takes the first row out of the queue so often; gives the generation of the pages afterwards.
    fn take(db: &Db, often: usize) -> u32 {
        let queue = db.table("queue").unwrap();
        for _ in 0..often {
            let mut txn = db.begin_write().unwrap();
            let mut cursor = txn.cursor(&queue).unwrap();
            let (key, _) = cursor.seek_first().unwrap().unwrap();
            let key = key.to_vec();
            drop(cursor);
            txn.delete(&queue, key).unwrap();
            txn.commit().unwrap();
        }
        db.stats().unwrap().generation
    }

    fn open() -> Db {
        let world = World {
            threads: false,
            ..World::of(MemoryDisk::new())
        };
        open_in(&Options::new().checked().unwrap(), Path::new("/db"), world).unwrap()
    }

    fn fill(db: &Db, tasks: u32) {
        let queue = db.table("queue").unwrap();
        let mut batch = WriteBatch::new();
        for task in 0..tasks {
            batch.put(&queue, task.to_be_bytes(), []);
        }
        db.commit(batch).unwrap();
    }

    #[test]
    fn a_short_queue_is_polled_without_a_merge() {
        let db = open();
        fill(&db, 300);
        let begun = take(&db, 255);
        let queue = db.table("queue").unwrap();
        let poll = |times: u32| {
            for _ in 0..times {
                let txn = db.begin_read().unwrap();
                assert!(txn.cursor(&queue).unwrap().seek_first().unwrap().is_some());
            }
        };
        poll(2_000);
        assert_eq!(take(&db, 1), begun, "510,000 passed over, too few at once");
        // One row more, and the same is told.
        poll(2_000);
        assert_eq!(take(&db, 1), begun, "merged by the commit behind the next");
        assert!(take(&db, 1) > begun);
        db.close().unwrap();
    }

    #[test]
    fn a_queue_is_merged_when_passing_over_what_was_taken_has_cost_as_much() {
        let db = open();
        fill(&db, 3_000);
        let begun = take(&db, 300);
        assert_eq!(take(&db, 300), begun, "180,000 passed over, 3,600 changes");
        let merged = take(&db, 1_000);
        assert!(merged > begun, "1,280,000 passed over, 4,600 changes");
        // What is merged is gone, so what is passed over begins with nothing again and again, but not at each row.
        let all = take(&db, 1_400);
        assert!((merged + 1..merged + 12).contains(&all), "{merged} {all}");
        db.close().unwrap();
    }
}
