//! Walking a tree row by row, in either direction.
//!
//! A cursor holds one counted pin a level, so rows it shows stay valid until it moves, and nothing else does. There
//! are no sibling pointers: the way to the next leaf leads through the parents held on the stack. From the second
//! leaf on it asks for the leaves ahead of it, at first 4, then up to 16.
//!
//! Invariants:
//! 1. After an error every move repeats it, until the next seek: an error never skips rows.
//! 2. Keys rise or fall strictly from leaf to leaf, or the walk ends with an error: damage makes no walk endless.
//! 3. Keys are assembled in one buffer; moving allocates nothing beyond that buffer's growth.
//!
//! - Cost: a row of the same leaf costs its decoding and the copy of its key; a leaf costs one load.

use std::cmp::Ordering;
use std::ops::{Bound, Range};

use super::search::{check_level, child_index, row_index};
use crate::format::branch::Branch;
use crate::format::leaf::{Leaf, LeafRow, RowValue};
use crate::format::node::{Suffix, strip, structure};
use crate::format::overflow::ExtentRef;
use crate::format::page::PageError;
use crate::ids::{PageId, PageRef, TxnId};
use crate::pages::{Class, PagePin, PageRead};
use crate::prefetch::prefetch_line;

mod scan;

pub(crate) use scan::Between;

/// Rows whose memory is asked for ahead.
const ROWS_AHEAD: usize = 8;
/// Leaves asked for ahead, at first and at most.
const WINDOW_MIN: usize = 4;
const WINDOW_MAX: usize = 64;

/// A row under a cursor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CursorRow<'a> {
    /// The whole key.
    pub(crate) key: &'a [u8],
    /// The transaction that wrote the row.
    pub(crate) txn: TxnId,
    /// Its value.
    pub(crate) value: RowValue<'a>,
}

/// A position in a tree.
#[derive(Debug)]
pub(crate) struct Cursor<'p, P: PageRead> {
    pages: &'p P,
    root: Option<PageRef>,
    class: Class,
    /// The branches above the leaf, root first.
    parents: Vec<Parent<P::Pin<'p>>>,
    leaf: Option<P::Pin<'p>>,
    /// Row of the leaf; also known before the first and after the last row.
    index: usize,
    place: Place,
    key: Vec<u8>,
    txn: TxnId,
    value: Value,
    failed: Option<PageError>,
    ahead: Ahead,
}

#[derive(Debug)]
struct Parent<Pin> {
    pin: Pin,
    index: usize,
    count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not in a leaf.
    Nowhere,
    Before,
    On,
    After,
}

#[derive(Debug, Clone)]
enum Value {
    Inline(Range<usize>),
    Extent(ExtentRef),
}

impl Value {
    /// A value of `leaf`, by where it lies.
    #[inline]
    fn of(leaf: &Leaf<'_>, value: RowValue<'_>) -> Self {
        match value {
            RowValue::Extent(extent) => Self::Extent(extent),
            RowValue::Inline(value) => {
                let start = value.as_ptr() as usize - leaf.page().bytes().as_ptr() as usize;
                Self::Inline(start..start + value.len())
            }
        }
    }

    #[inline]
    fn read<'a>(&self, leaf: Option<&'a impl PagePin>) -> Option<RowValue<'a>> {
        Some(match self {
            Self::Inline(range) => RowValue::Inline(leaf?.page().bytes().get(range.clone())?),
            Self::Extent(extent) => RowValue::Extent(*extent),
        })
    }
}

/// A row of the leaf that a cursor is in, but for its key.
#[derive(Debug)]
pub(crate) struct Taken {
    txn: TxnId,
    value: Value,
}

impl Taken {
    /// A row of `leaf`; asks for the end of its value, which will be read when its turn comes.
    #[inline]
    pub(crate) fn of(leaf: &Leaf<'_>, row: &LeafRow<'_>) -> Self {
        if let RowValue::Inline([.., last]) = row.value {
            prefetch_line(last);
        }
        Self {
            txn: row.txn,
            value: Value::of(leaf, row.value),
        }
    }

