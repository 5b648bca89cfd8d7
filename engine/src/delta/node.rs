//! The nodes of a table's tree: leaves of keys, branches of separators, both over the same sorted [`Slots`].
//!
//! A node keeps up to [`FANOUT`] keys in fixed slots and their order in one word, the *permutation*. An insert fills
//! a slot nobody looks at and publishes it by storing a new permutation. A split moves the upper keys into a
//! new right neighbour and stores a shorter permutation. Nodes are never replaced, merged or freed.
//!
//! Keys are compared by *head* first: eight bytes, big-endian, zero-padded, taken `skip` bytes into the key, where all
//! keys of the node share the first `skip` bytes. Only equal heads make the search look at records.
//!
//! Invariants:
//! 1. A node's lowest possible key never changes; its highest possible key only falls, at a split.
//! 2. A slot named by the current permutation does not change, except that its record may become a newer version
//!    of the same key.
//! 3. A split stores, in this order, each with `Release`: the whole new node; the neighbour's `prev`; the separator in the
//!    parent; an odd version; `next`; the short permutation; an even version. Freed slots are filled after that.
//!    So whoever finds the version it read before the permutation unchanged after reading slots has read what the
//!    permutation named.
//! 4. All keys of a node share their first `skip` bytes. Unless `unfenced`, so does every key that may ever belong there.
//!    A key that belongs to an unfenced node and does not share them (a *stranger*) is above all keys of the node, because
//!    the lowest possible key shares them; it gets a node of its own.
//!
//! - Source: Mao, Kohler, Morris, Cache craftiness for fast multicore key-value storage (Masstree, 2012).

use std::cmp::Ordering as Order;

#[cfg(not(loom))]
use zerocopy::FromZeros;

use super::arena::{Arena, At, Either, Fork, Link, Record};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Keys in a node: with 14 a leaf is three cache lines and a branch four.
pub(super) const FANOUT: usize = if cfg!(loom) { 4 } else { 14 };

/// Marks a `skip` that future keys of the node may not share.
const UNFENCED: u32 = 1 << 31;

/// Link to a child.
pub(super) type Child = Fork<Leaf, Branch>;
/// Address of a child.
pub(super) type ChildAt = Either<Leaf, Branch>;

/// A node of keys.
#[cfg_attr(not(loom), derive(FromZeros))]
#[cfg_attr(loom, derive(Default))]
#[repr(C, align(64))]
pub(super) struct Leaf {
    /// Keys; each slot's record is the newest version of its key.
    pub(super) slots: Slots,
    /// Right neighbour.
    pub(super) next: Link<Leaf>,
    /// Left neighbour.
    pub(super) prev: Link<Leaf>,
}

/// A node of separators: a child left of all of them and one right of each.
#[cfg_attr(not(loom), derive(FromZeros))]
#[cfg_attr(loom, derive(Default))]
#[repr(C, align(64))]
pub(super) struct Branch {
    /// Separators; a slot's record is any version of the lowest key its child may hold.
    pub(super) slots: Slots,
    /// The lowest key the branch may route, if it is not the leftmost.
    pub(super) low: Link<Record>,
    /// The child below all separators.
    pub(super) first: Child,
    /// By slot: the child at and above the separator.
    pub(super) children: [Child; FANOUT],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Leaf>() == 192 && size_of::<Branch>() == 256);

/// The sorted keys of a node.
#[cfg_attr(not(loom), derive(FromZeros))]
#[cfg_attr(loom, derive(Default))]
#[repr(C)]
pub(super) struct Slots {
    permutation: AtomicU64,
    version: AtomicU32,
    skip: AtomicU32,
    heads: [AtomicU64; FANOUT],
    records: [Link<Record>; FANOUT],
}

/// The order of a node's slots: a count in the highest four bits, below it slot numbers of four bits each, lowest key
/// first, free slots last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Permutation(u64);

const COUNT_SHIFT: u32 = 60;
const _: () = assert!(FANOUT * 4 <= COUNT_SHIFT as usize && FANOUT < 16);

impl Permutation {
    /// No keys; slots are free in order.
    pub(super) const EMPTY: Self = Self(0x00dc_ba98_7654_3210);

    /// Number of keys.
    #[inline]
    pub(super) fn len(self) -> usize {
        (self.0 >> COUNT_SHIFT) as usize
    }

    /// Whether no slot is free.
    pub(super) fn is_full(self) -> bool {
        self.len() >= FANOUT
    }

    /// The slot of the key at `position`.
    #[inline]
    pub(super) fn slot(self, position: usize) -> usize {
        (self.0 >> (4 * position) & 15) as usize
    }

    /// With the first free slot moved to `position`; also that slot.
    #[must_use]
    pub(super) fn with_insert(self, position: usize) -> (Self, usize) {
        let len = self.len();
        debug_assert!(
            len < FANOUT && position <= len,
            "insert at {position} of {len}"
        );
        let free = self.slot(len);
        let below = self.0 & mask(position);
        let moved = (self.0 & mask(len) & !mask(position)) << 4;
        let above = self.0 & mask(FANOUT) & !mask(len + 1);
        let order = below | (free as u64) << (4 * position) | moved | above;
        (Self(order | (len as u64 + 1) << COUNT_SHIFT), free)
    }

