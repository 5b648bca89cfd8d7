//! Entries collected for nodes that are not laid out yet.
//!
//! A [`Run`] is one future node: its keys and values copied together, and the exact number of bytes the page will
//! take. A [`Packer`] cuts a stream of entries into runs: every run is filled to the brim, but the last full one is
//! held back until the next holds a quarter page, so that the end of a stream can be balanced.

use std::marker::PhantomData;

use crate::format::branch::{self, Below};
use crate::format::leaf;
use crate::format::node::common_prefix;
use crate::format::page::HEADER_BYTES;
use crate::ids::PageRef;

/// What tells leaves from branches here.
pub(super) trait Kind {
    /// What an entry is, besides key and tail.
    type Meta: Copy + std::fmt::Debug;
    /// First entry whose key is stored.
    const KEYED_FROM: usize;
    /// Most entries of a node.
    const COUNT_MAX: usize;
    /// Bytes of a node without entries.
    const FIXED_BYTES: usize;
    /// Bytes of a txn offset in a node whose entries span `span` transactions.
    fn txn_bytes(span: u64) -> usize;
    /// Bytes of page that an entry takes.
    fn entry_bytes(meta: &Self::Meta, suffix_len: usize, tail_len: usize, txn: usize) -> usize;
    /// Lowest and highest txn of an entry.
    fn txns(meta: &Self::Meta) -> (u64, u64);
    /// Highest txn of a delete that an entry knows of.
    fn delete_txn(meta: &Self::Meta) -> u64;
}

/// Rows of a leaf. The tail is an inline value or an encoded extent reference.
#[derive(Debug)]
pub(super) struct Rows;

#[derive(Debug, Clone, Copy)]
pub(super) struct RowMeta {
    pub(super) txn: u64,
    pub(super) is_extent: bool,
}

impl Kind for Rows {
    type Meta = RowMeta;
    const KEYED_FROM: usize = 0;
    const COUNT_MAX: usize = u16::MAX as usize;
    const FIXED_BYTES: usize = HEADER_BYTES;

    fn txn_bytes(span: u64) -> usize {
        leaf::txn_bytes(span)
    }

    #[inline]
    fn entry_bytes(meta: &RowMeta, suffix_len: usize, tail_len: usize, txn: usize) -> usize {
        leaf::row_bytes(suffix_len, tail_len, meta.is_extent, txn)
    }

    fn txns(meta: &RowMeta) -> (u64, u64) {
        (meta.txn, meta.txn)
    }

    fn delete_txn(_: &RowMeta) -> u64 {
        0
    }
}

/// Children of a branch.
#[derive(Debug)]
pub(super) struct Children;

/// A node as its parent knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Child {
    /// Where it is.
    pub(crate) page: PageRef,
    /// What it holds.
    pub(crate) below: Below,
    /// Bound of its rows' txns.
    pub(crate) txn_max: u64,
    /// Bound of its deletes' txns.
    pub(crate) delete_txn_max: u64,
}

impl Kind for Children {
    type Meta = Child;
    const KEYED_FROM: usize = 1;
    const COUNT_MAX: usize = branch::CHILDREN_MAX;
    const FIXED_BYTES: usize = HEADER_BYTES + branch::PADDING_BYTES_MAX;

    fn txn_bytes(_: u64) -> usize {
        0
    }

    fn entry_bytes(child: &Child, suffix_len: usize, _: usize, _: usize) -> usize {
        branch::child_bytes(suffix_len, child.below)
    }

    fn txns(child: &Child) -> (u64, u64) {
        (0, child.txn_max)
    }

    fn delete_txn(child: &Child) -> u64 {
        child.delete_txn_max
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry<M> {
    at: usize,
    key_len: usize,
    tail_len: usize,
    meta: M,
}

/// The entries of one future node.
#[derive(Debug)]
pub(super) struct Run<K: Kind> {
    heap: Vec<u8>,
    entries: Vec<Entry<K::Meta>>,
    prefix_len: usize,
    /// Bytes of all entries with today's prefix and txn width.
    body: usize,
    pub(super) txn_min: u64,
    pub(super) txn_max: u64,
    pub(super) delete_txn_max: u64,
}

impl<K: Kind> Default for Run<K> {
    fn default() -> Self {
        Self {
            heap: Vec::new(),
            entries: Vec::new(),
            prefix_len: 0,
            body: 0,
            txn_min: u64::MAX,
            txn_max: 0,
            delete_txn_max: 0,
        }
    }
}

impl<K: Kind> Run<K> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn key(&self, index: usize) -> &[u8] {
        let entry = &self.entries[index];
        &self.heap[entry.at..entry.at + entry.key_len]
    }

    /// What all stored keys begin with.
    pub(super) fn prefix(&self) -> &[u8] {
        if self.len() <= K::KEYED_FROM {
            &[]
        } else {
            &self.key(K::KEYED_FROM)[..self.prefix_len]
        }
    }

    /// Key, tail and the rest of every entry.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], &K::Meta)> {
        self.entries.iter().map(|entry| {
            let (key, tail) =
                self.heap[entry.at..][..entry.key_len + entry.tail_len].split_at(entry.key_len);
            (key, tail, &entry.meta)
        })
    }

