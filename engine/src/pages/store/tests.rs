//! Generations written, lost, reopened and reclaimed, on a disk in memory.

use std::path::PathBuf;

use northstar_io::{MemoryDisk, NativeDisk, NativeOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::format::page::HEADER_BYTES;
use crate::pages::PageWrite;

const PAGE: usize = 4096;

fn options() -> StoreOptions {
    StoreOptions {
        history: None,
        segment_bytes: 1 << 20,
        page_bytes: 4096,
        cache_bytes: 64 * PAGE,
        read_only: false,
    }
}

fn shared(disk: &Arc<MemoryDisk>) -> Arc<dyn Disk> {
    Arc::<MemoryDisk>::clone(disk)
}

/// An unsealed overflow page with a payload that follows from `seed`.
fn overflow(seed: u64) -> Box<[u8]> {
    let mut page = vec![0; PAGE];
    page[6] = PageKind::Overflow as u8;
    page[24] = 1;
    page[28..32].copy_from_slice(&4096_u32.to_le_bytes());
    for (at, word) in page[HEADER_BYTES..].chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(seed << 10 | at as u64).to_le_bytes());
    }
    page.into()
}

/// A database of loose pages: what the trees of a real one reach.
struct World {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    store: Store,
    meta: Meta,
    older: Option<Meta>,
    /// By generation: the pages it reaches and their seeds. The newest and the one before.
    reached: BTreeMap<Generation, BTreeMap<PageId, (PageRef, u64)>>,
}

impl World {
    fn new() -> Self {
        Self::on(MemoryDisk::new(), Path::new(""))
    }

    fn on(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        let opened = Store::create(Arc::clone(&disk), dir, &options(), (5, 6), false).unwrap();
        let generations = [0, 1].map(|generation| (Generation::new(generation), BTreeMap::new()));
        Self {
            disk,
            dir: dir.to_owned(),
            store: opened.store,
            meta: opened.meta,
            older: opened.older,
            reached: generations.into_iter().collect(),
        }
    }

    fn reopen(&mut self) {
        let opened = Store::open(Arc::clone(&self.disk), &self.dir, &options()).unwrap();
        (self.store, self.meta, self.older) = (opened.store, opened.meta, opened.older);
    }

    fn newest(&self) -> &BTreeMap<PageId, (PageRef, u64)> {
        &self.reached[&self.meta.generation]
    }

    /// Writes the next generation up to `steps`: 0 a dropped sink, 1 a finished one, 2 a durable one.
    fn build(&mut self, random: &mut SmallRng, writes: u64, steps: u32) {
        let generation = self.meta.generation.next();
        self.store.reclaim(self.meta.generation, None);
        let mut sink = self.store.begin_write(generation).unwrap();
        let mut pages = self.newest().clone();
        for _ in 0..random.random_range(0..=writes) {
            let seed = random.random_range(0..1 << 40);
            if random.random_ratio(1, 10) {
                let count = random.random_range(1..40);
                let mut extent = (0..count).map(|i| overflow(seed + i)).collect::<Vec<_>>();
                let refs = sink.write_extent(&mut extent).unwrap();
                for (i, page) in refs.into_iter().enumerate() {
                    pages.insert(page.id, (page, seed + i as u64));
                }
            } else {
                let page = sink.write(&mut overflow(seed)).unwrap();
                pages.insert(page.id, (page, seed));
            }
        }
        for _ in 0..random.random_range(0..=writes * 2) {
            let from = PageId::new(random.random_range(0..self.meta.pages + 1));
            if let Some((&id, _)) = pages.range(from..).next() {
                sink.retire(id, 1).unwrap();
                pages.remove(&id);
            }
        }
        if steps == 0 {
            return drop(sink);
        }
        let written = sink.finish().unwrap();
        if steps == 1 {
            return self.store.abort();
        }
        let mut meta = self.meta.clone();
        meta.generation = generation;
        meta.free_directory = written.free_directory;
        meta.pages = written.pages;
        self.store.write_meta(&meta).unwrap();
        self.reached.insert(generation, pages);
        self.reached
            .retain(|of, _| of.get() + 1 >= generation.get());
        self.older = Some(std::mem::replace(&mut self.meta, meta));
    }

    /// Every page reached reads back, and the map marks exactly those.
    fn check(&self, generation: Generation) {
        let pages = &self.reached[&generation];
        for (page, seed) in pages.values() {
            for class in [Class::Once, Class::Point] {
                let pin = self.store.load(*page, class).unwrap();
                assert!(pin.bytes()[HEADER_BYTES..] == overflow(*seed)[HEADER_BYTES..]);
            }
        }
        let mut reached = pages.keys().map(|&id| (id, PageKind::Overflow)).collect();
        self.store.own_pages(&mut |id, kind| {
            let before: Option<PageKind> = BTreeMap::insert(&mut reached, id, kind);
            assert_eq!(before, None);
        });
        let mut faults = Vec::new();
        self.store.compare_in_use(&reached, &mut faults);
        assert_eq!(faults, Vec::<String>::new());
    }

