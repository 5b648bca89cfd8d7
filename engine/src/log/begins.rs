//! What begins in which segment, as far as this process knows: what it wrote itself, and what somebody has looked for.
//!
//! A group that is longer than a segment leaves some in which none begins.
//!
//! - Cost: a lock and an entry a segment; those that were let go have none.

use std::collections::BTreeMap;

use super::segment::Segments;
use crate::ids::{Lsn, TxnId};

/// The first group of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First {
    pub(super) lsn: Lsn,
    /// Its first transaction.
    pub(super) txn: TxnId,
}

/// What begins in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// Nobody has looked.
    Unknown,
    /// This, before all others.
    First(First),
    /// No group does.
    Nothing,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<u64, Option<First>>);

impl Segments {
    pub(super) fn begins(&self, number: u64) -> Begins {
        match self.known.lock().0.get(&number) {
            Some(Some(first)) => Begins::First(*first),
            Some(None) => Begins::Nothing,
            None => Begins::Unknown,
        }
    }

    pub(super) fn note_begin(&self, number: u64, begins: Begins) {
        let first = match begins {
            Begins::First(first) => Some(first),
            Begins::Nothing => None,
            Begins::Unknown => return,
        };
        self.known.lock().0.insert(number, first);
    }

    /// Forgets what began before segment `number`.
    pub(super) fn forget_begins(&self, number: u64) {
        let mut known = self.known.lock();
        known.0 = known.0.split_off(&number);
    }
}
