//! A table's tree: finding leaves while the writer splits them, and inserting.
//!
//! One writer changes the tree, any number of readers descend it without locks. Nodes split in place (see
//! [`node`](super::node)), so a reader may follow a link to a node that has just given its key away. It notices: it reads the
//! child's version first, then looks at the parent again. The writer names a new node in the parent *before* it shortens the
//! old one, so an unchanged parent means that the version belongs to a child that still answers for the key.
//!
//! Invariants:
//! 1. Whoever has a leaf view from [`Table::find_leaf`] and finds its version unchanged has seen every key of the leaf's range
//!    that was published before the descent began.
//! 2. Leaves are chained both ways without gaps: a leaf's `prev` names the new leaf before the old left neighbour is shortened.
//!
//! - Failure: the caller makes sure that the arena has [`INSERT_BYTES_MAX`] left, so no insert stops halfway.

use northstar_io::planted::planted;
#[cfg(not(loom))]
use zerocopy::FromZeros;

use super::arena::{Arena, ArenaFull, At, Either, Link, Record};
use super::node::{Branch, Child, ChildAt, FANOUT, Leaf, Permutation, Skip, head};

/// More than the nodes one insert can make: a leaf, a branch a level and a root.
pub(super) const INSERT_BYTES_MAX: usize = 16 * 1024;

/// Keys that stay left when a full node splits in the middle.
const HALF: usize = FANOUT / 2;

/// One table of a delta.
#[cfg_attr(not(loom), derive(FromZeros))]
#[cfg_attr(loom, derive(Default))]
#[repr(C, align(64))]
pub(super) struct Table {
    root: Child,
    last: Link<Leaf>,
    /// The newest range delete; each links to the one before.
    pub(super) ranges: Link<Record>,
}

/// What a reader knows of a leaf: true as long as the version stands.
#[derive(Clone, Copy)]
pub(super) struct LeafView<'d> {
    /// The leaf.
    pub(super) leaf: &'d Leaf,
    /// Its version, read first.
    pub(super) version: u32,
    /// Its keys.
    pub(super) permutation: Permutation,
}

impl<'d> LeafView<'d> {
    /// Looks at a leaf.
    #[inline]
    pub(super) fn of(leaf: &'d Leaf) -> Self {
        // In this order: a permutation at least as new as the version.
        let version = leaf.slots.version();
        Self {
            leaf,
            version,
            permutation: leaf.slots.permutation(),
        }
    }

    /// Whether all that was read of the leaf so far is sound.
    #[inline]
    pub(super) fn is_still(&self) -> bool {
        self.leaf.slots.is_still(self.version)
    }
}

/// A branch on the way to a leaf, and the index of the child taken.
#[derive(Clone, Copy)]
struct Step {
    branch: At<Branch>,
    child: usize,
}

/// The writer's way from the root to a leaf, kept to reuse its memory.
#[derive(Default)]
pub(super) struct Path(Vec<Step>);

/// Where the writer found a key, or where it must go.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    leaf: At<Leaf>,
    permutation: Permutation,
    /// The position of the key, or the one it goes to.
    rank: Result<usize, usize>,
    /// Whether the path leads here; else it must be found before a split.
    has_path: bool,
}

impl Spot {
    /// The newest version of the key, if it is in the tree.
    pub(super) fn existing(&self, arena: &Arena) -> Option<At<Record>> {
        let position = self.rank.ok()?;
        arena
            .get(self.leaf)
            .slots
            .record(self.permutation.slot(position))
    }
}

impl Table {
    /// Whether anything was ever written to it.
    pub(super) fn is_used(&self) -> bool {
        self.root.load().is_some() || self.ranges.load().is_some()
    }

