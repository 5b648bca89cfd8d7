//! The changes of one table, from a frozen delta to the merge, stopping where a slice ends.

use crate::delta::{Delta, DeltaCursor};
use crate::ids::{TableId, TxnId};
use crate::tree::merge::{Change, ChangeKind};

/// Newest versions of a table's keys in key order.
pub(crate) struct Feed<'d, 'u, F> {
    cursor: DeltaCursor<'d>,
    /// The first key that is not given.
    until: Option<&'u [u8]>,
    /// Asked before each change but the first: is the slice full?
    full: F,
    /// Changes given to the merge.
    pub(crate) fed: u64,
}

impl<F> std::fmt::Debug for Feed<'_, '_, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed")
            .field("fed", &self.fed)
            .finish_non_exhaustive()
    }
}

impl<'d, 'u, F: Fn() -> bool> Feed<'d, 'u, F> {
    /// The changes of `table` to keys from `from` on and below `until`.
    pub(crate) fn new(
        delta: &'d Delta,
        table: TableId,
        (from, until): (&[u8], Option<&'u [u8]>),
        full: F,
    ) -> Self {
        let mut cursor = delta.cursor(table, TxnId::MAX);
        cursor.seek(from);
        Self {
            cursor,
            until,
            full,
            fed: 0,
        }
    }

    /// The first key that was not given: where the next slice begins. `None` at the table's end.
    pub(crate) fn resume_key(&self) -> Option<&[u8]> {
        let next = self.cursor.current().map(|(key, _)| key);
        // What is deleted from there on is no change of a key.
        next.into_iter().chain(self.until).min()
    }
}

impl<'d, F: Fn() -> bool> Iterator for Feed<'d, '_, F> {
    type Item = Change<'d>;

    fn next(&mut self) -> Option<Change<'d>> {
        if self.fed > 0 && (self.full)() {
            return None;
        }
        let (key, hit) = self.cursor.current()?;
        if self.until.is_some_and(|until| until <= key) {
            return None;
        }
        self.cursor.next();
        self.fed += 1;
        let kind = hit.value.map_or(ChangeKind::Delete, ChangeKind::Put);
        Some(Change {
            key,
            txn: hit.txn,
            kind,
        })
    }
}
