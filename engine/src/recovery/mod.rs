//! Recovery: from what a stop of any kind left on disk to an open database.
//!
//! The newest sound meta page names the trees and the place in the log from which they must be caught up. The log's
//! tail is replayed into a delta by the same function that applies commits. Until that has succeeded nothing is
//! written; then the log is cut after its last sound group, durably, before anything new is acknowledged. Done
//! again after any interruption it gives the same result. Spec: CC-020 to CC-023.

use std::sync::Arc;

use crate::delta::{Delta, DeltaWriter};
use crate::error::{Corruption, Error, Result};
use crate::format::record::{Op, Record, RecordError};
use crate::ids::{Lsn, TableId, TxnId};
use crate::log::{LogError, LogPosition, ScanEnd, ScanStart, Segments, scan};
use crate::writer::core::{Ahead, apply_op, delta_full, is_of_known_table};
use crate::writer::moments::note;

/// What replaying the log gave.
pub(crate) struct Replayed {
    pub(crate) delta: Arc<Delta>,
    pub(crate) writer: DeltaWriter,
    pub(crate) end: ScanEnd,
    /// Above every table id seen.
    pub(crate) next_table: TableId,
    /// Wall clock of the last record.
    pub(crate) last_timestamp_ns: u64,
    /// Tables that were dropped, and by whom.
    pub(crate) dropped: Vec<(TableId, TxnId)>,
}

impl Replayed {
    /// After a clean close there is nothing to replay.
    pub(crate) fn nothing(
        end: LogPosition,
        next_table: TableId,
        (delta, writer): (Arc<Delta>, DeltaWriter),
    ) -> Self {
        let end = ScanEnd {
            end,
            proven: end.lsn,
            groups: 0,
            records: 0,
            torn: false,
        };
        Self {
            delta,
            writer,
            end,
            next_table,
            last_timestamp_ns: 0,
            dropped: Vec::new(),
        }
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        let detail = error.to_string();
        match error {
            LogError::Io(source) => Self::from_io("the commit log", source),
            LogError::Corrupt { at, .. }
            | LogError::Short { at, .. }
            | LogError::Lost { at, .. }
            | LogError::Record { group: at, .. } => Self::Corrupt(Corruption {
                file: "log",
                offset: Some(at.get()),
                detail,
            }),
            LogError::Gone => Self::Corrupt(Corruption {
                file: "log",
                offset: None,
                detail,
            }),
            LogError::Halted => Self::Halted {
                reason: detail.into(),
            },
        }
    }
}

fn bad_record(group: Lsn, error: &RecordError) -> Error {
    Error::Corrupt(Corruption {
        file: "log",
        offset: Some(group.get()),
        detail: error.to_string(),
    })
}

/// Replays the log from `start` into a new delta, and `notes` times and tags there or not. Writes nothing to disk.
pub(crate) fn replay(
    segments: &Segments,
    start: ScanStart,
    next_table: TableId,
    notes: bool,
    (delta, mut writer): (Arc<Delta>, DeltaWriter),
) -> Result<Replayed> {
    let mut next_table = next_table;
    let mut noted_ns = None;
    let mut last_timestamp_ns = 0;
    let mut dropped = Vec::new();
    let end = scan(segments, start, |group, record: Record<'_>| {
        last_timestamp_ns = record.timestamp_ns.max(last_timestamp_ns);
        let mut ahead = Ahead::of(record.ops());
        for op in record.ops() {
            ahead.step(&writer);
            let op = op.map_err(|error| bad_record(group, &error))?;
            if !is_of_known_table(&op, &mut next_table)? {
                let table = op.table();
                return Err(Error::Corrupt(Corruption {
                    file: "log",
                    offset: Some(group.get()),
                    detail: format!(
                        "{:?} changes {table:?}, which was never given out; the next new table is {next_table:?}",
                        record.txn
                    ),
                }));
            }
            if let Op::DropTable { table } = op {
                dropped.push((table, record.txn));
            }
            apply_op(&mut writer, &op, record.txn)?;
        }
        if notes {
            let times = (last_timestamp_ns, noted_ns);
            note(&mut writer, record.txn, times, record.tag()).map_err(delta_full)?;
            noted_ns = Some(last_timestamp_ns);
        }
        // Replay takes nothing back.
        writer.forget_marks();
        Ok::<(), Error>(())
    })?;
    Ok(Replayed {
        delta,
        writer,
        end,
        next_table,
        last_timestamp_ns,
        dropped,
    })
}

#[cfg(test)]
mod tests;
