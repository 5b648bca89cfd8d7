//! One open snapshot, and the point reads of it.
//!
//! Opening: load the shape, announce its generation, read the visible transaction, and check that the shape is
//! still the current one. If it is, the transaction read belongs to it: a newer shape's transactions become
//! visible only after that shape was published. No lock, no allocation, one compare-exchange on an own cache line.
//!
//! It may be moved to newer pages and history while it is open: see [`super::moved`].
//!
//! Spec: SE-001, SE-002, SE-024.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use northstar_io::planted::planted;

use super::moved::Moved;
use super::registry::SlotId;
use super::shape::{Shape, Shapes};
use crate::delta::{Hit, Probe};
use crate::error::{Error, Result};
use crate::format::leaf::RowValue;
use crate::format::overflow::ExtentRef;
use crate::history::{self, Past, Run};
use crate::ids::{TableId, TxnId};
use crate::pages::store::Store;
use crate::pages::{Class, PageRead};
use crate::sync::atomic::{Ordering, fence};
use crate::tree::overflow::read_extent;
use crate::tree::search::{self, Found, FoundValue, Got, GotAt};

/// Where a snapshot was opened.
pub(crate) type Opener = &'static Location<'static>;

/// A state of the whole database that stays readable until dropped.
pub(crate) struct Snapshot {
    shape: arc_swap::Guard<Arc<Shape>>,
    slot: SlotId,
    at: TxnId,
    /// The trees may hold later rows: those are passed over, and what was before them is in history.
    is_past: bool,
    /// That, or it was moved and has found out. Relaxed, and not of the seam: who does not know it yet finds out again.
    elsewhere: AtomicBool,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("at", &self.at)
            .field("slot", &self.slot)
            .finish()
    }
}

impl Snapshot {
    /// The newest visible state; one that may be moved if it says where it was opened.
    pub(crate) fn newest(shapes: &Shapes, place: Option<Opener>) -> Result<Self> {
        Self::open(shapes, place, |_, visible| Ok(visible))
    }

    /// The state right after `txn`.
    pub(crate) fn at(shapes: &Shapes, txn: TxnId, place: Option<Opener>) -> Result<Self> {
        Self::open(shapes, place, |shape, visible| {
            if shape.history.horizon <= txn && txn <= visible {
                return Ok(txn);
            }
            Err(Error::SnapshotGone {
                asked: txn,
                horizon: shape.history.horizon,
                newest: visible,
            })
        })
    }

    /// Its slot.
    pub(crate) const fn slot(&self) -> SlotId {
        self.slot
    }

    /// What the holder of the writer role sees: everything applied, and its own writes as `own`.
    pub(crate) fn own_writes(shapes: &Shapes, own: TxnId) -> Result<Self> {
        Self::open(shapes, None, |_, _| Ok(own))
    }

    /// The state right after `txn`, which this one's shape has whole.
    pub(crate) fn of_same_shape(&self, txn: TxnId) -> Result<Self> {
        let registry = &self.shape.shared.registry;
        loop {
            let (moves, shape) = match self.moved()? {
                Some(moved) => moved,
                None => (0, Arc::clone(&self.shape)),
            };
            let slot = registry.claim(shape.generation).ok_or_else(all_open)?;
            registry.note(slot, txn, None);
            // Made first, so that the slot is given back whatever follows.
            let snapshot = Self::new(arc_swap::Guard::from_inner(shape), slot, txn);
            // This snapshot keeps what the generation needs, unless it was moved on meanwhile.
            if self.moved()?.map_or(0, |(moves, _)| moves) == moves {
                return Ok(snapshot);
            }
        }
    }

