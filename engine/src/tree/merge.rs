//! The one mutation of a tree: sorted changes in, a new root out.
//!
//! The walk goes down only where there are changes, or a range delete takes part of a subtree. Rows of touched
//! leaves and the changes stream through one [`Builder`], untouched subtrees are attached as they are; splits and
//! joins fall out of that. A region that would leave a node under a quarter full takes in the next one. The right
//! edge of a tree is left as it is, so that rising inserts fill their leaves.
//!
//! Invariants:
//! 1. The old tree is not changed: its root reads the old state until its retired pages are reused.
//! 2. Every page of the old tree that the new one does not use is retired, exactly once.
//! 3. The newest of row, change and range delete wins a key; an equal txn keeps the row. Hence merging a change
//!    twice is merging it once.
//!
//! - Cost: each touched leaf is read once and written once. Memory: a few pages a level, and the changes looked
//!   ahead for prefetching.
//! - Failure: on an error nothing of the old tree is lost; what the sink took is garbage to it.

use std::collections::VecDeque;

use super::build::Builder;
pub(crate) use super::change::{Change, ChangeKind, RangeDelete};
use super::change::{Lookahead, Ranges};
use super::run::Child;
use super::search::{check_level, child_index, row_index};
use crate::format::branch::{Below, Branch};
use crate::format::leaf::{Leaf, LeafRow, RowValue, inline_bytes_max, key_bytes_max};
use crate::format::meta::TreeRoot;
use crate::format::page::PageError;
use crate::ids::{PageRef, TableId, TxnId};
use crate::marks::{Mark, reached};
use crate::pages::{Class, PagePin, PageRead, PageWrite};

/// Leaves asked for before the first is waited for; more follow when half of them are done, so that the device always
/// has something to do.
const PREFETCH_LEAVES: usize = 64;

/// Hears of every row that a merge replaces or removes, in key order.
pub(crate) trait Supersede {
    /// Whether it wants to hear: if not, whole subtrees are dropped unread.
    const LISTENS: bool;

    /// The row `key`, written by `from`, ended with `to` at the latest. Says whether it keeps the pages of an extent in
    /// `value`; else they are retired, and readable until reused.
    ///
    /// # Errors
    /// Whatever stops the merge.
    fn superseded(
        &mut self,
        key: &[u8],
        from: TxnId,
        value: RowValue<'_>,
        to: TxnId,
    ) -> Result<bool, PageError>;

    /// Deletes that a tree which is begun anew must know of: it may have been emptied by a merge before this one.
    fn deletes_before(&self) -> TxnId {
        TxnId::ZERO
    }

    /// The row `key` has `value` from now on.
    fn added(&mut self, _key: &[u8], _value: &[u8]) {}

    /// A change of `key` is merged now; if it ended a row, that was said before.
    ///
    /// # Errors
    /// Whatever stops the merge.
    fn changed(&mut self, key: &[u8]) -> Result<(), PageError>;
}

/// What was asked for of the children of one branch.
#[derive(Default)]
struct Asked {
    /// Children asked for and not come to yet.
    waiting: VecDeque<usize>,
    /// Whoever touches the children before this one was looked at.
    end: usize,
    /// The number of the first change that was not looked at.
    change: u64,
    /// Range deletes were looked at before this child.
    deleted: usize,
}

impl Asked {
    /// The walk comes to the child `index`.
    fn pass(&mut self, index: usize) {
        while self.waiting.pop_front_if(|child| *child <= index).is_some() {}
        self.end = self.end.max(index);
    }
}

/// Lets superseded rows go.
#[derive(Debug)]
pub(crate) struct Forget;

impl Supersede for Forget {
    const LISTENS: bool = false;

    fn superseded(
        &mut self,
        _: &[u8],
        _: TxnId,
        _: RowValue<'_>,
        _: TxnId,
    ) -> Result<bool, PageError> {
        Ok(false)
    }

    fn changed(&mut self, _: &[u8]) -> Result<(), PageError> {
        Ok(())
    }
}

/// The outcome of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Merged {
    /// The new tree; `None` if it is empty.
    pub(crate) root: Option<PageRef>,
    /// Level of the root.
    pub(crate) level: u8,
    /// Rows of the new tree.
    pub(crate) rows: u64,
    /// Rows of the new tree less those of the old one.
    pub(crate) rows_delta: i64,
    /// Pages given to the sink, extents included.
    pub(crate) pages_written: u64,
    /// Pages retired, extents included.
    pub(crate) pages_retired: u64,
}

