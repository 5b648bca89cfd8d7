//! Trees against a `BTreeMap`, over pages in memory.

use std::cell::Cell;
use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::merge::{Change, ChangeKind, Forget, Merged, RangeDelete, merge, row_count};
use super::overflow::read_extent;
use super::search::{FoundValue, get, get_then, multi_get};
use crate::format::leaf::RowValue;
use crate::format::page::{Page, PageError, seal};
use crate::ids::{Generation, PageId, PageRef, TableId, TxnId};
use crate::pages::{Class, Link, PagePin, PageRead, PageWrite, View};

pub(super) const DATABASE: u64 = 7;
pub(super) const TABLE: TableId = TableId::FIRST_USER;

/// Pages by id. A view misses now and then, so that both ways of a lookup are taken.
#[derive(Default)]
pub(super) struct Store {
    pub(super) pages: BTreeMap<u64, Box<[u8]>>,
    next: u64,
    views: Cell<u32>,
}

pub(super) struct Pin<'a>(Page<'a>);

impl PagePin for Pin<'_> {
    fn page(&self) -> Page<'_> {
        self.0
    }

    fn frame(&self) -> Option<u32> {
        Some(self.0.id().get() as u32)
    }
}

impl Store {
    fn bytes(&self, page: PageId) -> Result<&[u8], PageError> {
        let pages = self.pages.len() as u64;
        let bytes = self.pages.get(&page.get());
        Ok(bytes.ok_or(PageError::OutOfRange { page, pages })?)
    }

    fn verified(&self, page: PageRef) -> Result<Page<'_>, PageError> {
        let verified = Page::verify(self.bytes(page.id)?, page, DATABASE)?;
        crate::format::check_node(verified)?;
        Ok(verified)
    }
}

impl PageRead for Store {
    type Guard<'a> = &'a Store;
    type Pin<'a> = Pin<'a>;

    fn enter(&self) -> Self::Guard<'_> {
        self
    }

    fn try_view<'g>(
        &self,
        guard: &'g Self::Guard<'_>,
        page: PageRef,
        link: Option<Link>,
    ) -> Option<View<'g>> {
        self.views.set(self.views.get() + 1);
        if self.views.get().is_multiple_of(5) {
            return None;
        }
        assert!(link.is_none_or(|link| link.parent != page.id.get() as u32));
        let page = guard.verified(page).ok()?;
        Some(View {
            frame: page.id().get() as u32,
            page,
        })
    }

    fn pin<'a>(&'a self, view: View<'_>) -> Self::Pin<'a> {
        Pin(Page::trusted(self.bytes(view.page.id()).unwrap()))
    }

    fn load(&self, page: PageRef, _: Class) -> Result<Self::Pin<'_>, PageError> {
        self.verified(page).map(Pin)
    }

    fn prefetch(&self, pages: &[PageRef], _: Class) {
        assert!(
            pages
                .iter()
                .all(|page| self.pages.contains_key(&page.id.get()))
        );
    }

    fn read_run(
        &self,
        first: PageId,
        count: u32,
        _: Class,
        each: &mut dyn FnMut(Page<'_>) -> Result<(), PageError>,
    ) -> Result<(), PageError> {
        for id in (first.get()..).take(count as usize) {
            let id = PageId::new(id);
            each(Page::verify_unreferenced(self.bytes(id)?, id, DATABASE)?)?;
        }
        Ok(())
    }
}

/// What one merge writes; readable only after it, as in life.
pub(super) struct Sink {
    page_bytes: usize,
    next: u64,
    generation: Generation,
    pub(super) written: BTreeMap<u64, Box<[u8]>>,
    pub(super) retired: Vec<u64>,
}

impl PageWrite for Sink {
    fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    fn write(&mut self, page: &mut [u8]) -> Result<PageRef, PageError> {
        let id = PageId::new(self.next);
        self.next += 1;
        let reference = seal(page, id, self.generation, DATABASE);
        self.written.insert(id.get(), page.into());
        Ok(reference)
    }

    fn write_extent(&mut self, pages: &mut [Box<[u8]>]) -> Result<Vec<PageRef>, PageError> {
        pages.iter_mut().map(|page| self.write(page)).collect()
    }

    fn retire(&mut self, first: PageId, count: u32) {
        self.retired.extend((first.get()..).take(count as usize));
    }
}

