//! The versions of a table in the runs that a transaction saw, by key.
//!
//! Every run stands on its next version that was seen. Of a key, at most one version was seen, though two runs may both hold it.
//!
//! Invariants:
//! 1. Between two seeks it moves one way only.
//! 2. Keys rise or fall strictly, or the walk ends with an error.

use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};

use northstar_io::planted::planted;

use super::key;
use super::run::Run;
use crate::format::leaf::RowValue;
use crate::format::page::PageError;
use crate::ids::{PageId, TableId, TxnId};
use crate::pages::{Class, PageRead};
use crate::tree::cursor::{Between, Cursor, CursorRow};

/// Versions passed over one by one before the rest of a key's are jumped over.
const STEPS_MAX: u32 = 24;

/// Which way a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Forward,
    Backward,
}

/// See the module.
pub(super) struct Seen<'p, P: PageRead> {
    runs: Vec<RunCursor<'p, P>>,
    /// Those of the runs that stand on a version, the foremost first.
    order: Vec<usize>,
    way: Way,
}

impl<'p, P: PageRead> Seen<'p, P> {
    /// Over `runs`, as `at` saw them; before its first seek.
    pub(super) fn new(pages: &'p P, runs: &[Run], table: TableId, at: TxnId, class: Class) -> Self {
        let run = |run: &Run| RunCursor {
            cursor: Cursor::new(pages, Some(run.tree.page), class),
            table,
            at,
            is_on: false,
            key: Vec::new(),
            last: Vec::new(),
            packed: Vec::new(),
            left: Vec::new(),
        };
        Self {
            runs: runs.iter().map(run).collect(),
            order: Vec::with_capacity(runs.len()),
            way: Way::Forward,
        }
    }

    /// Moves to the first version at or above `key`.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(super) fn seek(&mut self, key: &[u8]) -> Result<(), PageError> {
        self.find(Way::Forward, |run| run.seek(key))
    }

    /// Moves to the last version below `key`, or to the very last.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(super) fn seek_back(&mut self, key: Option<&[u8]>) -> Result<(), PageError> {
        self.find(Way::Backward, |run| run.seek_back(key))
    }

    fn find(
        &mut self,
        way: Way,
        mut go: impl FnMut(&mut RunCursor<'p, P>) -> Result<(), PageError>,
    ) -> Result<(), PageError> {
        self.way = way;
        self.order.clear();
        self.runs.iter_mut().try_for_each(&mut go)?;
        let runs = self.runs.iter().enumerate();
        let on = runs.filter(|(_, run)| run.is_on);
        self.order.extend(on.map(|(index, _)| index));
        for place in (0..self.order.len()).rev() {
            self.sink(place);
        }
        Ok(())
    }

    /// The key of the current version.
    #[inline]
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.foremost().map(|run| run.key.as_slice())
    }

    /// The current version.
    pub(super) fn row(&self) -> Option<CursorRow<'_>> {
        self.foremost()?.row()
    }

    /// Moves past the current version, the way of the last seek, and past copies of it in other runs. A run that fails is not
    /// looked at any more: after an error, only a seek leads on.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    #[inline]
    pub(super) fn advance(&mut self) -> Result<(), PageError> {
        let first = self.key();
        let others = self.order.iter().skip(1);
        let copies = others
            .take_while(|index| self.key_of(**index) == first)
            .count();
        // Copies were written by the same transaction.
        let written_by = |index: &usize| {
            let run = self.runs.get(*index);
            run.and_then(RunCursor::row).map(|row| row.txn)
        };
        let same = self.order.get(..=copies).unwrap_or_default();
        let differ =
            |two: &[usize]| matches!(two, [one, other] if written_by(one) != written_by(other));
        if same.windows(2).any(differ) {
            self.order.clear();
            return Err(seen_twice(None));
        }
        // From the last one on, so that none of them moves before its turn.
        (0..=copies).rev().try_for_each(|place| self.step(place))
    }

    #[inline]
    fn key_of(&self, index: usize) -> Option<&[u8]> {
        self.runs.get(index).map(|run| run.key.as_slice())
    }

    #[inline]
    fn foremost(&self) -> Option<&RunCursor<'p, P>> {
        self.runs.get(*self.order.first()?)
    }

    /// Steps the run at a place of the order, and puts it where it then belongs.
    #[inline]
    fn step(&mut self, place: usize) -> Result<(), PageError> {
        let index = self.order.get(place);
        let Some(run) = index.and_then(|index| self.runs.get_mut(*index)) else {
            return Ok(());
        };
        let stepped = run.step(self.way);
        if stepped.is_err() || !run.is_on {
            self.order.remove(place);
        } else {
            self.sink(place);
        }
        stepped
    }

    /// Moves the run at `place` behind those that stand before it.
    #[inline]
    fn sink(&mut self, mut place: usize) {
        let before = match self.way {
            Way::Forward => Ordering::Less,
            Way::Backward => Ordering::Greater,
        };
        while let Some(&[moved, next]) = self.order.get(place..place + 2)
            && self.key_of(next).cmp(&self.key_of(moved)) == before
        {
            self.order.swap(place, place + 1);
            place += 1;
        }
    }
}

