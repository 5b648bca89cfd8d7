//! Writing one generation: pages get their ids in writing order and go out in runs, some in flight at a time.
//!
//! - Threads: one sink at a time; any thread.
//! - Units: a run is up to [`RUN_PAGES`] neighbouring pages, one write each.
//! - Failure: dropping a sink that was not finished waits for its writes and gives every page back; the file's
//!   generations are untouched, and the attempt can be repeated. See [`super::store`] for what halts the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use northstar_io::planted::planted;
use northstar_io::{Buf, Completion, Op, Queue};

use super::PageWrite;
use super::alloc::Span;
use super::store::{State, Store, data_error};
use crate::error::{Error, Result};
use crate::format::page::{Page, PageError, PageKind, seal};
use crate::ids::{Generation, PageId, PageRef, TableId};
use crate::limits::{PAGES_MAX, RUN_PAGES};
use crate::marks::{Mark, reached};

/// Writes in flight: enough for bandwidth, few enough that readers' requests are not stuck behind them.
const DEPTH: u32 = 8;

/// Takes the pages of one generation.
#[derive(Debug)]
pub(crate) struct PageSink<'s> {
    store: &'s Store,
    generation: Generation,
    queue: Box<dyn Queue>,
    /// Pages not yet submitted: `filled` of them, from page `batch_first` on.
    batch: Buf,
    batch_first: u64,
    filled: usize,
    /// Where the next pages of the run go.
    run: Span,
    ended: Vec<Completion>,
    written: Arc<AtomicU64>,
    /// The first failure; nothing is written after it.
    failed: Option<PageError>,
    /// Resident nodes superseded so far whose successors may take their place in the cache.
    successors: u64,
    finished: bool,
}

/// What a finished sink leaves to be put into the meta page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    /// First page of the free directory.
    pub(crate) free_directory: Option<PageRef>,
    /// Pages of the file.
    pub(crate) pages: u64,
}

impl<'s> PageSink<'s> {
    pub(super) fn new(store: &'s Store, generation: Generation) -> Result<Self> {
        Ok(Self {
            store,
            generation,
            queue: store.disk.queue(DEPTH).map_err(data_error)?,
            batch: store.batches.take(),
            batch_first: 0,
            filled: 0,
            run: Span { first: 0, count: 0 },
            ended: Vec::new(),
            written: Arc::default(),
            failed: None,
            successors: 0,
            finished: false,
        })
    }

