//! Everything that runs hold of one key, and the keys that they say were changed.

use std::ops::Bound;

use super::key;
use super::run::Run;
use crate::format::leaf::RowValue;
use crate::format::page::PageError;
use crate::ids::{TableId, TxnId};
use crate::pages::{Class, PageRead};
use crate::tree::cursor::{Cursor, CursorRow};

/// Calls `each` with who wrote a version of `key`, who ended it, and its value; oldest run first.
///
/// # Errors
/// A page that cannot be read or contradicts itself.
pub(crate) fn versions<P: PageRead>(
    pages: &P,
    runs: &[Run],
    table: TableId,
    key: &[u8],
    mut each: impl FnMut(TxnId, TxnId, RowValue<'_>) -> Result<(), PageError>,
) -> Result<(), PageError> {
    let mut wanted = Vec::new();
    key::pack(table, key, &mut wanted);
    for run in runs {
        let mut cursor = Cursor::new(pages, Some(run.tree.page), Class::Point);
        cursor.seek(Bound::Included(&wanted))?;
        while let Some(row) = cursor.row()
            && let Some((packed, to)) = key::split(row.key)
            && packed == wanted
        {
            each(row.txn, to, row.value)?;
            cursor.next()?;
        }
    }
    Ok(())
}

/// Adds to `keys` the keys of `table` of which `runs` hold a version that was written or ended after `after` and not after
/// `until`.
///
/// # Errors
/// A page that cannot be read or contradicts itself.
pub(crate) fn changed_keys<P: PageRead>(
    pages: &P,
    runs: &[Run],
    table: TableId,
    (after, until): (TxnId, TxnId),
    keys: &mut Vec<Vec<u8>>,
) -> Result<(), PageError> {
    let within = |txn: TxnId| after < txn && txn <= until;
    let own = key::table_prefix(table);
    let mut found = Vec::new();
    for run in runs {
        let mut cursor = Cursor::new(pages, Some(run.tree.page), Class::Scan);
        cursor.seek(Bound::Included(&own))?;
        let is_own = |row: &CursorRow<'_>| row.key.starts_with(&own);
        while let Some(row) = cursor.row().filter(is_own)
            && let Some((packed, to)) = key::split(row.key)
        {
            let changed = within(row.txn) || within(to);
            if changed && key::unpack(packed, &mut found) && keys.last() != Some(&found) {
                keys.push(found.clone());
            }
            cursor.next()?;
        }
    }
    Ok(())
}