/// An owned change; no value is a delete.
pub(super) type Edit = (Vec<u8>, u64, Option<Vec<u8>>);
pub(super) type RangeEdit = (Vec<u8>, Option<Vec<u8>>, u64);

/// A tree in a store, and what it should hold.
pub(super) struct Tree {
    pub(super) store: Store,
    pub(super) page_bytes: usize,
    pub(super) root: Option<PageRef>,
    pub(super) model: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    generation: u32,
}

impl Tree {
    pub(super) fn new(page_bytes: usize) -> Self {
        let store = Store {
            next: 4,
            ..Store::default()
        };
        Self {
            store,
            page_bytes,
            root: None,
            model: BTreeMap::new(),
            generation: 0,
        }
    }

    /// Merges into a new root, leaving the old one readable; returns the retired pages too.
    pub(super) fn merge(&mut self, edits: &[Edit], ranges: &[RangeEdit]) -> (Merged, Vec<u64>) {
        self.generation += 1;
        let mut sink = Sink {
            page_bytes: self.page_bytes,
            next: self.store.next,
            generation: Generation::new(self.generation),
            written: BTreeMap::new(),
            retired: Vec::new(),
        };
        let changes = edits.iter().map(|(key, txn, value)| Change {
            key,
            txn: TxnId::new(*txn),
            kind: value
                .as_ref()
                .map_or(ChangeKind::Delete, |value| ChangeKind::Put(value)),
        });
        let deletes: Vec<_> = ranges
            .iter()
            .map(|(from, to, txn)| RangeDelete {
                from,
                to: to.as_deref(),
                txn: TxnId::new(*txn),
            })
            .collect();
        let merged = merge(
            &self.store,
            &mut sink,
            TABLE,
            self.root,
            changes,
            &deletes,
            &mut Forget,
        )
        .unwrap();
        self.store.next = sink.next;
        assert_eq!(merged.pages_written, sink.written.len() as u64);
        assert_eq!(merged.pages_retired, sink.retired.len() as u64);
        self.store.pages.append(&mut sink.written);
        let before = self.model.len() as i64;
        for (from, to, txn) in ranges {
            self.model.retain(|key, (row_txn, _)| {
                *row_txn >= *txn || key < from || to.as_ref().is_some_and(|to| key >= to)
            });
        }
        for (key, txn, value) in edits {
            let hidden = ranges.iter().any(|(from, to, range_txn)| {
                range_txn > txn && key >= from && to.as_ref().is_none_or(|to| key < to)
            });
            if self
                .model
                .get(key)
                .is_some_and(|(row_txn, _)| row_txn >= txn)
            {
                continue;
            }
            self.model.remove(key);
            if let Some(value) = value
                && !hidden
            {
                self.model.insert(key.clone(), (*txn, value.clone()));
            }
        }
        assert_eq!(merged.rows, self.model.len() as u64);
        assert_eq!(merged.rows_delta, self.model.len() as i64 - before);
        self.root = merged.root;
        assert_eq!(row_count(&self.store, self.root).unwrap(), merged.rows);
        (merged, sink.retired)
    }

    pub(super) fn value(&self, value: RowValue<'_>) -> Vec<u8> {
        match value {
            RowValue::Inline(value) => value.to_vec(),
            RowValue::Extent(extent) => {
                read_extent(&self.store, &extent, self.page_bytes, Class::Point).unwrap()
            }
        }
    }

    pub(super) fn get(&self, root: Option<PageRef>, key: &[u8]) -> Option<(u64, Vec<u8>)> {
        let found = get(&self.store, root?, key).unwrap()?;
        let value = match &found.value {
            FoundValue::Inline(_) => found.inline().unwrap().to_vec(),
            FoundValue::Extent(extent) => self.value(RowValue::Extent(*extent)),
        };
        let then = get_then(&self.store, root?, key, |lookup| {
            let row = lookup.row.unwrap();
            (row.txn.get(), row.value.len())
        });
        assert_eq!(then.unwrap(), (found.txn.get(), value.len()));
        Some((found.txn.get(), value))
    }

