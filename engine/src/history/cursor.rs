//! The rows of a table as a transaction saw them: the tree's and the runs', merged by key.
//!
//! Every source stands on its next row that was seen. Of a key, at most one version was seen, though two runs may both
//! hold it. A row of the tree that was written later is passed over: what was there instead is in the runs.
//!
//! Invariant: between two seeks it moves one way only.

use std::ops::{Bound, ControlFlow};

use northstar_io::planted::planted;

use super::key;
use super::run::Run;
use crate::format::leaf::RowValue;
use crate::format::page::PageError;
use crate::ids::{PageRef, TableId, TxnId};
use crate::pages::{Class, PageRead};
use crate::tree::cursor::{Cursor, CursorRow};

/// Rows of a scan for each of which its key is kept.
const KEPT_EVERY: usize = 64;
/// Versions passed over one by one before the rest of a key's are jumped over.
const STEPS_MAX: u32 = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Backward,
}

/// See the module.
pub(crate) struct PastCursor<'p, P: PageRead> {
    tree: Cursor<'p, P>,
    runs: Vec<RunCursor<'p, P>>,
    /// Those of the runs that stand on a version, the foremost first.
    order: Vec<usize>,
    at: TxnId,
    way: Way,
    /// The current row is the foremost run's; else it is the tree's.
    in_runs: bool,
    /// A key that a scan has visited not long ago, and how many rows it has visited from there on.
    scanned: (Vec<u8>, usize),
}

impl<'p, P: PageRead> PastCursor<'p, P> {
    /// Over the table's tree and `runs`, as `at` saw them; before its first seek.
    pub(crate) fn new(
        pages: &'p P,
        root: Option<PageRef>,
        runs: &[Run],
        table: TableId,
        at: TxnId,
        class: Class,
    ) -> Self {
        let run = |run: &Run| RunCursor {
            cursor: Cursor::new(pages, Some(run.tree.page), class),
            table,
            at,
            key: Vec::new(),
            scratch: Vec::new(),
            left: Vec::new(),
            is_on: false,
        };
        Self {
            tree: Cursor::new(pages, root, class),
            runs: runs.iter().map(run).collect(),
            order: Vec::with_capacity(runs.len()),
            at,
            way: Way::Forward,
            in_runs: false,
            scanned: (Vec::new(), 0),
        }
    }

    /// Moves to the first row at or above `key`.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<(), PageError> {
        self.way = Way::Forward;
        self.tree.seek(Bound::Included(key))?;
        self.order.clear();
        for index in 0..self.runs.len() {
            self.move_run(index, |run| run.seek(key))?;
        }
        self.settle()
    }

    /// Moves to the last row below `key`, or to the very last.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn seek_back(&mut self, key: Option<&[u8]>) -> Result<(), PageError> {
        self.way = Way::Backward;
        self.tree
            .seek_back(key.map_or(Bound::Unbounded, Bound::Excluded))?;
        self.order.clear();
        for index in 0..self.runs.len() {
            self.move_run(index, |run| run.seek_back(key))?;
        }
        self.settle()
    }

    /// Moves past the current row, the way of the last seek.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn advance(&mut self) -> Result<(), PageError> {
        match self.in_runs {
            false => self.step_tree().map(drop)?,
            true => self.step_foremost()?,
        }
        self.choose();
        Ok(())
    }

    /// Visits the current row and those after it, until `visit` breaks or the rows end; after a seek forward. Then the cursor is
    /// nowhere.
    ///
    /// The tree's rows up to the next version in a run are visited as those of a tree alone are: most rows of most states are
    /// the tree's.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn scan(
        &mut self,
        mut visit: impl FnMut(&[u8], RowValue<'_>) -> ControlFlow<()>,
    ) -> Result<(), PageError> {
        let (mut kept, mut rows) = (std::mem::take(&mut self.scanned.0), KEPT_EVERY);
        let scanned = self.scan_rows(&mut |key: &[u8], value: RowValue<'_>| {
            if rows == KEPT_EVERY {
                rows = 0;
                kept.clear();
                kept.extend_from_slice(key);
            }
            rows += 1;
            visit(key, value)
        });
        self.scanned = (kept, rows);
        scanned
    }

    fn scan_rows(
        &mut self,
        visit: &mut impl FnMut(&[u8], RowValue<'_>) -> ControlFlow<()>,
    ) -> Result<(), PageError> {
        loop {
            let run = self.order.first().and_then(|index| self.runs.get(*index));
            let bound = run.map(|run| run.key.as_slice());
            let scanned = self.tree.scan_below(bound, self.at, visit)?;
            let (Some(run), ControlFlow::Continue(())) = (run, scanned) else {
                return Ok(());
            };
            if let Some(row) = run.cursor.row()
                && visit(&run.key, row.value).is_break()
            {
                return Ok(());
            }
            self.step_foremost()?;
        }
    }

    /// How far the last scan has come, also if it ended with an error: a key that it has visited, and how many rows from
    /// there on.
    pub(crate) fn last_key(&self) -> (&[u8], usize) {
        (&self.scanned.0, self.scanned.1)
    }

    /// The current row.
    pub(crate) fn row(&self) -> Option<CursorRow<'_>> {
        if !self.in_runs {
            return self.tree.row();
        }
        let run = self.foremost()?;
        let row = run.cursor.row()?;
        Some(CursorRow {
            key: &run.key,
            ..row
        })
    }

    /// Passes over rows of the tree that came later, and finds the foremost row.
    fn settle(&mut self) -> Result<(), PageError> {
        if self.tree.row().is_some_and(|row| row.txn > self.at) {
            self.step_tree()?;
        }
        self.choose();
        Ok(())
    }

    /// On to the next row of the tree that was there.
    fn step_tree(&mut self) -> Result<bool, PageError> {
        let at = self.at;
        self.tree
            .step_to(self.way == Way::Backward, |_, row| row.txn <= at)
    }

    /// The run whose version comes first.
    fn foremost(&self) -> Option<&RunCursor<'p, P>> {
        self.order.first().and_then(|index| self.runs.get(*index))
    }

    /// Moves the run whose version comes first past it, and others that hold a copy of it. A run that fails is not in the
    /// order any more: after an error, only a seek leads on.
    fn step_foremost(&mut self) -> Result<(), PageError> {
        let key = |index: &usize| self.runs.get(*index).map(|run| &run.key);
        let first = self.order.first().map(key);
        let copies = self
            .order
            .iter()
            .skip(1)
            .take_while(|index| Some(key(index)) == first);
        let way = self.way;
        for _ in 0..=copies.count() {
            if self.order.is_empty() {
                break;
            }
            let index = self.order.remove(0);
            self.move_run(index, |run| {
                run.step(way)?;
                run.settle(way)
            })?;
        }
        Ok(())
    }

    /// Moves a run that is not in the order, and puts it there if it then stands on a version.
    fn move_run(
        &mut self,
        index: usize,
        go: impl FnOnce(&mut RunCursor<'p, P>) -> Result<(), PageError>,
    ) -> Result<(), PageError> {
        let Some(run) = self.runs.get_mut(index) else {
            return Ok(());
        };
        go(run)?;
        if !run.is_on {
            return Ok(());
        }
        let (runs, forward) = (&self.runs, self.way == Way::Forward);
        let moved = runs.get(index).map(|run| &run.key);
        let place = self.order.partition_point(|other| {
            let other = runs.get(*other).map(|run| &run.key);
            if forward {
                other < moved
            } else {
                other > moved
            }
        });
        self.order.insert(place, index);
        Ok(())
    }

    /// Finds the foremost row.
    #[inline]
    fn choose(&mut self) {
        let forward = self.way == Way::Forward;
        self.in_runs = self.foremost().is_some_and(|run| {
            let ahead = |row: CursorRow<'_>| (run.key.as_slice() < row.key) == forward;
            self.tree.row().is_none_or(ahead)
        });
    }
}

