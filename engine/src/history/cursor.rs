//! The rows of a table as a transaction saw them: the tree's and the runs', merged by key.
//!
//! A row of the tree that was written later is passed over: what was there instead is in the runs. The tree and the runs each
//! stand on a row that may be such a one, and the one whose key is foremost moves first, so that neither is searched beyond what
//! the other has to show, nor beyond the bounds that it was given.
//!
//! Invariant: between two seeks it moves one way only.

use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};

use super::run::Run;
use super::seen::{Seen, Way, seen_twice};
use crate::format::leaf::RowValue;
use crate::format::page::PageError;
use crate::ids::{PageRef, TableId, TxnId};
use crate::pages::{Class, PageRead};
use crate::tree::cursor::{Cursor, CursorRow};

/// Rows of a scan for each of which its key is kept.
const KEPT_EVERY: usize = 64;
/// Rows of the tree passed over in one move.
const STEPS_MAX: u32 = 64;

/// See the module.
pub(crate) struct PastCursor<'p, P: PageRead> {
    tree: Cursor<'p, P>,
    runs: Seen<'p, P>,
    at: TxnId,
    way: Way,
    /// The current row is the runs'; else it is the tree's.
    in_runs: bool,
    /// No key below `from` is looked for, nor any from `to` on.
    from: Vec<u8>,
    to: Option<Vec<u8>>,
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
        Self {
            tree: Cursor::new(pages, root, class),
            runs: Seen::new(pages, runs, table, at, class),
            at,
            way: Way::Forward,
            in_runs: false,
            from: Vec::new(),
            to: None,
            scanned: (Vec::new(), 0),
        }
    }

    /// Says which keys will be looked for: no row beyond these bounds is, and none is shown but by a scan.
    pub(crate) fn within(&mut self, from: &[u8], to: Option<&[u8]>) {
        self.from.clear();
        self.from.extend_from_slice(from);
        self.to = to.map(<[u8]>::to_vec);
    }

    /// Moves to the first row at or above `key`.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<(), PageError> {
        self.way = Way::Forward;
        self.tree.seek(Bound::Included(key))?;
        self.runs.seek(key)?;
        self.choose()
    }

    /// Moves to the last row below `key`, or to the very last.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn seek_back(&mut self, key: Option<&[u8]>) -> Result<(), PageError> {
        self.way = Way::Backward;
        self.tree
            .seek_back(key.map_or(Bound::Unbounded, Bound::Excluded))?;
        self.runs.seek_back(key)?;
        self.choose()
    }

    /// Moves past the current row, the way of the last seek.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn advance(&mut self) -> Result<(), PageError> {
        match self.in_runs {
            false => self.step_tree().map(drop)?,
            true if self.runs.key().is_none() => return Ok(()),
            true => self.runs.advance()?,
        }
        self.choose()
    }

    /// Visits the current row and those after it, until `visit` breaks or the rows end; after a seek forward. Then the cursor is
    /// nowhere.
    ///
    /// Rows of the tree and of the runs are merged leaf by leaf of the tree, each decoded where it lies.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn scan(
        &mut self,
        mut visit: impl FnMut(&[u8], RowValue<'_>) -> ControlFlow<()>,
    ) -> Result<(), PageError> {
        let (kept, rows) = (&mut self.scanned.0, &mut self.scanned.1);
        let to = self.to.as_deref();
        *rows = KEPT_EVERY;
        self.tree
            .scan_merging(self.at, to, &mut self.runs, &mut |key: &[u8], value| {
                if *rows == KEPT_EVERY {
                    *rows = 0;
                    kept.clear();
                    kept.extend_from_slice(key);
                }
                *rows += 1;
                visit(key, value)
            })
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
        self.runs.row()
    }

    /// On to the next row of the tree that was there, or some way towards it.
    fn step_tree(&mut self) -> Result<bool, PageError> {
        let at = self.at;
        let mut steps = 0;
        self.tree.step_to(self.way == Way::Backward, |_, row| {
            steps += 1;
            steps >= STEPS_MAX || row.txn <= at
        })
    }

    /// Finds the foremost row that was there.
    #[inline]
    fn choose(&mut self) -> Result<(), PageError> {
        loop {
            let (run, row) = (self.runs.key(), self.tree.row());
            let (was_seen, was_there) = (
                self.runs.is_seen(),
                row.is_some_and(|row| row.txn <= self.at),
            );
            self.in_runs = match (run, row) {
                (Some(key), Some(row)) => match key.cmp(row.key) {
                    Ordering::Equal if was_seen && was_there => {
                        return Err(seen_twice(self.tree.page_id()));
                    }
                    // What was not there is passed over first.
                    Ordering::Equal => !was_seen,
                    order @ (Ordering::Less | Ordering::Greater) => order == self.way.before(),
                },
                (key, _) => key.is_some(),
            };
            let (key, is_row) = match self.in_runs {
                true => (run, was_seen),
                false => (row.map(|row| row.key), was_there),
            };
            if key.is_some_and(|key| self.is_beyond(key)) {
                self.in_runs = true;
                self.runs.end();
                return Ok(());
            }
            match self.in_runs {
                _ if is_row || key.is_none() => return Ok(()),
                true => self.runs.advance()?,
                false => self.step_tree().map(drop)?,
            }
        }
    }

    /// Whether a walk that has come to `key` has left its bounds.
    fn is_beyond(&self, key: &[u8]) -> bool {
        match self.way {
            Way::Forward => self.to.as_deref().is_some_and(|to| key >= to),
            Way::Backward => key < &*self.from,
        }
    }
}
