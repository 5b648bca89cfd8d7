//! Groups in memory: records gathered into aligned buffers, sealed for one durable write.
//!
//! A *giant* record is not copied into buffers: it ends its group and stays where its transaction gathered it, until
//! the log streams it out. So the largest transaction needs its own memory once, not twice.
//!
//! Invariants:
//! 1. Every buffer but the last in use is full, so byte `i` of a group's head is byte `i % CHUNK` of buffer
//!    `i / CHUNK`.
//! 2. Padding is zero: no older bytes of a recycled buffer reach the disk.
//!
//! - Threads: one fills; a sealed group may be written by another and its buffers handed back later.
//! - Cost: two checksums per record, and one copy of all but giant ones; no allocation once the buffers of two groups
//!   are in circulation.

use std::mem;

use northstar_io::{Buf, Tape};

use super::LogPosition;
use crate::format::checksum::Crc32c;
use crate::format::group::{Group, HEADER_BYTES};
use crate::format::record::{OpWriter, encode_frame};
use crate::ids::{Lsn, TxnId};
use crate::limits::{GROUP_BYTES_MAX, LOG_BLOCK_BYTES};

/// Bytes of one buffer: an ordinary group fits one, a giant record takes many.
pub(super) const CHUNK: usize = GROUP_BYTES_MAX;
/// From this many bytes of operations on, a record is giant.
const GIANT_BYTES: usize = 1024 * 1024;
/// Buffers kept of one list: a group is filled up to a megabyte, and the record that fills it may be a small one.
const KEPT_MAX: usize = 1 + GIANT_BYTES / CHUNK;
/// Buffer lists kept for reuse: one group in flight, one being filled, one spare.
const POOL_MAX: usize = 3;

/// The group that is being filled.
#[derive(Debug)]
pub(crate) struct GroupBuilder {
    bufs: Vec<Buf>,
    pool: Vec<Vec<Buf>>,
    /// Bytes in use of `bufs`, the header's place included.
    head_len: usize,
    /// Bytes of `bufs` that `payload` covers, the header's place included.
    summed: usize,
    /// The giant that ends the group.
    giant: Option<Giant>,
    payload: Crc32c,
    first_txn: TxnId,
    record_count: u32,
}

/// The end of a group: the operations of its last record, then that record's trailer and the padding.
#[derive(Debug)]
struct Giant {
    ops: Tape,
    end: Vec<u8>,
}

/// A group ready to be written. Its buffers go back through [`GroupBuilder::recycle`].
#[derive(Debug)]
pub(crate) struct SealedGroup {
    bufs: Vec<Buf>,
    head_len: usize,
    giant: Option<Giant>,
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

    /// The one buffer that holds all of the group, if one does.
    pub(super) fn whole(&self) -> Option<&Buf> {
        let one = self.giant.is_none() && self.head_len <= CHUNK;
        self.bufs.first().filter(|_| one)
    }

    /// Copies the group's bytes from `from` on into `to`.
    ///
    /// # Panics
    /// If the group has fewer.
    pub(super) fn read(&self, from: usize, mut to: &mut [u8]) {
        let mut skip = from;
        for part in self.parts() {
            let skipped = skip.min(part.len());
            skip -= skipped;
            let part = &part[skipped..];
            let (now, later) = to.split_at_mut(part.len().min(to.len()));
            now.copy_from_slice(&part[..now.len()]);
            to = later;
        }
        assert!(to.is_empty(), "{} bytes beyond the group", to.len());
    }

