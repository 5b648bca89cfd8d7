//! Building trees from the bottom: rows in, pages out.
//!
//! One packer per level. Rows and untouched subtrees arrive in key order; whatever a level has pending is closed
//! before an untouched subtree of the same or a higher level is attached. A *region* is a stretch of rows between
//! two attached subtrees; its first leaf inherits the separator of the first old leaf in it, so that keys deleted
//! from the region still lead to a leaf that knows of the delete.
//!
//! - Cost: two copies of each row, no allocation a row. Memory: three pages a level.

use northstar_io::planted::planted;

use super::run::{Child, Children, Kind, Packer, RowMeta, Rows, Run};
use crate::format::branch::{Below, BranchFacts, BranchWriter};
use crate::format::leaf::{LeafFacts, LeafWriter};
use crate::format::node::{LEVEL_MAX, common_prefix, structure};
use crate::format::overflow::{self, ExtentRef};
use crate::format::page::{Page, PageError};
use crate::ids::{PageId, PageRef, TableId, TxnId};
use crate::pages::PageWrite;

/// Builds one tree.
#[derive(Debug)]
pub(super) struct Builder<W> {
    sink: W,
    table: TableId,
    page: Vec<u8>,
    rows: Packer<Rows>,
    /// Level 1 first.
    branches: Vec<Packer<Children>>,
    /// Lower bound of the open region, as long as its first leaf was not written.
    region: Option<Vec<u8>>,
    is_region_open: bool,
    /// Last key of the region's last written leaf.
    last_key: Vec<u8>,
    separator: Vec<u8>,
    /// Deletes that every leaf made from the current old leaf must know of.
    inherited_delete_txn: u64,
    /// Pages written so far, extents included.
    pub(super) pages_written: u64,
    /// Pages retired so far.
    pub(super) pages_retired: u64,
    /// The last node written; its pages may not be readable yet.
    pub(super) last_written: Option<PageId>,
    retiring: Option<(PageId, u32)>,
}

impl<W: PageWrite> Builder<W> {
    pub(super) fn new(sink: W, table: TableId) -> Self {
        let page_bytes = sink.page_bytes();
        Self {
            sink,
            table,
            page: vec![0; page_bytes],
            rows: Packer::new(page_bytes),
            branches: Vec::new(),
            region: None,
            is_region_open: false,
            last_key: Vec::new(),
            separator: Vec::new(),
            inherited_delete_txn: 0,
            pages_written: 0,
            pages_retired: 0,
            last_written: None,
            retiring: None,
        }
    }

    pub(super) fn page_bytes(&self) -> usize {
        self.page.len()
    }

    /// Opens a region whose keys are at or above `lower`, unless one is open.
    pub(super) fn open_region(&mut self, lower: &[u8]) {
        if !self.is_region_open {
            self.is_region_open = true;
            self.region = Some(lower.to_vec());
        }
    }

    /// Moves the lower bound of the open region down: it takes in the leaf before it.
    pub(super) fn lower_region(&mut self, lower: &[u8]) {
        self.region = Some(lower.to_vec());
    }

    /// Says that rows of an old leaf follow, which knew of deletes up to `delete_txn_max`.
    pub(super) fn inherit(&mut self, delete_txn_max: u64) {
        self.inherited_delete_txn = delete_txn_max;
        self.rows.note_delete(delete_txn_max);
    }

    /// Notes that something was deleted between the last row and the next.
    pub(super) fn note_delete(&mut self, txn: u64) {
        self.rows.note_delete(txn);
    }

    /// Adds a row above all rows so far; `tail` is its inline value or encoded extent reference.
    #[inline]
    pub(super) fn push_row(
        &mut self,
        key: &[u8],
        txn: TxnId,
        tail: &[u8],
        is_extent: bool,
    ) -> Result<(), PageError> {
        self.rows.push(
            key,
            tail,
            RowMeta {
                txn: txn.get(),
                is_extent,
            },
        );
        self.rows.reset_gap(self.inherited_delete_txn);
        while let Some(run) = self.rows.take_ready() {
            self.write_leaf(run)?;
        }
        Ok(())
    }

