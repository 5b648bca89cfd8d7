//! Everything that runs hold of one key, or of one table.

use std::ops::{Bound, ControlFlow};

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

/// Calls `each` with the key, the writer and the ender of every version of `table` in `runs`, until it breaks.
///
/// # Errors
/// A page that cannot be read or contradicts itself.
pub(crate) fn rows<P: PageRead>(
    pages: &P,
    runs: &[Run],
    table: TableId,
    mut each: impl FnMut(&[u8], TxnId, TxnId) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, PageError> {
    let own = key::table_prefix(table);
    let mut unpacked = Vec::new();
    for run in runs {
        let mut cursor = Cursor::new(pages, Some(run.tree.page), Class::Scan);
        cursor.seek(Bound::Included(&own))?;
        let is_own = |row: &CursorRow<'_>| row.key.starts_with(&own);
        while let Some(row) = cursor.row().filter(is_own)
            && let Some((packed, to)) = key::split(row.key)
        {
            if key::unpack(packed, &mut unpacked) && each(&unpacked, row.txn, to).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            cursor.next()?;
        }
    }
    Ok(ControlFlow::Continue(()))
}
