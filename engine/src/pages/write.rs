//! Writing pages: the sink of one slice of a checkpoint.
//!
//! Pages get their ids in writing order, in runs of [`RUN_PAGES`] neighbours, and leave memory as one write per run,
//! a few in flight. Nothing written here is reachable before the meta page that names it is durable.
//!
//! Invariants:
//! 1. What was given out is taken back when the sink, or its [`Written`], is dropped without being committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use northstar_io::{Buf, Completion, Op, Queue};

use super::PageWrite;
use super::alloc::{Bitmap, PageRun};
use super::free;
use super::store::Store;
use crate::error::{Error, Result};
use crate::format::page::{PageError, seal};
use crate::ids::{Generation, PageId, PageRef};
use crate::limits::{PAGES_MAX, RUN_PAGES};

/// Writes in flight: enough to keep a device busy, too few to crowd out readers.
const IN_FLIGHT_MAX: usize = 4;

/// Takes the pages of one slice.
pub(crate) struct PageSink<'s> {
    store: &'s Store,
    generation: Generation,
    queue: Box<dyn Queue>,
    spare: Vec<Buf>,
    ended: Vec<Completion>,
    /// The run being filled, its buffer, and how many of its pages are.
    run: Option<(PageRun, Buf)>,
    filled: usize,
    outcome: Outcome<'s>,
    bytes: Arc<AtomicU64>,
    /// Retired pages that were in memory: their successors should be, too.
    resident_retired: u64,
}

/// What a slice took and gave.
struct Outcome<'s> {
    store: &'s Store,
    allocated: Vec<PageRun>,
    retired: Vec<PageRun>,
    committed: bool,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        if !self.committed {
            self.store.take_back(&self.allocated);
        }
    }
}

/// A slice whose pages are written and synced, and wait for their meta page.
pub(crate) struct Written<'s> {
    outcome: Outcome<'s>,
    generation: Generation,
    persisted: free::Persisted,
    /// The list of pages in use.
    pub(crate) free_directory: PageRef,
    /// Pages of the file.
    pub(crate) pages: u64,
}

impl std::fmt::Debug for PageSink<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageSink")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Written<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Written")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl<'s> PageSink<'s> {
    pub(crate) fn new(store: &'s Store, generation: Generation) -> Result<Self> {
        let queue = store
            .disk()
            .queue(u32::try_from(IN_FLIGHT_MAX).unwrap_or(1))
            .map_err(|source| Error::from_io("the data file", source))?;
        let outcome = Outcome {
            store,
            allocated: Vec::new(),
            retired: Vec::new(),
            committed: false,
        };
        Ok(Self {
            store,
            generation,
            queue,
            spare: Vec::new(),
            ended: Vec::new(),
            run: None,
            filled: 0,
            outcome,
            bytes: Arc::default(),
            resident_retired: 0,
        })
    }

