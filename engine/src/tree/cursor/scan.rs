//! Many rows at once: leaf by leaf, each row decoded where it lies.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::{Cursor, Place, ROWS_AHEAD, Way, prefetch_row};
use crate::format::few;
use crate::format::leaf::{Leaf, RowValue};
use crate::format::node::{Suffix, strip, structure};
use crate::format::page::PageError;
use crate::ids::TxnId;
use crate::pages::{PagePin, PageRead};

/// Rows from elsewhere that a scan puts between those of a tree.
pub(crate) trait Between {
    /// The key of the next one, or one that it is not below; the key of each is above that of the one before. `None` behind the
    /// last.
    fn key(&self) -> Option<&[u8]>;

    /// There is one of that key.
    fn is_row(&self) -> bool;

    /// Has `visit` see the next one if it is of [`Self::key`]; unless that breaks, goes on. It breaks at `to`, if not before.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    fn visit(
        &mut self,
        to: Option<&[u8]>,
        visit: &mut impl FnMut(&[u8], RowValue<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, PageError>;
}

impl<P: PageRead> Cursor<'_, P> {
    /// Visits the row under the cursor and those after it, until `visit` breaks or the rows end. The cursor then is
    /// on the row that broke, or behind the last one. The fastest way through many rows.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn scan(
        &mut self,
        visit: impl FnMut(&[u8], RowValue<'_>, TxnId) -> ControlFlow<()>,
    ) -> Result<(), PageError> {
        self.scan_way(Way::Forward, visit)
    }

