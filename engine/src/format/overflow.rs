//! Overflow extents: values too large for a leaf, as a run of neighbouring pages.
//!
//! Every page of an extent is an ordinary page: 64 B header, then payload; all but the last are full. The leaf row
//! holds an [`ExtentRef`]; its checksum covers the pages' checksums in order, so that a page from an older life of
//! the same address is noticed although each page is sound in itself. Spec: FF-007.

#![deny(clippy::indexing_slicing)]

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::crc32c;
use super::node::{put, structure};
use super::page::{HEADER_BYTES, Page, PageError, PageHeader, PageKind};
use crate::ids::{Generation, PageId, PageRef, TableId};

/// How a leaf row names a value that lives in pages of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExtentRef {
    /// The first page; the others follow it on disk.
    pub(crate) first: PageId,
    /// Bytes of the value.
    pub(crate) value_len: u32,
    /// The checkpoint that wrote the pages.
    pub(crate) generation: Generation,
    /// CRC-32C over the little-endian checksums of the pages, in order.
    pub(crate) checksum: u32,
}

/// [`ExtentRef`] as stored in a row. Torn by a crash: no, the leaf's checksum covers it.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct StoredExtent {
    first: U64,
    value_len: U32,
    generation: U32,
    checksum: U32,
}

const _: () = assert!(size_of::<StoredExtent>() == 20);

/// Bytes that an [`ExtentRef`] takes in a row.
pub(crate) const EXTENT_REF_BYTES: usize = size_of::<StoredExtent>();

impl ExtentRef {
    /// Reads the stored form; `None` where it is cut off.
    #[inline]
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (stored, _) = StoredExtent::ref_from_prefix(bytes).ok()?;
        Some(Self {
            first: PageId::new(stored.first.get()),
            value_len: stored.value_len.get(),
            generation: Generation::new(stored.generation.get()),
            checksum: stored.checksum.get(),
        })
    }

    /// The stored form.
    pub(crate) fn encode(&self) -> [u8; EXTENT_REF_BYTES] {
        zerocopy::transmute!(StoredExtent {
            first: self.first.get().into(),
            value_len: self.value_len.into(),
            generation: self.generation.get().into(),
            checksum: self.checksum.into(),
        })
    }

    /// Number of pages of the extent.
    pub(crate) fn page_count(&self, page_bytes: usize) -> u32 {
        let pages = (self.value_len as usize).div_ceil(payload_bytes(page_bytes));
        u32::try_from(pages).unwrap_or(u32::MAX)
    }

    /// Names an extent after its pages were written.
    pub(crate) fn of(pages: &[PageRef], value_len: usize) -> Option<Self> {
        let first = pages.first()?;
        let mut checksum = ExtentChecksum::default();
        for (index, page) in pages.iter().enumerate() {
            if page.id.get() != first.id.get() + index as u64 || page.generation != first.generation
            {
                return None;
            }
            checksum.add(page.checksum);
        }
        Some(Self {
            first: first.id,
            value_len: u32::try_from(value_len).ok()?,
            generation: first.generation,
            checksum: checksum.finish(),
        })
    }
}

/// Collects the checksums of an extent's pages.
#[derive(Debug, Default)]
pub(crate) struct ExtentChecksum(Vec<u8>);

impl ExtentChecksum {
    /// Takes the next page's checksum.
    pub(crate) fn add(&mut self, checksum: u32) {
        self.0.extend_from_slice(&checksum.to_le_bytes());
    }

    /// The checksum over all of them.
    pub(crate) fn finish(&self) -> u32 {
        crc32c(&self.0)
    }
}

/// Bytes of value that one overflow page holds.
pub(crate) const fn payload_bytes(page_bytes: usize) -> usize {
    page_bytes - HEADER_BYTES
}

/// Lays `value` out in pages, ready to be sealed.
pub(crate) fn encode(value: &[u8], table: TableId, page_bytes: usize) -> Vec<Box<[u8]>> {
    let encode_page = |payload: &[u8]| {
        let mut page = vec![0; page_bytes].into_boxed_slice();
        if let Ok((header, _)) = PageHeader::mut_from_prefix(&mut page) {
            header.kind = PageKind::Overflow as u8;
            header.table = table.get().into();
            header.count = 1.into();
            header.used_bytes = u32::try_from(HEADER_BYTES + payload.len())
                .unwrap_or(0)
                .into();
        }
        put(&mut page, HEADER_BYTES, payload);
        page
    };
    value
        .chunks(payload_bytes(page_bytes))
        .map(encode_page)
        .collect()
}

/// The part of a value that an overflow page holds.
///
/// # Errors
/// [`PageError::Kind`], [`PageError::Structure`] where the header contradicts the page.
pub(crate) fn payload(page: Page<'_>) -> Result<&[u8], PageError> {
    let page = page.expect(PageKind::Overflow)?;
    let used = page.header().used_bytes.get() as usize;
    let bytes = page.bytes();
    bytes
        .get(HEADER_BYTES..used)
        .ok_or_else(|| structure(page, "bytes in use", used as u64, bytes.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::page::seal;

    fn page(id: u64, checksum: u32, generation: u32) -> PageRef {
        PageRef {
            id: PageId::new(id),
            checksum,
            generation: Generation::new(generation),
        }
    }

    #[test]
    fn an_extent_is_named_after_neighbours_of_one_generation_only() {
        let pages = [page(7, 1, 3), page(8, 2, 3), page(9, 3, 3)];
        let named = ExtentRef::of(&pages, 9000).unwrap();
        let mut checksum = ExtentChecksum::default();
        [1, 2, 3].into_iter().for_each(|sum| checksum.add(sum));
        let expected = ExtentRef {
            first: PageId::new(7),
            value_len: 9000,
            generation: Generation::new(3),
            checksum: crc32c(&[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]),
        };
        assert_eq!((named, checksum.finish()), (expected, expected.checksum));
        assert_eq!(ExtentRef::decode(&named.encode()), Some(named));
        assert_eq!(ExtentRef::decode(&named.encode()[1..]), None);
        assert_eq!(ExtentRef::of(&[], 0), None);
        assert_eq!(ExtentRef::of(&[page(7, 1, 3), page(9, 2, 3)], 5000), None);
        assert_eq!(ExtentRef::of(&[page(7, 1, 3), page(8, 2, 4)], 5000), None);
        assert_eq!(ExtentRef::of(&pages, usize::MAX), None);
    }

    #[test]
    fn a_value_is_cut_into_full_pages_and_comes_back() {
        let payload_len = payload_bytes(4096);
        assert_eq!(payload_len, 4032);
        for len in [1, payload_len, payload_len + 1, 3 * payload_len, 10_000] {
            let value: Vec<u8> = (0..=250).cycle().take(len).collect();
            let extent = ExtentRef {
                first: PageId::new(7),
                value_len: u32::try_from(len).unwrap(),
                generation: Generation::new(3),
                checksum: 0,
            };
            let pages = encode(&value, TableId::new(17), 4096);
            assert_eq!(extent.page_count(4096) as usize, pages.len());
            let mut back = Vec::new();
            for mut page in pages {
                seal(&mut page, PageId::new(7), Generation::new(3), 77);
                let page = Page::verify_unreferenced(&page, PageId::new(7), 77).unwrap();
                assert_eq!(
                    (page.table(), page.header().count.get()),
                    (TableId::new(17), 1)
                );
                back.extend_from_slice(payload(page).unwrap());
            }
            assert_eq!(back, value);
        }
    }
}