    /// Counts the bytes written so far, for whoever paces the writer.
    pub(crate) fn bytes_written_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.written)
    }

    /// Writes the map of free space, waits for every write and flushes. The generation is still nobody's until
    /// [`Store::write_meta`] names it.
    ///
    /// # Errors
    /// The first failure of any write. Then the store is as before [`Store::begin_write`].
    pub(crate) fn finish(mut self) -> Result<Written> {
        self.flush()?;
        for (id, page) in self.build_map()? {
            self.submit(id, page)?;
        }
        self.drain()?;
        let bytes = self.written.load(Ordering::Relaxed);
        if bytes > 0 {
            self.store.count_flushed(bytes);
            let unsynced = planted("pages are not synced before the meta page that names them");
            if !unsynced && let Err(source) = self.store.file.sync() {
                reached(Mark::SyncFailed);
                // Which of its writes, or of earlier ones, are lost is unknown.
                self.store.halt(self.generation, &source);
                return Err(Error::Io(source));
            }
        }
        self.finished = true;
        let mut state = self.store.state();
        state.ready = true;
        let stored = state.staged.as_ref().unwrap_or(&state.stored);
        Ok(Written {
            free_directory: stored.first(),
            pages: state.space.end(),
        })
    }

    /// The pages of the next map of free space, sealed. From here on no page is given out or retired.
    fn build_map(&mut self) -> Result<Vec<(u64, Buf)>, PageError> {
        let page_bytes = self.store.page_bytes;
        let mut state = self.store.state();
        let Span { first, count } = self.run;
        if !state.space.untake(self.run) {
            return Err(PageError::Structure {
                page: PageId::new(first),
                what: "pages given out and not in use",
                found: count,
                expected: 0,
            });
        }
        self.run.count = 0;
        let stored = state.stored.clone();
        let Some(plan) = stored.plan(&mut state.space, page_bytes)? else {
            return Ok(Vec::new());
        };
        self.make_room(&mut state)?;
        let mut pages = Vec::new();
        let mut page = vec![0; page_bytes];
        let next = stored.write(&plan, &state.space, &mut page, &mut |id, page| {
            self.store.cache.forget(id);
            let sealed = seal(page, id, self.generation, self.store.database);
            let mut buf = Buf::zeroed(page_bytes);
            buf.copy_from_slice(page);
            pages.push((id.get(), buf));
            Ok(sealed)
        })?;
        state.staged = Some(next);
        Ok(pages)
    }

    /// A page by itself, sealed.
    fn put(&mut self, id: u64, page: &[u8]) -> Result<(), PageError> {
        let mut buf = Buf::zeroed(self.store.page_bytes);
        buf.copy_from_slice(page);
        self.submit(id, buf)
    }

    /// Puts a sealed page of the run into the batch.
    fn add(&mut self, id: u64, page: &[u8]) -> Result<(), PageError> {
        if self.filled == 0 {
            self.batch_first = id;
        }
        let at = self.filled * self.store.page_bytes;
        self.batch[at..at + page.len()].copy_from_slice(page);
        self.filled += 1;
        if self.filled == RUN_PAGES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PageError> {
        let pages = std::mem::take(&mut self.filled);
        if pages == 0 {
            return Ok(());
        }
        let buf = if pages == RUN_PAGES {
            std::mem::replace(&mut self.batch, self.store.batches.take())
        } else {
            // Transfers cover whole buffers.
            let mut part = Buf::zeroed(pages * self.store.page_bytes);
            let len = part.len();
            part.copy_from_slice(&self.batch[..len]);
            part
        };
        self.submit(self.batch_first, buf)
    }

    fn submit(&mut self, first: u64, buf: Buf) -> Result<(), PageError> {
        while self.queue.in_flight() >= DEPTH as usize {
            self.reap(1)?;
        }
        self.written.fetch_add(buf.len() as u64, Ordering::Relaxed);
        let write = Op::Write {
            file: Arc::clone(&self.store.file),
            offset: first * self.store.page_bytes as u64,
            buf,
        };
        if let Err(source) = self.queue.submit(first, write) {
            return Err(self.ring_failed(source));
        }
        // A ring hands operations to the kernel when it is polled.
        self.reap(0)
    }

    /// Takes completions; the token of each is its first page.
    fn reap(&mut self, at_least: usize) -> Result<(), PageError> {
        if self.queue.in_flight() > 0
            && let Err(source) = self.queue.poll(at_least, &mut self.ended)
        {
            return Err(self.ring_failed(source));
        }
        for completion in self.ended.drain(..) {
            if let Err(source) = completion.result {
                let page = PageId::new(completion.token);
                self.failed.get_or_insert(PageError::Io { page, source });
            }
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn drain(&mut self) -> Result<(), PageError> {
        while self.queue.in_flight() > 0 {
            self.reap(1)?;
        }
        self.reap(0)
    }

    /// With the ring gone nobody knows which writes are still under way: their pages must not be given out again.
    fn ring_failed(&mut self, source: northstar_io::IoError) -> PageError {
        self.store.halt(self.generation, &source);
        let page = PageId::new(self.batch_first);
        let error = PageError::Io { page, source };
        self.failed.get_or_insert(error).clone()
    }

    /// The place for the next page of the run.
    fn next_id(&mut self) -> Result<u64, PageError> {
        if self.run.count == 0 {
            self.flush()?;
            let mut state = self.store.state();
            self.run = state.space.take_run().ok_or_else(full)?;
            self.make_room(&mut state)?;
            self.forget(self.run);
        }
        let id = self.run.first;
        self.run.first += 1;
        self.run.count -= 1;
        Ok(id)
    }

    /// Makes the file long enough for every page given out.
    fn make_room(&self, state: &mut State) -> Result<(), PageError> {
        let end = state.space.end();
        self.store
            .make_room(state, end)
            .map_err(|source| PageError::Io {
                page: PageId::new(end),
                source,
            })
    }

    /// What lay there before is not to be found any more.
    fn forget(&self, span: Span) {
        for id in span.first..span.first + span.count {
            self.store.cache.forget(PageId::new(id));
        }
    }
}

fn full() -> PageError {
    PageError::OutOfRange {
        page: PageId::new(PAGES_MAX),
        pages: PAGES_MAX,
    }
}

impl PageWrite for PageSink<'_> {
    fn page_bytes(&self) -> usize {
        self.store.page_bytes
    }

    fn write(&mut self, page: &mut [u8]) -> Result<PageRef, PageError> {
        self.failed.clone().map_or(Ok(()), Err)?;
        assert_eq!(page.len(), self.store.page_bytes, "a whole page");
        // Branches are few: they fill holes, so that runs are left for leaves.
        let branch = Page::trusted(page).header().kind == PageKind::Branch as u8;
        let hole = match branch {
            true => self.store.state().space.take_hole(),
            false => None,
        };
        let id = match hole {
            Some(hole) => {
                self.forget(hole);
                hole.first
            }
            None => self.next_id()?,
        };
        let page_id = PageId::new(id);
        let reference = seal(page, page_id, self.generation, self.store.database);
        if hole.is_some() {
            self.put(id, page)?;
        } else {
            self.add(id, page)?;
        }
        // Leaves of history are read by few, and much later: they take no frame.
        if branch || Page::trusted(page).table() != TableId::HISTORY {
            let succeeds = self.successors > 0;
            self.successors = self.successors.saturating_sub(1);
            self.store.cache.insert(reference, page, succeeds || branch);
        }
        Ok(reference)
    }

    fn write_extent(&mut self, pages: &mut [Box<[u8]>]) -> Result<Vec<PageRef>, PageError> {
        self.failed.clone().map_or(Ok(()), Err)?;
        if pages.is_empty() {
            return Ok(Vec::new());
        }
        reached(Mark::ExtentWritten);
        let span = {
            let mut state = self.store.state();
            let span = state
                .space
                .take_extent(pages.len() as u64)
                .ok_or_else(full)?;
            self.make_room(&mut state)?;
            span
        };
        self.forget(span);
        let (mut refs, mut id) = (Vec::with_capacity(pages.len()), span.first);
        for part in pages.chunks_mut(RUN_PAGES) {
            let first = id;
            let mut buf = Buf::zeroed(part.len() * self.store.page_bytes);
            let places = buf.chunks_exact_mut(self.store.page_bytes);
            for (page, place) in part.iter_mut().zip(places) {
                let page_id = PageId::new(id);
                refs.push(seal(page, page_id, self.generation, self.store.database));
                place.copy_from_slice(page);
                id += 1;
            }
            self.submit(first, buf)?;
        }
        Ok(refs)
    }

    fn supersede(&mut self, page: PageId) {
        self.successors += u64::from(self.store.cache.supersede(page));
    }

    fn retire(&mut self, first: PageId, count: u32) -> Result<(), PageError> {
        let span = Span {
            first: first.get(),
            count: u64::from(count),
        };
        if count > 1 {
            reached(Mark::ExtentRetired);
            if planted("the pages of a replaced value are never free again") {
                return Ok(());
            }
        }
        if !self.store.state().space.retire(span) {
            // The tree names pages that are not in use: it is damaged, and must not be built upon.
            let unused = PageError::Structure {
                page: first,
                what: "retired pages in use",
                found: 0,
                expected: u64::from(count),
            };
            return Err(self.failed.get_or_insert(unused).clone());
        }
        Ok(())
    }
}

impl Drop for PageSink<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        while self.queue.in_flight() > 0 {
            // A write that lands after its page was given out again would destroy that page.
            self.ended.clear();
            if let Err(source) = self.queue.poll(1, &mut self.ended) {
                self.store.halt(self.generation, &source);
                return;
            }
        }
        self.store.abort();
    }
}
