//! Leaf pages: the rows of a table, in key order.
//!
//! ```text
//! 0        64          64+4n      64+6n    +prefix                used_bytes
//! | header | heads u32 | slots u16 | prefix | rows ............... | zero
//! row = varint(suffix_len << 1 | is_extent)  [varint(value_len)]  txn - txn_min  suffix[4..]  value | ExtentRef
//! ```
//! The txn offset of a row has a fixed width within a leaf, given by `txn_max - txn_min` and at least three bytes:
//! an update of a row never grows a full leaf until sixteen million transactions lie between its rows.
//! A row costs 6 bytes of arrays and 5 bytes of lengths and txn beyond its key suffix and value. Spec: FF-005.

#![deny(clippy::indexing_slicing)]

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, IntoBytes};

use super::node::{
    Arrays, ENTRY_BYTES, HEAD_BYTES, Suffix, put, put_varint, stored_u16, structure, take,
    take_varint, varint_bytes,
};
use super::overflow::{EXTENT_REF_BYTES, ExtentRef};
use super::page::{HEADER_BYTES, Page, PageError, PageHeader, PageKind};
use crate::ids::{TableId, TxnId};
use crate::limits::KEY_BYTES_MAX;

/// Fewest bytes a row's txn offset takes; see the module's text.
const TXN_BYTES_MIN: usize = 3;

/// Longest key in pages of `page_bytes`: a page must hold a key and a value of a quarter page each.
pub(crate) const fn key_bytes_max(page_bytes: usize) -> usize {
    if page_bytes / 4 < KEY_BYTES_MAX {
        page_bytes / 4
    } else {
        KEY_BYTES_MAX
    }
}

/// Longest key of a row of `table` as it is stored: history has longer ones. Spec: FF-023.
pub(crate) const fn stored_key_bytes_max(table: TableId, page_bytes: usize) -> usize {
    let own = key_bytes_max(page_bytes);
    if table.get() == TableId::HISTORY.get() {
        own + own / 2 + HISTORY_KEY_BYTES
    } else {
        own
    }
}

/// Bytes of a key of history beyond one and a half times those of the key that it is of.
const HISTORY_KEY_BYTES: usize = 16;

/// Longest value that a leaf of `page_bytes` holds itself; longer ones live in an extent.
pub(crate) const fn inline_bytes_max(page_bytes: usize) -> usize {
    page_bytes / 4
}

/// A row's value, or where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowValue<'a> {
    /// The value itself.
    Inline(&'a [u8]),
    /// The value lives in pages of its own.
    Extent(ExtentRef),
}

/// One row of a leaf.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeafRow<'a> {
    /// The key without the leaf's prefix.
    pub(crate) suffix: Suffix<'a>,
    /// The transaction that wrote the row.
    pub(crate) txn: TxnId,
    /// The value.
    pub(crate) value: RowValue<'a>,
}

/// A view of a leaf.
#[derive(Clone, Copy)]
pub(crate) struct Leaf<'a> {
    arrays: Arrays<'a>,
    txn_min: u64,
    txn_bytes: usize,
}

/// Bytes of a txn offset in a leaf whose rows span `span` transactions.
pub(crate) const fn txn_bytes(span: u64) -> usize {
    let bits = 64 - span.leading_zeros() as usize;
    let bytes = bits.div_ceil(8);
    if bytes < TXN_BYTES_MIN {
        TXN_BYTES_MIN
    } else {
        bytes
    }
}

/// Bytes of page that one row takes.
#[inline]
pub(crate) const fn row_bytes(
    suffix_len: usize,
    value_len: usize,
    is_extent: bool,
    txn_bytes: usize,
) -> usize {
    let value = if is_extent {
        EXTENT_REF_BYTES
    } else {
        varint_bytes(value_len as u64) + value_len
    };
    ENTRY_BYTES
        + varint_bytes((suffix_len as u64) << 1)
        + txn_bytes
        + suffix_len.saturating_sub(HEAD_BYTES)
        + value
}