    fn open(
        shapes: &Shapes,
        place: Option<Opener>,
        choose: impl Fn(&Shape, TxnId) -> Result<TxnId>,
    ) -> Result<Self> {
        let registry = &shapes.shared.registry;
        loop {
            let shape = shapes.load();
            let slot = registry.claim(shape.generation).ok_or_else(all_open)?;
            let visible = shapes.shared.visible();
            // The load of the visible transaction must not sink below the re-check.
            fence(Ordering::Acquire);
            if !shapes.is_current(&shape) && !planted("a snapshot does not look again") {
                registry.release(slot);
                continue;
            }
            if shapes.shared.is_closed() {
                registry.release(slot);
                shapes.shared.unlock_if_unused();
                return Err(Error::Closed);
            }
            return match choose(&shape, visible) {
                Ok(at) => {
                    registry.note(slot, at, place);
                    Ok(Self::new(shape, slot, at))
                }
                Err(error) => {
                    registry.release(slot);
                    Err(error)
                }
            };
        }
    }

    fn new(shape: arc_swap::Guard<Arc<Shape>>, slot: SlotId, at: TxnId) -> Self {
        let is_past = at < shape.tree_txn;
        Self {
            shape,
            slot,
            at,
            is_past,
            elsewhere: AtomicBool::new(is_past),
        }
    }

    pub(crate) fn txn(&self) -> TxnId {
        self.at
    }

    /// How often it was moved, and what it can read from since, if it was: what to look at when a read has failed.
    ///
    /// # Errors
    /// [`Error::SnapshotGone`] if it was ended.
    #[cold]
    pub(crate) fn moved(&self) -> Result<Option<(u64, Arc<Shape>)>> {
        let shared = &self.shape.shared;
        let stays = planted("a snapshot that was moved goes on with its old pages");
        if !shared.registry.is_moved(self.slot) || stays {
            return Ok(None);
        }
        self.elsewhere.store(true, Relaxed);
        match shared.moved.find(self.slot) {
            None => Ok(None),
            Some((moves, Moved::To(shape))) => Ok(Some((moves, shape))),
            Some((_, Moved::Ended)) => Err(Error::SnapshotGone {
                asked: self.at,
                horizon: self.at.next(),
                newest: shared.visible(),
            }),
        }
    }

    /// Reads from where it was moved to if reading has failed with `error`, for as long as it is moved again meanwhile.
    #[cold]
    fn after<R>(&self, error: Error, read: impl Fn(&Shape) -> Result<R>) -> Result<R> {
        let (mut last, mut error) = (0, error);
        while let Some((moves, shape)) = self.moved()?
            && moves != last
        {
            last = moves;
            match read(&shape) {
                Err(again) => error = again,
                found => return found,
            }
        }
        Err(error)
    }

    /// Whether the trees may hold later rows, or it was moved.
    #[inline]
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.elsewhere.load(Relaxed)
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Fails for a table of which no history is kept: where the trees may hold later rows, or the snapshot was moved.
    pub(crate) fn may_look_back(&self, table: TableId) -> Result<()> {
        match table.keeps_history() || planted("the past of a table without history is read") {
            true => Ok(()),
            false => Err(Error::NoHistory { table: table.get() }),
        }
    }

    /// Whether the trees may hold later rows.
    pub(crate) fn is_past(&self) -> bool {
        self.is_past
    }

    /// The runs that may hold versions of this state.
    pub(crate) fn runs(&self) -> &[Run] {
        self.shape.history.seen_at(self.at)
    }

    /// Rows of a table as of its last checkpoint, plus the entries buffered since: an estimate.
    pub(crate) fn rows_estimate(&self, table: TableId) -> u64 {
        self.shape.roots.get(table).map_or(0, |root| root.rows)
    }
}

/// Every slot of the registry is taken.
#[cold]
fn all_open() -> Error {
    Error::TooLarge {
        what: "open snapshots",
        len: 1 << 20,
        limit: (1 << 20) - 1,
    }
}

