//! Commit records: one transaction as the log carries it, and the operations inside.
//!
//! A record is a 48-byte header, the payload (tag, then operations) and an 8-byte trailer. It holds logical
//! operations only; page ids never enter it, so the same bytes feed recovery, replay and replication.
//!
//! Invariants:
//! 1. Decoding borrows: no byte of a key or value is copied, no number read from disk sizes an allocation.
//! 2. `op_count` operations fill the payload exactly; fewer, more or a remainder is a [`RecordError`].
//!
//! - Units: lengths in bytes; varints are LEB128, little end first, at most 10 bytes.
//! - Limits: `limits::{KEY_BYTES_MAX, TAG_BYTES_MAX, RECORD_BYTES_MAX}`, checked when decoding too.
//! - Failure: [`RecordError`] says which field, what was expected and what was found. Spec: CR-003.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::crc32c;
use crate::ids::TxnId;
use crate::limits::{RECORD_BYTES_MAX, TAG_BYTES_MAX};

mod op;

pub(crate) use op::{Op, OpMark, OpWriter, Ops};

/// "NSCR" as little-endian bytes.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"NSCR");
/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = size_of::<RecordHeader>();
/// Bytes of the trailer.
pub(crate) const TRAILER_BYTES: usize = size_of::<RecordTrailer>();
/// Bytes a record adds to its payload.
pub(crate) const FRAME_BYTES: usize = HEADER_BYTES + TRAILER_BYTES;

/// Bytes 0..48 of every record. Torn by a crash: only with its whole group, whose checksum tells first.
#[derive(Debug, Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordHeader {
    /// [`MAGIC`].
    magic: U32,
    /// CRC-32C of bytes 8..48.
    header_checksum: U32,
    /// The transaction's id.
    txn: U64,
    /// Wall clock at commit, nanoseconds since 1970, made monotone by the writer.
    timestamp_ns: U64,
    /// Bytes of tag and operations.
    payload_len: U64,
    /// Operations in the payload.
    op_count: U32,
    /// Bytes of the tag.
    tag_len: U16,
    /// None defined yet; a set bit is an error.
    flags: U16,
    /// Zero.
    reserved: U64,
}

/// The last 8 bytes of every record.
#[derive(Debug, Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RecordTrailer {
    /// CRC-32C of the payload.
    payload_checksum: U32,
    /// Low 32 bits of the transaction id, xor [`MAGIC`]: the trailer belongs to this header.
    check: U32,
}

const _: () = assert!(size_of::<RecordHeader>() == 48 && size_of::<RecordTrailer>() == 8);

/// The part of a record that contradicts what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordField {
    /// Fewer bytes at hand than the record or operation needs.
    Available,
    /// Not the beginning of a record.
    Magic,
    /// The header is damaged.
    HeaderChecksum,
    /// The payload is damaged.
    PayloadChecksum,
    /// The trailer belongs to another record.
    Trailer,
    /// A flag this build does not know, or reserved bytes that are not zero.
    Flags,
    /// The payload is longer than the limit.
    PayloadLength,
    /// The tag is longer than the limit or the payload.
    TagLength,
    /// Not the transaction that must follow.
    Txn,
    /// An operation of a kind this build does not know.
    OpKind,
    /// Operations end before or after the payload does: bytes left over.
    OpCount,
    /// A number does not end within ten bytes or 64 bits.
    Varint,
    /// A table id of more than 32 bits.
    Table,
    /// A key or range bound longer than the limit.
    KeyLength,
}

/// What reading one record or operation can report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field:?} is {found:#x}, expected {expected:#x}")]
pub(crate) struct RecordError {
    /// What contradicts.
    pub(crate) field: RecordField,
    /// The value or bound that would have passed.
    pub(crate) expected: u64,
    /// The value met.
    pub(crate) found: u64,
}

impl RecordError {
    fn new(field: RecordField, expected: u64, found: u64) -> Self {
        Self {
            field,
            expected,
            found,
        }
    }
}

fn expect(field: RecordField, found: u64, expected: u64) -> Result<(), RecordError> {
    if found == expected {
        Ok(())
    } else {
        Err(RecordError::new(field, expected, found))
    }
}

fn expect_at_most(field: RecordField, found: u64, limit: usize) -> Result<usize, RecordError> {
    match usize::try_from(found) {
        Ok(len) if len <= limit => Ok(len),
        _ => Err(RecordError::new(field, limit as u64, found)),
    }
}

/// Takes `len` bytes off the front of `rest`.
fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], RecordError> {
    let Some((taken, left)) = rest.split_at_checked(len) else {
        return Err(RecordError::new(
            RecordField::Available,
            len as u64,
            rest.len() as u64,
        ));
    };
    *rest = left;
    Ok(taken)
}

/// One transaction, seen in the bytes of its record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// The transaction's id.
    pub(crate) txn: TxnId,
    /// Wall clock at commit, nanoseconds since 1970.
    pub(crate) timestamp_ns: u64,
    /// Operations the record holds.
    pub(crate) op_count: u32,
    /// The tag, then the operations.
    payload: &'a [u8],
    tag_len: usize,
}