    /// Who wrote it.
    pub(crate) fn txn(&self) -> TxnId {
        self.txn
    }
}

/// What a look at a row leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// To the next one of the leaf.
    On,
    /// It was the last one.
    Last,
    /// It is looked at again later.
    Again,
}

/// Which way a step goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Backward,
}

impl Way {
    fn of(backward: bool) -> Self {
        if backward {
            Self::Backward
        } else {
            Self::Forward
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
        }
    }
}

/// The last row of a leaf in the order of a walk.
fn end_row(leaf: &Leaf<'_>, way: Way) -> usize {
    match way {
        Way::Forward => leaf.count().saturating_sub(1),
        Way::Backward => 0,
    }
}

/// Asks for the memory that a row begins in, if there is such a row.
#[inline]
fn prefetch_row(leaf: &Leaf<'_>, index: usize) {
    if let Some((_, bytes)) = leaf.arrays().entry(index) {
        prefetch_line(bytes.as_ptr());
    }
}

/// The transaction and the value of a row, and its whole key in `key`.
#[inline]
fn decode(leaf: &Leaf<'_>, row: LeafRow<'_>, key: &mut Vec<u8>) -> (TxnId, Value) {
    key.clear();
    key.extend_from_slice(leaf.prefix());
    row.suffix.append_to(key);
    (row.txn, Value::of(leaf, row.value))
}

/// Where a descent leads.
#[derive(Clone, Copy)]
enum Aim<'k> {
    First,
    Last,
    Key(&'k [u8]),
}

/// How far leaves were asked for, in children of the last parent beyond its current one.
#[derive(Debug)]
struct Ahead {
    way: Way,
    window: usize,
    asked: usize,
}

impl<'p, P: PageRead> Cursor<'p, P> {
    /// A cursor that is nowhere yet. `class` is that of the leaves; branches count as point reads.
    pub(crate) fn new(pages: &'p P, root: Option<PageRef>, class: Class) -> Self {
        Self {
            pages,
            root,
            class,
            parents: Vec::new(),
            leaf: None,
            index: 0,
            place: Place::Nowhere,
            key: Vec::new(),
            txn: TxnId::ZERO,
            value: Value::Inline(0..0),
            failed: None,
            ahead: Ahead {
                way: Way::Forward,
                window: 0,
                asked: 0,
            },
        }
    }

