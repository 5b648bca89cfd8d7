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
    /// Groups given back to the file system and not used since.
    punched: BTreeSet<u64>,
    generation: u32,
}

impl World {
    fn new() -> Self {
        Self {
            space: Space::empty(PER_MAP),
            pages: (0..COPIES).map(|page| (page, Use::Live)).collect(),
            punched: BTreeSet::new(),
            generation: 1,
        }
    }

    /// What is given out is no longer punched, whatever becomes of it.
    fn unpunch(&mut self, span: Option<Span>) {
        for page in span.iter().flat_map(|span| span.ids()) {
            self.punched.remove(&(page / GROUP));
        }
    }

    fn take(&mut self, span: Option<Span>) {
        self.unpunch(span);
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

        let groups = space.end().div_ceil(GROUP);
        for group in 0..groups {
            let free = (0..GROUP)
                .map(|page| (page, group * GROUP + page))
                .filter(|(_, page)| *page < space.end() && !self.pages.contains_key(page))
                .fold(0, |bits, (page, _)| bits | 1 << page);
            assert_eq!(space.group(group), free, "group {group}");
            let (whole, part) = (free == FULL, !matches!(free, 0 | FULL));
            assert!(
                !whole || space.whole_hint <= group,
                "group {group} is whole"
            );
            assert!(!part || space.part_hint <= group, "group {group} has holes");
            assert_eq!(bit(&space.punched, group), self.punched.contains(&group));
            assert!(
                whole || !bit(&space.punched, group),
                "group {group} is in use"
            );
        }
        assert!(space.whole_hint <= groups && space.part_hint <= groups);
    }

    /// What lies beyond the end of the file is no part of it.
    fn shortened(&mut self) {
        let groups = self.space.end() / GROUP;
        self.punched.split_off(&groups);
    }

