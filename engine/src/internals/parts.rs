//! The small parts, for benches: each made from plain bytes and asked one thing.

use std::sync::Arc;

use crate::delta::{
    Delta, DeltaConfig, DeltaFull, DeltaWriter, KeyFilter as Filter, Probe, key_hash,
};
use crate::format::branch::{Below, Branch, BranchFacts, BranchWriter};
use crate::format::checksum;
use crate::format::leaf::{Leaf, LeafFacts, LeafWriter, row_bytes, txn_bytes};
use crate::format::node::common_prefix;
use crate::format::page::{HEADER_BYTES, Page};
use crate::format::record::{OpWriter, encode_frame};
use crate::ids::{Generation, PageId, PageRef, TableId, TxnId};
use crate::tree::search::{child_index, row_index};

const TABLE: TableId = TableId::new(16);
const PAGE_BYTES: usize = 16 * 1024;
const BELOW: Below = Below {
    rows: 1,
    has_extents: false,
};

/// A leaf or a branch of 16 KiB in memory.
#[derive(Debug)]
pub struct Node(Vec<u8>);

impl Node {
    /// A leaf with these rows, whose keys rise and which fit.
    #[must_use]
    pub fn leaf(rows: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let mut bytes = vec![0; PAGE_BYTES];
        let facts = LeafFacts {
            table: TABLE,
            count: rows.len(),
            txn_min: 1,
            txn_max: 1,
            delete_txn_max: 0,
        };
        let mut writer = LeafWriter::new(&mut bytes, facts, &[]);
        for (key, value) in rows {
            writer.push(key, 1, value, false);
        }
        writer.finish();
        Self(bytes)
    }

    /// A branch whose children, after the first, begin at these keys, which rise.
    #[must_use]
    pub fn branch(separators: &[Vec<u8>]) -> Self {
        let mut bytes = vec![0; PAGE_BYTES];
        let facts = BranchFacts {
            table: TABLE,
            level: 1,
            count: separators.len() + 1,
            txn_max: 1,
            delete_txn_max: 0,
        };
        let child = PageRef {
            id: PageId::new(7),
            checksum: 0,
            generation: Generation::new(1),
        };
        let mut writer = BranchWriter::new(&mut bytes, facts, &[]);
        writer.push(&[], child, BELOW);
        for separator in separators {
            writer.push(separator, child, BELOW);
        }
        writer.finish();
        Self(bytes)
    }

    /// Index of the row with `key` in a leaf.
    #[must_use]
    pub fn row(&self, key: &[u8]) -> Option<usize> {
        let leaf = Leaf::view(Page::trusted(&self.0)).ok()?;
        row_index(&leaf, key).ok()?.ok()
    }

    /// Index of the child that covers `key` in a branch.
    #[must_use]
    pub fn child(&self, key: &[u8]) -> Option<usize> {
        let branch = Branch::view(Page::trusted(&self.0)).ok()?;
        child_index(&branch, key).ok()
    }
}

/// A leaf of history of `page_bytes` with as many of the rows as fit: the key as stored, who wrote it, the value. Keys rise.
#[must_use]
pub fn history_leaf(page_bytes: usize, rows: &[(Vec<u8>, u64, Vec<u8>)]) -> Vec<u8> {
    let txns = rows.iter().map(|(_, txn, _)| *txn);
    let txn_min = txns.clone().min().unwrap_or_default();
    let txn_max = txns.max().unwrap_or_default();
    let mut room = page_bytes.saturating_sub(HEADER_BYTES);
    let fits = |(key, _, value): &&(Vec<u8>, u64, Vec<u8>)| {
        let bytes = row_bytes(key.len(), value.len(), false, txn_bytes(txn_max - txn_min));
        let left = room.checked_sub(bytes);
        room = left.unwrap_or_default();
        left.is_some()
    };
    let count = rows.iter().take_while(fits).count();
    let rows = rows.get(..count).unwrap_or_default();
    let prefix = match rows {
        [(first, _, _), .., (last, _, _)] => first.get(..common_prefix(first, last)),
        _ => None,
    };
    let facts = LeafFacts {
        table: TableId::HISTORY,
        count,
        txn_min,
        txn_max,
        delete_txn_max: 0,
    };
    let mut bytes = vec![0; page_bytes];
    let mut writer = LeafWriter::new(&mut bytes, facts, prefix.unwrap_or_default());
    for (key, txn, value) in rows {
        writer.push(key, *txn, value, false);
    }
    writer.finish();
    bytes
}

/// Encodes a record of these puts, frame and checksum too; gives its length in bytes.
#[must_use]
pub fn encode_record(rows: &[(Vec<u8>, Vec<u8>)]) -> usize {
    let mut ops = OpWriter::new();
    for (key, value) in rows {
        ops.put(TABLE, key, value);
    }
    let bytes = ops.bytes();
    let sum = (bytes.len(), checksum::crc32c(bytes));
    let (head, tail) = encode_frame(TxnId::new(1), 1, 0, sum, ops.count());
    std::hint::black_box((&head, &tail));
    head.len() + bytes.len() + tail.len()
}

/// The filter in front of the delta.
#[allow(missing_debug_implementations, reason = "a bench does not print it")]
pub struct KeyFilter(Filter);

impl KeyFilter {
    /// For about so many keys.
    #[must_use]
    pub fn new(keys: usize) -> Self {
        Self(Filter::for_keys(keys))
    }

    /// Adds a key.
    pub fn insert(&self, key: &[u8]) {
        self.0.insert(key_hash(TABLE, key));
    }

    /// Whether the key may be there.
    #[must_use]
    pub fn may_contain(&self, key: &[u8]) -> bool {
        self.0.may_contain(key_hash(TABLE, key))
    }
}

/// A delta and its writer.
#[allow(missing_debug_implementations, reason = "a bench does not print it")]
pub struct Buffered {
    delta: Arc<Delta>,
    writer: DeltaWriter,
    txn: u64,
}

impl Buffered {
    /// An empty one, with address space for `bytes` and a filter for `keys`.
    ///
    /// # Errors
    /// The system's.
    pub fn new(bytes: usize, keys: usize) -> Result<Self, northstar_io::IoError> {
        let (delta, writer) = Delta::new(DeltaConfig {
            arena_bytes: bytes,
            filter_keys: keys,
        })?;
        Ok(Self {
            delta,
            writer,
            txn: 0,
        })
    }

    /// Puts a row in a transaction of its own. Whether there was room.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.txn += 1;
        let put: Result<(), DeltaFull> = self.writer.put(TABLE, key, value, TxnId::new(self.txn));
        self.writer.forget_marks();
        put.is_ok()
    }

    /// Bytes of the newest version of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<usize> {
        let hit = self
            .delta
            .get(&Probe::new(TABLE, key), TxnId::new(u64::MAX))?;
        hit.value.map(<[u8]>::len)
    }
}
