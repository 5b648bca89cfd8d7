//! The digest of the state that the trees hold: carried along by every slice, and noted where a checkpoint ends.
//!
//! Spec: SE-020.

use std::ops::Bound;

use super::run::Checkpointer;
use crate::error::Result;
use crate::format::leaf::RowValue;
use crate::ids::{TableId, TxnId};
use crate::pages::Class;
use crate::pages::write::PageSink;
use crate::retention::Retention;
use crate::state::{Noted, StateHash};
use crate::tree::cursor::Cursor;
use crate::tree::merge::{Change, ChangeKind, Forget, merge};
use crate::tree::overflow::read_extent;
use crate::txn::shape::Roots;

impl Checkpointer {
    /// The digest of what the trees at `roots` hold, which are those that the meta page names. Rows are read only where
    /// history, and the digest with it, is kept from now on and was not before.
    pub(super) fn present_state(&self, roots: &Roots) -> Result<StateHash> {
        if !self.keeps_history() {
            return Ok(StateHash::default());
        }
        match &self.meta.history {
            Some(kept) if kept.policy != Retention::None => Ok(kept.state),
            _ => self.hash_trees(roots),
        }
    }

    fn hash_trees(&self, roots: &Roots) -> Result<StateHash> {
        let store = &*self.store;
        let mut state = StateHash::default();
        for (table, root) in roots.iter().filter(|(table, _)| StateHash::covers(*table)) {
            let mut cursor = Cursor::new(store, Some(root.page), Class::Scan);
            cursor.seek(Bound::Unbounded)?;
            while let Some(row) = cursor.row() {
                match row.value {
                    RowValue::Inline(value) => state.add(table, row.key, value),
                    RowValue::Extent(extent) => {
                        let value = read_extent(store, &extent, store.page_bytes(), Class::Scan)?;
                        state.add(table, row.key, &value);
                    }
                }
                cursor.next()?;
            }
        }
        Ok(state)
    }

    /// Notes `state` as that after `txn`, with which a checkpoint ends, and the generation that this is.
    pub(super) fn note_state(
        &self,
        (txn, state): (TxnId, StateHash),
        roots: &mut Roots,
        sink: &mut PageSink<'_>,
    ) -> Result<()> {
        let noted = Noted {
            state,
            generation: self.meta.generation.next(),
        };
        let (key, value) = (txn.get().to_be_bytes(), noted.encode());
        let change = Change {
            key: &key,
            txn,
            kind: ChangeKind::Put(&value),
        };
        let root = roots.get(TableId::STATES).map(|root| root.page);
        let (store, table) = (&*self.store, TableId::STATES);
        let merged = merge(store, sink, table, root, [change], &[], &mut Forget)?;
        roots.set(table, merged.tree());
        Ok(())
    }
}
