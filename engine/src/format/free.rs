//! Which pages are in use, as stored: bitmaps, and the list of the bitmaps.
//!
//! The map of generation `n` has a bit for every page of the file, set exactly for the pages that generation `n`
//! reaches: meta pages, trees, extents, and the pages of the map itself. Spec: FF-012, FF-013.

#![deny(clippy::indexing_slicing)]

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::meta::StoredRef;
use super::page::{HEADER_BYTES, Page, PageError, PageHeader, PageKind};
use crate::ids::PageRef;

/// Bytes of a stored page reference.
const REF_BYTES: usize = size_of::<StoredRef>();

/// Pages that one bitmap page of a file with `page_bytes` covers: a multiple of 64.
pub(crate) fn pages_per_map(page_bytes: usize) -> u64 {
    (page_bytes - HEADER_BYTES) as u64 * 8
}

/// Bitmap pages that one directory page lists.
pub(crate) fn maps_per_directory(page_bytes: usize) -> usize {
    (page_bytes.saturating_sub(HEADER_BYTES) / REF_BYTES).saturating_sub(1)
}

fn begin(page: &mut [u8], kind: PageKind, count: usize, used: usize) {
    page.fill(0);
    let mut header = PageHeader::new_zeroed();
    header.kind = kind as u8;
    header.count = u16::try_from(count).unwrap_or(u16::MAX).into();
    header.used_bytes = U32::new(u32::try_from(used).unwrap_or(u32::MAX));
    if let Some(place) = page.get_mut(..HEADER_BYTES) {
        place.copy_from_slice(header.as_bytes());
    }
}

/// Fills `page` with a bitmap; bit `i` of word `w` is page `64 w + i` of the part covered. Words beyond the end of
/// `words` are zero.
pub(crate) fn encode_map(page: &mut [u8], words: &[u64]) {
    let used = page.len();
    begin(page, PageKind::FreeMap, 1, used);
    let places = page.get_mut(HEADER_BYTES..).unwrap_or_default();
    for (place, word) in places.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

/// The words of a bitmap page.
///
/// # Errors
/// If the page is of another kind.
pub(crate) fn decode_map(page: Page<'_>) -> Result<impl Iterator<Item = u64> + '_, PageError> {
    let bytes = page.expect(PageKind::FreeMap)?.bytes();
    let words = bytes.get(HEADER_BYTES..).unwrap_or_default();
    Ok(words
        .chunks_exact(8)
        .filter_map(|word| Some(U64::read_from_bytes(word).ok()?.get())))
}

/// Fills `page` with a list of bitmap pages and where the list goes on; page id 0 ends it.
pub(crate) fn encode_directory(page: &mut [u8], next: PageRef, maps: &[PageRef]) {
    let used = HEADER_BYTES + (maps.len() + 1) * REF_BYTES;
    debug_assert!(
        used <= page.len(),
        "{} maps in a directory page",
        maps.len()
    );
    begin(page, PageKind::FreeDirectory, maps.len(), used);
    let places = page.get_mut(HEADER_BYTES..).unwrap_or_default();
    let all = std::iter::once(&next).chain(maps);
    for (place, reference) in places.chunks_exact_mut(REF_BYTES).zip(all) {
        place.copy_from_slice(StoredRef::from(*reference).as_bytes());
    }
}

/// Where the list goes on (page id 0: nowhere), and the bitmap pages listed.
///
/// # Errors
/// If the page is of another kind or says it is longer than it is.
pub(crate) fn decode_directory(
    page: Page<'_>,
) -> Result<(PageRef, impl Iterator<Item = PageRef> + '_), PageError> {
    let page = page.expect(PageKind::FreeDirectory)?;
    let bytes = page.bytes();
    let count = usize::from(page.header().count.get());
    let fits = maps_per_directory(bytes.len());
    if count > fits {
        return Err(PageError::Structure {
            page: page.id(),
            what: "bitmaps listed",
            found: count as u64,
            expected: fits as u64,
        });
    }
    let mut refs = bytes
        .get(HEADER_BYTES..)
        .unwrap_or_default()
        .chunks_exact(REF_BYTES)
        .filter_map(|bytes| Some(PageRef::from(StoredRef::read_from_bytes(bytes).ok()?)));
    let next = refs.next().unwrap_or_default();
    Ok((next, refs.take(count)))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use crate::format::page::seal;
    use crate::ids::{Generation, PageId};

    fn sealed(page: &mut [u8]) -> Page<'_> {
        let id = PageId::new(5);
        seal(page, id, Generation::new(1), 9);
        Page::verify_unreferenced(page, id, 9).unwrap()
    }

    #[test]
    fn maps_and_directories_come_back_as_they_were() {
        let mut page = vec![0xff; 4096];
        encode_map(&mut page, &[5, u64::MAX]);
        let words = decode_map(sealed(&mut page)).unwrap().collect::<Vec<_>>();
        assert_eq!(words.len() as u64 * 64, pages_per_map(4096));
        assert_eq!((words[0], words[1], words[2]), (5, u64::MAX, 0));

        let reference = |id| PageRef {
            id: PageId::new(id),
            checksum: 3,
            generation: Generation::new(4),
        };
        let maps = (10..10 + maps_per_directory(4096) as u64).map(reference);
        let maps = maps.collect::<Vec<_>>();
        encode_directory(&mut page, reference(7), &maps);
        let (next, listed) = decode_directory(sealed(&mut page)).unwrap();
        assert_eq!((next, listed.collect::<Vec<_>>()), (reference(7), maps));
        // Fewer than fit, where the page goes on with what is not listed.
        let two = [reference(10), reference(11)];
        encode_directory(&mut page, PageRef::default(), &two);
        page[HEADER_BYTES + 3 * REF_BYTES] = 1;
        let (next, listed) = decode_directory(sealed(&mut page)).unwrap();
        assert_eq!(
            (next, listed.collect::<Vec<_>>()),
            (PageRef::default(), two.into())
        );
        assert_eq!(page[28..32], 112_u32.to_le_bytes());
    }

    #[test]
    fn pages_hold_as_much_as_the_format_says() {
        assert_eq!([4096, 16384].map(pages_per_map), [32_256, 130_560]);
        let sizes = [0, 64, 79, 80, 95, 96, 4096, 16384];
        assert_eq!(sizes.map(maps_per_directory), [0, 0, 0, 0, 0, 1, 251, 1019]);
    }

    #[test]
    fn a_page_of_another_kind_or_an_impossible_count_is_refused() {
        let mut page = vec![0; 4096];
        encode_directory(&mut page, PageRef::default(), &[]);
        assert!(decode_map(sealed(&mut page)).is_err());
        page[24..26].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(decode_directory(sealed(&mut page)).is_err());
        let fits = u16::try_from(maps_per_directory(4096)).unwrap();
        page[24..26].copy_from_slice(&fits.to_le_bytes());
        assert!(decode_directory(sealed(&mut page)).is_ok());
        page[24..26].copy_from_slice(&(fits + 1).to_le_bytes());
        assert!(decode_directory(sealed(&mut page)).is_err());
        encode_map(&mut page, &[1]);
        assert!(decode_directory(sealed(&mut page)).is_err());
        encode_directory(&mut page, PageRef::default(), &[]);
        page[24..26].copy_from_slice(&1_u16.to_le_bytes());
        // Too short for what every directory begins with.
        page.truncate(HEADER_BYTES + 3);
        page[28..32].copy_from_slice(&64_u32.to_le_bytes());
        assert!(decode_directory(sealed(&mut page)).is_err());
    }
}
