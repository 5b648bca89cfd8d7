//! Recovery's reading of the log: every sound group in order, then the decision where the log ends.
//!
//! Invariants:
//! 1. A record is shown only after its whole group was verified and found to follow the one before it.
//! 2. The end is where the first group is missing or broken, and only if nothing proves that it was once durable:
//!    no later group, and not the caller's own knowledge, says *durable through* beyond it.
//! 3. The end was read twice and is the same both times.
//! 4. Nothing is written, so an interrupted scan can be repeated and ends the same.
//!
//! - Cost: one pass at device bandwidth; no allocation per group or record.
//! - Limit: looking ahead covers one largest group of existing bytes.
//! - Failure: [`LogError::Corrupt`] names the place, the proof and what is wrong. Spec: CR-004.

use northstar_io::planted::planted;
use northstar_io::{Buf, OpenMode};

use super::read::Reader;
use super::segment::Segments;
use super::{LogError, LogPosition};
use crate::format::group::{self, Group, GroupError, GroupField};
use crate::format::record::Record;
use crate::ids::{Lsn, TxnId};
use crate::limits::LOG_BLOCK_BYTES;
use crate::marks::{Mark, reached};

/// Where a scan begins and what is known beforehand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanStart {
    /// A border between two groups, from meta.
    pub(crate) from: LogPosition,
    /// Low 64 bits of the database's id.
    pub(crate) database: u64,
    /// The log is known to have been durable up to here, from meta; `from.lsn` if nothing more is known.
    pub(crate) proven_through: Lsn,
}

/// What a scan found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScanEnd {
    /// The end of the last sound group: where [`super::LogWriter::start_at`] goes on.
    pub(crate) end: LogPosition,
    /// All before it was durable when the last of these groups was written, by that group's word.
    pub(crate) proven: Lsn,
    /// Groups read.
    pub(crate) groups: u64,
    /// Records shown.
    pub(crate) records: u64,
    /// A half-written group was found at the end, none of it acknowledged.
    pub(crate) torn: bool,
}