impl Merged {
    /// The new tree as others name it; `None` if it is empty.
    pub(crate) fn tree(&self) -> Option<TreeRoot> {
        self.root.map(|page| TreeRoot {
            page,
            level: self.level,
            rows: self.rows,
        })
    }
}

/// What stops a merge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum MergeError {
    /// A page could not be read or written.
    #[error(transparent)]
    Page(#[from] PageError),
    /// The changes are not in strictly rising key order: a bug above.
    #[error("change {index} is not above the one before it")]
    Unsorted {
        /// Which change.
        index: u64,
    },
    /// A key longer than pages of this size take.
    #[error("key has {len} bytes, pages take {max}")]
    KeyTooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A value longer than the format can say.
    #[error("value has {len} bytes, the format takes {}", u32::MAX)]
    ValueTooLong {
        /// Its length.
        len: usize,
    },
}

/// Merges `changes`, in strictly rising key order, and `ranges`, in rising order of `from`, into the tree at `root`.
///
/// Merging into no tree is a bulk load.
///
/// # Errors
/// [`MergeError`]; what was written until then is garbage, and the old tree is untouched.
pub(crate) fn merge<'c, P, W, S>(
    pages: &P,
    sink: &mut W,
    table: TableId,
    root: Option<PageRef>,
    changes: impl IntoIterator<Item = Change<'c>>,
    ranges: &[RangeDelete<'c>],
    superseded: &mut S,
) -> Result<Merged, MergeError>
where
    P: PageRead,
    W: PageWrite,
    S: Supersede,
{
    let key_max = key_bytes_max(sink.page_bytes());
    let mut merger = Merger {
        pages,
        builder: Builder::new(sink, table),
        changes: Lookahead::new(changes.into_iter(), key_max),
        ranges: Ranges::new(ranges),
        superseded,
        rows_delta: 0,
        key: Vec::new(),
    };
    merger.changes.fill(1)?;
    if let Some(root) = root {
        merger.visit_root(root)?;
    } else {
        merger.builder.open_region(&[]);
        let before = merger.superseded.deletes_before();
        merger.builder.inherit(before.get());
        merger.ranges.advance(&[], None);
        merger.insert_below(None)?;
    }
    merger.finish()
}

struct Merger<'p, 'w, 'c, 's, P, W, S, I: Iterator<Item = Change<'c>>> {
    pages: &'p P,
    builder: Builder<&'w mut W>,
    changes: Lookahead<'c, I>,
    ranges: Ranges<'s, 'c>,
    superseded: &'s mut S,
    rows_delta: i64,
    /// The key of the old row at hand.
    key: Vec<u8>,
}

/// What is to be done with a subtree.
enum Fate {
    Keep,
    Drop,
    Visit,
}

