//! Trees against a `BTreeMap`, over pages in memory.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::check::{CheckOptions, check};
use super::cursor::Cursor;
use super::merge::{Change, ChangeKind, Forget, Merged, RangeDelete, Supersede, merge, row_count};
use super::overflow::read_extent;
use super::search::{FoundValue, Got, get_then, get_unless, multi_get};
use crate::format::leaf::RowValue;
use crate::format::page::{Page, PageError, seal};
use crate::ids::{Generation, PageId, PageRef, TableId, TxnId};
use crate::pages::{Class, Link, PagePin, PageRead, PageWrite, View};

mod promises;

pub(super) const DATABASE: u64 = 7;
pub(super) const TABLE: TableId = TableId::FIRST_USER;

/// Pages by id. A view misses now and then, so that both ways of a lookup are taken.
#[derive(Default)]
pub(super) struct Store {
    pub(super) pages: BTreeMap<u64, Box<[u8]>>,
    next: u64,
    views: Cell<u32>,
    /// Loads of the last merge and since.
    loads: Cell<u32>,
    pub(super) trust: Trust,
}

/// How much of a page goes unchecked when it is read: what a forger of checksums gets past.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    #[default]
    Nothing,
    Checksums,
    Everything,
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
        let bytes = self.bytes(page.id)?;
        let verified = match self.trust {
            Trust::Nothing => Page::verify(bytes, page, DATABASE)?,
            Trust::Checksums => Page::trusted(bytes),
            Trust::Everything => return Ok(Page::trusted(bytes)),
        };
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
        let is_parent = |link: Link| u64::from(link.parent) != page.id.get();
        assert!(self.trust != Trust::Nothing || link.is_none_or(is_parent));
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
        self.loads.set(self.loads.get() + 1);
        self.verified(page).map(Pin)
    }

    fn prefetch(&self, pages: &[PageRef], _: Class) {
        let is_known = |page: &PageRef| self.pages.contains_key(&page.id.get());
        assert!(self.trust != Trust::Nothing || pages.iter().all(is_known));
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

    fn supersede(&mut self, _page: PageId) {}

    fn retire(&mut self, first: PageId, count: u32) -> Result<(), PageError> {
        let end = first.get().saturating_add(count.into());
        self.retired
            .extend(first.get()..end.min(first.get() + 10_000));
        Ok(())
    }
}

/// An owned change; no value is a delete.
pub(super) type Edit = (Vec<u8>, u64, Option<Vec<u8>>);
pub(super) type RangeEdit = (Vec<u8>, Option<Vec<u8>>, u64);

pub(super) fn changes_of(edits: &[Edit]) -> impl Iterator<Item = Change<'_>> {
    edits.iter().map(|(key, txn, value)| Change {
        key,
        txn: TxnId::new(*txn),
        kind: value
            .as_ref()
            .map_or(ChangeKind::Delete, |value| ChangeKind::Put(value)),
    })
}

/// Key, txn, length of the value and end of every row superseded.
#[derive(Default)]
struct Heard(Vec<(Vec<u8>, u64, usize, u64)>);

impl Supersede for Heard {
    const LISTENS: bool = true;

    fn superseded(
        &mut self,
        key: &[u8],
        from: TxnId,
        value: RowValue<'_>,
        to: TxnId,
    ) -> Result<bool, PageError> {
        let len = match value {
            RowValue::Inline(value) => value.len(),
            RowValue::Extent(extent) => extent.value_len as usize,
        };
        self.0.push((key.to_vec(), from.get(), len, to.get()));
        Ok(false)
    }

    fn changed(&mut self, _: &[u8]) -> Result<(), PageError> {
        Ok(())
    }
}

/// Txn and value.
type Row = (u64, Vec<u8>);

