//! Reading the log while it is written: durable groups, one after the other, from any transaction that is still there.
//!
//! Invariants:
//! 1. Only groups that lie wholly before the durable end given by the caller are read.
//! 2. A record is shown only after its whole group was verified, and found to follow the one before it.
//! 3. Bytes of a segment that was recycled meanwhile never pass for what was there: they carry other positions.
//!
//! - Cost: reads of up to 256 KiB; memory of one group, and no allocation per record.
//! - Limit: where reading begins is found by a group's header, not by the chain from the log's start. A value that holds
//!   a forged header at just its own position could be taken for one; the chain then breaks at the group's true end, so
//!   the whole segment is followed before anything of it is shown.
//! - Failure: [`LogError::Gone`] for what was recycled, [`LogError::Corrupt`] for what is damaged. Spec: CR-006.

use std::sync::Arc;

use super::LogError;
use super::begins::First;
use super::bytes::{Bytes, KEPT_BYTES_MAX, corrupt};
use super::segment::Segments;
use crate::format::group::{Group, GroupError, GroupField};
use crate::format::record::Record;
use crate::ids::{LogPosition, Lsn, TxnId};
use crate::limits::LOG_BLOCK_BYTES;

/// See the module.
#[derive(Debug)]
pub(crate) struct Follower {
    bytes: Bytes,
    database: u64,
    next: Border,
    /// The durable end when it began to read, where that is known: what leads there must end with it.
    border: Option<LogPosition>,
    /// The payload of the group at hand, how much of it was shown, and how many records are left in it.
    group: Vec<u8>,
    shown: usize,
    left: u32,
    /// Where it is, its header, and the transaction of its next record.
    at: Lsn,
    head: Option<Group>,
    txn: TxnId,
}

/// What was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Where it begins.
    pub(crate) from: Lsn,
    /// What of it is known to be damaged ends here.
    pub(crate) at_least: Lsn,
    /// Where the next sound group begins, if there is one.
    pub(crate) to: Option<Lsn>,
}

/// Where a group begins, and what it must say.
#[derive(Debug, Clone, Copy)]
struct Border {
    lsn: Lsn,
    /// The chain value, where it is known.
    previous: Option<u32>,
    txn: TxnId,
}

impl Follower {
    /// Begins at transaction `txn`, of a log that is durable up to `border`: at most at the transaction after it.
    ///
    /// # Errors
    /// [`LogError::Gone`], and what reading meets.
    pub(crate) fn seek(
        segments: &Arc<Segments>,
        database: u64,
        txn: TxnId,
        border: LogPosition,
    ) -> Result<Self, LogError> {
        if txn > border.last_txn {
            return Ok(Self::at_border(segments, database, border));
        }
        let mut bytes = Bytes::new(Arc::clone(segments));
        let end = border.lsn;
        let found = bytes.find(database, txn, end)?;
        let first = found.ok_or(LogError::Gone)?;
        match bytes.walk_segment(database, first.lsn, end) {
            Err(LogError::Corrupt { .. }) if !bytes.has(first.lsn) => return Err(LogError::Gone),
            walked => walked?,
        }
        let mut follower = Self::at(bytes, database, first);
        follower.border = Some(border);
        while follower.txn < txn {
            if follower.next(end)?.is_none() {
                return Err(LogError::Gone);
            }
        }
        Ok(follower)
    }

    /// Begins at the first group there is. None if there is none.
    ///
    /// # Errors
    /// What reading meets.
    pub(crate) fn from_first(
        segments: &Arc<Segments>,
        database: u64,
        end: Lsn,
    ) -> Result<Option<Self>, LogError> {
        let mut bytes = Bytes::new(Arc::clone(segments));
        for number in bytes.numbers(end) {
            match bytes.first_group(number, database, end) {
                // Recycled since it was listed, as are all before it: the log begins with a later one.
                Err(LogError::Gone) => {}
                Err(error) => return Err(error),
                Ok(None) => return Ok(None),
                // What is known of a segment outlives its file.
                Ok(Some(first)) => match bytes.header(first.lsn, database, end) {
                    Err(LogError::Gone) => {}
                    Ok(_) | Err(_) => return Ok(Some(Self::at(bytes, database, first))),
                },
            }
        }
        Ok(None)
    }

    /// The first transaction that begins in segment `number` or later, and its time; none before the log's end.
    ///
    /// # Errors
    /// What reading meets.
    pub(super) fn begins(
        segments: &Arc<Segments>,
        database: u64,
        number: u64,
    ) -> Result<Option<(TxnId, u64)>, LogError> {
        let end = segments.end();
        let mut bytes = Bytes::new(Arc::clone(segments));
        let Some(first) = bytes.first_group(number, database, end)? else {
            return Ok(None);
        };
        let mut follower = Self::at(bytes, database, first);
        let record = follower.next(end)?;
        Ok(record.map(|record| (record.txn, record.timestamp_ns)))
    }

