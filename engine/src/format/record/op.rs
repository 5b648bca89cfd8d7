//! Operations inside a record: written by [`OpWriter`], walked by [`Ops`].
//!
//! One operation is a kind byte, the table as a varint and, by kind, byte strings each led by its length as a varint.
//! A savepoint is a length to truncate to: operations are only ever added at the end.

use northstar_io::Tape;

use super::{RecordError, RecordField, expect_at_most, take};
use crate::ids::TableId;
use crate::limits::KEY_BYTES_MAX;

/// Longest bound of a range delete: a longest key and the zero byte that makes it exclusive.
const BOUND_BYTES_MAX: usize = KEY_BYTES_MAX + 1;

/// Longest varint.
const VARINT_BYTES_MAX: usize = u64::BITS.div_ceil(7) as usize;

/// How operations are told apart. Stored: values are never changed or reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum OpKind {
    Put = 1,
    Delete = 2,
    DeleteRange = 3,
    DropTable = 4,
    DeleteFrom = 5,
}

/// One change of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    /// The key has this value from now on.
    Put {
        /// Whose key.
        table: TableId,
        /// At most `KEY_BYTES_MAX` bytes.
        key: &'a [u8],
        /// What it is mapped to.
        value: &'a [u8],
    },
    /// The key is absent from now on.
    Delete {
        /// Whose key.
        table: TableId,
        /// At most `KEY_BYTES_MAX` bytes.
        key: &'a [u8],
    },
    /// All keys from `from` up to and without `to` are absent from now on.
    DeleteRange {
        /// Whose keys.
        table: TableId,
        /// First key that goes.
        from: &'a [u8],
        /// First key that stays; none if all go to the end of the table.
        to: Option<&'a [u8]>,
    },
    /// The table and all its keys are gone.
    DropTable {
        /// Which table.
        table: TableId,
    },
}

impl Op<'_> {
    /// The table it changes.
    pub(crate) const fn table(&self) -> TableId {
        match *self {
            Self::Put { table, .. }
            | Self::Delete { table, .. }
            | Self::DeleteRange { table, .. }
            | Self::DropTable { table } => table,
        }
    }
}

/// Checked walk over the operations of a record. Ends after the first error.
#[derive(Debug, Clone)]
pub(crate) struct Ops<'a> {
    rest: &'a [u8],
    left: u32,
    failed: bool,
}

impl<'a> Ops<'a> {
    /// A walk over `bytes`, which must hold exactly `count` operations.
    pub(crate) fn new(bytes: &'a [u8], count: u32) -> Self {
        Self {
            rest: bytes,
            left: count,
            failed: false,
        }
    }

    fn decode(&mut self) -> Result<Op<'a>, RecordError> {
        let rest = &mut self.rest;
        let kind = take(rest, 1)?.first().copied().unwrap_or_default();
        let table = take_table(rest)?;
        let key = |rest: &mut &'a [u8], limit| {
            let len = take_varint(rest)?;
            take(rest, expect_at_most(RecordField::KeyLength, len, limit)?)
        };
        Ok(match kind {
            kind if kind == OpKind::Put as u8 => {
                let key = key(rest, KEY_BYTES_MAX)?;
                let len = take_varint(rest)?;
                let len = expect_at_most(RecordField::Available, len, rest.len())?;
                Op::Put {
                    table,
                    key,
                    value: take(rest, len)?,
                }
            }
            kind if kind == OpKind::Delete as u8 => Op::Delete {
                table,
                key: key(rest, KEY_BYTES_MAX)?,
            },
            kind if kind == OpKind::DeleteRange as u8 => Op::DeleteRange {
                table,
                from: key(rest, BOUND_BYTES_MAX)?,
                to: Some(key(rest, BOUND_BYTES_MAX)?),
            },
            kind if kind == OpKind::DeleteFrom as u8 => Op::DeleteRange {
                table,
                from: key(rest, BOUND_BYTES_MAX)?,
                to: None,
            },
            kind if kind == OpKind::DropTable as u8 => Op::DropTable { table },
            unknown => {
                let newest = OpKind::DeleteFrom as u64;
                return Err(RecordError::new(
                    RecordField::OpKind,
                    newest,
                    unknown.into(),
                ));
            }
        })
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<Op<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let op = if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            self.decode()
        } else if self.rest.is_empty() {
            return None;
        } else {
            Err(RecordError::new(
                RecordField::OpCount,
                0,
                self.rest.len() as u64,
            ))
        };
        self.failed = op.is_err();
        Some(op)
    }
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, RecordError> {
    let mut value = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = take(rest, 1)?.first().copied().unwrap_or_default();
        let bits = u64::from(byte & 0x7f);
        if (bits << shift) >> shift != bits {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(RecordError::new(RecordField::Varint, u64::MAX, value))
}

fn take_table(rest: &mut &[u8]) -> Result<TableId, RecordError> {
    let stored = take_varint(rest)?;
    let table = u32::try_from(stored)
        .map_err(|_| RecordError::new(RecordField::Table, u32::MAX.into(), stored))?;
    Ok(TableId::new(table))
}

#[inline]
fn push_varint(bytes: &mut Tape, value: u64) {
    // Tables, keys and most values have small numbers and lengths.
    match value {
        ..0x80 => bytes.push((value & 0x7f) as u8),
        0x80.. => push_long_varint(bytes, value),
    }
}

fn push_long_varint(bytes: &mut Tape, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7f) as u8);
}

