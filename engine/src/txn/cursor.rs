//! A cursor over one table of one snapshot: deltas over the tree, merged by key.
//!
//! Every source stands on its next candidate. The smallest key (largest, going back) wins; among equal keys the
//! newest source does, and the others are passed over. A winning delete, or a row that a newer range delete covers,
//! is skipped. While every delta is empty for the table, whole leaves are handed through.
//!
//! Invariants:
//! 1. Sources are ordered newest first: active delta, frozen deltas, tree or, for an earlier state, tree and history.
//! 2. After an error the cursor gives the error again; it never skips rows to go on.

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
        let shape = snapshot.shape();
        let at = snapshot.txn();
        let store = &*shape.shared.store;
        let deltas = shape
            .deltas()
            .filter(|delta| delta.has_table(table))
            .map(|delta| Source {
                delta,
                cursor: delta.cursor(table, at),
                has_range_deletes: delta.range_deletes(table, at).next().is_some(),
            })
            .collect();
        let root = shape.roots.get(table).map(|root| root.page);
        let base = if snapshot.is_past() {
            let runs = snapshot.runs();
            let past = PastCursor::new(store, root, runs, table, at, Class::Scan);
            Some(Base::Past(past))
        } else {
            root.map(|root| Base::Tree(TreeCursor::new(store, Some(root), Class::Scan)))
        };
        Self {
            deltas,
            base,
            table,
            at,
            direction: Direction::Nowhere,
            key: Vec::new(),
            assembled: Vec::new(),
            store,
            failed: None,
        }
    }

    /// The key of the current row, if there is one.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        matches!(self.direction, Direction::Forward | Direction::Backward).then_some(&*self.key)
    }

    /// Moves to the first row at or after `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<Current<'_>> {
        self.moved(|cursor| {
            for source in &mut cursor.deltas {
                source.cursor.seek(key);
            }
            if let Some(base) = &mut cursor.base {
                base.seek(key)?;
            }
            cursor.settle(Direction::Forward)
        })
    }

    /// Moves to the last row before `key`; to the very last one for `None`.
    pub(crate) fn seek_before(&mut self, key: Option<&[u8]>) -> Result<Current<'_>> {
        self.moved(|cursor| {
            for source in &mut cursor.deltas {
                match key {
                    None => source.cursor.last(),
                    Some(key) => match source.cursor.seek_for_prev(key) {
                        Some((found, _)) if found == key => source.cursor.prev(),
                        found => found,
                    },
                };
            }
            if let Some(base) = &mut cursor.base {
                base.seek_before(key)?;
            }
            cursor.settle(Direction::Backward)
        })
    }

    /// Moves to the next row.
    pub(crate) fn next(&mut self) -> Result<Current<'_>> {
        match self.direction {
            Direction::Nowhere | Direction::Start => self.seek(&[]),
            Direction::End => self.moved(|_| Ok(None)),
            Direction::Forward => self.moved(|cursor| {
                cursor.pass(Direction::Forward)?;
                cursor.settle(Direction::Forward)
            }),
            Direction::Backward => {
                let mut after = std::mem::take(&mut self.key);
                after.push(0);
                self.seek(&after)
            }
        }
    }

    /// Moves to the previous row.
    pub(crate) fn prev(&mut self) -> Result<Current<'_>> {
        match self.direction {
            Direction::Nowhere | Direction::End => self.seek_before(None),
            Direction::Start => self.moved(|_| Ok(None)),
            Direction::Backward => self.moved(|cursor| {
                cursor.pass(Direction::Backward)?;
                cursor.settle(Direction::Backward)
            }),
            Direction::Forward => {
                let before = std::mem::take(&mut self.key);
                self.seek_before(Some(&before))
            }
        }
    }

    /// Calls `visit` with every row from `from` up to `to`, until it breaks.
    pub(crate) fn scan(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        if self.deltas.is_empty() {
            return self.scan_base(from, to, visit);
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

    fn scan_base(
        &mut self,
        from: &[u8],
        to: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<()> {
        let store = self.store;
        let mut failed = None;
        let visit = |key: &[u8], value: RowValue<'_>| match value {
            _ if to.is_some_and(|to| key >= to) => ControlFlow::Break(()),
            RowValue::Inline(value) => visit(key, value),
            RowValue::Extent(extent) => {
                match read_extent(store, &extent, store.page_bytes(), Class::Scan) {
                    Ok(value) => visit(key, &value),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                }
            }
        };
        match &mut self.base {
            None => {}
            Some(Base::Tree(tree)) => {
                tree.seek(Bound::Included(from))?;
                let mut visit = visit;
                tree.scan(|key, value, _| visit(key, value))?;
            }
            Some(Base::Past(past)) => {
                past.seek(from)?;
                past.scan(visit)?;
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Runs a move; keeps its error for good.
    fn moved(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<Option<Winner>>,
    ) -> Result<Current<'_>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        match step(self) {
            Ok(None) => Ok(None),
            Ok(Some(winner)) => {
                if let Err(error) = self.assemble(winner) {
                    self.failed = Some(error.clone());
                    return Err(error);
                }
                Ok(self.current(winner))
            }
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
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