    fn at(bytes: Bytes, database: u64, first: First) -> Self {
        Self::before(
            bytes,
            database,
            Border {
                lsn: first.lsn,
                previous: None,
                txn: first.txn,
            },
        )
    }

    fn before(bytes: Bytes, database: u64, next: Border) -> Self {
        Self {
            bytes,
            database,
            next,
            border: None,
            group: Vec::new(),
            shown: 0,
            left: 0,
            at: next.lsn,
            head: None,
            txn: next.txn,
        }
    }

    /// Goes on until all was read that was durable when it began, to see that it leads there.
    ///
    /// # Errors
    /// As [`Follower::next`] and [`Follower::expect_border`].
    pub(crate) fn come_to_border(&mut self, durable: Lsn) -> Result<(), LogError> {
        let last = self.border.map_or(TxnId::ZERO, |border| border.last_txn);
        while self.txn <= last && self.next(durable)?.is_some() {}
        self.expect_border()
    }

    /// Fails at the end of what was durable when it began, if other groups have led there than those of this log: such as are
    /// sound in themselves, of a copy that was put in its place. Behind it the chain itself says so.
    ///
    /// # Errors
    /// [`LogError::Corrupt`].
    pub(crate) fn expect_border(&self) -> Result<(), LogError> {
        let (Some(border), Some(chain)) = (self.border, self.next.previous) else {
            return Ok(());
        };
        let (at, next) = (border.lsn, self.next.lsn);
        if self.txn <= border.last_txn || next > at {
            return Ok(());
        }
        let (field, expected, found) = match next == at {
            true => (GroupField::Previous, border.checksum.into(), chain.into()),
            false => (GroupField::Position, at.get(), next.get()),
        };
        if expected == found {
            return Ok(());
        }
        Err(corrupt(GroupError {
            at,
            field,
            expected,
            found,
        }))
    }

    /// The transaction that comes next.
    pub(crate) fn txn(&self) -> TxnId {
        self.txn
    }

    /// Where the group of the next record begins, or will.
    pub(crate) fn position(&self) -> Lsn {
        match self.left {
            0 => self.next.lsn,
            _ => self.at,
        }
    }

