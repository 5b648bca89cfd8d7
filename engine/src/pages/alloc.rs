//! Free space: which pages of the data file hold something.
//!
//! A page is in use while a meta slot or a snapshot may reach it. A checkpoint *retires* what its tree no longer
//! uses; the page is free again when that checkpoint's successor is durable, since then both meta slots are younger
//! than its last use, and when no snapshot reads an older generation.
//!
//! Invariants:
//! 1. A page is never given out while any durable meta page or announced generation can reach it.
//! 2. What is persisted for generation `g` is what is reachable in `g`: pages in use less everything retired.
//!
//! - Cost: an allocation looks at words of 64 pages from the lowest that may have room.

use std::collections::VecDeque;

use crate::ids::{Generation, PageId};
use crate::limits::{PAGES_MAX, RUN_PAGES};

/// Consecutive pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageRun {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl PageRun {
    pub(crate) fn new(first: PageId, count: u64) -> Self {
        Self {
            first: first.get(),
            count,
        }
    }

    pub(crate) fn pages(self) -> impl Iterator<Item = PageId> {
        (self.first..self.first + self.count).map(PageId::new)
    }
}

/// One bit a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    pub(crate) fn from_words(words: Vec<u64>) -> Self {
        Self { words }
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    pub(crate) fn get(&self, page: u64) -> bool {
        let word = usize::try_from(page / 64)
            .ok()
            .and_then(|word| self.words.get(word));
        word.is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    fn word_mut(&mut self, page: u64) -> &mut u64 {
        let word = usize::try_from(page / 64).unwrap_or(usize::MAX);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        &mut self.words[word]
    }

    /// Sets or clears a run. Returns false if a bit had the value already.
    pub(crate) fn fill(&mut self, run: PageRun, value: bool) -> bool {
        let mut fresh = true;
        for page in run.first..run.first + run.count {
            let bit = 1 << (page % 64);
            let word = self.word_mut(page);
            fresh &= (*word & bit != 0) != value;
            if value { *word |= bit } else { *word &= !bit }
        }
        fresh
    }

    pub(crate) fn count(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// Above the last page set.
    pub(crate) fn end(&self) -> u64 {
        let last = self.words.iter().rposition(|word| *word != 0);
        last.map_or(0, |at| {
            at as u64 * 64 + 64 - u64::from(self.words[at].leading_zeros())
        })
    }

    pub(crate) fn pages(&self) -> impl Iterator<Item = u64> {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| at as u64 * 64 + bit)
        })
    }
}

/// The pages of one data file.
#[derive(Debug)]
pub(crate) struct Space {
    in_use: Bitmap,
    /// Retired by a generation, not yet free.
    retired: VecDeque<(Generation, Vec<PageRun>)>,
    /// No word below this one has a free page.
    lowest_word: usize,
    /// Nor, for whole runs, below this one.
    lowest_run_word: usize,
}

impl Space {
    /// With `in_use` as found in the newest generation, and `retired` by it.
    pub(crate) fn new(in_use: Bitmap, generation: Generation, retired: Vec<PageRun>) -> Self {
        let mut space = Self {
            in_use,
            retired: VecDeque::new(),
            lowest_word: 0,
            lowest_run_word: 0,
        };
        for run in &retired {
            space.in_use.fill(*run, true);
        }
        space.retire(generation, retired);
        space
    }

    /// Gives out `count` consecutive pages. `None` beyond the largest file.
    pub(crate) fn alloc(&mut self, count: u64) -> Option<PageRun> {
        let first = if count == RUN_PAGES as u64 {
            self.find_aligned_run()
        } else {
            self.find(count)
        };
        let run = PageRun { first, count };
        if run.first + run.count > PAGES_MAX {
            return None;
        }
        let fresh = self.in_use.fill(run, true);
        assert!(fresh, "{run:?} is given out while in use");
        Some(run)
    }

    fn find_aligned_run(&mut self) -> u64 {
        let words = &self.in_use.words;
        for (at, word) in words.iter().enumerate().skip(self.lowest_run_word) {
            let lane = (0..4_u64).find(|lane| word >> (lane * 16) & 0xffff == 0);
            if let Some(lane) = lane {
                self.lowest_run_word = at;
                return at as u64 * 64 + lane * 16;
            }
        }
        self.lowest_run_word = words.len();
        words.len() as u64 * 64
    }

    fn find(&mut self, count: u64) -> u64 {
        let words = &self.in_use.words;
        while words
            .get(self.lowest_word)
            .is_some_and(|word| *word == u64::MAX)
        {
            self.lowest_word += 1;
        }
        let (mut first, mut len) = (self.lowest_word as u64 * 64, 0);
        for (at, word) in words.iter().enumerate().skip(self.lowest_word) {
            if *word == 0 {
                len += 64;
            } else {
                for bit in 0..64 {
                    if word >> bit & 1 == 0 {
                        len += 1;
                    } else {
                        (first, len) = (at as u64 * 64 + bit + 1, 0);
                    }
                    if len >= count {
                        return first;
                    }
                }
            }
            if len >= count {
                return first;
            }
        }
        // What is free at the end, and the file grows for the rest.
        first
    }

