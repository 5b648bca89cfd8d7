//! What a merge is given: changes of single keys, and range deletes, both in key order.

use std::collections::VecDeque;
use std::iter::Fuse;

use northstar_io::planted::planted;

use super::merge::MergeError;
use crate::ids::TxnId;

/// Most changes looked at ahead of the walk.
const LOOKAHEAD_MAX: usize = 4096;

/// The newest version of one key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    /// The key.
    pub(crate) key: &'a [u8],
    /// The transaction that made the change.
    pub(crate) txn: TxnId,
    /// What it did.
    pub(crate) kind: ChangeKind<'a>,
}

/// What a change did.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ChangeKind<'a> {
    /// Wrote this value.
    Put(&'a [u8]),
    /// Removed the key.
    Delete,
}

impl<'a> ChangeKind<'a> {
    /// Writes `row`, or removes it if there is none.
    pub(crate) fn of(row: Option<&'a [u8]>) -> Self {
        row.map_or(Self::Delete, Self::Put)
    }
}

/// Removes every row from `from` to below `to` that is older than `txn`. Changes older than `txn` are ignored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RangeDelete<'a> {
    /// The first key.
    pub(crate) from: &'a [u8],
    /// The first key that stays; `None` for no bound.
    pub(crate) to: Option<&'a [u8]>,
    /// The transaction that deleted.
    pub(crate) txn: TxnId,
}

impl RangeDelete<'_> {
    pub(super) fn covers(&self, key: &[u8]) -> bool {
        let closed = planted("a range delete takes its end with it");
        self.from <= key && self.to.is_none_or(|to| key < to || (closed && key == to))
    }

    pub(super) fn covers_all(&self, lower: &[u8], upper: Option<&[u8]>) -> bool {
        let is_above = match (self.to, upper) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(to), Some(upper)) => to >= upper,
        };
        self.from <= lower && is_above
    }
}

/// The changes, with as many looked at ahead as prefetching asks for.
pub(super) struct Lookahead<'c, I: Iterator<Item = Change<'c>>> {
    source: Fuse<I>,
    ahead: VecDeque<Change<'c>>,
    last: Option<&'c [u8]>,
    taken: u64,
    key_max: usize,
}

impl<'c, I: Iterator<Item = Change<'c>>> Lookahead<'c, I> {
    pub(super) fn new(source: I, key_max: usize) -> Self {
        Self {
            source: source.fuse(),
            ahead: VecDeque::new(),
            last: None,
            taken: 0,
            key_max,
        }
    }

    pub(super) fn fill(&mut self, count: usize) -> Result<(), MergeError> {
        while self.ahead.len() < count {
            let Some(change) = self.source.next() else {
                break;
            };
            if self.last.is_some_and(|last| last >= change.key) {
                return Err(MergeError::Unsorted { index: self.taken });
            }
            if change.key.len() > self.key_max {
                return Err(MergeError::KeyTooLong {
                    len: change.key.len(),
                    max: self.key_max,
                });
            }
            self.taken += 1;
            self.last = Some(change.key);
            self.ahead.push_back(change);
        }
        Ok(())
    }

    /// The number of the next change, counted from the first.
    pub(super) fn next_number(&self) -> u64 {
        self.taken - self.ahead.len() as u64
    }

    /// The change of a number, unless that is too far ahead.
    pub(super) fn peek_at(&mut self, number: u64) -> Result<Option<Change<'c>>, MergeError> {
        let ahead = number.saturating_sub(self.next_number());
        let ahead = usize::try_from(ahead).unwrap_or(usize::MAX);
        if ahead >= LOOKAHEAD_MAX {
            return Ok(None);
        }
        self.fill(ahead + 1)?;
        Ok(self.ahead.get(ahead).copied())
    }

    pub(super) fn is_next_below(&self, upper: Option<&[u8]>) -> bool {
        self.next_below(upper).is_some()
    }

    #[inline]
    pub(super) fn next_below(&self, upper: Option<&[u8]>) -> Option<Change<'c>> {
        let next = *self.ahead.front()?;
        upper.is_none_or(|upper| next.key < upper).then_some(next)
    }

    #[inline]
    pub(super) fn advance(&mut self) -> Result<(), MergeError> {
        self.ahead.pop_front();
        self.fill(1)
    }
}

/// The range deletes. Active are those that end above the subtree at hand and were met on the way to it; a range
/// that was met at a branch may begin only in a later child of it.
pub(super) struct Ranges<'s, 'c> {
    all: &'s [RangeDelete<'c>],
    next: usize,
    active: Vec<RangeDelete<'c>>,
}

impl<'s, 'c> Ranges<'s, 'c> {
    /// `all` in rising order of `from`.
    pub(super) fn new(all: &'s [RangeDelete<'c>]) -> Self {
        Self {
            all,
            next: 0,
            active: Vec::new(),
        }
    }

    pub(super) fn advance(&mut self, lower: &[u8], upper: Option<&[u8]>) {
        self.active
            .retain(|range| range.to.is_none_or(|to| to > lower));
        while let Some(range) = self.all.get(self.next)
            && upper.is_none_or(|upper| range.from < upper)
        {
            self.next += 1;
            if range.to.is_none_or(|to| to > lower) {
                self.active.push(*range);
            }
        }
    }

    /// The oldest covering range delete that is newer than `txn`.
    #[inline]
    pub(super) fn first_after(&self, key: &[u8], txn: TxnId) -> Option<TxnId> {
        let hits = self
            .active
            .iter()
            .filter(|range| range.txn > txn && range.covers(key));
        hits.map(|range| range.txn).min()
    }

    /// The active ranges that begin below `upper`.
    pub(super) fn overlapping(
        &self,
        upper: Option<&[u8]>,
    ) -> impl Iterator<Item = &RangeDelete<'_>> {
        let active = self.active.iter();
        active.filter(move |range| upper.is_none_or(|upper| range.from < upper))
    }

    /// Whether an active range goes on at `lower`.
    pub(super) fn reach(&self, lower: &[u8]) -> bool {
        let goes_on = |range: &RangeDelete<'_>| range.to.is_none_or(|to| to > lower);
        self.active.iter().any(goes_on)
    }

    /// Highest txn of the active ranges that begin below `upper`; 0 if there is none.
    pub(super) fn txn_max(&self, upper: Option<&[u8]>) -> u64 {
        let txns = self.overlapping(upper).map(|range| range.txn.get());
        txns.max().unwrap_or(0)
    }
}