    /// Bytes handed over so far; readable while a merge holds the sink.
    pub(crate) fn bytes_written_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }

    fn alloc(&mut self, count: u64) -> Result<PageRun, PageError> {
        let Some(run) = self.store.alloc(count) else {
            return Err(PageError::OutOfRange {
                page: PageId::new(PAGES_MAX),
                pages: PAGES_MAX,
            });
        };
        self.outcome.allocated.push(run);
        Ok(run)
    }

    /// Gives back pages at the end of the last run that nothing was written to.
    fn shorten(&mut self, run: PageRun, filled: u64) {
        if filled == run.count {
            return;
        }
        let rest = PageRun {
            first: run.first + filled,
            count: run.count - filled,
        };
        self.store.take_back(&[rest]);
        let kept = PageRun {
            first: run.first,
            count: filled,
        };
        if let Some(place) = self
            .outcome
            .allocated
            .iter_mut()
            .rfind(|known| **known == run)
        {
            *place = kept;
        }
    }

    fn flush_run(&mut self) -> Result<(), PageError> {
        let Some((run, mut buf)) = self.run.take() else {
            return Ok(());
        };
        let filled = std::mem::take(&mut self.filled);
        self.shorten(run, filled as u64);
        if filled == 0 {
            self.spare.push(buf);
            return Ok(());
        }
        let page_bytes = self.store.page_bytes();
        if filled < RUN_PAGES {
            // A shorter buffer for a shorter write.
            let mut short = Buf::zeroed(filled * page_bytes);
            short.copy_from_slice(&buf[..filled * page_bytes]);
            std::mem::swap(&mut buf, &mut short);
            self.spare.push(short);
        }
        self.submit(run.first, buf)
    }

    fn submit(&mut self, first: u64, buf: Buf) -> Result<(), PageError> {
        while self.queue.in_flight() >= IN_FLIGHT_MAX {
            self.reap(1)?;
        }
        let page = PageId::new(first);
        let offset = first * self.store.page_bytes() as u64;
        let op = Op::Write {
            file: Arc::clone(self.store.file()),
            offset,
            buf,
        };
        self.queue
            .submit(first, op)
            .map_err(|source| PageError::Io { page, source })
    }

    fn reap(&mut self, at_least: usize) -> Result<(), PageError> {
        let failed = |page, source| PageError::Io { page, source };
        self.queue
            .poll(at_least, &mut self.ended)
            .map_err(|source| failed(PageId::default(), source))?;
        let whole = RUN_PAGES * self.store.page_bytes();
        for ended in self.ended.drain(..) {
            ended
                .result
                .map_err(|source| failed(PageId::new(ended.token), source))?;
            if let Some(buf) = ended.buf.filter(|buf| buf.len() == whole) {
                self.spare.push(buf);
            }
        }
        Ok(())
    }

    /// Writes one page into its place in the current run.
    fn place(&mut self, page: &mut [u8]) -> Result<PageRef, PageError> {
        let page_bytes = self.store.page_bytes();
        if self.run.is_none() {
            let run = self.alloc(RUN_PAGES as u64)?;
            let buf = self
                .spare
                .pop()
                .unwrap_or_else(|| Buf::zeroed(RUN_PAGES * page_bytes));
            self.run = Some((run, buf));
        }
        let Some((run, buf)) = &mut self.run else {
            unreachable!("made above")
        };
        let id = PageId::new(run.first + self.filled as u64);
        let page_ref = seal(page, id, self.generation, self.store.database());
        let at = self.filled * page_bytes;
        buf[at..at + page_bytes].copy_from_slice(page);
        self.filled += 1;
        self.bytes.fetch_add(page_bytes as u64, Ordering::Relaxed);
        if self.filled == RUN_PAGES {
            self.flush_run()?;
        }
        Ok(page_ref)
    }

    /// Writes the free map, waits for every write, and syncs.
    pub(crate) fn finish(mut self) -> Result<Written<'s>> {
        let (free_directory, persisted) = self.write_free_map()?;
        self.flush_run()?;
        while self.queue.in_flight() > 0 {
            self.reap(1)?;
        }
        self.store.sync(self.bytes.load(Ordering::Relaxed))?;
        let pages = self.store.pages();
        let Self {
            outcome,
            generation,
            ..
        } = self;
        Ok(Written {
            outcome,
            generation,
            persisted,
            free_directory,
            pages,
        })
    }

    /// Writes the pages of the free map that differ from what is persisted, and the list of them all.
    ///
    /// Writing a page of the map takes a page, which changes the map: so places are found until nothing more
    /// changes, and only then is anything encoded.
    fn write_free_map(&mut self) -> Result<(PageRef, free::Persisted)> {
        // Whatever the last run has left over is settled before the map is drawn.
        self.flush_run()?;
        let mut next = self.store.persisted();
        let page_bytes = self.store.page_bytes();
        let mut placed: Vec<(usize, PageId)> = Vec::new();
        let directory = self.single()?;
        if let Some(old) = next.directory {
            self.outcome.retired.push(PageRun::new(old.id, 1));
        }
        let map = loop {
            let map = self.store.reachable(&self.outcome.retired);
            let changed = free::changed_windows(&next.map, &map, page_bytes);
            let new: Vec<usize> = changed
                .into_iter()
                .filter(|window| placed.iter().all(|(known, _)| known != window))
                .collect();
            if new.is_empty() {
                break map;
            }
            for window in new {
                placed.push((window, self.single()?));
                if let Some(Some(old)) = next.pages.get(window) {
                    self.outcome.retired.push(PageRun::new(old.id, 1));
                }
            }
        };
        for (window, id) in placed {
            let mut page = free::encode_window(&map, window, page_bytes);
            let page_ref = self.write_single(id, &mut page)?;
            if window >= next.pages.len() {
                next.pages.resize(window + 1, None);
            }
            next.pages[window] = Some(page_ref);
        }
        next.map = map;
        let mut page =
            free::encode_directory(&next.pages, page_bytes).ok_or(PageError::OutOfRange {
                page: directory,
                pages: PAGES_MAX,
            })?;
        let directory = self.write_single(directory, &mut page)?;
        next.directory = Some(directory);
        Ok((directory, next))
    }

    fn single(&mut self) -> Result<PageId, PageError> {
        Ok(PageId::new(self.alloc(1)?.first))
    }

    fn write_single(&mut self, id: PageId, page: &mut [u8]) -> Result<PageRef, PageError> {
        let page_ref = seal(page, id, self.generation, self.store.database());
        let mut buf = Buf::zeroed(page.len());
        buf.copy_from_slice(page);
        self.submit(id.get(), buf)?;
        self.bytes.fetch_add(page.len() as u64, Ordering::Relaxed);
        Ok(page_ref)
    }
}

