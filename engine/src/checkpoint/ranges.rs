//! The range deletes of a slice: where what they end is read, only as many leaves of them as the slice may write pages.

use super::run::Checkpointer;
use crate::delta::Delta;
use crate::error::Result;
use crate::ids::{PageRef, TableId, TxnId};
use crate::tree::merge::RangeDelete;
use crate::tree::reach::{Reach, reach};

impl Checkpointer {
    /// Leaves of `ranges`, which begin in order, what is from `from` on. Gives the key at which a slice ends that reads no more
    /// leaves of them than it may write pages, if they reach so far.
    pub(super) fn cut_ranges<'r>(
        &self,
        ranges: &mut Vec<RangeDelete<'r>>,
        root: Option<PageRef>,
        from: &'r [u8],
    ) -> Result<Option<Vec<u8>>> {
        ranges.retain_mut(|range| {
            range.from = range.from.max(from);
            range.to.is_none_or(|to| range.from < to)
        });
        let pages = self.slice_bytes / self.store.page_bytes() as u64;
        let mut left = usize::try_from(pages).unwrap_or(usize::MAX).max(1);
        // They may overlap: what is below this was counted.
        let mut counted = from;
        for range in &*ranges {
            let start = range.from.max(counted);
            if range.to.is_some_and(|to| to <= start) {
                continue;
            }
            if left == 0 {
                return Ok(Some(start.to_vec()));
            }
            match reach(&*self.store, root, (start, range.to), left)? {
                Reach::Within(leaves) => left = left.saturating_sub(leaves),
                // Anything else is damage, which the merge will find.
                Reach::Beyond(key) => return Ok(Some(key).filter(|key| &**key > from)),
            }
            match range.to {
                Some(to) => counted = to,
                None => break,
            }
        }
        Ok(None)
    }
}

/// Those of a table, in the order in which they begin.
pub(super) fn range_deletes(frozen: &Delta, table: TableId) -> Vec<RangeDelete<'_>> {
    let mut ranges: Vec<_> = frozen
        .range_deletes(table, TxnId::MAX)
        .map(|range| RangeDelete {
            from: range.from,
            to: range.to,
            txn: range.txn,
        })
        .collect();
    ranges.sort_by(|a, b| a.from.cmp(b.from));
    ranges
}
