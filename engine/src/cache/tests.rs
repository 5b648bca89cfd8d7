//! What the cache promises, on a disk in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use northstar_io::{Buf, Disk, File, MemoryDisk, NativeDisk, NativeOptions, OpenMode};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::format::page::{HEADER_BYTES, seal};
use crate::ids::Generation;

const PAGE: usize = 4096;
const DATABASE: u64 = 77;

/// A whole page of `kind` whose body follows from its id and generation.
fn page(id: u64, generation: u32, kind: PageKind) -> (PageRef, Buf) {
    let mut buf = Buf::zeroed(PAGE);
    let mut state = id << 32 | u64::from(generation);
    for word in buf[HEADER_BYTES..].chunks_exact_mut(8) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        word.copy_from_slice(&state.to_le_bytes());
    }
    buf[6] = kind as u8;
    buf[28..32].copy_from_slice(&4096_u32.to_le_bytes());
    let generation = Generation::new(generation);
    let page = seal(&mut buf, PageId::new(id), generation, DATABASE);
    (page, buf)
}

fn check(page: Page<'_>) -> Result<(), PageError> {
    assert_eq!(page.bytes().len(), PAGE);
    Ok(())
}

struct World {
    cache: Cache,
    file: Arc<dyn File>,
}

impl World {
    fn new(frames: u64) -> Self {
        Self::on(MemoryDisk::new(), Path::new(""), frames)
    }

    fn on(disk: Arc<dyn Disk>, dir: &Path, frames: u64) -> Self {
        let file = disk.open(&dir.join("data"), OpenMode::CreateNew).unwrap();
        let cache = Cache::new(CacheOptions {
            disk,
            file: Arc::clone(&file),
            database: DATABASE,
            page_bytes: PAGE,
            bytes: frames * PAGE as u64,
            check,
        })
        .unwrap();
        Self { cache, file }
    }

    fn write(&self, id: u64, generation: u32, kind: PageKind) -> PageRef {
        let (page, buf) = page(id, generation, kind);
        self.file.write_at(id * PAGE as u64, &buf, PAGE).unwrap();
        page
    }

    fn leaves(&self, ids: std::ops::Range<u64>) -> Vec<PageRef> {
        ids.map(|id| self.write(id, 1, PageKind::Leaf)).collect()
    }

    fn is_resident(&self, page: PageRef) -> bool {
        self.cache.enter().view(page, None).is_some()
    }
}

fn assert_is(bytes: &[u8], wanted: PageRef, kind: PageKind) {
    let (_, expected) = page(wanted.id.get(), wanted.generation.get(), kind);
    assert!(bytes == &*expected, "bytes of {wanted:?}");
}

#[test]
fn a_page_is_read_once_and_then_seen_by_map_and_by_hint() {
    let world = World::new(16);
    let branch = world.write(1, 1, PageKind::Branch);
    let leaf = world.write(2, 1, PageKind::Leaf);
    assert!(!world.is_resident(leaf));
    let parent = world.cache.load(branch, Class::Point).unwrap();
    drop(world.cache.load(leaf, Class::Point).unwrap());
    let link = Some(Link {
        parent: parent.frame().unwrap(),
        index: 3,
    });
    let guard = world.cache.enter();
    let by_map = guard.view(leaf, link).unwrap();
    let by_hint = guard.view(leaf, link).unwrap();
    assert_eq!(by_map.frame, by_hint.frame);
    assert_is(by_hint.page.bytes(), leaf, PageKind::Leaf);
    drop(guard);
    assert_eq!(world.cache.stats().reads, 2);
    assert_eq!(world.cache.stats().frames_branch, 1);
}

#[test]
fn a_page_with_another_checksum_or_generation_is_not_the_page() {
    let world = World::new(16);
    let old = world.write(2, 1, PageKind::Leaf);
    drop(world.cache.load(old, Class::Point).unwrap());
    let new = world.write(2, 2, PageKind::Leaf);
    assert!(!world.is_resident(new));
    let pin = world.cache.load(new, Class::Point).unwrap();
    assert_is(pin.bytes(), new, PageKind::Leaf);
    assert!(!world.is_resident(old));
    let error = world.cache.load(old, Class::Point).unwrap_err();
    assert!(matches!(error, PageError::Stale { .. }), "{error}");
    assert!(
        world.is_resident(new),
        "a failed load leaves the rest alone"
    );
}

#[test]
fn damage_is_read_twice_and_then_reported_and_far_pages_are_out_of_range() {
    let world = World::new(16);
    let page = world.write(2, 1, PageKind::Leaf);
    let mut buf = page_bytes_of(2, 1, PageKind::Leaf);
    buf[99] ^= 1;
    world.file.write_at(2 * PAGE as u64, &buf, PAGE).unwrap();
    for class in [Class::Point, Class::Once] {
        let error = world.cache.load(page, class).unwrap_err();
        assert!(matches!(error, PageError::Checksum { .. }), "{error}");
    }
    assert_eq!(world.cache.stats().retries, 2);
    for id in [3, u64::MAX / 4096] {
        let far = PageRef {
            id: PageId::new(id),
            ..page
        };
        let error = world.cache.load(far, Class::Point).unwrap_err();
        assert!(matches!(error, PageError::OutOfRange { .. }), "{error}");
    }
    assert_eq!(world.cache.stats().frames_free, 16, "frames are given back");
}

