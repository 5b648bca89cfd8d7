//! The free map on disk: which pages of the file are reachable from a generation.
//!
//! A *window* is the stretch of the file that one map page describes, a bit a page. The directory lists the map
//! pages; a window without one is all free. Spec: FF-012, FF-013.

use super::alloc::Bitmap;
use crate::format::page::{HEADER_BYTES, Page, PageError, PageHeader, PageKind};
use crate::ids::{Generation, PageId, PageRef};
use zerocopy::FromBytes;

const REF_BYTES: usize = 16;

/// The free map of the newest durable generation, and where it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Persisted {
    pub(crate) map: Bitmap,
    /// The map page of each window.
    pub(crate) pages: Vec<Option<PageRef>>,
    pub(crate) directory: Option<PageRef>,
}

/// Words of the map in one window.
fn window_words(page_bytes: usize) -> usize {
    (page_bytes - HEADER_BYTES) / 8
}

fn window(map: &Bitmap, index: usize, page_bytes: usize) -> &[u64] {
    let words = window_words(page_bytes);
    let from = (index * words).min(map.words().len());
    let to = (from + words).min(map.words().len());
    let slice = &map.words()[from..to];
    // Trailing zeros say nothing.
    let used = slice
        .iter()
        .rposition(|word| *word != 0)
        .map_or(0, |last| last + 1);
    &slice[..used]
}

/// Windows in which the two maps differ.
pub(crate) fn changed_windows(old: &Bitmap, new: &Bitmap, page_bytes: usize) -> Vec<usize> {
    let words = old.words().len().max(new.words().len());
    (0..words.div_ceil(window_words(page_bytes)))
        .filter(|at| window(old, *at, page_bytes) != window(new, *at, page_bytes))
        .collect()
}

fn begin(kind: PageKind, count: usize, used: usize, page_bytes: usize) -> Vec<u8> {
    let mut page = vec![0; page_bytes];
    if let Ok((header, _)) = PageHeader::mut_from_prefix(&mut page) {
        header.kind = kind as u8;
        header.count = u16::try_from(count).unwrap_or(u16::MAX).into();
        header.used_bytes = u32::try_from(HEADER_BYTES + used)
            .unwrap_or(u32::MAX)
            .into();
    }
    page
}

/// The map page of a window.
pub(crate) fn encode_window(map: &Bitmap, index: usize, page_bytes: usize) -> Vec<u8> {
    let words = window(map, index, page_bytes);
    let mut page = begin(PageKind::FreeMap, words.len(), words.len() * 8, page_bytes);
    for (place, word) in page[HEADER_BYTES..].chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    page
}

/// The words of a map page.
pub(crate) fn decode_window(page: Page<'_>) -> Result<Vec<u64>, PageError> {
    let page = page.expect(PageKind::FreeMap)?;
    let used = page.header().used_bytes.get() as usize;
    let words = page.bytes().get(HEADER_BYTES..used).unwrap_or_default();
    Ok(words
        .as_chunks::<8>()
        .0
        .iter()
        .map(|word| u64::from_le_bytes(*word))
        .collect())
}

/// The directory page; `None` when there are more map pages than it can list.
pub(crate) fn encode_directory(pages: &[Option<PageRef>], page_bytes: usize) -> Option<Vec<u8>> {
    let used = pages.len() * REF_BYTES;
    if used > page_bytes - HEADER_BYTES {
        return None;
    }
    let mut page = begin(PageKind::FreeDirectory, pages.len(), used, page_bytes);
    for (place, entry) in page[HEADER_BYTES..].chunks_exact_mut(REF_BYTES).zip(pages) {
        let entry = entry.unwrap_or_default();
        place[..8].copy_from_slice(&entry.id.get().to_le_bytes());
        place[8..12].copy_from_slice(&entry.checksum.to_le_bytes());
        place[12..].copy_from_slice(&entry.generation.get().to_le_bytes());
    }
    Some(page)
}

/// The map pages that a directory lists.
pub(crate) fn decode_directory(page: Page<'_>) -> Result<Vec<Option<PageRef>>, PageError> {
    let page = page.expect(PageKind::FreeDirectory)?;
    let used = page.header().used_bytes.get() as usize;
    let bytes = page.bytes().get(HEADER_BYTES..used).unwrap_or_default();
    let entries = bytes.as_chunks::<REF_BYTES>().0.iter().map(|entry| {
        let [id @ .., _, _, _, _, _, _, _, _] = *entry;
        let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h] = *entry;
        let id = PageId::new(u64::from_le_bytes(id));
        (id != PageId::default()).then(|| PageRef {
            id,
            checksum: u32::from_le_bytes([a, b, c, d]),
            generation: Generation::new(u32::from_le_bytes([e, f, g, h])),
        })
    });
    Ok(entries.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::alloc::PageRun;

    #[test]
    fn a_map_survives_its_pages() {
        let mut map = Bitmap::default();
        map.fill(PageRun { first: 0, count: 5 }, true);
        map.fill(
            PageRun {
                first: 40_000,
                count: 3,
            },
            true,
        );
        let page_bytes = 4096;
        let windows = changed_windows(&Bitmap::default(), &map, page_bytes);
        assert_eq!(windows, vec![0, 1]);
        let mut words = Vec::new();
        for at in 0..2 {
            let page = encode_window(&map, at, page_bytes);
            words.resize(at * window_words(page_bytes), 0);
            words.extend(decode_window(Page::trusted(&page)).unwrap());
        }
        assert_eq!(Bitmap::from_words(words), map);
        assert!(changed_windows(&map, &map, page_bytes).is_empty());
    }

    #[test]
    fn a_directory_survives_its_page() {
        let entry = PageRef {
            id: PageId::new(9),
            checksum: 7,
            generation: Generation::new(3),
        };
        let pages = vec![Some(entry), None, Some(entry)];
        let page = encode_directory(&pages, 4096).unwrap();
        assert_eq!(decode_directory(Page::trusted(&page)).unwrap(), pages);
        assert!(encode_directory(&vec![None; 1000], 4096).is_none());
    }
}