    /// The first entry whose key is not above the one before.
    pub(super) fn disorder(&self) -> Option<usize> {
        let mut later = K::KEYED_FROM + 1..self.len();
        later.find(|&index| self.key(index - 1) >= self.key(index))
    }

    /// Bytes of page that the entries take.
    pub(super) fn page_bytes(&self) -> usize {
        K::FIXED_BYTES + self.prefix_len + self.body
    }

    fn clear(&mut self) {
        self.heap.clear();
        self.entries.clear();
        let (heap, entries) = (
            std::mem::take(&mut self.heap),
            std::mem::take(&mut self.entries),
        );
        *self = Self {
            heap,
            entries,
            ..Self::default()
        };
    }

    fn body_with(&self, prefix_len: usize, txn_bytes: usize) -> usize {
        let bytes = |(index, entry): (usize, &Entry<K::Meta>)| {
            let suffix = if index < K::KEYED_FROM {
                0
            } else {
                entry.key_len - prefix_len
            };
            K::entry_bytes(&entry.meta, suffix, entry.tail_len, txn_bytes)
        };
        self.entries.iter().enumerate().map(bytes).sum()
    }

    /// Adds an entry if the node with it fits `limit` bytes.
    #[inline]
    fn try_push(&mut self, limit: usize, key: &[u8], tail: &[u8], meta: K::Meta) -> bool {
        let count = self.entries.len();
        let prefix_len = if count <= K::KEYED_FROM {
            if count < K::KEYED_FROM { 0 } else { key.len() }
        } else {
            let prefix = self.prefix();
            if key.starts_with(prefix) {
                prefix.len()
            } else {
                common_prefix(key, prefix)
            }
        };
        let (low, high) = K::txns(&meta);
        let (txn_min, txn_max) = (self.txn_min.min(low), self.txn_max.max(high));
        let txn_bytes = K::txn_bytes(txn_max - txn_min);
        let is_same = prefix_len == self.prefix_len
            && (count == 0 || txn_bytes == K::txn_bytes(self.txn_max - self.txn_min));
        let old = if is_same {
            self.body
        } else {
            self.body_with(prefix_len, txn_bytes)
        };
        let suffix = if count < K::KEYED_FROM {
            0
        } else {
            key.len() - prefix_len
        };
        let body = old + K::entry_bytes(&meta, suffix, tail.len(), txn_bytes);
        if K::FIXED_BYTES + prefix_len + body > limit || count >= K::COUNT_MAX {
            return false;
        }
        let at = self.heap.len();
        self.heap.extend_from_slice(key);
        self.heap.extend_from_slice(tail);
        self.entries.push(Entry {
            at,
            key_len: key.len(),
            tail_len: tail.len(),
            meta,
        });
        self.prefix_len = prefix_len;
        self.body = body;
        self.txn_min = txn_min;
        self.txn_max = txn_max;
        self.delete_txn_max = self.delete_txn_max.max(K::delete_txn(&meta));
        true
    }

    /// Copies entries of `other`; false as soon as one does not fit.
    fn extend_from(&mut self, limit: usize, other: &Self, range: std::ops::Range<usize>) -> bool {
        let entries = other.iter().skip(range.start).take(range.len());
        for (key, tail, meta) in entries {
            if !self.try_push(limit, key, tail, *meta) {
                return false;
            }
        }
        true
    }
}

/// Cuts a stream of entries into runs.
#[derive(Debug)]
pub(super) struct Packer<K: Kind> {
    limit: usize,
    previous: Option<Run<K>>,
    current: Run<K>,
    ready: std::collections::VecDeque<Run<K>>,
    spare: Vec<Run<K>>,
    /// What a run that begins with the next entry must know of deletes between it and the entry before.
    gap_delete_txn: u64,
    kind: PhantomData<K>,
}