#[test]
fn pins_survive_pressure_and_more_pins_than_frames_use_the_heap() {
    let world = World::new(8);
    let pages = world.leaves(0..64);
    let pins = pages
        .iter()
        .map(|&page| world.cache.load(page, Class::Point).unwrap())
        .collect::<Vec<_>>();
    for (pin, &page) in pins.iter().zip(&pages) {
        assert_is(pin.bytes(), page, PageKind::Leaf);
    }
    let framed = pins.iter().filter(|pin| pin.frame().is_some()).count();
    assert!(framed <= 8, "{framed} frames of 8");
    assert_eq!(world.cache.stats().fallbacks, 64 - framed as u64);
    drop(pins);
    let pin = world.cache.load(pages[60], Class::Point).unwrap();
    assert!(pin.frame().is_some(), "frames come back");
}

#[test]
fn a_view_becomes_a_pin_that_outlives_eviction() {
    let world = World::new(8);
    let pages = world.leaves(0..40);
    drop(world.cache.load(pages[0], Class::Point).unwrap());
    let pin = {
        let guard = world.cache.enter();
        let view = guard.view(pages[0], None).unwrap();
        world.cache.pin(view)
    };
    world.cache.forget(PageId::new(0));
    for &page in &pages[1..] {
        drop(world.cache.load(page, Class::Point).unwrap());
    }
    assert_is(pin.bytes(), pages[0], PageKind::Leaf);
}

#[test]
fn a_scan_of_any_length_leaves_hot_pages_and_branches_alone() {
    for ahead in [false, true] {
        let world = World::new(64);
        let hot = world.leaves(0..40);
        let branches = (40..44)
            .map(|id| world.write(id, 1, PageKind::Branch))
            .collect::<Vec<_>>();
        let cold = world.leaves(100..1100);
        for &page in hot.iter().chain(&branches) {
            drop(world.cache.load(page, Class::Point).unwrap());
        }
        for window in cold.chunks(8) {
            if ahead {
                world.cache.prefetch(window, Class::Scan);
            }
            for &page in window {
                drop(world.cache.load(page, Class::Scan).unwrap());
                assert!(world.is_resident(page));
            }
        }
        let stays = |pages: &[PageRef]| {
            pages
                .iter()
                .filter(|&&page| world.is_resident(page))
                .count()
        };
        assert_eq!((stays(&hot), stays(&branches)), (40, 4), "ahead: {ahead}");
        assert_eq!(world.cache.stats().reads, 1044, "ahead: {ahead}");
    }
}

#[test]
fn branches_stay_while_leaves_come_and_go() {
    let world = World::new(64);
    let branches = (0..8)
        .map(|id| world.write(id, 1, PageKind::Branch))
        .collect::<Vec<_>>();
    for &page in &branches {
        drop(world.cache.load(page, Class::Point).unwrap());
    }
    for page in world.leaves(100..600) {
        drop(world.cache.load(page, Class::Point).unwrap());
    }
    assert!(branches.iter().all(|&page| world.is_resident(page)));
    assert!(world.cache.stats().evictions >= 400);
}

#[test]
fn pages_read_once_do_not_enter_the_cache() {
    let world = World::new(16);
    let pages = world.leaves(0..PREFETCH_MAX as u64);
    world.cache.prefetch(&pages, Class::Once);
    for &page in &pages {
        let pin = world.cache.load(page, Class::Once).unwrap();
        assert_is(pin.bytes(), page, PageKind::Leaf);
        assert!(!world.is_resident(page));
    }
    assert_eq!(world.cache.stats().reads, pages.len() as u64);
    assert_eq!(world.cache.stats().frames_free, 16);
}

#[test]
fn a_thread_that_ends_gives_its_reads_ahead_back() {
    let world = World::new(64);
    let pages = world.leaves(0..16);
    std::thread::scope(|scope| {
        scope.spawn(|| world.cache.prefetch(&pages, Class::Point));
    });
    assert_eq!(world.cache.ahead.load(Ordering::Relaxed), 0);
    let resident = pages
        .iter()
        .filter(|&&page| world.is_resident(page))
        .count() as u64;
    assert_eq!(world.cache.stats().frames_free, 64 - resident);
}