    /// Takes back what was given out and never named by a meta page.
    pub(crate) fn take_back(&mut self, run: PageRun) {
        let fresh = self.in_use.fill(run, false);
        assert!(fresh, "{run:?} is freed twice");
        let word = usize::try_from(run.first / 64).unwrap_or(0);
        self.lowest_word = self.lowest_word.min(word);
        self.lowest_run_word = self.lowest_run_word.min(word);
    }

    /// Notes what generation `by`, now durable, no longer uses.
    pub(crate) fn retire(&mut self, by: Generation, runs: Vec<PageRun>) {
        for run in &runs {
            assert!(
                run.pages().all(|page| self.in_use.get(page.get())),
                "{run:?} is not in use"
            );
        }
        if !runs.is_empty() {
            self.retired.push_back((by, runs));
        }
    }

    /// Frees what neither meta slot (the newest is `durable`) nor a snapshot of `oldest` reaches; gives the runs.
    pub(crate) fn reclaim(
        &mut self,
        durable: Generation,
        oldest: Option<Generation>,
    ) -> Vec<PageRun> {
        let mut freed = Vec::new();
        while let Some((by, _)) = self.retired.front() {
            if *by >= durable || oldest.is_some_and(|oldest| oldest < *by) {
                break;
            }
            if let Some((_, runs)) = self.retired.pop_front() {
                for run in runs {
                    self.take_back(run);
                    freed.push(run);
                }
            }
        }
        freed
    }

    /// What is reachable in the generation that retires `also`.
    pub(crate) fn reachable(&self, also: &[PageRun]) -> Bitmap {
        let mut reachable = self.in_use.clone();
        let retired = self.retired.iter().flat_map(|(_, runs)| runs).chain(also);
        for run in retired {
            reachable.fill(*run, false);
        }
        reachable
    }

    /// Above the last page in use.
    pub(crate) fn end(&self) -> u64 {
        self.in_use.end()
    }

    /// Pages below the end that hold nothing.
    pub(crate) fn free_count(&self) -> u64 {
        self.end() - self.in_use.count()
    }

    /// Whether anything waits to be freed.
    pub(crate) fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Free runs of at least `count` pages below the end.
    pub(crate) fn free_runs(&self, count: u64) -> Vec<PageRun> {
        let mut runs = Vec::new();
        let mut first = 0;
        for page in self.in_use.pages() {
            if page - first >= count {
                runs.push(PageRun {
                    first,
                    count: page - first,
                });
            }
            first = page + 1;
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(n: u32) -> Generation {
        Generation::new(n)
    }

    #[test]
    fn the_lowest_free_pages_are_given_first() {
        let mut space = Space::new(Bitmap::default(), generation(1), Vec::new());
        assert_eq!(space.alloc(4), Some(PageRun { first: 0, count: 4 }));
        assert_eq!(
            space.alloc(16),
            Some(PageRun {
                first: 16,
                count: 16
            })
        );
        assert_eq!(space.alloc(1), Some(PageRun { first: 4, count: 1 }));
        assert_eq!(
            space.alloc(100),
            Some(PageRun {
                first: 32,
                count: 100
            })
        );
        space.take_back(PageRun { first: 0, count: 4 });
        assert_eq!(space.alloc(2), Some(PageRun { first: 0, count: 2 }));
        assert_eq!(space.end(), 132);
        assert_eq!(space.free_count(), 132 - (2 + 16 + 1 + 100));
    }

    #[test]
    fn retired_pages_wait_for_the_next_generation_and_for_snapshots() {
        let mut space = Space::new(Bitmap::default(), generation(1), Vec::new());
        let run = space.alloc(8).unwrap();
        space.retire(generation(5), vec![run]);
        assert!(
            space.reclaim(generation(5), None).is_empty(),
            "the older slot still names it"
        );
        assert!(
            space.reclaim(generation(6), Some(generation(4))).is_empty(),
            "a snapshot reads it"
        );
        assert_eq!(space.reclaim(generation(6), Some(generation(5))), vec![run]);
        assert_eq!(space.end(), 0);
    }

    #[test]
    fn random_allocations_never_overlap() {
        let mut random = 0x9e37_79b9_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut space = Space::new(Bitmap::default(), generation(1), Vec::new());
        let mut held: Vec<PageRun> = Vec::new();
        let mut pages = std::collections::BTreeSet::new();
        for _ in 0..5000 {
            if next(3) > 0 || held.is_empty() {
                let count = [1, 2, 16, 16, 100][usize::try_from(next(5)).unwrap()];
                let run = space.alloc(count).unwrap();
                assert!(run.pages().all(|page| pages.insert(page)));
                held.push(run);
            } else {
                let at = usize::try_from(next(held.len() as u64)).unwrap();
                let run = held.swap_remove(at);
                assert!(run.pages().all(|page| pages.remove(&page)));
                space.take_back(run);
            }
        }
        assert_eq!(space.in_use.count(), pages.len() as u64);
        assert!(
            space
                .free_runs(1)
                .iter()
                .flat_map(|run| run.pages())
                .all(|p| !pages.contains(&p))
        );
    }
}