impl<P: PageRead> Between for Seen<'_, P> {
    #[inline]
    fn key(&self) -> Option<&[u8]> {
        self.key()
    }

    #[inline]
    fn visit(
        &mut self,
        visit: &mut impl FnMut(&[u8], RowValue<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, PageError> {
        if let Some(row) = self.row()
            && visit(row.key, row.value).is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
        self.advance()?;
        Ok(ControlFlow::Continue(()))
    }
}

/// One run.
struct RunCursor<'p, P: PageRead> {
    cursor: Cursor<'p, P>,
    table: TableId,
    at: TxnId,
    /// The cursor stands on a version that was seen.
    is_on: bool,
    /// The key of that, and the one before.
    key: Vec<u8>,
    last: Vec<u8>,
    /// A stored key.
    packed: Vec<u8>,
    /// The stored key from which it jumped.
    left: Vec<u8>,
}

impl<P: PageRead> RunCursor<'_, P> {
    #[inline]
    fn row(&self) -> Option<CursorRow<'_>> {
        let row = self.cursor.row()?;
        Some(CursorRow {
            key: &self.key,
            ..row
        })
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), PageError> {
        key::pack(self.table, key, &mut self.packed);
        self.cursor.seek(Bound::Included(&self.packed))?;
        self.settle(Way::Forward)
    }

    fn seek_back(&mut self, key: Option<&[u8]>) -> Result<(), PageError> {
        self.packed.clear();
        match key {
            Some(key) => key::pack(self.table, key, &mut self.packed),
            None => self
                .packed
                .extend_from_slice(&key::table_prefix(self.table.next())),
        }
        self.cursor.seek_back(Bound::Excluded(&self.packed))?;
        self.settle(Way::Backward)
    }

    /// On to the next version that was seen.
    #[inline]
    fn step(&mut self, way: Way) -> Result<(), PageError> {
        std::mem::swap(&mut self.key, &mut self.last);
        self.step_cursor(way)?;
        self.settle(way)?;
        if self.is_on && self.key == self.last {
            self.is_on = false;
            return Err(seen_twice(self.cursor.page_id()));
        }
        Ok(())
    }

    /// On to the next version that was seen, or one that says where to look on.
    fn step_cursor(&mut self, way: Way) -> Result<bool, PageError> {
        let (at, own) = (self.at, key::table_prefix(self.table));
        let mut steps = 0;
        self.cursor.step_to(way == Way::Backward, |prefix, row| {
            steps += 1;
            // Where it cannot be told from the row alone, its whole key is looked at.
            let Some(to) = row.suffix.rest.last_chunk() else {
                return true;
            };
            let to = TxnId::new(u64::from_be_bytes(*to));
            steps >= STEPS_MAX || !prefix.starts_with(&own) || is_seen(at, row.txn, to)
        })
    }

    /// Passes over versions that were not seen.
    fn settle(&mut self, way: Way) -> Result<(), PageError> {
        self.is_on = false;
        let mut seeks = false;
        loop {
            let Some(row) = self.cursor.row() else {
                return Ok(());
            };
            // The check of every page that is read says that keys are in order, not that they are packed.
            let Some((packed, to)) = key::split(row.key) else {
                return Err(self.damaged());
            };
            if key::table_of(packed) != Some(self.table) {
                return Ok(());
            }
            if is_seen(self.at, row.txn, to) {
                if !key::unpack(packed, &mut self.key) {
                    return Err(self.damaged());
                }
                self.is_on = true;
                return Ok(());
            }
            // By steps first: most keys have few versions.
            seeks = !seeks;
            if seeks {
                self.step_cursor(way)?;
                continue;
            }
            self.packed.clear();
            self.packed.extend_from_slice(packed);
            self.left.clear();
            self.left.extend_from_slice(row.key);
            match (way, to <= self.at) {
                // The one version of this key that can have been seen is ahead: the first that ended later.
                (Way::Forward, true) => {
                    key::push_end(self.at.next(), &mut self.packed);
                    self.cursor.seek(Bound::Included(&self.packed))?;
                }
                (Way::Backward, false) => {
                    key::push_end(self.at.next(), &mut self.packed);
                    self.cursor.seek(Bound::Included(&self.packed))?;
                    // That one came later too: nobody saw one of this key.
                    if self.cursor.row().is_some_and(|row| row.txn > self.at) {
                        self.cursor.prev()?;
                    }
                }
                // The others of this key are of no use.
                (Way::Forward, false) => {
                    key::push_end(TxnId::MAX, &mut self.packed);
                    self.cursor.seek(Bound::Included(&self.packed))?;
                }
                (Way::Backward, true) => {
                    self.cursor.seek_back(Bound::Excluded(&self.packed))?;
                }
            }
            // On sound pages that leads on; on others it might lead round and round.
            let leads_on = |row: CursorRow<'_>| match way {
                Way::Forward => row.key > &*self.left,
                Way::Backward => row.key < &*self.left,
            };
            if !self.cursor.row().is_none_or(leads_on) {
                return Err(self.damaged());
            }
        }
    }

    fn damaged(&self) -> PageError {
        let row = self.cursor.row();
        PageError::Structure {
            page: self.cursor.page_id().unwrap_or_default(),
            what: "key of history, bytes",
            found: row.map_or(0, |row| row.key.len() as u64),
            expected: 0,
        }
    }
}

/// What damage is that shows two versions of a key in one state.
pub(super) fn seen_twice(page: Option<PageId>) -> PageError {
    PageError::Structure {
        page: page.unwrap_or_default(),
        what: "versions of a key in one state",
        found: 2,
        expected: 1,
    }
}

/// Whether `at` saw a version that is there `from` up to but not including `to`.
#[inline]
fn is_seen(at: TxnId, from: TxnId, to: TxnId) -> bool {
    let ended = to <= at && !planted("a walk shows what had ended");
    from <= at && !ended
}
