//! Point lookups: from the root down to one leaf, by heads.
//!
//! A lookup whose pages are resident enters one epoch, allocates nothing, takes no lock and touches, per level, the
//! header line, the heads, and one child pointer. On a miss it leaves the epoch, loads the page (which may wait for
//! the device), and goes on below it.
//!
//! - Failure: hostile pages give [`PageError`]; levels must fall by one from parent to child, so a walk ends.

use std::cmp::Ordering;
use std::ops::Range;

use northstar_io::planted::planted;

use super::simd;
use crate::format::branch::Branch;
use crate::format::leaf::{Leaf, LeafRow, RowValue};
use crate::format::node::{LEVEL_MAX, Suffix, strip, structure};
use crate::format::overflow::ExtentRef;
use crate::format::page::{Page, PageError};
use crate::ids::{PageRef, TxnId};
use crate::pages::{Class, Link, PagePin, PageRead, View};
use crate::prefetch::prefetch_line;

/// A row whose leaf is pinned.
#[derive(Debug)]
pub(crate) struct Found<Pin> {
    /// The leaf.
    pub(crate) pin: Pin,
    /// Where the value is.
    pub(crate) value: FoundValue,
}

/// Where the value of a [`Found`] row is.
#[derive(Debug, Clone)]
pub(crate) enum FoundValue {
    /// In these bytes of the pinned leaf.
    Inline(Range<usize>),
    /// In pages of its own: see [`super::overflow::read_extent`].
    Extent(ExtentRef),
}

impl<Pin: PagePin> Found<Pin> {
    /// The inline value, or nothing where it lives in an extent.
    pub(crate) fn inline(&self) -> Option<&[u8]> {
        match &self.value {
            FoundValue::Inline(range) => self.pin.page().bytes().get(range.clone()),
            FoundValue::Extent(_) => None,
        }
    }
}

/// A leaf reached by a lookup.
enum Held<'g, Pin> {
    View(View<'g>),
    Pin(Pin),
}

impl<Pin: PagePin> Held<'_, Pin> {
    fn page(&self) -> Page<'_> {
        match self {
            Self::View(view) => view.page,
            Self::Pin(pin) => pin.page(),
        }
    }
}

/// Looks `key` up and runs `then` on its row and on the leaf that holds it or would hold it, under the epoch guard.
///
/// # Errors
/// A page that cannot be read or contradicts itself.
#[cfg(test)]
pub(crate) fn get_then<P: PageRead, R>(
    pages: &P,
    root: PageRef,
    key: &[u8],
    then: impl FnOnce(Option<LeafRow<'_>>, Page<'_>) -> R,
) -> Result<R, PageError> {
    reach(
        pages,
        root,
        key,
        || None,
        |held| {
            let leaf = Leaf::view(held.page())?;
            Ok(then(find(&leaf, key)?, leaf.page()))
        },
    )
}

/// What [`get_unless`] came to.
#[derive(Debug)]
pub(crate) enum Got<T, Pin> {
    /// The tree was not asked to the end.
    Instead(T),
    /// The row, if there is one.
    Row(Option<Found<Pin>>),
}

/// Looks `key` up and pins its leaf, unless `instead` has an answer.
///
/// It is asked once, before a page is read from the device and before the leaf is touched, but not before the pages
/// above, which are in the processor's caches: what it looks at can be on its way from memory meanwhile. It runs under
/// the epoch guard or none.
///
/// # Errors
/// A page that cannot be read or contradicts itself, if `instead` has no answer.
pub(crate) fn get_unless<'p, P: PageRead, T>(
    pages: &'p P,
    root: PageRef,
    key: &[u8],
    instead: impl FnOnce() -> Option<T>,
) -> Result<Got<T, P::Pin<'p>>, PageError> {
    let instead = || instead().map(Got::Instead);
    reach(pages, root, key, instead, |held| {
        let leaf = Leaf::view(held.page())?;
        let Some(row) = find(&leaf, key)? else {
            return Ok(Got::Row(None));
        };
        let value = value_of(&leaf, &row);
        Ok(Got::Row(Some(found(pages, held, value))))
    })
}

