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

use northstar_io::{Buf, File, IoError, OpenMode};

use super::LogError;
use super::segment::Segments;
use crate::format::group::{Group, GroupError, GroupField, claims_position};
use crate::format::record::Record;
use crate::ids::{LogPosition, Lsn, TxnId};
use crate::limits::LOG_BLOCK_BYTES;

/// Bytes of one read at most.
const WINDOW_BYTES: u64 = 256 * 1024;
/// Above this the memory of a group is given back before the next.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Follower {
    bytes: Bytes,
    database: u64,
    next: Border,
    /// The payload of the group at hand, how much of it was shown, and how many records are left in it.
    group: Vec<u8>,
    shown: usize,
    left: u32,
    /// Its header, and the transaction of its next record.
    at: Lsn,
    txn: TxnId,
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
        let mut bytes = Bytes::new(Arc::clone(segments));
        let end = border.lsn;
        if txn > border.last_txn {
            let next = Border {
                lsn: end,
                previous: Some(border.checksum),
                txn,
            };
            return Ok(Self::before(bytes, database, next));
        }
        let found = bytes.find(database, txn, end)?;
        let group = found.ok_or(LogError::Gone)?;
        match bytes.walk_segment(database, group.lsn, end) {
            Err(LogError::Corrupt { .. }) if !bytes.has(group.lsn) => return Err(LogError::Gone),
            walked => walked?,
        }
        let mut follower = Self::at(bytes, database, &group);
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
                Ok(group) => return Ok(group.map(|group| Self::at(bytes, database, &group))),
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
        let Some(group) = bytes.first_group(number, database, end)? else {
            return Ok(None);
        };
        let mut follower = Self::at(bytes, database, &group);
        let record = follower.next(end)?;
        Ok(record.map(|record| (record.txn, record.timestamp_ns)))
    }

    fn at(bytes: Bytes, database: u64, group: &Group) -> Self {
        Self::before(
            bytes,
            database,
            Border {
                lsn: group.lsn,
                previous: None,
                txn: group.first_txn,
            },
        )
    }

    fn before(bytes: Bytes, database: u64, next: Border) -> Self {
        Self {
            bytes,
            database,
            next,
            group: Vec::new(),
            shown: 0,
            left: 0,
            at: next.lsn,
            txn: next.txn,
        }
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
        self.shown = self.group.len() - rest.len();
        self.left -= 1;
        self.txn = txn.next();
        Ok(Some(record))
    }

    /// After an error: goes on behind the damage, with the next sound group that begins before `end`. Gives where the damage
    /// begins and ends, and leaves [`Follower::txn`] at the first transaction behind it; with nothing behind it, where it is.
    pub(crate) fn skip_damage(&mut self, end: Lsn) -> (Lsn, Lsn) {
        let block = LOG_BLOCK_BYTES as u64;
        let (from, missed) = match self.left {
            0 => (self.next.lsn, self.txn),
            // A group that is sound, with a record in it that makes no sense.
            _ => (self.at, self.next.txn),
        };
        let mut at = match self.left {
            0 => from.plus(block),
            _ => self.next.lsn,
        };
        (self.left, self.txn) = (0, missed);
        // A block at a time, so that what cannot be read hides nothing beside it.
        self.bytes.forget();
        self.bytes.window_bytes = block;
        while at < end {
            match self.bytes.header(at, self.database, end) {
                Ok((group, _)) if group.first_txn >= missed => {
                    self.txn = group.first_txn;
                    break;
                }
                Err(LogError::Gone) => {
                    let segment = self.bytes.segments.locate(at).0 + 1;
                    at = Lsn::new(segment * self.bytes.segments.segment_bytes());
                }
                Ok(_) | Err(_) => at = at.plus(block),
            }
        }
        self.bytes.window_bytes = WINDOW_BYTES;
        let to = at.min(end);
        self.next = Border {
            lsn: to,
            previous: None,
            txn: self.txn,
        };
        (from, to)
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
            let (expected, found) = (durable.get(), group.end().get());
            return Err(error(GroupField::Length, expected, found));
        }
        let bytes = self.bytes.get(lsn, group.len_bytes, durable)?;
        let payload = group.payload(bytes).map_err(corrupt)?;
        self.group.clear();
        self.group.shrink_to(KEPT_BYTES_MAX);
        self.group.extend_from_slice(payload);
        (self.shown, self.left, self.at) = (0, group.record_count, lsn);
        self.txn = txn;
        self.next = Border {
            lsn: group.end(),
            previous: Some(checksum),
            txn: TxnId::new(txn.get() + u64::from(group.record_count)),
        };
        Ok(())
    }
}

