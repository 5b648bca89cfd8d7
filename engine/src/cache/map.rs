//! Page id to frame: an array, in chunks made when first needed. Those of a small file are small, so that opening one takes
//! as little.
//!
//! - Threads: any. An entry may be out of date; whoever uses it checks the id in the frame.
//! - Cost: 4 bytes a page of the file, taken from the system only where touched.

use std::sync::OnceLock;

use zerocopy::FromZeros;

use crate::ids::PageId;
use crate::limits::PAGES_MAX;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Entries of the first two chunks: 16 MiB of data file each at the default page size.
const NEAR_CHUNK: u64 = 1 << 10;
/// Chunks of the near ids: each but the second is as long as all before it together.
const NEAR_CHUNKS: usize = 11;
/// Entries of a chunk of the ids behind: 4 MiB of address space, 16 GiB of data file at the default page size.
const FAR_CHUNK: u64 = NEAR_CHUNK << (NEAR_CHUNKS - 1);

type Chunk = OnceLock<Box<[AtomicU32]>>;

/// The array. Entries are frame + 1; 0 is none.
#[derive(Debug)]
pub(super) struct FrameMap {
    /// Of ids below [`FAR_CHUNK`].
    near: [Chunk; NEAR_CHUNKS],
    /// Of all ids; those below [`FAR_CHUNK`] are not looked for here.
    far: OnceLock<Box<[Chunk]>>,
}

/// `count` zeroed atomics, without touching the memory.
pub(super) fn zeroed(count: usize) -> Box<[AtomicU32]> {
    <[AtomicU32]>::new_box_zeroed_with_elems(count)
        .unwrap_or_else(|_| (0..count).map(|_| AtomicU32::new(0)).collect())
}

/// The near chunk that an id is in, its first id, and its length.
#[inline]
fn near(id: u64) -> (usize, u64, u64) {
    let chunk = u64::BITS - (id / NEAR_CHUNK).leading_zeros();
    let first = ((1 << chunk) >> 1) * NEAR_CHUNK;
    (chunk as usize, first, first.max(NEAR_CHUNK))
}

impl FrameMap {
    pub(super) fn new() -> Self {
        Self {
            near: [const { OnceLock::new() }; NEAR_CHUNKS],
            far: OnceLock::new(),
        }
    }

    fn entry(&self, id: PageId) -> Option<&AtomicU32> {
        let id = id.get();
        if id < FAR_CHUNK {
            let (chunk, first, _) = near(id);
            let chunk = self.near.get(chunk)?.get()?;
            return chunk.get(usize::try_from(id - first).ok()?);
        }
        let chunk = self.far.get()?.get(usize::try_from(id / FAR_CHUNK).ok()?)?;
        chunk.get()?.get(usize::try_from(id % FAR_CHUNK).ok()?)
    }

    fn entry_or_make(&self, id: PageId) -> Option<&AtomicU32> {
        let length = |entries: u64| usize::try_from(entries).unwrap_or(0);
        let id = id.get();
        if id < FAR_CHUNK {
            let (chunk, first, entries) = near(id);
            let chunk = self.near.get(chunk)?;
            let chunk = chunk.get_or_init(|| zeroed(length(entries)));
            return chunk.get(usize::try_from(id - first).ok()?);
        }
        let all = PAGES_MAX.div_ceil(FAR_CHUNK);
        let far = self
            .far
            .get_or_init(|| (0..all).map(|_| OnceLock::new()).collect());
        let chunk = far.get(usize::try_from(id / FAR_CHUNK).ok()?)?;
        let chunk = chunk.get_or_init(|| zeroed(length(FAR_CHUNK)));
        chunk.get(usize::try_from(id % FAR_CHUNK).ok()?)
    }

    /// The frame that may hold the page.
    pub(super) fn get(&self, id: PageId) -> Option<u32> {
        // Relaxed: the id in the frame is checked, with acquire, before the frame is used.
        self.entry(id)?.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Notes where the page is and returns where it was. An id beyond the format's limit is not noted.
    pub(super) fn set(&self, id: PageId, frame: u32) -> Option<u32> {
        // AcqRel: of two threads that bring in the same page, the later sees the earlier one's frame and retires it.
        self.entry_or_make(id)?
            .swap(frame + 1, Ordering::AcqRel)
            .checked_sub(1)
    }

    /// Forgets the page and returns where it was.
    pub(super) fn take(&self, id: PageId) -> Option<u32> {
        let entry = self.entry(id)?;
        if entry.load(Ordering::Relaxed) == 0 {
            return None;
        }
        entry.swap(0, Ordering::AcqRel).checked_sub(1)
    }

    /// Forgets the page if it is in `frame`.
    pub(super) fn clear(&self, id: PageId, frame: u32) {
        if let Some(entry) = self.entry(id) {
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
        let ends = (0..NEAR_CHUNKS).map(|chunk| NEAR_CHUNK << chunk);
        let edges = ends.flat_map(|end| [end - 1, end]);
        let ids: Vec<u64> = [0].into_iter().chain(edges).collect();
        for (frame, id) in (10..).zip(&ids) {
            assert_eq!(map.set(PageId::new(*id), frame), None, "page {id}");
        }
        for (frame, id) in (10..).zip(&ids) {
            assert_eq!(map.get(PageId::new(*id)), Some(frame), "page {id}");
            assert_eq!(map.take(PageId::new(*id)), Some(frame), "page {id}");
        }
        for id in [PAGES_MAX, u64::MAX] {
            assert_eq!(map.set(PageId::new(id), 3), None);
            assert_eq!(map.get(PageId::new(id)), None);
        }
    }
}