impl<'c, P, W, S, I> Merger<'_, '_, 'c, '_, P, W, S, I>
where
    P: PageRead,
    W: PageWrite,
    S: Supersede,
    I: Iterator<Item = Change<'c>>,
{
    fn visit_root(&mut self, root: PageRef) -> Result<(), MergeError> {
        let pin = self.pages.load(root, Class::Once)?;
        let page = pin.page();
        let level = check_level(page, None)?;
        let (header, below) = (page.header(), below(page)?);
        let child = Child {
            page: root,
            below,
            txn_max: header.txn_max.get(),
            delete_txn_max: header.delete_txn_max.get(),
        };
        self.decide(child, level, &[], None)
    }

    fn decide(
        &mut self,
        child: Child,
        level: u8,
        lower: &[u8],
        upper: Option<&[u8]>,
    ) -> Result<(), MergeError> {
        match self.fate(child.txn_max, lower, upper) {
            Fate::Keep => self.keep(child, level, lower, upper),
            Fate::Visit => self.visit(child.page, level, lower, upper),
            Fate::Drop => {
                self.builder.open_region(lower);
                self.builder
                    .inherit(child.delete_txn_max.max(self.ranges.txn_max(upper)));
                reached(Mark::SubtreeDropped);
                let rows = i64::try_from(child.below.rows).unwrap_or(i64::MAX);
                self.rows_delta = self.rows_delta.saturating_sub(rows);
                Ok(self.drop_subtree(child.page, level, child.below.has_extents)?)
            }
        }
    }

    fn fate(&mut self, txn_max: u64, lower: &[u8], upper: Option<&[u8]>) -> Fate {
        self.ranges.advance(lower, upper);
        if self.changes.is_next_below(upper) {
            return Fate::Visit;
        }
        let is_dropped =
            |range: &RangeDelete<'_>| range.covers_all(lower, upper) && range.txn.get() > txn_max;
        let mut overlapping = self.ranges.overlapping(upper).peekable();
        if overlapping.peek().is_none() {
            return Fate::Keep;
        }
        if !S::LISTENS && overlapping.any(is_dropped) {
            return Fate::Drop;
        }
        Fate::Visit
    }

    /// Attaches an untouched subtree, unless something before it is too small to stand alone.
    fn keep(
        &mut self,
        child: Child,
        level: u8,
        lower: &[u8],
        upper: Option<&[u8]>,
    ) -> Result<(), MergeError> {
        for below in 0..=level {
            if self.builder.wants_more(below) {
                return self.visit(child.page, level, lower, upper);
            }
            self.builder.close(below, true)?;
        }
        Ok(self.builder.attach(level, lower, child)?)
    }

    fn visit(
        &mut self,
        page: PageRef,
        level: u8,
        lower: &[u8],
        upper: Option<&[u8]>,
    ) -> Result<(), MergeError> {
        let pin = self.pages.load(page, Class::Once)?;
        check_level(pin.page(), Some(level))?;
        self.builder.supersede(page.id);
        if level == 0 {
            self.visit_leaf(&Leaf::view(pin.page())?, lower, upper)?;
        } else {
            self.visit_branch(&Branch::view(pin.page())?, level - 1, lower, upper)?;
        }
        self.builder.retire(page.id, 1)?;
        Ok(())
    }

    fn visit_branch(
        &mut self,
        branch: &Branch<'_>,
        level: u8,
        lower: &[u8],
        upper: Option<&[u8]>,
    ) -> Result<(), MergeError> {
        let (mut low, mut high) = (lower.to_vec(), Vec::new());
        let branch_upper = upper;
        let mut asked = Asked {
            change: self.changes.next_number(),
            ..Asked::default()
        };
        for index in 0..branch.count() {
            let upper = if index + 1 < branch.count() {
                branch.separator_into(index + 1, &mut high)?;
                Some(high.as_slice())
            } else {
                upper
            };
            if level == 0 {
                self.ranges.advance(&low, upper);
                asked.pass(index);
                if self.changes.is_next_below(branch_upper) {
                    self.prefetch_touched(branch, &mut asked, branch_upper)?;
                }
                if S::LISTENS
                    && index >= asked.deleted
                    && self.ranges.overlapping(upper).next().is_some()
                {
                    asked.deleted = self.prefetch_deleted(branch, index)?;
                }
            }
            let child = child_of(branch, index)?;
            self.decide(child, level, &low, upper)?;
            std::mem::swap(&mut low, &mut high);
        }
        Ok(())
    }

    /// Asks for leaves that the next changes touch, if few of those asked for before are left.
    fn prefetch_touched(
        &mut self,
        branch: &Branch<'_>,
        asked: &mut Asked,
        upper: Option<&[u8]>,
    ) -> Result<(), MergeError> {
        if asked.waiting.len() > PREFETCH_LEAVES / 2 {
            return Ok(());
        }
        asked.change = asked.change.max(self.changes.next_number());
        let mut wanted = Vec::with_capacity(PREFETCH_LEAVES);
        while asked.waiting.len() < PREFETCH_LEAVES
            && asked.end < branch.count()
            && let Some(change) = self.changes.peek_at(asked.change)?
            && upper.is_none_or(|upper| change.key < upper)
        {
            asked.change += 1;
            let child = child_index(branch, change.key)?;
            if child >= asked.end {
                wanted.push(branch.child(child)?);
                asked.waiting.push_back(child);
                asked.end = child + 1;
            }
        }
        if !wanted.is_empty() {
            self.pages.prefetch(&wanted, Class::Once);
        }
        Ok(())
    }

    /// Asks for the leaves that range deletes touch, from child `index` on; returns the child after the last.
    fn prefetch_deleted(&mut self, branch: &Branch<'_>, index: usize) -> Result<usize, MergeError> {
        let mut wanted = Vec::with_capacity(PREFETCH_LEAVES);
        let mut separator = Vec::new();
        for child in index..branch.count().min(index + PREFETCH_LEAVES) {
            if child > index {
                branch.separator_into(child, &mut separator)?;
                if !self.ranges.reach(&separator) {
                    break;
                }
            }
            wanted.push(branch.child(child)?);
        }
        self.pages.prefetch(&wanted, Class::Once);
        Ok(index + wanted.len())
    }

    fn visit_leaf(
        &mut self,
        leaf: &Leaf<'_>,
        lower: &[u8],
        upper: Option<&[u8]>,
    ) -> Result<(), MergeError> {
        self.builder.open_region(lower);
        let delete_txn_max = leaf.page().header().delete_txn_max.get();
        self.builder
            .inherit(delete_txn_max.max(self.ranges.txn_max(upper)));
        let mut next = 0;
        loop {
            let change = self.changes.next_below(upper);
            let (end, is_hit) = match change {
                None => (leaf.count(), false),
                Some(change) => match row_index(leaf, change.key)? {
                    Ok(hit) => (hit, true),
                    Err(gap) => (gap, false),
                },
            };
            for index in next..end {
                self.copy_row(leaf, index)?;
            }
            // A hostile leaf may answer out of order; never go back, so that this ends.
            next = next.max(end);
            let Some(change) = change else { return Ok(()) };
            if is_hit {
                self.replace_row(leaf, end, change)?;
                next += 1;
            } else {
                self.insert(change)?;
            }
            self.changes.advance()?;
        }
    }

    /// Adds all changes below `upper`, where there are no rows.
    fn insert_below(&mut self, upper: Option<&[u8]>) -> Result<(), MergeError> {
        while let Some(change) = self.changes.next_below(upper) {
            self.insert(change)?;
            self.changes.advance()?;
        }
        Ok(())
    }

    fn assemble(&mut self, leaf: &Leaf<'_>, row: &LeafRow<'_>) {
        self.key.clear();
        self.key.extend_from_slice(leaf.prefix());
        row.suffix.append_to(&mut self.key);
    }

    /// A row without a change of its own.
    fn copy_row(&mut self, leaf: &Leaf<'_>, index: usize) -> Result<(), MergeError> {
        let row = leaf.row(index)?;
        self.assemble(leaf, &row);
        match self.ranges.first_after(&self.key, row.txn) {
            Some(txn) => self.end_row(&row, txn),
            None => self.push_row(&row),
        }
    }

    fn replace_row(
        &mut self,
        leaf: &Leaf<'_>,
        index: usize,
        change: Change<'_>,
    ) -> Result<(), MergeError> {
        if leaf.row(index)?.txn >= change.txn {
            return self.copy_row(leaf, index);
        }
        let row = leaf.row(index)?;
        self.assemble(leaf, &row);
        let range = self.ranges.first_after(&self.key, row.txn);
        self.end_row(
            &row,
            range.map_or(change.txn, |range| range.min(change.txn)),
        )?;
        self.insert(change)
    }

    /// A change whose key has no row, or no longer.
    fn insert(&mut self, change: Change<'_>) -> Result<(), MergeError> {
        self.superseded.changed(change.key)?;
        let value = match change.kind {
            ChangeKind::Put(value) => value,
            ChangeKind::Delete => {
                self.builder.note_delete(change.txn.get());
                return Ok(());
            }
        };
        if self.ranges.first_after(change.key, change.txn).is_some() {
            return Ok(());
        }
        if value.len() <= inline_bytes_max(self.builder.page_bytes()) {
            self.builder
                .push_row(change.key, change.txn, value, false)?;
        } else if u32::try_from(value.len()).is_ok() {
            let extent = self.builder.write_extent(value)?;
            self.builder
                .push_row(change.key, change.txn, &extent.encode(), true)?;
        } else {
            return Err(MergeError::ValueTooLong { len: value.len() });
        }
        self.superseded.added(change.key, value);
        self.rows_delta += 1;
        Ok(())
    }

    /// Keeps the old row whose key is in `self.key`.
    #[inline]
    fn push_row(&mut self, row: &LeafRow<'_>) -> Result<(), MergeError> {
        match row.value {
            RowValue::Inline(value) => self.builder.push_row(&self.key, row.txn, value, false)?,
            RowValue::Extent(extent) => {
                self.builder
                    .push_row(&self.key, row.txn, &extent.encode(), true)?;
            }
        }
        Ok(())
    }

    /// Lets the old row whose key is in `self.key` go.
    fn end_row(&mut self, row: &LeafRow<'_>, txn: TxnId) -> Result<(), MergeError> {
        let kept = self
            .superseded
            .superseded(&self.key, row.txn, row.value, txn)?;
        if !kept && let RowValue::Extent(extent) = row.value {
            let pages = extent.page_count(self.builder.page_bytes());
            self.builder.retire(extent.first, pages)?;
        }
        self.rows_delta -= 1;
        Ok(())
    }

    /// Retires a subtree; leaves are read only for their extents.
    fn drop_subtree(
        &mut self,
        page: PageRef,
        level: u8,
        has_extents: bool,
    ) -> Result<(), PageError> {
        if level > 0 || has_extents {
            let pin = self.pages.load(page, Class::Once)?;
            check_level(pin.page(), Some(level))?;
            if level > 0 {
                let branch = Branch::view(pin.page())?;
                for index in 0..branch.count() {
                    let below = branch.below(index)?;
                    self.drop_subtree(branch.child(index)?, level - 1, below.has_extents)?;
                }
            } else {
                let leaf = Leaf::view(pin.page())?;
                for index in 0..leaf.count() {
                    if let RowValue::Extent(extent) = leaf.row(index)?.value {
                        let pages = extent.page_count(self.builder.page_bytes());
                        self.builder.retire(extent.first, pages)?;
                    }
                }
            }
        }
        self.builder.retire(page.id, 1)?;
        Ok(())
    }

    fn finish(mut self) -> Result<Merged, MergeError> {
        // A region at the right edge that lost all its rows falls to the leaf before it, which must know.
        while self.builder.is_region_empty() {
            let Some((level, separator, child)) = self.builder.detach_last() else {
                break;
            };
            self.reopen(level, &separator, child)?;
        }
        let mut root = self.builder.finish()?;
        // A root written by this merge has more than one child; one taken over from the old tree may not.
        while let Some((level, child)) = root
            && level > 0
            && self.builder.last_written != Some(child.page.id)
        {
            let pin = self.pages.load(child.page, Class::Once)?;
            let branch = Branch::view(pin.page())?;
            if branch.count() > 1 {
                break;
            }
            root = Some((level - 1, child_of(&branch, 0)?));
            self.builder.retire(child.page.id, 1)?;
        }
        self.builder.flush_retired()?;
        Ok(Merged {
            root: root.map(|(_, child)| child.page),
            level: root.map_or(0, |(level, _)| level),
            rows: root.map_or(0, |(_, child)| child.below.rows),
            rows_delta: self.rows_delta,
            pages_written: self.builder.pages_written,
            pages_retired: self.builder.pages_retired,
        })
    }

    /// Goes on at the end of a subtree that was attached already: one level down, or with its rows.
    fn reopen(&mut self, level: u8, separator: &[u8], child: Child) -> Result<(), MergeError> {
        let pin = self.pages.load(child.page, Class::Once)?;
        check_level(pin.page(), Some(level))?;
        self.builder.retire(child.page.id, 1)?;
        if level == 0 {
            let leaf = Leaf::view(pin.page())?;
            self.builder.lower_region(separator);
            self.builder
                .note_delete(leaf.page().header().delete_txn_max.get());
            for index in 0..leaf.count() {
                let row = leaf.row(index)?;
                self.assemble(&leaf, &row);
                self.push_row(&row)?;
            }
            return Ok(());
        }
        let branch = Branch::view(pin.page())?;
        let mut key = separator.to_vec();
        for index in 0..branch.count() {
            if index > 0 {
                branch.separator_into(index, &mut key)?;
            }
            self.builder
                .attach(level - 1, &key, child_of(&branch, index)?)?;
        }
        Ok(())
    }
}

