//! The tree of roots: the one place that writes its rows.
//!
//! Rows carry the generation that wrote them in the place of a transaction. A row written with anything else would pass for
//! newer than those of later checkpoints, and stay.

use crate::error::Result;
use crate::format::meta::TreeRoot;
use crate::ids::{Generation, TableId, TxnId};
use crate::pages::store::Store;
use crate::pages::write::PageSink;
use crate::tree::merge::{Change, ChangeKind, Forget, merge};
use crate::txn::shape::Roots;

/// Writes the roots of the tables `changed`, in the order of their ids, into the tree of roots, with `generation`.
pub(crate) fn merge_roots(
    store: &Store,
    sink: &mut PageSink<'_>,
    generation: Generation,
    changed: &[TableId],
    roots: &mut Roots,
) -> Result<()> {
    let rows: Vec<_> = changed
        .iter()
        .filter(|table| **table != TableId::NAMES)
        .map(|table| {
            let row = roots.get(*table).map(TreeRoot::encode);
            (table.get().to_be_bytes(), row)
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let txn = TxnId::new(u64::from(generation.get()));
    let changes = rows.iter().map(|(key, row)| Change {
        key,
        txn,
        kind: ChangeKind::of(row.as_ref().map(|row| &row[..])),
    });
    let (table, old) = (TableId::ROOTS, roots.get(TableId::ROOTS));
    let old = old.map(|root| root.page);
    let merged = merge(store, sink, table, old, changes, &[], &mut Forget)?;
    roots.set(table, merged.tree());
    Ok(())
}
