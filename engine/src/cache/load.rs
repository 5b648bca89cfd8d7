//! Misses: one thread reads a page, the others that want it wait for that read.
//!
//! - Threads: any. No guard and no lock is held while the device works.
//! - Failure: a read that fails, or whose bytes do not verify, is repeated once into other memory; then every
//!   waiter gets the error. A reader that panics wakes the waiters, and one of them takes over.

use std::collections::BTreeMap;
use std::sync::Arc;

use northstar_io::{Buf, IoError};

use super::arena::FrameBuf;
use super::frame::Rank;
use super::stats::count;
use super::{Cache, Class, Pin, ahead, epoch};
use crate::format::page::{Page, PageError, PageKind};
use crate::ids::{PageId, PageRef};
use crate::limits::{PAGES_MAX, RUN_PAGES};
use crate::marks::{Mark, reached};
use crate::sync::{Condvar, Mutex};

const SHARDS: usize = 16;
/// Reads of a page before its error is believed.
const ATTEMPTS: usize = 2;

/// How a read ended: in the cache, in memory outside it, or not.
type Outcome = Result<Option<Arc<Buf>>, PageError>;
type Key = (u64, u32, u32);

/// Reads under way.
#[derive(Debug, Default)]
pub(super) struct Loads {
    shards: [Shard; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    reading: Mutex<BTreeMap<Key, Arc<Mutex<Option<Outcome>>>>>,
    ended: Condvar,
}

/// What a thread that wants a page is told.
enum Role<'a> {
    /// Read it, and say how that went.
    Read(Turn<'a>),
    /// Another thread did; `None` if it gave up without a result.
    Ended(Option<Outcome>),
}

/// The duty to read a page. Dropping it ends the read for those who wait.
struct Turn<'a> {
    shard: &'a Shard,
    key: Key,
    result: Arc<Mutex<Option<Outcome>>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.shard.reading.lock().remove(&self.key);
        self.shard.ended.notify_all();
    }
}

impl Loads {
    fn join(&self, page: PageRef) -> Role<'_> {
        let key = (page.id.get(), page.checksum, page.generation.get());
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
        let shard = &self.shards[page.id.get() as usize % SHARDS];
        let mut reading = shard.reading.lock();
        let Some(result) = reading.get(&key).map(Arc::clone) else {
            let result = Arc::default();
            reading.insert(key, Arc::clone(&result));
            return Role::Read(Turn { shard, key, result });
        };
        reached(Mark::ReadJoined);
        while reading
            .get(&key)
            .is_some_and(|now| Arc::ptr_eq(now, &result))
        {
            reading = shard.ended.wait(reading);
        }
        Role::Ended(result.lock().clone())
    }
}

