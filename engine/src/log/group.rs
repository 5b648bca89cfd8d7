//! Groups in memory: records gathered into aligned buffers, sealed for one durable write.
//!
//! Invariants:
//! 1. Every buffer but the last in use is full, so a group's byte `i` is byte `i % CHUNK` of buffer `i / CHUNK`.
//! 2. Padding is zero: no older bytes of a recycled buffer reach the disk.
//!
//! - Threads: one fills; a sealed group may be written by another and its buffers handed back later.
//! - Cost: one copy and two checksums per record; no allocation once the buffers of two groups are in circulation.

use std::mem;

use northstar_io::Buf;

use super::LogPosition;
use crate::format::checksum::Crc32c;
use crate::format::group::{Group, HEADER_BYTES};
use crate::format::record::encode_frame;
use crate::ids::{Lsn, TxnId};
use crate::limits::{GROUP_BYTES_MAX, LOG_BLOCK_BYTES};

/// Bytes of one buffer: an ordinary group fits one, a giant record takes many.
pub(super) const CHUNK: usize = GROUP_BYTES_MAX;
/// Buffer lists kept for reuse: one group in flight, one being filled, one spare.
const POOL_MAX: usize = 3;

/// The group that is being filled.
#[derive(Debug)]
pub(crate) struct GroupBuilder {
    bufs: Vec<Buf>,
    pool: Vec<Vec<Buf>>,
    /// Bytes in use, the header's place included.
    len: usize,
    /// Bytes that `payload` covers, the header's place included.
    summed: usize,
    payload: Crc32c,
    first_txn: TxnId,
    record_count: u32,
}

/// A group ready to be written. Its buffers go back through [`GroupBuilder::recycle`].
#[derive(Debug)]
pub(crate) struct SealedGroup {
    pub(super) bufs: Vec<Buf>,
    /// The border it follows.
    pub(crate) start: LogPosition,
    /// The border it ends with.
    pub(crate) end: LogPosition,
}

impl SealedGroup {
    /// Bytes with header and padding.
    pub(crate) fn len_bytes(&self) -> usize {
        // Made from a usize in `seal`.
        usize::try_from(self.end.lsn.get() - self.start.lsn.get()).unwrap_or(usize::MAX)
    }

    /// The buffers in use, each but the last full, with the bytes used of each.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (&Buf, usize)> {
        let len = self.len_bytes();
        self.bufs
            .iter()
            .zip((0..len).step_by(CHUNK))
            .map(move |(buf, at)| (buf, (len - at).min(CHUNK)))
    }
}

impl Default for GroupBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl GroupBuilder {
    /// An empty group.
    pub(crate) fn new() -> Self {
        Self {
            bufs: Vec::new(),
            pool: Vec::new(),
            len: HEADER_BYTES,
            summed: HEADER_BYTES,
            payload: Crc32c::new(),
            first_txn: TxnId::ZERO,
            record_count: 0,
        }
    }

    /// Bytes so far, the header included, the padding not.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// True if no record is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// True if a record of `payload_len` bytes of tag and operations may join. An empty group takes any record.
    #[cfg(test)]
    pub(crate) fn fits(&self, payload_len: usize) -> bool {
        self.is_empty()
            || self.len + crate::format::record::FRAME_BYTES + payload_len <= GROUP_BYTES_MAX
    }

    /// Adds the record of the transaction that follows the last one.
    ///
    /// # Panics
    /// If the ids leave a gap, or a limit of the record is passed: both are to be refused before numbering.
    pub(crate) fn push_record(
        &mut self,
        txn: TxnId,
        timestamp_ns: u64,
        tag: &[u8],
        ops: &[u8],
        op_count: u32,
    ) {
        if self.is_empty() {
            assert!(txn > TxnId::ZERO, "transaction ids begin with 1");
            self.first_txn = txn;
        }
        let expected = self.first_txn.get() + u64::from(self.record_count);
        assert!(
            txn.get() == expected,
            "record of {txn:?} where t{expected} must follow"
        );
        let (header, trailer) = encode_frame(txn, timestamp_ns, tag, ops, op_count);
        for part in [&header[..], tag, ops, &trailer] {
            self.push(part);
        }
        self.record_count += 1;
        self.sum();
    }

    /// Completes the group that follows `start` and begins an empty one.
    ///
    /// `durable_through` is the end of the last group known durable.
    ///
    /// # Panics
    /// If the group is empty or does not follow `start`.
    pub(crate) fn seal(
        &mut self,
        start: LogPosition,
        durable_through: Lsn,
        database: u64,
    ) -> SealedGroup {
        assert!(!self.is_empty(), "a group holds at least one record");
        let expected = start.last_txn.next();
        assert!(
            self.first_txn == expected,
            "{:?} where {expected:?} follows",
            self.first_txn
        );
        assert!(
            durable_through <= start.lsn,
            "{durable_through:?} is beyond {start:?}"
        );
        let padding = self.len.next_multiple_of(LOG_BLOCK_BYTES) - self.len;
        self.push(&[0; LOG_BLOCK_BYTES][..padding]);
        self.sum();
        let group = Group {
            lsn: start.lsn,
            len_bytes: self.len as u64,
            database,
            previous: start.checksum,
            payload_checksum: self.payload.finish(),
            durable_through,
            first_txn: self.first_txn,
            record_count: self.record_count,
        };
        let (header, checksum) = group.encode();
        self.bufs[0][..HEADER_BYTES].copy_from_slice(&header);
        let last_txn = TxnId::new(self.first_txn.get() + u64::from(self.record_count) - 1);
        self.record_count = 0;
        self.len = HEADER_BYTES;
        self.summed = HEADER_BYTES;
        self.payload = Crc32c::new();
        SealedGroup {
            bufs: mem::replace(&mut self.bufs, self.pool.pop().unwrap_or_default()),
            start,
            end: LogPosition {
                lsn: group.end(),
                checksum,
                last_txn,
            },
        }
    }

    /// Takes back the buffers of a group that was written. What a giant record needed beyond one buffer is freed.
    pub(crate) fn recycle(&mut self, group: SealedGroup) {
        let mut bufs = group.bufs;
        if self.pool.len() < POOL_MAX {
            bufs.truncate(1);
            self.pool.push(bufs);
        }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (index, offset) = (self.len / CHUNK, self.len % CHUNK);
            if index == self.bufs.len() {
                self.bufs.push(Buf::zeroed(CHUNK));
            }
            let len = bytes.len().min(CHUNK - offset);
            let (now, later) = bytes.split_at(len);
            self.bufs[index][offset..offset + len].copy_from_slice(now);
            self.len += len;
            bytes = later;
        }
    }

    /// Brings the payload checksum up to date: while the record is still in the processor's cache.
    fn sum(&mut self) {
        while self.summed < self.len {
            let (index, offset) = (self.summed / CHUNK, self.summed % CHUNK);
            let len = (self.len - self.summed).min(CHUNK - offset);
            self.payload.update(&self.bufs[index][offset..offset + len]);
            self.summed += len;
        }
    }
}
