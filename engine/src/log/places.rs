//! Where in the log transactions are, to the segment.
//!
//! - Cost: what [`super::begins`] does not know is looked for, mostly one block of a segment, once; where groups that another
//!   process wrote are longer than segments, up to the next that begins. What claims to be a group and is none is met each time.

use std::sync::Arc;

use super::LogError;
use super::bytes::Bytes;
use super::segment::Segments;
use crate::ids::{Lsn, TxnId};

/// See the module; of a log that is durable up to some position.
#[derive(Debug)]
pub(crate) struct Places {
    bytes: Bytes,
    database: u64,
    end: Lsn,
}

impl Places {
    pub(crate) fn new(segments: &Arc<Segments>, database: u64, end: Lsn) -> Self {
        Self {
            bytes: Bytes::new(Arc::clone(segments)),
            database,
            end,
        }
    }

    /// Where the first group begins of the segment in which `txn` is, or would be if it is the next. None if it was let go.
    ///
    /// # Errors
    /// What reading meets.
    pub(crate) fn segment_of(&mut self, txn: TxnId) -> Result<Option<Lsn>, LogError> {
        let found = self.bytes.find(self.database, txn, self.end)?;
        Ok(found.map(|first| first.lsn))
    }

    /// Bytes of the log from the segment on in which `from` is, to the first group of a segment after that in which `to` is.
    /// None if `from` was let go.
    ///
    /// # Errors
    /// What reading meets.
    pub(crate) fn bytes_of(&mut self, from: TxnId, to: TxnId) -> Result<Option<u64>, LogError> {
        let (Some(from), Some(to)) = (self.segment_of(from)?, self.segment_of(to)?) else {
            return Ok(None);
        };
        let after = self.bytes.segments.locate(to).0 + 1;
        let next = self.bytes.first_group(after, self.database, self.end)?;
        let to = next.map_or(self.end, |next| next.lsn);
        Ok(Some(to.get().saturating_sub(from.get())))
    }
}
