//! Branch pages: the children of a tree node, with the separators between them.
//!
//! ```text
//! 0        64          +4n, to 16   +16n     +2n     +prefix        used_bytes
//! | header | heads u32 | PageRef 16 | slots  | prefix | separators .. | zero
//! separator = varint(suffix_len)  suffix[4..]  varint(rows_below << 1 | has_extents_below)
//! ```
//! Child `i` holds the keys from separator `i` (inclusive) to separator `i + 1`. Child 0 has an empty separator that
//! stands for "everything below", so heads are searched from entry 1 on, and the common prefix is that of separators
//! 1 and following. `txn_max` and `delete_txn_max` in the header bound those of all leaves below from above; rows
//! below a child are exact, so that a subtree can be counted or dropped without reading its leaves. Spec: FF-006.

#![deny(clippy::indexing_slicing)]

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::leaf::stored_key_bytes_max;
use super::node::{
    Arrays, ENTRY_BYTES, HEAD_BYTES, LEVEL_MAX, Suffix, put, put_varint, stored_u16, structure,
    take, take_varint, varint_bytes,
};
use super::page::{HEADER_BYTES, Page, PageError, PageHeader, PageKind};
use crate::ids::{Generation, PageId, PageRef, TableId};

/// Most children of a branch: the cache keeps one frame hint for each. A 16 KiB page fits 680 at most.
pub(crate) const CHILDREN_MAX: usize = 768;

/// A child pointer. Torn by a crash: no, the branch's checksum covers it.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct StoredRef {
    id: U64,
    checksum: U32,
    generation: U32,
}

/// Bytes of a stored child pointer.
const REF_BYTES: usize = size_of::<StoredRef>();
const _: () = assert!(REF_BYTES == 16);
/// Most bytes between the heads and the child pointers, which begin at a multiple of their size.
pub(crate) const PADDING_BYTES_MAX: usize = REF_BYTES - HEAD_BYTES;

/// Bytes of page that one child takes.
#[inline]
pub(crate) const fn child_bytes(suffix_len: usize, below: Below) -> usize {
    ENTRY_BYTES
        + REF_BYTES
        + varint_bytes(suffix_len as u64)
        + suffix_len.saturating_sub(HEAD_BYTES)
        + varint_bytes(below.stored())
}

const fn padding(count: usize) -> usize {
    (count * HEAD_BYTES).next_multiple_of(REF_BYTES) - count * HEAD_BYTES
}

/// What is below a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Below {
    /// Number of rows.
    pub(crate) rows: u64,
    /// Whether any of them may have an overflow extent.
    pub(crate) has_extents: bool,
}

impl Below {
    const fn stored(self) -> u64 {
        self.rows << 1 | self.has_extents as u64
    }
}

/// A view of a branch.
#[derive(Clone, Copy)]
pub(crate) struct Branch<'a> {
    arrays: Arrays<'a>,
    refs: &'a [StoredRef],
}

impl<'a> Branch<'a> {
    /// Looks at a page as a branch.
    ///
    /// # Errors
    /// [`PageError::Kind`], or [`PageError::Structure`] where the arrays leave the page or a branch has no child.
    #[inline]
    pub(crate) fn view(page: Page<'a>) -> Result<Self, PageError> {
        let (arrays, refs) = Arrays::view(page, PageKind::Branch, |count| {
            (padding(count), count * REF_BYTES)
        })?;
        let count = arrays.count();
        match <[StoredRef]>::ref_from_bytes(refs) {
            Ok(refs) if (1..=CHILDREN_MAX).contains(&count) => Ok(Self { arrays, refs }),
            _ => Err(structure(
                page,
                "child count",
                count as u64,
                CHILDREN_MAX as u64,
            )),
        }
    }