/// Where the value of a row is.
#[inline]
fn value_of(leaf: &Leaf<'_>, row: &LeafRow<'_>) -> FoundValue {
    match row.value {
        RowValue::Inline(value) => {
            let start = value.as_ptr() as usize - leaf.page().bytes().as_ptr() as usize;
            FoundValue::Inline(start..start + value.len())
        }
        RowValue::Extent(extent) => FoundValue::Extent(extent),
    }
}

/// Keeps the leaf of a row.
#[inline]
fn found<'p, P: PageRead>(
    pages: &'p P,
    held: Held<'_, P::Pin<'p>>,
    value: FoundValue,
) -> Found<P::Pin<'p>> {
    let pin = match held {
        Held::View(view) => pages.pin(view),
        Held::Pin(pin) => pin,
    };
    Found { pin, value }
}

/// What [`get_at`] came to.
#[derive(Debug)]
pub(crate) enum GotAt<T, Pin> {
    /// The tree was not asked to the end.
    Instead(T),
    /// The row, which was there already.
    Row(Found<Pin>),
    /// No row, neither now nor then: nothing in this leaf came or went since.
    Absent,
    /// There may have been another row then.
    Changed,
}

/// As [`get_unless`], for who wants to know what was there at `at`.
///
/// # Errors
/// A page that cannot be read or contradicts itself, if `instead` has no answer.
pub(crate) fn get_at<'p, P: PageRead, T>(
    pages: &'p P,
    root: PageRef,
    key: &[u8],
    at: TxnId,
    instead: impl FnOnce() -> Option<T>,
) -> Result<GotAt<T, P::Pin<'p>>, PageError> {
    let instead = || instead().map(GotAt::Instead);
    reach(pages, root, key, instead, |held| {
        let leaf = Leaf::view(held.page())?;
        let header = leaf.page().header();
        let deaf = planted("a leaf says nothing of its deletes");
        let still =
            header.txn_max.get() <= at.get() && (header.delete_txn_max.get() <= at.get() || deaf);
        Ok(match find(&leaf, key)? {
            Some(row) if row.txn <= at => {
                let value = value_of(&leaf, &row);
                GotAt::Row(found(pages, held, value))
            }
            None if still => GotAt::Absent,
            _ => GotAt::Changed,
        })
    })
}

/// A row whose leaf is pinned, and who wrote it.
pub(crate) type Written<Pin> = (TxnId, Found<Pin>);

/// The first row at or above `key`, who wrote it, and its whole key into `into`, if it is in the leaf that covers `key`;
/// `None` says that it may be in the next one.
///
/// # Errors
/// A page that cannot be read or contradicts itself.
pub(crate) fn ceiling<'p, P: PageRead>(
    pages: &'p P,
    root: PageRef,
    key: &[u8],
    into: &mut Vec<u8>,
) -> Result<Option<Written<P::Pin<'p>>>, PageError> {
    reach(
        pages,
        root,
        key,
        || None,
        |held| {
            let leaf = Leaf::view(held.page())?;
            let (Ok(index) | Err(index)) = row_index(&leaf, key)?;
            if index >= leaf.count() {
                return Ok(None);
            }
            let row = leaf.row(index)?;
            into.clear();
            into.extend_from_slice(leaf.prefix());
            row.suffix.append_to(into);
            let value = value_of(&leaf, &row);
            Ok(Some((row.txn, found(pages, held, value))))
        },
    )
}

/// Cache lines of a node to ask for while other lookups go on: header and heads of most.
const NODE_LINES: usize = 8;
/// Lookups that are under way together: their misses are read from the device at the same time.
const TOGETHER_MAX: usize = 64;

