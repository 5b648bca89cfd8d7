//! Many rows at once: leaf by leaf, each row decoded where it lies.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::{Cursor, Place, Way};
use crate::format::leaf::{Leaf, RowValue};
use crate::format::node::{Suffix, strip};
use crate::format::page::PageError;
use crate::ids::TxnId;
use crate::pages::{PagePin, PageRead};

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

    /// Visits those rows from the one under the cursor on that were written at or before `at`, up to the first row at or above
    /// `bound`, until `visit` breaks. The cursor then is before the row that broke, before the first one at or above `bound`, or
    /// behind the last one.
    ///
    /// # Errors
    /// A page that cannot be read or contradicts itself.
    pub(crate) fn scan_below(
        &mut self,
        bound: Option<&[u8]>,
        at: TxnId,
        visit: &mut impl FnMut(&[u8], RowValue<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, PageError> {
        let broke = self.attempt(|cursor| {
            while matches!(cursor.place, Place::On | Place::Before) {
                let mut key = std::mem::take(&mut cursor.key);
                let outcome = cursor.scan_leaf_below(bound, at, &mut key, visit);
                cursor.key = key;
                if let Some(broke) = outcome? {
                    cursor.place = Place::Before;
                    return Ok(broke);
                }
                cursor.step(Way::Forward)?;
            }
            Ok(false)
        })?;
        Ok(match broke {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    }

    /// Says whether `visit` broke; `None` if the leaf ended.
    fn scan_leaf_below(
        &mut self,
        bound: Option<&[u8]>,
        at: TxnId,
        key: &mut Vec<u8>,
        visit: &mut impl FnMut(&[u8], RowValue<'_>) -> ControlFlow<()>,
    ) -> Result<Option<bool>, PageError> {
        let Some(pin) = &self.leaf else {
            return Ok(Some(false));
        };
        let leaf = Leaf::view(pin.page())?;
        let prefix = leaf.prefix();
        let bound = match bound.map(|bound| strip(bound, prefix)) {
            Some(Err(Ordering::Less)) => return Ok(Some(false)),
            Some(Ok(rest)) => Some(Suffix::of(rest)),
            Some(Err(Ordering::Equal | Ordering::Greater)) | None => None,
        };
        key.clear();
        key.extend_from_slice(prefix);
        loop {
            let row = leaf.row(self.index)?;
            if let Some(bound) = &bound
                && row.suffix.compare(bound).is_ge()
            {
                return Ok(Some(false));
            }
            if row.txn <= at {
                key.truncate(prefix.len());
                row.suffix.append_to(key);
                if visit(key, row.value).is_break() {
                    return Ok(Some(true));
                }
            }
            if self.index + 1 >= leaf.count() {
                return Ok(None);
            }
            self.index += 1;
        }
    }
}