    /// The page behind the view.
    pub(crate) fn page(&self) -> Page<'a> {
        self.arrays.page
    }

    /// Number of children, at least one.
    pub(crate) fn count(&self) -> usize {
        self.arrays.count()
    }

    /// What all separators but the first begin with.
    pub(crate) fn prefix(&self) -> &'a [u8] {
        self.arrays.prefix
    }

    /// The heads and what else a search needs.
    pub(crate) fn arrays(&self) -> &Arrays<'a> {
        &self.arrays
    }

    /// How child `index` is named.
    ///
    /// # Errors
    /// [`PageError::Structure`] where there is no such child.
    #[inline]
    pub(crate) fn child(&self, index: usize) -> Result<PageRef, PageError> {
        let stored = self.refs.get(index).ok_or_else(|| self.no_child(index))?;
        Ok(PageRef {
            id: PageId::new(stored.id.get()),
            checksum: stored.checksum.get(),
            generation: Generation::new(stored.generation.get()),
        })
    }

    /// The separator before child `index`, without the prefix. Meaningless for child 0.
    ///
    /// # Errors
    /// [`PageError::Structure`] where the index or the separator leaves the page.
    #[inline]
    pub(crate) fn separator(&self, index: usize) -> Result<Suffix<'a>, PageError> {
        self.decode(index)
            .map(|(suffix, _)| suffix)
            .ok_or_else(|| self.no_child(index))
    }

    /// What is below child `index`.
    ///
    /// # Errors
    /// As [`Self::separator`].
    pub(crate) fn below(&self, index: usize) -> Result<Below, PageError> {
        let decode = || {
            let (_, mut bytes) = self.decode(index)?;
            let stored = take_varint(&mut bytes)?;
            Some(Below {
                rows: stored >> 1,
                has_extents: stored & 1 == 1,
            })
        };
        decode().ok_or_else(|| self.no_child(index))
    }

    /// Replaces `key` by the whole separator before child `index`, which is not 0.
    ///
    /// # Errors
    /// As [`Self::separator`].
    pub(crate) fn separator_into(&self, index: usize, key: &mut Vec<u8>) -> Result<(), PageError> {
        let suffix = self.separator(index)?;
        key.clear();
        key.extend_from_slice(self.prefix());
        suffix.append_to(key);
        Ok(())
    }

    #[inline]
    fn decode(&self, index: usize) -> Option<(Suffix<'a>, &'a [u8])> {
        let (head, mut bytes) = self.arrays.entry(index)?;
        let len = usize::try_from(take_varint(&mut bytes)?).ok()?;
        let rest = take(&mut bytes, len.saturating_sub(HEAD_BYTES))?;
        Some((Suffix { head, len, rest }, bytes))
    }

    #[cold]
    fn no_child(&self, index: usize) -> PageError {
        structure(self.page(), "child", index as u64, self.count() as u64)
    }

    /// Checks everything that a search or a merge relies on.
    ///
    /// # Errors
    /// The first contradiction, as [`PageError::Structure`].
    pub(crate) fn check(&self) -> Result<(), PageError> {
        let page = self.page();
        let level = page.header().level;
        let fault = |what, found, expected| Err(structure(page, what, found, expected));
        if level == 0 || level > LEVEL_MAX {
            return fault("level", u64::from(level), u64::from(LEVEL_MAX));
        }
        let heap_start = self.arrays.heap_start;
        let key_max = stored_key_bytes_max(page.table(), page.bytes().len());
        let mut previous: Option<Suffix<'_>> = None;
        for (index, slot) in self.arrays.slots.iter().enumerate() {
            if usize::from(slot.get()) < heap_start {
                return fault("slot", u64::from(slot.get()), heap_start as u64);
            }
            let suffix = self.separator(index)?;
            self.below(index)?;
            if index == 0 {
                if suffix.len != 0 {
                    return fault("first separator's length", suffix.len as u64, 0);
                }
                continue;
            }
            let len = self.prefix().len() + suffix.len;
            if len == 0 || len > key_max {
                return fault("separator length", len as u64, key_max as u64);
            }
            if !suffix.is_padded() {
                return fault("head", u64::from(suffix.head), 0);
            }
            if previous.is_some_and(|previous| previous.compare(&suffix).is_ge()) {
                return fault("separator order", index as u64, index as u64);
            }
            previous = Some(suffix);
        }
        Ok(())
    }
}