    /// One generation of random work.
    fn build(&mut self, random: &mut SmallRng) {
        let generation = self.generation + 1;
        let before = (self.pages.clone(), self.space.end());
        self.space.begin(Generation::new(generation));
        for _ in 0..random.random_range(0..30) {
            match random.random_range(0..10) {
                0 => {
                    let peeked = self.space.peek_one().unwrap_or(self.space.end());
                    let one = self.space.take_one();
                    assert_eq!(one.map(|one| (one.first, one.count)), Some((peeked, 1)));
                    self.take(one);
                }
                1 => {
                    if let hole @ Some(_) = self.space.take_hole() {
                        assert_eq!(hole.map(|hole| hole.count), Some(1));
                        self.take(hole);
                    }
                }
                2..4 => {
                    let before = self.space.end();
                    let run = self.space.take_run().unwrap();
                    self.unpunch(Some(run));
                    let end = run.first + run.count;
                    assert_eq!(
                        run.first / GROUP,
                        (end - 1) / GROUP,
                        "a run is of one group"
                    );
                    assert!(run.first < before || end.is_multiple_of(GROUP));
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
            self.shortened();
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
                let before = world.space.end();
                let trimmed = world.space.trim_end();
                let end = world.space.end();
                assert_eq!(trimmed, (end < before).then_some(end));
                assert_eq!(Some(end - 1), world.pages.keys().last().copied());
                world.shortened();
            }
            for span in world.space.punch(3) {
                assert!(!span.ids().any(|page| world.pages.contains_key(&page)));
                let groups = span.first / GROUP..(span.first + span.count) / GROUP;
                assert!(groups.clone().all(|group| world.punched.insert(group)));
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

/// A file of groups of which those named are wholly free and the others in use.
fn with_free_groups(groups: u64, free: &[u64]) -> Space {
    let mut space = Space::empty(PER_MAP);
    space.begin(Generation::new(2));
    while space.end() < groups * GROUP {
        space.take_run().unwrap();
    }
    for group in free {
        let first = group * GROUP;
        assert!(space.retire(Span {
            first,
            count: GROUP
        }));
    }
    space.commit();
    space.reclaim(Generation::new(3), None);
    space.begin(Generation::new(4));
    space
}

#[test]
fn extents_take_the_first_free_groups_that_are_enough_and_else_the_end() {
    let mut space = with_free_groups(20, &[3, 5, 6, 9, 10, 11, 19]);
    assert_eq!(space.take_hole(), None);
    let mut first = |count| space.take_extent(count).unwrap().first;
    assert_eq!(first(2 * GROUP + 1), 9 * GROUP);
    assert_eq!(first(2 * GROUP), 5 * GROUP);
    assert_eq!(
        first(2 * GROUP),
        20 * GROUP,
        "one free group at the end is not enough"
    );
    assert_eq!(first(GROUP), 3 * GROUP);
    assert_eq!(first(1), 19 * GROUP, "of a group, not of a hole");
    assert_eq!(first(GROUP), 22 * GROUP);
    assert_eq!(first(1), 23 * GROUP);
    // What is left of the groups are holes now.
    assert_eq!(space.take_hole().unwrap().first, 11 * GROUP + 1);
}

#[test]
fn free_groups_are_given_back_once_until_they_were_used_again() {
    let mut space = with_free_groups(100, &[1, 2, 4, 6, 7, 70]);
    let span = |group: u64, groups: u64| Span {
        first: group * GROUP,
        count: groups * GROUP,
    };
    assert_eq!(space.punch(0), []);
    assert_eq!(space.punch(1), [span(1, 2)]);
    assert_eq!(space.punch(2), [span(4, 1), span(6, 2)]);
    assert_eq!(space.punch(9), [span(70, 1)]);
    assert_eq!(space.punch(9), []);
    let run = space.take_run().unwrap();
    assert_eq!(run, span(1, 1));
    assert!(space.untake(run));
    assert_eq!(
        space.punch(9),
        [span(1, 1)],
        "what was used and is free again"
    );
    let extent = space.take_extent(2 * GROUP).unwrap();
    assert!(space.untake(extent));
    assert_eq!(space.punch(9), [extent]);
}

#[test]
fn a_file_that_shrank_and_grew_again_has_nothing_that_was_given_back() {
    let mut space = with_free_groups(140, &[1, 70, 139]);
    assert_eq!(space.punch(9).len(), 3);
    space.abort();
    assert_eq!(space.trim_end(), Some(139 * GROUP));
    assert_eq!(space.trim_end(), None);
    space.begin(Generation::new(5));
    let run = space.grow(GROUP).unwrap();
    assert_eq!(space.punch(9), [run]);
    assert_eq!(space.take_run().unwrap().first, GROUP);
}

#[test]
fn the_map_is_read_in_parts_and_by_its_last_bit() {
    let mut space = Space::new(vec![1, 2, 3, 4, 5, 6, 7], 7 * 64 - 3, PER_MAP);
    assert_eq!(space.maps(), 3);
    assert_eq!(space.map_words(0), [1, 2, 3]);
    assert_eq!(space.map_words(1), [4, 5, 6]);
    assert_eq!(space.map_words(2), [7]);
    assert_eq!(space.map_words(3), [0; 0]);
    assert_eq!(space.free(), 7 * 64 - 3 - 12);
    assert_eq!(space.dirty_maps().count(), 0);
    space.dirty(1);
    space.dirty(9);
    assert_eq!(space.dirty_maps().collect::<Vec<_>>(), [1]);
    space.begin(Generation::new(2));
    space.commit();
    assert_eq!(space.dirty_maps().count(), 0);

    assert_eq!(used(&[]), None);
    assert_eq!(used(&[0, 0]), None);
    assert_eq!(used(&[1, 0]), Some(1));
    assert_eq!(used(&[0, 1 << 63, 0]), Some(128));
    let last = [
        (385, 384),
        (384, 322),
        (323, 322),
        (322, 321),
        (321, 258),
        (320, 258),
    ];
    for (end, page) in last {
        assert_eq!(space.last_live(end), Some(page), "below {end}");
    }
    assert_eq!((space.last_live(1), space.last_live(0)), (Some(0), None));
    assert_eq!(space.last_live(10_000), Some(386));
    assert!(space.is_live(386) && !space.is_live(387) && !space.is_live(10_000));
}

#[test]
fn what_only_the_older_map_marks_is_held_in_as_few_spans_as_it_can_be() {
    let live = vec![0b1111, 0, 1];
    let mut space = Space::new(live, 140, PER_MAP);
    let older = [0b1100_1111 | 0b11 << 62, 1 | 1 << 40, 0b11];
    space.hold_all(&older, Generation::new(7));
    let spans = &space.retired[&Generation::new(7)];
    let spans: Vec<_> = spans.iter().map(|span| (span.first, span.count)).collect();
    assert_eq!(spans, [(6, 2), (62, 3), (104, 1), (129, 1)]);
    assert_eq!(
        (space.held(), space.free(), space.end()),
        (7, 140 - 5 - 7, 140)
    );
    // Held pages are given to nobody until their generation is done with.
    space.begin(Generation::new(9));
    while let Some(page) = space.peek_one() {
        assert_eq!(
            space.take_one(),
            Some(Span {
                first: page,
                count: 1
            })
        );
        assert!(!bit(&space.held, page), "page {page}");
    }
    space.commit();
    assert_eq!(space.reclaim(Generation::new(7), None), []);
    assert_eq!(
        space.reclaim(Generation::new(8), Some(Generation::new(6))),
        []
    );
    assert_eq!(
        space
            .reclaim(Generation::new(8), Some(Generation::new(7)))
            .len(),
        4
    );
    assert_eq!((space.held(), space.free()), (0, 7));
}

#[test]
fn the_file_ends_where_the_format_does() {
    let mut space = Space::empty(PER_MAP);
    assert_eq!(space.grow(PAGES_MAX - COPIES + 1), None);
    assert_eq!(space.grow(u64::MAX), None);
    assert_eq!((space.end(), space.free()), (COPIES, 0));
    assert_eq!(space.trim_end(), None, "the meta pages stay");
    assert!(!space.retire(Span {
        first: COPIES,
        count: u64::MAX
    }));
}

#[test]
fn a_single_page_that_becomes_free_is_found() {
    for page in [31, 18, 200, 255, 16 * GROUP] {
        let mut space = with_free_groups(20, &[]);
        assert_eq!(space.take_hole(), None);
        assert!(space.retire(Span {
            first: page,
            count: 1
        }));
        space.commit();
        space.reclaim(Generation::new(5), None);
        assert_eq!(space.peek_one(), Some(page));
        space.begin(Generation::new(6));
        assert_eq!(
            space.take_hole(),
            Some(Span {
                first: page,
                count: 1
            })
        );
        assert_eq!(space.take_hole(), None);
    }
}

#[test]
fn a_file_with_fewer_parts_has_its_list_of_maps_written_anew() {
    // Three parts of twelve groups each, of which the last two become free.
    let shrunk = |to: u64| {
        let free: Vec<u64> = (to..36).collect();
        let mut space = with_free_groups(36, &free);
        space.commit();
        assert_eq!((space.maps(), space.dirty_maps().count()), (3, 0));
        assert_eq!(space.trim_end(), Some(to * GROUP));
        space
    };
    let dirty = |space: &Space| space.dirty_maps().collect::<Vec<_>>();
    assert_eq!(dirty(&shrunk(30)), [0; 0], "as many parts as before");
    assert_eq!(dirty(&shrunk(24)), [1]);
    let mut space = shrunk(10);
    assert_eq!((space.maps(), dirty(&space)), (1, vec![0]));
    space.grow(30 * GROUP).unwrap();
    assert_eq!(dirty(&space), [0, 1, 2, 3], "what is new is to be written");
}