impl<'a> Record<'a> {
    /// Reads the record that `bytes` begin with and gives what follows it.
    ///
    /// # Errors
    /// Whatever contradicts itself. Operations are checked when iterated.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), RecordError> {
        let Ok((header, mut rest)) = RecordHeader::ref_from_prefix(bytes) else {
            let (expected, found) = (HEADER_BYTES as u64, bytes.len() as u64);
            return Err(RecordError::new(RecordField::Available, expected, found));
        };
        expect(RecordField::Magic, header.magic.get().into(), MAGIC.into())?;
        let found = header_checksum(header);
        expect(
            RecordField::HeaderChecksum,
            found.into(),
            header.header_checksum.get().into(),
        )?;
        expect(RecordField::Flags, header.flags.get().into(), 0)?;
        expect(RecordField::Flags, header.reserved.get(), 0)?;
        let payload_len = header.payload_len.get();
        let payload_len =
            expect_at_most(RecordField::PayloadLength, payload_len, RECORD_BYTES_MAX)?;
        let tag_len_max = TAG_BYTES_MAX.min(payload_len);
        let tag_len = expect_at_most(
            RecordField::TagLength,
            header.tag_len.get().into(),
            tag_len_max,
        )?;
        let payload = take(&mut rest, payload_len)?;
        let (found, trailer) = (crc32c(payload), take(&mut rest, TRAILER_BYTES)?);
        let Ok(trailer) = RecordTrailer::ref_from_bytes(trailer) else {
            unreachable!("exactly {TRAILER_BYTES} bytes were taken");
        };
        expect(
            RecordField::PayloadChecksum,
            found.into(),
            trailer.payload_checksum.get().into(),
        )?;
        let txn = TxnId::new(header.txn.get());
        expect(
            RecordField::Trailer,
            trailer.check.get().into(),
            trailer_check(txn).into(),
        )?;
        let record = Self {
            txn,
            timestamp_ns: header.timestamp_ns.get(),
            op_count: header.op_count.get(),
            payload,
            tag_len,
        };
        Ok((record, rest))
    }

    /// Fails unless the record is that of `txn`.
    ///
    /// # Errors
    /// [`RecordField::Txn`].
    pub(crate) fn expect_txn(&self, txn: TxnId) -> Result<(), RecordError> {
        expect(RecordField::Txn, self.txn.get(), txn.get())
    }

    /// The operations, in the order they were made.
    pub(crate) fn ops(&self) -> Ops<'a> {
        Ops::new(self.op_bytes(), self.op_count)
    }

    /// The bytes of the operations.
    pub(crate) fn op_bytes(&self) -> &'a [u8] {
        self.payload.get(self.tag_len..).unwrap_or_default()
    }

    /// Who committed and why. The engine keeps it and does not look at it.
    pub(crate) fn tag(&self) -> &'a [u8] {
        self.payload.get(..self.tag_len).unwrap_or_default()
    }
}

/// The header and trailer around a payload of tag and operations, in this order, given its length and checksum.
///
/// # Panics
/// When a limit is passed: callers refuse such transactions before they are numbered.
pub(crate) fn encode_frame(
    txn: TxnId,
    timestamp_ns: u64,
    tag_len: usize,
    (payload_len, payload_checksum): (usize, u32),
    op_count: u32,
) -> ([u8; HEADER_BYTES], [u8; TRAILER_BYTES]) {
    assert!(
        payload_len <= RECORD_BYTES_MAX,
        "{payload_len} bytes in one record"
    );
    assert!(tag_len <= TAG_BYTES_MAX, "{tag_len} bytes of tag");
    let mut header = RecordHeader {
        magic: MAGIC.into(),
        header_checksum: 0.into(),
        txn: txn.get().into(),
        timestamp_ns: timestamp_ns.into(),
        payload_len: (payload_len as u64).into(),
        op_count: op_count.into(),
        tag_len: u16::try_from(tag_len).unwrap_or(u16::MAX).into(),
        flags: 0.into(),
        reserved: 0.into(),
    };
    header.header_checksum = header_checksum(&header).into();
    let trailer = RecordTrailer {
        payload_checksum: payload_checksum.into(),
        check: trailer_check(txn).into(),
    };
    let (mut head, mut tail) = ([0; HEADER_BYTES], [0; TRAILER_BYTES]);
    head.copy_from_slice(header.as_bytes());
    tail.copy_from_slice(trailer.as_bytes());
    (head, tail)
}

const _: () = assert!(TAG_BYTES_MAX <= u16::MAX as usize);

fn header_checksum(header: &RecordHeader) -> u32 {
    crc32c(header.as_bytes().get(8..).unwrap_or_default())
}

fn trailer_check(txn: TxnId) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low 32 bits are what is meant"
    )]
    let low = txn.get() as u32;
    low ^ MAGIC
}

#[cfg(test)]
mod tests;