    /// Writes `value` to pages of its own.
    pub(super) fn write_extent(&mut self, value: &[u8]) -> Result<ExtentRef, PageError> {
        let mut pages = overflow::encode(value, self.table, self.page_bytes());
        let refs = self.sink.write_extent(&mut pages)?;
        self.pages_written += refs.len() as u64;
        let extent = ExtentRef::of(&refs, value.len());
        Ok(extent.expect("an extent's pages have neighbouring ids and one generation"))
    }

    /// Whether what is pending at `level` should take in the next node of that level rather than be closed.
    pub(super) fn wants_more(&self, level: u8) -> bool {
        match level {
            0 => self.is_region_open && (self.rows.is_empty() || self.rows.is_underfull()),
            _ => self
                .branches
                .get(usize::from(level) - 1)
                .is_some_and(|packer| !packer.is_empty() && packer.is_underfull()),
        }
    }

    /// Whether a region is open that has lost all its rows.
    pub(super) fn is_region_empty(&self) -> bool {
        self.is_region_open && self.rows.is_empty() && self.region.is_some()
    }

    /// Writes out all that is pending at `level`.
    pub(super) fn close(&mut self, level: u8, balance: bool) -> Result<(), PageError> {
        let Some(index) = usize::from(level).checked_sub(1) else {
            self.rows.finish(balance);
            while let Some(run) = self.rows.take_ready() {
                self.write_leaf(run)?;
            }
            self.is_region_open = false;
            self.region = None;
            self.inherited_delete_txn = 0;
            return Ok(());
        };
        if let Some(packer) = self.branches.get_mut(index) {
            packer.finish(balance);
            self.drain(index)?;
        }
        Ok(())
    }

    /// Adds a finished node of level `level`; everything below `separator` is closed.
    pub(super) fn attach(
        &mut self,
        level: u8,
        separator: &[u8],
        child: Child,
    ) -> Result<(), PageError> {
        let index = usize::from(level);
        while self.branches.len() <= index {
            self.branches.push(Packer::new(self.page.len()));
        }
        self.branches[index].push(separator, &[], child);
        self.drain(index)
    }

    /// Takes the last attached node back out: its level, separator and self.
    pub(super) fn detach_last(&mut self) -> Option<(u8, Vec<u8>, Child)> {
        for (packer, level) in self.branches.iter_mut().zip(0..) {
            if let Some((separator, child)) = packer.pop() {
                return Some((level, separator, child));
            }
        }
        None
    }

    /// Closes everything and returns the root with its level.
    pub(super) fn finish(&mut self) -> Result<Option<(u8, Child)>, PageError> {
        self.close(0, false)?;
        for level in 0..=LEVEL_MAX {
            let index = usize::from(level);
            let Some(packer) = self.branches.get(index) else {
                return Ok(None);
            };
            if let Some(root) = packer.single()
                && self.branches.iter().skip(index + 1).all(Packer::is_empty)
            {
                return Ok(Some((level, root)));
            }
            self.close(level + 1, false)?;
        }
        let page = Page::trusted(&self.page);
        Err(structure(
            page,
            "level",
            u64::from(LEVEL_MAX) + 1,
            LEVEL_MAX.into(),
        ))
    }

    /// Says that what is built from now on takes the place of this node.
    pub(super) fn supersede(&mut self, page: PageId) {
        self.sink.supersede(page);
    }

    /// Says that the tree no longer uses a page.
    ///
    /// # Errors
    /// That of the sink, for what was retired before.
    pub(super) fn retire(&mut self, page: PageId, count: u32) -> Result<(), PageError> {
        self.pages_retired += u64::from(count);
        if let Some((first, pages)) = &mut self.retiring
            && first.get().checked_add(u64::from(*pages)) == Some(page.get())
            && let Some(sum) = pages.checked_add(count)
        {
            *pages = sum;
            return Ok(());
        }
        self.flush_retired()?;
        self.retiring = Some((page, count));
        Ok(())
    }