/// A tree in a store, and what it should hold.
pub(super) struct Tree {
    pub(super) store: Store,
    pub(super) page_bytes: usize,
    pub(super) root: Option<PageRef>,
    pub(super) model: BTreeMap<Vec<u8>, Row>,
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
        let deletes: Vec<_> = ranges
            .iter()
            .map(|(from, to, txn)| RangeDelete {
                from,
                to: to.as_deref(),
                txn: TxnId::new(*txn),
            })
            .collect();
        self.check_superseded(&sink, edits, &deletes);
        self.store.loads.set(0);
        let merged = merge(
            &self.store,
            &mut sink,
            TABLE,
            self.root,
            changes_of(edits),
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

    /// Merges once more, for a listener, and drops the outcome.
    fn check_superseded(&self, sink: &Sink, edits: &[Edit], deletes: &[RangeDelete<'_>]) {
        let mut expected = Vec::new();
        for (key, (txn, value)) in &self.model {
            let change = edits
                .iter()
                .filter(|(other, ..)| other == key)
                .map(|(_, txn, _)| *txn);
            let covering = deletes.iter().filter(|range| {
                range.from <= key.as_slice() && range.to.is_none_or(|to| key.as_slice() < to)
            });
            let ends = change.chain(covering.map(|range| range.txn.get()));
            if let Some(end) = ends.filter(|end| end > txn).min() {
                expected.push((key.clone(), *txn, value.len(), end));
            }
        }
        let mut heard = Heard::default();
        let mut sink = Sink {
            written: BTreeMap::new(),
            retired: Vec::new(),
            ..*sink
        };
        let (root, changes) = (self.root, changes_of(edits));
        merge(
            &self.store,
            &mut sink,
            TABLE,
            root,
            changes,
            deletes,
            &mut heard,
        )
        .unwrap();
        assert_eq!(heard.0, expected);
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
        let instead = || None::<()>;
        let Got::Row(found) = get_unless(&self.store, root?, key, instead).unwrap() else {
            panic!("nothing instead");
        };
        let found = found?;
        let value = match &found.value {
            FoundValue::Inline(_) => found.inline().unwrap().to_vec(),
            FoundValue::Extent(extent) => self.value(RowValue::Extent(*extent)),
        };
        let txn = get_then(&self.store, root?, key, |row, _| row.unwrap().txn.get());
        Some((txn.unwrap(), value))
    }

    fn check_lookups(&self, random: &mut SmallRng) {
        for (key, row) in &self.model {
            assert_eq!(self.get(self.root, key).as_ref(), Some(row));
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
        multi_get(&self.store, root, &keys, |index, row| {
            results[index] = Some(row.map(|row| row.txn.get()));
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

impl Tree {
    fn cursor(&self) -> Cursor<'_, Store> {
        Cursor::new(&self.store, self.root, Class::Scan)
    }

    fn at(&self, cursor: &Cursor<'_, Store>) -> Option<(Vec<u8>, Row)> {
        let row = cursor.row()?;
        Some((row.key.to_vec(), (row.txn.get(), self.value(row.value))))
    }

    fn check_cursors(&self, random: &mut SmallRng) {
        let rows: Vec<_> = self.model.clone().into_iter().collect();
        let mut cursor = self.cursor();
        let mut is_on = cursor.seek(Bound::Unbounded).unwrap();
        for row in &rows {
            assert!(is_on);
            assert_eq!(self.at(&cursor).as_ref(), Some(row));
            is_on = cursor.next().unwrap();
        }
        assert!(!is_on && cursor.row().is_none() && !cursor.next().unwrap());
        for row in rows.iter().rev() {
            assert!(cursor.prev().unwrap());
            assert_eq!(self.at(&cursor).as_ref(), Some(row));
        }
        assert!(!cursor.prev().unwrap() && !cursor.prev().unwrap());
        assert_eq!(cursor.next().unwrap(), !rows.is_empty());

        let mut seen = Vec::new();
        cursor.seek(Bound::Unbounded).unwrap();
        let mut collect = |key: &[u8], value: RowValue<'_>, txn: TxnId| {
            seen.push((key.to_vec(), (txn.get(), self.value(value))));
            ControlFlow::Continue(())
        };
        cursor.scan(&mut collect).unwrap();
        assert_eq!(seen, rows);
        seen.clear();
        cursor.seek_back(Bound::Unbounded).unwrap();
        let stop = rows.len() / 2;
        for _ in 0..2 {
            cursor
                .scan_back(|key, value, txn| {
                    seen.push((key.to_vec(), (txn.get(), self.value(value))));
                    if seen.len() == stop {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                })
                .unwrap();
            cursor.prev().unwrap();
        }
        assert!(seen.iter().rev().eq(rows.iter()));

        let mut keys: Vec<_> = self.model.keys().step_by(3).cloned().collect();
        keys.extend((0..60).map(|shape| keys_of(random, shape % 6)));
        for key in keys {
            let (key, model) = (key.as_slice(), &self.model);
            for bound in [Bound::Included(key), Bound::Excluded(key)] {
                let expected = model.range::<[u8], _>((bound, Bound::Unbounded)).next();
                assert_eq!(cursor.seek(bound).unwrap(), expected.is_some());
                assert_eq!(
                    cursor.row().map(|row| row.key),
                    expected.map(|(key, _)| key.as_slice())
                );
                let before = model
                    .range::<[u8], _>((Bound::Unbounded, invert(bound)))
                    .next_back();
                assert_eq!(cursor.prev().unwrap(), before.is_some());
                assert_eq!(
                    cursor.row().map(|row| row.key),
                    before.map(|(key, _)| key.as_slice())
                );
                let expected = model
                    .range::<[u8], _>((Bound::Unbounded, bound))
                    .next_back();
                assert_eq!(cursor.seek_back(bound).unwrap(), expected.is_some());
                assert_eq!(
                    cursor.row().map(|row| row.key),
                    expected.map(|(key, _)| key.as_slice())
                );
            }
        }
    }

    /// Every page of the tree, after a check that found nothing.
    pub(super) fn check(&self) -> BTreeSet<u64> {
        let mut seen = BTreeSet::new();
        let options = CheckOptions {
            table: TABLE,
            page_bytes: self.page_bytes,
            read_extents: true,
            digest: true,
        };
        let report = check(&self.store, self.root, options, &mut |page, _| {
            seen.insert(page.get())
        });
        assert_eq!(report.faults, []);
        assert_eq!(report.rows, self.model.len() as u64);
        assert_eq!(
            report.leaves + report.branches + report.overflow_pages,
            seen.len() as u64
        );
        seen
    }
}

fn invert(bound: Bound<&[u8]>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Excluded(key),
        Bound::Excluded(key) => Bound::Included(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

#[test]
fn merges_of_any_kind_equal_a_sorted_map() {
    let mut level_max = 0;
    for seed in 0..30 {
        let mut random = SmallRng::seed_from_u64(seed);
        let page_bytes = if seed % 3 == 0 { 16_384 } else { 4096 };
        let mut tree = Tree::new(page_bytes);
        let mut txn = 1;
        let mut pages = BTreeSet::new();
        for _ in 0..12 {
            let (edits, ranges) = random_edits(&mut random, page_bytes, &mut txn);
            let (old_root, old_model) = (tree.root, tree.model.clone());
            let first_new = tree.store.next;
            let (merged, retired) = tree.merge(&edits, &ranges);
            let new_pages = tree.check();
            let retired_set: BTreeSet<_> = retired.iter().copied().collect();
            assert_eq!(retired_set.len(), retired.len(), "a page is retired once");
            assert!(
                pages.difference(&new_pages).eq(&retired_set),
                "retired is what is not reached"
            );
            assert!(
                new_pages
                    .difference(&pages)
                    .copied()
                    .eq(first_new..tree.store.next)
            );
            pages = new_pages;
            level_max = level_max.max(merged.level);
            for (key, row) in old_model.iter().step_by(7) {
                assert_eq!(
                    tree.get(old_root, key).as_ref(),
                    Some(row),
                    "the old root is unchanged"
                );
            }
            tree.check_lookups(&mut random);
            tree.check_cursors(&mut random);
        }
    }
    assert!(level_max >= 2, "trees of several levels are among them");
}
