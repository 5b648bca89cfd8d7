//! The shape of the data at a moment: deltas over tree roots, published as one pointer.
//!
//! Commits do not change the shape, they only raise the visible transaction id. Freezing a delta, merging a slice
//! of it, and dropping it when merged do.
//!
//! Invariants:
//! 1. `active`, `frozen` (newest first) and the roots together hold, for every key, the newest version at or
//!    below any transaction from `tree_txn` to the visible one; with `history`, from its horizon on, but
//!    for tables of which none is kept.
//! 2. Sequence numbers rise by one with every publication.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use northstar_io::FileLock;

use super::backups::Backups;
use super::bell::Bell;
use super::moved::MovedSnapshots;
use super::registry::Registry;
use crate::delta::Delta;
use crate::format::meta::TreeRoot;
use crate::history::History;
use crate::ids::{Generation, TableId, TxnId};
use crate::pages::store::Store;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::txn::table::Tables;

/// Tree roots by table: of the tables that have one, in the order of their ids.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roots {
    by_id: Vec<(TableId, TreeRoot)>,
}

impl Roots {
    /// The root of a table's tree; `None` while the tree is empty.
    pub(crate) fn get(&self, table: TableId) -> Option<&TreeRoot> {
        let place = self.place(table).ok()?;
        self.by_id.get(place).map(|(_, root)| root)
    }

    fn place(&self, table: TableId) -> Result<usize, usize> {
        self.by_id.binary_search_by_key(&table, |(id, _)| *id)
    }

    pub(crate) fn set(&mut self, table: TableId, root: Option<TreeRoot>) {
        match (self.place(table), root) {
            (Ok(at), Some(root)) => self.by_id[at].1 = root,
            (Ok(at), None) => drop(self.by_id.remove(at)),
            (Err(at), Some(root)) => self.by_id.insert(at, (table, root)),
            (Err(_), None) => {}
        }
    }

    /// Every non-empty tree.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TableId, &TreeRoot)> {
        self.by_id.iter().map(|(id, root)| (*id, root))
    }
}

/// What every snapshot of a database shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) registry: Registry,
    /// The snapshots that were moved.
    pub(crate) moved: MovedSnapshots,
    /// The newest transaction that readers may see. Rises; stored with `Release` after the group is durable.
    pub(crate) visible: AtomicU64,
    /// Sequence number of the current shape.
    shape_seq: AtomicU64,
    /// Rung when `visible` has risen.
    pub(crate) bell: Bell,
    /// The handles given out.
    pub(crate) tables: Tables,
    /// The backups that are being made.
    pub(crate) backups: Backups,
    /// No snapshot is opened any more.
    closed: AtomicBool,
    /// Kept while the database is open, and then while a snapshot still reads its files.
    lock: Mutex<Option<Box<dyn FileLock>>>,
}

impl Shared {
    pub(crate) fn new(
        store: Arc<Store>,
        visible: TxnId,
        next_table: TableId,
        file_lock: Option<Box<dyn FileLock>>,
    ) -> Self {
        Self {
            store,
            registry: Registry::default(),
            moved: MovedSnapshots::default(),
            visible: AtomicU64::new(visible.get()),
            shape_seq: AtomicU64::new(0),
            bell: Bell::default(),
            tables: Tables::new(next_table),
            backups: Backups::default(),
            closed: AtomicBool::new(false),
            lock: Mutex::new(file_lock),
        }
    }

    /// Forgets where snapshots were moved to that have ended. One that ends while it is moved does not do so itself, and what is
    /// kept for it keeps all of this.
    pub(crate) fn forget_ended(&self) {
        let mut open = BTreeSet::new();
        self.registry.each_open(|found| {
            open.insert(found.slot);
        });
        self.moved.retain(|slot| open.contains(&slot));
    }