impl<'a> Leaf<'a> {
    /// Looks at a page as a leaf.
    ///
    /// # Errors
    /// [`PageError::Kind`], or [`PageError::Structure`] where the arrays leave the page.
    #[inline]
    pub(crate) fn view(page: Page<'a>) -> Result<Self, PageError> {
        let (arrays, _) = Arrays::view(page, PageKind::Leaf, |_| (0, 0))?;
        let header = page.header();
        let txn_min = header.txn_min.get();
        Ok(Self {
            arrays,
            txn_min,
            txn_bytes: txn_bytes(header.txn_max.get().saturating_sub(txn_min)),
        })
    }

    /// The page behind the view.
    pub(crate) fn page(&self) -> Page<'a> {
        self.arrays.page
    }

    /// Number of rows.
    pub(crate) fn count(&self) -> usize {
        self.arrays.count()
    }

    /// What all keys begin with.
    pub(crate) fn prefix(&self) -> &'a [u8] {
        self.arrays.prefix
    }

    /// The heads and what else a search needs.
    pub(crate) fn arrays(&self) -> &Arrays<'a> {
        &self.arrays
    }

    /// Row `index`.
    ///
    /// # Errors
    /// [`PageError::Structure`] where the index or the row leaves the page.
    #[inline(always)]
    pub(crate) fn row(&self, index: usize) -> Result<LeafRow<'a>, PageError> {
        self.decode(index)
            .ok_or_else(|| structure(self.page(), "row", index as u64, self.count() as u64))
    }

    /// The key of row `index`, without the prefix.
    ///
    /// # Errors
    /// As [`Self::row`].
    #[inline]
    pub(crate) fn suffix(&self, index: usize) -> Result<Suffix<'a>, PageError> {
        self.row(index).map(|row| row.suffix)
    }

    #[inline(always)]
    fn decode(&self, index: usize) -> Option<LeafRow<'a>> {
        let (head, mut bytes) = self.arrays.entry(index)?;
        let lead = take_varint(&mut bytes)?;
        let len = usize::try_from(lead >> 1).ok()?;
        let is_extent = lead & 1 == 1;
        let value_len = if is_extent {
            0
        } else {
            usize::try_from(take_varint(&mut bytes)?).ok()?
        };
        let txn = self
            .txn_min
            .checked_add(take_uint(&mut bytes, self.txn_bytes)?)?;
        let rest = take(&mut bytes, len.saturating_sub(HEAD_BYTES))?;
        let value = if is_extent {
            RowValue::Extent(ExtentRef::decode(bytes)?)
        } else {
            RowValue::Inline(bytes.get(..value_len)?)
        };
        Some(LeafRow {
            suffix: Suffix { head, len, rest },
            txn: TxnId::new(txn),
            value,
        })
    }

    /// Checks everything that a search or a scan relies on.
    ///
    /// # Errors
    /// The first contradiction, as [`PageError::Structure`].
    pub(crate) fn check(&self) -> Result<(), PageError> {
        let page = self.page();
        let header = page.header();
        let fault = |what, found, expected| Err(structure(page, what, found, expected));
        if header.level != 0 {
            return fault("level", u64::from(header.level), 0);
        }
        if self.count() == 0 {
            return fault("row count", 0, 1);
        }
        let heap_start = self.arrays.heap_start;
        let page_bytes = page.bytes().len();
        let key_max = stored_key_bytes_max(page.table(), page_bytes);
        let value_max = inline_bytes_max(page_bytes);
        let mut previous: Option<Suffix<'_>> = None;
        for (index, slot) in self.arrays.slots.iter().enumerate() {
            if usize::from(slot.get()) < heap_start {
                return fault("slot", u64::from(slot.get()), heap_start as u64);
            }
            let row = self.row(index)?;
            let key_len = self.prefix().len() + row.suffix.len;
            if key_len > key_max {
                return fault("key length", key_len as u64, key_max as u64);
            }
            if let RowValue::Inline(value) = row.value
                && value.len() > value_max
            {
                return fault("inline value length", value.len() as u64, value_max as u64);
            }
            if !row.suffix.is_padded() {
                return fault("head", u64::from(row.suffix.head), 0);
            }
            if row.txn.get() > header.txn_max.get() {
                return fault("row txn", row.txn.get(), header.txn_max.get());
            }
            if previous.is_some_and(|previous| previous.compare(&row.suffix).is_ge()) {
                return fault("row order", index as u64, index as u64);
            }
            previous = Some(row.suffix);
        }
        Ok(())
    }
}