#[test]
fn overflow_runs_are_read_in_order_and_small_ones_are_kept() {
    let world = World::new(64);
    for id in 5..105 {
        world.write(id, 1, PageKind::Overflow);
    }
    for (pages, again) in [(10, 0), (100, 6)] {
        for reads in [pages_to_reads(pages), again] {
            let before = world.cache.stats().reads;
            let mut ids = Vec::new();
            let mut each = |page: Page<'_>| {
                ids.push(page.id().get());
                Ok(())
            };
            let first = PageId::new(5);
            world
                .cache
                .read_run(first, pages, Class::Point, &mut each)
                .unwrap();
            assert_eq!(ids, (5..5 + u64::from(pages)).collect::<Vec<_>>());
            assert_eq!(world.cache.stats().reads - before, reads);
        }
    }
    world.write(50, 1, PageKind::Leaf);
    let error = world
        .cache
        .read_run(PageId::new(5), 100, Class::Once, &mut |_| Ok(()))
        .unwrap_err();
    assert!(matches!(error, PageError::Kind { .. }), "{error}");
}

fn pages_to_reads(pages: u32) -> u64 {
    // The first ten are resident by the second round.
    u64::from(if pages > 10 {
        (pages - 10).div_ceil(16)
    } else {
        1
    })
}

#[test]
fn written_pages_take_the_place_of_those_they_supersede() {
    let world = World::new(32);
    let (new, bytes) = page(9, 2, PageKind::Leaf);
    world.cache.insert(new, &bytes, false);
    assert!(world.is_resident(new), "there was room");
    for page in world.leaves(100..200) {
        drop(world.cache.load(page, Class::Point).unwrap());
    }
    let (newer, bytes) = page(10, 3, PageKind::Leaf);
    world.cache.insert(newer, &bytes, true);
    assert!(world.is_resident(newer));
    world.cache.forget(newer.id);
    assert!(!world.is_resident(newer));
}

/// Four readers over an arena an eighth of the data, while a writer rewrites pages as a checkpoint does: a page's
/// place is written anew only after it was forgotten and no reader can ask for the old version.
#[test]
fn readers_see_the_right_bytes_while_pages_are_rewritten() {
    read_while_rewriting(&World::new(16), 3000);
}

/// The same over the kernel: completions arrive late and in any order.
#[test]
fn readers_of_a_real_disk_see_the_right_bytes_while_pages_are_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let disk = NativeDisk::new(NativeOptions::default());
    read_while_rewriting(&World::on(disk, dir.path(), 16), 400);
}

fn read_while_rewriting(world: &World, rewrites: u32) {
    const PAGES: u64 = 128;
    world.leaves(0..PAGES);
    let at = |id: u64| usize::try_from(id).unwrap();
    // Twice the version on disk, plus one while it is being rewritten: readers do not ask for it then, but reads
    // they began before go on.
    let versions = (0..PAGES).map(|_| AtomicU32::new(2)).collect::<Vec<_>>();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (versions, stop) = (&versions, &stop);
            scope.spawn(move || {
                let mut random = SmallRng::seed_from_u64(seed);
                let mut held = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let id = random.random_range(0..PAGES);
                    let before = versions[at(id)].load(Ordering::Acquire);
                    let version = before / 2;
                    if before % 2 == 1 {
                        continue;
                    }
                    let (wanted, expected) = page(id, version, PageKind::Leaf);
                    let guard = world.cache.enter();
                    if let Some(view) = guard.view(wanted, None) {
                        assert!(view.page.bytes() == &*expected, "{wanted:?}");
                        if random.random_ratio(1, 8) {
                            held.push((world.cache.pin(view), expected));
                        }
                        continue;
                    }
                    drop(guard);
                    let class = [Class::Point, Class::Scan, Class::Once][random.random_range(0..3)];
                    if random.random_ratio(1, 4) {
                        world.cache.prefetch(&[wanted], class);
                    }
                    match world.cache.load(wanted, class) {
                        Ok(pin) => held.push((pin, expected)),
                        // Rewritten under our feet: only then may it fail.
                        Err(error) => {
                            let now = versions[at(id)].load(Ordering::Acquire);
                            assert!(now != before, "{error}");
                        }
                    }
                    if held.len() > random.random_range(0..6) {
                        let one = random.random_range(0..held.len());
                        let (pin, expected) = held.swap_remove(one);
                        assert!(pin.bytes() == &*expected, "pin of {wanted:?}");
                    }
                }
            });
        }
        let mut random = SmallRng::seed_from_u64(99);
        for _ in 0..rewrites {
            let id = random.random_range(0..PAGES);
            let writing = versions[at(id)].fetch_add(1, Ordering::AcqRel) + 1;
            world.cache.forget(PageId::new(id));
            world.write(id, writing.div_ceil(2), PageKind::Leaf);
            versions[at(id)].store(writing + 1, Ordering::Release);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let stats = world.cache.stats();
    assert!(stats.evictions > 0 && stats.frames == 16, "{stats:?}");
    while world.cache.arena.free_count() < 16 {
        // Whatever was pinned, retired or in flight comes back in the end.
        for id in 0..PAGES {
            world.cache.forget(PageId::new(id));
        }
        world.cache.reclaim();
        std::thread::yield_now();
    }
}

fn page_bytes_of(id: u64, generation: u32, kind: PageKind) -> Buf {
    page(id, generation, kind).1
}
