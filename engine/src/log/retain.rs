//! How long the log is kept after nothing but its readers needs it.
//!
//! The log's start, as meta knows it, is what recovery needs; policy and subscribers keep whole segments before it.
//!
//! - Cost: one read of a segment's first group, once per segment.
//! - Spec: SE-016, SE-022.

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
    /// Bytes kept for subscribers at most.
    held_bytes_max: u64,
    database: u64,
    /// The first transaction that begins in a segment or after it, and its time.
    begins: BTreeMap<u64, (TxnId, u64)>,
}

impl Retainer {
    pub(crate) fn new(policy: Retention, held_bytes_max: u64, database: u64) -> Self {
        Self {
            policy,
            held_bytes_max,
            database,
            begins: BTreeMap::new(),
        }
    }

    /// From where on the log is kept, if recovery needs it from `lsn` on, and subscribers from the transaction `held` on:
    /// `newest` is the last transaction, `now_ns` the time. What cannot be read is kept until what follows it can go.
    pub(crate) fn keep_from(
        &mut self,
        segments: &Arc<Segments>,
        lsn: Lsn,
        held: Option<TxnId>,
        (newest, now_ns): (TxnId, u64),
    ) -> Lsn {
        let end = segments.end().get();
        let last = segments.locate(lsn).0;
        let mut from = self.wanted_from(self.policy, segments, last, (newest, now_ns));
        if let Some(held) = held {
            // What begins in a segment is what comes next at the latest: all before it was acknowledged.
            let wanted = self.first_kept(segments, last, |(txn, _)| txn > held);
            let allowed = end.saturating_sub(self.held_bytes_max);
            from = from.min(wanted.max(segments.locate(Lsn::new(allowed)).0));
        }
        self.begins = self.begins.split_off(&from);
        lsn.min(Lsn::new(from * segments.segment_bytes()))
    }

    /// The first transaction of the log, as far as its first segment tells; else 0.
    pub(crate) fn first(&mut self, segments: &Arc<Segments>) -> TxnId {
        let Some(first) = segments.numbers_from(0).first().copied() else {
            return TxnId::ZERO;
        };
        if let Some((txn, _)) = self.begins.get(&first) {
            return *txn;
        }
        match Follower::begins(segments, self.database, first) {
            Ok(Some(begins)) => {
                self.begins.insert(first, begins);
                begins.0
            }
            Ok(None) | Err(_) => TxnId::ZERO,
        }
    }

    /// The first segment up to `last` that `policy` wants.
    fn wanted_from(
        &mut self,
        policy: Retention,
        segments: &Arc<Segments>,
        last: u64,
        now: (TxnId, u64),
    ) -> u64 {
        let (newest, now_ns) = now;
        match policy {
            Retention::None => last,
            Retention::All => 0,
            Retention::Bytes(bytes) => {
                let from = segments.end().get().saturating_sub(bytes);
                segments.locate(Lsn::new(from)).0
            }
            Retention::Txns(many) => self.first_kept(segments, last, |(txn, _)| {
                txn.get() > newest.get().saturating_sub(many) + 1
            }),
            Retention::Age(age) => {
                let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
                let since = now_ns.saturating_sub(age);
                self.first_kept(segments, last, |(_, time)| time > since)
            }
            Retention::Within { age, bytes } => {
                let policies = [Retention::Age(age), Retention::Bytes(bytes)];
                let from = policies.map(|policy| self.wanted_from(policy, segments, last, now));
                from[0].max(from[1])
            }
        }
    }

    /// The first segment before `last` that is kept: that of which the one after it begins with what `keeps` wants, so that
    /// something wanted may be in it. `last` if none is.
    fn first_kept(
        &mut self,
        segments: &Arc<Segments>,
        last: u64,
        keeps: impl Fn((TxnId, u64)) -> bool,
    ) -> u64 {
        let mut numbers = segments.numbers_from(0);
        numbers.retain(|number| *number < last);
        let mut from = numbers.first().copied().unwrap_or(last);
        for number in numbers {
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
        from
    }
}