    /// All bytes, in order.
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let len = self.head_len;
        let head = self
            .bufs
            .iter()
            .zip((0..len).step_by(CHUNK))
            .map(move |(buf, at)| &buf[..(len - at).min(CHUNK)]);
        let giant = self
            .giant
            .iter()
            .flat_map(|giant| [&giant.ops[..], &giant.end]);
        head.chain(giant)
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
            head_len: HEADER_BYTES,
            summed: HEADER_BYTES,
            giant: None,
            payload: Crc32c::new(),
            first_txn: TxnId::ZERO,
            record_count: 0,
        }
    }

    /// Bytes so far, the header included, the padding not.
    pub(crate) fn len(&self) -> usize {
        let giant = |giant: &Giant| giant.ops.len() + giant.end.len();
        self.head_len + self.giant.as_ref().map_or(0, giant)
    }

    /// True if no record is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// True if a record of `payload_len` bytes of tag and operations may join. An empty group takes any record.
    #[cfg(test)]
    pub(crate) fn fits(&self, payload_len: usize) -> bool {
        self.is_empty()
            || self.len() + crate::format::record::FRAME_BYTES + payload_len <= GROUP_BYTES_MAX
    }

    /// Adds the record of the transaction that follows the last one.
    ///
    /// # Panics
    /// If the ids leave a gap, a limit of the record is passed, or a giant is in the group: all of these are to be
    /// refused before numbering.
    pub(crate) fn push_record(&mut self, txn: TxnId, timestamp_ns: u64, tag: &[u8], ops: OpWriter) {
        assert!(self.giant.is_none(), "{txn:?} after a giant");
        if self.is_empty() {
            assert!(txn > TxnId::ZERO, "transaction ids begin with 1");
            self.first_txn = txn;
        }
        let expected = self.first_txn.get() + u64::from(self.record_count);
        assert!(
            txn.get() == expected,
            "record of {txn:?} where t{expected} must follow"
        );
        let giant = ops.bytes().len() >= GIANT_BYTES;
        let (mut payload, mut ops_sum) = (Crc32c::new(), Crc32c::new());
        payload.update(tag);
        if giant {
            // Summed once, for record and group: a giant is in no cache.
            ops_sum.update(ops.bytes());
            payload.combine(&ops_sum);
        } else {
            payload.update(ops.bytes());
        }
        let len = tag.len() + ops.bytes().len();
        let payload = (len, payload.finish());
        let (header, trailer) = encode_frame(txn, timestamp_ns, tag.len(), payload, ops.count());
        self.record_count += 1;
        self.push(&header);
        self.push(tag);
        if !giant {
            self.push(ops.bytes());
            self.push(&trailer);
            return self.sum();
        }
        self.sum();
        let giant = Giant {
            ops: ops.into_bytes(),
            end: trailer.to_vec(),
        };
        self.payload.combine(&ops_sum);
        self.payload.update(&giant.end);
        self.giant = Some(giant);
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
        let padding = self.len().next_multiple_of(LOG_BLOCK_BYTES) - self.len();
        let padding = &[0; LOG_BLOCK_BYTES][..padding];
        if let Some(giant) = &mut self.giant {
            giant.end.extend_from_slice(padding);
            self.payload.update(padding);
        } else {
            self.push(padding);
            self.sum();
        }
        let group = Group {
            lsn: start.lsn,
            len_bytes: self.len() as u64,
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
        self.summed = HEADER_BYTES;
        self.payload = Crc32c::new();
        SealedGroup {
            head_len: mem::replace(&mut self.head_len, HEADER_BYTES),
            giant: self.giant.take(),
            bufs: mem::replace(&mut self.bufs, self.pool.pop().unwrap_or_default()),
            start,
            end: LogPosition {
                lsn: group.end(),
                checksum,
                last_txn,
            },
        }
    }

    /// Takes back the buffers of a group that was written. What it needed beyond a group of ordinary records is freed.
    pub(crate) fn recycle(&mut self, group: SealedGroup) {
        let mut bufs = group.bufs;
        if self.pool.len() < POOL_MAX {
            bufs.truncate(KEPT_MAX);
            self.pool.push(bufs);
        }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (index, offset) = (self.head_len / CHUNK, self.head_len % CHUNK);
            if index == self.bufs.len() {
                self.bufs.push(Buf::zeroed(CHUNK));
            }
            let len = bytes.len().min(CHUNK - offset);
            let (now, later) = bytes.split_at(len);
            self.bufs[index][offset..offset + len].copy_from_slice(now);
            self.head_len += len;
            bytes = later;
        }
    }

    /// Brings the payload checksum up to date: while the record is still in the processor's cache.
    fn sum(&mut self) {
        while self.summed < self.head_len {
            let (index, offset) = (self.summed / CHUNK, self.summed % CHUNK);
            let len = (self.head_len - self.summed).min(CHUNK - offset);
            self.payload.update(&self.bufs[index][offset..offset + len]);
            self.summed += len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TableId;

    fn sealed(builder: &mut GroupBuilder, at: LogPosition, values: &[usize]) -> SealedGroup {
        for (txn, len) in (at.last_txn.get() + 1..).zip(values) {
            let mut ops = OpWriter::new();
            ops.put(TableId::new(16), b"key", &vec![7; *len]);
            builder.push_record(TxnId::new(txn), 0, b"", ops);
        }
        builder.seal(at, at.lsn, 5)
    }

    #[test]
    fn a_few_buffers_are_kept_and_what_large_groups_needed_is_freed() {
        let mut builder = GroupBuilder::new();
        let mut groups = Vec::new();
        for _ in 0..POOL_MAX + 2 {
            // Three chunks and more, in records none of which is giant.
            let group = sealed(&mut builder, LogPosition::default(), &[300_000; 7]);
            assert_eq!(group.bufs.len(), 9);
            assert!(group.whole().is_none());
            groups.push(group);
        }
        assert_eq!(builder.pool.len(), 0);
        for (kept, group) in groups.into_iter().enumerate() {
            builder.recycle(group);
            assert_eq!(builder.pool.len(), (kept + 1).min(POOL_MAX));
        }
        assert!(builder.pool.iter().all(|bufs| bufs.len() == KEPT_MAX));
        let again = sealed(&mut builder, LogPosition::default(), &[10]);
        assert_eq!(
            (builder.pool.len(), builder.bufs.len()),
            (POOL_MAX - 1, KEPT_MAX)
        );
        assert_eq!(again.bufs.len(), 1);
    }

    #[test]
    fn a_group_is_as_long_as_it_says_wherever_it_is_read() {
        // Ending in the first buffer, with it, behind it; with a giant alone and behind others.
        let records: [&[usize]; 6] = [
            &[0],
            &[100, 5000],
            &[CHUNK - 200],
            &[CHUNK],
            &[GIANT_BYTES],
            &[10, 300_000, GIANT_BYTES + 77],
        ];
        for values in records {
            let (mut builder, at) = (GroupBuilder::new(), LogPosition::default());
            assert!(builder.is_empty());
            let group = sealed(&mut builder, at, values);
            assert!(builder.is_empty() && builder.len() == HEADER_BYTES);
            let len = group.len_bytes();
            assert!(len.is_multiple_of(LOG_BLOCK_BYTES));
            let payload = values.iter().sum::<usize>();
            assert!(len > payload && len < payload + LOG_BLOCK_BYTES + 200 * values.len());
            let mut whole = vec![0xaa; len];
            group.read(0, &mut whole);
            assert_eq!(group.whole().is_some(), len <= CHUNK);
            let (header, checksum) = Group::decode(&whole, at.lsn, 5).unwrap();
            assert_eq!(header.len_bytes, len as u64);
            assert_eq!(header.record_count as usize, values.len());
            assert_eq!(group.end.checksum, checksum);
            assert_eq!(group.end.last_txn.get(), values.len() as u64);
            header.payload(&whole).unwrap();
            for from in [1, 64, len / 2, len - 4096, len - 1] {
                let mut part = vec![0xaa; (len - from).min(5000)];
                group.read(from, &mut part);
                assert!(
                    part == whole[from..from + part.len()],
                    "{values:?} from {from}"
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "beyond the group")]
    fn bytes_beyond_a_group_are_not_made_up() {
        let group = sealed(&mut GroupBuilder::new(), LogPosition::default(), &[10]);
        group.read(4095, &mut [0; 2]);
    }

    #[test]
    #[should_panic(expected = "where t2 must follow")]
    fn ids_of_a_group_leave_no_gap() {
        let mut builder = GroupBuilder::new();
        builder.push_record(TxnId::new(1), 0, b"", OpWriter::new());
        builder.push_record(TxnId::new(3), 0, b"", OpWriter::new());
    }

    #[test]
    #[should_panic(expected = "is beyond")]
    fn a_group_proves_nothing_beyond_its_own_beginning() {
        let mut builder = GroupBuilder::new();
        builder.push_record(TxnId::new(1), 0, b"", OpWriter::new());
        builder.seal(LogPosition::default(), Lsn::new(1), 5);
    }

    #[test]
    #[should_panic(expected = "after a giant")]
    fn a_giant_ends_its_group() {
        let mut builder = GroupBuilder::new();
        for txn in [1, 2] {
            let mut ops = OpWriter::new();
            ops.put(TableId::new(16), b"key", &vec![7; GIANT_BYTES]);
            builder.push_record(TxnId::new(txn), 0, b"", ops);
        }
    }
}