// Point reads.
impl Snapshot {
    /// Makes ready to ask the deltas for `key`: [`Snapshot::buffered`] finds what it looks at first in the processor's
    /// caches a moment later. `None` if no delta holds anything.
    #[inline]
    fn probe<'k>(&self, table: TableId, key: &'k [u8]) -> Option<Probe<'k>> {
        if !self.shape.deltas().any(|delta| delta.was_written()) {
            return None;
        }
        let probe = Probe::new(table, key);
        self.shape.deltas().for_each(|delta| delta.warm(&probe));
        Some(probe)
    }

    /// The newest version of a key in the deltas, if any delta has one.
    fn buffered(&self, probe: Option<&Probe<'_>>) -> Option<Hit<'_>> {
        let probe = probe?;
        self.shape
            .deltas()
            .find_map(|delta| delta.get(probe, self.at))
    }

    /// The value of `key`: the deltas' if they have one, else the tree's. The two are looked at together, so that their
    /// cache misses overlap: see [`search::get_unless`].
    pub(crate) fn get(&self, table: TableId, key: &[u8]) -> Result<Option<Value<'_>>> {
        if self.is_elsewhere() {
            return self.get_elsewhere(table, key);
        }
        let probe = self.probe(table, key);
        let buffered = || self.buffered(probe.as_ref());
        let Some(root) = self.shape.roots.get(table) else {
            return Ok(buffered().and_then(Value::of_hit));
        };
        let store = &*self.shape.shared.store;
        let error = match search::get_unless(store, root.page, key, buffered) {
            Ok(Got::Instead(hit)) => return Ok(Value::of_hit(hit)),
            Ok(Got::Row(None)) => return Ok(None),
            Ok(Got::Row(Some(found))) => match self.hold(found) {
                Ok(value) => return Ok(Some(value)),
                Err(error) => error,
            },
            Err(error) => error.into(),
        };
        self.after(error, |shape| self.get_moved(shape, table, key))
    }

    /// As [`Snapshot::get`], where the tree may hold later rows, or the snapshot was moved.
    #[cold]
    fn get_elsewhere(&self, table: TableId, key: &[u8]) -> Result<Option<Value<'_>>> {
        // Who was moved does not try the pages of its time again and again.
        let moved = self.moved()?;
        self.may_look_back(table)?;
        let found = match moved {
            Some((_, shape)) => self.get_moved(&shape, table, key),
            None => self.get_past(table, key),
        };
        found.or_else(|error| self.after(error, |shape| self.get_moved(shape, table, key)))
    }

    /// As [`Snapshot::get`], where the tree may hold later rows.
    #[cold]
    fn get_past(&self, table: TableId, key: &[u8]) -> Result<Option<Value<'_>>> {
        let probe = self.probe(table, key);
        let buffered = || self.buffered(probe.as_ref());
        let store = &*self.shape.shared.store;
        let in_tree = match self.shape.roots.get(table) {
            Some(root) => search::get_at(store, root.page, key, self.at, buffered)?,
            None => buffered().map_or(GotAt::Changed, GotAt::Instead),
        };
        if let GotAt::Instead(hit) = in_tree {
            return Ok(Value::of_hit(hit));
        }
        self.with_history(in_tree, self.runs(), table, key)
    }

    /// The value of `key` in the trees and runs of `shape`, which has nothing in its deltas.
    fn get_moved(&self, shape: &Shape, table: TableId, key: &[u8]) -> Result<Option<Value<'_>>> {
        self.may_look_back(table)?;
        let store = &*self.shape.shared.store;
        let in_tree = match shape.roots.get(table) {
            Some(root) => search::get_at(store, root.page, key, self.at, || None::<Hit<'_>>)?,
            None => GotAt::Changed,
        };
        self.with_history(in_tree, shape.history.seen_at(self.at), table, key)
    }

    /// What the tree says, or where that came later, history.
    fn with_history<'t>(
        &'t self,
        in_tree: GotAt<Hit<'_>, Pin<'t>>,
        runs: &[Run],
        table: TableId,
        key: &[u8],
    ) -> Result<Option<Value<'t>>> {
        let store = &*self.shape.shared.store;
        match in_tree {
            GotAt::Row(found) => return self.hold(found).map(Some),
            GotAt::Absent | GotAt::Instead(_) => return Ok(None),
            GotAt::Changed => {}
        }
        match history::find(store, runs, table, key, self.at)? {
            Some(Past::Found(found)) => self.hold(found).map(Some),
            Some(Past::Copied(value)) => Ok(Some(Value(Held::Copied(value)))),
            Some(Past::Extent(extent)) => self.large(&extent).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn multi_get(
        &self,
        table: TableId,
        keys: &[&[u8]],
    ) -> Result<Vec<Option<Value<'_>>>> {
        if self.is_elsewhere() {
            let get = |key: &&[u8]| self.get_elsewhere(table, key);
            return keys.iter().map(get).collect();
        }
        let found = self.multi_get_own(table, keys);
        found.or_else(|error| {
            self.after(error, |shape| {
                let get = |key: &&[u8]| self.get_moved(shape, table, key);
                keys.iter().map(get).collect()
            })
        })
    }

    fn multi_get_own(&self, table: TableId, keys: &[&[u8]]) -> Result<Vec<Option<Value<'_>>>> {
        let mut values: Vec<_> = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        let probes: Vec<_> = keys.iter().map(|key| self.probe(table, key)).collect();
        for (index, probe) in probes.iter().enumerate() {
            match self.buffered(probe.as_ref()) {
                Some(hit) => values.push(Value::of_hit(hit)),
                None => {
                    missing.push(index);
                    values.push(None);
                }
            }
        }
        let Some(root) = self.shape.roots.get(table) else {
            return Ok(values);
        };
        let wanted: Vec<&[u8]> = missing
            .iter()
            .filter_map(|at| keys.get(*at).copied())
            .collect();
        let store = &*self.shape.shared.store;
        let mut extents = Vec::new();
        search::multi_get(store, root.page, &wanted, |index, found| {
            let Some(place) = missing.get(index).and_then(|at| values.get_mut(*at)) else {
                return;
            };
            match found.map(|row| row.value) {
                // Copied: the page is held only while this runs.
                Some(RowValue::Inline(value)) => *place = Some(Value(Held::Copied(value.to_vec()))),
                Some(RowValue::Extent(extent)) => extents.push((index, extent)),
                None => {}
            }
        })?;
        for (index, extent) in extents {
            if let Some(place) = missing.get(index).and_then(|at| values.get_mut(*at)) {
                *place = Some(self.large(&extent)?);
            }
        }
        Ok(values)
    }

    fn hold<'t>(&'t self, found: Found<Pin<'t>>) -> Result<Value<'t>> {
        match &found.value {
            FoundValue::Extent(extent) => self.large(extent),
            FoundValue::Inline(_) => Ok(Value(Held::Page(found))),
        }
    }

    fn large(&self, extent: &ExtentRef) -> Result<Value<'_>> {
        let store = &*self.shape.shared.store;
        let value = read_extent(store, extent, store.page_bytes(), Class::Point)?;
        Ok(Value(Held::Copied(value)))
    }
}

type Pin<'t> = <Store as PageRead>::Pin<'t>;

/// A value read from a transaction. It borrows the bytes where they lie; a large value is copied together.
pub struct Value<'t>(Held<'t>);

impl<'t> Value<'t> {
    /// What a delta says: a value, or that there is none.
    fn of_hit(hit: Hit<'t>) -> Option<Self> {
        hit.value.map(|value| Self(Held::Delta(value)))
    }
}

enum Held<'t> {
    Delta(&'t [u8]),
    Page(Found<Pin<'t>>),
    Copied(Vec<u8>),
}

impl std::ops::Deref for Value<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Delta(value) => value,
            Held::Page(found) => found.inline().unwrap_or_default(),
            Held::Copied(value) => value,
        }
    }
}

impl AsRef<[u8]> for Value<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq<[u8]> for Value<'_> {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let shared = &self.shape.shared;
        if shared.registry.release(self.slot) {
            shared.moved.remove(self.slot);
        }
        if shared.is_closed() {
            shared.unlock_if_unused();
        }
    }
}