    /// Hands the last retired run to the sink.
    ///
    /// # Errors
    /// That of the sink.
    pub(super) fn flush_retired(&mut self) -> Result<(), PageError> {
        match self.retiring.take() {
            Some((first, count)) => self.sink.retire(first, count),
            None => Ok(()),
        }
    }

    /// Refuses keys out of order: they come of a damaged tree, and from the cache a node would be taken as it is.
    fn check_order<K: Kind>(&self, run: &Run<K>) -> Result<(), PageError> {
        let Some(index) = run.disorder() else {
            return Ok(());
        };
        let page = Page::trusted(&self.page);
        Err(structure(
            page,
            "order of keys in a new node",
            index as u64,
            index as u64 + 1,
        ))
    }

    fn write_leaf(&mut self, run: Run<Rows>) -> Result<(), PageError> {
        self.check_order(&run)?;
        let facts = LeafFacts {
            table: self.table,
            count: run.len(),
            txn_min: run.txn_min,
            txn_max: run.txn_max,
            delete_txn_max: run.delete_txn_max,
        };
        let mut has_extents = false;
        let mut writer = LeafWriter::new(&mut self.page, facts, run.prefix());
        for (key, tail, meta) in run.iter() {
            writer.push(key, meta.txn, tail, meta.is_extent);
            has_extents |= meta.is_extent;
        }
        writer.finish();
        let child = Child {
            page: self.write_node()?,
            below: Below {
                rows: run.len() as u64,
                has_extents,
            },
            txn_max: facts.txn_max,
            delete_txn_max: facts.delete_txn_max,
        };
        let mut separator = std::mem::take(&mut self.separator);
        separator.clear();
        match self.region.take() {
            Some(lower) => separator.extend_from_slice(&lower),
            None => {
                // The shortest key above the last leaf that is not above this one.
                let first = run.key(0);
                let short = planted("a separator is one byte too short");
                let len = common_prefix(&self.last_key, first) + usize::from(!short);
                separator.extend_from_slice(first.get(..len).unwrap_or(first));
            }
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(run.key(run.len() - 1));
        self.rows.recycle(run);
        self.attach(0, &separator, child)?;
        self.separator = separator;
        Ok(())
    }

    /// Writes the node laid out in `self.page`.
    fn write_node(&mut self) -> Result<PageRef, PageError> {
        let page = self.sink.write(&mut self.page)?;
        self.pages_written += 1;
        self.last_written = Some(page.id);
        Ok(page)
    }

    /// Writes the branches that are ready at level `index + 1`.
    fn drain(&mut self, index: usize) -> Result<(), PageError> {
        while let Some(run) = self.branches[index].take_ready() {
            self.check_order(&run)?;
            let level = u8::try_from(index + 1).unwrap_or(u8::MAX);
            let facts = BranchFacts {
                table: self.table,
                level,
                count: run.len(),
                txn_max: run.txn_max,
                delete_txn_max: run.delete_txn_max,
            };
            let mut below = Below {
                rows: 0,
                has_extents: false,
            };
            let mut writer = BranchWriter::new(&mut self.page, facts, run.prefix());
            for (separator, _, child) in run.iter() {
                writer.push(separator, child.page, child.below);
                below.rows = below.rows.saturating_add(child.below.rows);
                below.has_extents |= child.below.has_extents;
            }
            writer.finish();
            let child = Child {
                page: self.write_node()?,
                below,
                txn_max: facts.txn_max,
                delete_txn_max: facts.delete_txn_max,
            };
            let separator = run.key(0).to_vec();
            self.branches[index].recycle(run);
            self.attach(level, &separator, child)?;
        }
        Ok(())
    }
}
