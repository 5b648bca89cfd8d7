//! The stored map of free space: loaded when the store opens, written anew where it changed by every generation.
//!
//! The map is copied on write like a tree, and is part of what it describes: the pages it will take are given out,
//! and those it had are retired, before its bits are written down.

use super::alloc::{Space, Span, used};
use crate::cache::{Cache, Class};
use crate::format::free::{
    decode_directory, decode_map, encode_directory, encode_map, maps_per_directory, pages_per_map,
};
use crate::format::meta::COPIES;
use crate::format::page::{Page, PageError};
use crate::ids::{PageId, PageRef};
use crate::limits::PAGES_MAX;

/// The pages of the map.
#[derive(Debug, Clone, Default)]
pub(super) struct StoredMap {
    /// Bitmaps, by the part of the file they cover.
    pub(super) maps: Vec<PageRef>,
    /// The chain that lists them.
    pub(super) directory: Vec<PageRef>,
}

/// Where the next version of the map goes.
#[derive(Debug)]
pub(super) struct Plan {
    /// For every bitmap, its new place, or none if it stays as it is.
    fresh: Vec<Option<PageId>>,
    directory: Vec<PageId>,
}

/// Seals a page for its place and takes it for writing.
type WritePage<'a> = dyn FnMut(PageId, &mut [u8]) -> Result<PageRef, PageError> + 'a;

fn structure(page: PageId, what: &'static str, found: u64, expected: u64) -> PageError {
    PageError::Structure {
        page,
        what,
        found,
        expected,
    }
}

/// Whether no page from `pages` on is marked.
///
/// # Errors
/// The last one that is.
pub(super) fn ends_by(words: &[u64], pages: u64) -> Result<(), PageError> {
    match used(words) {
        Some(end) if end > pages => Err(PageError::OutOfRange {
            page: PageId::new(end - 1),
            pages,
        }),
        _ => Ok(()),
    }
}

impl StoredMap {
    /// First page of the chain; none while nothing but the meta pages is in use.
    pub(super) fn first(&self) -> Option<PageRef> {
        self.directory.first().copied()
    }

    /// Reads the map that begins at `first`, of a file of `pages`: its pages and its bits.
    ///
    /// # Errors
    /// If a page cannot be read or contradicts the rest. Memory taken follows the pages read.
    pub(super) fn load(
        cache: &Cache,
        first: Option<PageRef>,
        pages: u64,
        page_bytes: usize,
    ) -> Result<(Self, Vec<u64>), PageError> {
        let Some(first) = first else {
            return match pages {
                COPIES => Ok((Self::default(), vec![(1 << COPIES) - 1])),
                _ => Err(structure(
                    PageId::new(0),
                    "pages without a map",
                    pages,
                    COPIES,
                )),
            };
        };
        let wanted = pages.div_ceil(pages_per_map(page_bytes));
        let (mut stored, mut next) = (Self::default(), first);
        while next.id.get() != 0 {
            let pin = cache.load(next, Class::Once)?;
            let page = Page::trusted(pin.bytes());
            let (after, maps) = decode_directory(page)?;
            let before = stored.maps.len();
            stored.maps.extend(maps);
            let listed = stored.maps.len() as u64;
            if stored.maps.len() == before || listed > wanted {
                return Err(structure(next.id, "bitmaps listed", listed, wanted));
            }
            stored.directory.push(next);
            next = after;
        }
        if stored.maps.len() as u64 != wanted {
            let listed = stored.maps.len() as u64;
            return Err(structure(first.id, "bitmaps listed", listed, wanted));
        }
        let mut words = Vec::new();
        for window in stored.maps.chunks(crate::cache::PREFETCH_MAX) {
            cache.prefetch(window, Class::Once);
            for map in window {
                let pin = cache.load(*map, Class::Once)?;
                words.extend(decode_map(Page::trusted(pin.bytes()))?);
            }
        }
        stored.check(&words, pages)?;
        Ok((stored, words))
    }

    /// The map must mark the meta pages and its own pages, and nothing beyond the file.
    fn check(&self, words: &[u64], pages: u64) -> Result<(), PageError> {
        let is_set = |page: u64| {
            let word = usize::try_from(page / 64).ok().and_then(|at| words.get(at));
            word.is_some_and(|word| word >> (page % 64) & 1 == 1)
        };
        let own = self
            .maps
            .iter()
            .chain(&self.directory)
            .map(|page| page.id.get());
        if let Some(page) = (0..COPIES).chain(own).find(|&page| !is_set(page)) {
            return Err(structure(PageId::new(page), "in use", 0, 1));
        }
        ends_by(words, pages)
    }

