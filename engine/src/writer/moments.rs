//! When transactions were committed and what tags they carry, as rows of system tables, where history is kept.
//!
//! They are put beside a transaction's own changes, by whoever applies it: the writer, or the replay of its record. So the
//! log need not say them twice, and checkpoints merge them like any rows.
//!
//! ```text
//! TIMES   first transaction of a millisecond u64 BE -> its time, nanoseconds since 1970, u64 BE
//! TAGS    transaction u64 BE -> its tag
//! TAGGED  tag -> the last transaction that carried it, u64 BE
//! ```
//!
//! - Cost: one insertion a millisecond, and two for each tag.
//! - Spec: FF-024.

use crate::delta::{DeltaFull, DeltaWriter};
use crate::ids::{TableId, TxnId};

/// Nanoseconds of the finest time that is told.
pub(crate) const RESOLUTION_NS: u64 = 1_000_000;

/// Whether the millisecond of `time_ns` is another than that of the last transaction.
fn begins_another(time_ns: u64, last_ns: Option<u64>) -> bool {
    last_ns.is_none_or(|last| time_ns / RESOLUTION_NS != last / RESOLUTION_NS)
}

/// Notes `txn`, committed at `time_ns` with `tag`; the one before was committed at `last_ns`, if that was noted.
///
/// # Errors
/// [`DeltaFull`]; some of it may stand.
pub(crate) fn note(
    writer: &mut DeltaWriter,
    txn: TxnId,
    (time_ns, last_ns): (u64, Option<u64>),
    tag: &[u8],
) -> Result<(), DeltaFull> {
    let number = txn.get().to_be_bytes();
    if begins_another(time_ns, last_ns) {
        writer.put(TableId::TIMES, &number, &time_ns.to_be_bytes(), txn)?;
    }
    if !tag.is_empty() {
        writer.put(TableId::TAGS, &number, tag, txn)?;
        writer.put(TableId::TAGGED, tag, &number, txn)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_noted_once_a_millisecond() {
        assert!(begins_another(5, None));
        assert!(!begins_another(999_999, Some(5)));
        assert!(begins_another(1_000_000, Some(999_999)));
        assert!(!begins_another(1_999_999, Some(1_000_000)));
    }
}