    fn rot(&self, page: PageId) {
        let file = self
            .disk
            .open(&self.dir.join("data"), OpenMode::Write)
            .unwrap();
        let mut buf = northstar_io::Buf::zeroed(PAGE);
        file.read_at(page.get() * PAGE as u64, &mut buf).unwrap();
        buf[2000] ^= 1;
        file.write_at(page.get() * PAGE as u64, &buf, PAGE).unwrap();
    }
}

#[test]
fn generations_survive_reopening_failed_attempts_and_the_loss_of_the_newest() {
    for seed in 0..6 {
        live(World::new(), seed);
    }
}

#[test]
fn generations_survive_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    live(
        World::on(NativeDisk::new(NativeOptions::default()), dir.path()),
        99,
    );
}

fn live(mut world: World, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..25 {
        // A map page of 4 KiB covers 32256 pages: a few rounds here only, and all paths.
        let steps = [0, 1, 2, 2, 2][random.random_range(0..5)];
        world.build(&mut random, 150, steps);
        match random.random_range(0..6) {
            0 => world.reopen(),
            1 => drop(world.store.trim().unwrap()),
            2 if steps == 2 => {
                // Both copies of the newest meta page rot: the generation before is whole.
                let slot = u64::from(world.meta.generation.get() % 2);
                world.rot(PageId::new(slot));
                world.rot(PageId::new(slot + 2));
                let lost = world.meta.generation;
                world.reopen();
                assert_eq!(world.meta.generation.next(), lost);
                world.reached.remove(&lost);
            }
            _ => {}
        }
        world.check(world.meta.generation);
        let file = world
            .disk
            .open(&world.dir.join("data"), OpenMode::Read)
            .unwrap();
        assert!(file.len().unwrap() >= world.store.state().space.end() * PAGE as u64);
    }
}

#[test]
fn the_file_shrinks_when_its_end_is_free_and_gives_holes_back() {
    let mut world = World::new();
    let write = |world: &mut World, keep: &dyn Fn(u64) -> bool, writes: u64| {
        world.store.reclaim(world.meta.generation, None);
        let generation = world.meta.generation.next();
        let mut sink = world.store.begin_write(generation).unwrap();
        let mut pages = world.newest().clone();
        for (index, &id) in world.newest().keys().enumerate() {
            if !keep(index as u64) {
                sink.retire(id, 1).unwrap();
                pages.remove(&id);
            }
        }
        for seed in 0..writes {
            let page = sink.write(&mut overflow(seed)).unwrap();
            pages.insert(page.id, (page, seed));
        }
        let written = sink.finish().unwrap();
        let mut meta = world.meta.clone();
        (meta.generation, meta.pages) = (generation, written.pages);
        meta.free_directory = written.free_directory;
        world.store.write_meta(&meta).unwrap();
        world.reached.insert(generation, pages);
        world.meta = meta;
    };
    write(&mut world, &|_| true, 2000);
    let full = world.store.state().file_len;
    assert!(full >= 2000 * PAGE as u64);
    // A tenth stays at the start, and one page in the middle.
    write(&mut world, &|index| index < 200 || index == 1000, 0);
    // Two until the pages are free, two until the map itself has left the end.
    for _ in 0..4 {
        write(&mut world, &|_| true, 0);
    }
    world.store.reclaim(world.meta.generation, None);
    world.store.trim().unwrap();
    let file = world
        .disk
        .open(&world.dir.join("data"), OpenMode::Read)
        .unwrap();
    let len = file.len().unwrap();
    assert!(len < full * 6 / 10, "{len} of {full}");
    assert!(
        file.allocated().unwrap() < full * 2 / 10,
        "holes are punched"
    );
    assert_eq!(world.store.trim().unwrap(), 0, "nothing is punched twice");
    world.check(world.meta.generation);
    world.reopen();
    world.check(world.meta.generation);
}

#[test]
fn a_damaged_map_of_free_space_stops_writing_but_not_reading() {
    let mut random = SmallRng::seed_from_u64(3);
    let mut world = World::new();
    world.build(&mut random, 300, 2);
    world.rot(world.meta.free_directory.unwrap().id);
    let opened = Store::open(Arc::clone(&world.disk), &world.dir, &options()).unwrap();
    let refused = opened.store.begin_write(opened.meta.generation.next());
    assert!(matches!(refused, Err(Error::Corrupt(_))));
    let mut faults = Vec::new();
    opened.store.compare_in_use(&BTreeMap::new(), &mut faults);
    assert!(
        faults.len() == 1 && faults[0].contains("checksum"),
        "{faults:?}"
    );
    for (page, _) in world.newest().values() {
        drop(opened.store.load(*page, Class::Point).unwrap());
    }
}