impl<K: Kind> Packer<K> {
    /// A packer for pages of `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            previous: None,
            current: Run::default(),
            ready: std::collections::VecDeque::new(),
            spare: Vec::new(),
            gap_delete_txn: 0,
            kind: PhantomData,
        }
    }

    /// Adds the next entry; an entry alone must fit a page.
    #[inline]
    pub(super) fn push(&mut self, key: &[u8], tail: &[u8], meta: K::Meta) {
        if !self.current.try_push(self.limit, key, tail, meta) {
            self.cut();
            let fits = self.current.try_push(self.limit, key, tail, meta);
            assert!(
                fits,
                "an entry of {} + {} bytes fits a page",
                key.len(),
                tail.len()
            );
        }
        if self.previous.is_some() && !self.is_small(&self.current) {
            self.ready.extend(self.previous.take());
        }
    }

    /// Notes a delete between the last entry and the next one.
    pub(super) fn note_delete(&mut self, txn: u64) {
        self.gap_delete_txn = self.gap_delete_txn.max(txn);
        self.current.delete_txn_max = self.current.delete_txn_max.max(txn);
    }

    /// Says what the gap after the last entry inherits of deletes.
    #[inline]
    pub(super) fn reset_gap(&mut self, txn: u64) {
        self.gap_delete_txn = txn;
    }

    /// The next full run.
    #[inline]
    pub(super) fn take_ready(&mut self) -> Option<Run<K>> {
        self.ready.pop_front()
    }

    /// Takes a run back after it was written, for its memory.
    pub(super) fn recycle(&mut self, mut run: Run<K>) {
        run.clear();
        self.spare.push(run);
    }

    /// Number of entries not handed out yet.
    pub(super) fn len(&self) -> usize {
        self.current.len()
            + self.previous.as_ref().map_or(0, Run::len)
            + self.ready.iter().map(Run::len).sum::<usize>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.current.is_empty() && self.previous.is_none() && self.ready.is_empty()
    }

    /// Whether all that is pending would make one node under a quarter full.
    pub(super) fn is_underfull(&self) -> bool {
        self.previous.is_none() && self.ready.is_empty() && self.is_small(&self.current)
    }

    /// Makes all pending entries ready; with `balance`, a small last run gets entries of the one before.
    pub(super) fn finish(&mut self, balance: bool) {
        if balance && self.previous.is_some() && self.is_small(&self.current) {
            self.balance();
        }
        self.ready.extend(self.previous.take());
        if !self.current.is_empty() {
            let empty = self.spare.pop().unwrap_or_default();
            self.ready
                .push_back(std::mem::replace(&mut self.current, empty));
        }
        self.current.clear();
        self.gap_delete_txn = 0;
    }

    fn is_small(&self, run: &Run<K>) -> bool {
        run.page_bytes() < self.limit / 4
    }

    fn cut(&mut self) {
        self.ready.extend(self.previous.take());
        let mut next = self.spare.pop().unwrap_or_default();
        next.delete_txn_max = self.gap_delete_txn;
        self.previous = Some(std::mem::replace(&mut self.current, next));
    }

    fn balance(&mut self) {
        let Some(full) = self.previous.take() else {
            return;
        };
        let wanted = (full.page_bytes() + self.current.page_bytes()) / 2;
        let mut cut = full.len();
        let mut bytes = self.current.page_bytes();
        let txn = K::txn_bytes(full.txn_max.saturating_sub(full.txn_min));
        for (index, entry) in full.entries.iter().enumerate().rev() {
            let suffix = if index < K::KEYED_FROM {
                0
            } else {
                entry.key_len - full.prefix_len
            };
            bytes += K::entry_bytes(&entry.meta, suffix, entry.tail_len, txn);
            if bytes > wanted || cut <= 1 {
                break;
            }
            cut -= 1;
        }
        let (mut low, mut high) = (Run::default(), Run::default());
        let fits = low.extend_from(self.limit, &full, 0..cut)
            && high.extend_from(self.limit, &full, cut..full.len())
            && high.extend_from(self.limit, &self.current, 0..self.current.len());
        if fits && cut < full.len() {
            low.delete_txn_max = low.delete_txn_max.max(full.delete_txn_max);
            high.delete_txn_max = low.delete_txn_max.max(self.current.delete_txn_max);
            self.previous = Some(low);
            self.current = high;
        } else {
            // The two share so little that moving entries would not fit: leave them as they are.
            self.previous = Some(full);
        }
    }
}

impl Packer<Children> {
    /// Takes the last pending child back out, with its separator.
    pub(super) fn pop(&mut self) -> Option<(Vec<u8>, Child)> {
        if self.current.is_empty() {
            self.current = self.previous.take()?;
        }
        let last = self.current.len() - 1;
        let popped = (
            self.current.key(last).to_vec(),
            self.current.entries[last].meta,
        );
        let mut shorter = Run::default();
        let fits = shorter.extend_from(self.limit, &self.current, 0..last);
        assert!(fits, "fewer children take less room");
        self.current = shorter;
        Some(popped)
    }

    /// The only pending child, if there is exactly one.
    pub(super) fn single(&self) -> Option<Child> {
        match (self.len(), self.current.entries.first()) {
            (1, Some(entry)) => Some(entry.meta),
            _ => None,
        }
    }
}
