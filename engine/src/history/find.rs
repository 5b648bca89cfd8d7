//! The version of one key that a transaction saw, from the runs.

use std::cell::Cell;
use std::ops::Bound;

use northstar_io::planted::planted;

use super::filter;
use super::key;
use super::run::Run;
use crate::format::leaf::RowValue;
use crate::format::overflow::ExtentRef;
use crate::format::page::PageError;
use crate::ids::{TableId, TxnId};
use crate::pages::{Class, PageRead};
use crate::tree::cursor::Cursor;
use crate::tree::search::{Found, ceiling};

/// A value of the past.
#[derive(Debug)]
pub(crate) enum Past<Pin> {
    /// In a page, or named by it.
    Found(Found<Pin>),
    /// Copied.
    Copied(Vec<u8>),
    /// In pages of its own.
    Extent(ExtentRef),
}

/// What a thread keeps to look back with, so that it allocates nothing.
#[derive(Default)]
struct Buffers {
    /// The key of history that is looked for.
    wanted: Vec<u8>,
    /// One that was found.
    found: Vec<u8>,
}

thread_local! {
    static BUFFERS: Cell<Buffers> = const {
        Cell::new(Buffers {
            wanted: Vec::new(),
            found: Vec::new(),
        })
    };
}

/// The version of `key` seen at `at`, if one of `runs` has it: runs that end after `at`, oldest first.
///
/// # Errors
/// A page that cannot be read or contradicts itself.
pub(crate) fn find<'p, P: PageRead>(
    pages: &'p P,
    runs: &[Run],
    table: TableId,
    key: &[u8],
    at: TxnId,
) -> Result<Option<Past<P::Pin<'p>>>, PageError> {
    // Taken, not borrowed: reading may wait, and let others on.
    let mut buffers = BUFFERS.try_with(Cell::take).unwrap_or_default();
    let found = find_with(&mut buffers, pages, runs, (table, key), at);
    // Of a thread that is about to end, there is nothing to keep.
    BUFFERS.try_with(|kept| kept.set(buffers)).ok();
    found
}

fn find_with<'p, P: PageRead>(
    buffers: &mut Buffers,
    pages: &'p P,
    runs: &[Run],
    (table, key): (TableId, &[u8]),
    at: TxnId,
) -> Result<Option<Past<P::Pin<'p>>>, PageError> {
    let Buffers { wanted, found } = buffers;
    key::pack(table, key, wanted);
    let packed = wanted.len();
    key::push_end(at.next(), wanted);
    // If there is but one, it is likely to have it.
    let asked = (runs.len() > 1).then(|| filter::hash(&wanted[..packed]));
    for run in runs {
        if let (Some(hash), Some(root)) = (asked, run.filter) {
            let key = (&wanted[..packed], hash);
            if !filter::may_have(pages, root.page, key, found)? {
                continue;
            }
        }
        // The first version that ended after `at` is the only one that can have been seen; if the run has none, it has
        // no version of the key that ended within its span, or all of them ended before.
        let is_key =
            |stored: &[u8]| key::split(stored).is_some_and(|(own, _)| own == &wanted[..packed]);
        let row = ceiling(pages, run.tree.page, wanted, found)?;
        if let Some((txn, row)) = row {
            if is_key(found) {
                let txn = match planted("a version is seen before it was written") {
                    true => at,
                    false => txn,
                };
                return Ok((txn <= at).then_some(Past::Found(row)));
            }
            continue;
        }
        // It may be the first of the next leaf.
        let mut cursor = Cursor::new(pages, Some(run.tree.page), Class::Point);
        cursor.seek(Bound::Included(wanted))?;
        if let Some(row) = cursor.row()
            && is_key(row.key)
        {
            return Ok((row.txn <= at).then(|| match row.value {
                RowValue::Inline(value) => Past::Copied(value.to_vec()),
                RowValue::Extent(extent) => Past::Extent(extent),
            }));
        }
    }
    Ok(None)
}
