//! A delta's nodes and tree, over an arena of boxes.

mod arena;
#[path = "../../../engine/src/delta/cursor.rs"]
mod cursor;
#[path = "../../../engine/src/delta/filter.rs"]
mod filter;
#[path = "../../../engine/src/delta/node.rs"]
mod node;
#[path = "../../../engine/src/delta/range.rs"]
mod range;
#[path = "../../../engine/src/delta/tree.rs"]
mod tree;
#[path = "../../../engine/src/delta/version.rs"]
mod version;

pub(crate) use arena::Link;
use arena::{Arena, Record};
use cursor::DeltaCursor;
use tree::{Path, Table};

use crate::ids::TxnId;

/// A table that one thread writes and others read.
pub(crate) struct Keys {
    arena: Arena,
    table: Table,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self {
            arena: Arena::default(),
            table: Table::default(),
        }
    }

    /// Adds a version of `key`, as `DeltaWriter::write` does.
    pub(crate) fn insert(&self, key: &'static [u8], path: &mut WayIn) {
        let spot = self.table.locate(&self.arena, key, &mut path.0);
        let record = self.arena.alloc_record(key);
        let inserted = self
            .table
            .insert(&self.arena, spot, key, record, &mut path.0);
        assert!(inserted.is_ok(), "the model's arena has room");
    }

    /// The key of the record that is found for `key`.
    pub(crate) fn find(&self, key: &[u8]) -> Option<&[u8]> {
        self.table
            .find(&self.arena, key)
            .map(|record| self.arena.record(record).key)
    }

    /// All keys, as a cursor walks them.
    pub(crate) fn walk(&self, forward: bool) -> Vec<&[u8]> {
        let mut cursor = DeltaCursor::new(&self.arena, Some(&self.table), TxnId::new(1));
        let mut keys = Vec::new();
        let mut at = if forward {
            cursor.seek(&[])
        } else {
            cursor.last()
        };
        while let Some((key, _)) = at {
            keys.push(key);
            at = if forward {
                cursor.next()
            } else {
                cursor.prev()
            };
        }
        keys
    }
}

/// The writer's own.
#[derive(Default)]
pub(crate) struct WayIn(Path);

/// The address of a record, to be published.
pub(crate) type RecordLink = Link<Record>;

/// The filter in front of a delta.
pub(crate) struct Hashes(filter::Filter);

impl Hashes {
    pub(crate) fn new() -> Self {
        Self(filter::Filter::for_keys(1))
    }

    pub(crate) fn insert(&self, hash: u64) {
        self.0.insert(hash);
    }

    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        self.0.may_contain(hash)
    }
}