    /// Only the lowest `len` keys.
    #[must_use]
    pub(super) fn truncated(self, len: usize) -> Self {
        debug_assert!(len <= self.len(), "{len} of {}", self.len());
        Self(self.0 & mask(FANOUT) | (len as u64) << COUNT_SHIFT)
    }
}

/// The bits of the first `positions` slot numbers.
#[inline]
fn mask(positions: usize) -> u64 {
    (1 << (4 * positions)) - 1
}

/// The head of `key` in a node that skips `skip` bytes.
#[inline]
pub(super) fn head(key: &[u8], skip: usize) -> u64 {
    let rest = key.get(skip..).unwrap_or_default();
    if let Some(bytes) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    let mut head = 0;
    for &byte in rest {
        head = head << 8 | u64::from(byte);
    }
    if rest.is_empty() {
        0
    } else {
        head << (64 - 8 * rest.len())
    }
}

/// Number of first bytes two keys share.
pub(super) fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// How a node's keys are skipped: see invariant 4 of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skip {
    /// Bytes that all keys share.
    pub(super) bytes: usize,
    /// Whether keys to come may not.
    pub(super) unfenced: bool,
}

/// Heads start at least this many bytes before the first byte in which a new node's keys differ, so that keys near
/// them still share what is skipped; and they are moved when they start further before.
const SKIP_SLACK: usize = 6;

impl Skip {
    /// Nothing is skipped.
    pub(super) const NONE: Self = Self {
        bytes: 0,
        unfenced: false,
    };

    /// For a node split off one that skips `self`: it starts at `low`, ends below `high` if it has a right neighbour, and
    /// holds or follows `near`, which shares what `self` skips.
    pub(super) fn for_split(self, low: &[u8], near: &[u8], high: Option<&[u8]>) -> Self {
        let shared = shared_prefix(low, near);
        let fenced = || high.map_or(0, |high| shared_prefix(low, high));
        if shared < self.bytes + SKIP_SLACK {
            return Self {
                bytes: self.bytes,
                unfenced: self.unfenced && fenced() < self.bytes,
            };
        }
        let fenced = fenced();
        let bytes = fenced.max(shared - SKIP_SLACK);
        Self {
            bytes,
            unfenced: bytes > fenced,
        }
    }

    /// For a node that starts at `low` because `low` did not share what its left neighbour skips. Takes no chances, so
    /// that such nodes cannot follow one another and make the tree thin.
    pub(super) fn for_stranger(low: &[u8], high: Option<&[u8]>) -> Self {
        Self {
            bytes: high.map_or(0, |high| shared_prefix(low, high)),
            unfenced: false,
        }
    }

    /// Whether a key belonging to a node may not share the skipped bytes of `own`, a key that does.
    pub(super) fn is_stranger(self, key: &[u8], own: &[u8]) -> bool {
        self.unfenced && shared_prefix(key, own) < self.bytes
    }
}

impl Slots {
    /// Makes a fresh node empty. Before publication.
    pub(super) fn init(&self, skip: Skip) {
        self.permutation
            .store(Permutation::EMPTY.0, Ordering::Relaxed);
        let flag = if skip.unfenced { UNFENCED } else { 0 };
        // Relaxed here and above: the link to the node publishes it.
        self.skip.store(
            u32::try_from(skip.bytes).unwrap_or(0) | flag,
            Ordering::Relaxed,
        );
    }

    /// The current order. Pairs with [`Slots::publish`].
    #[inline]
    pub(super) fn permutation(&self) -> Permutation {
        Permutation(self.permutation.load(Ordering::Acquire))
    }

    /// Makes `permutation` current, and with it the slots it names.
    pub(super) fn publish(&self, permutation: Permutation) {
        self.permutation.store(permutation.0, Ordering::Release);
    }

    /// The version, to be read before the permutation. Pairs with [`Slots::turn`].
    #[inline]
    pub(super) fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether no split has touched the node since `version` was read: what was read in between is sound.
    #[inline]
    pub(super) fn is_still(&self, version: u32) -> bool {
        // Orders the relaxed loads of slots before the load of the version: a slot's new content, stored with
        // `Release` after the version had turned, cannot be seen with the old version.
        fence(Ordering::Acquire);
        self.version.load(Ordering::Relaxed) == version
    }

    /// Turns the version: odd while a split goes on, even otherwise. Writer only.
    pub(super) fn turn(&self) {
        let version = self.version.load(Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(1), Ordering::Release);
    }

    /// How keys are skipped.
    #[inline]
    pub(super) fn skip(&self) -> Skip {
        // Relaxed: set before the node was published; a late "unfenced" costs a comparison, no more.
        let word = self.skip.load(Ordering::Relaxed);
        Skip {
            bytes: (word & !UNFENCED) as usize,
            unfenced: word & UNFENCED != 0,
        }
    }