fn push_bytes(bytes: &mut Tape, content: &[u8]) {
    push_varint(bytes, content.len() as u64);
    bytes.extend_from_slice(content);
}

/// Collects the operations of one transaction as its record will carry them.
///
/// Lengths are the caller's to check against the limits, before anything is written here.
#[derive(Debug, Default)]
pub(crate) struct OpWriter {
    bytes: Tape,
    count: u32,
}

/// A state of an [`OpWriter`] to come back to: what a savepoint keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpMark {
    len: usize,
    count: u32,
}

impl OpWriter {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// From `count` operations as they are stored, which were found sound.
    pub(crate) fn from_encoded(encoded: Vec<u8>, count: u32) -> Self {
        let bytes = Tape::from(encoded);
        Self { bytes, count }
    }

    /// All operations as they are stored.
    pub(crate) fn into_bytes(self) -> Tape {
        self.bytes
    }

    /// Adds all of `other`.
    pub(crate) fn append(&mut self, other: &Self) {
        self.bytes.extend_from_slice(other.bytes());
        self.count += other.count;
    }

    /// The operation's kind and table, with room for `content` bytes in up to two strings behind them.
    fn begin(&mut self, kind: OpKind, table: TableId, content: usize) {
        self.bytes.reserve(1 + 3 * VARINT_BYTES_MAX + content);
        self.bytes.push(kind as u8);
        push_varint(&mut self.bytes, table.get().into());
        self.count += 1;
    }

    /// Adds [`Op::Put`].
    pub(crate) fn put(&mut self, table: TableId, key: &[u8], value: &[u8]) {
        self.begin(OpKind::Put, table, key.len() + value.len());
        push_bytes(&mut self.bytes, key);
        push_bytes(&mut self.bytes, value);
    }

    /// Adds [`Op::Delete`].
    pub(crate) fn delete(&mut self, table: TableId, key: &[u8]) {
        self.begin(OpKind::Delete, table, key.len());
        push_bytes(&mut self.bytes, key);
    }

    /// Adds [`Op::DeleteRange`].
    pub(crate) fn delete_range(&mut self, table: TableId, from: &[u8], to: Option<&[u8]>) {
        let kind = if to.is_some() {
            OpKind::DeleteRange
        } else {
            OpKind::DeleteFrom
        };
        self.begin(kind, table, from.len() + to.map_or(0, <[u8]>::len));
        push_bytes(&mut self.bytes, from);
        if let Some(to) = to {
            push_bytes(&mut self.bytes, to);
        }
    }

    /// Adds [`Op::DropTable`].
    pub(crate) fn drop_table(&mut self, table: TableId) {
        self.begin(OpKind::DropTable, table, 0);
    }

    /// Adds any operation.
    pub(crate) fn push(&mut self, op: Op<'_>) {
        match op {
            Op::Put { table, key, value } => self.put(table, key, value),
            Op::Delete { table, key } => self.delete(table, key),
            Op::DeleteRange { table, from, to } => self.delete_range(table, from, to),
            Op::DropTable { table } => self.drop_table(table),
        }
    }

    /// The present state.
    pub(crate) fn mark(&self) -> OpMark {
        OpMark {
            len: self.bytes.len(),
            count: self.count,
        }
    }

    /// Forgets what was added since `mark`.
    pub(crate) fn truncate(&mut self, mark: OpMark) {
        self.bytes.truncate(mark.len);
        self.count = mark.count;
    }

    /// The operations so far, encoded.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Operations so far.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// True if nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Walks the operations so far.
    pub(crate) fn ops(&self) -> Ops<'_> {
        Ops::new(&self.bytes, self.count)
    }
}