/// Takes a little-endian number of `width` bytes, at most 8.
#[inline]
fn take_uint(bytes: &mut &[u8], width: usize) -> Option<u64> {
    if let Some(eight) = bytes.first_chunk::<8>() {
        let value = u64::from_le_bytes(*eight);
        take(bytes, width)?;
        return Some(value & (u64::MAX >> (64 - 8 * width)));
    }
    let few = take(bytes, width)?;
    Some(
        few.iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)),
    )
}

/// What a leaf's header says of its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeafFacts {
    /// The table the leaf belongs to.
    pub(crate) table: TableId,
    /// Number of rows.
    pub(crate) count: usize,
    /// Lowest txn of any row.
    pub(crate) txn_min: u64,
    /// Highest txn of any row.
    pub(crate) txn_max: u64,
    /// Highest txn of a delete seen.
    pub(crate) delete_txn_max: u64,
}

/// Lays rows out in a page. The caller has made sure, by [`row_bytes`], that they fit.
#[derive(Debug)]
pub(crate) struct LeafWriter<'a> {
    page: &'a mut [u8],
    facts: LeafFacts,
    txn_bytes: usize,
    prefix_len: usize,
    index: usize,
    at: usize,
}

impl<'a> LeafWriter<'a> {
    /// Starts a leaf in `page`, whose old content is overwritten.
    pub(crate) fn new(page: &'a mut [u8], facts: LeafFacts, prefix: &[u8]) -> Self {
        let at = put(page, HEADER_BYTES + facts.count * ENTRY_BYTES, prefix);
        Self {
            page,
            facts,
            txn_bytes: txn_bytes(facts.txn_max - facts.txn_min),
            prefix_len: prefix.len(),
            index: 0,
            at,
        }
    }

    /// Adds the next row; `tail` is its inline value, or its encoded [`ExtentRef`].
    #[inline]
    pub(crate) fn push(&mut self, key: &[u8], txn: u64, tail: &[u8], is_extent: bool) {
        let suffix = Suffix::of(key.get(self.prefix_len..).unwrap_or_default());
        let page = &mut *self.page;
        put(
            page,
            HEADER_BYTES + self.index * HEAD_BYTES,
            &suffix.head.to_le_bytes(),
        );
        let slots = HEADER_BYTES + self.facts.count * HEAD_BYTES;
        put(
            page,
            slots + self.index * size_of::<U16>(),
            stored_u16(self.at).as_bytes(),
        );
        let mut at = put_varint(
            page,
            self.at,
            (suffix.len as u64) << 1 | u64::from(is_extent),
        );
        if !is_extent {
            at = put_varint(page, at, tail.len() as u64);
        }
        let offset = (txn - self.facts.txn_min).to_le_bytes();
        at = put(page, at, offset.get(..self.txn_bytes).unwrap_or_default());
        at = put(page, at, suffix.rest);
        self.at = put(page, at, tail);
        self.index += 1;
    }

    /// Completes the header and zeroes what is left of the page.
    pub(crate) fn finish(self) {
        assert_eq!(
            self.index, self.facts.count,
            "a leaf gets as many rows as announced"
        );
        let (used, unused) = self.page.split_at_mut(self.at);
        unused.fill(0);
        if let Ok((header, _)) = PageHeader::mut_from_prefix(used) {
            header.as_mut_bytes().fill(0);
            header.kind = PageKind::Leaf as u8;
            header.table = self.facts.table.get().into();
            header.count = stored_u16(self.facts.count);
            header.prefix_bytes = stored_u16(self.prefix_len);
            header.used_bytes = u32::try_from(self.at).unwrap_or(0).into();
            header.txn_min = self.facts.txn_min.into();
            header.txn_max = self.facts.txn_max.into();
            header.delete_txn_max = self.facts.delete_txn_max.into();
        }
    }
}

#[cfg(test)]
mod tests;