/// Looks many keys up and runs `then(index of the key, its row)` for each, in no particular order and under the
/// epoch guard. All misses of a level are asked for before any is waited for.
///
/// # Errors
/// The first page that cannot be read or contradicts itself; other keys may then lack their result.
pub(crate) fn multi_get<P: PageRead, K: AsRef<[u8]>>(
    pages: &P,
    root: PageRef,
    keys: &[K],
    mut then: impl FnMut(usize, Option<LeafRow<'_>>),
) -> Result<(), PageError> {
    let mut missing: Vec<PageRef> = Vec::new();
    for (batch, keys) in keys.chunks(TOGETHER_MAX).enumerate() {
        let mut finish = |index: usize, key: &[u8], page: Page<'_>| {
            let leaf = Leaf::view(page)?;
            then(batch * TOGETHER_MAX + index, find(&leaf, key)?);
            Ok(())
        };
        let mut steps: Vec<(usize, &[u8], Step)> = keys
            .iter()
            .enumerate()
            .map(|(i, key)| (i, key.as_ref(), Step::at(root)))
            .collect();
        while !steps.is_empty() {
            let mut missed = Vec::new();
            // Level by level for all keys, so that their cache misses overlap. `steps` holds resident pages only.
            let guard = pages.enter();
            while !steps.is_empty() {
                let mut views = Vec::with_capacity(steps.len());
                for (index, key, step) in steps.drain(..) {
                    if let Some(view) = pages.try_view(&guard, step.page, step.link) {
                        for line in view.page.bytes().chunks(64).take(NODE_LINES) {
                            prefetch_line(line.as_ptr());
                        }
                        views.push((index, key, step, view));
                    } else {
                        missed.push((index, key, step));
                    }
                }
                for (index, key, mut step, view) in views {
                    if step.descend(view.page, Some(view.frame), key)? {
                        steps.push((index, key, step));
                    } else {
                        finish(index, key, view.page)?;
                    }
                }
            }
            drop(guard);
            missing.clear();
            missing.extend(missed.iter().map(|(_, _, step)| step.page));
            missing.sort_unstable_by_key(|page| page.id);
            missing.dedup();
            pages.prefetch(&missing, Class::Point);
            for (index, key, mut step) in missed {
                let pin = pages.load(step.page, Class::Point)?;
                // The parent is not held on to, so no hint is left beside it.
                if step.descend(pin.page(), None, key)? {
                    steps.push((index, key, step));
                } else {
                    finish(index, key, pin.page())?;
                }
            }
        }
    }
    Ok(())
}

/// How far down a lookup is.
struct Step {
    page: PageRef,
    link: Option<Link>,
    /// The level that `page` must have; the root may have any.
    level: Option<u8>,
}

impl Step {
    fn at(root: PageRef) -> Self {
        Self {
            page: root,
            link: None,
            level: None,
        }
    }

    /// Goes from the branch `page` to the child that covers `key`; false if `page` is a leaf.
    #[inline]
    fn descend(
        &mut self,
        page: Page<'_>,
        frame: Option<u32>,
        key: &[u8],
    ) -> Result<bool, PageError> {
        let level = check_level(page, self.level)?;
        if level == 0 {
            return Ok(false);
        }
        let branch = Branch::view(page)?;
        let index = child_index(&branch, key)?;
        self.page = branch.child(index)?;
        self.level = Some(level - 1);
        let index = u32::try_from(index).ok();
        self.link = frame
            .zip(index)
            .map(|(parent, index)| Link { parent, index });
        Ok(true)
    }
}

/// The level of `page`, which must be `expected`, or a possible one for a root.
#[inline]
pub(super) fn check_level(page: Page<'_>, expected: Option<u8>) -> Result<u8, PageError> {
    let level = page.header().level;
    let limit = expected.unwrap_or(LEVEL_MAX);
    if level > limit || (level != limit && expected.is_some()) {
        return Err(structure(page, "level", level.into(), limit.into()));
    }
    Ok(level)
}

