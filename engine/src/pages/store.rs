//! The data file: pages by id, meta slots, free space.
//!
//! Invariants:
//! 1. A meta page is written only after every page it reaches was written and synced, and is read back afterwards.
//! 2. The slot that is written is never the newest durable one: generation `g` goes to slot `g % 2`.
//!
//! - Failure: after a failed meta write its outcome is unknown; the caller stops writing for good.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use northstar_io::{Buf, Disk, File, IoError, OpenMode};

use super::alloc::{PageRun, Space};
use super::free::{self, Persisted};
use super::metas;
use super::write::PageSink;
use super::{Class, Link, PagePin, PageRead, View};
use crate::cache::{Cache, CacheGuard, CacheOptions, Pin};
use crate::error::{Error, Result};
use crate::format::meta::Meta;
use crate::format::page::{Page, PageError, PageKind};
use crate::ids::{Generation, PageId, PageRef, TableId, TxnId};
use crate::stats::Stats;

/// Pages before the first that holds data: the four copies of the meta page.
pub(crate) const META_PAGES: u64 = 4;

/// How to open a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreOptions {
    /// Bytes of a page of a new database.
    pub(crate) page_bytes: u32,
    /// Memory for frames.
    pub(crate) cache_bytes: usize,
    pub(crate) read_only: bool,
}

/// The data file of an open database.
#[derive(Debug)]
pub(crate) struct Store {
    disk: Arc<dyn Disk>,
    file: Arc<dyn File>,
    cache: Cache,
    database: u64,
    page_bytes: usize,
    space: Mutex<Space>,
    persisted: Mutex<Persisted>,
    flushes: AtomicU64,
    bytes_written: AtomicU64,
}

/// An opened store and what its meta slots say.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Store,
    /// The newest sound meta page.
    pub(crate) meta: Meta,
    /// That of the other slot, if it is sound.
    pub(crate) older: Option<Meta>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn data_error(source: IoError) -> Error {
    Error::from_io("the data file", source)
}

