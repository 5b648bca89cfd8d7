//! The rows of a table as a transaction saw them: the tree's and the runs', merged by key.
//!
//! Every source stands on its next row that was seen. Of a key, at most one version was seen, though two runs may both
//! hold it. A row of the tree that was written later is passed over: what was there instead is in the runs.
//!
//! Invariant: between two seeks it moves one way only.

use std::ops::Bound;

use northstar_io::planted::planted;

use super::key;
use super::run::Run;
use crate::format::page::PageError;
use crate::ids::{PageRef, TableId, TxnId};
use crate::pages::{Class, PageRead};
use crate::tree::cursor::{Cursor, CursorRow};

/// Versions passed over one by one before the rest of them are jumped over.
const STEPS_MAX: u32 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Backward,
}

/// See the module.
pub(crate) struct PastCursor<'p, P: PageRead> {
    tree: Cursor<'p, P>,
    runs: Vec<RunCursor<'p, P>>,
    at: TxnId,
    way: Way,
    /// The run whose row is the current one; else the tree's is.
    winner: Option<usize>,
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
            is_on: false,
        };
        Self {
            tree: Cursor::new(pages, root, class),
            runs: runs.iter().map(run).collect(),
            at,
            way: Way::Forward,
            winner: None,
        }
    }

    /// Moves to the first row at or above `key`.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<(), PageError> {
        self.way = Way::Forward;
        self.tree.seek(Bound::Included(key))?;
        for run in &mut self.runs {
            run.seek(key)?;
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
        for run in &mut self.runs {
            run.seek_back(key)?;
        }
        self.settle()
    }

    /// Moves past the current row, the way of the last seek.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn advance(&mut self) -> Result<(), PageError> {
        let Some(winner) = self.winner else {
            if self.tree.row().is_some() {
                step(&mut self.tree, self.way)?;
            }
            return self.settle();
        };
        // Another run may stand on a copy of the same version.
        let key = std::mem::take(&mut self.runs[winner].key);
        for (index, run) in self.runs.iter_mut().enumerate() {
            if index == winner || (run.is_on && run.key == key) {
                step(&mut run.cursor, self.way)?;
                run.settle(self.way)?;
            }
        }
        self.settle()
    }

    /// The current row.
    pub(crate) fn row(&self) -> Option<CursorRow<'_>> {
        match self.winner {
            None => self.tree.row(),
            Some(index) => {
                let run = self.runs.get(index)?;
                let row = run.cursor.row()?;
                Some(CursorRow {
                    key: &run.key,
                    ..row
                })
            }
        }
    }

    /// Passes over rows of the tree that came later, and finds the foremost row.
    fn settle(&mut self) -> Result<(), PageError> {
        while self.tree.row().is_some_and(|row| row.txn > self.at) {
            step(&mut self.tree, self.way)?;
        }
        let way = self.way;
        let ahead = |key: &[u8], best: &[u8]| match way {
            Way::Forward => key < best,
            Way::Backward => key > best,
        };
        let mut best = self.tree.row().map(|row| row.key);
        let mut winner = None;
        for (index, run) in self.runs.iter().enumerate() {
            if run.is_on && best.is_none_or(|best| ahead(&run.key, best)) {
                best = Some(&run.key);
                winner = Some(index);
            }
        }
        self.winner = winner;
        Ok(())
    }
}

fn step<P: PageRead>(cursor: &mut Cursor<'_, P>, way: Way) -> Result<bool, PageError> {
    match way {
        Way::Forward => cursor.next(),
        Way::Backward => cursor.prev(),
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

    /// Passes over versions that were not seen.
    fn settle(&mut self, way: Way) -> Result<(), PageError> {
        self.is_on = false;
        let mut steps = 0;
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
            steps += 1;
            if steps < STEPS_MAX {
                step(&mut self.cursor, way)?;
                continue;
            }
            steps = 0;
            self.scratch.clear();
            self.scratch.extend_from_slice(packed);
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
