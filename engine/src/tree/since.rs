//! The rows of those leaves that were written after some generation: a page whose parent says an earlier one is as it was then,
//! and so is all below it.
//!
//! - Cost: the pages written since, and the looking at their parents' references; no page from before is read.
//! - Failure: hostile pages give [`PageError`]; keys must rise from leaf to leaf, and separators from branch to branch of a level,
//!   so that no page is come by twice.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::search::check_level;
use crate::format::branch::Branch;
use crate::format::leaf::Leaf;
use crate::format::node::{LEVEL_MAX, structure};
use crate::format::page::{Page, PageError};
use crate::ids::{Generation, PageRef, TxnId};
use crate::pages::{Class, PagePin, PageRead};

/// Calls `each` with the key and the transaction of every row in leaves younger than `since`, in key order, until it breaks.
///
/// # Errors
/// A page that cannot be read or contradicts itself.
pub(crate) fn rows_since<P: PageRead>(
    pages: &P,
    root: Option<PageRef>,
    since: Generation,
    each: impl FnMut(&[u8], TxnId) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, PageError> {
    let Some(root) = root else {
        return Ok(ControlFlow::Continue(()));
    };
    let mut walk = Walk {
        pages,
        since,
        each,
        last: Vec::new(),
        key: Vec::new(),
        ahead: Vec::new(),
    };
    walk.visit(root, None)
}

struct Walk<'p, P, E> {
    pages: &'p P,
    since: Generation,
    each: E,
    /// The last key of each level that was come by, leaves first; none yet where it is missing.
    last: Vec<Vec<u8>>,
    key: Vec<u8>,
    ahead: Vec<PageRef>,
}

/// Children looked at ahead of those that are read.
const AHEAD: usize = 32;

impl<P: PageRead, E: FnMut(&[u8], TxnId) -> ControlFlow<()>> Walk<'_, P, E> {
    fn visit(&mut self, page: PageRef, level: Option<u8>) -> Result<ControlFlow<()>, PageError> {
        if page.generation <= self.since {
            return Ok(ControlFlow::Continue(()));
        }
        let class = match level {
            Some(0) => Class::Scan,
            _ => Class::Point,
        };
        let pin = self.pages.load(page, class)?;
        match check_level(pin.page(), level)? {
            0 => self.visit_leaf(pin.page()),
            level => self.visit_branch(pin.page(), level),
        }
    }

    fn visit_leaf(&mut self, page: Page<'_>) -> Result<ControlFlow<()>, PageError> {
        let leaf = Leaf::view(page)?;
        for index in 0..leaf.count() {
            let row = leaf.row(index)?;
            self.key.clear();
            self.key.extend_from_slice(leaf.prefix());
            row.suffix.append_to(&mut self.key);
            if index == 0 {
                self.rises(page, 0)?;
            }
            if (self.each)(&self.key, row.txn).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.keep(0);
        Ok(ControlFlow::Continue(()))
    }

    fn visit_branch(&mut self, page: Page<'_>, level: u8) -> Result<ControlFlow<()>, PageError> {
        let branch = Branch::view(page)?;
        let children = branch.count();
        for index in 0..children {
            if level == 1 && index % AHEAD == 0 {
                self.ask_for(&branch, index)?;
            }
            if index > 0 {
                branch.separator_into(index, &mut self.key)?;
                if index == 1 {
                    self.rises(page, level)?;
                }
                if index + 1 == children {
                    self.keep(level);
                }
            }
            let child = branch.child(index)?;
            if self.visit(child, Some(level - 1))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Asks for those of a branch's next children that will be read.
    fn ask_for(&mut self, branch: &Branch<'_>, first: usize) -> Result<(), PageError> {
        self.ahead.clear();
        for index in first..branch.count().min(first + AHEAD) {
            let child = branch.child(index)?;
            if child.generation > self.since {
                self.ahead.push(child);
            }
        }
        self.pages.prefetch(&self.ahead, Class::Scan);
        Ok(())
    }

    /// Fails unless the key at hand is above all that this level had so far.
    fn rises(&self, page: Page<'_>, level: u8) -> Result<(), PageError> {
        let last = self.last.get(usize::from(level));
        match last.filter(|last| !last.is_empty()) {
            Some(last) if last.cmp(&self.key) != Ordering::Less => Err(structure(
                page,
                "key beside the next page",
                level.into(),
                LEVEL_MAX.into(),
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn keep(&mut self, level: u8) {
        let level = usize::from(level);
        if self.last.len() <= level {
            self.last.resize(level + 1, Vec::new());
        }
        if let Some(last) = self.last.get_mut(level) {
            last.clone_from(&self.key);
        }
    }
}
