//! A delta's nodes and tree, over an arena of boxes.

mod arena;
#[path = "../../../engine/src/delta/filter.rs"]
mod filter;
#[path = "../../../engine/src/delta/node.rs"]
mod node;
#[path = "../../../engine/src/delta/tree.rs"]
mod tree;

pub(crate) use arena::Link;
use arena::{Arena, Record};
use tree::{Path, Table};

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
    pub(crate) fn find(&self, key: &[u8]) -> Option<&'static [u8]> {
        self.table
            .find(&self.arena, key)
            .map(|record| self.arena.record(record).key)
    }

    /// All keys from the right, as a cursor goes that reads backwards.
    pub(crate) fn last(&self) -> Option<&'static [u8]> {
        loop {
            let view = self.table.last_leaf(&self.arena)?;
            let highest = view.permutation.len().checked_sub(1)?;
            let record = view.leaf.slots.record(view.permutation.slot(highest));
            if view.is_still() {
                return record.map(|record| self.arena.record(record).key);
            }
        }
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
