//! The data file as a store of pages: one value that reads through the cache and writes generation by generation.
//!
//! A generation is written in three steps: [`Store::begin_write`] gives a sink; [`PageSink::finish`] leaves its
//! pages durable; [`Store::write_meta`] makes them the newest generation. Anything that fails before the third
//! step leaves the store as it was. Should the third step, or a flush, fail, it is unknown which generation the
//! file holds: the store then writes nothing more, and reopening tells.
//!
//! Invariants:
//! 1. At most one generation is being built.
//! 2. The bitmap stored by generation `n` marks exactly the pages `n` reaches.
//! 3. No page is written that a durable meta page or a snapshot reaches, meta pages themselves excepted.
//!
//! - Threads: any reads. Whoever owns checkpoints writes; nothing else takes the lock for long.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use northstar_io::planted::planted;
use northstar_io::{BufPool, Disk, File, IoError, OpenMode};

use super::alloc::{Space, Span};
use super::free::{StoredMap, ends_by};
use super::metas;
use super::write::PageSink;
use super::{PagePin, PageRead};
use crate::cache::{Cache, CacheGuard, CacheOptions, Class, Link, Pin, View};
use crate::error::{Error, Result};
use crate::format::check_node;
use crate::format::free::pages_per_map;
use crate::format::meta::{COPIES, HistoryMeta, Meta};
use crate::format::page::{Page, PageError, PageKind};
use crate::ids::{Generation, LogPosition, Lsn, PageId, PageRef, TableId, TxnId};
use crate::limits::RUN_PAGES;
use crate::marks::{Mark, reached};
use crate::stats::Stats;
use crate::sync::{Mutex, MutexGuard};

/// Name of the data file in the database's directory.
const DATA: &str = "data";
/// Its name until it is complete.
const DATA_NEW: &str = "data.tmp";
/// The file grows by so much at a time, at least and at most: growing writes are slow.
const GROW_BYTES: std::ops::RangeInclusive<u64> = 256 << 10..=64 << 20;
/// Spans given back to the file system by one call, so that it ends soon.
const PUNCH_MAX: usize = 1024;
/// Bytes of buffers kept for runs of new pages: as many as are in flight with the default page size.
const BATCH_BYTES: usize = 2560 << 10;
/// Faults that a comparison names before it only counts.
const FAULTS_MAX: u64 = 16;

/// What a store is opened with.
#[derive(Debug, Clone)]
pub(crate) struct StoreOptions {
    /// Bytes of a page, when creating. An existing file knows its own.
    pub(crate) page_bytes: u32,
    /// Bytes of a log segment, when creating. An existing file knows its own.
    pub(crate) segment_bytes: u32,
    /// What is said of history, when creating. An existing file knows its own.
    pub(crate) history: Option<HistoryMeta>,
    /// Memory for cached pages.
    pub(crate) cache_bytes: usize,
    /// Nothing may be written.
    pub(crate) read_only: bool,
}

/// An open store and what its meta pages say.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The store.
    pub(crate) store: Store,
    /// The newest sound meta page.
    pub(crate) meta: Meta,
    /// The generation before, if its slot is sound.
    pub(crate) older: Option<Meta>,
}

/// The pages of one data file.
#[derive(Debug)]
pub(crate) struct Store {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) file: Arc<dyn File>,
    pub(super) cache: Cache,
    pub(super) database: u64,
    pub(super) page_bytes: usize,
    /// Buffers for runs of pages on their way to the file.
    pub(super) batches: Arc<BufPool>,
    /// Copies of the meta page that opening found not fit to stay.
    unfit: Vec<PageId>,
    /// Why the map of free space could not be read.
    damage: Option<PageError>,
    state: Mutex<State>,
    flushes: AtomicU64,
    bytes_written: AtomicU64,
}

/// What writers change.
#[derive(Debug)]
pub(super) struct State {
    pub(super) space: Space,
    /// The map of free space as the newest generation has it.
    pub(super) stored: StoredMap,
    /// As the generation being built has it.
    pub(super) staged: Option<StoredMap>,
    /// The generation being built.
    building: Option<Generation>,
    /// Its pages are durable.
    pub(super) ready: bool,
    /// Length of the file in bytes.
    file_len: u64,
    /// Why nothing can be written.
    refused: Option<Error>,
}

/// Lifts a device's error.
pub(super) fn data_error(source: IoError) -> Error {
    Error::from_io("the data file", source)
}