impl Store {
    /// Makes the data file of a new database, complete under another name first.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &StoreOptions,
        now_ns: u64,
        database: u128,
    ) -> Result<Opened> {
        let (temporary, path) = (dir.join("data.tmp"), dir.join("data"));
        if disk
            .list(dir)
            .map_err(data_error)?
            .iter()
            .any(|name| name == "data.tmp")
        {
            disk.remove(&temporary).map_err(data_error)?;
        }
        let file = disk
            .open(&temporary, OpenMode::CreateNew)
            .map_err(data_error)?;
        let older = Meta {
            database,
            page_bytes: options.page_bytes,
            generation: Generation::new(0),
            tree_txn: TxnId::ZERO,
            log_start: crate::ids::LogPosition::default(),
            durable_through: crate::ids::Lsn::default(),
            next_table: TableId::FIRST_USER,
            names: None,
            roots: None,
            free_directory: None,
            pages: META_PAGES,
            clean: true,
            created_ns: now_ns,
            checkpoint_ns: now_ns,
            machine: 0,
            sync_method: 0,
        };
        let newest = Meta {
            generation: Generation::new(1),
            ..older.clone()
        };
        for meta in [&older, &newest] {
            metas::write(&*file, meta)?;
        }
        disk.rename(&temporary, &path).map_err(data_error)?;
        disk.sync_dir(dir).map_err(data_error)?;
        drop(file);
        Self::open(disk, dir, options)
    }

    /// Opens the data file. Writes nothing.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, options: &StoreOptions) -> Result<Opened> {
        let mode = if options.read_only {
            OpenMode::Read
        } else {
            OpenMode::Write
        };
        let file = disk.open(&dir.join("data"), mode).map_err(Error::Io)?;
        let metas::Found { meta, older } = metas::read(&*file, dir)?;
        let database = meta.database_low();
        let page_bytes = meta.page_bytes as usize;
        let cache = Cache::new(CacheOptions {
            disk: Arc::clone(&disk),
            file: Arc::clone(&file),
            database,
            page_bytes,
            bytes: options.cache_bytes as u64,
            check: crate::format::check_node,
        })
        .map_err(|source| Error::from_io("the page cache", source))?;
        let store = Self {
            disk,
            file,
            cache,
            database,
            page_bytes,
            space: Mutex::new(Space::new(Default::default(), meta.generation, Vec::new())),
            persisted: Mutex::default(),
            flushes: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
        };
        let newest = store.load_map(&meta)?;
        let mut retired = Vec::new();
        if let Some(older) = &older {
            // What only the older slot reaches is kept until the newest has a successor.
            let was = store.load_map(older)?;
            let only = was.map.pages().filter(|page| !newest.map.get(*page));
            retired.extend(only.map(|page| PageRun {
                first: page,
                count: 1,
            }));
        }
        *lock(&store.space) = Space::new(newest.map.clone(), meta.generation, retired);
        *lock(&store.persisted) = newest;
        Ok(Opened { store, meta, older })
    }

    fn load_map(&self, meta: &Meta) -> Result<Persisted> {
        let mut map = super::alloc::Bitmap::default();
        let Some(directory) = meta.free_directory else {
            map.fill(
                PageRun {
                    first: 0,
                    count: META_PAGES,
                },
                true,
            );
            return Ok(Persisted {
                map,
                pages: Vec::new(),
                directory: None,
            });
        };
        let pin = self.cache.load(directory, Class::Once)?;
        let pages = free::decode_directory(Page::trusted(pin.bytes()))?;
        let mut words = Vec::new();
        for (at, page) in pages.iter().enumerate() {
            words.resize(at * ((self.page_bytes - 64) / 8), 0);
            if let Some(page) = page {
                let pin = self.cache.load(*page, Class::Once)?;
                words.extend(free::decode_window(Page::trusted(pin.bytes()))?);
            }
        }
        let map = super::alloc::Bitmap::from_words(words);
        if map.end() > meta.pages {
            return Err(PageError::OutOfRange {
                page: PageId::new(map.end() - 1),
                pages: meta.pages,
            }
            .into());
        }
        Ok(Persisted {
            map,
            pages,
            directory: Some(directory),
        })
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(crate) fn database(&self) -> u64 {
        self.database
    }

    pub(crate) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// Begins writing the pages of `generation`.
    pub(crate) fn begin_write(&self, generation: Generation) -> Result<PageSink<'_>> {
        PageSink::new(self, generation)
    }

    /// Writes the meta page into its slot, durably, and reads it back.
    pub(crate) fn write_meta(&self, meta: &Meta) -> Result<()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.bytes_written
            .fetch_add(2 * self.page_bytes as u64, Ordering::Relaxed);
        metas::write(&*self.file, meta)
    }

    /// Frees what neither meta slot nor a snapshot reaches.
    pub(crate) fn reclaim(&self, durable: Generation, oldest: Option<Generation>) {
        for run in lock(&self.space).reclaim(durable, oldest) {
            // Before the place is written anew; whoever still looks at a frame has its epoch or pin.
            run.pages().for_each(|page| self.cache.forget(page));
        }
    }

    /// Whether retired pages wait to be freed.
    pub(crate) fn has_retired(&self) -> bool {
        lock(&self.space).has_retired()
    }

    /// Gives free space back to the file system: cuts the end, punches larger holes.
    pub(crate) fn trim(&self) -> Result<()> {
        let space = lock(&self.space);
        let page_bytes = self.page_bytes as u64;
        let end = space.end().max(META_PAGES) * page_bytes;
        if self.file.len().map_err(data_error)? > end {
            self.file.set_len(end).map_err(data_error)?;
        }
        for run in space.free_runs(crate::limits::RUN_PAGES as u64) {
            let (at, len) = (run.first * page_bytes, run.count * page_bytes);
            self.file.punch(at, len).map_err(data_error)?;
        }
        Ok(())
    }

    pub(crate) fn fill_stats(&self, stats: &mut Stats) {
        let cache = self.cache.stats();
        stats.page_bytes = u32::try_from(self.page_bytes).unwrap_or(u32::MAX);
        stats.frames = cache.frames;
        stats.page_reads = cache.misses;
        stats.evictions = cache.evictions;
        stats.data_flushes = self.flushes.load(Ordering::Relaxed);
        stats.data_bytes_written = self.bytes_written.load(Ordering::Relaxed);
        stats.data_file_bytes = self.file.len().unwrap_or(0);
        stats.free_pages = lock(&self.space).free_count();
    }

    /// Pages that belong to no tree: meta pages and the free map.
    pub(crate) fn own_pages(&self, visit: &mut dyn FnMut(PageId, PageKind)) {
        (0..META_PAGES).for_each(|page| visit(PageId::new(page), PageKind::Meta));
        let persisted = lock(&self.persisted);
        if let Some(directory) = persisted.directory {
            visit(directory.id, PageKind::FreeDirectory);
        }
        for page in persisted.pages.iter().flatten() {
            visit(page.id, PageKind::FreeMap);
        }
    }

    /// Compares what a walk reached with the free map; returns how many pages are free.
    pub(crate) fn compare_in_use(
        &self,
        reached: &BTreeMap<PageId, PageKind>,
        faults: &mut Vec<String>,
    ) -> u64 {
        let persisted = lock(&self.persisted);
        for (page, kind) in reached {
            if !persisted.map.get(page.get()) {
                faults.push(format!("page {page}: reached as {kind:?}, marked free"));
            }
        }
        for page in persisted.map.pages().map(PageId::new) {
            if !reached.contains_key(&page) {
                faults.push(format!("page {page}: marked in use, reached from nowhere"));
            }
        }
        persisted.map.end() - persisted.map.count()
    }
}

