//! Where in the log transactions are, to the segment.
//!
//! - Cost: one block of a segment, once for each that a search comes to; then none.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::LogError;
use super::bytes::{Bytes, find};
use super::segment::Segments;
use crate::format::group::Group;
use crate::ids::{Lsn, TxnId};

/// See the module; of a log that is durable up to some position.
#[derive(Debug)]
pub(crate) struct Places {
    bytes: Bytes,
    database: u64,
    end: Lsn,
    numbers: Vec<u64>,
    /// The first group in a segment or after it, for those that were looked at.
    first: BTreeMap<u64, Option<Group>>,
}

impl Places {
    pub(crate) fn new(segments: &Arc<Segments>, database: u64, end: Lsn) -> Self {
        let bytes = Bytes::sparing(Arc::clone(segments));
        let numbers = bytes.numbers(end);
        Self {
            bytes,
            database,
            end,
            numbers,
            first: BTreeMap::new(),
        }
    }

    /// Where the first group begins of the segment in which `txn` is, or would be if it is the next. None if it was let go.
    ///
    /// # Errors
    /// What reading meets.
    pub(crate) fn segment_of(&mut self, txn: TxnId) -> Result<Option<Lsn>, LogError> {
        let (bytes, first) = (&mut self.bytes, &mut self.first);
        let found = find(&self.numbers, txn, |number| {
            if let Some(known) = first.get(&number) {
                return Ok(*known);
            }
            let group = bytes.first_group(number, self.database, self.end)?;
            first.insert(number, group);
            Ok(group)
        })?;
        Ok(found.map(|group| group.lsn))
    }

    /// Bytes of the log from the segment on in which `from` is, to the end of that in which `to` is. None if `from` was let go.
    ///
    /// # Errors
    /// What reading meets.
    pub(crate) fn bytes_of(&mut self, from: TxnId, to: TxnId) -> Result<Option<u64>, LogError> {
        let (Some(from), Some(to)) = (self.segment_of(from)?, self.segment_of(to)?) else {
            return Ok(None);
        };
        let segment = self.bytes.segments.segment_bytes();
        let to = to.plus(segment).min(self.end);
        Ok(Some(to.get().saturating_sub(from.get())))
    }
}