fn corrupt(why: GroupError) -> LogError {
    LogError::Corrupt {
        at: why.at,
        later: None,
        durable_through: why.at,
        why,
    }
}

/// The bytes of the log, as far as they are durable.
#[derive(Debug)]
struct Bytes {
    segments: Arc<Segments>,
    /// The segment looked at last.
    file: Option<(u64, Arc<dyn File>)>,
    /// What was read last, and where it begins.
    window: (u64, Buf),
    /// What does not lie in one segment.
    assembled: Vec<u8>,
    /// Bytes of one read at most.
    window_bytes: u64,
}

impl Bytes {
    fn new(segments: Arc<Segments>) -> Self {
        Self {
            segments,
            file: None,
            window: (0, Buf::zeroed(0)),
            assembled: Vec::new(),
            window_bytes: WINDOW_BYTES,
        }
    }

    fn forget(&mut self) {
        self.file = None;
        self.window = (0, Buf::zeroed(0));
    }

    /// Whether the segment that holds `lsn` is there.
    fn has(&self, lsn: Lsn) -> bool {
        let number = self.segments.locate(lsn).0;
        self.segments.numbers_from(number).first() == Some(&number)
    }

    /// The segments that hold the log up to `end`, without a gap, rising.
    fn numbers(&self, end: Lsn) -> Vec<u64> {
        let last = self
            .segments
            .locate(Lsn::new(end.get().saturating_sub(1)))
            .0;
        let mut numbers = self.segments.numbers_from(0);
        numbers.retain(|number| *number <= last);
        let whole = |at: usize| numbers[at] + (numbers.len() - 1 - at) as u64 == last;
        let from = (0..numbers.len()).rev().take_while(|at| whole(*at)).last();
        numbers.split_off(from.unwrap_or(numbers.len()))
    }