    /// Goes to the first row within the lower bound `from`; false if there is none.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn seek(&mut self, from: Bound<&[u8]>) -> Result<bool, PageError> {
        self.restart();
        self.attempt(|cursor| {
            let aim = match from {
                Bound::Included(key) | Bound::Excluded(key) => Aim::Key(key),
                Bound::Unbounded => Aim::First,
            };
            let Some(count) = cursor.descend_root(aim)? else {
                return Ok(false);
            };
            cursor.index = match from {
                Bound::Unbounded => 0,
                Bound::Included(key) | Bound::Excluded(key) => match cursor.find(key)? {
                    Ok(hit) => hit + usize::from(matches!(from, Bound::Excluded(_))),
                    Err(gap) => gap,
                },
            };
            if cursor.index < count {
                return cursor.settle();
            }
            cursor.index = count - 1;
            cursor.step(Way::Forward)
        })
    }

    /// Goes to the last row within the upper bound `to`; false if there is none.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn seek_back(&mut self, to: Bound<&[u8]>) -> Result<bool, PageError> {
        self.restart();
        self.attempt(|cursor| {
            let aim = match to {
                Bound::Included(key) | Bound::Excluded(key) => Aim::Key(key),
                Bound::Unbounded => Aim::Last,
            };
            let Some(count) = cursor.descend_root(aim)? else {
                return Ok(false);
            };
            let end = match to {
                Bound::Unbounded => count,
                Bound::Included(key) | Bound::Excluded(key) => match cursor.find(key)? {
                    Ok(hit) => hit + usize::from(matches!(to, Bound::Included(_))),
                    Err(gap) => gap,
                },
            };
            if let Some(index) = end.checked_sub(1) {
                cursor.index = index;
                return cursor.settle();
            }
            cursor.index = 0;
            cursor.step(Way::Backward)
        })
    }

    /// Goes to the next row; false behind the last one, from where [`Self::prev`] leads back to it.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<bool, PageError> {
        self.attempt(|cursor| match cursor.place {
            Place::Nowhere | Place::After => Ok(false),
            Place::Before => cursor.settle(),
            Place::On => cursor.step(Way::Forward),
        })
    }

    /// Goes to the row before; false before the first one, from where [`Self::next`] leads back to it.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    #[inline]
    pub(crate) fn prev(&mut self) -> Result<bool, PageError> {
        self.attempt(|cursor| match cursor.place {
            Place::Nowhere | Place::Before => Ok(false),
            Place::After => cursor.settle(),
            Place::On => cursor.step(Way::Backward),
        })
    }

    /// Goes on past rows until one that `wanted` takes, which hears what the leaf's keys begin with and each row; false
    /// behind the last one, or before the first if `backward`.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    #[inline]
    pub(crate) fn step_to(
        &mut self,
        backward: bool,
        mut wanted: impl FnMut(&[u8], &LeafRow<'_>) -> bool,
    ) -> Result<bool, PageError> {
        let way = Way::of(backward);
        self.attempt(|cursor| {
            if cursor.place != Place::On {
                return Ok(false);
            }
            loop {
                let Some(pin) = &cursor.leaf else {
                    return Ok(false);
                };
                let leaf = Leaf::view(pin.page())?;
                let (prefix, last) = (leaf.prefix(), end_row(&leaf, way));
                let mut index = cursor.index;
                while index != last {
                    match way {
                        Way::Forward => index += 1,
                        Way::Backward => index -= 1,
                    }
                    let row = leaf.row(index)?;
                    if wanted(prefix, &row) {
                        cursor.index = index;
                        (cursor.txn, cursor.value) = decode(&leaf, row, &mut cursor.key);
                        return Ok(true);
                    }
                }
                cursor.index = index;
                if !cursor.step(way)? {
                    return Ok(false);
                }
                // The first row of the next leaf was come to by that step.
                let Some(pin) = &cursor.leaf else {
                    return Ok(false);
                };
                let leaf = Leaf::view(pin.page())?;
                if wanted(leaf.prefix(), &leaf.row(cursor.index)?) {
                    return Ok(true);
                }
            }
        })
    }

    /// The row under the cursor.
    #[inline]
    pub(crate) fn row(&self) -> Option<CursorRow<'_>> {
        if self.place != Place::On {
            return None;
        }
        Some(CursorRow {
            key: &self.key,
            txn: self.txn,
            value: self.value.read(self.leaf.as_ref())?,
        })
    }

    /// Has `look` see the rows of the leaf from the one under the cursor on. The cursor is then on the last that was seen; says
    /// whether that is to be looked at again. What was [`Taken`] can be read until the cursor moves on.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    #[inline]
    pub(crate) fn look_on(
        &mut self,
        backward: bool,
        mut look: impl FnMut(&Leaf<'_>, &LeafRow<'_>) -> Look,
    ) -> Result<bool, PageError> {
        let way = Way::of(backward);
        self.attempt(|cursor| {
            let (Some(pin), Place::On) = (&cursor.leaf, cursor.place) else {
                return Ok(false);
            };
            let leaf = Leaf::view(pin.page())?;
            let last = end_row(&leaf, way);
            let mut index = cursor.index;
            let looked = loop {
                let ahead = match way {
                    Way::Forward => index + ROWS_AHEAD,
                    Way::Backward => index.wrapping_sub(ROWS_AHEAD),
                };
                prefetch_row(&leaf, ahead);
                let looked = look(&leaf, &leaf.row(index)?);
                if looked != Look::On || index == last {
                    break looked;
                }
                match way {
                    Way::Forward => index += 1,
                    Way::Backward => index -= 1,
                }
            };
            cursor.index = index;
            cursor.settle().map(|_| looked == Look::Again)
        })
    }

    /// A row that was taken from the leaf that the cursor is still in.
    #[inline]
    pub(crate) fn taken<'a>(&'a self, taken: &Taken, key: &'a [u8]) -> Option<CursorRow<'a>> {
        Some(CursorRow {
            key,
            txn: taken.txn,
            value: taken.value.read(self.leaf.as_ref())?,
        })
    }

    /// The last key that a scan has visited, also if it ended with an error.
    pub(crate) fn last_key(&self) -> &[u8] {
        &self.key
    }

    /// The leaf that the cursor is in.
    pub(crate) fn page_id(&self) -> Option<PageId> {
        self.leaf.as_ref().map(|leaf| leaf.page().id())
    }

    /// Runs a move unless an earlier one failed; a failure sticks.
    #[inline]
    fn attempt(
        &mut self,
        walk: impl FnOnce(&mut Self) -> Result<bool, PageError>,
    ) -> Result<bool, PageError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let outcome = walk(self);
        if let Err(error) = &outcome {
            self.place = Place::Nowhere;
            self.failed = Some(error.clone());
        }
        outcome
    }

    fn restart(&mut self) {
        self.parents.clear();
        self.leaf = None;
        self.place = Place::Nowhere;
        self.failed = None;
        self.ahead = Ahead {
            way: Way::Forward,
            window: 0,
            asked: 0,
        };
    }

    /// Decodes the row at `index`.
    fn settle(&mut self) -> Result<bool, PageError> {
        let Some(pin) = &self.leaf else {
            return Ok(false);
        };
        let leaf = Leaf::view(pin.page())?;
        (self.txn, self.value) = decode(&leaf, leaf.row(self.index)?, &mut self.key);
        self.place = Place::On;
        Ok(true)
    }

    fn find(&self, key: &[u8]) -> Result<Result<usize, usize>, PageError> {
        match &self.leaf {
            Some(pin) => row_index(&Leaf::view(pin.page())?, key),
            None => Ok(Err(0)),
        }
    }

    /// Goes from `index` one row along.
    fn step(&mut self, way: Way) -> Result<bool, PageError> {
        let Some(pin) = &self.leaf else {
            return Ok(false);
        };
        match way {
            Way::Forward if self.index + 1 < usize::from(pin.page().header().count.get()) => {
                self.index += 1;
            }
            Way::Backward if self.index > 0 => self.index -= 1,
            Way::Forward | Way::Backward => {
                let Some(count) = self.next_leaf(way)? else {
                    self.place = if way == Way::Forward {
                        Place::After
                    } else {
                        Place::Before
                    };
                    return Ok(false);
                };
                self.index = if way == Way::Forward { 0 } else { count - 1 };
            }
        }
        self.settle()
    }

    /// Goes to the leaf beside the current one and returns its number of rows; stays if there is none.
    fn next_leaf(&mut self, way: Way) -> Result<Option<usize>, PageError> {
        let can_move = |parent: &Parent<_>| match way {
            Way::Forward => parent.index + 1 < parent.count,
            Way::Backward => parent.index > 0,
        };
        let Some(depth) = self.parents.iter().rposition(can_move) else {
            return Ok(None);
        };
        if depth + 1 < self.parents.len() || self.ahead.way != way {
            self.ahead.asked = 0;
        }
        self.ahead.way = way;
        self.parents.truncate(depth + 1);
        let Some(parent) = self.parents.last_mut() else {
            return Ok(None);
        };
        match way {
            Way::Forward => parent.index += 1,
            Way::Backward => parent.index -= 1,
        }
        let page = parent.pin.page();
        let child = Branch::view(page)?.child(parent.index)?;
        let level = page.header().level - 1;
        self.keep_last_key(way)?;
        self.ahead.asked = self.ahead.asked.saturating_sub(1);
        let aim = if way == Way::Forward {
            Aim::First
        } else {
            Aim::Last
        };
        if level == 0 {
            self.read_ahead()?;
            let count = self.descend(child, Some(level), aim)?;
            return self.check_next_key(way).map(|()| Some(count));
        }
        let count = self.descend(child, Some(level), aim)?;
        self.read_ahead()?;
        self.check_next_key(way).map(|()| Some(count))
    }

    /// Keeps the key at the end of the leaf that a walk leaves.
    fn keep_last_key(&mut self, way: Way) -> Result<(), PageError> {
        if let Some(pin) = &self.leaf {
            let leaf = Leaf::view(pin.page())?;
            let suffix = leaf.suffix(end_row(&leaf, way))?;
            self.key.clear();
            self.key.extend_from_slice(leaf.prefix());
            suffix.append_to(&mut self.key);
        }
        Ok(())
    }

    /// Fails unless the leaf that a walk has come to goes on behind the key kept. So no damage makes a walk come by
    /// a leaf twice: parents that share children would make it as good as endless.
    fn check_next_key(&self, way: Way) -> Result<(), PageError> {
        let (Some(pin), other) = (&self.leaf, way.other()) else {
            return Ok(());
        };
        let leaf = Leaf::view(pin.page())?;
        let first = end_row(&leaf, other);
        let kept = match strip(&self.key, leaf.prefix()) {
            Ok(rest) => Suffix::of(rest).compare(&leaf.suffix(first)?),
            Err(order) => order,
        };
        let expected = match way {
            Way::Forward => Ordering::Less,
            Way::Backward => Ordering::Greater,
        };
        if kept == expected {
            return Ok(());
        }
        let (found, count) = (first as u64, leaf.count() as u64);
        Err(structure(
            pin.page(),
            "row beside the next leaf",
            found,
            count,
        ))
    }

    /// Asks for the leaves after the one the last parent stands on.
    fn read_ahead(&mut self) -> Result<(), PageError> {
        let Some(parent) = self.parents.last() else {
            return Ok(());
        };
        let ahead = &mut self.ahead;
        if ahead.window > 0 && ahead.asked > ahead.window / 2 {
            return Ok(());
        }
        ahead.window = (ahead.window * 2).clamp(WINDOW_MIN, WINDOW_MAX);
        let left = match ahead.way {
            Way::Forward => parent.count - 1 - parent.index,
            Way::Backward => parent.index,
        };
        let branch = Branch::view(parent.pin.page())?;
        let mut wanted = [PageRef::default(); WINDOW_MAX];
        let mut count = 0;
        for (slot, distance) in wanted
            .iter_mut()
            .zip(ahead.asked + 1..=ahead.window.min(left))
        {
            *slot = branch.child(match ahead.way {
                Way::Forward => parent.index + distance,
                Way::Backward => parent.index - distance,
            })?;
            count += 1;
        }
        ahead.asked += count;
        if let Some(wanted @ [_, ..]) = wanted.get(..count) {
            self.pages.prefetch(wanted, self.class);
        }
        Ok(())
    }

    fn descend_root(&mut self, aim: Aim<'_>) -> Result<Option<usize>, PageError> {
        match self.root {
            Some(root) => self.descend(root, None, aim).map(Some),
            None => Ok(None),
        }
    }

    /// Goes down from `page` to a leaf and returns its number of rows.
    fn descend(
        &mut self,
        mut page: PageRef,
        mut level: Option<u8>,
        aim: Aim<'_>,
    ) -> Result<usize, PageError> {
        loop {
            let class = if level == Some(0) {
                self.class
            } else {
                Class::Point
            };
            let pin = self.pages.load(page, class)?;
            let found = check_level(pin.page(), level)?;
            if found == 0 {
                let count = Leaf::view(pin.page())?.count();
                self.leaf = Some(pin);
                return match count {
                    0 => Err(PageError::Structure {
                        page: page.id,
                        what: "row count",
                        found: 0,
                        expected: 1,
                    }),
                    _ => Ok(count),
                };
            }
            let branch = Branch::view(pin.page())?;
            let count = branch.count();
            let index = match aim {
                Aim::First => 0,
                Aim::Last => count - 1,
                Aim::Key(key) => child_index(&branch, key)?,
            };
            page = branch.child(index)?;
            level = Some(found - 1);
            self.parents.push(Parent { pin, index, count });
        }
    }
}