impl PageWrite for PageSink<'_> {
    fn page_bytes(&self) -> usize {
        self.store.page_bytes()
    }

    fn write(&mut self, page: &mut [u8]) -> Result<PageRef, PageError> {
        let page_ref = self.place(page)?;
        let supersedes = self.resident_retired > 0;
        self.resident_retired = self.resident_retired.saturating_sub(1);
        self.store.cache().insert(page_ref, page, supersedes);
        Ok(page_ref)
    }

    fn write_extent(&mut self, pages: &mut [Box<[u8]>]) -> Result<Vec<PageRef>, PageError> {
        let page_bytes = self.store.page_bytes();
        let run = self.alloc(pages.len() as u64)?;
        let mut refs = Vec::with_capacity(pages.len());
        for (chunk, first) in pages
            .chunks_mut(RUN_PAGES)
            .zip((run.first..).step_by(RUN_PAGES))
        {
            let mut buf = Buf::zeroed(chunk.len() * page_bytes);
            for ((page, place), id) in chunk
                .iter_mut()
                .zip(buf.chunks_mut(page_bytes))
                .zip(first..)
            {
                let id = PageId::new(id);
                refs.push(seal(page, id, self.generation, self.store.database()));
                place.copy_from_slice(page);
            }
            self.bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
            self.submit(first, buf)?;
        }
        Ok(refs)
    }

    fn retire(&mut self, first: PageId, count: u32) {
        self.resident_retired += u64::from(count == 1 && self.store.cache().holds(first));
        self.outcome.retired.push(PageRun::new(first, count.into()));
    }
}

impl Written<'_> {
    /// The meta page that names these pages is durable.
    pub(crate) fn commit(mut self) {
        self.outcome.committed = true;
        let retired = std::mem::take(&mut self.outcome.retired);
        let persisted = std::mem::take(&mut self.persisted);
        self.outcome
            .store
            .committed(self.generation, retired, persisted);
    }

    /// What is reachable once committed.
    pub(crate) fn map(&self) -> &Bitmap {
        &self.persisted.map
    }
}