    /// If the map's own pages are all that keeps the file from shrinking, has them move to lower places.
    fn leave_end(&self, space: &mut Space) -> bool {
        let (mut moves, mut end) = (false, space.end());
        while let Some(last) = space.last_live(end) {
            let lower = space.peek_one().is_some_and(|page| page < last);
            let map = self.maps.iter().position(|page| page.id.get() == last);
            let listed = self.directory.iter().any(|page| page.id.get() == last);
            if !lower || (map.is_none() && !listed) {
                break;
            }
            if let Some(map) = map {
                space.dirty(map);
            }
            (moves, end) = (true, last);
        }
        moves
    }

    /// Gives the next version its pages and retires what it replaces. `None` if nothing changed.
    ///
    /// # Errors
    /// If the file cannot grow any more, or the map's own pages are not marked in use.
    pub(super) fn plan(
        &self,
        space: &mut Space,
        page_bytes: usize,
    ) -> Result<Option<Plan>, PageError> {
        let moves = self.leave_end(space);
        if !moves && space.dirty_maps().next().is_none() && self.maps.len() <= space.maps() {
            return Ok(None);
        }
        let retire = |space: &mut Space, page: PageRef| {
            let span = Span {
                first: page.id.get(),
                count: 1,
            };
            match space.retire(span) {
                true => Ok(()),
                false => Err(structure(page.id, "in use", 0, 1)),
            }
        };
        let take = |space: &mut Space| match space.take_one() {
            Some(span) => Ok(PageId::new(span.first)),
            None => Err(PageError::OutOfRange {
                page: PageId::new(PAGES_MAX),
                pages: PAGES_MAX,
            }),
        };
        let surplus = self.maps.get(space.maps()..).unwrap_or_default();
        for page in surplus.iter().chain(&self.directory) {
            retire(space, *page)?;
        }
        let mut plan = Plan {
            fresh: Vec::new(),
            directory: Vec::new(),
        };
        // Taking and retiring pages dirties further bitmaps; there are finitely many.
        loop {
            let mut settled = true;
            plan.fresh.resize(space.maps(), None);
            let dirty = space.dirty_maps().collect::<Vec<_>>();
            for map in dirty.into_iter().chain(self.maps.len()..space.maps()) {
                if let Some(fresh @ None) = plan.fresh.get_mut(map) {
                    if let Some(old) = self.maps.get(map) {
                        retire(space, *old)?;
                    }
                    *fresh = Some(take(space)?);
                    settled = false;
                }
            }
            let directories = space.maps().div_ceil(maps_per_directory(page_bytes));
            while plan.directory.len() < directories {
                plan.directory.push(take(space)?);
                settled = false;
            }
            if settled && plan.fresh.len() == space.maps() {
                return Ok(Some(plan));
            }
        }
    }