impl Cache {
    /// The page, read and verified if need be. Blocks for I/O; the caller holds no guard.
    ///
    /// # Errors
    /// What the device or the check of the page's bytes report, twice.
    pub(crate) fn load(&self, page: PageRef, class: Class) -> Result<Pin<'_>, PageError> {
        if let Some(pin) = self.resident(page, class) {
            return Ok(pin);
        }
        self.miss(page, class)
    }

    #[cold]
    fn miss(&self, page: PageRef, class: Class) -> Result<Pin<'_>, PageError> {
        debug_assert!(!epoch::inside(), "a guard is held across I/O");
        count(&self.counters.misses);
        if page.id.get() >= PAGES_MAX {
            return Err(PageError::OutOfRange {
                page: page.id,
                pages: PAGES_MAX,
            });
        }
        if let Some(buf) = ahead::take(self, page) {
            return Ok(Pin::Owned(Arc::new(buf)));
        }
        loop {
            // Also what a read ahead may just have brought in.
            if let Some(pin) = self.resident(page, class) {
                return Ok(pin);
            }
            if class == Class::Once {
                return Ok(Pin::Owned(Arc::new(self.read_owned(page)?)));
            }
            match self.loads.join(page) {
                Role::Ended(Some(Err(error))) => return Err(error),
                Role::Ended(Some(Ok(Some(buf)))) => return Ok(Pin::Owned(buf)),
                Role::Ended(Some(Ok(None)) | None) => {}
                Role::Read(turn) => {
                    // The read before this one may have ended between our look and our turn.
                    if let Some(pin) = self.resident(page, class) {
                        return Ok(pin);
                    }
                    let pin = self.read(page, class);
                    *turn.result.lock() = Some(match &pin {
                        Ok(Pin::Frame(_)) => Ok(None),
                        Ok(Pin::Owned(buf)) => Ok(Some(Arc::clone(buf))),
                        Err(error) => Err(error.clone()),
                    });
                    return pin;
                }
            }
        }
    }

    fn read(&self, page: PageRef, class: Class) -> Result<Pin<'_>, PageError> {
        let Some(first) = self.take_frame() else {
            count(&self.counters.fallbacks);
            reached(Mark::FramesExhausted);
            return Ok(Pin::Owned(Arc::new(self.read_owned(page)?)));
        };
        let FrameBuf { lease, mut buf } = first;
        match self.fill(page, &mut buf) {
            Ok(()) => Ok(Pin::Frame(self.publish(&lease, buf, page, class))),
            Err(_) => {
                count(&self.counters.retries);
                reached(Mark::ReadRepeated);
                drop((lease, buf));
                let mut again = self.once.take();
                self.fill(page, &mut again)
                    .inspect_err(|_| reached(Mark::PageRefused))?;
                Ok(Pin::Owned(Arc::new(again)))
            }
        }
    }

    /// Reads a page into memory outside the arena.
    fn read_owned(&self, page: PageRef) -> Result<Buf, PageError> {
        let mut buf = self.once.take();
        if self.fill(page, &mut buf).is_err() {
            count(&self.counters.retries);
            buf = self.once.take();
            self.fill(page, &mut buf)?;
        }
        Ok(buf)
    }

    fn fill(&self, page: PageRef, buf: &mut Buf) -> Result<(), PageError> {
        count(&self.counters.reads);
        self.read_at(page.id, buf)?;
        self.verify(buf, page)
    }

    /// Fills `buf` from the page's place on.
    fn read_at(&self, id: PageId, buf: &mut Buf) -> Result<(), PageError> {
        let offset = id.get() * self.page_bytes as u64;
        self.file
            .read_at(offset, buf)
            .map_err(|source| self.io_error(id, source))
    }

    /// Lifts a device's error, telling a page beyond the file from a page that cannot be read.
    pub(super) fn io_error(&self, page: PageId, source: IoError) -> PageError {
        if source.errno == IoError::END_OF_FILE
            && let Ok(len) = self.file.len()
        {
            let pages = len / self.page_bytes as u64;
            return PageError::OutOfRange { page, pages };
        }
        PageError::Io { page, source }
    }

    /// Checks everything about the bytes that readers then rely on.
    pub(super) fn verify(&self, bytes: &[u8], page: PageRef) -> Result<(), PageError> {
        (self.check)(Page::verify(bytes, page, self.database)?)
    }

    /// Reads neighbouring overflow pages and hands them to `each` in order; see [`crate::pages::PageRead`].
    ///
    /// # Errors
    /// The device's, a page's own, or what `each` says.
    pub(crate) fn read_run(
        &self,
        first: PageId,
        pages: u32,
        class: Class,
        each: &mut dyn FnMut(Page<'_>) -> Result<(), PageError>,
    ) -> Result<(), PageError> {
        debug_assert!(!epoch::inside(), "a guard is held across I/O");
        let end = first.get().saturating_add(u64::from(pages));
        if end > PAGES_MAX {
            return Err(PageError::OutOfRange {
                page: first,
                pages: PAGES_MAX,
            });
        }
        let keep = class == Class::Point && pages as usize <= RUN_PAGES;
        let mut at = first.get();
        while at < end {
            if let Some(pin) = self.resident_run_page(PageId::new(at)) {
                each(Page::trusted(pin.bytes()).expect(PageKind::Overflow)?)?;
                at += 1;
                continue;
            }
            let mut span = 1;
            while at + span < end
                && span < RUN_PAGES as u64
                && self.resident_run_page(PageId::new(at + span)).is_none()
            {
                span += 1;
            }
            let buf = self.read_span(PageId::new(at), span)?;
            for bytes in buf.chunks_exact(self.page_bytes) {
                let page = Page::trusted(bytes);
                each(page)?;
                if keep {
                    self.keep(page.reference(), bytes, Rank::Point, 1, true);
                }
            }
            at += span;
        }
        Ok(())
    }

    /// `span` overflow pages in one read, each verified in itself.
    fn read_span(&self, first: PageId, span: u64) -> Result<Buf, PageError> {
        let len = usize::try_from(span).unwrap_or(1) * self.page_bytes;
        let mut result = Ok(());
        for _ in 0..ATTEMPTS {
            let mut buf = Buf::zeroed(len);
            count(&self.counters.reads);
            result = self.read_at(first, &mut buf).and_then(|()| {
                let mut id = first;
                for bytes in buf.chunks_exact(self.page_bytes) {
                    let page = Page::verify_unreferenced(bytes, id, self.database)?;
                    (self.check)(page.expect(PageKind::Overflow)?)?;
                    id = id.next();
                }
                Ok(())
            });
            if result.is_ok() {
                return Ok(buf);
            }
            count(&self.counters.retries);
        }
        result.map(|()| Buf::zeroed(0))
    }

    fn resident_run_page(&self, id: PageId) -> Option<Pin<'_>> {
        let guard = epoch::enter();
        let frame = self.map.get(id)?;
        let bytes = self.arena.view(&guard, frame, id)?;
        Page::trusted(bytes).expect(PageKind::Overflow).ok()?;
        Some(Pin::Frame(self.arena.pin(bytes)?))
    }
}
