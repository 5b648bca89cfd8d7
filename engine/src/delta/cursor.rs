//! Walking one table of a delta in key order, both ways, while the writer goes on.
//!
//! A cursor shows the keys that have a version its snapshot sees, deleted ones included. It remembers a leaf, the leaf's
//! version and permutation, and its place in that; when a split has turned the version it finds its place again by key.
//!
//! Invariant: every key with a version at or below `at` that was published before the cursor was made is shown exactly
//! once by a walk in one direction. Later writes may or may not be shown; the newest state is seen after a `seek`.
//!
//! - Cost: no allocation, no lock; one or two cache misses a step.

use super::arena::{Arena, At, Record, RecordRef};
use super::node::Leaf;
use super::range::RangeDeletes;
use super::tree::{LeafView, Table};
use super::version::{Hit, newer_of, visible};
use crate::ids::TxnId;

/// Records asked for ahead of a step within the first leaf of a walk; later leaves are asked for as a whole.
const AHEAD: usize = 3;

/// A place in a leaf.
#[derive(Clone, Copy)]
struct Place<'d> {
    view: LeafView<'d>,
    /// Position of the cursor's key in the view's permutation.
    position: usize,
}

/// The key a cursor is at.
#[derive(Clone, Copy)]
struct Current<'d> {
    place: Place<'d>,
    key: &'d [u8],
    hit: Hit<'d>,
}

/// A cursor over one table as one snapshot sees it. Beyond either end it is nowhere, until it seeks.
#[derive(Clone)]
pub(crate) struct DeltaCursor<'d> {
    arena: &'d Arena,
    table: Option<&'d Table>,
    at: TxnId,
    current: Option<Current<'d>>,
}

/// A key and what the delta knows of it.
pub(crate) type Item<'d> = (&'d [u8], Hit<'d>);

impl<'d> DeltaCursor<'d> {
    pub(super) fn new(arena: &'d Arena, table: Option<&'d Table>, at: TxnId) -> Self {
        Self {
            arena,
            table,
            at,
            current: None,
        }
    }

