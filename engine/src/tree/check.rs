//! Walking a whole tree and naming every fault.
//!
//! The walk survives any bytes: levels must fall by one from parent to child, so it is never deeper than
//! [`LEVEL_MAX`], and a page that the caller's visitor has seen before is not entered again, so it ends on cycles.

use super::overflow::read_extent;
use super::search::check_level;
use crate::format::branch::{Below, Branch};
use crate::format::check_node;
use crate::format::leaf::{Leaf, RowValue};
#[cfg(doc)]
use crate::format::node::LEVEL_MAX;
use crate::format::node::Suffix;
use crate::format::overflow::ExtentRef;
use crate::format::page::{Page, PageError, PageKind};
use crate::ids::{PageId, PageRef, TableId};
use crate::pages::{Class, PagePin, PageRead};
use crate::state::StateHash;

/// Most faults kept; the rest are counted.
const FAULTS_MAX: usize = 1000;
/// Children asked for together.
const PREFETCH: usize = 32;

/// What a check looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckOptions {
    /// The table every page must name.
    pub(crate) table: TableId,
    /// Bytes of a page.
    pub(crate) page_bytes: usize,
    /// Whether to read values in extents too, and compare their checksums.
    pub(crate) read_extents: bool,
    /// Whether to digest the rows; needs values in extents to be read.
    pub(crate) digest: bool,
}

/// One contradiction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Fault {
    /// A page cannot be read, or contradicts its parent or itself.
    #[error(transparent)]
    Page(PageError),
    /// Two places name one page.
    #[error("page {page}: reached a second time")]
    SeenTwice { page: PageId },
    /// A page names another table.
    #[error("page {page}: belongs to {found:?}, expected {expected:?}")]
    Table {
        page: PageId,
        found: TableId,
        expected: TableId,
    },
    /// A key lies outside of what the parent's separators allow.
    #[error("page {page}: entry {index} is outside of the separators around the page")]
    OutOfBounds { page: PageId, index: usize },
    /// A parent says something of its child that is not so.
    #[error("page {page}: {what} is {found}, its parent says {expected}")]
    Parent {
        page: PageId,
        what: &'static str,
        found: u64,
        expected: u64,
    },
}

/// What a check saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TreeReport {
    /// Rows in all leaves.
    pub(crate) rows: u64,
    /// Leaf pages.
    pub(crate) leaves: u64,
    /// Branch pages.
    pub(crate) branches: u64,
    /// Values in extents.
    pub(crate) extents: u64,
    /// Pages of extents.
    pub(crate) overflow_pages: u64,
    /// Bytes in use in leaves, headers included.
    pub(crate) leaf_bytes: u64,
    /// Level of the root.
    pub(crate) level: u8,
    /// The digest of the rows, if it was asked for.
    pub(crate) state: StateHash,
    /// The first faults found.
    pub(crate) faults: Vec<Fault>,
    /// Number of faults found.
    pub(crate) fault_count: u64,
}

/// Walks the tree at `root`. `visit` hears of each page reached and says whether it is the first time.
pub(crate) fn check<P: PageRead>(
    pages: &P,
    root: Option<PageRef>,
    options: CheckOptions,
    visit: &mut dyn FnMut(PageId, PageKind) -> bool,
) -> TreeReport {
    let mut walk = Walk {
        pages,
        options,
        visit,
        report: TreeReport::default(),
    };
    if let Some(root) = root {
        walk.node(root, None, None, None);
    }
    walk.report
}

struct Walk<'p, 'v, P> {
    pages: &'p P,
    options: CheckOptions,
    visit: &'v mut dyn FnMut(PageId, PageKind) -> bool,
    report: TreeReport,
}

/// What a parent says of a child.
#[derive(Clone, Copy)]
struct Promise {
    level: u8,
    below: Below,
    txn_max: u64,
    delete_txn_max: u64,
}

impl<P: PageRead> Walk<'_, '_, P> {
    fn fault(&mut self, fault: Fault) {
        self.report.fault_count += 1;
        if self.report.faults.len() < FAULTS_MAX {
            self.report.faults.push(fault);
        }
    }

    fn first_visit(&mut self, page: PageId, kind: PageKind) -> bool {
        let is_first = (self.visit)(page, kind);
        if !is_first {
            self.fault(Fault::SeenTwice { page });
        }
        is_first
    }

    /// Checks the subtree at `page`, whose keys lie in `lower..upper`.
    fn node(
        &mut self,
        page: PageRef,
        promise: Option<Promise>,
        lower: Option<&[u8]>,
        upper: Option<&[u8]>,
    ) {
        let pages = self.pages;
        let checked = pages.load(page, Class::Once).and_then(|pin| {
            check_node(pin.page())?;
            check_level(pin.page(), promise.map(|promise| promise.level))?;
            Ok(pin)
        });
        let pin = match checked {
            Ok(pin) => pin,
            Err(error) => return self.fault(Fault::Page(error)),
        };
        let node = pin.page();
        if !self.first_visit(page.id, node.kind()) {
            return;
        }
        if node.table() != self.options.table {
            let (found, expected) = (node.table(), self.options.table);
            self.fault(Fault::Table {
                page: page.id,
                found,
                expected,
            });
        }
        let outcome = if node.header().level == 0 {
            self.leaf(node, lower, upper)
        } else {
            self.branch(node, lower, upper)
        };
        match (outcome, promise) {
            (Ok(below), Some(promise)) => self.compare(node, below, promise),
            (Ok(_), None) => self.report.level = node.header().level,
            (Err(error), _) => self.fault(Fault::Page(error)),
        }
    }