    /// Ends the opening of snapshots; the file lock goes with the last of them.
    pub(crate) fn close(&self) {
        self.forget_ended();
        // SeqCst: before the scan of the registry, as a publication is; see the registry's invariant 2.
        self.closed.store(true, Ordering::SeqCst);
        self.unlock_if_unused();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Gives the file lock up if the database is closed and nobody reads it.
    pub(crate) fn unlock_if_unused(&self) {
        if self.is_closed() && self.registry.oldest().is_none() {
            *self.lock.lock() = None;
        }
    }

    pub(crate) fn visible(&self) -> TxnId {
        // Acquire: pairs with the Release of the log role, so a reader of T sees all of T's delta entries.
        TxnId::new(self.visible.load(Ordering::Acquire))
    }
}

/// One shape.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) seq: u64,
    /// The generation whose roots these are.
    pub(crate) generation: Generation,
    /// Everything up to here is in the trees. What was before is read from history, down to its horizon.
    pub(crate) tree_txn: TxnId,
    pub(crate) history: Arc<History>,
    /// Takes the writes.
    pub(crate) active: Arc<Delta>,
    /// Waiting for or under merge, newest first.
    pub(crate) frozen: Vec<Arc<Delta>>,
    pub(crate) roots: Arc<Roots>,
    pub(crate) shared: Arc<Shared>,
}

impl Shape {
    /// All deltas, newest first.
    pub(crate) fn deltas(&self) -> impl DoubleEndedIterator<Item = &Arc<Delta>> {
        std::iter::once(&self.active).chain(&self.frozen)
    }
}

/// The published shape.
#[derive(Debug)]
pub(crate) struct Shapes {
    current: ArcSwap<Shape>,
    /// Serialises publications; never taken by readers.
    publishing: Mutex<()>,
    pub(crate) shared: Arc<Shared>,
}

impl Shapes {
    pub(crate) fn new(first: Shape) -> Self {
        let shared = Arc::clone(&first.shared);
        shared.shape_seq.store(first.seq, Ordering::SeqCst);
        Self {
            current: ArcSwap::from_pointee(first),
            publishing: Mutex::new(()),
            shared,
        }
    }

    pub(crate) fn load(&self) -> arc_swap::Guard<Arc<Shape>> {
        self.current.load()
    }

    /// Whether no newer shape was published. One whose publication is half done is newer than the number says, and as
    /// good: nobody waits for a publisher that was put off the processor.
    pub(crate) fn is_current(&self, shape: &Shape) -> bool {
        // SeqCst: the re-check of the registry's invariant 2.
        self.shared.shape_seq.load(Ordering::SeqCst) <= shape.seq
    }

    /// Publishes what `change` makes of the current shape.
    pub(crate) fn publish(&self, change: impl FnOnce(&mut Shape)) {
        let _one_at_a_time = self.publishing.lock();
        let mut next = Shape::clone(&self.current.load());
        change(&mut next);
        next.seq += 1;
        let seq = next.seq;
        self.current.store(Arc::new(next));
        // SeqCst: before any scan of the registry that follows, see the registry's invariant 2.
        self.shared.shape_seq.store(seq, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PageId, PageRef};

    #[test]
    fn roots_take_memory_by_their_number_and_not_by_the_highest_id() {
        let root = |page| TreeRoot {
            page: PageRef {
                id: PageId::new(page),
                checksum: 0,
                generation: Generation::default(),
            },
            level: 0,
            rows: page,
        };
        let mut roots = Roots::default();
        for id in [u32::MAX, 16, 99] {
            roots.set(TableId::new(id), Some(root(id.into())));
        }
        roots.set(TableId::new(99), None);
        roots.set(TableId::new(98), None);
        let ids: Vec<_> = roots
            .iter()
            .map(|(id, root)| (id.get(), root.rows))
            .collect();
        assert_eq!(ids, [(16, 16), (u32::MAX, u64::from(u32::MAX))]);
        assert!(roots.get(TableId::new(99)).is_none());
        assert_eq!(roots.by_id.len(), 2);
    }
}