/// One run.
struct RunCursor<'p, P: PageRead> {
    cursor: Cursor<'p, P>,
    table: TableId,
    at: TxnId,
    /// The key of the version it stands on.
    key: Vec<u8>,
    scratch: Vec<u8>,
    /// The stored key from which it jumped.
    left: Vec<u8>,
    is_on: bool,
}

impl<P: PageRead> RunCursor<'_, P> {
    fn seek(&mut self, key: &[u8]) -> Result<(), PageError> {
        key::pack(self.table, key, &mut self.scratch);
        self.cursor.seek(Bound::Included(&self.scratch))?;
        self.settle(Way::Forward)
    }

    fn seek_back(&mut self, key: Option<&[u8]>) -> Result<(), PageError> {
        self.scratch.clear();
        match key {
            Some(key) => key::pack(self.table, key, &mut self.scratch),
            None => self
                .scratch
                .extend_from_slice(&key::table_prefix(self.table.next())),
        }
        self.cursor.seek_back(Bound::Excluded(&self.scratch))?;
        self.settle(Way::Backward)
    }

    /// On to the next version that was seen, or one that says where to look on.
    fn step(&mut self, way: Way) -> Result<bool, PageError> {
        let (at, own) = (self.at, key::table_prefix(self.table));
        let mut steps = 0;
        self.cursor.step_to(way == Way::Backward, |prefix, row| {
            steps += 1;
            // Where it cannot be told from the row alone, its whole key is looked at.
            let Some(to) = row.suffix.rest.last_chunk() else {
                return true;
            };
            let to = TxnId::new(u64::from_be_bytes(*to));
            steps >= STEPS_MAX || !prefix.starts_with(&own) || (row.txn <= at && at < to)
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
            let is_earlier = to <= self.at;
            let ended = planted("a walk shows what had ended");
            if (!is_earlier || ended) && row.txn <= self.at {
                if !key::unpack(packed, &mut self.key) {
                    return Err(self.damaged());
                }
                self.is_on = true;
                return Ok(());
            }
            // By steps first: most keys have few versions.
            seeks = !seeks;
            if seeks {
                self.step(way)?;
                continue;
            }
            self.scratch.clear();
            self.scratch.extend_from_slice(packed);
            self.left.clear();
            self.left.extend_from_slice(row.key);
            match (way, is_earlier) {
                // The one version of this key that can have been seen is ahead: the first that ended later.
                (Way::Forward, true) => {
                    key::push_end(self.at.next(), &mut self.scratch);
                    self.cursor.seek(Bound::Included(&self.scratch))?;
                }
                (Way::Backward, false) => {
                    key::push_end(self.at.next(), &mut self.scratch);
                    self.cursor.seek(Bound::Included(&self.scratch))?;
                    // That one came later too: nobody saw one of this key.
                    if self.cursor.row().is_some_and(|row| row.txn > self.at) {
                        self.cursor.prev()?;
                    }
                }
                // The others of this key are of no use.
                (Way::Forward, false) => {
                    key::push_end(TxnId::MAX, &mut self.scratch);
                    self.cursor.seek(Bound::Included(&self.scratch))?;
                }
                (Way::Backward, true) => {
                    self.cursor.seek_back(Bound::Excluded(&self.scratch))?;
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
