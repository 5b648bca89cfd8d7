//! The bytes of a log that is written meanwhile, as far as they are durable; and the groups that can be found in them.
//!
//! - Cost: reads of up to 256 KiB, none longer than what was asked for where a longer one has failed.
//! - Failure: [`LogError::Gone`] for a segment that is not there.

use std::sync::Arc;

use northstar_io::{Buf, File, IoError, OpenMode};

use super::LogError;
use super::begins::{Begins, First};
use super::segment::Segments;
use crate::format::group::{Group, GroupError, GroupField, claims_position};
use crate::ids::{Lsn, TxnId};
use crate::limits::LOG_BLOCK_BYTES;

/// Bytes of one read at most.
const WINDOW_BYTES: u64 = 256 * 1024;
/// Above this the memory of a group is given back before the next.
pub(super) const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) fn corrupt(why: GroupError) -> LogError {
    LogError::Corrupt {
        at: why.at,
        later: None,
        durable_through: why.at,
        why,
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Bytes {
    pub(super) segments: Arc<Segments>,
    /// The segment looked at last.
    file: Option<(u64, Arc<dyn File>)>,
    /// What was read last, and where it begins.
    window: (u64, Buf),
    /// What does not lie in one segment.
    assembled: Vec<u8>,
    /// A long read has failed: none is tried before this position.
    careful_until: Lsn,
    /// The furthest that a header met has said was durable.
    pub(super) proven: Lsn,
}

impl Bytes {
    pub(super) fn new(segments: Arc<Segments>) -> Self {
        Self {
            segments,
            file: None,
            window: (0, Buf::zeroed(0)),
            assembled: Vec::new(),
            careful_until: Lsn::new(0),
            proven: Lsn::new(0),
        }
    }

    pub(super) fn forget(&mut self) {
        self.file = None;
        self.window = (0, Buf::zeroed(0));
    }

    /// Whether the segment that holds `lsn` is there.
    pub(super) fn has(&self, lsn: Lsn) -> bool {
        let number = self.segments.locate(lsn).0;
        self.segments.numbers_from(number).first() == Some(&number)
    }

    /// The segments that hold the log up to `end`, without a gap, rising.
    pub(super) fn numbers(&self, end: Lsn) -> Vec<u64> {
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
    pub(super) fn find(
        &mut self,
        database: u64,
        txn: TxnId,
        end: Lsn,
    ) -> Result<Option<First>, LogError> {
        let numbers = self.numbers(end);
        let (mut low, mut high, mut best) = (0, numbers.len(), None);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_group(numbers[middle], database, end) {
                Ok(Some(first)) if first.txn <= txn => (low, best) = (middle + 1, Some(first)),
                Ok(_) => high = middle,
                // Recycled since it was listed, as are all before it: if it is anywhere, it is in a later one.
                Err(LogError::Gone) => (low, best) = (middle + 1, None),
                Err(error) => return Err(error),
            }
        }
        Ok(best)
    }

    /// The first group that begins in segment `number` or a later one.
    pub(super) fn first_group(
        &mut self,
        mut number: u64,
        database: u64,
        end: Lsn,
    ) -> Result<Option<First>, LogError> {
        let segment = self.segments.segment_bytes();
        loop {
            let from = Lsn::new(number * segment);
            if from >= end {
                return Ok(None);
            }
            let found = match self.segments.begins(number) {
                Begins::First(first) => Some(first),
                Begins::Nothing => None,
                Begins::Unknown => {
                    let (found, is_sure) = self.first_within(from, database, end)?;
                    let is_whole = from.plus(segment) <= end;
                    match found {
                        _ if !is_sure => {}
                        Some(first) => self.segments.note_begin(number, Begins::First(first)),
                        None if is_whole => self.segments.note_begin(number, Begins::Nothing),
                        None => {}
                    }
                    found
                }
            };
            if let Some(first) = found.filter(|first| first.lsn < end) {
                return Ok(Some(first));
            }
            number += 1;
        }
    }

    /// The first sound group that begins in the segment that begins at `from`, and whether nothing before it claims to be one.
    fn first_within(
        &mut self,
        from: Lsn,
        database: u64,
        end: Lsn,
    ) -> Result<(Option<First>, bool), LogError> {
        let block = LOG_BLOCK_BYTES as u64;
        let to = from.plus(self.segments.segment_bytes()).min(end);
        let (mut at, mut is_sure) = (from, true);
        while at < to {
            // Mostly it is in the first block that one begins: no more is read for it.
            let careful_until = self.careful_until;
            if at == from {
                self.careful_until = careful_until.max(at.plus(block));
            }
            let read = self.get(at, block, end).map(|bytes| {
                let claims = claims_position(bytes, at);
                claims.then(|| Group::decode(bytes, at, database))
            });
            if at == from {
                self.careful_until = careful_until;
            }
            match read? {
                Some(Ok((group, _))) => {
                    let (lsn, txn) = (at, group.first_txn);
                    return Ok((Some(First { lsn, txn }), is_sure));
                }
                // It may have been read badly.
                Some(Err(_)) => is_sure = false,
                None => {}
            }
            at = at.plus(block);
        }
        Ok((None, is_sure))
    }

    /// Follows the chain from the group at `from` beyond the end of its segment, or to `end`.
    pub(super) fn walk_segment(
        &mut self,
        database: u64,
        from: Lsn,
        end: Lsn,
    ) -> Result<(), LogError> {
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

    pub(super) fn header(
        &mut self,
        at: Lsn,
        database: u64,
        end: Lsn,
    ) -> Result<(Group, u32), LogError> {
        let block = self.get(at, LOG_BLOCK_BYTES as u64, end)?;
        let (group, checksum) = Group::decode(block, at, database).map_err(corrupt)?;
        self.proven = self.proven.max(group.durable_through);
        Ok((group, checksum))
    }

    /// Whether the bytes at `at` say that they are a group of this place, sound or not.
    pub(super) fn claims(&mut self, at: Lsn, end: Lsn) -> Result<bool, LogError> {
        let block = self.get(at, LOG_BLOCK_BYTES as u64, end)?;
        Ok(claims_position(block, at))
    }

    /// Where the next segment that is there begins, after that of `at`.
    pub(super) fn next_segment(&self, at: Lsn) -> Option<Lsn> {
        let after = self.segments.locate(at).0 + 1;
        let next = self.segments.numbers_from(after).first().copied();
        next.map(|number| Lsn::new(number * self.segments.segment_bytes()))
    }

    /// The `len` bytes from `at` on, which lie before `end`.
    pub(super) fn get(&mut self, at: Lsn, len: u64, end: Lsn) -> Result<&[u8], LogError> {
        let room = self.segments.segment_bytes() - self.segments.locate(at).1;
        if len <= room.min(WINDOW_BYTES) {
            return self.part(at, len, end);
        }
        let mut assembled = std::mem::take(&mut self.assembled);
        assembled.clear();
        assembled.shrink_to(KEPT_BYTES_MAX);
        let (mut from, to) = (at, at.plus(len));
        while from < to {
            let room = self.segments.segment_bytes() - self.segments.locate(from).1;
            let len = room.min(WINDOW_BYTES).min(to.get() - from.get());
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
        let block = LOG_BLOCK_BYTES as u64;
        let durable = end.get().saturating_sub(at.get()) / block * block;
        let room = self.segments.segment_bytes() - offset;
        let wanted = len.min(room);
        let bytes = match at < self.careful_until {
            true => wanted,
            false => WINDOW_BYTES.min(room).min(durable).max(wanted),
        };
        // Nothing is to be taken for what was read before, should this fail.
        self.window.0 = u64::MAX;
        if let Err(error) = self.fill(offset, bytes) {
            if bytes <= wanted {
                return Err(error.into());
            }
            // What cannot be read hides nothing beside it.
            self.careful_until = at.plus(bytes);
            self.fill(offset, wanted)?;
        }
        self.window.0 = at.get();
        Ok(())
    }

    fn fill(&mut self, offset: u64, bytes: u64) -> Result<(), IoError> {
        let bytes = usize::try_from(bytes).unwrap_or(0);
        if self.window.1.len() != bytes {
            self.window.1 = Buf::zeroed(bytes);
        }
        match &self.file {
            Some((_, file)) => file.read_at(offset, &mut self.window.1),
            None => Ok(()),
        }
    }
}