    /// The group to begin at for `txn`: the last that is the first of a segment and not after it.
    fn find(&mut self, database: u64, txn: TxnId, end: Lsn) -> Result<Option<Group>, LogError> {
        let numbers = self.numbers(end);
        let (mut low, mut high, mut best) = (0, numbers.len(), None);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_group(numbers[middle], database, end) {
                Ok(Some(group)) if group.first_txn <= txn => {
                    (low, best) = (middle + 1, Some(group));
                }
                Ok(_) => high = middle,
                // Recycled since it was listed, as are all before it: if it is anywhere, it is in a later one.
                Err(LogError::Gone) => (low, best) = (middle + 1, None),
                Err(error) => return Err(error),
            }
        }
        Ok(best)
    }

    /// The first group that begins in segment `number` or a later one.
    fn first_group(
        &mut self,
        number: u64,
        database: u64,
        end: Lsn,
    ) -> Result<Option<Group>, LogError> {
        let block = LOG_BLOCK_BYTES as u64;
        let mut at = Lsn::new(number * self.segments.segment_bytes());
        while at < end {
            let bytes = self.get(at, block, end)?;
            if claims_position(bytes, at)
                && let Ok((group, _)) = Group::decode(bytes, at, database)
            {
                return Ok(Some(group));
            }
            at = at.plus(block);
        }
        Ok(None)
    }

    /// Follows the chain from the group at `from` beyond the end of its segment, or to `end`.
    fn walk_segment(&mut self, database: u64, from: Lsn, end: Lsn) -> Result<(), LogError> {
        let segment = self.segments.locate(from).0;
        let (mut at, mut previous) = (from, None::<u32>);
        while at < end {
            let (group, checksum) = self.header(at, database, end)?;
            if let Some(expected) = previous.filter(|previous| *previous != group.previous) {
                return Err(corrupt(GroupError {
                    at,
                    field: GroupField::Previous,
                    expected: expected.into(),
                    found: group.previous.into(),
                }));
            }
            if self.segments.locate(at).0 > segment {
                break;
            }
            (at, previous) = (group.end(), Some(checksum));
        }
        Ok(())
    }

    fn header(&mut self, at: Lsn, database: u64, end: Lsn) -> Result<(Group, u32), LogError> {
        let block = self.get(at, LOG_BLOCK_BYTES as u64, end)?;
        Group::decode(block, at, database).map_err(corrupt)
    }

    /// The `len` bytes from `at` on, which lie before `end`.
    fn get(&mut self, at: Lsn, len: u64, end: Lsn) -> Result<&[u8], LogError> {
        let room = self.segments.segment_bytes() - self.segments.locate(at).1;
        if len <= room.min(self.window_bytes) {
            return self.part(at, len, end);
        }
        let mut assembled = std::mem::take(&mut self.assembled);
        assembled.clear();
        assembled.shrink_to(KEPT_BYTES_MAX);
        let (mut from, to) = (at, at.plus(len));
        while from < to {
            let room = self.segments.segment_bytes() - self.segments.locate(from).1;
            let len = room.min(self.window_bytes).min(to.get() - from.get());
            // The memory grows with what was really read.
            assembled.extend_from_slice(self.part(from, len, end)?);
            from = from.plus(len);
        }
        self.assembled = assembled;
        Ok(&self.assembled)
    }

    /// Bytes of one segment, no more than a window.
    fn part(&mut self, at: Lsn, len: u64, end: Lsn) -> Result<&[u8], LogError> {
        let (start, buf) = &self.window;
        let (at_byte, held) = (at.get(), buf.len() as u64);
        if at_byte < *start || at_byte + len > start + held {
            self.read(at, len, end)?;
        }
        let (start, buf) = &self.window;
        let from = usize::try_from(at_byte - start).unwrap_or(usize::MAX);
        let to = from.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        // Absent only where the caller asks beyond what is durable.
        Ok(buf.get(from..to).unwrap_or_default())
    }

    /// Reads on from `at`: as much as lies in its segment and is durable.
    fn read(&mut self, at: Lsn, len: u64, end: Lsn) -> Result<(), LogError> {
        let (number, offset) = self.segments.locate(at);
        if self.file.as_ref().is_none_or(|(known, _)| *known != number) {
            self.file = None;
            match self.segments.open_file(number, OpenMode::Read) {
                Ok(Some(file)) => self.file = Some((number, file)),
                Ok(None) => return Err(LogError::Gone),
                Err(error) if error.errno == IoError::NOT_FOUND => return Err(LogError::Gone),
                Err(error) => return Err(error.into()),
            }
        }
        let durable = end.get().saturating_sub(at.get());
        let room = self.segments.segment_bytes() - offset;
        let bytes = self.window_bytes.min(room).min(durable).max(len.min(room));
        let bytes = usize::try_from(bytes).unwrap_or(0);
        if self.window.1.len() != bytes {
            self.window.1 = Buf::zeroed(bytes);
        }
        // Nothing is to be taken for what was read before, should this fail.
        self.window.0 = u64::MAX;
        if let Some((_, file)) = &self.file {
            file.read_at(offset, &mut self.window.1)?;
        }
        self.window.0 = at.get();
        Ok(())
    }
}