    /// The next record, if it is in a group that ends at or before `durable`.
    ///
    /// # Errors
    /// See the module.
    pub(crate) fn next(&mut self, durable: Lsn) -> Result<Option<Record<'_>>, LogError> {
        if self.left == 0 && !self.load(durable)? {
            return Ok(None);
        }
        let bytes = self.group.get(self.shown..).unwrap_or_default();
        let txn = self.txn;
        let decoded = Record::decode(bytes)
            .and_then(|(record, rest)| record.expect_txn(txn).map(|()| (record, rest)));
        let (record, rest) = decoded.map_err(|source| LogError::Record {
            group: self.at,
            txn,
            source,
        })?;
        if let (1, Some(head)) = (self.left, &self.head) {
            head.check_padding(rest).map_err(corrupt)?;
        }
        self.shown = self.group.len() - rest.len();
        self.left -= 1;
        self.txn = txn.next();
        Ok(Some(record))
    }

    /// After an error: goes on behind the damage, with the next group that begins before `end` and is sound. Leaves
    /// [`Follower::txn`] at its first transaction; with nothing behind the damage, where it is.
    pub(crate) fn skip_damage(&mut self, end: Lsn) -> Damage {
        let (from, at_least, missed) = match self.left {
            0 => {
                let from = self.next.lsn;
                (from, from.plus(LOG_BLOCK_BYTES as u64), self.txn)
            }
            // A group that is sound, with a record in it that makes no sense.
            _ => (self.at, self.next.lsn, self.next.txn),
        };
        self.bytes.forget();
        let to = self.find_sound(at_least, missed, end);
        Damage { from, at_least, to }
    }

    /// Goes to the first group from `at` on that verifies, is of no transaction before `missed`, and begins before `end`: to
    /// `end` if there is none.
    fn find_sound(&mut self, mut at: Lsn, missed: TxnId, end: Lsn) -> Option<Lsn> {
        (self.left, self.txn) = (0, missed);
        while at < end {
            let found = self.bytes.header(at, self.database, end);
            if let Ok((group, _)) = &found
                && group.first_txn >= missed
            {
                self.next = Border {
                    lsn: at,
                    previous: None,
                    txn: group.first_txn,
                };
                if self.try_load(end).is_ok() {
                    return Some(at);
                }
            }
            at = match found {
                Err(LogError::Gone) => self.bytes.next_segment(at).unwrap_or(end),
                Ok(_) | Err(_) => at.plus(LOG_BLOCK_BYTES as u64),
            };
        }
        self.next = Border {
            lsn: end,
            previous: None,
            txn: missed,
        };
        None
    }

    /// Begins with the first bytes from `from` on that say that they are a group, sound or not, for who knows of none; at
    /// `from` itself if that is where the stream begins. None if there are none before `end`.
    ///
    /// [`Follower::txn`] is 0 as long as nothing tells what comes first.
    pub(crate) fn from_any(
        segments: &Arc<Segments>,
        database: u64,
        from: Lsn,
        end: Lsn,
    ) -> Option<Self> {
        let mut bytes = Bytes::new(Arc::clone(segments));
        let mut at = from;
        while at > Lsn::new(0) && at < end {
            at = match bytes.claims(at, end) {
                Ok(true) => break,
                Err(LogError::Gone) => bytes.next_segment(at).unwrap_or(end),
                Ok(false) | Err(_) => at.plus(LOG_BLOCK_BYTES as u64),
            };
        }
        if at >= end {
            return None;
        }
        let said = bytes
            .header(at, database, end)
            .map(|(group, _)| group.first_txn);
        let unknown = Border {
            lsn: at,
            previous: None,
            txn: TxnId::ZERO,
        };
        let mut follower = Self::before(bytes, database, unknown);
        // Taken at its word, a header that belongs to nothing sound could hide all that is.
        let sound = follower.find_sound(at, TxnId::ZERO, end);
        let bound = sound.map_or(TxnId::MAX, |_| follower.txn);
        let txn = said.ok().filter(|txn| *txn <= bound).unwrap_or(TxnId::ZERO);
        Some(Self::before(
            follower.bytes,
            database,
            Border { txn, ..unknown },
        ))
    }

    /// Begins at a border, of which the chain value is known.
    pub(crate) fn at_border(segments: &Arc<Segments>, database: u64, border: LogPosition) -> Self {
        let next = Border {
            lsn: border.lsn,
            previous: Some(border.checksum),
            txn: border.last_txn.next(),
        };
        Self::before(Bytes::new(Arc::clone(segments)), database, next)
    }

    /// The chain value that the next group must carry, where it is known.
    pub(crate) fn chain(&self) -> Option<u32> {
        self.next.previous
    }

    /// The furthest that any group met has said was durable.
    pub(crate) fn proven(&self) -> Lsn {
        self.bytes.proven
    }

    /// Whether something at `at` says that it is a group.
    pub(crate) fn claims(&mut self, at: Lsn, end: Lsn) -> bool {
        self.bytes.claims(at, end).unwrap_or(false)
    }

    /// Reads the next group, if it is durable.
    fn load(&mut self, durable: Lsn) -> Result<bool, LogError> {
        if self.next.lsn >= durable {
            return Ok(false);
        }
        let read = match self.try_load(durable) {
            // One bad reading is not enough to call it damage.
            Err(LogError::Corrupt { .. }) => {
                self.bytes.forget();
                self.try_load(durable)
            }
            other => other,
        };
        match read {
            // What was read is of the file that took the segment's place.
            Err(LogError::Corrupt { .. }) if !self.bytes.has(self.next.lsn) => Err(LogError::Gone),
            other => other.map(|()| true),
        }
    }

    fn try_load(&mut self, durable: Lsn) -> Result<(), LogError> {
        let Border { lsn, previous, txn } = self.next;
        let (group, checksum) = self.bytes.header(lsn, self.database, durable)?;
        let error = |field, expected, found| {
            corrupt(GroupError {
                at: lsn,
                field,
                expected,
                found,
            })
        };
        if let Some(expected) = previous.filter(|previous| *previous != group.previous) {
            let (expected, found) = (expected.into(), group.previous.into());
            return Err(error(GroupField::Previous, expected, found));
        }
        if group.first_txn != txn {
            let (expected, found) = (txn.get(), group.first_txn.get());
            return Err(error(GroupField::FirstTxn, expected, found));
        }
        if group.end() > durable {
            let (expected, found) = (group.end().get(), durable.get());
            return Err(error(GroupField::Available, expected, found));
        }
        if let Some(border) = self.border
            && lsn < border.lsn
            && border.lsn < group.end()
        {
            let (expected, found) = (border.lsn.get(), group.end().get());
            return Err(error(GroupField::Length, expected, found));
        }
        let bytes = self.bytes.get(lsn, group.len_bytes, durable)?;
        let payload = group.payload(bytes).map_err(corrupt)?;
        self.group.clear();
        self.group.shrink_to(KEPT_BYTES_MAX);
        self.group.extend_from_slice(payload);
        (self.shown, self.left, self.at) = (0, group.record_count, lsn);
        (self.head, self.txn) = (Some(group), txn);
        self.next = Border {
            lsn: group.end(),
            previous: Some(checksum),
            txn: TxnId::new(txn.get() + u64::from(group.record_count)),
        };
        Ok(())
    }
}