/// Goes down to the leaf for `key` and runs `at_leaf` there, unless `instead` has a result: see [`get_unless`].
#[inline]
fn reach<'p, P: PageRead, R>(
    pages: &'p P,
    root: PageRef,
    key: &[u8],
    instead: impl FnOnce() -> Option<R>,
    at_leaf: impl FnOnce(Held<'_, P::Pin<'p>>) -> Result<R, PageError>,
) -> Result<R, PageError> {
    let mut step = Step::at(root);
    let mut instead = Some(instead);
    let mut ask = move || instead.take().and_then(|instead| instead());
    // Keeps the frame that `step.link` names until the child was looked for.
    let mut parent: Option<P::Pin<'p>> = None;
    loop {
        {
            let guard = pages.enter();
            loop {
                if step.level == Some(0)
                    && let Some(result) = ask()
                {
                    return Ok(result);
                }
                let Some(view) = pages.try_view(&guard, step.page, step.link) else {
                    break;
                };
                match step.descend(view.page, Some(view.frame), key) {
                    Ok(true) => {}
                    // The root is a leaf, or it was asked already.
                    Ok(false) => return ask().map_or_else(|| at_leaf(Held::View(view)), Ok),
                    Err(error) => return ask().ok_or(error),
                }
            }
        }
        if let Some(result) = ask() {
            return Ok(result);
        }
        drop(parent.take());
        let pin = pages.load(step.page, Class::Point)?;
        if !step.descend(pin.page(), pin.frame(), key)? {
            return at_leaf(Held::Pin(pin));
        }
        parent = Some(pin);
    }
}

/// The row with `key`.
#[inline]
fn find<'a>(leaf: &Leaf<'a>, key: &[u8]) -> Result<Option<LeafRow<'a>>, PageError> {
    Ok(match row_index(leaf, key)? {
        Ok(index) => Some(leaf.row(index)?),
        Err(_) => None,
    })
}

/// Index of the row with `key`, or of the first row above it.
#[inline]
pub(crate) fn row_index(leaf: &Leaf<'_>, key: &[u8]) -> Result<Result<usize, usize>, PageError> {
    let suffix = match strip(key, leaf.prefix()) {
        Ok(suffix) => Suffix::of(suffix),
        Err(Ordering::Less) => return Ok(Err(0)),
        Err(_) => return Ok(Err(leaf.count())),
    };
    let heads = leaf.arrays().heads;
    let mut low = simd::count_below(heads, suffix.head);
    let mut high = low + equal_run(heads.get(low..).unwrap_or_default(), suffix.head);
    while low < high {
        let middle = low.midpoint(high);
        match leaf.suffix(middle)?.compare(&suffix) {
            Ordering::Less => low = middle + 1,
            Ordering::Equal => return Ok(Ok(middle)),
            Ordering::Greater => high = middle,
        }
    }
    Ok(Err(low))
}

/// Index of the child that covers `key`.
#[inline]
pub(crate) fn child_index(branch: &Branch<'_>, key: &[u8]) -> Result<usize, PageError> {
    let suffix = match strip(key, branch.prefix()) {
        Ok(suffix) => Suffix::of(suffix),
        Err(Ordering::Less) => return Ok(0),
        Err(_) => return Ok(branch.count() - 1),
    };
    // Separators 1 and following; `low` of them are at or below the key, which makes it the child's index.
    let heads = branch.arrays().heads.get(1..).unwrap_or_default();
    let mut low = simd::count_below(heads, suffix.head);
    let mut high = low + equal_run(heads.get(low..).unwrap_or_default(), suffix.head);
    while low < high {
        let middle = low.midpoint(high);
        if branch.separator(middle + 1)?.compare(&suffix).is_le() {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// How many of the leading heads equal `head`; none is below it.
#[inline]
fn equal_run(heads: &[zerocopy::little_endian::U32], head: u32) -> usize {
    match heads {
        [first, ..] if first.get() != head => 0,
        [_, second, ..] if second.get() == head => simd::count_up_to(heads, head),
        [] => 0,
        _ => 1,
    }
}