    fn check_lookups(&self, random: &mut SmallRng) {
        for (key, row) in &self.model {
            assert_eq!(self.get(self.root, key).as_ref(), Some(row), "{key:?}");
            for other in [
                [key.as_slice(), b"\0"].concat(),
                key[..key.len() / 2].to_vec(),
            ] {
                assert_eq!(self.get(self.root, &other).as_ref(), self.model.get(&other));
            }
        }
        let Some(root) = self.root else { return };
        let mut keys: Vec<_> = self.model.keys().cloned().collect();
        keys.extend((0..20).map(|_| keys_of(random, 3)));
        let mut results = vec![None; keys.len()];
        multi_get(&self.store, root, &keys, |index, lookup| {
            results[index] = Some(lookup.row.map(|row| row.txn.get()));
        })
        .unwrap();
        for (key, result) in keys.iter().zip(results) {
            assert_eq!(result.unwrap(), self.model.get(key).map(|(txn, _)| *txn));
        }
    }
}

/// A key in one of the shapes that hurt: short, shared prefix, equal heads, long.
pub(super) fn keys_of(random: &mut SmallRng, shape: u32) -> Vec<u8> {
    let number = random.random_range(0..2000_u32);
    match shape {
        0 => number.to_be_bytes().to_vec(),
        1 => [
            b"a shared and rather long prefix ".as_slice(),
            &number.to_be_bytes(),
        ]
        .concat(),
        2 => vec![0; number as usize % 20],
        3 => (0..number % 7)
            .map(|_| random.random_range(0..3_u8))
            .collect(),
        4 => [vec![b'x'; number as usize % 1000], vec![number as u8]].concat(),
        _ => [
            format!("user{:04}", number % 300).as_bytes(),
            &[9; 16][..number as usize % 9],
        ]
        .concat(),
    }
}

pub(super) fn value_of(random: &mut SmallRng, page_bytes: usize) -> Vec<u8> {
    let len = match random.random_range(0..40) {
        0 => random.random_range(page_bytes / 4..page_bytes * 6),
        1..4 => random.random_range(0..page_bytes / 4),
        _ => random.random_range(0..120),
    };
    vec![random.random(); len]
}

pub(super) fn random_edits(
    random: &mut SmallRng,
    page_bytes: usize,
    txn: &mut u64,
) -> (Vec<Edit>, Vec<RangeEdit>) {
    let shapes = if random.random_bool(0.5) { 0..6 } else { 5..6 };
    let count = [0, 1, 3, 30, 300, 1500][random.random_range(0..6_usize)];
    let deletes = [0.0, 0.2, 0.6, 1.0][random.random_range(0..4_usize)];
    let mut edits = BTreeMap::new();
    for _ in 0..count {
        *txn +=
            u64::from(random.random_bool(0.3)) + (1 << 25) * u64::from(random.random_bool(0.01));
        let shape = random.random_range(shapes.clone());
        let value = (!random.random_bool(deletes)).then(|| value_of(random, page_bytes));
        edits.insert(keys_of(random, shape), (*txn, value));
    }
    let mut ranges = Vec::new();
    for _ in 0..random.random_range(0..8_u32).saturating_sub(4) {
        let shape = random.random_range(shapes.clone());
        let (a, b) = (keys_of(random, shape), keys_of(random, shape));
        let txn = txn.saturating_sub(random.random_range(0..3));
        let to = (!random.random_bool(0.1)).then(|| a.clone().max(b.clone()));
        ranges.push((a.min(b), to, txn));
    }
    ranges.sort();
    *txn += 1;
    (
        edits
            .into_iter()
            .map(|(key, (txn, value))| (key, txn, value))
            .collect(),
        ranges,
    )
}

#[test]
fn merges_of_any_kind_equal_a_sorted_map() {
    for seed in 0..30 {
        let mut random = SmallRng::seed_from_u64(seed);
        let page_bytes = if seed % 3 == 0 { 16_384 } else { 4096 };
        let mut tree = Tree::new(page_bytes);
        let mut txn = 1;
        for _ in 0..12 {
            let (edits, ranges) = random_edits(&mut random, page_bytes, &mut txn);
            let (old_root, old_model) = (tree.root, tree.model.clone());
            tree.merge(&edits, &ranges);
            for (key, row) in old_model.iter().step_by(7) {
                assert_eq!(
                    tree.get(old_root, key).as_ref(),
                    Some(row),
                    "the old root is unchanged"
                );
            }
            tree.check_lookups(&mut random);
        }
    }
}