    /// Builds the pages of the next version; `write` seals one for its place and takes it.
    ///
    /// # Errors
    /// Those of `write`.
    pub(super) fn write(
        &self,
        plan: &Plan,
        space: &Space,
        page: &mut [u8],
        write: &mut WritePage<'_>,
    ) -> Result<Self, PageError> {
        let mut next = Self::default();
        for (map, fresh) in plan.fresh.iter().enumerate() {
            let reference = match (fresh, self.maps.get(map)) {
                (Some(id), _) => {
                    encode_map(page, space.map_words(map));
                    write(*id, page)?
                }
                (None, Some(old)) => *old,
                (None, None) => {
                    return Err(structure(PageId::new(0), "bitmap", map as u64, 0));
                }
            };
            next.maps.push(reference);
        }
        // From the end: each page of the chain names the next by checksum.
        let mut after = PageRef::default();
        let parts = next.maps.chunks(maps_per_directory(page.len()));
        for (maps, id) in parts.zip(&plan.directory).rev() {
            encode_directory(page, after, maps);
            after = write(*id, page)?;
            next.directory.push(after);
        }
        next.directory.reverse();
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Generation;

    const PER_MAP: u64 = 192;

    fn page(id: u64) -> PageRef {
        PageRef {
            id: PageId::new(id),
            checksum: 1,
            generation: Generation::new(1),
        }
    }

    /// A file of `end` pages of which those listed are in use, with a map at some of them; a generation is begun.
    fn file(live: &[u64], end: u64, maps: &[u64], directory: u64) -> (StoredMap, Space) {
        let mut words = vec![0; usize::try_from(end.div_ceil(64)).unwrap()];
        let own = maps.iter().chain([&directory, &0, &1, &2, &3]);
        for page in live.iter().chain(own) {
            words[usize::try_from(page / 64).unwrap()] |= 1 << (page % 64);
        }
        let mut space = Space::new(words, end, PER_MAP);
        space.begin(Generation::new(2));
        let stored = StoredMap {
            maps: maps.iter().copied().map(page).collect(),
            directory: vec![page(directory)],
        };
        (stored, space)
    }

    /// Where the plan puts maps and directory, by page.
    fn planned(stored: &StoredMap, space: &mut Space) -> Option<(Vec<Option<u64>>, Vec<u64>)> {
        let plan = stored.plan(space, 4096).unwrap()?;
        let fresh = plan.fresh.iter().map(|page| page.map(PageId::get));
        let directory = plan.directory.iter().map(|page| page.get());
        Some((fresh.collect(), directory.collect()))
    }

    #[test]
    fn a_map_of_which_nothing_changed_is_left_where_it_is() {
        let (stored, mut space) = file(&[6, 9], 10, &[4], 5);
        assert_eq!(stored.first(), Some(page(5)));
        assert_eq!(planned(&stored, &mut space), None);
        assert_eq!((space.held(), space.end()), (0, 10));
    }

    #[test]
    fn what_changed_is_written_anew_and_the_old_retired() {
        let (stored, mut space) = file(&[6, 9, 200, 383], 384, &[4, 5], 7);
        let span = Span {
            first: 200,
            count: 1,
        };
        assert!(space.retire(span));
        // The second map's new place dirties the first; then both have changed.
        let (fresh, directory) = planned(&stored, &mut space).unwrap();
        assert!(fresh.iter().all(Option::is_some) && directory.len() == 1);
        assert_eq!(space.held(), 4);
        for old in [4, 5, 7, 200] {
            assert!(!space.is_live(old), "{old}");
        }
        let new = fresh.into_iter().flatten().chain(directory);
        assert!(new.into_iter().all(|page| space.is_live(page)));
    }

    #[test]
    fn a_map_at_the_end_of_the_file_moves_to_lower_places() {
        let (stored, mut space) = file(&[5], 192, &[190], 191);
        assert_eq!(planned(&stored, &mut space), Some((vec![Some(4)], vec![6])));
        assert_eq!(space.last_live(192), Some(6));
        // Not if something else keeps the file as long, or there is no lower place.
        let (stored, mut space) = file(&[5, 191], 192, &[189], 190);
        assert_eq!(planned(&stored, &mut space), None);
        let (stored, mut space) = file(&[4], 7, &[5], 6);
        assert_eq!(planned(&stored, &mut space), None);
        // The directory alone is enough, and so is one of two maps.
        let (stored, mut space) = file(&[5], 192, &[4], 191);
        assert!(planned(&stored, &mut space).is_some());
        let (stored, mut space) = file(&[5], 384, &[4, 383], 6);
        assert!(planned(&stored, &mut space).is_some());
    }

    #[test]
    fn a_map_follows_the_length_of_the_file() {
        // The file shrank: one map too many.
        let (stored, mut space) = file(&[6], 192, &[4, 5], 7);
        let (fresh, directory) = planned(&stored, &mut space).unwrap();
        assert_eq!((fresh.len(), directory.len()), (1, 1));
        assert!(!space.is_live(5));
        // It grew: one too few.
        let (stored, mut space) = file(&[6], 192, &[4], 5);
        while space.end() == 192 {
            space.take_run().unwrap();
        }
        let (fresh, directory) = planned(&stored, &mut space).unwrap();
        assert_eq!((fresh.len(), directory.len()), (2, 1));
        assert!(fresh[1].is_some());
    }

    #[test]
    fn a_map_whose_own_pages_are_not_in_use_is_damaged() {
        let (mut stored, mut space) = file(&[6], 192, &[4], 7);
        stored.directory.push(page(9));
        space.dirty(0);
        let error = stored.plan(&mut space, 4096).unwrap_err();
        assert!(matches!(error, PageError::Structure { what: "in use", .. }));
    }

    #[test]
    fn a_map_marks_what_it_must_and_nothing_beyond_the_file() {
        let (stored, space) = file(&[70, 99], 100, &[4], 65);
        let words = space.map_words(0).to_vec();
        assert_eq!(words.len(), 2);
        assert_eq!(stored.check(&words, 100), Ok(()));
        for page in [0, 1, 2, 3, 4, 65] {
            let mut words = words.clone();
            words[page / 64] &= !(1 << (page % 64));
            let error = stored.check(&words, 100).unwrap_err();
            let (at, expected) = (PageId::new(page as u64), structure);
            assert_eq!(error, expected(at, "in use", 0, 1));
        }
        assert_eq!(
            stored.check(&words[..1], 64).unwrap_err(),
            structure(PageId::new(65), "in use", 0, 1)
        );
        for beyond in [100, 127] {
            let mut words = words.clone();
            words[1] |= 1 << (beyond - 64);
            let page = PageId::new(beyond);
            let expected = PageError::OutOfRange { page, pages: 100 };
            assert_eq!(stored.check(&words, 100), Err(expected));
        }
    }
}