    /// Tells the node that it now ends below `high`: if that shares the skipped bytes with `own`, a key of the node, all
    /// keys to come do. Called by the writer while the version is odd.
    pub(super) fn fence_below(&self, high: &[u8], own: &[u8]) {
        let skip = self.skip();
        if skip.unfenced && !skip.is_stranger(high, own) {
            // Release: a reader that came for a key at or above `high` and trusts the new word finds the version turned.
            self.skip
                .store(u32::try_from(skip.bytes).unwrap_or(0), Ordering::Release);
        }
    }

    /// The record in `slot`.
    #[inline]
    pub(super) fn record(&self, slot: usize) -> Option<At<Record>> {
        self.records.get(slot).and_then(Link::load)
    }

    /// Publishes a newer version of the key in `slot`.
    pub(super) fn supersede(&self, slot: usize, record: At<Record>) {
        self.records[slot].store(record);
    }

    /// Fills a free slot.
    pub(super) fn fill(&self, slot: usize, head: u64, record: At<Record>) {
        // Release: see `is_still`.
        self.heads[slot].store(head, Ordering::Release);
        self.records[slot].store(record);
    }

    /// The head in `slot`.
    #[inline]
    fn head(&self, slot: usize) -> u64 {
        self.heads[slot].load(Ordering::Relaxed)
    }

    /// Where `key` is, or would go, among the keys of `permutation`. `own` is a key that shares what the node skips.
    ///
    /// `key` belongs to the node; an answer for others needs [`Slots::rank_any`].
    #[inline]
    pub(super) fn rank(
        &self,
        arena: &Arena,
        permutation: Permutation,
        key: &[u8],
        own: Option<At<Record>>,
    ) -> Result<usize, usize> {
        let skip = self.skip();
        if skip.unfenced && own.is_some_and(|own| skip.is_stranger(key, arena.record(own).key)) {
            return Err(permutation.len());
        }
        self.rank_by_head(arena, permutation, key, skip.bytes)
    }

    /// As [`Slots::rank`], for any key at all.
    pub(super) fn rank_any(
        &self,
        arena: &Arena,
        permutation: Permutation,
        key: &[u8],
    ) -> Result<usize, usize> {
        let skip = self.skip().bytes;
        if let Some(own) = self.record(permutation.slot(0)).filter(|_| skip > 0) {
            let own = arena.record(own).key;
            match key[..skip.min(key.len())].cmp(&own[..skip.min(own.len())]) {
                Order::Less => return Err(0),
                Order::Greater => return Err(permutation.len()),
                Order::Equal => {}
            }
        }
        self.rank_by_head(arena, permutation, key, skip)
    }

    /// Whether `key` is here, and where. Right for any key; where it would go is not.
    #[inline]
    pub(super) fn position(
        &self,
        arena: &Arena,
        permutation: Permutation,
        key: &[u8],
    ) -> Option<usize> {
        self.rank_by_head(arena, permutation, key, self.skip().bytes)
            .ok()
    }

    #[inline]
    fn rank_by_head(
        &self,
        arena: &Arena,
        permutation: Permutation,
        key: &[u8],
        skip: usize,
    ) -> Result<usize, usize> {
        let wanted = head(key, skip);
        let len = permutation.len();
        let (mut below, mut equal) = (0, 0);
        // Straight through all keys rather than by halves: no branch to guess, and the lines arrive together.
        let mut order = permutation.0;
        for _ in 0..len {
            let head = self.head((order & 15) as usize);
            order >>= 4;
            below += usize::from(head < wanted);
            equal += usize::from(head == wanted);
        }
        // Keys with the same head are neighbours: by halves among them.
        let (mut from, mut to) = (below, below + equal);
        while from < to {
            let middle = usize::midpoint(from, to);
            let Some(record) = self.record(permutation.slot(middle)) else {
                return Err(from);
            };
            match arena.record(record).key.cmp(key) {
                Order::Less => from = middle + 1,
                Order::Greater => to = middle,
                Order::Equal => return Ok(middle),
            }
        }
        Err(from)
    }
}

impl Leaf {
    /// A key that shares what the leaf skips.
    #[inline]
    pub(super) fn own(&self, permutation: Permutation) -> Option<At<Record>> {
        self.slots.record(permutation.slot(0))
    }
}

impl Branch {
    /// Number of separators at or below `key`: the index of the child it belongs to.
    #[inline]
    pub(super) fn child_index(&self, arena: &Arena, permutation: Permutation, key: &[u8]) -> usize {
        match self.slots.rank(arena, permutation, key, self.low.load()) {
            Ok(equal) => equal + 1,
            Err(above) => above,
        }
    }

    /// The child at `index`.
    #[inline]
    pub(super) fn child(&self, permutation: Permutation, index: usize) -> Option<ChildAt> {
        match index.checked_sub(1) {
            None => self.first.load(),
            Some(separator) => self.children.get(permutation.slot(separator))?.load(),
        }
    }
}
