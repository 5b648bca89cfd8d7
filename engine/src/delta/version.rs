//! Versions: the records behind a key, newest first.
//!
//! Invariant: along a chain of `older` links transaction ids never rise and arena offsets fall, so of two records of one
//! transaction the one at the higher offset was written later and wins.

use northstar_io::planted::planted;

use super::arena::{Arena, At, Record, RecordRef};
use crate::ids::TxnId;

/// A value was stored.
pub(super) const PUT: u8 = 0;
/// The key was deleted.
pub(super) const DELETE: u8 = 1;
/// A range was deleted: from the record's key up to its value, exclusive.
pub(super) const DELETE_TO: u8 = 2;
/// A range was deleted: from the record's key to the end of the table.
pub(super) const DELETE_FROM: u8 = 3;

/// What the delta knows of a key at a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit<'d> {
    /// The transaction that wrote or deleted the key.
    pub(crate) txn: TxnId,
    /// The value, or none if the key was deleted.
    pub(crate) value: Option<&'d [u8]>,
}

impl<'d> Hit<'d> {
    /// What `record`, a put or delete, says.
    #[inline]
    pub(super) fn of(record: &RecordRef<'d>) -> Self {
        Self {
            txn: TxnId::new(record.txn()),
            value: if record.kind() == PUT {
                Some(record.value)
            } else {
                None
            },
        }
    }
}

/// The first record from `newest` on that stands and that snapshot `at` sees, and where it is.
#[inline]
pub(super) fn visible(
    arena: &Arena,
    newest: At<Record>,
    at: TxnId,
) -> Option<(At<Record>, RecordRef<'_>)> {
    let mut here = newest;
    loop {
        let record = arena.record(here);
        let seen = record.txn() <= at.get() || planted("a snapshot sees what came after it");
        if seen && (!record.is_aborted() || planted("what was taken back is seen")) {
            return Some((here, record));
        }
        here = record.older()?;
    }
}

/// What counts for a key: its newest visible version or the newest range delete over it, whichever was written later.
pub(super) fn newer_of<'d>(
    version: Option<(At<Record>, Hit<'d>)>,
    covering: Option<(At<Record>, TxnId)>,
) -> Option<Hit<'d>> {
    let Some((range, txn)) = covering else {
        return version.map(|(_, hit)| hit);
    };
    match version {
        Some((record, hit)) if (hit.txn, record.offset()) > (txn, range.offset()) => Some(hit),
        _ => Some(Hit { txn, value: None }),
    }
}