impl Store {
    /// Makes an empty database's data file in `dir`: under another name first, so that it is whole or not there.
    ///
    /// # Errors
    /// The device's; `EEXIST` is not among them for what an interrupted creation left.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &StoreOptions,
        (now_ns, database): (u64, u128),
        restoring: bool,
    ) -> Result<Opened> {
        let mut meta = Meta {
            database,
            page_bytes: options.page_bytes,
            segment_bytes: options.segment_bytes,
            generation: Generation::new(0),
            tree_txn: TxnId::ZERO,
            log_start: LogPosition::default(),
            durable_through: Lsn::default(),
            next_table: TableId::FIRST_USER,
            names: None,
            roots: None,
            history: options.history,
            free_directory: None,
            pages: COPIES,
            clean: true,
            restoring,
            created_ns: now_ns,
            checkpoint_ns: now_ns,
            machine: 0,
            sync_method: 0,
        };
        let (new, path) = (dir.join(DATA_NEW), dir.join(DATA));
        let names = disk.list(dir).map_err(data_error)?;
        if names.iter().any(|name| name == DATA_NEW) {
            reached(Mark::CreationRepeated);
            disk.remove(&new).map_err(data_error)?;
        }
        let file = disk.open(&new, OpenMode::CreateNew).map_err(data_error)?;
        let len = COPIES * u64::from(options.page_bytes);
        file.set_len(len).map_err(data_error)?;
        // Both slots, so that there is one to fall back to from the first day.
        metas::write(&*file, &meta)?;
        meta.generation = meta.generation.next();
        metas::write(&*file, &meta)?;
        disk.rename(&new, &path).map_err(data_error)?;
        disk.sync_dir(dir).map_err(data_error)?;
        drop(file);
        Self::open(disk, dir, options)
    }

    /// Opens the data file in `dir` at its newest sound generation.
    ///
    /// # Errors
    /// If no meta page is sound, or the device fails. A damaged map of free space is an error only of
    /// [`Store::begin_write`]: the pages can still be read.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, options: &StoreOptions) -> Result<Opened> {
        let mode = match options.read_only {
            true => OpenMode::Read,
            false => OpenMode::Write,
        };
        let file = disk.open(&dir.join(DATA), mode).map_err(Error::Io)?;
        // A process that was killed may have writes on their way still; they end before its hold does.
        file.hold();
        let metas::Found {
            meta: newest,
            older,
            unfit,
        } = metas::read(&*file, dir)?;
        let page_bytes = newest.page_bytes as usize;
        let file_len = file.len().map_err(Error::Io)?;
        let cache = Cache::new(CacheOptions {
            disk: Arc::clone(&disk),
            file: Arc::clone(&file),
            database: newest.database_low(),
            page_bytes,
            bytes: options.cache_bytes as u64,
            check: check_node,
        })
        .map_err(|source| Error::from_io("the page cache", source))?;
        let per_map = pages_per_map(page_bytes);
        let load = |meta: &Meta| {
            let (stored, live) =
                StoredMap::load(&cache, meta.free_directory, meta.pages, page_bytes)?;
            ends_by(&live, file_len / page_bytes as u64)?;
            Ok((stored, live))
        };
        let (stored, space, damage) = match load(&newest) {
            Ok((stored, live)) => {
                let mut space = Space::new(live, newest.pages, per_map);
                // If the older map cannot be read, the older generation is no place to fall back to anyway.
                let held = !planted("pages of the older meta slot are free after opening");
                if let Some(Ok((_, live))) = older.as_ref().filter(|_| held).map(load) {
                    space.hold_all(&live, newest.generation);
                }
                (stored, space, None::<PageError>)
            }
            Err(error) => (StoredMap::default(), Space::empty(per_map), Some(error)),
        };
        let refused = match &damage {
            _ if options.read_only => Some(Error::ReadOnly),
            Some(error) => Some(error.clone().into()),
            None => None,
        };
        let store = Self {
            disk,
            file,
            cache,
            database: newest.database_low(),
            page_bytes,
            batches: BufPool::new(
                page_bytes * RUN_PAGES,
                BATCH_BYTES / (page_bytes * RUN_PAGES),
            ),
            unfit,
            damage,
            state: Mutex::new(State {
                space,
                stored,
                staged: None,
                building: None,
                ready: false,
                file_len,
                refused,
            }),
            flushes: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
        };
        Ok(Opened {
            store,
            meta: newest,
            older,
        })
    }

    /// Copies of meta pages that are sound in the file, of four.
    pub(crate) fn meta_copies(&self, newest: &Meta) -> Result<u64> {
        metas::sound_copies(&*self.file, newest)
    }

    /// Starts building `generation`. One that was begun and never made durable is given up.
    ///
    /// # Errors
    /// If the store is read-only, damaged or halted, or no queue can be made.
    pub(crate) fn begin_write(&self, generation: Generation) -> Result<PageSink<'_>> {
        let sink = PageSink::new(self, generation)?;
        let mut state = self.state();
        if let Some(refused) = &state.refused {
            let refused = refused.clone();
            drop(state);
            return Err(refused);
        }
        state.give_up();
        state.space.begin(generation);
        state.building = Some(generation);
        drop(state);
        Ok(sink)
    }

    /// Makes the generation that was built the newest one, durably.
    ///
    /// # Errors
    /// The device's, or that the page does not read back. The store is then halted.
    pub(crate) fn write_meta(&self, meta: &Meta) -> Result<()> {
        let mut state = self.state();
        if let Some(refused) = &state.refused {
            return Err(refused.clone());
        }
        assert_eq!(
            state.building,
            Some(meta.generation),
            "the generation built"
        );
        assert!(state.ready, "{:?} is not finished", meta.generation);
        self.count_flushed(2 * self.page_bytes as u64);
        if let Err(error) = metas::write(&*self.file, meta) {
            drop(state);
            self.halt(meta.generation, &error);
            return Err(error);
        }
        state.space.commit();
        if let Some(staged) = state.staged.take() {
            state.stored = staged;
        }
        state.building = None;
        state.ready = false;
        Ok(())
    }

    /// Frees the pages that neither a meta slot nor a snapshot reaches: `durable` is the newest meta page's
    /// generation, `oldest` the oldest one that a snapshot reads.
    pub(crate) fn reclaim(&self, durable: Generation, oldest: Option<Generation>) {
        let freed = self.state().space.reclaim(durable, oldest);
        for id in freed
            .iter()
            .flat_map(|span| span.first..span.first + span.count)
        {
            self.cache.forget(PageId::new(id));
        }
        // Their frames take the next pages, before any that was never used.
        self.cache.reclaim();
    }

    /// Gives free space back to the file system: the end of the file, and long free runs inside. Returns the bytes.
    ///
    /// # Errors
    /// The device's. Nothing is lost then but the space.
    pub(crate) fn trim(&self) -> Result<u64> {
        let mut state = self.state();
        if state.refused.is_some() || state.building.is_some() {
            return Ok(0);
        }
        let page = self.page_bytes as u64;
        state.space.trim_end();
        let (end, before) = (state.space.end() * page, state.file_len);
        if end < before {
            reached(Mark::FileTrimmed);
            self.file.set_len(end).map_err(data_error)?;
            state.file_len = end;
        }
        let holes = state.space.punch(PUNCH_MAX);
        drop(state);
        let mut bytes = before.saturating_sub(end);
        for Span { first, count } in holes {
            // Free pages cannot be given out meanwhile: only the caller, who owns checkpoints, takes any.
            let hole = (first * page, count * page);
            reached(Mark::FilePunched);
            self.file.punch(hole.0, hole.1).map_err(data_error)?;
            bytes += count * page;
        }
        Ok(bytes)
    }

    /// Bytes of a page.
    pub(crate) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// Makes durable what opening found: a process that was killed may have written the newest meta page and not synced
    /// it. To be called before anything is built on that generation.
    ///
    /// If the sync has failed before, what was read may be the system's memory alone, and another sync make up for
    /// nothing. So unless reads pass by that memory, `newest` is written anew: while `older` stands in for it. Alone, it
    /// must not be touched; the next generation then goes where nothing sound is. Copies that are not fit to stay are mended.
    ///
    /// # Errors
    /// The device's; what the file holds is unknown then.
    pub(crate) fn settle(&self, newest: &Meta, older: bool) -> Result<()> {
        if planted("what opening found is not made durable") {
            return Ok(());
        }
        self.flushes.fetch_add(1, Ordering::Relaxed);
        reached(Mark::SettledFirst);
        metas::mend(&*self.file, &self.unfit, newest).map_err(Error::Io)?;
        match older && !self.disk.status().direct {
            true => metas::write(&*self.file, newest),
            false => self.file.sync().map_err(Error::Io),
        }
    }

    /// Lets go of what the calling thread still has under way.
    pub(crate) fn leave(&self) {
        self.cache.leave();
    }

    /// Bytes of pages that are held for snapshots alone: `durable` is the newest meta page's generation.
    pub(crate) fn held_before(&self, durable: Generation) -> u64 {
        self.state().space.held_before(durable) * self.page_bytes as u64
    }

    /// Bytes of pages that a snapshot of `generation` may still read and that are not in the newest state.
    pub(crate) fn held_since(&self, generation: Generation) -> u64 {
        self.state().space.held_since(generation) * self.page_bytes as u64
    }

    /// Adds what the store holds and did.
    pub(crate) fn fill_stats(&self, stats: &mut Stats) {
        let cache = self.cache.stats();
        stats.page_bytes = u32::try_from(self.page_bytes).unwrap_or(u32::MAX);
        stats.frames = cache.frames;
        stats.page_reads = cache.misses;
        stats.evictions = cache.evictions;
        stats.data_flushes = self.flushes.load(Ordering::Relaxed);
        stats.data_bytes_written = self.bytes_written.load(Ordering::Relaxed);
        let state = self.state();
        stats.data_file_bytes = state.file_len;
        stats.free_pages = state.space.free();
    }

    /// Names the pages that belong to no tree: meta pages and the map of free space.
    pub(crate) fn own_pages(&self, each: &mut dyn FnMut(PageId, PageKind)) {
        let stored = self.state().stored.clone();
        (0..COPIES).for_each(|copy| each(PageId::new(copy), PageKind::Meta));
        for (pages, kind) in [
            (stored.maps, PageKind::FreeMap),
            (stored.directory, PageKind::FreeDirectory),
        ] {
            pages.into_iter().for_each(|page| each(page.id, kind));
        }
    }

    /// Compares the pages `reached` with those marked in use, notes the differences, and returns how many pages of
    /// the file are not in use.
    pub(crate) fn compare_in_use(
        &self,
        reached: &BTreeMap<PageId, PageKind>,
        faults: &mut Vec<String>,
    ) -> u64 {
        if let Some(damage) = &self.damage {
            faults.push(format!("the map of pages in use: {damage}"));
            return 0;
        }
        let state = self.state();
        let (mut in_use, mut differences) = (0, 0);
        let mut note = |fault: String| {
            differences += 1;
            if differences <= FAULTS_MAX {
                faults.push(fault);
            }
        };
        for page in 0..state.space.end() {
            let (id, live) = (PageId::new(page), state.space.is_live(page));
            in_use += u64::from(live);
            match (live, reached.get(&id)) {
                (true, None) => note(format!(
                    "page {page} is marked in use, but nothing reaches it"
                )),
                (false, Some(kind)) => note(format!("page {page} ({kind:?}) is not marked in use")),
                _ => {}
            }
        }
        let beyond = PageId::new(state.space.end());
        for (page, kind) in reached.range(beyond..) {
            note(format!("page {page} ({kind:?}) lies beyond the file"));
        }
        if differences > FAULTS_MAX {
            faults.push(format!("{} more pages", differences - FAULTS_MAX));
        }
        state.space.end() - in_use
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that panics while it holds the lock leaves more than a generation that will never be durable.
        self.state.lock()
    }

    /// Makes the file at least `pages` long.
    pub(super) fn make_room(&self, state: &mut State, pages: u64) -> Result<(), IoError> {
        let needed = pages * self.page_bytes as u64;
        if needed > state.file_len {
            let step = (state.file_len / 8).clamp(*GROW_BYTES.start(), *GROW_BYTES.end());
            let len = needed.next_multiple_of(step.next_power_of_two());
            // A quota or a limit on file lengths may leave room for what is needed, and no more.
            let len = match self.file.set_len(len) {
                Ok(()) => len,
                Err(_) => {
                    self.file.set_len(needed)?;
                    needed
                }
            };
            state.file_len = len;
        }
        Ok(())
    }

    /// Gives up the generation being built.
    pub(super) fn abort(&self) {
        self.state().give_up();
    }

    /// Pages written to the data file since it was opened.
    pub(crate) fn pages_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed) / self.page_bytes as u64
    }

    /// Counts a flush, and the bytes written before it.
    pub(super) fn count_flushed(&self, bytes: u64) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Writes nothing more: what the file holds is unknown.
    pub(super) fn halt(&self, generation: Generation, reason: &dyn Display) {
        self.state().refused.get_or_insert_with(|| Error::Halted {
            reason: format!("the fate of {generation:?} is unknown: {reason}").into(),
        });
    }
}

impl State {
    fn give_up(&mut self) {
        self.space.abort();
        self.staged = None;
        self.building = None;
        self.ready = false;
    }
}

impl PageRead for Store {
    type Guard<'a> = CacheGuard<'a>;
    type Pin<'a> = Pin<'a>;

    fn enter(&self) -> CacheGuard<'_> {
        self.cache.enter()
    }

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

impl PagePin for Pin<'_> {
    fn page(&self) -> Page<'_> {
        Page::trusted(self.bytes())
    }

    fn frame(&self) -> Option<u32> {
        Pin::frame(self)
    }
}

#[cfg(test)]
mod tests;