/// What a branch's header says of its children.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BranchFacts {
    /// The table the branch belongs to.
    pub(crate) table: TableId,
    /// Height above the leaves, at least 1.
    pub(crate) level: u8,
    /// Number of children.
    pub(crate) count: usize,
    /// Bound of the leaves' `txn_max`.
    pub(crate) txn_max: u64,
    /// Bound of the leaves' `delete_txn_max`.
    pub(crate) delete_txn_max: u64,
}

/// Lays children out in a page. The caller has made sure, by [`child_bytes`], that they fit.
#[derive(Debug)]
pub(crate) struct BranchWriter<'a> {
    page: &'a mut [u8],
    facts: BranchFacts,
    prefix_len: usize,
    index: usize,
    at: usize,
}

impl<'a> BranchWriter<'a> {
    /// Starts a branch in `page`, whose old content is overwritten.
    pub(crate) fn new(page: &'a mut [u8], facts: BranchFacts, prefix: &[u8]) -> Self {
        let heads_end = HEADER_BYTES + facts.count * HEAD_BYTES;
        let refs = put(
            page,
            heads_end,
            [0; REF_BYTES]
                .get(..padding(facts.count))
                .unwrap_or_default(),
        );
        let at = put(
            page,
            refs + facts.count * (REF_BYTES + size_of::<U16>()),
            prefix,
        );
        Self {
            page,
            facts,
            prefix_len: prefix.len(),
            index: 0,
            at,
        }
    }

    /// Adds the next child; the separator of the first one is not stored.
    pub(crate) fn push(&mut self, separator: &[u8], child: PageRef, below: Below) {
        let suffix = match self.index {
            0 => Suffix::of(&[]),
            _ => Suffix::of(separator.get(self.prefix_len..).unwrap_or_default()),
        };
        let page = &mut *self.page;
        put(
            page,
            HEADER_BYTES + self.index * HEAD_BYTES,
            &suffix.head.to_le_bytes(),
        );
        let refs = HEADER_BYTES + (self.facts.count * HEAD_BYTES).next_multiple_of(REF_BYTES);
        let stored = StoredRef {
            id: child.id.get().into(),
            checksum: child.checksum.into(),
            generation: child.generation.get().into(),
        };
        put(page, refs + self.index * REF_BYTES, stored.as_bytes());
        let slots = refs + self.facts.count * REF_BYTES;
        put(
            page,
            slots + self.index * size_of::<U16>(),
            stored_u16(self.at).as_bytes(),
        );
        let mut at = put_varint(page, self.at, suffix.len as u64);
        at = put(page, at, suffix.rest);
        self.at = put_varint(page, at, below.stored());
        self.index += 1;
    }

    /// Completes the header and zeroes what is left of the page.
    pub(crate) fn finish(self) {
        assert_eq!(
            self.index, self.facts.count,
            "a branch gets as many children as announced"
        );
        let (used, unused) = self.page.split_at_mut(self.at);
        unused.fill(0);
        if let Ok((header, _)) = PageHeader::mut_from_prefix(used) {
            header.as_mut_bytes().fill(0);
            header.kind = PageKind::Branch as u8;
            header.level = self.facts.level;
            header.table = self.facts.table.get().into();
            header.count = stored_u16(self.facts.count);
            header.prefix_bytes = stored_u16(self.prefix_len);
            header.used_bytes = u32::try_from(self.at).unwrap_or(0).into();
            header.txn_max = self.facts.txn_max.into();
            header.delete_txn_max = self.facts.delete_txn_max.into();
        }
    }
}

#[cfg(test)]
mod tests;
