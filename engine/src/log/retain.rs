//! How long the log is kept after nothing but its readers needs it.
//!
//! The log's start, as meta knows it, is what recovery needs; policy keeps whole segments before it.
//!
//! - Cost: one read of a segment's first group, once per segment.
//! - Spec: SE-016.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::LogError;
use super::follow::Follower;
use super::segment::Segments;
use crate::ids::{Lsn, TxnId};

/// How much of the past is kept in the commit log, beyond what recovery needs: see [`Log`](crate::Log).
///
/// Kept are whole segments of the log (see [`Options::log_segment_bytes`](crate::Options::log_segment_bytes)), so somewhat more
/// than asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Retention {
    /// Nothing: the log holds what is not in pages yet.
    #[default]
    None,
    /// The last transactions, so many.
    Txns(u64),
    /// What was committed during the last so long, by the wall clock.
    Age(Duration),
    /// The last bytes of the log, so many.
    Bytes(u64),
    /// Everything, for ever.
    All,
}

/// Applies a [`Retention`].
#[derive(Debug)]
pub(crate) struct Retainer {
    policy: Retention,
    database: u64,
    /// The first transaction that begins in a segment or after it, and its time.
    begins: BTreeMap<u64, (TxnId, u64)>,
}

impl Retainer {
    pub(crate) fn new(policy: Retention, database: u64) -> Self {
        Self {
            policy,
            database,
            begins: BTreeMap::new(),
        }
    }

    /// From where on the log is kept, if recovery needs it from `lsn` on: `newest` is the last transaction, `now_ns` the time.
    ///
    /// # Errors
    /// What reading meets.
    pub(crate) fn keep_from(
        &mut self,
        segments: &Arc<Segments>,
        lsn: Lsn,
        newest: TxnId,
        now_ns: u64,
    ) -> Result<Lsn, LogError> {
        let keeps = |(txn, time): (TxnId, u64)| match self.policy {
            Retention::Txns(many) => txn.get() > newest.get().saturating_sub(many) + 1,
            Retention::Age(age) => {
                let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
                time > now_ns.saturating_sub(age)
            }
            Retention::None | Retention::Bytes(_) | Retention::All => false,
        };
        match self.policy {
            Retention::None => return Ok(lsn),
            Retention::All => return Ok(Lsn::new(0)),
            Retention::Bytes(bytes) => {
                let from = segments.end().get().saturating_sub(bytes);
                return Ok(lsn.min(Lsn::new(from)));
            }
            Retention::Txns(_) | Retention::Age(_) => {}
        }
        let last = segments.locate(lsn).0;
        let mut from = last;
        for number in segments.numbers_from(0) {
            if number >= last {
                break;
            }
            // Something in it is wanted unless what begins after it is the first that is wanted, or an earlier one.
            let next = number + 1;
            let begins = match self.begins.get(&next) {
                Some(known) => Some(*known),
                None => Follower::begins(segments, self.database, next)?,
            };
            let Some(begins) = begins.filter(|begins| !keeps(*begins)) else {
                from = number;
                break;
            };
            self.begins.insert(next, begins);
        }
        self.begins = self.begins.split_off(&from);
        Ok(lsn.min(Lsn::new(from * segments.segment_bytes())))
    }
}
