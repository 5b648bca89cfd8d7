//! Times and tags of transactions that nobody can read any more are let go.
//!
//! Spec: FF-024.

use std::ops::Bound;

use super::run::Checkpointer;
use crate::error::Result;
use crate::format::leaf::RowValue;
use crate::ids::{TableId, TxnId};
use crate::pages::Class;
use crate::pages::write::PageSink;
use crate::tree::cursor::Cursor;
use crate::tree::merge::{Change, ChangeKind, Forget, RangeDelete, merge};
use crate::txn::shape::Roots;

impl Checkpointer {
    /// Lets go of what is told of transactions before `horizon`, or of all if no history is kept, or was up to now.
    pub(super) fn tend_moments(
        &self,
        roots: &mut Roots,
        horizon: TxnId,
        sink: &mut PageSink<'_>,
    ) -> Result<()> {
        if !self.keeps_history() || self.meta.history.is_none() {
            return self.drop_moments(roots, sink);
        }
        let stale = self.tags_before(roots, horizon)?;
        let end = horizon.get().to_be_bytes();
        self.delete_below(TableId::TAGS, &end, roots, sink)?;
        self.delete_below(TableId::STATES, &end, roots, sink)?;
        // The time at the horizon is that of the last row at or before it.
        let mut cursor = self.walk(roots, TableId::TIMES);
        cursor.seek_back(Bound::Included(&end))?;
        let first = cursor.row().map(|row| row.key.to_vec());
        drop(cursor);
        if let Some(first) = first {
            self.delete_below(TableId::TIMES, &first, roots, sink)?;
        }
        let txn = self.shapes.shared.visible();
        let changes = stale.iter().map(|tag| Change {
            key: tag,
            txn,
            kind: ChangeKind::Delete,
        });
        self.change(TableId::TAGGED, changes, &[], roots, sink)
    }

    /// The last transaction of `first..=last` that is known to have been committed by `moment`, or `first`.
    pub(super) fn last_before(
        &self,
        moment: u64,
        (first, last): (TxnId, TxnId),
        roots: &Roots,
    ) -> Result<TxnId> {
        let mut times = self.walk(roots, TableId::TIMES);
        let (mut there, mut later) = (first, last.next());
        while there.next() < later {
            let middle = TxnId::new(there.get().midpoint(later.get()));
            times.seek_back(Bound::Included(&middle.get().to_be_bytes()))?;
            let time = times.row().map(|row| row.value);
            // A time that cannot be read lets nothing go.
            let by_then = match time {
                Some(RowValue::Inline(bytes)) => bytes
                    .first_chunk()
                    .is_some_and(|bytes| u64::from_be_bytes(*bytes) <= moment),
                Some(RowValue::Extent(_)) | None => false,
            };
            match by_then {
                true => there = middle,
                false => later = middle,
            }
        }
        Ok(there)
    }

    /// Tags, in order, whose last transaction is before `horizon`.
    fn tags_before(&self, roots: &Roots, horizon: TxnId) -> Result<Vec<Vec<u8>>> {
        let mut tags = Vec::new();
        let mut cursor = self.walk(roots, TableId::TAGS);
        cursor.seek(Bound::Unbounded)?;
        while let Some(row) = cursor.row()
            && *row.key < horizon.get().to_be_bytes()[..]
        {
            if let RowValue::Inline(tag) = row.value {
                tags.push(tag.to_vec());
            }
            cursor.next()?;
        }
        tags.sort_unstable();
        tags.dedup();
        let mut last = self.walk(roots, TableId::TAGGED);
        let mut stale = Vec::new();
        for tag in tags {
            last.seek(Bound::Included(&tag))?;
            let row = last.row().filter(|row| row.key == tag);
            if row.is_some_and(|row| row.txn < horizon) {
                stale.push(tag);
            }
        }
        Ok(stale)
    }

    fn drop_moments(&self, roots: &mut Roots, sink: &mut PageSink<'_>) -> Result<()> {
        let all = RangeDelete {
            from: &[],
            to: None,
            txn: self.shapes.shared.visible(),
        };
        for table in TableId::MOMENTS {
            self.change(table, std::iter::empty(), &[all], roots, sink)?;
        }
        Ok(())
    }

    fn delete_below(
        &self,
        table: TableId,
        to: &[u8],
        roots: &mut Roots,
        sink: &mut PageSink<'_>,
    ) -> Result<()> {
        let range = RangeDelete {
            from: &[],
            to: Some(to),
            txn: self.shapes.shared.visible(),
        };
        self.change(table, std::iter::empty(), &[range], roots, sink)
    }

    fn walk(&self, roots: &Roots, table: TableId) -> Cursor<'_, crate::pages::store::Store> {
        let root = roots.get(table).map(|root| root.page);
        Cursor::new(&*self.store, root, Class::Once)
    }

    /// Changes a table, and its root among `roots`.
    fn change<'c>(
        &self,
        table: TableId,
        changes: impl IntoIterator<Item = Change<'c>>,
        ranges: &[RangeDelete<'c>],
        roots: &mut Roots,
        sink: &mut PageSink<'_>,
    ) -> Result<()> {
        let Some(root) = roots.get(table).copied() else {
            return Ok(());
        };
        let mut changes = changes.into_iter().peekable();
        if changes.peek().is_none() && ranges.is_empty() {
            return Ok(());
        }
        let (pages, page) = (&*self.store, Some(root.page));
        let merged = merge(pages, sink, table, page, changes, ranges, &mut Forget)?;
        roots.set(table, merged.tree());
        Ok(())
    }
}