    /// The leaf that answers for `key`.
    #[inline]
    pub(super) fn find_leaf<'d>(&self, arena: &'d Arena, key: &[u8]) -> Option<LeafView<'d>> {
        'restart: loop {
            let root = self.root.load()?;
            let mut here = root;
            let mut above: Option<(&Branch, u32, Permutation)> = None;
            loop {
                let slots = match here {
                    Either::Low(leaf) => {
                        arena.warm_node(leaf);
                        &arena.get(leaf).slots
                    }
                    Either::High(branch) => {
                        arena.warm_node(branch);
                        &arena.get(branch).slots
                    }
                };
                let version = slots.version();
                let unchanged = match above {
                    None => self.root.load() == Some(root),
                    Some((branch, version, permutation)) => {
                        branch.slots.permutation() == permutation && branch.slots.is_still(version)
                    }
                };
                if !unchanged {
                    continue 'restart;
                }
                let permutation = slots.permutation();
                match here {
                    Either::Low(leaf) => {
                        return Some(LeafView {
                            leaf: arena.get(leaf),
                            version,
                            permutation,
                        });
                    }
                    Either::High(at) => {
                        let branch = arena.get(at);
                        let index = branch.child_index(arena, permutation, key);
                        here = branch.child(permutation, index)?;
                        above = Some((branch, version, permutation));
                    }
                }
            }
        }
    }

    /// The newest record of `key`.
    #[inline]
    pub(super) fn find(&self, arena: &Arena, key: &[u8]) -> Option<At<Record>> {
        loop {
            let view = self.find_leaf(arena, key)?;
            let slots = &view.leaf.slots;
            let position = slots.position(arena, view.permutation, key);
            let record =
                position.and_then(|position| slots.record(view.permutation.slot(position)));
            if view.is_still() || planted("a reader does not notice a split") {
                return record;
            }
        }
    }

    /// The rightmost leaf.
    pub(super) fn last_leaf<'d>(&self, arena: &'d Arena) -> Option<LeafView<'d>> {
        let mut leaf = arena.get(self.last.load()?);
        loop {
            let view = LeafView::of(leaf);
            // After the permutation: a shortened leaf shows its new neighbour.
            match leaf.next.load() {
                None => return Some(view),
                Some(next) => leaf = arena.get(next),
            }
        }
    }

    /// Where `key` is or must go. Writer only.
    pub(super) fn locate(&self, arena: &Arena, key: &[u8], path: &mut Path) -> Option<Spot> {
        let last = self.last.load()?;
        let leaf = arena.get(last);
        let permutation = leaf.slots.permutation();
        let highest = leaf
            .slots
            .record(permutation.slot(permutation.len().saturating_sub(1)))?;
        let order = key.cmp(arena.record(highest).key);
        if order.is_lt() {
            return self.descend(arena, key, path);
        }
        // Rising keys end up here: no descent.
        let len = permutation.len();
        Some(Spot {
            leaf: last,
            permutation,
            rank: if order.is_eq() { Ok(len - 1) } else { Err(len) },
            has_path: false,
        })
    }

    /// The way to a key begins here; none where there is none, or where a key needs no way because it goes behind all others.
    pub(super) fn way(&self, arena: &Arena, key: &[u8]) -> Option<ChildAt> {
        let leaf = arena.get(self.last.load()?);
        let permutation = leaf.slots.permutation();
        let highest = permutation.slot(permutation.len().saturating_sub(1));
        let highest = arena.record(leaf.slots.record(highest)?);
        (key < highest.key).then(|| self.root.load())?
    }

    /// Goes down a level on the way to each key and asks the processor for what lies there, so that it is fetched for all
    /// of them at once. False if nothing was left to do. Writer only.
    pub(super) fn warm_below(arena: &Arena, ways: &mut [(Option<ChildAt>, &[u8])]) -> bool {
        let mut any = false;
        for (here, key) in ways {
            let Some(Either::High(at)) = *here else {
                continue;
            };
            let branch = arena.get(at);
            let permutation = branch.slots.permutation();
            let child = branch.child_index(arena, permutation, key);
            *here = branch.child(permutation, child);
            match *here {
                Some(Either::Low(leaf)) => arena.warm_node(leaf),
                Some(Either::High(branch)) => arena.warm_node(branch),
                None => {}
            }
            any = true;
        }
        any
    }

    /// As [`Table::locate`], from the root, leaving the way in `path`.
    fn descend(&self, arena: &Arena, key: &[u8], path: &mut Path) -> Option<Spot> {
        path.0.clear();
        let mut here = self.root.load()?;
        loop {
            match here {
                Either::Low(at) => {
                    arena.warm_node(at);
                    let leaf = arena.get(at);
                    let permutation = leaf.slots.permutation();
                    let rank = leaf
                        .slots
                        .rank(arena, permutation, key, leaf.own(permutation));
                    return Some(Spot {
                        leaf: at,
                        permutation,
                        rank,
                        has_path: true,
                    });
                }
                Either::High(at) => {
                    arena.warm_node(at);
                    let branch = arena.get(at);
                    let permutation = branch.slots.permutation();
                    let child = branch.child_index(arena, permutation, key);
                    path.0.push(Step { branch: at, child });
                    here = branch.child(permutation, child)?;
                }
            }
        }
    }

    /// Puts `record`, a version of `key`, where `spot` (none for an empty table) says. Writer only.
    pub(super) fn insert(
        &self,
        arena: &Arena,
        spot: Option<Spot>,
        key: &[u8],
        record: At<Record>,
        path: &mut Path,
    ) -> Result<(), ArenaFull> {
        let Some(spot) = spot else {
            return self.plant(arena, key, record);
        };
        let leaf = arena.get(spot.leaf);
        let position = match spot.rank {
            Ok(position) => {
                leaf.slots
                    .supersede(spot.permutation.slot(position), record);
                return Ok(());
            }
            Err(position) => position,
        };
        let skip = leaf.slots.skip();
        let is_stranger = skip.unfenced
            && leaf
                .own(spot.permutation)
                .is_some_and(|own| skip.is_stranger(key, arena.record(own).key));
        if !spot.permutation.is_full() && !is_stranger {
            add(leaf, position, key, record);
            return Ok(());
        }
        if !spot.has_path {
            self.descend(arena, key, path);
        }
        self.split_leaf(arena, spot, position, key, record, path, is_stranger)
    }

    /// The first key of a table.
    fn plant(&self, arena: &Arena, key: &[u8], record: At<Record>) -> Result<(), ArenaFull> {
        let at = arena.alloc::<Leaf>()?;
        let leaf = arena.get(at);
        leaf.slots.init(Skip::NONE);
        add(leaf, 0, key, record);
        self.last.store(at);
        self.root.store(Either::Low(at));
        Ok(())
    }

    /// Makes a right neighbour for the leaf at `spot` and inserts `key` into one of the two.
    #[expect(
        clippy::too_many_arguments,
        reason = "the insert in progress, taken apart"
    )]
    fn split_leaf(
        &self,
        arena: &Arena,
        spot: Spot,
        position: usize,
        key: &[u8],
        record: At<Record>,
        path: &mut Path,
        is_stranger: bool,
    ) -> Result<(), ArenaFull> {
        let (left, permutation) = (arena.get(spot.leaf), spot.permutation);
        let key_at = |position: usize| {
            left.slots
                .record(permutation.slot(position))
                .map_or(&[][..], |at| arena.record(at).key)
        };
        let len = permutation.len();
        // A key beyond the last opens a leaf of its own, so that rising keys fill leaves.
        let kept = if position == len { len } else { HALF };
        let separator = if kept == len {
            Some(record)
        } else {
            left.slots.record(permutation.slot(kept))
        };
        let separator = separator.unwrap_or(record);
        let low = arena.record(separator).key;
        let high = path.fence(arena);
        let skip = if is_stranger {
            Skip::for_stranger(low, high)
        } else {
            left.slots.skip().for_split(low, key_at(len - 1), high)
        };

        let right_at = arena.alloc::<Leaf>()?;
        let right = arena.get(right_at);
        right.slots.init(skip);
        for from in kept..len {
            if let Some(record) = left.slots.record(permutation.slot(from)) {
                add(right, from - kept, arena.record(record).key, record);
            }
        }
        let goes_right = position > kept || kept == len;
        if goes_right {
            add(right, position - kept, key, record);
        }
        right.prev.store(spot.leaf);
        match left.next.load() {
            Some(next) => {
                right.next.store(next);
                arena.get(next).prev.store(right_at);
            }
            None => self.last.store(right_at),
        }
        self.insert_separator(arena, path, separator, Either::Low(right_at))?;

        left.slots.turn();
        left.slots.fence_below(low, key_at(0));
        left.next.store(right_at);
        left.slots.publish(permutation.truncated(kept));
        left.slots.turn();
        if !goes_right {
            add(left, position, key, record);
        }
        Ok(())
    }

    /// Names `child`, split off to the right of the child that `path` leads to, in the branch above, splitting it if need be.
    fn insert_separator(
        &self,
        arena: &Arena,
        path: &mut Path,
        separator: At<Record>,
        child: ChildAt,
    ) -> Result<(), ArenaFull> {
        let key = arena.record(separator).key;
        let Some(Step {
            branch: at,
            child: position,
        }) = path.0.pop()
        else {
            let at = arena.alloc::<Branch>()?;
            let root = arena.get(at);
            root.slots.init(Skip::NONE);
            if let Some(old) = self.root.load() {
                root.first.store(old);
            }
            add_child(root, 0, key, separator, child);
            self.root.store(Either::High(at));
            return Ok(());
        };
        let left = arena.get(at);
        let permutation = left.slots.permutation();
        let len = permutation.len();
        let skip = left.slots.skip();
        let left_low = left.low.load().map_or(&[][..], |at| arena.record(at).key);
        let is_stranger = skip.is_stranger(key, left_low);
        if !permutation.is_full() && !is_stranger {
            add_child(left, position, key, separator, child);
            return Ok(());
        }

        let kept = if position == len { len } else { HALF };
        // The separator at `kept` moves up, its child becomes the first of the new branch.
        let (raised, first) = if kept == len {
            (separator, child)
        } else {
            let moved = left
                .slots
                .record(permutation.slot(kept))
                .zip(left.child(permutation, kept + 1));
            moved.unwrap_or((separator, child))
        };
        let low = arena.record(raised).key;
        let high = path.fence(arena);
        let key_at = |position: usize| {
            left.slots
                .record(permutation.slot(position))
                .map_or(low, |at| arena.record(at).key)
        };
        let new_skip = if is_stranger {
            Skip::for_stranger(low, high)
        } else {
            skip.for_split(low, if len == 0 { low } else { key_at(len - 1) }, high)
        };
        let right_at = arena.alloc::<Branch>()?;
        let right = arena.get(right_at);
        right.slots.init(new_skip);
        right.low.store(raised);
        right.first.store(first);
        for from in kept + 1..len {
            let moved = left
                .slots
                .record(permutation.slot(from))
                .zip(left.child(permutation, from + 1));
            if let Some((record, child)) = moved {
                add_child(
                    right,
                    from - kept - 1,
                    arena.record(record).key,
                    record,
                    child,
                );
            }
        }
        if kept < len && position > kept {
            add_child(right, position - kept - 1, key, separator, child);
        }
        self.insert_separator(arena, path, raised, Either::High(right_at))?;

        left.slots.turn();
        left.slots.fence_below(low, left_low);
        left.slots.publish(permutation.truncated(kept));
        left.slots.turn();
        if kept < len && position <= kept {
            add_child(left, position, key, separator, child);
        }
        Ok(())
    }
}

impl Path {
    /// The lowest key above the node the path leads to.
    fn fence<'d>(&self, arena: &'d Arena) -> Option<&'d [u8]> {
        self.0.iter().rev().find_map(|step| {
            let slots = &arena.get(step.branch).slots;
            let permutation = slots.permutation();
            let above = (step.child < permutation.len()).then(|| permutation.slot(step.child))?;
            slots.record(above).map(|at| arena.record(at).key)
        })
    }
}

/// Fills a free slot of a leaf and publishes it at `position`.
fn add(leaf: &Leaf, position: usize, key: &[u8], record: At<Record>) {
    let (permutation, slot) = leaf.slots.permutation().with_insert(position);
    leaf.slots
        .fill(slot, head(key, leaf.slots.skip().bytes), record);
    leaf.slots.publish(permutation);
}

/// The same for a branch: `child` is at and above `separator`.
fn add_child(branch: &Branch, position: usize, key: &[u8], separator: At<Record>, child: ChildAt) {
    let (permutation, slot) = branch.slots.permutation().with_insert(position);
    branch
        .slots
        .fill(slot, head(key, branch.slots.skip().bytes), separator);
    branch.children[slot].store(child);
    branch.slots.publish(permutation);
}