/// Shows every record from `start` on, in order, to `visit` with the position of its group, and finds the end.
///
/// Records are shown before the end is known, so effects are to be kept only if the scan succeeds.
///
/// # Errors
/// [`LogError::Corrupt`] if acknowledged groups are damaged, [`LogError::Record`] if a sound group holds nonsense,
/// [`LogError::Io`], and whatever `visit` returns.
pub(crate) fn scan<E: From<LogError>>(
    segments: &Segments,
    start: ScanStart,
    mut visit: impl FnMut(Lsn, Record<'_>) -> Result<(), E>,
) -> Result<ScanEnd, E> {
    check_border(start.from.lsn)?;
    let mut reader = Reader::new(segments).map_err(LogError::Io)?;
    let mut found = ScanEnd {
        end: start.from,
        proven: start.from.lsn,
        groups: 0,
        records: 0,
        torn: false,
    };
    let mut doubted = None;
    let why = loop {
        let next = match next_group(&mut reader, found.end, start.database) {
            Err(LogError::Corrupt { why, .. })
                if is_value(segments, &why, start.database, Some(found.end.checksum))? =>
            {
                Next::Broken(why)
            }
            next => next?,
        };
        match next {
            Next::Group {
                group,
                checksum,
                payload,
            } => {
                let last_txn = show(&group, payload, &mut visit)?;
                found.end = LogPosition {
                    lsn: group.end(),
                    checksum,
                    last_txn,
                };
                found.proven = found.proven.max(group.durable_through);
                found.groups += 1;
                found.records += u64::from(group.record_count);
            }
            Next::Broken(why)
                if doubted == Some(found.end.lsn) || planted("one bad reading ends the log") =>
            {
                break why;
            }
            // What follows from this may be the loss of a group: one bad reading is not enough for that.
            Next::Broken(_) => {
                doubted = Some(found.end.lsn);
                reader.again().map_err(LogError::Io)?;
            }
        }
    };
    let at = found.end.lsn;
    let blind = planted("a damaged log is cut in its middle");
    if start.proven_through > at && !blind {
        reached(Mark::TailBehindMeta);
        let durable_through = start.proven_through;
        Err(LogError::Corrupt {
            at,
            later: None,
            durable_through,
            why,
        })?;
    }
    if !blind
        && let Some((later, durable_through)) =
            find_proof(&mut reader, segments, at, start.database)?
    {
        reached(Mark::TailBehindGroup);
        Err(LogError::Corrupt {
            at,
            later: Some(later),
            durable_through,
            why,
        })?;
    }
    // Where bytes are missing that the segment once had, nobody knows whether a group was there.
    if why.field == GroupField::Available {
        let short = segments.cut_short(at).map_err(LogError::Io)?;
        if let Some(damage) = short.or_else(|| segments.lost(at)) {
            Err(damage)?;
        }
    }
    // Both come after the position was found to be right: bytes of this very group.
    found.torn = matches!(
        why.field,
        GroupField::HeaderChecksum | GroupField::PayloadChecksum
    );
    if found.torn {
        reached(Mark::TornTail);
    }
    if found.records > 0 {
        reached(Mark::Replayed);
    }
    Ok(found)
}

/// Whether a sound group begins where the log is said to end, or a little behind it, or with a later segment, of this database or of
/// another where none of this one is or that carries its chain; or the segment in which it is said to end is not there, which then must have been there, or groups that say more are behind it.
/// Recycled segments hold groups of other positions only.
///
/// - Cost: a few blocks, and one of each later segment; a part of the log if that segment is not there, and later ones are.
///
/// # Errors
/// [`LogError::Io`].
pub(crate) fn goes_on(
    segments: &Segments,
    end: LogPosition,
    database: u64,
) -> Result<bool, LogError> {
    let (end, chain) = (end.lsn, end.checksum);
    let (first, offset) = segments.locate(end);
    let numbers = segments.numbers_from(first);
    if segments.lost(end).is_some() {
        return Ok(true);
    }
    if numbers.first().is_some_and(|number| *number > first) {
        return Ok(proof_behind(segments, end, database)?.is_some());
    }
    for number in numbers {
        let (offset, many) = match number == first {
            true => (offset, BLOCKS_LOOKED_AT),
            // Groups need not begin with segments, but most do.
            false => (0, 1),
        };
        let Some(file) = segments.open_file(number, OpenMode::Read)? else {
            continue;
        };
        let room = file.len()?.saturating_sub(offset) / LOG_BLOCK_BYTES as u64;
        let len = usize::try_from(room).map_or(many, |room| many.min(room)) * LOG_BLOCK_BYTES;
        if len == 0 {
            continue;
        }
        let mut blocks = Buf::zeroed(len);
        file.read_at(offset, &mut blocks)?;
        let from = Lsn::new(number * segments.segment_bytes() + offset);
        let places = (0..).step_by(LOG_BLOCK_BYTES).map(|at| from.plus(at));
        for (block, at) in blocks.chunks_exact(LOG_BLOCK_BYTES).zip(places) {
            if let Some((group, of)) = sound_at(block, at)
                && (of == database
                    || at == end && group.previous == chain
                    || !begins_own(segments, end, database)?)
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Blocks behind the end of a log that was closed in which a group is looked for: more than one, since an older data file of another
/// copy may name a place within a group.
const BLOCKS_LOOKED_AT: usize = 16;

/// The group whose header in `block` is sound and of position `at`, and the database that it says it is of.
fn sound_at(block: &[u8], at: Lsn) -> Option<(Group, u64)> {
    if !group::claims_position(block, at) {
        return None;
    }
    let database = group::claimed_database(block)?;
    let (group, _) = Group::decode(block, at, database).ok()?;
    Some((group, database))
}

/// Whether what was found is no group of another database but a value that looks like one, left in a segment that was recycled: it does not
/// carry `chain`, which this log's next group must, where that is known.
///
/// # Errors
/// [`LogError::Io`].
pub(crate) fn is_value(
    segments: &Segments,
    why: &GroupError,
    database: u64,
    chain: Option<u32>,
) -> Result<bool, LogError> {
    if why.field != GroupField::Database {
        return Ok(false);
    }
    let (number, offset) = segments.locate(why.at);
    let Some(file) = segments.open_file(number, OpenMode::Read)? else {
        return Ok(false);
    };
    let mut block = Buf::zeroed(LOG_BLOCK_BYTES);
    file.read_at(offset, &mut block)?;
    let found = sound_at(&block, why.at);
    let follows = found.is_some_and(|(group, _)| Some(group.previous) == chain);
    Ok(!follows && begins_own(segments, why.at, database)?)
}

/// Whether a sound group of `database` lies before `end` in the same segment: then the segment is this log's, and what is of another
/// database behind that is a value that somebody stored, who need not have known our id.
fn begins_own(segments: &Segments, end: Lsn, database: u64) -> Result<bool, LogError> {
    let (number, offset) = segments.locate(end);
    let Some(file) = segments.open_file(number, OpenMode::Read)? else {
        return Ok(false);
    };
    let (start, until) = (number * segments.segment_bytes(), offset.min(file.len()?));
    let mut block = Buf::zeroed(LOG_BLOCK_BYTES);
    for at in (0..until / LOG_BLOCK_BYTES as u64).map(|block| block * LOG_BLOCK_BYTES as u64) {
        file.read_at(at, &mut block)?;
        if sound_at(&block, Lsn::new(start + at)).is_some_and(|(_, of)| of == database) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A sound group behind `end` that says more than that was durable, or is of another database where none of this one is: its position
/// and what it says.
///
/// # Errors
/// [`LogError::Io`].
pub(crate) fn proof_behind(
    segments: &Segments,
    end: Lsn,
    database: u64,
) -> Result<Option<(Lsn, Lsn)>, LogError> {
    let mut reader = Reader::new(segments).map_err(LogError::Io)?;
    find_proof(&mut reader, segments, end, database)
}

/// Fails unless a group can begin at `at`.
fn check_border(at: Lsn) -> Result<(), LogError> {
    let block = LOG_BLOCK_BYTES as u64;
    let (expected, found) = (at.get() / block * block, at.get());
    if expected == found {
        return Ok(());
    }
    let why = GroupError {
        at,
        field: GroupField::Position,
        expected,
        found,
    };
    Err(LogError::Corrupt {
        at,
        later: None,
        durable_through: at,
        why,
    })
}

/// What lies at the end of what was read so far.
enum Next<'r> {
    /// A sound group that follows.
    Group {
        group: Group,
        checksum: u32,
        payload: &'r [u8],
    },
    /// Nothing, or something a crash can leave.
    Broken(GroupError),
}

fn next_group<'r>(
    reader: &'r mut Reader<'_>,
    end: LogPosition,
    database: u64,
) -> Result<Next<'r>, LogError> {
    let at = end.lsn;
    let block = reader
        .bytes(at, LOG_BLOCK_BYTES as u64)?
        .unwrap_or_default();
    let (group, checksum) = match Group::decode(block, at, database) {
        Ok(decoded) => decoded,
        Err(why) => return broken(why),
    };
    let error = |field, expected, found| GroupError {
        at,
        field,
        expected,
        found,
    };
    if group.previous != end.checksum && !planted("a group may be of another place and time") {
        let (expected, found) = (end.checksum.into(), group.previous.into());
        return broken(error(GroupField::Previous, expected, found));
    }
    let payload = match group.payload(reader.bytes(at, group.len_bytes)?.unwrap_or_default()) {
        Ok(payload) => payload,
        Err(why) => return broken(why),
    };
    let last = end.last_txn.get();
    if last.checked_add(1) != Some(group.first_txn.get()) {
        let (expected, found) = (last.saturating_add(1), group.first_txn.get());
        return broken(error(GroupField::FirstTxn, expected, found));
    }
    Ok(Next::Group {
        group,
        checksum,
        payload,
    })
}

/// Tells what a crash can leave from what only a fault or a newer program can.
fn broken<'r>(why: GroupError) -> Result<Next<'r>, LogError> {
    if why.may_be_torn() {
        return Ok(Next::Broken(why));
    }
    // The header's checksum holds, at its own position: written whole, and not to be cut.
    Err(LogError::Corrupt {
        at: why.at,
        later: None,
        durable_through: why.at,
        why,
    })
}

/// Shows the records of a verified group and gives the id of the last.
fn show<E: From<LogError>>(
    group: &Group,
    mut rest: &[u8],
    visit: &mut impl FnMut(Lsn, Record<'_>) -> Result<(), E>,
) -> Result<TxnId, E> {
    let mut txn = group.first_txn;
    let lost = u32::from(planted("the last record of a group is not replayed"));
    let count = group.record_count.saturating_sub(lost).max(1);
    for index in 0..count {
        if index > 0 {
            txn = txn.next();
        }
        let (record, after) = Record::decode(rest)
            .and_then(|(record, after)| record.expect_txn(txn).map(|()| (record, after)))
            .map_err(|source| LogError::Record {
                group: group.lsn,
                txn,
                source,
            })?;
        visit(group.lsn, record)?;
        rest = after;
    }
    group.check_padding(rest).map_err(|why| LogError::Corrupt {
        at: group.lsn,
        later: None,
        durable_through: group.lsn,
        why,
    })?;
    Ok(txn)
}

/// Looks behind `end` as [`proof_behind`] says, as far as one group can be long.
fn find_proof(
    reader: &mut Reader<'_>,
    segments: &Segments,
    end: Lsn,
    database: u64,
) -> Result<Option<(Lsn, Lsn)>, LogError> {
    let chunk_bytes = segments.chunk_bytes();
    // The first chunk counts whole, though mostly behind the end.
    let mut budget = group::LEN_BYTES_MAX + chunk_bytes;
    let mut own: Option<bool> = None;
    for number in segments.numbers_from(segments.locate(end).0) {
        let start = Lsn::new(number * segments.segment_bytes());
        for index in 0..segments.segment_bytes() / chunk_bytes {
            let base = start.plus(index * chunk_bytes);
            if base.plus(chunk_bytes) <= end {
                continue;
            }
            let chunk = reader.chunk(base)?;
            let blocks = chunk.chunks_exact(LOG_BLOCK_BYTES);
            for (block, offset) in blocks.zip((0..).step_by(LOG_BLOCK_BYTES)) {
                let at = base.plus(offset);
                if at <= end {
                    continue;
                }
                let Some((later, of)) = sound_at(block, at) else {
                    continue;
                };
                let is_proof = match of == database {
                    true => later.durable_through > end,
                    false => match own {
                        Some(own) => !own,
                        None => !*own.insert(begins_own(segments, end, database)?),
                    },
                };
                if is_proof {
                    return Ok(Some((at, later.durable_through)));
                }
            }
            budget = budget.saturating_sub(chunk_bytes);
            if budget == 0 {
                return Ok(None);
            }
        }
    }
    Ok(None)
}
