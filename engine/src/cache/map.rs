//! Page id to frame: an array, in chunks made when first needed.
//!
//! - Threads: any. An entry may be out of date; whoever uses it checks the id in the frame.
//! - Cost: 4 bytes a page of the file, taken from the system only where touched.

use std::sync::OnceLock;

use zerocopy::FromZeros;

use crate::ids::PageId;
use crate::limits::PAGES_MAX;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Entries of a chunk: 4 MiB of address space, 16 GiB of data file at the default page size.
const CHUNK: u64 = 1 << 20;

/// The array. Entries are frame + 1; 0 is none.
#[derive(Debug)]
pub(super) struct FrameMap {
    chunks: Box<[OnceLock<Box<[AtomicU32]>>]>,
}

/// `count` zeroed atomics, without touching the memory.
pub(super) fn zeroed(count: usize) -> Box<[AtomicU32]> {
    <[AtomicU32]>::new_box_zeroed_with_elems(count)
        .unwrap_or_else(|_| (0..count).map(|_| AtomicU32::new(0)).collect())
}

impl FrameMap {
    pub(super) fn new() -> Self {
        Self {
            chunks: (0..PAGES_MAX.div_ceil(CHUNK))
                .map(|_| OnceLock::new())
                .collect(),
        }
    }

    fn place(&self, id: PageId) -> Option<(&OnceLock<Box<[AtomicU32]>>, usize)> {
        let chunk = self.chunks.get(usize::try_from(id.get() / CHUNK).ok()?)?;
        Some((chunk, usize::try_from(id.get() % CHUNK).ok()?))
    }

    /// The frame that may hold the page.
    pub(super) fn get(&self, id: PageId) -> Option<u32> {
        let (chunk, index) = self.place(id)?;
        // Relaxed: the id in the frame is checked, with acquire, before the frame is used.
        chunk
            .get()?
            .get(index)?
            .load(Ordering::Relaxed)
            .checked_sub(1)
    }

    /// Notes where the page is and returns where it was. An id beyond the format's limit is not noted.
    pub(super) fn set(&self, id: PageId, frame: u32) -> Option<u32> {
        let (chunk, index) = self.place(id)?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "2^20 on every supported target"
        )]
        let chunk = chunk.get_or_init(|| zeroed(CHUNK as usize));
        // AcqRel: of two threads that bring in the same page, the later sees the earlier one's frame and retires it.
        chunk
            .get(index)?
            .swap(frame + 1, Ordering::AcqRel)
            .checked_sub(1)
    }

    /// Forgets the page and returns where it was.
    pub(super) fn take(&self, id: PageId) -> Option<u32> {
        let (chunk, index) = self.place(id)?;
        let entry = chunk.get()?.get(index)?;
        if entry.load(Ordering::Relaxed) == 0 {
            return None;
        }
        entry.swap(0, Ordering::AcqRel).checked_sub(1)
    }

    /// Forgets the page if it is in `frame`.
    pub(super) fn clear(&self, id: PageId, frame: u32) {
        if let Some((chunk, index)) = self.place(id)
            && let Some(entry) = chunk.get().and_then(|chunk| chunk.get(index))
        {
            let _moved_since =
                entry.compare_exchange(frame + 1, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_set_replaced_and_cleared_and_far_ids_are_harmless() {
        let map = FrameMap::new();
        let page = PageId::new(PAGES_MAX - 1);
        assert_eq!(map.get(page), None);
        assert_eq!(map.set(page, 0), None);
        assert_eq!(map.set(page, 9), Some(0));
        map.clear(page, 0);
        assert_eq!(map.get(page), Some(9));
        map.clear(page, 9);
        assert_eq!(map.take(page), None);
        for id in [PAGES_MAX, u64::MAX] {
            assert_eq!(map.set(PageId::new(id), 3), None);
            assert_eq!(map.get(PageId::new(id)), None);
        }
    }
}
