//! Key ranges, and the iterator over one.

use std::ops::{Bound, RangeBounds};

use crate::error::Result;
use crate::limits;
use crate::txn::cursor::Cursor as SnapshotCursor;
use crate::txn::table::check_len;

/// A range of keys as `from <= key < to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Span {
    /// No key at all: the range's start is not below its end.
    Empty,
    /// `to` absent: up to the last key.
    Keys {
        /// First key of the range.
        from: Vec<u8>,
        /// First key after the range.
        to: Option<Vec<u8>>,
    },
}

/// Turns any Rust range into a [`Span`].
///
/// # Errors
/// [`crate::Error::TooLarge`] for a bound longer than any key.
pub(crate) fn span<B: AsRef<[u8]>>(range: &impl RangeBounds<B>) -> Result<Span> {
    let after = |key: &[u8]| [key, &[0]].concat();
    let check = |key: &[u8]| check_len("range bound", key.len(), limits::KEY_BYTES_MAX);
    let from = match range.start_bound() {
        Bound::Unbounded => Vec::new(),
        Bound::Included(key) => {
            check(key.as_ref())?;
            key.as_ref().to_vec()
        }
        Bound::Excluded(key) => {
            check(key.as_ref())?;
            after(key.as_ref())
        }
    };
    let to = match range.end_bound() {
        Bound::Unbounded => None,
        Bound::Excluded(key) => {
            check(key.as_ref())?;
            Some(key.as_ref().to_vec())
        }
        Bound::Included(key) => {
            check(key.as_ref())?;
            Some(after(key.as_ref()))
        }
    };
    if to.as_ref().is_some_and(|to| *to <= from) {
        return Ok(Span::Empty);
    }
    Ok(Span::Keys { from, to })
}

/// The keys that begin with `prefix`.
///
/// # Errors
/// [`crate::Error::TooLarge`] for a prefix longer than any key.
pub(crate) fn prefix_span(prefix: &[u8]) -> Result<Span> {
    check_len("prefix", prefix.len(), limits::KEY_BYTES_MAX)?;
    let mut to = prefix.to_vec();
    while to.last() == Some(&u8::MAX) {
        to.pop();
    }
    let to = to.pop().map(|last| {
        to.push(last + 1);
        to
    });
    Ok(Span::Keys {
        from: prefix.to_vec(),
        to,
    })
}

/// Key and value of one row, copied out.
pub type Row = (Vec<u8>, Vec<u8>);

/// Rows of a range in key order, from both ends.
///
/// Fused. After an error the iterator is at its end.
#[derive(Debug)]
pub struct Range<'t> {
    span: Span,
    /// Made when first needed: most ranges are read from one end only.
    front: Option<SnapshotCursor<'t>>,
    back: Option<SnapshotCursor<'t>>,
    make: Maker<'t>,
}

type Maker<'t> = (&'t crate::txn::snapshot::Snapshot, crate::ids::TableId);

impl<'t> Range<'t> {
    pub(crate) fn new(
        snapshot: &'t crate::txn::snapshot::Snapshot,
        table: crate::ids::TableId,
        span: Span,
    ) -> Self {
        Self {
            span,
            front: None,
            back: None,
            make: (snapshot, table),
        }
    }

    fn step_front(&mut self) -> Result<Option<Row>> {
        let Span::Keys { from, to } = &mut self.span else {
            return Ok(None);
        };
        let found = match &mut self.front {
            Some(cursor) => cursor.next()?,
            none => {
                let cursor = none.insert(SnapshotCursor::new(self.make.0, self.make.1));
                cursor.within(from, to.as_deref());
                cursor.seek(from)?
            }
        };
        let Some((key, value)) = found else {
            return Ok(None);
        };
        if to.as_ref().is_some_and(|to| key >= to.as_slice()) {
            return Ok(None);
        }
        if self.back.is_some() {
            // The back must not yield this row again: the range now starts behind it.
            from.clear();
            from.extend_from_slice(key);
            from.push(0);
        }
        Ok(Some((key.to_vec(), value.to_vec())))
    }

    fn step_back(&mut self) -> Result<Option<Row>> {
        let Span::Keys { from, to } = &mut self.span else {
            return Ok(None);
        };
        if let Some(front) = &self.front
            && self.back.is_none()
            && let Some(seen) = front.key()
        {
            from.clear();
            from.extend_from_slice(seen);
            from.push(0);
        }
        let found = match &mut self.back {
            Some(cursor) => cursor.prev()?,
            none => {
                let cursor = none.insert(SnapshotCursor::new(self.make.0, self.make.1));
                cursor.within(from, to.as_deref());
                cursor.seek_before(to.as_deref())?
            }
        };
        let Some((key, value)) = found else {
            return Ok(None);
        };
        if key < from.as_slice() {
            return Ok(None);
        }
        let row = (key.to_vec(), value.to_vec());
        *to = Some(row.0.clone());
        Ok(Some(row))
    }

    fn settle(&mut self, step: Result<Option<Row>>) -> Option<Result<Row>> {
        if !matches!(step, Ok(Some(_))) {
            self.span = Span::Empty;
        }
        step.transpose()
    }
}

impl Iterator for Range<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step_front();
        self.settle(step)
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let step = self.step_back();
        self.settle(step)
    }
}

impl std::iter::FusedIterator for Range<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(from: &[u8], to: Option<&[u8]>) -> Span {
        Span::Keys {
            from: from.to_vec(),
            to: to.map(<[u8]>::to_vec),
        }
    }

    #[test]
    fn every_kind_of_bound_becomes_a_half_open_span() {
        assert_eq!(span::<&[u8]>(&..).unwrap(), keys(b"", None));
        assert_eq!(span(&("b".."d")).unwrap(), keys(b"b", Some(b"d")));
        assert_eq!(span(&("b"..="d")).unwrap(), keys(b"b", Some(b"d\0")));
        assert_eq!(
            span::<&str>(&(Bound::Excluded("b"), Bound::Unbounded)).unwrap(),
            keys(b"b\0", None)
        );
    }

    #[test]
    fn a_range_whose_start_is_above_its_end_is_empty_not_everything() {
        assert_eq!(span(&("d".."b")).unwrap(), Span::Empty);
        assert_eq!(span(&("b".."b")).unwrap(), Span::Empty);
    }

    #[test]
    fn a_prefix_of_high_bytes_reaches_to_the_end() {
        assert_eq!(prefix_span(b"a\xff").unwrap(), keys(b"a\xff", Some(b"b")));
        assert_eq!(prefix_span(b"\xff\xff").unwrap(), keys(b"\xff\xff", None));
        assert_eq!(prefix_span(b"").unwrap(), keys(b"", None));
    }
}