    /// The key the cursor is at.
    #[inline]
    pub(crate) fn current(&self) -> Option<Item<'d>> {
        self.current
            .as_ref()
            .map(|current| (current.key, current.hit))
    }

    pub(super) fn arena(&self) -> &'d Arena {
        self.arena
    }

    /// The newest range delete of the table.
    pub(super) fn ranges(&self) -> Option<At<Record>> {
        self.table.and_then(|table| table.ranges.load())
    }

    /// Where the newest record of the current key is.
    pub(super) fn newest(&self) -> Option<At<Record>> {
        let Place { view, position } = self.current?.place;
        view.leaf.slots.record(view.permutation.slot(position))
    }

    /// Moves to the highest key.
    pub(crate) fn last(&mut self) -> Option<Item<'d>> {
        let last = self.table.and_then(|table| table.last_leaf(self.arena));
        self.backward(
            last.map(|view| Place {
                view,
                position: view.permutation.len(),
            }),
            None,
            true,
        )
    }

    /// Moves to the lowest key at or above `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Option<Item<'d>> {
        self.forward(self.find(key, false), key, true)
    }

    /// Moves to the highest key at or below `key`.
    pub(crate) fn seek_for_prev(&mut self, key: &[u8]) -> Option<Item<'d>> {
        self.backward(self.find(key, true), Some(key), true)
    }

    /// Moves to the next higher key.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Item<'d>> {
        let Current { mut place, key, .. } = self.current?;
        place.position += 1;
        self.forward(Some(place), key, false)
    }

    /// Moves to the next lower key.
    pub(crate) fn prev(&mut self) -> Option<Item<'d>> {
        let Current { place, key, .. } = self.current?;
        self.backward(Some(place), Some(key), false)
    }

    /// The place of `key`: of the lowest key at or above it, or above it if `beyond`.
    fn find(&self, key: &[u8], beyond: bool) -> Option<Place<'d>> {
        let view = self.table?.find_leaf(self.arena, key)?;
        let own = view.leaf.own(view.permutation);
        let position = match view.leaf.slots.rank(self.arena, view.permutation, key, own) {
            Ok(position) => position + usize::from(beyond),
            Err(position) => position,
        };
        Some(Place { view, position })
    }

    /// Takes the first key from `place` on that the snapshot sees. All keys from there on are above `bound`, or at it if
    /// `inclusive`; where a split has been at work the place is found again from that.
    #[inline]
    fn forward<'k>(
        &mut self,
        mut place: Option<Place<'d>>,
        mut bound: &'k [u8],
        mut inclusive: bool,
    ) -> Option<Item<'d>>
    where
        'd: 'k,
    {
        self.current = None;
        loop {
            let Place { view, position } = place?;
            if position < view.permutation.len() {
                let newest = view.leaf.slots.record(view.permutation.slot(position));
                if !view.is_still() {
                    place = self.find(bound, !inclusive);
                    continue;
                }
                let newest = newest?;
                self.warm(view, position + AHEAD);
                let record = self.arena.record(newest);
                if let Some(item) = self.take(Place { view, position }, newest, &record) {
                    return Some(item);
                }
                (bound, inclusive) = (record.key, false);
                place = Some(Place {
                    view,
                    position: position + 1,
                });
            } else {
                let next = view.leaf.next.load();
                // After the load: unchanged, `next` begins where the view's keys end.
                if !view.is_still() {
                    place = self.find(bound, !inclusive);
                    continue;
                }
                let next = LeafView::of(self.arena.get(next?));
                if let Some(beyond) = next.leaf.next.load() {
                    self.warm_leaf(beyond, |leaf| leaf.next.load());
                }
                // While a split goes on the view may hold keys that `next` has already taken over.
                let position = if view.version % 2 == 0 {
                    0
                } else {
                    match next
                        .leaf
                        .slots
                        .rank_any(self.arena, next.permutation, bound)
                    {
                        Ok(position) => position + usize::from(!inclusive),
                        Err(position) => position,
                    }
                };
                place = Some(Place {
                    view: next,
                    position,
                });
            }
        }
    }

    /// Takes the last key before `place` that the snapshot sees. All keys before it are below `bound` (none: no bound), or at
    /// it if `inclusive`.
    fn backward<'k>(
        &mut self,
        mut place: Option<Place<'d>>,
        mut bound: Option<&'k [u8]>,
        mut inclusive: bool,
    ) -> Option<Item<'d>>
    where
        'd: 'k,
    {
        self.current = None;
        loop {
            let Place { view, position } = place?;
            if let Some(position) = position.checked_sub(1) {
                let newest = view.leaf.slots.record(view.permutation.slot(position));
                if !view.is_still() {
                    place = match bound {
                        Some(bound) => self.find(bound, inclusive),
                        None => {
                            let view = self.table?.last_leaf(self.arena)?;
                            Some(Place {
                                view,
                                position: view.permutation.len(),
                            })
                        }
                    };
                    continue;
                }
                let newest = newest?;
                if let Some(ahead) = position.checked_sub(AHEAD) {
                    self.warm(view, ahead);
                }
                let record = self.arena.record(newest);
                if let Some(item) = self.take(Place { view, position }, newest, &record) {
                    return Some(item);
                }
                (bound, inclusive) = (Some(record.key), false);
                place = Some(Place { view, position });
            } else {
                // A leaf's lowest possible key never changes, so its left neighbour ends right below this view's keys...
                let prev = view.leaf.prev.load()?;
                let left = LeafView::of(self.arena.get(prev));
                // ...unless it was split before it was looked at; then `prev` already names the new leaf between.
                if view.leaf.prev.load() == Some(prev) {
                    // Until a split is over, the left one may still hold keys that the right one shows already.
                    let slots = &left.leaf.slots;
                    let position = bound.map_or(left.permutation.len(), |bound| {
                        match slots.rank_any(self.arena, left.permutation, bound) {
                            Ok(position) => position + usize::from(inclusive),
                            Err(position) => position,
                        }
                    });
                    place = Some(Place {
                        view: left,
                        position,
                    });
                    if let Some(beyond) = left.leaf.prev.load() {
                        self.warm_leaf(beyond, |leaf| leaf.prev.load());
                    }
                }
            }
        }
    }

    /// Asks for the record at `position`, if there is one, ahead of its use.
    #[inline]
    fn warm(&self, view: LeafView<'d>, position: usize) {
        if position < view.permutation.len()
            && let Some(record) = view.leaf.slots.record(view.permutation.slot(position))
        {
            self.arena.warm_record(record);
        }
    }

    /// Asks for the records of the leaf that comes next and for the leaf that comes after it. Only a hint: no need for
    /// what is read here to be sound.
    fn warm_leaf(&self, leaf: At<Leaf>, beyond: impl Fn(&Leaf) -> Option<At<Leaf>>) {
        let view = LeafView::of(self.arena.get(leaf));
        for position in 0..view.permutation.len() {
            self.warm(view, position);
        }
        if let Some(beyond) = beyond(view.leaf) {
            self.arena.warm_node(beyond);
        }
    }

    /// Makes the key at `place` current if the snapshot sees a version of it.
    #[inline]
    fn take(
        &mut self,
        place: Place<'d>,
        newest: At<Record>,
        record: &RecordRef<'d>,
    ) -> Option<Item<'d>> {
        let (seen_at, seen) = visible(self.arena, newest, self.at)?;
        let ranges = self.table.and_then(|table| table.ranges.load());
        let hit = match ranges {
            None => Hit::of(&seen),
            Some(_) => {
                let ranges = RangeDeletes {
                    arena: self.arena,
                    next: ranges,
                    at: self.at,
                };
                newer_of(Some((seen_at, Hit::of(&seen))), ranges.covering(record.key))?
            }
        };
        self.current = Some(Current {
            place,
            key: record.key,
            hit,
        });
        Some((record.key, hit))
    }
}
