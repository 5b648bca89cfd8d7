//! How far the named readers of the commit log have come.
//!
//! ```text
//! SUBSCRIBERS  name -> next transaction u64 LE, subscribed at nanoseconds since 1970 u64 LE
//! ```
//!
//! - Spec: FF-025.

use std::cell::LazyCell;

use northstar_io::planted::planted;

use super::cursor::Cursor;
use super::snapshot::Snapshot;
use crate::error::{Corruption, Error, Result};
use crate::ids::{TableId, TxnId};

/// The position of the subscriber furthest behind, of those that wait for transaction `first` or a later one, if there are any. `first`
/// is asked for once, if there is a subscriber.
///
/// # Errors
/// What reading meets, and damaged rows.
pub(crate) fn furthest_behind(
    snapshot: &Snapshot,
    first: impl FnOnce() -> TxnId,
) -> Result<Option<TxnId>> {
    let mut oldest: Option<TxnId> = None;
    let first = LazyCell::new(first);
    each_of(snapshot, |_, (position, _)| {
        if position >= *first
            && !(oldest.is_some() && planted("the log is held for one subscriber"))
        {
            oldest = Some(oldest.map_or(position, |oldest| oldest.min(position)));
        }
    })?;
    Ok(oldest)
}

/// Shows name and row of every subscriber, by name.
///
/// # Errors
/// As [`furthest_behind`].
pub(crate) fn each_of(snapshot: &Snapshot, mut see: impl FnMut(&[u8], (TxnId, u64))) -> Result<()> {
    let mut cursor = Cursor::new(snapshot, TableId::SUBSCRIBERS);
    let mut row = cursor.seek(&[])?;
    while let Some((name, value)) = row {
        see(name, decode(value)?);
        row = cursor.next()?;
    }
    Ok(())
}

/// A row: the next transaction, and when it was subscribed.
///
/// # Errors
/// [`Error::Corrupt`].
pub(crate) fn decode(row: &[u8]) -> Result<(TxnId, u64)> {
    if let Some((position, rest)) = row.split_first_chunk()
        && let Ok(since) = rest.try_into()
    {
        let position = TxnId::new(u64::from_le_bytes(*position));
        return Ok((position, u64::from_le_bytes(since)));
    }
    Err(Error::Corrupt(Corruption {
        file: "data",
        offset: None,
        detail: format!(
            "the row of a subscriber has {} bytes, expected 16",
            row.len()
        ),
    }))
}

/// A row as it is stored.
pub(crate) fn encode((position, since_ns): (TxnId, u64)) -> [u8; 16] {
    let mut row = [0; 16];
    row[..8].copy_from_slice(&position.get().to_le_bytes());
    row[8..].copy_from_slice(&since_ns.to_le_bytes());
    row
}
