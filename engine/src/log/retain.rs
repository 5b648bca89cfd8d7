//! How long the log is kept after nothing but its readers needs it.
//!
//! The log's start, as meta knows it, is what recovery needs; policy keeps whole segments before it.
//!
//! - Cost: one read of a segment's first group, once per segment.
//! - Spec: SE-016.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::follow::Follower;
use super::segment::Segments;
use crate::ids::{Lsn, TxnId};
use crate::retention::Retention;

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
    /// What cannot be read is kept until what follows it can go.
    pub(crate) fn keep_from(
        &mut self,
        segments: &Arc<Segments>,
        lsn: Lsn,
        newest: TxnId,
        now_ns: u64,
    ) -> Lsn {
        let keeps = |(txn, time): (TxnId, u64)| match self.policy {
            Retention::Txns(many) => txn.get() > newest.get().saturating_sub(many) + 1,
            Retention::Age(age) => {
                let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
                time > now_ns.saturating_sub(age)
            }
            Retention::None | Retention::Bytes(_) | Retention::All => false,
        };
        match self.policy {
            Retention::None => return lsn,
            Retention::All => return Lsn::new(0),
            Retention::Bytes(bytes) => {
                let from = segments.end().get().saturating_sub(bytes);
                return lsn.min(Lsn::new(from));
            }
            Retention::Txns(_) | Retention::Age(_) => {}
        }
        let last = segments.locate(lsn).0;
        let mut numbers = segments.numbers_from(0);
        numbers.retain(|number| *number < last);
        let mut from = numbers.first().copied().unwrap_or(last);
        for number in numbers {
            // Nothing in it is wanted if what begins after it is the first that is wanted, or an earlier one.
            let next = number + 1;
            let begins = match self.begins.get(&next) {
                Some(known) => Ok(Some(*known)),
                None => Follower::begins(segments, self.database, next),
            };
            match begins {
                Ok(Some(begins)) if !keeps(begins) => {
                    self.begins.insert(next, begins);
                    from = next;
                }
                Ok(_) => break,
                // What nobody needs any more must not stop checkpoints: a later segment says whether it can go.
                Err(_) => {}
            }
        }
        self.begins = self.begins.split_off(&from);
        lsn.min(Lsn::new(from * segments.segment_bytes()))
    }
}