    /// The same from the row under the cursor towards the first one.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    #[cfg(test)]
    pub(crate) fn scan_back(
        &mut self,
        visit: impl FnMut(&[u8], RowValue<'_>, TxnId) -> ControlFlow<()>,
    ) -> Result<(), PageError> {
        self.scan_way(Way::Backward, visit)
    }

    fn scan_way(
        &mut self,
        way: Way,
        mut visit: impl FnMut(&[u8], RowValue<'_>, TxnId) -> ControlFlow<()>,
    ) -> Result<(), PageError> {
        self.attempt(|cursor| {
            while cursor.place == Place::On {
                let mut key = std::mem::take(&mut cursor.key);
                let outcome = cursor.scan_leaf(way, &mut key, &mut visit);
                cursor.key = key;
                if outcome?.is_break() {
                    cursor.settle()?;
                    return Ok(true);
                }
                cursor.step(way)?;
            }
            Ok(false)
        })
        .map(|_| ())
    }

    fn scan_leaf(
        &mut self,
        way: Way,
        key: &mut Vec<u8>,
        visit: &mut impl FnMut(&[u8], RowValue<'_>, TxnId) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, PageError> {
        let Some(pin) = &self.leaf else {
            return Ok(ControlFlow::Break(()));
        };
        let leaf = Leaf::view(pin.page())?;
        let prefix = leaf.prefix();
        key.clear();
        key.extend_from_slice(prefix);
        loop {
            let row = leaf.row(self.index)?;
            key.truncate(prefix.len());
            row.suffix.append_to(key);
            if visit(key, row.value, row.txn).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            match way {
                Way::Forward if self.index + 1 < leaf.count() => self.index += 1,
                Way::Backward if self.index > 0 => self.index -= 1,
                Way::Forward | Way::Backward => return Ok(ControlFlow::Continue(())),
            }
        }
    }

    /// Visits those rows from the one under the cursor on that were written at or before `at`, and those of `others`, in the
    /// order of their keys, until `visit` breaks or both have ended. `visit` breaks at `to`, if not before.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn scan_merging(
        &mut self,
        at: TxnId,
        to: Option<&[u8]>,
        others: &mut impl Between,
        visit: &mut impl FnMut(&[u8], RowValue<'_>) -> ControlFlow<()>,
    ) -> Result<(), PageError> {
        self.attempt(|cursor| {
            while cursor.place == Place::On {
                let mut key = std::mem::take(&mut cursor.key);
                let outcome = cursor.merge_leaf(at, to, others, &mut key, visit);
                cursor.key = key;
                if outcome?.is_break() {
                    return Ok(false);
                }
                cursor.step(Way::Forward)?;
            }
            while others.key().is_some() && others.visit(to, visit)?.is_continue() {}
            Ok(false)
        })
        .map(drop)
    }

    fn merge_leaf(
        &mut self,
        at: TxnId,
        to: Option<&[u8]>,
        others: &mut impl Between,
        key: &mut Vec<u8>,
        visit: &mut impl FnMut(&[u8], RowValue<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, PageError> {
        let Some(pin) = &self.leaf else {
            return Ok(ControlFlow::Break(()));
        };
        let leaf = Leaf::view(pin.page())?;
        let prefix = leaf.prefix();
        key.clear();
        key.extend_from_slice(prefix);
        let front = Front::of(prefix);
        let mut limit = front.limit(others.key());
        let end = front.limit(to);
        for index in self.index..leaf.count() {
            prefetch_row(&leaf, index + ROWS_AHEAD);
            let row = leaf.row(index)?;
            loop {
                match limit.order(&row.suffix) {
                    Ordering::Less => break,
                    Ordering::Equal if row.txn <= at && others.is_row() => {
                        return Err(structure(leaf.page(), "rows of one key", 2, 1));
                    }
                    Ordering::Equal | Ordering::Greater => {}
                }
                if others.visit(to, visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                limit = front.limit(others.key());
            }
            if row.txn <= at {
                key.truncate(prefix.len());
                row.suffix.append_to(key);
                if visit(key, row.value).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            } else if end.order(&row.suffix) != Ordering::Less {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.index = leaf.count().saturating_sub(1);
        Ok(ControlFlow::Continue(()))
    }
}

/// Where a key lies among the rows of a leaf.
enum Limit<'k> {
    /// Before all of them.
    First,
    /// At this suffix.
    At(Suffix<'k>),
    /// Behind all of them, or there is none.
    Last,
}

impl Limit<'_> {
    /// How a row compares with it.
    #[inline]
    fn order(&self, suffix: &Suffix<'_>) -> Ordering {
        match self {
            Self::First => Ordering::Greater,
            Self::At(limit) if suffix.head != limit.head => suffix.head.cmp(&limit.head),
            Self::At(limit) if few::is_same(suffix.rest, limit.rest) => Ordering::Equal,
            Self::At(limit) => suffix.compare(limit),
            Self::Last => Ordering::Less,
        }
    }
}

/// What the keys of a leaf begin with, as a number where that is short: then so is telling whether a key does.
struct Front<'l> {
    prefix: &'l [u8],
    head: u64,
    /// Bits of a key's first eight bytes that are not of the prefix.
    beyond: usize,
}

impl<'l> Front<'l> {
    fn of(prefix: &'l [u8]) -> Self {
        let mut head = [0; 8];
        for (to, from) in head.iter_mut().zip(prefix) {
            *to = *from;
        }
        Self {
            prefix,
            head: u64::from_be_bytes(head),
            beyond: 64 - 8 * prefix.len().min(8),
        }
    }

    /// Where `key` lies among the rows of the leaf.
    #[inline]
    fn limit<'k>(&self, key: Option<&'k [u8]>) -> Limit<'k> {
        let Some(key) = key else {
            return Limit::Last;
        };
        if let 1..=8 = self.prefix.len()
            && let Some(first) = key.first_chunk()
            && (u64::from_be_bytes(*first) ^ self.head) >> self.beyond == 0
            && let Some(rest) = key.get(self.prefix.len()..)
        {
            return Limit::At(Suffix::of(rest));
        }
        match strip(key, self.prefix) {
            Ok(rest) => Limit::At(Suffix::of(rest)),
            Err(Ordering::Less) => Limit::First,
            Err(Ordering::Equal | Ordering::Greater) => Limit::Last,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_limit_lies_where_its_key_does(
            prefix in vec(0..3_u8, 0..12),
            row in vec(0..3_u8, 0..24),
            begins in any::<bool>(),
            key in vec(0..3_u8, 0..24),
        ) {
            let key = match begins {
                true => [&*prefix, &key].concat(),
                false => key,
            };
            let front = Front::of(&prefix);
            let order = front.limit(Some(&key)).order(&Suffix::of(&row));
            prop_assert_eq!(order, [&*prefix, &row].concat().cmp(&key));
            prop_assert_eq!(front.limit(None).order(&Suffix::of(&row)), Ordering::Less);
            let same = front.limit(Some(&[&*prefix, &row].concat())).order(&Suffix::of(&row));
            prop_assert_eq!(same, Ordering::Equal);
        }
    }
}