// What the sink asks for.
impl Store {
    pub(super) fn alloc(&self, count: u64) -> Option<PageRun> {
        lock(&self.space).alloc(count)
    }

    pub(super) fn take_back(&self, runs: &[PageRun]) {
        let mut space = lock(&self.space);
        for run in runs {
            space.take_back(*run);
            run.pages().for_each(|page| self.cache.forget(page));
        }
    }

    pub(super) fn reachable(&self, also: &[PageRun]) -> super::alloc::Bitmap {
        lock(&self.space).reachable(also)
    }

    pub(super) fn persisted(&self) -> Persisted {
        lock(&self.persisted).clone()
    }

    pub(super) fn pages(&self) -> u64 {
        lock(&self.space).end().max(META_PAGES)
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self, bytes: u64) -> Result<()> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
        // Never Full: after a failed sync nothing is known, so this must not be tried again.
        self.file.sync().map_err(Error::Io)
    }

    pub(super) fn committed(&self, by: Generation, retired: Vec<PageRun>, persisted: Persisted) {
        lock(&self.space).retire(by, retired);
        *lock(&self.persisted) = persisted;
    }
}

impl PagePin for Pin<'_> {
    fn page(&self) -> Page<'_> {
        Page::trusted(self.bytes())
    }

    fn frame(&self) -> Option<u32> {
        Pin::frame(self)
    }
}

impl PageRead for Store {
    type Guard<'a> = CacheGuard<'a>;
    type Pin<'a> = Pin<'a>;

    #[inline]
    fn enter(&self) -> CacheGuard<'_> {
        self.cache.enter()
    }

    #[inline]
    fn try_view<'g>(
        &self,
        guard: &'g CacheGuard<'_>,
        page: PageRef,
        link: Option<Link>,
    ) -> Option<View<'g>> {
        guard.view(page, link)
    }

    fn pin<'a>(&'a self, view: View<'_>) -> Pin<'a> {
        self.cache.pin(view)
    }

    fn load(&self, page: PageRef, class: Class) -> Result<Pin<'_>, PageError> {
        self.cache.load(page, class)
    }

    fn prefetch(&self, pages: &[PageRef], class: Class) {
        self.cache.prefetch(pages, class);
    }

    fn read_run(
        &self,
        first: PageId,
        count: u32,
        class: Class,
        each: &mut dyn FnMut(Page<'_>) -> Result<(), PageError>,
    ) -> Result<(), PageError> {
        self.cache.read_run(first, count, class, each)
    }
}
