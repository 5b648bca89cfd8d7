//! No state shows two versions of a key: the versions of all runs together, and the rows of the trees, one after the other.

use std::ops::Bound;

use super::run::Checkpointer;
use crate::error::Result;
use crate::format::meta::TreeRoot;
use crate::history::{History, split_key, table_of, unpack};
use crate::ids::TxnId;
use crate::pages::Class;
use crate::tree::cursor::Cursor;
use crate::txn::shape::Roots;

impl Checkpointer {
    /// Goes over the versions of all runs in the order of their keys and ends. Each is to begin no earlier than the one before it
    /// has ended, or to have the same begin and end: two runs may hold one version. The tree's row is to be no earlier than the last.
    ///
    /// - Cost: a look at each run for each version, and a search for each key.
    pub(super) fn check_overlaps(
        &self,
        history: &History,
        roots: &Roots,
        faults: &mut Vec<String>,
    ) -> Result<()> {
        let store = &*self.store;
        let mut cursors = Vec::with_capacity(history.runs.len());
        for run in &history.runs {
            let mut cursor = Cursor::new(store, Some(run.tree.page), Class::Once);
            cursor.seek(Bound::Unbounded)?;
            cursors.push(cursor);
        }
        let mut key = Vec::new();
        let mut last = Last::default();
        loop {
            let rows = cursors.iter().enumerate();
            let rows = rows.filter_map(|(index, cursor)| Some((cursor.row()?.key, index)));
            let Some(cursor) = rows
                .min()
                .map(|(_, index)| index)
                .and_then(|index| cursors.get_mut(index))
            else {
                return Ok(());
            };
            if let Some(row) = cursor.row()
                && let Some((packed, to)) = split_key(row.key)
            {
                if last.packed != packed {
                    last.packed.clear();
                    last.packed.extend_from_slice(packed);
                    last.version = None;
                    let table = table_of(packed).unwrap_or_default();
                    last.now = match roots.get(table) {
                        Some(root) if unpack(packed, &mut key) => self.written_by(root, &key)?,
                        Some(_) | None => None,
                    };
                }
                faults.extend(last.fault(row.txn, to));
                last.version = Some((row.txn, to));
            }
            cursor.next()?;
        }
    }

    /// Who wrote the row of a key.
    fn written_by(&self, root: &TreeRoot, key: &[u8]) -> Result<Option<TxnId>> {
        let mut cursor = Cursor::new(&*self.store, Some(root.page), Class::Once);
        cursor.seek(Bound::Included(key))?;
        let row = cursor.row().filter(|row| row.key == key);
        Ok(row.map(|row| row.txn))
    }
}

/// What came before in the order of keys and ends.
#[derive(Default)]
struct Last {
    packed: Vec<u8>,
    /// Begin and end of the version before, if it is of the same key.
    version: Option<(TxnId, TxnId)>,
    /// Who wrote the row that the key has now.
    now: Option<TxnId>,
}

impl Last {
    /// What is wrong with the next version of the key, if anything.
    fn fault(&self, from: TxnId, to: TxnId) -> Option<String> {
        let key = &self.packed;
        match (self.version, self.now) {
            (Some((other, end)), _) if (other, end) != (from, to) && from < end => Some(format!(
                "versions from {other} to {end} and from {from} to {to} of one key: {key:02x?}"
            )),
            (_, Some(now)) if now < to => Some(format!(
                "a version from {from} to {to} of a key whose row is from {now}: {key:02x?}"
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_follow_each_other_and_the_row_comes_last() {
        let txn = TxnId::new;
        let fault = |version: Option<(u64, u64)>, now: Option<u64>, (from, to): (u64, u64)| {
            let last = Last {
                packed: vec![1],
                version: version.map(|(from, to)| (txn(from), txn(to))),
                now: now.map(txn),
            };
            last.fault(txn(from), txn(to)).is_some()
        };
        assert!(!fault(None, None, (3, 5)));
        assert!(!fault(Some((3, 5)), None, (5, 6)));
        assert!(!fault(Some((3, 5)), Some(9), (7, 9)));
        assert!(!fault(Some((3, 5)), None, (3, 5)), "a copy");
        assert!(fault(Some((3, 5)), None, (4, 6)));
        assert!(fault(Some((3, 5)), None, (4, 5)));
        assert!(fault(None, Some(8), (7, 9)));
    }
}
