//! The commit log: one endless stream of groups, kept in recycled segment files.
//!
//! A commit waits for one thing, the durable write of its group here. Everything else the database keeps can be
//! rebuilt from this stream. Knows records and positions; does not know trees or pages of the data file.
//!
//! Invariants:
//! 1. A block that was acknowledged is never written again while its segment holds it.
//! 2. Groups follow each other without a gap, each carrying the checksum of the header before it.
//! 3. After a failed write or sync nothing more is written through the same [`LogWriter`].
//! 4. Reading writes nothing. What a crash left half-written is cut only by [`LogWriter::start_at`], durably,
//!    after [`scan()`] has found no proof that it was acknowledged.

#![forbid(unsafe_code)]

mod append;
mod begins;
mod bytes;
mod claim;
mod follow;
mod group;
mod places;
mod probe;
mod read;
mod retain;
mod scan;
mod segment;
mod survey;
#[cfg(test)]
mod tests;

pub(crate) use append::{LogCounters, LogWriter};
pub(crate) use claim::Claim;
pub(crate) use follow::Follower;
pub(crate) use group::GroupBuilder;
pub(crate) use places::Places;
pub(crate) use probe::{fingerprint, probe};
pub(crate) use retain::Retainer;
pub(crate) use scan::{ScanEnd, ScanStart, goes_on, is_value, proof_behind, scan};
pub(crate) use segment::Segments;
pub(crate) use survey::survey;

use crate::format::group::GroupError;
use crate::format::record::RecordError;
pub(crate) use crate::ids::LogPosition;
use crate::ids::{Lsn, TxnId};
use northstar_io::IoError;

/// What the log can report.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LogError {
    /// The device did not deliver. From [`LogWriter::append`]: whether the group is durable is unknown.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A group that is proven to have been durable is damaged, or a sound one makes no sense.
    #[error(
        "log is damaged at {at}, though all before {durable_through} was durable{}: {why}",
        .later.map_or_else(String::new, |later| format!(" (says the group at {later})"))
    )]
    Corrupt {
        /// The end of the readable log.
        at: Lsn,
        /// The group that proves it, if the proof is in the log.
        later: Option<Lsn>,
        /// What is proven.
        durable_through: Lsn,
        /// What is wrong with the group at `at`.
        why: GroupError,
    },
    /// A segment does not have its whole length, as it had before it got its name: no crash takes that away.
    #[error(
        "segment {number} of the log is cut short: it has {found} bytes, expected {expected}; a group may have been at {at}"
    )]
    Short {
        /// Its number.
        number: u64,
        /// The end of the readable log.
        at: Lsn,
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// The segment in which the log goes on is gone.
    #[error("segment {number} of the log is not there, in which it goes on at {at}")]
    Lost {
        /// Its number.
        number: u64,
        /// The end of the readable log.
        at: Lsn,
    },
    /// A record inside a sound group contradicts itself.
    #[error("record of transaction {txn} in the group at {group}: {source}")]
    Record {
        /// Where the group begins.
        group: Lsn,
        /// The transaction expected there.
        txn: TxnId,
        /// What is wrong.
        source: RecordError,
    },
    /// The log does not reach back to what was asked for: it was recycled.
    #[error("this part of the log was recycled")]
    Gone,
    /// An earlier write failed; reopening the database recovers.
    #[error("the log has halted after an earlier error")]
    Halted,
}