/// A map in pages of its own behind the file: what it is made of, and what is then said of it.
#[test]
fn a_map_that_contradicts_itself_or_the_file_stops_writing() {
    type Change = fn(&mut Vec<Vec<u64>>, &mut Vec<u64>, &mut u64);
    let cases: [(&str, Change); 11] = [
        ("", |_, _, _| ()),
        ("", |_, words, pages| words[0] |= 1 << (*pages - 1)),
        ("bitmaps listed is 0, expected 1", |lists, _, _| {
            lists[0].clear();
        }),
        ("bitmaps listed is 2, expected 1", |lists, _, _| {
            lists[0].push(4);
        }),
        ("bitmaps listed is 1, expected 1", |lists, _, _| {
            lists.push(Vec::new());
        }),
        ("bitmaps listed is 2, expected 1", |lists, _, _| {
            lists.push(vec![4]);
        }),
        ("bitmaps listed is 1, expected 2", |_, _, pages| {
            *pages = 32_257;
        }),
        ("in use is 0, expected 1", |_, words, _| words[0] &= !8),
        ("in use is 0, expected 1", |_, words, _| words[0] &= 0xf),
        // Two lists of one map each are as good as one of two; only then are the bits looked at.
        ("beyond the file", |lists, _, pages| {
            lists.push(vec![4]);
            *pages = 32_300;
        }),
        ("beyond the file", |_, words, pages| words[0] |= 1 << *pages),
    ];
    for (number, (expected, change)) in cases.into_iter().enumerate() {
        let world = World::new();
        let mut meta = world.meta.clone();
        meta.generation = meta.generation.next();
        // The map's page is 4, those of the list are 5 and 6.
        meta.pages = 8;
        let (mut lists, mut words) = (vec![vec![4]], vec![0b111_1111]);
        change(&mut lists, &mut words, &mut meta.pages);
        let file = world.disk.open(Path::new("data"), OpenMode::Write).unwrap();
        file.set_len(8 * PAGE as u64).unwrap();
        let put = |id: u64, fill: &dyn Fn(&mut [u8])| {
            let mut buf = northstar_io::Buf::zeroed(PAGE);
            fill(&mut buf);
            let database = meta.database_low();
            let page =
                crate::format::page::seal(&mut buf, PageId::new(id), meta.generation, database);
            file.write_at(id * PAGE as u64, &buf, PAGE).unwrap();
            page
        };
        let map = put(4, &|page| crate::format::free::encode_map(page, &words));
        let mut next = PageRef::default();
        for (index, list) in lists.iter().enumerate().rev() {
            let maps = vec![map; list.len()];
            next = put(5 + index as u64, &|page| {
                crate::format::free::encode_directory(page, next, &maps);
            });
        }
        meta.free_directory = Some(next);
        metas::write(&*file, &meta).unwrap();
        let opened = Store::open(Arc::clone(&world.disk), &world.dir, &options()).unwrap();
        assert_eq!(opened.meta.generation, meta.generation);
        match opened.store.begin_write(meta.generation.next()) {
            Ok(_) => assert_eq!(expected, "", "case {number}"),
            Err(error) => {
                let error = error.to_string();
                assert!(
                    !expected.is_empty() && error.contains(expected),
                    "{number}: {error}"
                );
            }
        };
    }
}

#[test]
fn a_file_with_pages_and_no_map_stops_writing() {
    let world = World::new();
    let mut meta = world.meta.clone();
    (meta.generation, meta.pages) = (meta.generation.next(), 5);
    meta.free_directory = None;
    let file = world.disk.open(Path::new("data"), OpenMode::Write).unwrap();
    metas::write(&*file, &meta).unwrap();
    let opened = Store::open(Arc::clone(&world.disk), &world.dir, &options()).unwrap();
    let refused = opened.store.begin_write(meta.generation.next()).err();
    let refused = refused.map_or_else(String::new, |error| error.to_string());
    assert!(
        refused.contains("pages without a map is 5, expected 4"),
        "{refused}"
    );
}

#[test]
fn retiring_what_is_not_in_use_is_an_error_and_changes_nothing() {
    let mut random = SmallRng::seed_from_u64(4);
    let mut world = World::new();
    world.build(&mut random, 100, 2);
    for (first, count) in [(0, 1), (u64::MAX, 1), (1 << 20, u32::MAX)] {
        let mut sink = world
            .store
            .begin_write(world.meta.generation.next())
            .unwrap();
        sink.retire(PageId::new(first), count).unwrap_err();
        let error = sink.finish().unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
        world.check(world.meta.generation);
    }
}

#[test]
fn an_interrupted_creation_is_begun_anew_and_a_read_only_store_refuses_writing() {
    let disk = MemoryDisk::new();
    let half = disk
        .open(Path::new("data.tmp"), OpenMode::CreateNew)
        .unwrap();
    half.set_len(99).unwrap();
    let opened = Store::create(shared(&disk), Path::new(""), &options(), (5, 6), false).unwrap();
    assert_eq!(opened.meta.generation, Generation::new(1));
    assert_eq!(
        opened.older.map(|older| older.generation),
        Some(Generation::new(0))
    );
    let read_only = StoreOptions {
        read_only: true,
        ..options()
    };
    let opened = Store::open(disk, Path::new(""), &read_only).unwrap();
    let refused = opened.store.begin_write(opened.meta.generation.next());
    assert!(matches!(refused, Err(Error::ReadOnly)));
}
