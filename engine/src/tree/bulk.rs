//! Building a tree from rows that are pushed in key order.
//!
//! - Cost: as [`super::build`]; nothing is read.

use std::ops::Bound;

use super::build::Builder;
use super::cursor::Cursor;
use super::merge::{below, child_of};
use super::run::Child;
use super::search::check_level;
use crate::format::branch::Branch;
use crate::format::leaf::{RowValue, inline_bytes_max};
use crate::format::meta::TreeRoot;
use crate::format::page::PageError;
use crate::ids::{PageRef, TableId, TxnId};
use crate::pages::{Class, PagePin, PageRead, PageWrite};

/// A tree in the making.
#[derive(Debug)]
pub(crate) struct Bulk<W> {
    builder: Builder<W>,
    /// Pages that were taken over.
    taken: u64,
}

/// A tree that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Built {
    /// The tree.
    pub(crate) tree: TreeRoot,
    /// Its pages, those of large values included.
    pub(crate) pages: u64,
}

impl<W: PageWrite> Bulk<W> {
    /// An empty tree of `table`, whose pages go to `sink`.
    pub(crate) fn new(sink: W, table: TableId) -> Self {
        let mut builder = Builder::new(sink, table);
        builder.open_region(&[]);
        Self { builder, taken: 0 }
    }

    /// Adds a row above all before it. A value that is too large for a leaf goes to pages of its own; an extent becomes
    /// this tree's.
    ///
    /// # Errors
    /// When pages cannot be written.
    pub(crate) fn push(
        &mut self,
        key: &[u8],
        txn: TxnId,
        value: RowValue<'_>,
    ) -> Result<(), PageError> {
        let extent = match value {
            RowValue::Inline(value)
                if value.len() <= inline_bytes_max(self.builder.page_bytes()) =>
            {
                return self.builder.push_row(key, txn, value, false);
            }
            RowValue::Inline(value) => self.builder.write_extent(value)?,
            RowValue::Extent(extent) => {
                self.taken += u64::from(extent.page_count(self.builder.page_bytes()));
                extent
            }
        };
        self.builder.push_row(key, txn, &extent.encode(), true)
    }

    /// The whole tree; none if nothing was pushed.
    ///
    /// # Errors
    /// When pages cannot be written.
    pub(crate) fn finish(mut self) -> Result<Option<Built>, PageError> {
        let root = self.builder.finish()?;
        Ok(root.map(|(level, child)| Built {
            tree: tree_of(level, &child),
            pages: self.builder.pages_written + self.taken,
        }))
    }
}

/// One tree of several whose keys follow each other. Their leaves stay where they are.
///
/// The caller has made sure that every key of a tree is below the first of the next.
///
/// # Errors
/// A page that cannot be read, contradicts itself, or cannot be written.
pub(crate) fn concat<P: PageRead, W: PageWrite>(
    pages: &P,
    sink: W,
    table: TableId,
    trees: &[PageRef],
) -> Result<Option<Built>, PageError> {
    let mut builder = Builder::new(sink, table);
    let mut lowest = u8::MAX;
    for root in trees {
        let pin = pages.load(*root, Class::Once)?;
        lowest = lowest.min(check_level(pin.page(), None)?);
    }
    for root in trees {
        let mut cursor = Cursor::new(pages, Some(*root), Class::Once);
        cursor.seek(Bound::Unbounded)?;
        let first = cursor.row().map(|row| row.key.to_vec());
        drop(cursor);
        let pin = pages.load(*root, Class::Once)?;
        let header = pin.page().header();
        let root = Child {
            page: *root,
            below: below(pin.page())?,
            txn_max: header.txn_max.get(),
            delete_txn_max: header.delete_txn_max.get(),
        };
        let level = header.level;
        drop(pin);
        attach_below(
            pages,
            &mut builder,
            root,
            (level, lowest),
            &first.unwrap_or_default(),
        )?;
    }
    let root = builder.finish()?;
    builder.flush_retired()?;
    Ok(root.map(|(level, child)| Built {
        tree: tree_of(level, &child),
        pages: builder.pages_written,
    }))
}

/// A root of `level` as others name it.
fn tree_of(level: u8, root: &Child) -> TreeRoot {
    TreeRoot {
        page: root.page,
        level,
        rows: root.below.rows,
    }
}

/// Attaches the nodes of level `lowest` below `node`, and retires those above.
fn attach_below<P: PageRead, W: PageWrite>(
    pages: &P,
    builder: &mut Builder<W>,
    node: Child,
    (level, lowest): (u8, u8),
    separator: &[u8],
) -> Result<(), PageError> {
    if level == lowest {
        return builder.attach(level, separator, node);
    }
    let pin = pages.load(node.page, Class::Once)?;
    check_level(pin.page(), Some(level))?;
    let branch = Branch::view(pin.page())?;
    let mut own = separator.to_vec();
    for index in 0..branch.count() {
        if index > 0 {
            branch.separator_into(index, &mut own)?;
        }
        let child = child_of(&branch, index)?;
        attach_below(pages, builder, child, (level - 1, lowest), &own)?;
    }
    builder.retire(node.page.id, 1)?;
    Ok(())
}

/// Retires the nodes of a tree; what its rows name in pages of their own lives on.
///
/// # Errors
/// A page that cannot be read or contradicts itself.
pub(crate) fn retire_nodes<P: PageRead>(
    pages: &P,
    sink: &mut impl PageWrite,
    root: PageRef,
) -> Result<(), PageError> {
    retire_below(pages, sink, root, None)
}

fn retire_below<P: PageRead>(
    pages: &P,
    sink: &mut impl PageWrite,
    node: PageRef,
    level: Option<u8>,
) -> Result<(), PageError> {
    if level != Some(0) {
        let pin = pages.load(node, Class::Once)?;
        let level = check_level(pin.page(), level)?;
        if level > 0 {
            let branch = Branch::view(pin.page())?;
            for index in 0..branch.count() {
                retire_below(pages, sink, branch.child(index)?, Some(level - 1))?;
            }
        }
    }
    sink.retire(node.id, 1)
}