/// What a node holds.
pub(super) fn below(page: crate::format::page::Page<'_>) -> Result<Below, PageError> {
    let mut sum = Below {
        rows: 0,
        has_extents: false,
    };
    if page.header().level == 0 {
        let leaf = Leaf::view(page)?;
        sum.rows = leaf.count() as u64;
        for index in 0..leaf.count() {
            sum.has_extents |= matches!(leaf.row(index)?.value, RowValue::Extent(_));
        }
    } else {
        let branch = Branch::view(page)?;
        for index in 0..branch.count() {
            let below = branch.below(index)?;
            sum.rows = sum.rows.saturating_add(below.rows);
            sum.has_extents |= below.has_extents;
        }
    }
    Ok(sum)
}

/// Number of rows of a tree, from its root page alone.
///
/// # Errors
/// A root that cannot be read or contradicts itself.
#[cfg(test)]
pub(crate) fn row_count<P: PageRead>(pages: &P, root: Option<PageRef>) -> Result<u64, PageError> {
    let Some(root) = root else { return Ok(0) };
    let pin = pages.load(root, Class::Point)?;
    Ok(below(pin.page())?.rows)
}

pub(super) fn child_of(branch: &Branch<'_>, index: usize) -> Result<Child, PageError> {
    let header = branch.page().header();
    Ok(Child {
        page: branch.child(index)?,
        below: branch.below(index)?,
        txn_max: header.txn_max.get(),
        delete_txn_max: header.delete_txn_max.get(),
    })
}