    fn compare(&mut self, node: Page<'_>, found: Below, promise: Promise) {
        let page = node.id();
        let mut fault = |what, found, expected| {
            self.fault(Fault::Parent {
                page,
                what,
                found,
                expected,
            });
        };
        if found.rows != promise.below.rows {
            fault("row count", found.rows, promise.below.rows);
        }
        if found.has_extents && !promise.below.has_extents {
            fault("extents below", 1, 0);
        }
        let header = node.header();
        if header.txn_max.get() > promise.txn_max {
            fault("highest txn", header.txn_max.get(), promise.txn_max);
        }
        if header.delete_txn_max.get() > promise.delete_txn_max {
            fault(
                "highest txn of a delete",
                header.delete_txn_max.get(),
                promise.delete_txn_max,
            );
        }
    }

    fn leaf(
        &mut self,
        node: Page<'_>,
        lower: Option<&[u8]>,
        upper: Option<&[u8]>,
    ) -> Result<Below, PageError> {
        let leaf = Leaf::view(node)?;
        let mut below = Below {
            rows: leaf.count() as u64,
            has_extents: false,
        };
        self.report.leaves += 1;
        self.report.rows += below.rows;
        self.report.leaf_bytes += u64::from(node.header().used_bytes.get());
        self.bounds(node, leaf.prefix(), (0, leaf.suffix(0)?), lower, None);
        let last = leaf.count() - 1;
        self.bounds(node, leaf.prefix(), (last, leaf.suffix(last)?), None, upper);
        let mut key = Vec::new();
        for index in 0..leaf.count() {
            let row = leaf.row(index)?;
            let large;
            let value = match row.value {
                RowValue::Inline(value) => value,
                RowValue::Extent(extent) => {
                    below.has_extents = true;
                    large = self.extent(&extent);
                    &large
                }
            };
            if self.options.digest {
                key.clear();
                key.extend_from_slice(leaf.prefix());
                row.suffix.append_to(&mut key);
                self.report.state.add(self.options.table, &key, value);
            }
        }
        Ok(below)
    }

    /// The keys of a node ascend, so its first and last key stand for all.
    fn bounds(
        &mut self,
        node: Page<'_>,
        prefix: &[u8],
        (index, suffix): (usize, Suffix<'_>),
        lower: Option<&[u8]>,
        upper: Option<&[u8]>,
    ) {
        let mut key = prefix.to_vec();
        suffix.append_to(&mut key);
        let key = key.as_slice();
        if lower.is_some_and(|lower| key < lower) || upper.is_some_and(|upper| key >= upper) {
            self.fault(Fault::OutOfBounds {
                page: node.id(),
                index,
            });
        }
    }

    fn branch(
        &mut self,
        node: Page<'_>,
        lower: Option<&[u8]>,
        upper: Option<&[u8]>,
    ) -> Result<Below, PageError> {
        let branch = Branch::view(node)?;
        let header = node.header();
        self.report.branches += 1;
        let last = branch.count() - 1;
        if last > 0 {
            self.bounds(
                node,
                branch.prefix(),
                (1, branch.separator(1)?),
                lower,
                None,
            );
            self.bounds(
                node,
                branch.prefix(),
                (last, branch.separator(last)?),
                None,
                upper,
            );
        }
        let mut sum = Below {
            rows: 0,
            has_extents: false,
        };
        let (mut low, mut high) = (lower.map(<[u8]>::to_vec), Vec::new());
        for index in 0..=last {
            if index.is_multiple_of(PREFETCH) {
                let ahead = index..branch.count().min(index + PREFETCH);
                let wanted: Result<Vec<_>, _> = ahead.map(|index| branch.child(index)).collect();
                self.pages.prefetch(&wanted?, Class::Once);
            }
            let upper = if index < last {
                branch.separator_into(index + 1, &mut high)?;
                Some(high.as_slice())
            } else {
                upper
            };
            let below = branch.below(index)?;
            sum.rows = sum.rows.saturating_add(below.rows);
            sum.has_extents |= below.has_extents;
            let promise = Promise {
                level: header.level - 1,
                below,
                txn_max: header.txn_max.get(),
                delete_txn_max: header.delete_txn_max.get(),
            };
            self.node(branch.child(index)?, Some(promise), low.as_deref(), upper);
            low = Some(std::mem::take(&mut high));
        }
        Ok(sum)
    }

    /// Checks an extent, and gives its value if that is read and sound.
    fn extent(&mut self, extent: &ExtentRef) -> Vec<u8> {
        let count = extent.page_count(self.options.page_bytes);
        self.report.extents += 1;
        for distance in 0..count {
            let page = PageId::new(extent.first.get().saturating_add(distance.into()));
            if !self.first_visit(page, PageKind::Overflow) {
                return Vec::new();
            }
            self.report.overflow_pages += 1;
        }
        if !self.options.read_extents {
            return Vec::new();
        }
        let read = read_extent(self.pages, extent, self.options.page_bytes, Class::Once);
        read.unwrap_or_else(|error| {
            self.fault(Fault::Page(error));
            Vec::new()
        })
    }
}
