//! Space against a model that knows, for every page, who still reaches it.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

const PER_MAP: u64 = 64 * 3;

/// What a page of the model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Live,
    RetiredBy(u32),
}

#[derive(Debug)]
struct World {
    space: Space,
    pages: BTreeMap<u64, Use>,
    generation: u32,
}

impl World {
    fn new() -> Self {
        Self {
            space: Space::empty(PER_MAP),
            pages: (0..COPIES).map(|page| (page, Use::Live)).collect(),
            generation: 1,
        }
    }

    fn take(&mut self, span: Option<Span>) {
        for page in span.unwrap().ids() {
            let before = self.pages.insert(page, Use::Live);
            assert_eq!(before, None, "page {page} was given out while in use");
        }
    }

    fn check(&self) {
        let space = &self.space;
        let live = (0..space.end()).filter(|&page| space.is_live(page));
        let model = self.pages.iter().filter(|(_, of)| **of == Use::Live);
        assert!(live.eq(model.map(|(page, _)| *page)));
        let held = self.pages.values().filter(|of| **of != Use::Live).count() as u64;
        assert_eq!(space.held(), held);
        assert_eq!(space.free(), space.end() - self.pages.len() as u64);
        let last = self.pages.last_key_value().map_or(0, |(page, _)| *page);
        assert!(last < space.end());
    }

    /// One generation of random work.
    fn build(&mut self, random: &mut SmallRng) {
        let generation = self.generation + 1;
        let before = (self.pages.clone(), self.space.end());
        self.space.begin(Generation::new(generation));
        for _ in 0..random.random_range(0..30) {
            match random.random_range(0..10) {
                0 => {
                    let one = self.space.take_one();
                    self.take(one);
                }
                1 => {
                    if let hole @ Some(_) = self.space.take_hole() {
                        self.take(hole);
                    }
                }
                2..4 => {
                    let run = self.space.take_run();
                    assert!(run.unwrap().count <= GROUP);
                    let run = run.unwrap();
                    let used = random.random_range(0..=run.count);
                    assert!(self.space.untake(Span {
                        first: run.first + used,
                        count: run.count - used,
                    }));
                    self.take(Some(Span { count: used, ..run }));
                }
                4 => {
                    let count = random.random_range(1..70);
                    let extent = self.space.take_extent(count);
                    assert_eq!(extent.unwrap().count, count);
                    self.take(extent);
                }
                _ => {
                    let first = random.random_range(0..self.space.end() + 5);
                    let count = random.random_range(1..20);
                    let span = Span { first, count };
                    let possible = first >= COPIES
                        && span
                            .ids()
                            .all(|page| self.pages.get(&page) == Some(&Use::Live));
                    assert_eq!(self.space.retire(span), possible, "{span:?}");
                    if possible {
                        let retired = span.ids().map(|page| (page, Use::RetiredBy(generation)));
                        self.pages.extend(retired);
                    }
                }
            }
        }
        if random.random_ratio(1, 4) {
            self.space.abort();
            (self.pages, _) = before;
            assert_eq!(self.space.end(), before.1);
        } else {
            self.space.commit();
            self.generation = generation;
        }
    }
}

#[test]
fn no_page_is_given_out_while_a_meta_slot_or_a_snapshot_reaches_it() {
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut world = World::new();
        let mut snapshots: BTreeSet<u32> = BTreeSet::new();
        for _ in 0..60 {
            world.build(&mut random);
            world.check();
            if random.random_ratio(1, 3) {
                snapshots.insert(world.generation);
            }
            if random.random_ratio(1, 2) {
                snapshots.pop_first();
            }
            let (oldest, durable) = (snapshots.first().copied(), world.generation);
            let freed = world
                .space
                .reclaim(Generation::new(durable), oldest.map(Generation::new));
            for page in freed.iter().flat_map(|span| span.ids()) {
                let Some(Use::RetiredBy(by)) = world.pages.remove(&page) else {
                    panic!("page {page} was not retired");
                };
                assert!(by < durable && oldest.is_none_or(|oldest| oldest >= by));
            }
            let kept = |of: &Use| matches!(of, Use::RetiredBy(by) if *by < durable);
            if oldest.is_none() {
                assert!(!world.pages.values().any(kept), "all that can be freed is");
            }
            if random.random_ratio(1, 5) {
                let end = world.space.trim_end().unwrap_or(world.space.end());
                assert_eq!(Some(end - 1), world.pages.keys().last().copied());
            }
            for span in world.space.punch(3) {
                assert!(!span.ids().any(|page| world.pages.contains_key(&page)));
            }
            world.check();
        }
    }
}

#[test]
fn holes_are_filled_low_first_once_they_are_many() {
    let mut space = Space::empty(PER_MAP);
    space.begin(Generation::new(2));
    for _ in 0..20 {
        space.take_run().unwrap();
    }
    for page in (16..300).step_by(2) {
        assert!(space.retire(Span {
            first: page,
            count: 1
        }));
    }
    space.commit();
    space.reclaim(Generation::new(3), None);
    space.begin(Generation::new(4));
    let end = space.end();
    let first = space.take_run().unwrap();
    assert_eq!((first.first, first.count), (16, 1));
    assert_eq!(space.take_hole().unwrap().first, 18);
    while space.free() * HOLES_FROM > space.end() {
        space.take_run().unwrap();
        assert_eq!(space.end(), end, "the file does not grow over holes");
    }
    let grown = space.take_run().unwrap();
    assert!(grown.first >= end, "few holes are not worth small writes");
}

#[test]
fn only_bitmaps_that_changed_are_dirty_and_a_long_older_map_is_held_whole() {
    let mut space = Space::new(vec![u64::MAX; 9], 9 * 64, PER_MAP);
    assert_eq!(space.dirty_maps().count(), 0);
    space.begin(Generation::new(2));
    assert!(space.retire(Span {
        first: 200,
        count: 3
    }));
    assert_eq!(space.dirty_maps().collect::<Vec<_>>(), [1]);
    space.commit();
    assert_eq!(space.dirty_maps().count(), 0);

    let mut space = Space::new(vec![u64::MAX], 64, PER_MAP);
    space.hold_all(&[u64::MAX, 0, 6], Generation::new(5));
    assert_eq!((space.end(), space.held(), space.free()), (131, 2, 65));
    assert_eq!(space.reclaim(Generation::new(6), None).len(), 1);
    assert_eq!(space.trim_end(), Some(64));
}

/// A damaged tree may name a page that is free, and retire it after it was given out.
#[test]
fn a_run_of_which_a_page_was_retired_is_not_taken_back() {
    let mut space = Space::empty(PER_MAP);
    space.begin(Generation::new(2));
    let run = space.take_run().unwrap();
    let last = Span {
        first: run.first + run.count - 1,
        count: 1,
    };
    assert!(space.retire(last));
    assert!(!space.untake(run));
    space.abort();
    assert_eq!((space.held(), space.end()), (0, COPIES));
    space.begin(Generation::new(2));
    assert_eq!(space.take_run(), Some(run));
    assert!(space.untake(run));
}
