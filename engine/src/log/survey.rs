//! What the segments of a log say of themselves, for who has no meta page to ask.
//!
//! How long segments are and whose they are is what most of them agree on: each names, with its first sound header, a
//! place in the stream and a database, and these are right for one length of segments only.
//!
//! - Limit: a header is sound by its checksum alone; whoever forges more of them than the log has segments is believed.
//! - Spec: SE-025.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use northstar_io::{Disk, IoError, OpenMode};

use super::bytes::Bytes;
use super::segment::Segments;
use crate::format::group::{Group, claimed_database, claims_position};
use crate::ids::Lsn;
use crate::limits::{LOG_BLOCK_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

/// What was found out.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The segments, of the length that is the likeliest.
    pub(crate) segments: Arc<Segments>,
    /// Low 64 bits of the id of the database whose log it is; none if no group was found.
    pub(crate) database: Option<u64>,
}

/// Looks at the log in `dir`. None if there are no segments.
///
/// # Errors
/// The directory cannot be listed.
pub(crate) fn survey(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Option<Survey>, IoError> {
    let open = |bytes| Segments::open(Arc::clone(disk), dir, bytes);
    let lengths = lengths(&*open(u64::from(SEGMENT_BYTES_MIN))?);
    let Some(longest) = lengths.values().max() else {
        return Ok(None);
    };
    let sizes = || {
        let all = (0..).map(|shift| u64::from(SEGMENT_BYTES_MIN) << shift);
        all.take_while(|size| *size <= u64::from(SEGMENT_BYTES_MAX))
    };
    // One of a segment that was cut short is the last that is tried.
    let rounded = sizes().find(|size| size >= longest);
    let is_likely = |size: &u64| lengths.values().any(|len| len == size) || rounded == Some(*size);
    let mut best: Option<(usize, Survey)> = None;
    for likely in [true, false] {
        for size in sizes().filter(|size| is_likely(size) == likely) {
            let segments = open(size)?;
            let (votes, database) = vote(&segments, &lengths);
            if best.as_ref().is_none_or(|(most, _)| votes > *most) {
                best = Some((votes, Survey { segments, database }));
            }
        }
        if matches!(best, Some((1.., _))) {
            break;
        }
    }
    Ok(best.map(|(_, survey)| survey))
}

/// The segments that can be opened, and their lengths.
fn lengths(segments: &Segments) -> BTreeMap<u64, u64> {
    let length = |number| {
        let file = segments.open_file(number, OpenMode::Read).ok().flatten()?;
        Some((number, file.len().ok()?))
    };
    let numbers = segments.numbers_from(0);
    numbers.into_iter().filter_map(length).collect()
}

/// The database that most segments belong to, and how many do.
fn vote(segments: &Arc<Segments>, lengths: &BTreeMap<u64, u64>) -> (usize, Option<u64>) {
    let mut bytes = Bytes::new(Arc::clone(segments));
    let mut votes = BTreeMap::<u64, usize>::new();
    for number in segments.numbers_from(0) {
        let start = Lsn::new(number * segments.segment_bytes());
        let len = lengths.get(&number).copied().unwrap_or_default();
        let end = start.plus(len.min(segments.segment_bytes()));
        if let Some(database) = first_database(&mut bytes, start, end) {
            *votes.entry(database).or_default() += 1;
        }
    }
    let winner = votes.into_iter().max_by_key(|(_, votes)| *votes);
    winner.map_or((0, None), |(database, votes)| (votes, Some(database)))
}

/// What the first sound header in `at..end` says.
fn first_database(bytes: &mut Bytes, mut at: Lsn, end: Lsn) -> Option<u64> {
    let block = LOG_BLOCK_BYTES as u64;
    while at.plus(block) <= end {
        if let Ok(found) = bytes.get(at, block, end)
            && claims_position(found, at)
            && let Some(database) = claimed_database(found)
            && Group::decode(found, at, database).is_ok()
        {
            return Some(database);
        }
        at = at.plus(block);
    }
    None
}
